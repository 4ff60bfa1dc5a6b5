//! The relay as others see it who look for an object store: python-swiftclient and the command line client.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use e2e::heat::{run, script};
use e2e::process::Process;
use tempfile::TempDir;

use crate::stage::{Scene, Stage};

/// How often a signal arrives between reading and deleting.
const N_ROUNDS: &str = "1000";
/// By far: they take half a minute on a machine that does nothing else.
const RACE_LIMIT: Duration = Duration::from_secs(600);

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("swift::no_signal_is_lost_between_get_and_delete", race),
        Scene::new("swift::a_rule_that_loses_signals_is_caught", race_control),
        Scene::new("swift::the_command_line_client_gets_sentences", command_line),
    ]
}

fn race(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    let user = cloud.lab.user("demo")?;
    let logs = TempDir::new()?;
    let mut command = script("race.py");
    command.arg(format!("{}/v1/{}", cloud.relay.public(), user.account())).arg(N_ROUNDS);
    let printed = run("race", command.env("OS_TOKEN", &user.token), logs.path(), RACE_LIMIT)?;
    ensure!(printed.contains("1000 rounds, 0 lost, 0 twice"), "{printed}");
    Ok(())
}

/// The same rounds against the rule that Swift's versions have: who finds no loss there finds none anywhere.
fn race_control(_: &Stage) -> Result<()> {
    let logs = TempDir::new()?;
    let mut process =
        Process::spawn("race", script("race.py").args(["model", N_ROUNDS]), logs.path())?;
    let status = process.ended(RACE_LIMIT)?;
    let printed = process.output()?;
    ensure!(status.code() == Some(1), "the control ended with {status}: {}", process.last_words());
    ensure!(printed.contains("1000 rounds, ") && !printed.contains(" 0 lost"), "{printed}");
    Ok(())
}

/// Each command, and either its success or what its error has to say.
const COMMANDS: &[(&str, Result<&str, &str>)] = &[
    ("object store account show", Ok("Containers")),
    ("container create notes", Ok("notes")),
    ("container list", Ok("notes")),
    ("container show notes", Ok("object_count")),
    ("object create notes note.txt", Ok("note.txt")),
    ("object list notes", Ok("note.txt")),
    ("object show notes note.txt", Ok("content-length")),
    ("object save notes note.txt --file saved.txt", Ok("")),
    ("object set notes note.txt --property kind=private", Err("(HTTP 405)")),
    ("container set notes --property kind=private", Err("(HTTP 501)")),
    ("container show missing", Err("(HTTP 404)")),
    ("object show notes missing", Err("(HTTP 404)")),
    ("container delete notes", Err("(HTTP 409)")),
    ("object delete notes note.txt", Ok("")),
    ("container delete notes", Ok("")),
];

fn command_line(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    let directory = TempDir::new()?;
    std::fs::write(directory.path().join("note.txt"), "a note\n")?;
    for (words, expected) in COMMANDS {
        let words: Vec<&str> = words.split(' ').collect();
        let ran = cloud.lab.openstack(&words, directory.path())?;
        let is_expected = match expected {
            Ok(part) => ran.is_success && ran.output.contains(part),
            Err(part) => !ran.is_success && ran.errors.contains(part),
        };
        ensure!(is_expected, "{words:?}: {ran:?}");
    }
    let Ok(saved) = std::fs::read_to_string(directory.path().join("saved.txt")) else {
        bail!("the object was not saved");
    };
    ensure!(saved == "a note\n", "what was saved is {saved:?}");
    Ok(())
}
