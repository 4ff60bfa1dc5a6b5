//! `backup` and `restore`, as an operator uses them: while signals keep coming.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::Mutex;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{Process, client, command, in_time, signal, text, until};

/// Handles that are signalled at once.
const N_SENDERS: usize = 8;

/// Signals that are acknowledged before the backup begins, and as many again before it may end.
const N_SIGNALS: usize = 200;

/// The ids that each sender has been acknowledged, in order.
type Acknowledged = Arc<Vec<Mutex<Vec<String>>>>;

fn total(acknowledged: &Acknowledged) -> usize {
    acknowledged.iter().map(|ids| ids.lock().expect("no panic").len()).sum()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn create(relay: &Process, token: &str) -> Value {
    let request =
        client().post(format!("{}/api/v1/handles", relay.url)).header("X-Auth-Token", token);
    let created = in_time(request.body(r#"{"count":1000}"#).send()).await.expect("an answer");
    crate::harness::json(created).await
}

/// Sends signals one after the other until it is stopped.
async fn send(created: Value, sender: usize, acknowledged: Acknowledged) {
    for number in 0.. {
        let id = format!("{sender}-{number}");
        let (status, answer) =
            signal(&created, &format!(r#"{{"id":"{id}","data":"{number}"}}"#)).await;
        assert_eq!(status, 201, "{answer}");
        acknowledged[sender].lock().expect("no panic").push(id);
    }
}

async fn restore(file: &Path, data_dir: &Path) -> Output {
    let (file, data_dir) = (file.display().to_string(), data_dir.display().to_string());
    command(&["restore", "--from", &file, "--data-dir", &data_dir], None).await
}

#[tokio::test]
async fn what_was_acknowledged_before_a_backup_began_is_in_the_relay_that_it_is_restored_to() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let relay = Process::start(&old, &["--listen", "127.0.0.1:0"]);
    let token = std::fs::read_to_string(old.join("operator.token")).expect("a token");
    let token = token.trim();
    let mut handles = Vec::new();
    for _ in 0..N_SENDERS {
        handles.push(create(&relay, token).await);
    }
    let acknowledged: Acknowledged = Arc::new((0..N_SENDERS).map(|_| Mutex::default()).collect());
    let mut senders = JoinSet::new();
    for (sender, created) in handles.iter().enumerate() {
        senders.spawn(send(created.clone(), sender, acknowledged.clone()));
    }
    until(async || total(&acknowledged) >= N_SIGNALS).await;

    let before: Vec<Vec<String>> =
        acknowledged.iter().map(|ids| ids.lock().expect("no panic").clone()).collect();
    let file = dir.path().join("relay.backup");
    let to = file.display().to_string();
    let arguments = ["backup", "--to", &to, "--server", &relay.url];
    let saved = command(&arguments, Some(token)).await;
    assert_eq!(saved.status.code(), Some(0), "{}", stderr(&saved));
    let mode = std::fs::metadata(&file).expect("a backup").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = command(&arguments, Some(token)).await;
    assert_eq!(again.status.code(), Some(3));
    assert!(stderr(&again).contains("is there already"), "{}", stderr(&again));
    // The relay has gone on.
    until(async || total(&acknowledged) >= 2 * N_SIGNALS).await;
    senders.shutdown().await;
    relay.kill();

    let restored = restore(&file, &new).await;
    assert_eq!(restored.status.code(), Some(0), "{}", stderr(&restored));
    assert_eq!(stdout(&restored), stdout(&saved).replace("saved", "restored"));
    let refused = restore(&file, &old).await;
    assert_eq!(refused.status.code(), Some(4));
    assert!(stderr(&refused).contains("is not empty"), "{}", stderr(&refused));

    let relay = Process::start(&new, &["--listen", "127.0.0.1:0"]);
    for (sender, created) in handles.iter().enumerate() {
        let poll_url = text(&created["poll_url"]);
        let (_, path) = poll_url.split_once("/api/").expect("a path");
        let view = in_time(client().get(format!("{}/api/{path}", relay.url)).send()).await;
        let view = crate::harness::json(view.expect("an answer")).await;
        let signals = view["signals"].as_array().expect("signals");
        let ids: BTreeSet<&str> = signals.iter().map(|signal| text(&signal["id"])).collect();
        for id in &before[sender] {
            assert!(ids.contains(id.as_str()), "{id} is lost");
        }
        // In the order in which they were sent, without a gap, each as a whole.
        for number in 0..ids.len() {
            let id = format!("{sender}-{number}");
            assert!(ids.contains(id.as_str()), "{id} is not there, and a later one is");
            assert_eq!(view["data"][&id], number.to_string());
        }
        assert_eq!(signal(&relay_url(created, &relay), r#"{"id":"after"}"#).await.0, 201);
    }
}

/// The same handle at another relay.
fn relay_url(created: &Value, relay: &Process) -> Value {
    let (_, path) = text(&created["signal_url"]).split_once("/api/").expect("a path");
    serde_json::json!({ "signal_url": format!("{}/api/{path}", relay.url) })
}

#[tokio::test]
async fn a_backup_is_for_the_operator_alone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (data_dir, other) = (dir.path().join("data"), dir.path().join("other.token"));
    std::fs::write(&other, "a-token-of-sixteen-bytes-and-more").expect("a file");
    let config = dir.path().join("relay.toml");
    let text = format!("[[tokens]]\naccount = \"AUTH_p\"\ntoken_file = \"{}\"\n", other.display());
    std::fs::write(&config, text).expect("a file");
    let config = config.display().to_string();
    let relay = Process::start(&data_dir, &["--listen", "127.0.0.1:0", "--config", &config]);
    let to = dir.path().join("relay.backup").display().to_string();
    for (token, expect) in [
        (None, "401"),
        (Some("not-a-token-at-all"), "401"),
        (
            Some("a-token-of-sixteen-bytes-and-more"),
            "403 Forbidden: this is for the operator's token",
        ),
    ] {
        let refused = command(&["backup", "--to", &to, "--server", &relay.url], token).await;
        assert_eq!(refused.status.code(), Some(3), "{token:?}");
        assert!(stderr(&refused).contains(expect), "{token:?}: {}", stderr(&refused));
        assert!(!Path::new(&to).exists());
    }
}
