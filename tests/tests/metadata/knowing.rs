//! What is known of an instance that has no handle.

use std::process::Command;

use anyhow::{Result, ensure};
use e2e::neutron::{Kind, Pace, instance_id};
use e2e::programs;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Scene, Set};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        ("an_instance_that_was_never_heard_of_is_said_to_be_that", never_contacted),
        ("an_instance_that_fell_silent_is_told_from_one_that_never_came", silent),
        ("a_failed_run_without_a_handle_is_known_with_its_reason", failed),
        ("an_agent_with_a_key_cannot_be_spoken_for", with_a_key),
    ]
}

/// The agent in a guest, as the instance whose address ends in `byte`.
pub(crate) fn agent(
    set: &Set,
    kind: Kind,
    byte: u8,
    arguments: &[&str],
) -> Result<(Command, TempDir)> {
    let directory = TempDir::new()?;
    std::fs::write(
        directory.path().join("user-data"),
        "#docker\nimage: busybox\nsignal: {timeout: 20s}\n",
    )?;
    let namespace = set.lab.own_namespace(kind, byte)?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace]).arg(programs::heliograph_agent()?);
    command
        .args(arguments)
        .args(["--instance-id", &instance_id(byte), "--engine", "unix:///nonexistent/engine.sock"])
        .arg("--user-data")
        .arg(directory.path().join("user-data"))
        .arg("--state-dir")
        .arg(directory.path().join("state"))
        .arg("--console")
        .arg(directory.path().join("console"));
    Ok((command, directory))
}

fn expect(view: &Value, state: &str, words: &str) -> Result<()> {
    let reason = view["reason"].as_str().unwrap_or_default();
    ensure!(view["state"] == state && reason.contains(words), "{view:#}");
    Ok(())
}

fn never_contacted(set: &Set) -> Result<()> {
    let (code, view) = set.gateway.wait_for_instance(&instance_id(22), 2)?;
    ensure!(code == Some(2), "{code:?}");
    expect(&view, "never_contacted", "never contacted the relay")
}

fn silent(set: &Set) -> Result<()> {
    let request = "GET /heliograph/v1/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    set.lab.ask(Kind::Ovs, 21, request, Pace::Whole)?;
    let (code, view) = set.gateway.wait_for_instance(&instance_id(21), 2)?;
    ensure!(code == Some(2), "{code:?}");
    expect(&view, "contacted", "not signalled yet")?;
    ensure!(view["name"] == "lab-21", "{view:#}");
    Ok(())
}

fn failed(set: &Set) -> Result<()> {
    let id = instance_id(20);
    let (mut command, _directory) = agent(set, Kind::Debian, 20, &["run"])?;
    let mut running = command.spawn()?;
    let (code, view) = set.gateway.wait_for_instance(&id, 60)?;
    let status = running.wait()?;
    ensure!(code == Some(1), "wait ended with {code:?}, the agent with {status}: {view:#}");
    expect(&view, "failed", "engine did not answer")?;
    let phases: Vec<&str> = view["phases"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["phase"].as_str())
        .collect();
    ensure!(phases.contains(&"engine") && view["n_boots"] == 1, "{view:#}");
    ensure!(view["signals"].as_array().is_some_and(|signals| signals.len() == 1), "{view:#}");
    Ok(())
}

/// The agent gives a key; then whoever else is in the instance says that it failed.
fn with_a_key(set: &Set) -> Result<()> {
    use signal_protocol::frame::{BootId, Form, MessageId, split};
    use signal_protocol::message::Message;
    use signal_protocol::signal::{Signal, Status};

    let id = instance_id(19);
    let (mut command, _directory) =
        agent(set, Kind::Ovs, 19, &["signal", "--instance-key", "--id", "a", "--reason", "up"])?;
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    let message = MessageId { boot: BootId::from_random(7), seq: 1 };
    let forged = Message::Signal { signal: Signal::new(Status::Failure), to: None };
    for frame in split(message, &forged.to_bytes(message, None))? {
        let sent = frame.to_request(Form::Body);
        let request = format!(
            "PUT {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
            sent.target,
            sent.body.len(),
            sent.body
        );
        let namespace = set.lab.own_namespace(Kind::Ovs, 19)?;
        let (_, body) = set.lab.ask_in(&namespace, 19, &request, Pace::Whole)?;
        ensure!(body.contains("message_bad_mac"), "{body}");
    }
    let (code, view) = set.gateway.wait_for_instance(&id, 5)?;
    ensure!(code == Some(0), "{view:#}");
    expect(&view, "complete", "up")
}
