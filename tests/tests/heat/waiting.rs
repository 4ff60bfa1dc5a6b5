//! Wait conditions from their beginning to their end.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, ensure};
use e2e::agent::Instance;
use e2e::heat::put;
use e2e::{programs, wait};
use reqwest::Method;
use serde_json::{Value, json};

use crate::examples::create_with;
use crate::stage::{END_LIMIT, Scene, Stage, wait_condition};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("waiting::two_agents_complete_it_and_nothing_is_left", two_agents),
        Scene::new("waiting::a_time_out_says_how_many_came", time_out),
        Scene::new("waiting::after_a_time_out_the_relay_says_who_never_called", never_called),
        Scene::new("waiting::another_project_is_kept_out", another_project),
    ]
}

fn two_agents(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    // No other scene has stacks in this project, so that nothing of it may be left.
    let user = cloud.lab.user("other")?;
    let template = wait_condition("TEMP_URL_SIGNAL", 2, Duration::from_secs(600));
    let stack = user.create_stack("two-agents", &template, &json!({}))?;
    stack.reached("wait")?;
    let signal = stack.output("signal")?;

    let engine = stage.engine()?;
    for instance in ["first", "second"] {
        let turn = engine.turn()?;
        let user_data = format!("#docker\nimage: centos\ncmd: sleep 1000\nsignal: {signal}\n");
        let ran = Instance::new(instance, &turn.engine.url(), &user_data)?.run()?;
        ensure!(ran.status.success(), "{}{}", ran.status, ran.last_words);
    }
    stack.completed(END_LIMIT)?;
    let data = stack.json_output("data")?;
    let told: Vec<&Value> = data.as_object().context("data is no map")?.values().collect();
    ensure!(told.len() == 2, "two agents told: {data}");
    for container in told {
        ensure!(container["container_id"].is_string(), "{data}");
    }

    let alarm_url = stack.alarm_url("signal")?;
    stack.delete()?;
    let (status, _) = user.ask_relay(&cloud.relay, Method::HEAD, &format!("/{}", stack.id))?;
    ensure!(status == 404, "the container is answered with {status}");
    let (status, containers) = user.ask_relay(&cloud.relay, Method::GET, "")?;
    ensure!(status == 204, "the account is answered with {status}: {containers}");
    // Somebody might still wait for it: a late signal is taken in, and can be read and removed.
    let (status, answer) = put(&alarm_url, r#"{"id": "late"}"#)?;
    ensure!(status == 201, "a late signal is answered with {status}: {answer}");
    let container = format!("/{}", stack.id);
    let (_, names) = user.ask_relay(&cloud.relay, Method::GET, &container)?;
    let late = format!("{container}/{}", names.trim());
    let (status, answer) = user.ask_relay(&cloud.relay, Method::DELETE, &late)?;
    ensure!(status == 204, "{late} was not removed: {status} {answer}");
    let (status, containers) = user.ask_relay(&cloud.relay, Method::GET, "")?;
    ensure!(status == 204, "the account is answered with {status}: {containers}");

    let template = wait_condition("TEMP_URL_SIGNAL", 1, Duration::from_secs(600));
    let stack = user.create_stack("one-more", &template, &json!({}))?;
    stack.reached("wait")?;
    let (status, answer) = put(&stack.alarm_url("signal")?, r#"{"id": "late"}"#)?;
    ensure!(status == 201, "the signal was answered with {status}: {answer}");
    stack.completed(END_LIMIT)?;
    stack.delete()
}

fn time_out(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let user = stage.cloud()?.lab.user("demo")?;
    let template = wait_condition("TEMP_URL_SIGNAL", 2, Duration::from_secs(12));
    let stack = user.create_stack("time-out", &template, &json!({}))?;
    stack.reached("wait")?;
    let (status, answer) =
        put(&stack.alarm_url("signal")?, r#"{"id": "one", "reason": "only one"}"#)?;
    ensure!(status == 201, "the signal was answered with {status}: {answer}");

    let ended = stack.created(END_LIMIT)?;
    ensure!(ended.word == "CREATE_FAILED", "{ended:?}");
    ensure!(ended.reason.contains("WaitConditionTimeout"), "{ended:?}");
    ensure!(ended.reason.contains("1 of 2 received - only one"), "{ended:?}");
    ensure!(stack.json_output("data")? == json!({"one": null}), "what came stays readable");
    stack.delete()
}

/// Heat says how many came; the relay says who did not.
fn never_called(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    let user = cloud.lab.user("demo")?;
    let stack = create_with(&user, "expected-servers", &json!({"timeout": 45}))?;
    stack.made("expected")?;
    let group = stack.nested("servers")?;
    // The stack that stands in for a server has its id for the server's.
    let server = |index: usize| Ok::<String, Error>(group.nested(&index.to_string())?.id);
    let user_data = group.attribute("0", "user_data")?;
    let (_, signal) = user_data
        .as_str()
        .and_then(|text| text.split_once("\nsignal: "))
        .with_context(|| format!("user data is {user_data}"))?;
    let signal: Value = serde_json::from_str(signal.trim())?;
    let url = signal["alarm_url"].as_str().context("no alarm_url")?;
    // The ids are those of an agent, which the scenes of the examples look at.
    for index in [0, 1] {
        let id = format!("{}/main/0123456789ab", server(index)?);
        let (status, answer) = put(url, json!({"id": id, "reason": "up"}).to_string())?;
        ensure!(status == 201, "the signal was answered with {status}: {answer}");
    }
    let missing = format!("{} has never called", server(2)?);

    let ended = stack.created(END_LIMIT)?;
    ensure!(ended.word == "CREATE_FAILED", "{ended:?}");
    ensure!(ended.reason.contains("2 of 3 received"), "{ended:?}");
    let mut command = Command::new(programs::heliograph_server()?);
    command.args(["stack", &stack.id, "--server", &cloud.relay.public()]);
    let shown = command.env("OS_TOKEN", &user.token).output()?;
    let text = String::from_utf8_lossy(&shown.stdout);
    ensure!(shown.status.code() == Some(2), "{shown:?}");
    ensure!(text.contains(&format!("2 of 3 expected have signalled; {missing}")), "{text}");
    for index in [0, 1] {
        ensure!(text.contains(&format!("expected {}: signalled", server(index)?)), "{text}");
    }
    wait::until("the line in the relay's log", END_LIMIT, || {
        let log = cloud.relay.log()?;
        let mut lines = log.lines();
        Ok(lines.any(|line| line.contains(&stack.id) && line.contains(&missing)).then_some(()))
    })?;
    stack.delete()?;
    let (_, containers) = user.ask_relay(&cloud.relay, Method::GET, "")?;
    ensure!(!containers.contains(&stack.id), "a container is left: {containers}");
    Ok(())
}

fn another_project(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    let mut stranger = cloud.lab.user("other")?;
    stranger.project_id = cloud.lab.user("demo")?.project_id;
    for method in [Method::HEAD, Method::GET, Method::POST] {
        let (status, answer) = stranger.ask_relay(&cloud.relay, method.clone(), "")?;
        ensure!(status == 403, "{method} was answered with {status}: {answer}");
    }
    stranger.token = "gAAAAA-no-such-token".to_owned();
    let (status, answer) = stranger.ask_relay(&cloud.relay, Method::GET, "")?;
    ensure!(status == 401, "a token of nobody was answered with {status}: {answer}");
    Ok(())
}
