//! What is wrong with a document, in a form that may be signalled.
//!
//! A diagnostic travels to the orchestrator and to the console log, which other people read. It
//! therefore names the position, the key and the expected shape, and never quotes a value: a value
//! may be a password. A key is quoted because without it nobody finds the typo; it is bounded and
//! stripped of control characters first.

use std::fmt;

/// A longer key is cut: 64 characters are enough to recognise it, and a reason stays readable.
const MAX_QUOTED_KEY_CHARS: usize = 64;

/// A place in the document, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostic {
    /// Stable: scripts and tests compare it.
    pub code: &'static str,
    pub line: usize,
    pub column: usize,
    /// A lowercase fragment without a value of the document in it.
    pub message: String,
    /// What to write instead, when there is a good guess.
    pub suggestion: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(code: &'static str, position: Position, message: impl Into<String>) -> Self {
        Diagnostic {
            code,
            line: position.line,
            column: position.column,
            message: message.into(),
            suggestion: None,
        }
    }

    #[must_use]
    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    pub fn position(&self) -> Position {
        Position { line: self.line, column: self.column }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; {suggestion}")?;
        }
        Ok(())
    }
}

/// Something that works, but probably not as its author thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub code: &'static str,
    pub position: Position,
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.message)
    }
}

/// A key as it may appear in a message: bounded, printable, in backquotes.
pub(crate) fn quote_key(key: &str) -> String {
    let mut quoted: String = key
        .chars()
        .take(MAX_QUOTED_KEY_CHARS)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if key.chars().nth(MAX_QUOTED_KEY_CHARS).is_some() {
        quoted.push('…');
    }
    format!("`{quoted}`")
}
