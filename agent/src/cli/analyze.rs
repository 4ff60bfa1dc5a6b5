//! `heliograph-agent analyze`: where the time of the last run went.

use std::path::Path;

use serde_json::json;

use crate::cli::print;
use crate::error::{AgentError, Exit};
use crate::state::{self, RunStatus};

/// As wide as fits a terminal beside the numbers.
const MAX_BAR: u64 = 40;

pub(super) fn analyze(state_dir: &Path, json: bool) -> Result<Exit, AgentError> {
    let status = state::read_status(state_dir).map_err(AgentError::State)?;
    let Some(status) = status else {
        print("no run yet");
        return Ok(Exit::Pending);
    };
    print(&if json { in_json(&status) } else { in_words(&status) });
    Ok(if status.is_over { Exit::Success } else { Exit::Pending })
}

fn in_json(status: &RunStatus) -> String {
    let steps = status.timings.iter().map(|(step, ms)| json!({"step": step, "ms": ms}));
    json!({
        "instance_id": status.instance_id,
        "document_hash": status.document_hash,
        "began_after_boot_ms": status.began_after_boot_ms,
        "steps": steps.collect::<Vec<_>>(),
        "total_ms": total(status),
        "is_over": status.is_over,
    })
    .to_string()
}

fn total(status: &RunStatus) -> u64 {
    status.timings.iter().map(|(_, ms)| ms).sum()
}

fn in_words(status: &RunStatus) -> String {
    let mut lines = Vec::new();
    if let Some(ms) = status.began_after_boot_ms {
        lines.push(format!("began {} after the kernel", seconds(ms)));
    }
    let longest = status.timings.iter().map(|(_, ms)| *ms).max().unwrap_or(0).max(1);
    let mut begin = 0;
    for (step, ms) in &status.timings {
        let bar = "#".repeat(usize::try_from(ms * MAX_BAR / longest).unwrap_or(0));
        let line = format!("{step:<11} at {:>9}  took {:>9}  {bar}", seconds(begin), seconds(*ms));
        lines.push(line.trim_end().to_owned());
        begin += ms;
    }
    let end = if status.is_over { "over" } else { "so far" };
    lines.push(format!("{end:<11} at {:>9}", seconds(begin)));
    lines.join("\n")
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_has_a_line_for_each_step() {
        let status = RunStatus {
            began_after_boot_ms: Some(12_345),
            timings: vec![("datasource".to_owned(), 20), ("pull".to_owned(), 1_000)],
            is_over: true,
            ..RunStatus::default()
        };
        let expect = "began 12.345 s after the kernel\n\
                      datasource  at   0.000 s  took   0.020 s\n\
                      pull        at   0.020 s  took   1.000 s  ########################################\n\
                      over        at   1.020 s";
        assert_eq!(in_words(&status), expect);
        let json: serde_json::Value = serde_json::from_str(&in_json(&status)).unwrap();
        assert_eq!(json["total_ms"], 1020);
        assert_eq!(json["steps"][1], json!({"step": "pull", "ms": 1000}));
    }
}
