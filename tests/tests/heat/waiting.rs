//! Wait conditions from their beginning to their end.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::heat::put;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::{END_LIMIT, Scene, Stage, wait_condition};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("waiting::two_agents_complete_it_and_nothing_is_left", two_agents),
        Scene::new("waiting::a_time_out_says_how_many_came", time_out),
        Scene::new("waiting::another_project_is_kept_out", another_project),
    ]
}

fn two_agents(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    let user = cloud.lab.user("demo")?;
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
    let (_, containers) = user.ask_relay(&cloud.relay, Method::GET, "")?;
    ensure!(!containers.contains(&stack.id), "the container is listed: {containers}");
    let (status, answer) = put(&alarm_url, r#"{"id": "late"}"#)?;
    ensure!(status == 404, "a late signal is answered with {status}: {answer}");
    Ok(())
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
