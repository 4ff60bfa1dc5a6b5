//! Text that leaves the agent: one line, bounded, without control characters and without the query
//! of any URL in it, because a query may carry a signature.

/// What stands where text was cut.
const ELLIPSIS: &str = "…";

/// One line for a reason or a log: control characters become spaces, runs of white space shrink to
/// one space, URL queries are cut and at most `max_bytes` remain.
pub fn clean(text: &str, max_bytes: usize) -> String {
    let text = without_escapes(text);
    let mut line = String::with_capacity(text.len().min(max_bytes));
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        push_without_query(&mut line, word);
        if line.len() > max_bytes {
            break;
        }
    }
    shorten(&line, max_bytes)
}

/// Several lines of a container's output, without what a terminal would act on; of what is too long
/// the end is kept, because the end says why it failed.
pub fn clean_tail(text: &str, max_bytes: usize) -> String {
    let kept = without_controls(text);
    let kept = kept.trim_matches('\n');
    if kept.len() <= max_bytes {
        return kept.to_owned();
    }
    let mut start = kept.len() - max_bytes.saturating_sub(ELLIPSIS.len());
    while !kept.is_char_boundary(start) {
        start += 1;
    }
    format!("{ELLIPSIS}{}", &kept[start..])
}

/// The text without terminal control sequences and without control characters other than line feeds
/// and tabs.
pub fn without_controls(text: &str) -> String {
    let is_kept = |c: &char| matches!(c, '\n' | '\t') || !c.is_control();
    without_escapes(text).chars().filter(is_kept).collect()
}

/// At most `max_bytes` of the text; what was cut is marked.
pub fn shorten(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let mut end = max_bytes.saturating_sub(ELLIPSIS.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ELLIPSIS}", &text[..end])
}

/// The text without terminal control sequences, such as those for colours (ECMA-48, 5.4).
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            plain.push(c);
            continue;
        }
        if chars.next_if_eq(&'[').is_some() {
            // Parameters and intermediates, then the final byte.
            while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
            chars.next_if(|c| matches!(c, '@'..='~'));
        }
    }
    plain
}

/// The word, without what stands between `?` and the end of a URL in it.
fn push_without_query(line: &mut String, word: &str) {
    let is_url = word.contains("://");
    match word.split_once('?') {
        Some((before, query)) if is_url => {
            line.push_str(before);
            let after = query.find(['"', '\'', ')', '>']).map_or("", |end| &query[end..]);
            line.push_str(after);
        }
        _ => line.push_str(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_bounded_line_without_queries() {
        let check = |input: &str, max: usize, expect: &str| {
            assert_eq!(clean(input, max), expect, "{input:?}");
        };
        check("plain", 100, "plain");
        check("two\nlines\r\n\tand \u{1b}[31mcolour", 100, "two lines and colour");
        check(
            "Get \"https://r.example/v2/?sig=abc\": refused",
            100,
            "Get \"https://r.example/v2/\": refused",
        );
        check("is it ? yes", 100, "is it ? yes");
        check("aaaaaaaaaa", 8, "aaaaa…");
        check("ääääää", 8, "ää…");
    }

    #[test]
    fn of_a_log_the_end_is_kept() {
        let check = |input: &str, max: usize, expect: &str| {
            assert_eq!(clean_tail(input, max), expect, "{input:?}");
        };
        check("one\ntwo\n", 100, "one\ntwo");
        check("\u{1b}[1;31mred\u{1b}[0m\u{7}\n", 100, "red");
        check("\u{1b}", 100, "");
        check("a\u{1b}[", 100, "a");
        check("a\u{1b}[31", 100, "a");
        check("0123456789", 8, "…56789");
        check("ääääää", 8, "…ää");
    }
}
