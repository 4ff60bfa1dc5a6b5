//! The Engine API's JSON: only the fields that are read, each of them optional, because Podman and
//! every version of Docker leave out different ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::engine::objects::SharedObject;
use crate::engine::{ContainerState, ContainerStatus, Health, HealthStatus, Image};
use crate::engine::{Inspection, ListedContainer};

/// What Docker and Podman write for "never": Go's zero time.
const ZERO_TIME_PREFIX: &str = "0001-01-01T";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Version {
    #[serde(rename = "MinAPIVersion")]
    pub(crate) min_api_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorAnswer {
    pub(crate) message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Created {
    pub(crate) id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ImageAnswer {
    id: String,
    #[serde(deserialize_with = "null_is_default")]
    repo_digests: Vec<String>,
}

impl ImageAnswer {
    pub(crate) fn into_image(self) -> Image {
        let from_registry = self
            .repo_digests
            .first()
            .and_then(|name| name.split_once('@'))
            .map(|(_, digest)| digest);
        Image { digest: from_registry.unwrap_or(&self.id).to_owned(), id: self.id }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ListRow {
    id: String,
    #[serde(deserialize_with = "null_is_default")]
    names: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
}

impl ListRow {
    pub(crate) fn into_listed(self) -> ListedContainer {
        let name = self.names.first().map_or("", |name| name.trim_start_matches('/')).to_owned();
        ListedContainer { id: self.id, name, labels: self.labels }
    }
}

/// A network or a volume, in a list or by itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ObjectAnswer {
    name: String,
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
}

impl ObjectAnswer {
    pub(crate) fn into_object(self) -> SharedObject {
        SharedObject { name: self.name, labels: self.labels }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct VolumesAnswer {
    #[serde(deserialize_with = "null_is_default")]
    pub(crate) volumes: Vec<ObjectAnswer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct InspectAnswer {
    id: String,
    #[serde(deserialize_with = "null_is_default")]
    config: InspectConfig,
    #[serde(deserialize_with = "null_is_default")]
    host_config: InspectHostConfig,
    restart_count: i64,
    #[serde(deserialize_with = "null_is_default")]
    state: InspectState,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct InspectConfig {
    tty: bool,
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct InspectHostConfig {
    memory: i64,
    #[serde(deserialize_with = "null_is_default")]
    restart_policy: RestartPolicy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RestartPolicy {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct InspectState {
    status: String,
    exit_code: i64,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    error: String,
    started_at: String,
    health: Option<InspectHealth>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct InspectHealth {
    status: String,
    #[serde(deserialize_with = "null_is_default")]
    log: Vec<HealthResult>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct HealthResult {
    exit_code: i64,
    output: String,
}

/// Reads the answer of `GET /containers/{id}/json`.
pub(crate) fn inspection(raw: Value) -> Result<Inspection, serde_json::Error> {
    let answer = InspectAnswer::deserialize(&raw)?;
    Ok(Inspection {
        id: answer.id,
        labels: answer.config.labels,
        has_tty: answer.config.tty,
        memory_limit: answer.host_config.memory,
        has_restart_policy: !matches!(answer.host_config.restart_policy.name.as_str(), "" | "no"),
        restart_count: answer.restart_count,
        state: container_state(answer.state),
        raw,
    })
}

fn container_state(state: InspectState) -> ContainerState {
    let never_started =
        state.started_at.is_empty() || state.started_at.starts_with(ZERO_TIME_PREFIX);
    ContainerState {
        status: container_status(&state.status),
        exit_code: state.exit_code,
        oom_killed: state.oom_killed,
        error: state.error,
        started_at: (!never_started).then_some(state.started_at),
        health: state.health.and_then(health),
    }
}

fn container_status(status: &str) -> ContainerStatus {
    match status {
        "created" | "configured" | "initialized" => ContainerStatus::Created,
        "running" => ContainerStatus::Running,
        "paused" => ContainerStatus::Paused,
        "restarting" => ContainerStatus::Restarting,
        "stopped" | "stopping" => ContainerStatus::Stopped,
        "exited" => ContainerStatus::Exited,
        "dead" => ContainerStatus::Dead,
        "removing" => ContainerStatus::Removing,
        _ => ContainerStatus::Unknown,
    }
}

/// Docker leaves the section out or says `none` where there is no health check, Podman says ``.
fn health(health: InspectHealth) -> Option<Health> {
    let status = match health.status.as_str() {
        "starting" => HealthStatus::Starting,
        "healthy" => HealthStatus::Healthy,
        "unhealthy" => HealthStatus::Unhealthy,
        _ => return None,
    };
    let last = health.log.into_iter().last();
    Some(Health {
        status,
        last_exit_code: last.as_ref().map(|result| result.exit_code),
        last_output: last.map(|result| result.output).filter(|output| !output.trim().is_empty()),
    })
}

/// Go writes an empty list or map as `null`.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What Docker 20.10 and Podman 4.3 answer for the same containers, cut to what matters.
    #[test]
    fn both_engines_answers_are_read() {
        let check = |raw: Value, expect: ContainerState| {
            assert_eq!(inspection(raw.clone()).unwrap().state, expect, "{raw}");
        };
        let exited = ContainerState {
            status: ContainerStatus::Exited,
            exit_code: 3,
            oom_killed: false,
            error: String::new(),
            started_at: Some("2026-11-21T09:03:25.8Z".to_owned()),
            health: None,
        };
        check(
            json!({"Id": "e3", "Config": {"Labels": null}, "State": {"Status": "exited",
                "OOMKilled": false, "ExitCode": 3, "Error": "",
                "StartedAt": "2026-11-21T09:03:25.8Z"}, "RestartCount": 0}),
            exited.clone(),
        );
        check(
            json!({"Id": "e3", "Config": {"Labels": {}}, "State": {"Status": "exited",
                "OOMKilled": false, "ExitCode": 3, "Error": "",
                "StartedAt": "2026-11-21T09:03:25.8Z",
                "Health": {"Status": "", "FailingStreak": 0, "Log": null}}}),
            exited.clone(),
        );
        check(
            json!({"State": {"Status": "created", "StartedAt": "0001-01-01T00:00:00Z"}}),
            ContainerState {
                status: ContainerStatus::Created,
                exit_code: 0,
                started_at: None,
                ..exited.clone()
            },
        );
        check(
            json!({"State": {"Status": "running", "StartedAt": "2026-11-21T09:03:25.8Z",
                "Health": {"Status": "unhealthy", "Log": [{"ExitCode": 0, "Output": "ok"},
                    {"ExitCode": 1, "Output": "refused\n"}]}}}),
            ContainerState {
                status: ContainerStatus::Running,
                exit_code: 0,
                health: Some(Health {
                    status: HealthStatus::Unhealthy,
                    last_output: Some("refused\n".to_owned()),
                    last_exit_code: Some(1),
                }),
                ..exited
            },
        );
    }

    #[test]
    fn a_restart_policy_is_one_that_restarts() {
        let check = |policy: Value, expect: bool| {
            let raw = json!({"HostConfig": {"RestartPolicy": policy}});
            assert_eq!(inspection(raw.clone()).unwrap().has_restart_policy, expect, "{raw}");
        };
        check(json!({"Name": "unless-stopped", "MaximumRetryCount": 0}), true);
        check(json!({"Name": "no"}), false);
        check(json!({"Name": ""}), false);
        check(Value::Null, false);
    }

    #[test]
    fn a_digest_comes_from_the_registry_or_is_the_images_id() {
        let check = |raw: Value, expect: &str| {
            let answer: ImageAnswer = serde_json::from_value(raw).unwrap();
            assert_eq!(answer.into_image().digest, expect);
        };
        check(json!({"Id": "sha256:1", "RepoDigests": null}), "sha256:1");
        check(json!({"Id": "sha256:1", "RepoDigests": []}), "sha256:1");
        check(json!({"Id": "sha256:1", "RepoDigests": ["r.example/a@sha256:2"]}), "sha256:2");
    }

    #[test]
    fn a_row_of_the_list_loses_its_slash() {
        let row: ListRow =
            serde_json::from_value(json!({"Id": "1", "Names": ["/a"], "Labels": null})).unwrap();
        assert_eq!(row.into_listed().name, "a");
    }
}
