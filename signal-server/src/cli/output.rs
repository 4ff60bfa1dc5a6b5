//! What the client commands print: an answer on stdout, trouble on stderr, or both as JSON on stdout.

use std::fmt;
use std::future::Future;
use std::io::{self, Write};

use serde::Serialize;

use crate::api::{ErrorAnswer, ErrorBody};
use crate::cli::Exit;
use crate::client::ClientError;
use crate::config::ConfigError;
use crate::error::chain;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

/// Why a client command could not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    code: String,
    message: String,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure { code: error.code().to_owned(), message: chain(&error).to_string() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure { code: "bad_token_file".to_owned(), message: chain(&error).to_string() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure { code: "no_runtime".to_owned(), message: chain(&error).to_string() }
    }
}

impl Failure {
    pub(crate) fn usage(message: impl fmt::Display) -> Failure {
        Failure::named("bad_usage", message)
    }

    /// A failure of a command's own, by its stable name.
    pub(crate) fn named(code: &str, message: impl fmt::Display) -> Failure {
        Failure { code: code.to_owned(), message: message.to_string() }
    }
}

impl Output {
    /// Prints `value` as one line of JSON, or `text` for a person.
    pub(crate) fn answer(self, value: &impl Serialize, text: impl fmt::Display) {
        match self.json {
            true => line(&mut io::stdout(), &serde_json::to_string(value).unwrap_or_default()),
            false => line(&mut io::stdout(), &text.to_string()),
        }
    }

    fn failure(self, failure: Failure) {
        if !self.json {
            line(&mut io::stderr(), &format!("heliograph-server: {}", failure.message));
            return;
        }
        let error = ErrorBody { code: failure.code, message: failure.message };
        let text = serde_json::to_string(&ErrorAnswer { error }).unwrap_or_default();
        line(&mut io::stdout(), &text);
    }
}

/// Writes a line. A reader that has gone is no reason to fail: the exit code says how it went.
pub(crate) fn line(stream: &mut impl Write, text: &str) {
    let _ = writeln!(stream, "{text}").and_then(|()| stream.flush());
}

/// Runs a client command and prints its failure.
pub(crate) fn block_on(
    output: Output,
    command: impl Future<Output = Result<Exit, Failure>>,
) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(command));
    result.unwrap_or_else(|failure| {
        output.failure(failure);
        Exit::CouldNotAsk
    })
}
