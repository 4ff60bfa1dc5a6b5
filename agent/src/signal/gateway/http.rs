//! HTTP as Neutron's metadata path needs it.
//!
//! The metadata agent of 2025.1 and later reads a request with one `recv`. What is not there by then is
//! lost, so head and body go out in one write, without `Expect` and never chunked. No header of ours
//! arrives anyway, and one, `X-Forwarded-For`, would have the request dropped; so there are none but
//! those that HTTP itself needs. One connection carries one request.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The proxy is on this machine's own hypervisor or network node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Neutron's haproxy gives up after 32 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

/// The relay's answers have some hundred bytes, Neutron's pages of errors some more.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The largest request that is sent here, in bytes. Neutron reads 4,096, of which its haproxy uses
/// some 250.
pub(crate) const MAX_REQUEST_BYTES: usize = 3_000;

/// The largest request that fits one TCP segment, in bytes, also where tunnels leave 1,280 of it.
pub(crate) const MAX_SEGMENT_BYTES: usize = 1_200;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A request as it is written.
pub(crate) fn request(method: &str, host: &str, target: &str, body: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request and reads the answer.
pub(crate) async fn exchange(address: SocketAddr, request: &str) -> io::Result<Answer> {
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let mut stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    // Fits the empty buffer of a new socket, so this is one write.
    stream.write_all(request.as_bytes()).await?;
    timeout(ANSWER_TIMEOUT, read(&mut stream))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn read(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    loop {
        if let Some(answer) = parse(&bytes, false) {
            return Ok(answer);
        }
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err(malformed("answer is too long"));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            let cut = || malformed("connection was closed before the answer was whole");
            return parse(&bytes, true).ok_or_else(cut);
        }
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The answer, if it is whole: by its length, by its last chunk, or because nothing follows.
fn parse(bytes: &[u8], is_all: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let body = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let header = |wanted: &str| {
        head.split("\r\n").skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    };
    let is_chunked = header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let length = header("content-length").and_then(|value| value.parse::<usize>().ok());
    let body = match (is_chunked, length) {
        (true, _) => unchunk(body)?,
        (false, Some(length)) => body.get(..length)?.to_vec(),
        (false, None) => is_all.then(|| body.to_vec())?,
    };
    Some(Answer { status, body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        let chunk_end = (end + 2).checked_add(size)?;
        body.extend_from_slice(rest.get(end + 2..chunk_end)?);
        if size == 0 {
            return Some(body);
        }
        rest = rest.get(chunk_end + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &str, is_all: bool, expect: Option<(u16, &str)>) {
        let seen = parse(bytes.as_bytes(), is_all);
        let expect = expect.map(|(status, body)| Answer { status, body: body.into() });
        assert_eq!(seen, expect, "{bytes:?}");
    }

    #[test]
    fn an_answer_is_whole_by_length_by_chunks_or_at_the_end() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", false, Some((200, "{}")));
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{", false, None);
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{", true, None);
        check("HTTP/1.0 404 Not Found\r\n\r\npage", false, None);
        check("HTTP/1.0 404 Not Found\r\n\r\npage", true, Some((404, "page")));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{chunked}3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n"), false, Some((200, "abcd")));
        check(&format!("{chunked}3\r\nabc\r\n"), true, None);
        for broken in ["", "HTTP/1.1", "SMTP\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 2\r\n\r\n"]
        {
            check(broken, true, None);
        }
        let huge = format!("{chunked}ffffffffffffffff\r\nabc\r\n");
        check(&huge, true, None);
    }

    #[test]
    fn a_request_has_its_length_and_no_header_that_hurts() {
        assert_eq!(
            request("PUT", "169.254.169.254", "/x?d=1", "{}"),
            "PUT /x?d=1 HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\
             Content-Length: 2\r\n\r\n{}"
        );
    }
}
