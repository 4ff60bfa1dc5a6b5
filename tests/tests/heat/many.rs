//! Many wait conditions at once.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::heat::{Stack, put};
use serde_json::{Value, json};

use crate::stage::{END_LIMIT, Scene, Stage};

const N_STACKS: usize = 10;
const N_WAITS_PER_STACK: usize = 5;
const N_SIGNALS_PER_WAIT: usize = 2;

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new("many::fifty_wait_conditions_in_ten_stacks", fifty)]
}

fn fifty(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let user = stage.cloud()?.lab.user("demo")?;
    let template = template();
    let mut stacks: Vec<Stack> = Vec::new();
    for number in 0..N_STACKS {
        stacks.push(user.create_stack(&format!("many-{number}"), &template, &json!({}))?);
    }
    let mut signals: Vec<(String, String)> = Vec::new();
    for (number, stack) in stacks.iter().enumerate() {
        for wait in 0..N_WAITS_PER_STACK {
            stack.reached(&format!("wait{wait}"))?;
        }
        let handles = stack.output_value("signals")?;
        for (wait, handle) in handles.as_array().context("no handles")?.iter().enumerate() {
            let handle: Value = serde_json::from_str(handle.as_str().context("no handle")?)?;
            let url = handle["alarm_url"].as_str().context("no alarm_url")?;
            for signal in 0..N_SIGNALS_PER_WAIT {
                let body = json!({"id": format!("s{signal}"), "data": [number, wait, signal]});
                // Every second one is sent twice, as by a sender that missed the acknowledgement.
                for _ in 0..=(signal % 2) {
                    signals.push((url.to_owned(), body.to_string()));
                }
            }
        }
    }
    shuffle(&mut signals);
    for (url, body) in signals {
        let (status, answer) = put(&url, body)?;
        ensure!(status == 201, "a signal was answered with {status}: {answer}");
    }
    for (number, stack) in stacks.iter().enumerate() {
        stack.completed(END_LIMIT)?;
        for wait in 0..N_WAITS_PER_STACK {
            let expected: BTreeMap<String, Value> = (0..N_SIGNALS_PER_WAIT)
                .map(|signal| (format!("s{signal}"), json!([number, wait, signal])))
                .collect();
            let data = stack.json_output(&format!("data{wait}"))?;
            ensure!(data == json!(expected), "many-{number} wait{wait}: {data}");
            let events = stack.event_reasons(&format!("handle{wait}"))?;
            let n_signals = events.iter().filter(|reason| reason.starts_with("Signal: ")).count();
            ensure!(n_signals == N_SIGNALS_PER_WAIT, "Heat took {n_signals} signals: {events:?}");
        }
    }
    for stack in stacks {
        stack.delete()?;
    }
    Ok(())
}

fn template() -> String {
    let mut resources = String::new();
    let mut outputs = String::new();
    let mut signals = Vec::new();
    for wait in 0..N_WAITS_PER_STACK {
        resources.push_str(&format!(
            "  handle{wait}:
    type: OS::Heat::WaitConditionHandle
    properties: {{signal_transport: TEMP_URL_SIGNAL}}
  wait{wait}:
    type: OS::Heat::WaitCondition
    properties: {{handle: {{get_resource: handle{wait}}}, count: {N_SIGNALS_PER_WAIT}, timeout: 600}}
"
        ));
        outputs.push_str(&format!("  data{wait}: {{value: {{get_attr: [wait{wait}, data]}}}}\n"));
        signals.push(format!("{{get_attr: [handle{wait}, signal]}}"));
    }
    let signals = signals.join(", ");
    format!(
        "heat_template_version: 2018-08-31\nresources:\n{resources}outputs:\n{outputs}  signals: {{value: [{signals}]}}\n"
    )
}

/// Another order, the same in every run.
fn shuffle<T>(items: &mut [T]) {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    for upper in (1..items.len()).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chosen = (state >> 33) as usize % (upper + 1);
        items.swap(upper, chosen);
    }
}
