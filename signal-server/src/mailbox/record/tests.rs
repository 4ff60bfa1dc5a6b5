use super::*;

fn record(body: BodyPlace) -> ObjectRecord {
    ObjectRecord {
        info: ObjectInfo {
            etag: "d41d8cd98f00b204e9800998ecf8427e".to_owned(),
            n_bytes: 5,
            content_type: "application/json".to_owned(),
            modified_at: Timestamp::new(1_700_000_000, 123_456_789).expect("a time"),
        },
        body,
    }
}

fn head() -> HeadRecord {
    let mut head = HeadRecord::new(Number([0xab; 16]), Timestamp::UNIX_EPOCH);
    (head.next_signal, head.n_pending, head.n_bytes, head.version) = (258, 2, 800, 300);
    head.used_at = Timestamp::new(1_700_000_000, 123_456_789).expect("a time");
    head
}

#[test]
fn an_object_reads_back_with_the_body_only_if_it_is_inline() {
    for (place, expect) in [(BodyPlace::Inline, "hello"), (BodyPlace::Apart(Number([7; 16])), "")] {
        let bytes = encode_object(&record(place), b"hello");
        let (read, body) = decode_object(KeyKind::Signal, &bytes).expect("reads back");
        assert_eq!(read.info, record(place).info);
        assert_eq!(read.body, place);
        assert_eq!(body, expect);
    }
}

#[test]
fn an_object_that_is_cut_or_of_another_format_is_refused() {
    let whole = encode_object(&record(BodyPlace::Inline), b"");
    for length in 0..whole.len() {
        assert!(decode_object(KeyKind::Signal, &whole.slice(..length)).is_err(), "{length} bytes");
    }
    let mut other = whole.to_vec();
    other[0] = BINARY_FORMAT + 1;
    assert!(decode_object(KeyKind::Signal, &other.into()).is_err());
}

#[test]
fn a_head_that_is_cut_too_long_or_of_another_format_is_refused() {
    let whole = encode(&head());
    for length in 0..whole.len() {
        assert!(
            decode::<HeadRecord>(KeyKind::Mailbox, &whole[..length]).is_err(),
            "{length} bytes"
        );
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(decode::<HeadRecord>(KeyKind::Mailbox, &longer).is_err());
    let other = [&[BINARY_FORMAT + 1], &whole[1..]].concat();
    assert!(decode::<HeadRecord>(KeyKind::Mailbox, &other).is_err());
}

#[test]
fn the_format_of_a_head_does_not_change_by_accident() {
    let bytes = encode(&head());
    assert_eq!(
        hex::encode(&bytes),
        "02abababababababababababababababab\
         0201000000000000020000000000000020030000000000002c01000000000000\
         000000000000000000000000\
         00f153650000000015cd5b07"
    );
    let read: HeadRecord = decode(KeyKind::Mailbox, &bytes).expect("reads back");
    assert_eq!(format!("{read:?}"), format!("{:?}", head()));
}

#[test]
fn the_format_of_an_object_does_not_change_by_accident() {
    let bytes = encode_object(&record(BodyPlace::Apart(Number([7; 16]))), b"");
    assert_eq!(
        hex::encode(&bytes[..44]),
        "0257000000\
         07070707070707070707070707070707\
         01\
         0500000000000000\
         00f153650000000015cd5b07\
         2000"
    );
    assert_eq!(bytes[44..], b"d41d8cd98f00b204e9800998ecf8427eapplication/json"[..]);
}

#[test]
fn what_earlier_relays_wrote_is_read() {
    let head =
        b"\x01{\"number\":\"abababababababababababababababab\",\"next_signal\":1,\"n_pending\":0,\
                 \"n_bytes\":0,\"version\":1,\"created_at\":\"1970-01-01T00:00:00Z\",\
                 \"used_at\":\"1970-01-01T00:00:00Z\"}";
    let read: HeadRecord = decode(KeyKind::Mailbox, head).expect("reads");
    assert_eq!(read.number, Number([0xab; 16]));

    let description = br#"{"object":{"etag":"e","n_bytes":5,"content_type":"c","modified_at":"1970-01-01T00:00:00Z"},"body":"inline"}"#;
    let mut object = vec![FORMAT];
    object.extend_from_slice(&u32::try_from(description.len()).expect("short").to_le_bytes());
    object.extend_from_slice(description);
    object.extend_from_slice(b"hello");
    let (read, body) = decode_object(KeyKind::Signal, &object.into()).expect("reads");
    assert_eq!(
        (read.info.etag.as_str(), read.body, &body[..]),
        ("e", BodyPlace::Inline, &b"hello"[..])
    );
}
