//! A real Heat behind three relays and a load balancer, in round robin: it polls them, and they signal it,
//! while they die.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::etcd::{Etcd, Place};
use e2e::heat::{HeatRelay, Lab, Stack, put};
use e2e::wait;
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::balancer::{Backend, Balancer};

/// How long a stack may take from its last signal to its end, on busy cores.
const END_LIMIT: Duration = Duration::from_secs(120);

const TEMPLATE: &str = "heat_template_version: 2018-08-31
resources:
  handle:
    type: OS::Heat::WaitConditionHandle
    properties: {signal_transport: TEMP_URL_SIGNAL}
  wait:
    type: OS::Heat::WaitCondition
    properties: {handle: {get_resource: handle}, count: 3, timeout: 600}
outputs:
  signal: {value: {get_attr: [handle, signal]}}
  data: {value: {get_attr: [wait, data]}}
";

/// How many signals one relay sends to Heat, one after the other, so that it can be killed in the midst.
const N_FORWARDS: usize = 12;

/// What a relay says that has got the job.
const IS_SENDER: &str = "this relay sends signals to heat from now on";

const FORWARDED: &str = "heat_template_version: 2018-08-31
resources:
  handle:
    type: OS::Heat::WaitConditionHandle
    properties: {signal_transport: TOKEN_SIGNAL}
  wait:
    type: OS::Heat::WaitCondition
    properties: {handle: {get_resource: handle}, count: 12, timeout: 600}
outputs:
  endpoint: {value: {get_attr: [handle, endpoint]}}
  token: {value: {get_attr: [handle, token]}}
  data: {value: {get_attr: [wait, data]}}
";

pub(crate) fn load_balancer() -> Result<()> {
    let etcd = Etcd::start(&[Place::Loopback, Place::Loopback, Place::Loopback])?;
    let relays = [HeatRelay::plan()?, HeatRelay::plan()?, HeatRelay::plan()?];
    let backend = |relay: &HeatRelay| Backend {
        address: relay.public().replace("http://", ""),
        admin_port: None,
    };
    let balancer = Balancer::start(&relays.each_ref().map(backend))?;

    let lab = Lab::stand_up(Some(&format!("http://{}", balancer.address)), true)?;
    let endpoints = etcd.endpoints().join("\", \"");
    let store = format!("[store.etcd]\nendpoints = [\"{endpoints}\"]\n");
    for relay in &relays {
        relay.start_for_with(&lab, &store)?;
    }
    let outcome = polled(&lab, &relays).and_then(|()| forwarded(&lab, &relays));
    let words = || {
        let relays: String = relays.iter().map(HeatRelay::last_words).collect();
        let others = [lab.last_words(), balancer.last_words(), etcd.last_words()];
        format!("{relays}{}", others.concat())
    };
    outcome.with_context(words)
}

/// Heat collects what was acknowledged by relays that are dead by then.
fn polled(lab: &Lab, relays: &[HeatRelay; 3]) -> Result<()> {
    let stack = lab.user("demo")?.create_stack("many-relays", TEMPLATE, &json!({}))?;
    stack.reached("wait")?;
    let url = stack.alarm_url("signal")?;
    for (relay, id) in relays.iter().zip(["a", "b", "c"]) {
        // Acknowledged by any of them, and most likely not collected when one dies.
        let (status, answer) = put(&url, json!({"id": id, "data": id}).to_string())?;
        ensure!(status == 201, "the signal {id} was answered with {status}: {answer}");
        relay.kill()?;
        if id != "c" {
            relay.start()?;
        }
    }
    stack.completed(END_LIMIT)?;
    let data = stack.json_output("data")?;
    ensure!(data == json!({"a": "a", "b": "b", "c": "c"}), "{data}");
    stack.delete()
}

/// Signals that wait for Heat are sent on by one relay, and by another one when that is killed in the midst.
fn forwarded(lab: &Lab, relays: &[HeatRelay; 3]) -> Result<()> {
    relays[2].start()?;
    let stack = lab.user("demo")?.create_stack("sent-on", FORWARDED, &json!({}))?;
    stack.reached("wait")?;
    let (endpoint, token) = (stack.output("endpoint")?, stack.output("token")?);
    lab.knob(&["stop", "heat-api-spare"])?;
    for number in 0..N_FORWARDS {
        // The reason is seen in Heat's events, one for each time that the signal arrives.
        let body = json!({"id": number.to_string(), "reason": format!("number {number};")});
        let request = Client::new().post(&endpoint).header("x-auth-token", &token);
        let answer =
            request.header("content-type", "application/json").body(body.to_string()).send()?;
        ensure!(answer.status() == 200, "signal {number} was answered with {answer:?}");
    }
    lab.knob(&["start", "heat-api-spare"])?;
    wait::until("the first signals to arrive", END_LIMIT, || {
        Ok((arrivals(&stack)?.iter().filter(|count| **count > 0).count() >= 2).then_some(()))
    })?;
    let holder = holder(relays)?;
    relays[holder].kill()?;
    let killed_at = Instant::now();
    let n_before = arrivals(&stack)?.iter().filter(|count| **count > 0).count();
    ensure!(n_before < N_FORWARDS, "the relay was killed when it was done");
    let next = wait::until("another relay to send signals", END_LIMIT, || {
        let running = (0..relays.len()).filter(|index| *index != holder);
        for index in running {
            if relays[index].log()?.contains(IS_SENDER) {
                return Ok(Some(index));
            }
        }
        Ok(None)
    })?;
    let taken_over = killed_at.elapsed();
    stack.completed(END_LIMIT)?;
    let data = stack.json_output("data")?;
    let expect: Value = (0..N_FORWARDS).map(|number| (number.to_string(), Value::Null)).collect();
    ensure!(data == expect, "{data}");
    let arrivals = arrivals(&stack)?;
    let n_repeated = arrivals.iter().filter(|count| **count > 1).count();
    // Only the one that was under way when its sender died may have come again, and Heat knew its id.
    ensure!(n_repeated <= 1, "signals arrived so often: {arrivals:?}");
    eprintln!(
        "    relay {holder} was killed with {n_before} of {N_FORWARDS} signals at Heat; relay {next} went on \
         after {:.1} s; {n_repeated} arrived twice, and counted once",
        taken_over.as_secs_f32()
    );
    relays[holder].start()?;
    stack.delete()
}

/// Which relay sends signals to Heat: the last one to have said so.
fn holder(relays: &[HeatRelay; 3]) -> Result<usize> {
    for (index, relay) in relays.iter().enumerate() {
        if relay.log()?.contains(IS_SENDER) {
            return Ok(index);
        }
    }
    anyhow::bail!("no relay sends signals to Heat")
}

/// How often each signal came to Heat, by its events.
fn arrivals(stack: &Stack) -> Result<Vec<usize>> {
    let reasons = stack.event_reasons("handle")?;
    let n_of = |number: usize| {
        reasons.iter().filter(|reason| reason.contains(&format!("reason:number {number};"))).count()
    };
    Ok((0..N_FORWARDS).map(n_of).collect())
}
