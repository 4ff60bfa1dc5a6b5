use std::io::Write;

use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

const DOCUMENT: &str = "#docker\nimage: centos\ncmd: echo \"\u{e9}?~\u{ff}\"\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn outcome(bytes: &[u8]) -> String {
    match decode(bytes) {
        Ok(Decoded::Docker(text)) => text,
        Ok(Decoded::NotDocker(kind)) => format!("{kind:?}"),
        Err(error) => error.code().to_owned(),
    }
}

fn multipart(parts: &[(&str, &str)]) -> String {
    let mut message =
        "Content-Type: multipart/mixed; boundary=\"===42==\"\nMIME-Version: 1.0\n\npreamble\n"
            .to_owned();
    for (headers, body) in parts {
        message.push_str(&format!("--===42==\n{headers}\n\n{body}\n"));
    }
    message + "--===42==--\n"
}

#[test]
fn header_line() {
    let ours = [
        "#docker\n",
        "#docker",
        "\u{feff}#docker\r\nimage: x\r\n",
        "\n \t\r\n#Docker  \nimage: x",
        "#DOCKER v1\n",
        "#docker 1\n",
        "  #docker\tV1\n",
    ];
    for text in ours {
        let expected = text.trim_start_matches('\u{feff}');
        assert_eq!(outcome(text.as_bytes()), expected, "{text:?}");
    }
    let others = ["#docker2\n", "#docker v2\n", "# docker\n", "#dockerv1", "x\n#docker\n"];
    for text in others {
        assert_eq!(outcome(text.as_bytes()), "Text", "{text:?}");
    }
}

#[test]
fn wrappings_and_their_limits() {
    let once = base64(DOCUMENT);
    let twice = base64(&once);
    let wrapped: String =
        once.as_bytes().chunks(20).map(|c| format!("{}\r\n", String::from_utf8_lossy(c))).collect();
    let packed = gzip(DOCUMENT.as_bytes());
    for bytes in [
        DOCUMENT.as_bytes(),
        once.as_bytes(),
        twice.as_bytes(),
        wrapped.as_bytes(),
        STANDARD_NO_PAD.encode(DOCUMENT).as_bytes(),
        URL_SAFE.encode(DOCUMENT).as_bytes(),
        &packed,
        base64(&packed).as_bytes(),
        base64(gzip(once.as_bytes())).as_bytes(),
        &gzip(&packed),
        format!("{DOCUMENT}\0\0\0").as_bytes(),
    ] {
        assert_eq!(outcome(bytes), DOCUMENT);
    }
    let thrice = base64(&twice);
    let latin1 = base64(b"#docker\nimage: \xff\n");
    let refused: [(&[u8], &str); 9] = [
        (thrice.as_bytes(), "user_data_base64_depth"),
        (&gzip(&gzip(&packed)), "user_data_gzip_depth"),
        (&packed[..packed.len() - 6], "user_data_gzip_broken"),
        (&gzip(&vec![b'#'; MAX_UNPACKED_BYTES + 1]), "user_data_gzip_too_large"),
        (&vec![b'#'; MAX_USER_DATA_BYTES + 1], "user_data_too_large"),
        (b"", "user_data_empty"),
        (b" \r\n\0", "user_data_empty"),
        (b"#docker\nimage: \xff\n", "user_data_not_utf8"),
        (latin1.as_bytes(), "user_data_not_utf8"),
    ];
    for (bytes, expected) in refused {
        assert_eq!(outcome(bytes), expected);
    }
}

