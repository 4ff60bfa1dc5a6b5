//! Splitting a command line into words as a POSIX shell does, with no shell and no expansion.
//!
//! Compose's `command: "a 'b c'"` is this. Quotes and backslashes mean what they mean in a shell;
//! `$`, globs, pipes and comments mean nothing, because there is nobody to run them.

/// The words, or None when a quote is open or a backslash stands at the end.
pub(crate) fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        quoted => word.push(quoted),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next()? {
                // A line that goes on.
                '\n' => {}
                escaped => word.get_or_insert_default().push(escaped),
            },
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Some(words)
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Option<()> {
    loop {
        match chars.next()? {
            '"' => return Some(()),
            '\\' => match chars.next()? {
                escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                '\n' => {}
                other => word.extend(['\\', other]),
            },
            quoted => word.push(quoted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_a_shell_does() {
        let cases: [(&str, Option<&[&str]>); 12] = [
            ("echo a b", Some(&["echo", "a", "b"])),
            ("  echo   a\t b ", Some(&["echo", "a", "b"])),
            ("echo 'a b' \"c d\"", Some(&["echo", "a b", "c d"])),
            ("echo a'b'\"c\"d", Some(&["echo", "abcd"])),
            (r#"echo "a\"b\n" \$x"#, Some(&["echo", "a\"b\\n", "$x"])),
            ("echo '' \"\"", Some(&["echo", "", ""])),
            ("echo $HOME | cat # no", Some(&["echo", "$HOME", "|", "cat", "#", "no"])),
            ("a \\\n b", Some(&["a", "b"])),
            ("", Some(&[])),
            ("echo 'a", None),
            ("echo \"a", None),
            ("echo \\", None),
        ];
        for (line, expected) in cases {
            let got = split(line);
            let got: Option<Vec<&str>> =
                got.as_ref().map(|w| w.iter().map(String::as_str).collect());
            assert_eq!(got.as_deref(), expected, "{line:?}");
        }
    }
}
