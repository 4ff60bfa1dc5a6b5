//! Heat's other transports lead through the relay, which acknowledges at once and delivers when it can.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::heat::{Stack, put};
use e2e::wait;
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::stage::{Cloud, END_LIMIT, Scene, Stage, wait_condition};

/// How long heat-api is away.
const OUTAGE: Duration = Duration::from_secs(60);
/// An acknowledgement that came this soon did not wait for Heat.
const AT_ONCE: Duration = Duration::from_secs(3);
/// The longest pause between two tries to deliver, and what Heat then does with the signal.
const DELIVERY_LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new("transports::heat_api_is_away_for_a_minute", heat_api_away)]
}

/// One stack for each transport, all of which wait while heat-api is away. CloudFormation's waits for Heat's
/// own check as well, which this Keystone refuses: it completes because the relay makes the check.
fn heat_api_away(stage: &Stage) -> Result<()> {
    let cloud = stage.cloud()?;
    let (token, heat, cfn) = {
        let _turn = stage.together();
        let token = waiting_stack(&cloud, "TOKEN_SIGNAL")?;
        let heat = waiting_stack(&cloud, "HEAT_SIGNAL")?;
        let cfn = waiting_stack(&cloud, "CFN_SIGNAL")?;
        bad_payloads_are_refused(&token, &cfn)?;
        (token, heat, cfn)
    };

    cloud.lab.knob(&["stop", "heat-api-spare"])?;
    let stopped = Instant::now();
    {
        let _turn = stage.together();
        // Twice each, as by a sender that missed the acknowledgement.
        for _ in 0..2 {
            at_once("TOKEN_SIGNAL", || post_with_token(&token, r#"{"id": "a", "data": 1}"#))?;
            at_once("CFN_SIGNAL", || put(&cfn.alarm_url("signal")?, r#"{"id": "a", "data": 1}"#))?;
        }
        agent_signals(stage, &heat)?;
    }
    wait::pause(OUTAGE.saturating_sub(stopped.elapsed()));
    for stack in [&token, &heat, &cfn] {
        let status = stack.status()?;
        ensure!(status.word == "CREATE_IN_PROGRESS", "{} is {status:?}", stack.name());
    }
    cloud.lab.knob(&["start", "heat-api-spare"])?;

    let _turn = stage.together();
    at_once("TOKEN_SIGNAL", || post_with_token(&token, r#"{"id": "b", "data": 2}"#))?;
    at_once("CFN_SIGNAL", || put(&cfn.alarm_url("signal")?, r#"{"id": "b", "data": 2}"#))?;
    heat_signal(&cloud, &heat, r#"{"id": "b", "data": 2}"#)?;
    for stack in [token, cfn] {
        stack.completed(DELIVERY_LIMIT)?;
        let data = stack.json_output("data")?;
        ensure!(data == json!({"a": 1, "b": 2}), "{}: {data}", stack.name());
        stack.delete()?;
    }
    heat.completed(DELIVERY_LIMIT)?;
    let data = heat.json_output("data")?;
    ensure!(
        data.as_object().is_some_and(|map| map.len() == 2) && data["b"] == 2,
        "HEAT_SIGNAL: {data}"
    );
    heat.delete()
}

fn waiting_stack(cloud: &Cloud, transport: &str) -> Result<Stack> {
    let template = wait_condition(transport, 2, END_LIMIT * 4);
    let name = transport.to_lowercase().replace('_', "-");
    let stack = cloud.lab.user("demo")?.create_stack(&name, &template, &json!({}))?;
    stack.reached("wait")?;
    Ok(stack)
}

/// Heat would answer 200 and drop them, or close the connection.
fn bad_payloads_are_refused(token: &Stack, cfn: &Stack) -> Result<()> {
    for body in [r#"{"status": "DONE"}"#, r#"{"status": "SUCCESS", "state": 1}"#, "done"] {
        let (status, answer) = post_with_token(token, body)?;
        ensure!(status == 400, "TOKEN_SIGNAL: {body} was answered with {status}: {answer}");
        let (status, answer) = put(&cfn.alarm_url("signal")?, body)?;
        ensure!(status == 400, "CFN_SIGNAL: {body} was answered with {status}: {answer}");
    }
    Ok(())
}

fn at_once(what: &str, send: impl FnOnce() -> Result<(u16, String)>) -> Result<()> {
    let began = Instant::now();
    let (status, answer) = send()?;
    ensure!(status == 200, "{what} was answered with {status}: {answer}");
    ensure!(began.elapsed() < AT_ONCE, "{what} was answered after {:?}", began.elapsed());
    Ok(())
}

fn post_with_token(stack: &Stack, body: &'static str) -> Result<(u16, String)> {
    post(&stack.output("endpoint")?, &stack.output("token")?, body)
}

fn post(url: &str, token: &str, body: &'static str) -> Result<(u16, String)> {
    let request = Client::new().post(url).header("x-auth-token", token);
    let response = request.header("content-type", "application/json").body(body).send()?;
    Ok((response.status().as_u16(), response.text()?))
}

fn agent_signals(stage: &Stage, stack: &Stack) -> Result<()> {
    let engine = stage.engine()?;
    let turn = engine.turn()?;
    let signal = stack.output("signal")?;
    let user_data = format!("#docker\nimage: centos\ncmd: sleep 1000\nsignal: {signal}\n");
    let ran = Instance::new("heat-signal", &turn.engine.url(), &user_data)?.run()?;
    ensure!(ran.status.success(), "{}{}", ran.status, ran.last_words);
    Ok(())
}

/// As the agent does it: a token from Keystone for the handle's own user, then the signal.
fn heat_signal(cloud: &Cloud, stack: &Stack, body: &'static str) -> Result<()> {
    let handle = stack.json_output("signal")?;
    let text = |key: &str| handle[key].as_str().with_context(|| format!("the handle has no {key}"));
    let request: Value = json!({"auth": {
        "identity": {"methods": ["password"], "password": {
            "user": {"id": text("user_id")?, "password": text("password")?}}},
        "scope": {"project": {"id": text("project_id")?}},
    }});
    let url = format!("{}/v3/auth/tokens", cloud.lab.fact("keystone_url")?);
    let response = Client::new().post(url).json(&request).send()?;
    let token = response.headers().get("x-subject-token").context("no token")?.to_str()?.to_owned();
    at_once("HEAT_SIGNAL", || post(text("alarm_url")?, &token, body))
}
