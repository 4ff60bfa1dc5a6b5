//! Stacks that are changed while somebody waits.

use anyhow::{Result, ensure};
use e2e::heat::put;
use e2e::wait;
use reqwest::Method;
use serde_json::json;

use crate::stage::{END_LIMIT, Scene, Stage};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new("updating::a_handle_that_is_taken_away_takes_no_other_with_it", taken_away)]
}

/// A server that is told where to signal, and whoever waits for it. Heat takes a while to make it and to take
/// it away, as servers do.
fn template(name: &str) -> String {
    format!(
        "heat_template_version: 2018-08-31
resources:
  {name}-handle:
    type: OS::Heat::WaitConditionHandle
    properties: {{signal_transport: TEMP_URL_SIGNAL}}
  {name}-server:
    type: OS::Heat::TestResource
    properties:
      value: {{str_replace: {{template: URL, params: {{URL: {{get_attr: [{name}-handle, endpoint]}}}}}}}}
      action_wait_secs: {{create: 1, delete: 1}}
  {name}-wait:
    type: OS::Heat::WaitCondition
    depends_on: {name}-server
    properties: {{handle: {{get_resource: {name}-handle}}, timeout: 120}}
outputs:
  signal: {{value: {{get_attr: [{name}-handle, signal]}}}}
"
    )
}

fn taken_away(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    let user = cloud.lab.user("demo")?;
    let signal = |url: &str| {
        let (status, answer) = put(url, r#"{"id": "server"}"#)?;
        ensure!(status == 201, "the signal was answered with {status}: {answer}");
        Ok(())
    };
    let stack = user.create_stack("taken-away", &template("old"), &json!({}))?;
    stack.reached("old-wait")?;
    signal(&stack.alarm_url("signal")?)?;
    stack.completed(END_LIMIT)?;

    stack.update(&template("new"))?;
    // By now Heat has taken the old handle away, and the container with it, in which it has seen nothing.
    wait::until("the end of the old handle", END_LIMIT, || {
        let (status, _) = user.ask_relay(&cloud.relay, Method::HEAD, &format!("/{}", stack.id))?;
        Ok((status == 404).then_some(()))
    })?;
    stack.reached("new-wait")?;
    signal(&stack.alarm_url("signal")?)?;
    stack.updated(END_LIMIT)?;
    stack.delete()
}
