//! `heliograph-agent schema`: the JSON Schema of documents.

use crate::cli::print;
use crate::error::Exit;
use crate::userdata::schema::json;

pub(crate) fn schema() -> Exit {
    print(&serde_json::to_string_pretty(&json::schema()).unwrap_or_default());
    Exit::Success
}
