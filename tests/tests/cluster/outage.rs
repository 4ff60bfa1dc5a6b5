//! What a relay still does while its etcd is away, and that it recovers by itself.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::etcd::{Etcd, Place};
use e2e::neutron::free_port;
use e2e::relay::Relay;
use e2e::wait;
use nix::sys::signal::Signal;
use reqwest::blocking::{Client, Response};
use tempfile::TempDir;

/// How long a relay may take to see that etcd is away, or back.
const LIMIT: Duration = Duration::from_secs(30);

/// What Nova says.
const METADATA: &str = "{\"uuid\": \"nova\"}";

pub(crate) fn without_etcd() -> Result<()> {
    let mut etcd = Etcd::start(&[Place::Loopback])?;
    let directory = TempDir::new()?;
    let (nova, metadata_port) = (nova()?, free_port()?);
    let secret = directory.path().join("secret");
    fs::write(&secret, "secret")?;
    let configuration = directory.path().join("relay.toml");
    fs::write(
        &configuration,
        format!(
            "[metadata]\nlisten = \"127.0.0.1:{metadata_port}\"\nnova_urls = [\"http://{nova}\"]\n\
             secret_files = [\"{}\"]\n[store.etcd]\nendpoints = [\"{}\"]\n",
            secret.display(),
            etcd.endpoints()[0]
        ),
    )?;
    let configuration = configuration.display().to_string();
    let flags = ["--config", &configuration];
    let relay = Relay::start_with(&directory.path().join("data"), "127.0.0.1:0", &flags)?;
    let client = Client::builder().timeout(LIMIT).build()?;
    let token = fs::read_to_string(relay.token_file())?;
    let container = format!("{}/v1/AUTH_operator/stack", relay.public);
    let listing = format!("{container}?format=json");
    let ask = |method, url: &str| -> Result<Response> {
        Ok(client.request(method, url).header("x-auth-token", token.trim()).send()?)
    };
    let made = ask(reqwest::Method::PUT, &container)?;
    ensure!(made.status().is_success(), "no container was made: {made:?}");
    let handle = relay.create_handle(2, Duration::from_secs(600))?;
    let signal = |id: &str| -> Result<Response> {
        let body = format!(r#"{{"status":"SUCCESS","id":"{id}"}}"#);
        Ok(client.put(&handle.signal_url).body(body).send()?)
    };
    ensure!(signal("before")?.status().is_success(), "a signal was refused");

    held_long_polls_end(&etcd, &relay)?;
    wait::until("the relay to take signals again", LIMIT, || {
        Ok(signal("before")?.status().is_success().then_some(()))
    })?;

    etcd.kill(0)?;
    let refused = signal("during")?;
    ensure!(refused.status() == 503, "without etcd a signal was answered with {refused:?}");
    ensure!(refused.headers().contains_key("retry-after"), "no retry-after: {refused:?}");
    let passed =
        client.get(format!("http://127.0.0.1:{metadata_port}/openstack/latest/meta_data.json"));
    let passed = passed.header("x-instance-id", "i").send()?;
    ensure!(passed.status() == 200, "metadata did not pass: {passed:?}");
    ensure!(passed.text()? == METADATA, "metadata was changed");
    // Heat fails a stack over anything but success, and over errors that last; to an empty list it comes
    // back in a second.
    let listed = ask(reqwest::Method::GET, &listing)?;
    ensure!(listed.status() == 200, "a listing was answered with {listed:?}");
    ensure!(listed.text()? == "[]", "a listing without etcd is not empty");
    let ready = client.get(format!("{}/readyz", relay.admin));
    ensure!(ready.send()?.status() == 503, "a relay without etcd is ready");

    etcd.start_member(0)?;
    wait::until("the relay to take signals again", LIMIT, || {
        Ok(signal("after")?.status().is_success().then_some(()))
    })?;
    let waited = relay.wait(&handle, Duration::from_secs(10))?;
    ensure!(waited.exit_code == Some(0), "{waited:?}");
    Ok(())
}

/// Etcd falls silent, and whoever waits at the relay is told, as another relay may know more.
fn held_long_polls_end(etcd: &Etcd, relay: &Relay) -> Result<()> {
    let handle = relay.create_handle_quickly()?;
    let url = format!("{}&wait=50s&version=1", handle.poll_url);
    let client = Client::builder().timeout(LIMIT).build()?;
    let waiter = thread::spawn(move || client.get(url).send());
    wait::until("the long-poll to be held", LIMIT, || {
        let metrics = reqwest::blocking::get(format!("{}/metrics", relay.admin))?.text()?;
        Ok(metrics.lines().any(|line| line == "heliograph_http_long_polls 1").then_some(()))
    })?;
    etcd.signal(0, Signal::SIGSTOP)?;
    let silent_since = Instant::now();
    let answer = waiter.join().map_err(|_| anyhow!("the waiter panicked"))??;
    let waited = silent_since.elapsed();
    etcd.signal(0, Signal::SIGCONT)?;
    ensure!(answer.status() == 503, "a long-poll without etcd was answered with {answer:?}");
    eprintln!("    a long-poll ended {:.1} s after etcd fell silent", waited.as_secs_f32());
    Ok(())
}

/// Somebody who answers everything as Nova would one thing. Ends with the test program.
fn nova() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr().context("no address")?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _whatever = stream.read(&mut request);
            let length = METADATA.len();
            let _gone = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{METADATA}"
            );
        }
    });
    Ok(address.to_string())
}
