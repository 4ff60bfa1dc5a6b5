//! Percent-decoding (RFC 3986 §2.1), for paths and for queries.

/// Decodes `%XX`. `None` where an escape is cut short or is not hexadecimal.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(decoded)
}

/// Decodes `%XX` to a text. `None` also where what comes out is not UTF-8.
pub fn decode_text(text: &str) -> Option<String> {
    String::from_utf8(decode(text)?).ok()
}

/// Decodes one side of a `name=value` pair of a query, where `+` stands for a space.
pub(crate) fn decode_query(text: &str) -> Option<String> {
    decode_text(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_broken_ones_refused() {
        assert_eq!(decode("a%2Fb%c3%BC"), Some("a/bü".into()));
        assert_eq!(decode_query("a+b%2B"), Some("a b+".into()));
        for broken in ["%", "%2", "%zz", "a%2"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }
}
