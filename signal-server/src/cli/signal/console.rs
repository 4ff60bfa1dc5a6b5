//! `signal --from-console`: results of an instance that could tell nobody but its console.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use signal_protocol::console::{Reader, Results};
use signal_protocol::signal::Signal;

use crate::cli::output::Failure;

/// Of a longer line only the beginning is looked at: a result has 800 bytes, and what else is on a
/// console is not ours to bound.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// The results in a console log; `-` is standard input.
pub(crate) fn results(path: &Path) -> Result<Vec<Signal>, Failure> {
    let failed = |error: io::Error| Failure::usage(format!("{}: {error}", path.display()));
    let results = match path.to_str() {
        Some("-") => read(io::stdin().lock()),
        _ => File::open(path).and_then(|file| read(BufReader::new(file))),
    };
    let Results { signals, n_damaged } = results.map_err(failed)?;
    match (signals.is_empty(), n_damaged) {
        (false, _) => Ok(signals),
        (true, 0) => Err(Failure::usage(format!("{} has no result in it", path.display()))),
        (true, n) => Err(Failure::usage(format!(
            "{} has no whole result in it: {n} were damaged on the way",
            path.display()
        ))),
    }
}

fn read(mut console: impl BufRead) -> io::Result<Results> {
    let mut reader = Reader::default();
    let mut line = Vec::new();
    let mut is_beginning = true;
    while console.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? > 0 {
        if is_beginning {
            reader.line(&line);
        }
        is_beginning = line.ends_with(b"\n");
        line.clear();
    }
    Ok(reader.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the agent writes it.
    const RESULT: &str = "@@heliograph1 1 \
        eyJpZCI6ImkvbWFpbi8xIiwicmVhc29uIjoiam9iIGVuZGVkIHdpdGggZXhpdCBjb2RlIDMiLCJzdGF0dXMiOiJGQUlMVVJFIn0 \
        f28e6b16";

    fn check(text: &str, expect: Result<usize, &str>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        std::fs::write(&path, text).unwrap();
        match (results(&path), expect) {
            (Ok(signals), Ok(n_signals)) => assert_eq!(signals.len(), n_signals, "{text}"),
            (Err(failure), Err(part)) => {
                assert!(format!("{failure:?}").contains(part), "{failure:?}");
            }
            (result, expect) => panic!("{result:?} instead of {expect:?}"),
        }
    }

    #[test]
    fn a_console_log_is_read() {
        check(&format!("boot\r\nheliograph: FAILURE\r\n{RESULT}\r\n"), Ok(1));
        check(&format!("{}\n{RESULT}", "x".repeat(300_000)), Ok(1));
        check(&format!("{}{RESULT}\n", "x".repeat(64 * 1024)), Err("no result"));
        check("boot\nlogin: ", Err("no result"));
        check(&RESULT[..100], Err("1 were damaged"));
        check("", Err("no result"));
    }

    #[test]
    fn a_log_that_is_not_there_is_said_by_name() {
        let failure = results(Path::new("/nowhere/console.log")).unwrap_err();
        assert!(format!("{failure:?}").contains("/nowhere/console.log"), "{failure:?}");
    }
}
