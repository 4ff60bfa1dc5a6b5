//! A tree as YAML that reads back as the same tree.
//!
//! Block style for maps and lists, and double quotes around every text that could be read as
//! something else.

use std::fmt::Write;

use crate::userdata::yaml::{Content, Node, Scalar};

/// The text, with the `#docker` line first.
pub(crate) fn document(root: &Node) -> String {
    let mut text = "#docker\n".to_owned();
    node(&mut text, root, 0);
    text
}

fn node(text: &mut String, node: &Node, indent: usize) {
    match &node.content {
        Content::Scalar(one) => line(text, indent, &scalar(one)),
        Content::Map(entries) => {
            for entry in entries {
                let key = scalar(&Scalar { text: entry.key.clone(), quoted: true });
                value(text, indent, &format!("{key}:"), &entry.value);
            }
        }
        Content::List(items) => items.iter().for_each(|item| value(text, indent, "-", item)),
    }
}

/// What stands behind a key or a dash.
fn value(text: &mut String, indent: usize, start: &str, inner: &Node) {
    match &inner.content {
        Content::Scalar(one) if one.is_null() => line(text, indent, start),
        Content::Scalar(one) => line(text, indent, &format!("{start} {}", scalar(one))),
        Content::Map(entries) if entries.is_empty() => line(text, indent, &format!("{start} {{}}")),
        Content::List(items) if items.is_empty() => line(text, indent, &format!("{start} []")),
        _ => {
            line(text, indent, start);
            node(text, inner, indent + 1);
        }
    }
}

fn line(text: &mut String, indent: usize, line: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{:1$}{line}", "", indent * 2);
}

fn scalar(scalar: &Scalar) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    let starts_well = scalar.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let is_plain_text = starts_well && scalar.text.chars().all(is_word);
    let looks_like_more = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .contains(&scalar.text.to_ascii_lowercase().as_str());
    if !scalar.quoted || (is_plain_text && !looks_like_more) {
        return scalar.text.clone();
    }
    let mut quoted = String::from("\"");
    for c in scalar.text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}') => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};

    use super::*;
    use crate::userdata::yaml;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_comes_back(texts in proptest::collection::vec("\\PC{0,12}|[ -~\n\t]{0,12}", 1..5)) {
            let json: serde_json::Value = texts.iter().cloned().enumerate().map(|(index, text)| {
                (format!("k{index}"), serde_json::json!([text, { "a": text }]))
            }).collect::<serde_json::Map<_, _>>().into();
            let tree = yaml::parse(&json.to_string());
            // JSON has texts that YAML refuses, such as a byte order mark.
            if let Ok(Some(tree)) = tree {
                let back = yaml::parse(&document(&tree)).expect("what was written is YAML");
                prop_assert_eq!(back.map(|back| back.to_json()), Some(tree.to_json()));
            }
        }
    }
}
