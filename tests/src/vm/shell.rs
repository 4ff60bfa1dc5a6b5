//! A shell in a machine, on its second serial line.
//!
//! The line has no beginning and no end of a session: whoever reads it may see what is left of an
//! earlier question, and what is written before the shell is there is lost. So each question has a
//! number of its own, which its answer ends with, and an unanswered one is asked again.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How long an answer may take before the question counts as unheard. A shell that is there answers in
/// milliseconds, but the machine is slow, and `docker` takes a second or two.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// A shell that may not be there yet has to show itself within this time. Its machine may be busy with all
/// the rest of a boot on a processor that it has a small share of.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// The line to a shell.
#[derive(Debug)]
pub(crate) struct Shell {
    socket: PathBuf,
    line: Option<UnixStream>,
    is_greeted: bool,
    n_questions: u32,
}

impl Shell {
    pub(crate) fn new(socket: PathBuf) -> Shell {
        Shell { socket, line: None, is_greeted: false, n_questions: 0 }
    }

    /// The machine begins anew, and a shell of its with it.
    pub(crate) fn forget(&mut self) {
        self.is_greeted = false;
    }

    /// Runs a command that must succeed, in a shell that must be there.
    pub(crate) fn run(&mut self, command: &str) -> Result<String> {
        let (code, output) = self.try_run(command)?.context("there is no shell")?;
        ensure!(code == 0, "exit code {code}: {output}");
        Ok(output)
    }

    /// Exit code and output, or nothing if no shell is there yet.
    pub(crate) fn try_run(&mut self, command: &str) -> Result<Option<(i32, String)>> {
        if !self.is_greeted {
            self.is_greeted = self.ask("true", GREETING_LIMIT)?.is_some();
        }
        if !self.is_greeted {
            return Ok(None);
        }
        let answer = self.ask(command, ANSWER_LIMIT)?;
        self.is_greeted = answer.is_some();
        Ok(answer)
    }

    fn ask(&mut self, command: &str, limit: Duration) -> Result<Option<(i32, String)>> {
        self.n_questions += 1;
        let number = self.n_questions;
        let Some(line) = self.line()? else {
            return Ok(None);
        };
        // The marks are put together by the shell, so an echo of the question is not taken for them.
        let question = format!(
            "\nprintf '\\n@%s%s\\n' begin {number}; ({command}) 2>&1; printf '\\n@%s%s %s@\\n' end {number} $?\n"
        );
        let (begin, end) = (format!("@begin{number}\n"), format!("\n@end{number} "));
        if line.write_all(question.as_bytes()).is_err() {
            self.line = None;
            return Ok(None);
        }
        let deadline = Instant::now() + limit;
        let mut heard = Vec::new();
        while Instant::now() < deadline {
            let mut piece = [0; 4096];
            match line.read(&mut piece) {
                Ok(0) => break,
                Ok(n_bytes) => heard.extend_from_slice(&piece[..n_bytes]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
            let text = String::from_utf8_lossy(&heard).replace('\r', "");
            let answer = text.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
            if let Some((output, rest)) = answer
                && let Some((code, _)) = rest.split_once('@')
            {
                return Ok(Some((code.parse()?, output.trim().to_owned())));
            }
        }
        Ok(None)
    }

    fn line(&mut self) -> Result<Option<&mut UnixStream>> {
        if self.line.is_none() {
            let Ok(line) = UnixStream::connect(&self.socket) else {
                return Ok(None);
            };
            line.set_read_timeout(Some(Duration::from_millis(100)))?;
            self.line = Some(line);
        }
        Ok(self.line.as_mut())
    }
}
