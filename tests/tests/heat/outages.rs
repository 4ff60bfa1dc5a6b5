//! What breaks while Heat waits: the relay, Keystone, and the token that the stack was created with.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::heat::{Stack, User, put};
use e2e::wait;
use reqwest::Method;
use serde_json::json;

use crate::stage::{Cloud, END_LIMIT, Scene, Stage, wait_condition};

/// Longer than any verdict about a token is used without asking again.
const KEYSTONE_OUTAGE: Duration = Duration::from_secs(60);
/// The part of the outage in which Keystone holds connections and answers nothing.
const KEYSTONE_HANGS: Duration = Duration::from_secs(20);
/// The tokens of the lab's second Keystone live for 45 s.
const TOKEN_LIMIT: Duration = Duration::from_secs(90);

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("outages::the_token_expires_while_heat_waits", expired_token),
        Scene::new("outages::keystone_is_away_for_a_minute", keystone_away),
        Scene::new("outages::the_relay_is_killed_while_heat_waits", relay_killed),
    ]
}

/// A stack that waits for two signals, and the URL for them.
fn waiting_stack(cloud: &Cloud, name: &str) -> Result<(Stack, String)> {
    let template = wait_condition("TEMP_URL_SIGNAL", 2, Duration::from_secs(600));
    let stack = cloud.lab.user("demo")?.create_stack(name, &template, &json!({}))?;
    stack.reached("wait")?;
    let url = stack.alarm_url("signal")?;
    Ok((stack, url))
}

fn signal(url: &str, id: &str) -> Result<()> {
    let (status, answer) = put(url, json!({"id": id, "data": id}).to_string())?;
    ensure!(status == 201, "the signal {id} was answered with {status}: {answer}");
    Ok(())
}

/// What somebody hears who lists a container.
fn listing_status(cloud: &Cloud, user: &User) -> Result<u16> {
    let (status, _) =
        user.ask_relay(&cloud.relay, Method::GET, "/no-such-container?format=json")?;
    Ok(status)
}

fn complete_with_both(stack: &Stack) -> Result<()> {
    stack.completed(END_LIMIT)?;
    let data = stack.json_output("data")?;
    ensure!(data == json!({"a": "a", "b": "b"}), "{data}");
    Ok(())
}

fn relay_killed(stage: &Stage) -> Result<()> {
    let _alone = stage.alone();
    let cloud = stage.cloud()?;
    let (stack, url) = waiting_stack(&cloud, "relay-killed")?;
    // Acknowledged, and most likely not collected.
    signal(&url, "a")?;
    cloud.relay.kill()?;
    cloud.relay.start()?;
    cloud.relay.kill()?;
    cloud.relay.start()?;
    signal(&url, "b")?;
    complete_with_both(&stack)?;
    stack.delete()
}

/// With a cloud of its own: nobody else can do anything in one without Keystone, and a minute is long.
fn keystone_away(_: &Stage) -> Result<()> {
    let cloud = Cloud::stand_up()?;
    without_keystone(&cloud).with_context(|| cloud.last_words())
}

fn without_keystone(cloud: &Cloud) -> Result<()> {
    let (stack, url) = waiting_stack(cloud, "keystone-away")?;
    let user = cloud.lab.user("demo")?;
    let began = Instant::now();
    cloud.lab.knob(&["pause", "keystone"])?;
    wait::pause(KEYSTONE_HANGS);
    let status = listing_status(cloud, &user)?;
    ensure!(status != 401 && status != 403, "while Keystone hangs, a listing is answered {status}");
    cloud.lab.knob(&["stop", "keystone"])?;
    wait::pause((KEYSTONE_OUTAGE / 2).saturating_sub(began.elapsed()));
    signal(&url, "a")?;
    wait::pause(KEYSTONE_OUTAGE.saturating_sub(began.elapsed()));
    cloud.lab.knob(&["start", "keystone"])?;
    let status = stack.seen_by(&user).status()?;
    ensure!(status.word == "CREATE_IN_PROGRESS", "after the outage the stack is {status:?}");
    signal(&url, "b")?;
    complete_with_both(&stack)?;
    stack.delete()
}

fn expired_token(stage: &Stage) -> Result<()> {
    let cloud = stage.cloud()?;
    let (user, stack, url) = {
        let _turn = stage.together();
        let user = cloud.lab.user_with_brief_token("demo")?;
        let template = wait_condition("TEMP_URL_SIGNAL", 2, Duration::from_secs(600));
        let stack = user.create_stack("expired-token", &template, &json!({}))?;
        let stack = stack.seen_by(&cloud.lab.user("demo")?);
        stack.reached("wait")?;
        let url = stack.alarm_url("signal")?;
        (user, stack, url)
    };
    signal(&url, "a")?;
    wait::until("the token to expire", TOKEN_LIMIT * 2, || {
        wait::pause(Duration::from_secs(1));
        let _turn = stage.together();
        Ok((!cloud.lab.knows_token(&user.token)?).then_some(()))
    })?;
    // Long enough for the relay to ask Keystone again about what it knew.
    wait::pause(Duration::from_secs(5));
    let _turn = stage.together();
    signal(&url, "b")?;
    complete_with_both(&stack)?;
    stack.delete()
}
