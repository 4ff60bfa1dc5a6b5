//! What a person asks an instance: `doctor` and `analyze`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::{Asked, Instance};
use e2e::engine::{Kind, url_of};
use serde_json::Value;
use tempfile::TempDir;

use crate::stage::{IDLE, Scene, Stage, Waiting, free_address};

/// Nothing is at the metadata address where scenes run, and doctor would wait for it.
const NO_METADATA: [&str; 2] = ["--metadata-address", "off"];

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("looking::docker::all_is_well", all_is_well),
        Scene::new("looking::engine_and_handle_are_broken", |_| engine_and_handle_are_broken()),
    ]
}

fn all_is_well(stage: &Stage) -> Result<()> {
    let engine = stage.engine(Kind::Docker)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let document = waiting.document("", &format!("image: busybox\ncmd: {IDLE}"));
    let instance = Instance::new("well", &turn.engine.url(), &document)?;
    let nothing_yet = instance.ask(&["analyze"])?;
    ensure!(nothing_yet.printed == "no run yet\n", "{nothing_yet:?}");
    let ran = instance.run()?;
    ensure!(ran.status.success(), "{}{}", ran.console, ran.last_words);
    let waited = waiting.relay.wait(&waiting.handle, LIMIT)?;
    ensure!(waited.exit_code == Some(0), "{waited:?}");

    let asked = doctor(&instance)?;
    ensure!(asked.exit_code == Some(0), "{asked:?}");
    for hop in ["datasource", "document", "engine", "image", "handle", "clock", "run"] {
        ensure!(verdict(&asked, hop)? == "ok", "{hop}: {}", asked.printed);
    }
    let secret = waiting.handle.signal_url.split("temp_url_sig=").nth(1);
    if let Some(secret) = secret {
        ensure!(!asked.printed.contains(secret), "a signature is shown: {}", asked.printed);
    }

    let analyzed = instance.ask(&["analyze", "--json"])?;
    ensure!(analyzed.exit_code == Some(0), "{analyzed:?}");
    let view: Value = serde_json::from_str(&analyzed.printed)?;
    let steps = view["steps"].as_array().context("no steps")?;
    let n_ms: u64 = steps.iter().filter_map(|step| step["ms"].as_u64()).sum();
    ensure!(view["is_over"] == true && view["total_ms"] == n_ms, "{view}");
    let words = instance.ask(&["analyze"])?;
    for step in steps {
        let step = step["step"].as_str().context("a step without a name")?;
        ensure!(words.printed.contains(step), "{step} is missing: {}", words.printed);
    }
    // It stays stable for a second, as the document asks.
    let took = |name: &str| steps.iter().find(|step| step["step"] == name)?["ms"].as_u64();
    ensure!(took("watch") >= Some(1_000), "{view}");
    Ok(())
}

/// Both are named in one go.
fn engine_and_handle_are_broken() -> Result<()> {
    let nowhere = TempDir::new()?;
    let engine_url = url_of(&nowhere.path().join("no.sock"));
    let address = free_address()?;
    let document = format!(
        "#docker\nimage: busybox\n\
         signal: {{url: \"http://{address}/v1/a?temp_url_sig=hidden\", timeout: 45s}}\n"
    );
    let instance = Instance::new("broken", &engine_url, &document)?;
    let asked = doctor(&instance)?;
    ensure!(asked.exit_code == Some(1), "{asked:?}");
    for (hop, expect) in [
        ("datasource", "ok"),
        ("document", "ok"),
        ("engine", "broken"),
        ("handle", "broken"),
        ("run", "note"),
    ] {
        ensure!(verdict(&asked, hop)? == expect, "{hop}: {}", asked.printed);
    }
    ensure!(asked.printed.contains("no.sock"), "{}", asked.printed);
    ensure!(asked.printed.contains(&address), "{}", asked.printed);
    ensure!(!asked.printed.contains("hidden"), "{}", asked.printed);
    Ok(())
}

fn doctor(instance: &Instance) -> Result<Asked> {
    let user_data = instance.user_data_file();
    let user_data = user_data.to_str().context("a path that is no text")?;
    let [flag, off] = NO_METADATA;
    instance.ask(&["doctor", "--json", "--user-data", user_data, flag, off])
}

fn verdict(asked: &Asked, hop: &str) -> Result<String> {
    let view: Value =
        serde_json::from_str(&asked.printed).with_context(|| format!("no JSON: {asked:?}"))?;
    let hops = view["hops"].as_array().context("no hops")?;
    let found = hops.iter().find(|one| one["hop"] == hop);
    let found = found.with_context(|| format!("{hop} is missing: {view}"))?;
    Ok(found["verdict"].as_str().unwrap_or_default().to_owned())
}
