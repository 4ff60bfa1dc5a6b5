//! Documents of other programs, as they are found in the wild, run as they are.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::engine::{Kind, Turn};
use serde_json::Value;

use crate::stage::{Scene, Stage, Waiting, only_data};

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("forms::docker::konlet", konlet),
        Scene::new("forms::docker::docker_cmd", docker_cmd),
    ]
}

/// A declaration as `gcloud compute instances create-with-container` left it, with our `signal`.
fn konlet(stage: &Stage) -> Result<()> {
    let engine = stage.engine(Kind::Docker)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let document = format!(
        "#docker
spec:
  containers:
    - name: greeter
      image: busybox
      command: [sh, -c]
      args: ['echo \"$GREETING, $1 in $(pwd)\"; exec sleep 1000', greeter, konlet]
      workingDir: /tmp
      env:
        - name: GREETING
          value: hello
      volumeMounts:
        - name: scratch
          mountPath: /scratch
        - name: host
          mountPath: /host
          readOnly: true
      securityContext:
        privileged: false
      stdin: false
      tty: false
  restartPolicy: Always
  volumes:
    - name: scratch
      emptyDir: {{medium: Memory}}
    - name: host
      hostPath: {{path: /etc/ssl}}
signal: {{url: \"{}\", stable_for: 1s, timeout: 45s}}
outputs: [logs_head, container_id]
",
        waiting.handle.signal_url
    );
    let data = succeeds("konlet", &turn, &waiting, &document)?;
    ensure!(data["logs_head"] == "hello, konlet in /tmp", "{data}");

    let id = data["container_id"].as_str().context("no container_id")?;
    let inspection = turn.engine.inspect(id)?;
    let host = &inspection["HostConfig"];
    ensure!(inspection["Name"] == "/greeter", "{}", inspection["Name"]);
    ensure!(host["NetworkMode"] == "host", "{host}");
    ensure!(host["RestartPolicy"]["Name"] == "always", "{host}");
    let mounts = inspection["Mounts"].as_array().context("no Mounts")?;
    let mount = |target: &str| mounts.iter().find(|mount| mount["Destination"] == target);
    ensure!(host["Tmpfs"]["/scratch"].is_string(), "{host}");
    let is_read_only = mount("/host").is_some_and(|mount| mount["RW"] == false);
    ensure!(is_read_only, "{mounts:?}");
    Ok(())
}

/// Containers in the other order than the document's, one in the network of another.
fn docker_cmd(stage: &Stage) -> Result<()> {
    let engine = stage.engine(Kind::Docker)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let document = format!(
        "#docker-cmd
client:
  image: busybox
  start_order: 2
  net: container:server
  command: [sh, -c, 'until nc 127.0.0.1 80; do sleep 0.1; done; exit 3']
  exit_codes: [0, 3]
server:
  image: busybox
  start_order: 1
  net: bridge
  detach: true
  environment: [GREETING=hello from the server]
  command: [sh, -c, 'echo \"$GREETING\" | nc -l -p 80']
  labels: {{tier: front}}
signal: {{url: \"{}\", when: exit, timeout: 45s}}
outputs: [logs_tail, exit_code, container_id]
",
        waiting.handle.signal_url
    );
    let data = succeeds("docker-cmd", &turn, &waiting, &document)?;
    let (client, server) = (&data["client"], &data["server"]);
    ensure!(client["logs_tail"] == "hello from the server", "{data}");
    ensure!(client["exit_code"] == 3 && server["exit_code"] == 0, "{data}");

    let inspect =
        |one: &Value| turn.engine.inspect(one["container_id"].as_str().context("no container_id")?);
    let (client, server) = (inspect(client)?, inspect(server)?);
    ensure!(server["Config"]["Labels"]["tier"] == "front", "{}", server["Config"]);
    ensure!(server["HostConfig"]["RestartPolicy"]["Name"] == "no", "{}", server["HostConfig"]);
    let began = |one: &Value| one["State"]["StartedAt"].as_str().map(str::to_owned);
    ensure!(began(&server) < began(&client), "the order is that of start_order: {server} {client}");
    let mode = client["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
    ensure!(mode.starts_with("container:"), "{mode}");
    Ok(())
}

fn succeeds(id: &str, turn: &Turn<'_>, waiting: &Waiting, document: &str) -> Result<Value> {
    let ran = Instance::new(id, &turn.engine.url(), document)?.run()?;
    ensure!(ran.status.success(), "{}{}", ran.console, ran.last_words);
    let waited = waiting.relay.wait(&waiting.handle, LIMIT)?;
    ensure!(waited.exit_code == Some(0), "{waited:?}{}", ran.last_words);
    only_data(&waited.view)
}
