//! What is carried along while a document is read.

use crate::userdata::diagnostic::{Position, Warning};

/// How strictly to read, and what was found that works but is probably not meant.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) warnings: Vec<Warning>,
    /// Whether an unknown key is an error.
    pub(crate) is_strict: bool,
}

impl Context {
    pub(crate) fn warn(
        &mut self,
        code: &'static str,
        position: Position,
        message: impl Into<String>,
    ) {
        self.warnings.push(Warning { code, position, message: message.into() });
    }
}
