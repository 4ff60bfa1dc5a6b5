//! CloudFormation's side of Heat: its own wait conditions, and presigned signals of other resources.
//!
//! All of them lead through the relay, whose Keystone refuses what heat-api-cfn asks: what arrives, arrives
//! because the relay has checked the signature and gone round.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::heat::put;
use e2e::wait;
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::examples;
use crate::stage::{Cloud, END_LIMIT, Scene, Stage, wait_condition};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("cloudformation::its_wait_condition_takes_either_spelling", wait_conditions),
        Scene::new("cloudformation::a_failure_is_told", failure),
        Scene::new("cloudformation::a_deployment_signals_through_the_relay", deployment),
    ]
}

/// What a wait condition of CloudFormation's is, with its handle's URL.
fn template(count: usize) -> String {
    format!(
        "HeatTemplateFormatVersion: '2012-12-12'
Resources:
  handle: {{Type: 'AWS::CloudFormation::WaitConditionHandle'}}
  wait:
    Type: AWS::CloudFormation::WaitCondition
    Properties: {{Handle: {{Ref: handle}}, Count: {count}, Timeout: '600'}}
Outputs:
  url: {{Value: {{Ref: handle}}}}
  data: {{Value: {{'Fn::GetAtt': [wait, Data]}}}}
"
    )
}

/// As cfn-signal sends it.
fn cfn_signal(status: &str, id: &str) -> String {
    json!({"Status": status, "Reason": format!("{id} says so"), "UniqueId": id, "Data": id})
        .to_string()
}

fn wait_conditions(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    let user = cloud.lab.user("demo")?;
    let cfn = user.create_stack("cfn-wait", &template(3), &json!({}))?;
    let heat = wait_condition("CFN_SIGNAL", 2, Duration::from_secs(600));
    let heat = user.create_stack("cfn-signal-to-heat", &heat, &json!({}))?;

    cfn.reached("wait")?;
    let url = cfn.output("url")?;
    ensure!(url.starts_with(&cloud.relay.public()), "the handle does not lead to the relay");
    for body in [r#"{"Status": "SUCCESS"}"#, r#"{"Status": "DONE"}"#, "done"] {
        let (status, answer) = put(&url, body)?;
        ensure!(status == 400, "{body} was answered with {status}: {answer}");
    }
    for body in [cfn_signal("SUCCESS", "a"), cfn_signal("SUCCESS", "a")] {
        taken(put(&url, body)?)?;
    }
    taken(put(&url, r#"{"status": "SUCCESS", "id": "b", "data": "b"}"#)?)?;
    let engine = stage.engine()?;
    let turn = engine.turn()?;
    let user_data = format!("#docker\nimage: centos\ncmd: sleep 1000\nsignal: {url}\n");
    let ran = Instance::new("cfn", &turn.engine.url(), &user_data)?.run()?;
    drop(turn);
    ensure!(ran.status.success(), "{}{}", ran.status, ran.last_words);
    cfn.completed(END_LIMIT)?;
    let data = cfn.json_output("data")?;
    ensure!(data["a"] == "a" && data["b"] == "b", "{data}");
    ensure!(data.as_object().is_some_and(|map| map.len() == 3), "{data}");

    heat.reached("wait")?;
    let url = heat.alarm_url("signal")?;
    keystone_stumbles(&cloud, &url)?;
    taken(put(&url, cfn_signal("SUCCESS", "a"))?)?;
    taken(put(&url, r#"{"id": "b", "data": "b"}"#)?)?;
    heat.completed(END_LIMIT)?;
    let data = heat.json_output("data")?;
    ensure!(data == json!({"a": "a", "b": "b"}), "{data}");
    for stack in [cfn, heat] {
        let events = stack.event_reasons("handle")?;
        ensure!(!events.iter().any(|reason| reason.contains("invalid")), "{events:?}");
        stack.delete()?;
    }
    Ok(())
}

/// Whoever has a project can make Keystone fail over a question: by a host that it cannot take apart, or by
/// a credential of his own without a secret. The relay must not take that for a Keystone that is away.
fn keystone_stumbles(cloud: &Cloud, url: &str) -> Result<()> {
    let (user, client) = (cloud.lab.user("other")?, Client::new());
    let credential = json!({"credential": {
        "type": "ec2",
        "user_id": user.id,
        "project_id": user.project_id,
        "blob": json!({"access": "odd"}).to_string(),
    }});
    let at_keystone = format!("{}/v3/credentials", cloud.lab.fact("keystone_url")?);
    let made = client.post(at_keystone).header("x-auth-token", &user.token).json(&credential);
    let made = made.send()?.status();
    ensure!(made == 201, "Keystone answered {made} to a credential");
    let (resource, _) = url.split_once('?').context("a URL without a signature")?;
    let odd = format!("{resource}?AWSAccessKeyId=odd&Signature=x&SignatureVersion=2");
    for (request, expect) in [
        (client.put(url).header("host", "[:a"), (400, "bad_host")),
        (client.put(odd), (503, "token_check_unavailable")),
    ] {
        let response = request.body("{}").send()?;
        let (status, answer) = (response.status().as_u16(), response.text()?);
        ensure!(status == expect.0 && answer.contains(expect.1), "{status}: {answer}");
    }
    Ok(())
}

fn failure(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let user = stage.cloud()?.lab.user("demo")?;
    let stack = user.create_stack("cfn-failure", &template(1), &json!({}))?;
    stack.reached("wait")?;
    taken(put(&stack.output("url")?, cfn_signal("FAILURE", "the disk"))?)?;
    let status = stack.created(END_LIMIT)?;
    ensure!(status.word == "CREATE_FAILED", "{status:?}");
    ensure!(status.reason.contains("the disk says so"), "{status:?}");
    stack.delete()
}

/// The example of a deployment, with the other transport: its URL is one of `/v1/signal/`.
fn deployment(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    let user = cloud.lab.user("demo")?;
    let template = examples::text("deployment")?;
    let template =
        template.replace("signal_transport: TEMP_URL_SIGNAL", "signal_transport: CFN_SIGNAL");
    let stack = user.create_stack("cfn-deployment", &template, &json!({}))?;
    stack.reached("deployment")?;
    let deployment = examples::deployment_in_metadata(&stack)?;
    let url = examples::input(&deployment, "deploy_signal_id")?;
    ensure!(examples::input(&deployment, "deploy_signal_verb")? == "POST", "{deployment}");
    let path = format!("{}/v1/signal/", cloud.relay.public());
    ensure!(url.starts_with(&path), "the deployment does not lead to the relay's {path}");
    let told = json!({
        "answer": "hello yourself", "deploy_stdout": "done\n", "deploy_stderr": "", "deploy_status_code": 0,
    });
    taken(post(url, &told)?)?;
    stack.completed(END_LIMIT)?;
    ensure!(stack.output("answer")? == "hello yourself");
    ensure!(stack.output("stdout")? == "done\n");
    stack.delete()
}

fn taken((status, answer): (u16, String)) -> Result<()> {
    ensure!(status == 200, "a signal was answered with {status}: {answer}");
    Ok(())
}

/// Signals as a deployment's scripts do: who is asked to come back later comes back.
fn post(url: &str, body: &Value) -> Result<(u16, String)> {
    wait::until("an answer but 503", END_LIMIT, || {
        let response = Client::new().post(url).json(body).send().context("no answer")?;
        let status = response.status().as_u16();
        Ok((status != 503).then_some((status, response.text()?)))
    })
}
