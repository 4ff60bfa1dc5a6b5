//! The reference page's examples, as the page has them.

use std::fs;

use anyhow::{Context as _, Result};

use crate::programs;

/// Every example between the marks of the generated part of `docs/document.md`, without its indent
/// and without a header.
pub fn examples() -> Result<Vec<String>> {
    let page = fs::read_to_string(programs::source_tree().join("docs/document.md"))?;
    let reference =
        page.split("<!-- keys: begin -->").nth(1).context("the page has no reference")?;
    let blocks = reference.split("```yaml\n").skip(1);
    let examples = blocks.filter_map(|block| {
        let (block, _) = block.split_once("```")?;
        let indent = block.len() - block.trim_start_matches(' ').len();
        let lines = block.lines().map(|line| line.get(indent..).unwrap_or_default());
        Some(lines.collect::<Vec<_>>().join("\n").trim_end().to_owned())
    });
    Ok(examples.collect())
}
