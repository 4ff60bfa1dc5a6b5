//! "Did you mean": the nearest of the names that are known.

/// The known name that was probably meant: few edits away for its length, the nearest first.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A long key is no typo of a short one, and comparing it would only cost time.
    const MAX_COMPARED_CHARS: usize = 40;
    let written: Vec<char> = written.chars().take(MAX_COMPARED_CHARS + 1).collect();
    if written.len() > MAX_COMPARED_CHARS {
        return None;
    }
    let written = fold(&written);
    known
        .into_iter()
        .filter_map(|name| {
            let folded = fold(&name.chars().collect::<Vec<_>>());
            let distance = distance(&written, &folded);
            // One edit in a short name, three in a long one; never a wholly different word.
            let allowed = (folded.len().max(written.len()) / 3).clamp(1, 3);
            (distance <= allowed && distance < folded.len()).then_some((distance, name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `containerName`, `container-name` and `container_name` are one spelling.
fn fold(name: &[char]) -> Vec<char> {
    name.iter().filter(|c| !matches!(c, '_' | '-' | ' ')).map(char::to_ascii_lowercase).collect()
}

/// Edits between two words; a transposition of neighbours counts as one.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substitution = previous[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substitution.min(previous[j] + 1).min(row[j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if swapped {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut previous, row);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = ["image", "cmd", "command", "environment", "container_name", "tty", "user"];
        let cases = [
            ("imgae", Some("image")),
            ("Image", Some("image")),
            ("containerName", Some("container_name")),
            ("container-name", Some("container_name")),
            ("comand", Some("command")),
            ("enviroment", Some("environment")),
            ("cdm", Some("cmd")),
            ("usr", Some("user")),
            ("zebra", None),
            ("", None),
            ("x", None),
        ];
        for (written, expected) in cases {
            assert_eq!(nearest(written, known), expected, "{written}");
        }
        assert_eq!(nearest(&"environment".repeat(1000), known), None);
    }
}