#[test]
fn what_it_is_instead() {
    let encoded = base64("#cloud-config\n");
    let cases: [(&[u8], &str); 9] = [
        (encoded.as_bytes(), "CloudConfig"),
        (b"two words", "Text"),
        (b"#cloud-config\npackages: [x]\n", "CloudConfig"),
        (b"#!/bin/sh\necho\n", "Script"),
        (b"{\"ignition\": {}}", "Ignition"),
        (b"image: centos\n", "HeaderMissing"),
        (b"hello world.\n", "Text"),
        (b"\x7fELF\x01\x02\xff", "Binary"),
        (b"abc\x01\x02def.", "Binary"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(outcome(bytes), expected);
    }
}

#[test]
fn mime_parts() {
    let cloud = ("Content-Type: text/cloud-config; charset=\"us-ascii\"", "#cloud-config\nx: 1");
    let heat = (
        "Content-Type: text/x-cfninitdata; charset=\"us-ascii\"\nMIME-Version: 1.0\nContent-Transfer-Encoding: 7bit\nContent-Disposition: attachment; filename=\"cfn-userdata\"",
        DOCUMENT,
    );
    let encoded = base64(DOCUMENT);
    let base64_part = ("content-type: TEXT/X-Docker\nContent-Transfer-Encoding: BASE64", &*encoded);
    let quoted =
        DOCUMENT.replace('=', "=3D").replace('\u{e9}', "=C3=A9").replace("centos", "cen=\ntos");
    let quoted_part =
        ("Content-Type: text/x-docker\nContent-Transfer-Encoding: quoted-printable", &*quoted);
    let folded = ("Content-Type: text/plain;\n charset=utf-8;\n\tname=x", DOCUMENT);
    for part in [heat, base64_part, quoted_part, folded] {
        assert_eq!(outcome(multipart(&[cloud, part]).as_bytes()), DOCUMENT, "{}", part.0);
    }
    let no_header_line = ("Content-Type: text/x-docker", "image: centos");
    assert_eq!(outcome(multipart(&[no_header_line]).as_bytes()), "image: centos");
    let crlf = multipart(&[cloud, heat]).replace('\n', "\r\n");
    assert_eq!(outcome(crlf.as_bytes()), DOCUMENT.replace('\n', "\r\n"));
    assert_eq!(outcome(base64(multipart(&[heat])).as_bytes()), DOCUMENT);
    assert_eq!(outcome(multipart(&[cloud]).as_bytes()), "Mime");
    let unclosed = multipart(&[cloud, heat]).replace("--===42==--", "");
    assert_eq!(outcome(unclosed.as_bytes()).trim_end(), DOCUMENT.trim_end());
    let envelope = format!("From nobody Mon Jan  1 2024\n{}", multipart(&[heat]));
    assert_eq!(outcome(envelope.as_bytes()), DOCUMENT);
    let single = format!("MIME-Version: 1.0\nContent-Type: text/x-docker\n\n{DOCUMENT}");
    assert_eq!(outcome(single.as_bytes()), DOCUMENT);
}

#[test]
fn mime_limits_and_faults() {
    let part = ("Content-Type: text/x-docker", DOCUMENT);
    let nested = |levels: usize| {
        let mut message = format!("Content-Type: text/x-docker\n\n{DOCUMENT}");
        for level in 0..levels {
            message = format!(
                "Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n{message}\n--b{level}--\n"
            );
        }
        message
    };
    let many: Vec<_> = (0..=mime::MAX_PARTS).map(|_| ("Content-Type: text/plain", "x")).collect();
    let long_header =
        format!("Content-Type: text/x-docker; x={}", "x".repeat(mime::MAX_HEADER_BYTES));
    let coding = |name: &str, body: &str| {
        multipart(&[(
            &format!("Content-Type: text/x-docker\nContent-Transfer-Encoding: {name}"),
            body,
        )])
    };
    let cases = [
        (multipart(&[part, part]), "user_data_mime_many_docker"),
        (nested(MAX_MIME_LEVELS as usize + 1), "user_data_mime_depth"),
        (multipart(&many), "user_data_mime_parts"),
        (multipart(&[(&long_header, DOCUMENT)]), "user_data_mime_header"),
        (multipart(&[("no header at all", DOCUMENT)]), "user_data_mime_header"),
        ("Content-Type: multipart/mixed\n\n--x\n\nx\n--x--".into(), "user_data_mime_boundary"),
        ("Content-Type: multipart/mixed; boundary=b\n\nnothing".into(), "user_data_mime_boundary"),
        (coding("x-uuencode", DOCUMENT), "user_data_mime_encoding"),
        (coding("base64", "!!!"), "user_data_mime_encoding"),
        (coding("quoted-printable", "image: =ZZ"), "user_data_mime_encoding"),
    ];
    for (message, expected) in cases {
        assert_eq!(outcome(message.as_bytes()), expected, "{message:.80}");
    }
    assert_eq!(
        outcome(nested(MAX_MIME_LEVELS as usize).as_bytes()).trim_end(),
        DOCUMENT.trim_end()
    );
}
