//! An etcd that wants a certificate and a password of the relay.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::etcd::{Certificates, Etcd, Place};
use e2e::relay::Relay;
use tempfile::TempDir;

pub(crate) fn certificates_and_a_user() -> Result<()> {
    let etcd = Etcd::start_with(&[Place::Loopback], Some(Certificates::make()?))?;
    etcd.control(&["user", "add", "root:root-password"])?;
    etcd.control(&["user", "grant-role", "root", "root"]).or_else(|_| {
        etcd.control(&["role", "add", "root"])?;
        etcd.control(&["user", "grant-role", "root", "root"])
    })?;
    etcd.control(&["role", "add", "relay"])?;
    etcd.control(&[
        "role",
        "grant-permission",
        "relay",
        "readwrite",
        "--prefix=true",
        "heliograph/",
    ])?;
    etcd.control(&["user", "add", "relay:relay-password"])?;
    etcd.control(&["user", "grant-role", "relay", "relay"])?;
    etcd.control(&["auth", "enable"])?;

    let directory = TempDir::new()?;
    let certificates = etcd.certificates().context("no certificates")?;
    let own = |name: &str| certificates.path(name).display().to_string();
    let tls = format!("ca_file = \"{}\"\n", own("ca.pem"));
    let identity =
        format!("cert_file = \"{}\"\nkey_file = \"{}\"\n", own("client.pem"), own("client.key"));
    let user = |password: &str| -> Result<String> {
        let path = directory.path().join(password);
        fs::write(&path, password)?;
        Ok(format!("username = \"relay\"\npassword_file = \"{}\"\n", path.display()))
    };
    let good = format!("{tls}{identity}{}", user("relay-password")?);
    works(&relay(directory.path(), &etcd, &good)?)?;
    let bad = [
        format!("{tls}{identity}{}", user("another-password")?),
        format!("{tls}{identity}"),
        format!("{tls}{}", user("relay-password")?),
        user("relay-password")?,
    ];
    // At once: each waits until a relay has given up.
    let relays: Vec<Relay> =
        bad.iter().map(|lines| relay(directory.path(), &etcd, lines)).collect::<Result<_>>()?;
    thread::scope(|scope| {
        let asked: Vec<_> = relays.iter().map(|relay| scope.spawn(|| is_ready(relay))).collect();
        for (asked, lines) in asked.into_iter().zip(&bad) {
            let ready = asked.join().map_err(|_| anyhow!("a question panicked"))??;
            ensure!(!ready, "a relay is ready with:\n{lines}");
        }
        Ok(())
    })
}

fn works(relay: &Relay) -> Result<()> {
    ensure!(is_ready(relay)?, "the relay is not ready:{}", relay.last_words());
    let handle = relay.create_handle(1, Duration::from_secs(60))?;
    let sent = reqwest::blocking::Client::new().put(&handle.signal_url);
    let sent = sent.body(r#"{"status":"SUCCESS","id":"a"}"#).send()?;
    ensure!(sent.status().is_success(), "a signal was refused: {sent:?}");
    let waited = relay.wait(&handle, Duration::from_secs(10))?;
    ensure!(waited.exit_code == Some(0), "{waited:?}");
    Ok(())
}

fn is_ready(relay: &Relay) -> Result<bool> {
    let status = reqwest::blocking::get(format!("{}/readyz", relay.admin))?.status();
    let words = relay.last_words();
    ensure!(!words.contains("-password"), "a password was logged:{words}");
    Ok(status == 200)
}

fn relay(directory: &Path, etcd: &Etcd, lines: &str) -> Result<Relay> {
    let data = TempDir::new_in(directory)?.keep();
    let configuration = data.join("relay.toml");
    let endpoint = &etcd.endpoints()[0];
    fs::write(&configuration, format!("[store.etcd]\nendpoints = [\"{endpoint}\"]\n{lines}"))?;
    Relay::start_with(&data, "127.0.0.1:0", &["--config", &configuration.display().to_string()])
}
