//! Keystone and heat-api behind TLS, with a certificate of the cloud's own.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::certificates::Authority;
use e2e::heat::{HeatRelay, Lab, quiet_port};
use e2e::process::Process;
use e2e::wait;
use reqwest::Method;
use reqwest::blocking::Client;
use serde_json::json;
use tempfile::TempDir;

use crate::stage::{END_LIMIT, Scene, Stage, wait_condition};

const START_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new(
        "encrypted::keystone_and_heat_are_trusted_by_their_own_authority",
        own_authority,
    )]
}

/// A haproxy in front of both.
struct Front {
    _process: Process,
    keystone_url: String,
    heat_url: String,
}

impl Front {
    fn start(lab: &Lab, authority: &Authority, directory: &TempDir) -> Result<Front> {
        authority.sign("cloud")?;
        let read = |file: &str| fs::read_to_string(authority.path(file));
        let both = directory.path().join("cloud.both");
        fs::write(&both, read("cloud.pem")? + &read("cloud.key")?)?;
        let mut configuration =
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
                .to_owned();
        let mut listen = |url: &str| -> Result<String> {
            let port = quiet_port()?;
            let server = url.strip_prefix("http://").context("the lab is not plain HTTP")?;
            configuration.push_str(&format!(
                "listen p{port}\n bind 127.0.0.1:{port} ssl crt {}\n server s {server}\n",
                both.display()
            ));
            Ok(format!("https://127.0.0.1:{port}"))
        };
        let keystone_url = listen(lab.fact("keystone_url")?)?;
        let heat_url = listen(lab.fact("heat_url")?)?;
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, configuration)?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        let mut process = Process::spawn("haproxy", &mut command, directory.path())?;
        let address = heat_url.trim_start_matches("https://").to_owned();
        wait::until("haproxy", START_LIMIT, || {
            ensure!(process.has_ended()?.is_none(), "haproxy ended:{}", process.last_words());
            Ok(std::net::TcpStream::connect(&address).ok())
        })?;
        Ok(Front { _process: process, keystone_url, heat_url })
    }
}

fn own_authority(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    let directory = TempDir::new()?;
    let authority = Authority::make(&directory.path().join("certificates"))?;
    let front = Front::start(&cloud.lab, &authority, &directory)?;
    let user = cloud.lab.user("demo")?;
    let trusted = format!("ca_file = \"{}\"\n", authority.path("ca.pem").display());
    let stranger = Authority::make(&directory.path().join("stranger"))?;
    let distrusted = format!("ca_file = \"{}\"\n", stranger.path("ca.pem").display());

    // Whom the relay does not trust is not asked, and that is no fault of the caller's.
    let relay = HeatRelay::plan()?;
    relay.start_at(&cloud.lab, &front.keystone_url, &front.heat_url, &distrusted, &distrusted)?;
    let (status, answer) = user.ask_relay(&relay, Method::HEAD, "")?;
    ensure!(status == 503, "with a stranger's certificate the answer is {status}: {answer}");
    relay.kill()?;

    relay.start_at(&cloud.lab, &front.keystone_url, &front.heat_url, &trusted, &trusted)?;
    let (status, answer) = user.ask_relay(&relay, Method::GET, "")?;
    ensure!(status == 204, "the account is answered with {status}: {answer}");

    let template = wait_condition("TOKEN_SIGNAL", 1, Duration::from_secs(600));
    let stack = user.create_stack("encrypted", &template, &json!({}))?;
    stack.reached("wait")?;
    let endpoint = stack.output("endpoint")?.replace(&cloud.relay.public(), &relay.public());
    ensure!(endpoint.starts_with(&relay.public()), "the handle leads elsewhere");
    let request = Client::new().post(endpoint).header("x-auth-token", stack.output("token")?);
    let response = request.body(r#"{"id": "a", "data": 1}"#).send()?;
    ensure!(response.status() == 200, "the signal was answered with {}", response.status());
    stack.completed(END_LIMIT)?;
    ensure!(stack.json_output("data")? == json!({"a": 1}));
    stack.delete()
}
