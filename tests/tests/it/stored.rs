//! Archives of images in the relay's own object storage, and archives that change under one name.
//!
//! The images are a greeting and no more, so that one fits a body of the relay's; the program that
//! reads it is the machine's, which containers see through a mount.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::engine::{Engine, Kind};
use e2e::relay::Relay;
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use signal_protocol::tempurl::{self, Digest};
use tempfile::TempDir;

use crate::stage::{Scene, Stage, Waiting, only_data};

const LIMIT: Duration = Duration::from_secs(60);

/// The name that the document gives to whatever the archive has.
const IMAGE: &str = "stored-greeting:1";

/// The account of the credential that the relay's first start wrote.
const ACCOUNT: &str = "/v1/AUTH_operator";

const KEY: &str = "a key that Heat would have set";

/// The year 2100: how a signature ends is tested elsewhere.
const EXPIRES: u64 = 4_102_444_800;

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("stored::docker::a_temp_url_of_the_relay", a_temp_url_of_the_relay),
        Scene::new(
            "stored::docker::another_archive_of_the_same_name_is_loaded",
            another_archive_of_the_same_name_is_loaded,
        ),
    ]
}

fn a_temp_url_of_the_relay(stage: &Stage) -> Result<()> {
    let engine = stage.engine(Kind::Docker)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let archive = archive(turn.engine, "out of the relay")?;
    let sha256 = sha256(&archive);
    let url = put(&waiting.relay, archive)?;
    let document = document(&waiting, &format!("{{url: \"{url}\", sha256: {sha256}}}"));
    let instance = Instance::new("stored", &turn.engine.url(), &document)?;
    ensure!(greeting(&instance, &waiting)? == "out of the relay");
    let signature = url.split("temp_url_sig=").nth(1).context("no signature")?;
    let signature = signature.split('&').next().unwrap_or_default();
    ensure!(!instance.console()?.contains(signature), "{}", instance.console()?);
    turn.engine.remove_image(IMAGE)
}

/// One instance, whose user data names another archive each time, by digest and by place.
fn another_archive_of_the_same_name_is_loaded(stage: &Stage) -> Result<()> {
    let engine = stage.engine(Kind::Docker)?;
    let turn = engine.turn()?;
    let directory = TempDir::new()?;
    let place = |name: &str| directory.path().join(name).display().to_string();
    let (first, second) = (archive(turn.engine, "first")?, archive(turn.engine, "second")?);
    fs::write(place("first.tar"), &first)?;
    fs::write(place("second.tar"), &second)?;
    let pinned = |name: &str, archive: &[u8]| {
        format!("{{path: {}, sha256: {}}}", place(name), sha256(archive))
    };

    let mut instance: Option<Instance> = None;
    for (archive, expect) in [
        (pinned("first.tar", &first), "first"),
        (pinned("second.tar", &second), "second"),
        (place("first.tar"), "first"),
        (place("second.tar"), "second"),
    ] {
        let waiting = Waiting::for_one()?;
        let document = document(&waiting, &archive);
        let instance = match &instance {
            Some(instance) => {
                instance.rewrite(&document)?;
                instance
            }
            None => instance.insert(Instance::new("changed", &turn.engine.url(), &document)?),
        };
        let found = greeting(instance, &waiting)?;
        ensure!(found == expect, "{archive}: {found:?} instead of {expect:?}");
    }
    // What is there and is the same needs no archive.
    fs::remove_file(place("second.tar"))?;
    let waiting = Waiting::for_one()?;
    let instance = instance.context("no run yet")?;
    instance.rewrite(&document(&waiting, &place("second.tar")))?;
    ensure!(greeting(&instance, &waiting)? == "second");
    turn.engine.remove_image(IMAGE)
}

fn document(waiting: &Waiting, archive: &str) -> String {
    let keys = format!(
        "image: {IMAGE}\nimage_archive: {archive}\nvolumes: [\"/bin/busybox:/busybox:ro\"]\n\
         cmd: [/busybox, cat, /greeting]\noutputs: [logs_tail]"
    );
    waiting.document(", when: exit", &keys)
}

fn greeting(instance: &Instance, waiting: &Waiting) -> Result<String> {
    let ran = instance.run()?;
    ensure!(ran.status.success(), "{}{}", ran.console, ran.last_words);
    let waited = waiting.relay.wait(&waiting.handle, LIMIT)?;
    ensure!(waited.exit_code == Some(0), "{waited:?}{}", ran.last_words);
    let data: Value = only_data(&waited.view)?;
    Ok(data["logs_tail"].as_str().context("no logs_tail")?.to_owned())
}

/// What `docker save` writes of an image that has only this greeting.
fn archive(engine: &Engine, greeting: &str) -> Result<Vec<u8>> {
    const MADE: &str = "made-greeting:1";
    let directory = TempDir::new()?;
    fs::write(directory.path().join("greeting"), greeting)?;
    engine.import(MADE, tar(directory.path())?)?;
    let saved = engine.save(MADE)?;
    // The scene is to load it.
    engine.remove_image(MADE)?;
    Ok(saved)
}

fn tar(directory: &Path) -> Result<Vec<u8>> {
    let mut command = Command::new("tar");
    let output = command.arg("--directory").arg(directory).args(["--create", "."]).output()?;
    ensure!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Stores the archive with the token, as `swift upload` does, and gives a `TempURL` to get it.
fn put(relay: &Relay, archive: Vec<u8>) -> Result<String> {
    let token = fs::read_to_string(relay.token_file())?;
    let client = Client::new();
    let send = |request: RequestBuilder| -> Result<()> {
        let response = request.header("x-auth-token", token.trim()).send()?;
        let (status, url) = (response.status(), response.url().path().to_owned());
        ensure!(status.is_success(), "{url}: {status}: {}", response.text()?);
        Ok(())
    };
    let url = |path: &str| format!("{}{ACCOUNT}{path}", relay.public);
    send(client.post(url("")).header("x-account-meta-temp-url-key", KEY))?;
    send(client.put(url("/images")))?;
    send(client.put(url("/images/greeting.tar")).body(archive))?;

    let path = format!("{ACCOUNT}/images/greeting.tar");
    let signature = tempurl::sign(Digest::Sha256, KEY.as_bytes(), "GET", EXPIRES, &path);
    Ok(format!("{}{path}?temp_url_sig={signature}&temp_url_expires={EXPIRES}", relay.public))
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
