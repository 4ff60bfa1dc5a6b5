//! The templates of `examples/heat`, as they are: Heat renders the user data, an agent runs it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::{Instance, Ran};
use e2e::heat::{Stack, User, put};
use e2e::{programs, wait};
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::stage::{END_LIMIT, Scene, Stage};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("examples::one_container", one_container),
        Scene::new("examples::three_containers", three_containers),
        Scene::new("examples::failing_container", failing_container),
        Scene::new("examples::swift_signal", swift_signal),
        Scene::new("examples::deployment", deployment),
        Scene::new("examples::all_are_run", all_are_run),
    ]
}

const RUN_HERE: &[&str] = &[
    "check.yaml",
    "deployment.yaml",
    "expected-servers.yaml",
    "failing-container.yaml",
    "one-container.yaml",
    "swift-signal.yaml",
    "three-containers.yaml",
    "web-server.yaml",
    "wordpress.yaml",
];

fn all_are_run(_: &Stage) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(programs::source_tree().join("examples/heat"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".yaml") {
            names.push(name);
        }
    }
    names.sort();
    ensure!(names == RUN_HERE, "examples/heat has {names:?}");
    Ok(())
}

/// The template of an example.
pub(crate) fn text(example: &str) -> Result<String> {
    let path = programs::source_tree().join("examples/heat").join(format!("{example}.yaml"));
    Ok(fs::read_to_string(path)?)
}

fn create(user: &User, example: &str) -> Result<Stack> {
    create_with(user, example, &json!({}))
}

/// Creates the stack of an example with more parameters than where its servers run.
pub(crate) fn create_with(user: &User, example: &str, more: &Value) -> Result<Stack> {
    let template = text(example)?;
    let environment = json!({"resource_registry": {"OS::Nova::Server": "server.yaml"}});
    let files = json!({"server.yaml": include_str!("server.yaml")});
    let mut parameters = if template.contains("\nparameters:") {
        json!({"image": "an-image", "flavor": "small", "network": "isolated"})
    } else {
        json!({})
    };
    for (name, value) in more.as_object().into_iter().flatten() {
        parameters[name] = value.clone();
    }
    user.create_stack_with(example, &template, &parameters, &environment, &files)
}

/// Boots the instance that a server would be.
fn boot(stage: &Stage, id: &str, user_data: &Value) -> Result<Ran> {
    let user_data = user_data.as_str().with_context(|| format!("user data is {user_data}"))?;
    let engine = stage.engine()?;
    let turn = engine.turn()?;
    Instance::new(id, &turn.engine.url(), user_data)?.run()
}

fn one_container(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let user = stage.cloud()?.lab.user("demo")?;
    let stack = create(&user, "one-container")?;
    stack.made("server")?;
    let ran = boot(stage, "one", &stack.attribute("server", "user_data")?)?;
    ensure!(ran.status.success(), "{}{}", ran.status, ran.last_words);
    stack.completed(END_LIMIT)?;
    let data = stack.json_output("data")?;
    ensure!(only(&data)?["network_ip"].is_string(), "{data}");
    // By which the relay knows whose signal it is.
    let id = data.as_object().and_then(|map| map.keys().next()).context("no id")?;
    ensure!(id.starts_with("one/"), "the id does not begin with the instance's: {id}");
    stack.delete()
}

fn three_containers(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let user = stage.cloud()?.lab.user("demo")?;
    let stack = create(&user, "three-containers")?;
    stack.made("servers")?;
    let servers = stack.nested("servers")?;
    for number in ["0", "1", "2"] {
        let user_data = servers.attribute(number, "user_data")?;
        let status = stack.status()?;
        ensure!(status.word == "CREATE_IN_PROGRESS", "before server {number}: {status:?}");
        let ran = boot(stage, &format!("server-{number}"), &user_data)?;
        ensure!(ran.status.success(), "{}{}", ran.status, ran.last_words);
    }
    stack.completed(END_LIMIT)?;
    let data = stack.json_output("data")?;
    ensure!(data.as_object().is_some_and(|map| map.len() == 3), "{data}");
    stack.delete()
}

fn failing_container(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let user = stage.cloud()?.lab.user("demo")?;
    let stack = create(&user, "failing-container")?;
    stack.made("server")?;
    let _failed = boot(stage, "failing", &stack.attribute("server", "user_data")?)?;
    let status = stack.created(END_LIMIT)?;
    ensure!(status.word == "CREATE_FAILED", "{status:?}");
    for part in ["WaitConditionFailure", "3", "the database is not there"] {
        ensure!(
            status.reason.contains(part),
            "the reason does not tell {part:?}: {}",
            status.reason
        );
    }
    stack.delete()
}

fn swift_signal(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let user = stage.cloud()?.lab.user("demo")?;
    let stack = create(&user, "swift-signal")?;
    stack.made("server")?;
    let ran = boot(stage, "swift-signal", &stack.attribute("server", "user_data")?)?;
    ensure!(ran.status.success(), "{}{}", ran.status, ran.last_words);
    stack.completed(END_LIMIT)?;
    let data = stack.json_output("data")?;
    ensure!(only(&data)?["container_id"].is_string(), "{data}");
    stack.delete()
}

/// The test is os-collect-config and the deployment's hook.
fn deployment(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let user = stage.cloud()?.lab.user("demo")?;
    let stack = create(&user, "deployment")?;
    stack.reached("deployment")?;
    let deployment = deployment_in_metadata(&stack)?;
    ensure!(input(&deployment, "greeting")? == "hello", "{deployment}");
    ensure!(input(&deployment, "deploy_signal_verb")? == "PUT", "{deployment}");
    let told = json!({
        "answer": "hello yourself", "deploy_stdout": "done\n", "deploy_stderr": "", "deploy_status_code": 0,
    });
    let (status, answer) = put(input(&deployment, "deploy_signal_id")?, told.to_string())?;
    ensure!(status == 201, "the outputs were answered with {status}: {answer}");
    stack.completed(END_LIMIT)?;
    ensure!(stack.output("answer")? == "hello yourself");
    ensure!(stack.output("stdout")? == "done\n");
    stack.delete()
}

/// The stack's deployment, as the server reads it.
pub(crate) fn deployment_in_metadata(stack: &Stack) -> Result<Value> {
    let collect = stack.output_value("collect_config")?;
    let url = collect["request"]["metadata_url"].as_str();
    let url = url.with_context(|| format!("no metadata_url in {collect}"))?;
    wait::until("the deployment in the server's metadata", END_LIMIT, || {
        let response = Client::new().get(url).send()?;
        ensure!(response.status() == 200, "the metadata is answered with {}", response.status());
        let metadata: Value = response.json()?;
        Ok(metadata["deployments"].as_array().and_then(|all| all.first()).cloned())
    })
}

/// An input of a deployment.
pub(crate) fn input<'a>(deployment: &'a Value, name: &str) -> Result<&'a str> {
    let inputs = deployment["inputs"].as_array().context("no inputs")?;
    let input = inputs.iter().find(|input| input["name"] == name);
    input
        .and_then(|input| input["value"].as_str())
        .with_context(|| format!("no {name}: {deployment}"))
}

/// What the only agent told.
fn only(data: &Value) -> Result<&Value> {
    let map = data.as_object().context("data is no map")?;
    ensure!(map.len() == 1, "one agent told: {data}");
    map.values().next().context("nothing was told")
}
