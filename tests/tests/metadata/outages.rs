//! Nova's metadata goes on whatever the relay lacks, and behind TLS it is the same.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::certificates::Authority;
use e2e::disk::Disk;
use e2e::neutron::{Gateway, instance_id};
use e2e::wait;
use serde_json::json;
use signal_protocol::frame::{BootId, Form, MessageId, Receipt, split};
use signal_protocol::message::Message;
use signal_protocol::signal::{Signal, Status};
use tempfile::TempDir;

use crate::passing::{answer_of, get};
use crate::{Scene, Set};

/// Some of each kind; that the whole tree is the same is a scene of its own.
const PATHS: [&str; 5] = [
    "/",
    "/openstack/latest/user_data",
    "/openstack/latest/network_data.json",
    "/latest/meta-data/local-ipv4",
    "/latest/nothing",
];

/// How long a store may take to notice that there is space again, or a relay to take new certificates.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        ("novas_metadata_goes_on_when_the_relays_disk_is_full", full_disk),
        ("novas_tree_is_the_same_behind_tls_whose_certificates_are_renewed", behind_tls),
    ]
}

fn is_novas(set: &Set, gateway: &Gateway) -> Result<()> {
    for path in PATHS {
        let request = get(set, path)?;
        let direct = answer_of(set.lab.fact("nova")?, &request)?;
        let passed = answer_of(&gateway.metadata, &request)?;
        ensure!(direct == passed, "{path}\n--- Nova alone:\n{direct}\n--- passed:\n{passed}");
    }
    Ok(())
}

/// A signal as Neutron's agent would pass it on.
fn signal(set: &Set, gateway: &Gateway, seq: u32) -> Result<Receipt> {
    let id = MessageId { boot: BootId::from_random(9), seq };
    let signal = Signal { data: Some(raw(&"x".repeat(900))?), ..Signal::new(Status::Success) };
    let frame = split(id, &Message::Signal { signal, to: None }.to_bytes(id, None))?.remove(0);
    let sent = frame.to_request(Form::Body);
    let headers = set.lab.signed_headers(&instance_id(5))?;
    let request = format!(
        "PUT {} HTTP/1.1\r\nHost: nova\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{}",
        sent.target,
        sent.body.len(),
        sent.body
    );
    let answer = answer_of(&gateway.metadata, &request)?;
    let (head, body) = answer.split_once("\n\n").context("no body")?;
    ensure!(head.contains(" 200 "), "{answer}");
    Ok(serde_json::from_str(body)?)
}

/// A store that cannot write: metadata passes, no signal is acknowledged, and with space again all is
/// as before.
fn full_disk(set: &Set) -> Result<()> {
    let disk = Disk::mount(24)?;
    let table = set.lab.metadata_table_at("127.0.0.1:0", &nova(set)?)?;
    let gateway = Gateway::start(&table, Some(&disk.path().join("data")))?;
    ensure!(signal(set, &gateway, 1)?.code == "complete", "the first signal was not taken");
    disk.fill()?;
    let mut seq = 1;
    // What is left in blocks that are half full goes first.
    let refused = wait::until("a signal that is refused", RECOVERY_LIMIT, || {
        seq += 1;
        let receipt = signal(set, &gateway, seq)?;
        Ok((!receipt.ok).then_some(receipt))
    })?;
    ensure!(refused.code == "retry" && refused.after_ms.is_some(), "{refused:?}");
    is_novas(set, &gateway)?;
    disk.release()?;
    wait::until("the refused signal to be taken", RECOVERY_LIMIT, || {
        Ok((signal(set, &gateway, seq)?.code == "complete").then_some(()))
    })?;
    let view = gateway.instance(&instance_id(5))?;
    let n = view["signals"].as_array().map_or(0, Vec::len);
    // The record keeps the last 64.
    ensure!(n == usize::try_from(seq)?.min(64), "{n} of {seq} signals");
    is_novas(set, &gateway)
}

fn nova(set: &Set) -> Result<Vec<String>> {
    Ok(vec![format!("http://{}", set.lab.fact("nova")?)])
}

/// One relay with TLS before Nova, and another before that one, which has to be spoken to by TLS.
fn behind_tls(set: &Set) -> Result<()> {
    let directory = TempDir::new()?;
    let authority = Authority::make(&directory.path().join("first"))?;
    let files = directory.path().join("server");
    authority.sign("server")?;
    std::fs::create_dir(&files)?;
    let put = |authority: &Authority| -> Result<()> {
        for file in ["server.pem", "server.key"] {
            std::fs::copy(authority.path(file), files.join(file))?;
        }
        Ok(())
    };
    put(&authority)?;
    let table = set.lab.metadata_table_at("127.0.0.1:0", &nova(set)?)?;
    let inner = Gateway::start(
        &format!(
            "{table}[metadata.tls]\ncertificate_file = {:?}\nkey_file = {:?}\n",
            files.join("server.pem"),
            files.join("server.key")
        ),
        None,
    )?;
    let before = |authority: &Authority| {
        let servers = [format!("https://{}", inner.metadata)];
        let table = set.lab.metadata_table_at("127.0.0.1:0", &servers)?;
        Gateway::start(&format!("{table}nova_ca_file = {:?}\n", authority.path("ca.pem")), None)
    };
    let outer = before(&authority)?;
    is_novas(set, &outer)?;

    // A file that is no certificate changes nothing; one of another root is not believed by who knows
    // the first only, and is by who knows it.
    std::fs::write(files.join("server.pem"), "-----BEGIN")?;
    inner.renew()?;
    wait::until("word of bad certificates", RECOVERY_LIMIT, || {
        Ok(inner.log()?.contains("the old ones are kept").then_some(()))
    })?;
    is_novas(set, &before(&authority)?)?;
    let other = Authority::make(&directory.path().join("second"))?;
    other.sign("server")?;
    put(&other)?;
    inner.renew()?;
    wait::until("word of new certificates", RECOVERY_LIMIT, || {
        Ok(inner.log()?.contains("certificates were read anew").then_some(()))
    })?;
    is_novas(set, &before(&other)?)?;
    let refused = answer_of(&before(&authority)?.metadata, &get(set, "/latest/user-data")?)?;
    ensure!(refused.contains(" 503 "), "{refused}");
    Ok(())
}

fn raw(text: &str) -> Result<Box<serde_json::value::RawValue>> {
    Ok(serde_json::value::to_raw_value(&json!(text))?)
}
