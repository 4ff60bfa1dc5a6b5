//! The plan as `heliograph-agent plan` prints it.
//!
//! It is the user's own document on the user's own terminal, so environment values and commands are
//! shown unless they are to be hidden. The handle, secrets, files, passwords and tokens never are.

use serde_json::{Map, Value as Json, json};

use crate::plan::{ArchiveLocation, Condition, ContainerPlan, DeviceSelector, ImageSource, Plan};

/// What stands for a value that is not shown.
const HIDDEN: &str = "…";

impl Plan {
    /// The plan with everything but secrets.
    pub fn to_json(&self) -> Json {
        self.print(false)
    }

    /// The same without the values of environment variables.
    pub fn to_redacted_json(&self) -> Json {
        self.print(true)
    }

    fn print(&self, is_redacted: bool) -> Json {
        let containers: Vec<Json> = self
            .containers
            .iter()
            .map(|container| container_json(container, is_redacted))
            .collect();
        let mut printed = json!({
            "document_hash": self.document_hash,
            "containers": containers,
            "watch": {
                "when": self.watch.when,
                "stable_for_ms": self.watch.stable_for.as_millis() as u64,
                "timeout_ms": self.watch.timeout.as_millis() as u64,
                "success_exit_codes": self.watch.success_exit_codes,
            },
            "outputs": self.outputs,
        });
        let parts = [
            ("networks", self.networks.iter().map(|network| {
                json!({ "name": network.name, "external": network.external, "create": network.create })
            }).collect::<Vec<_>>()),
            ("volumes", self.volumes.iter().map(|volume| {
                json!({ "name": volume.name, "external": volume.external, "create": volume.create })
            }).collect()),
            ("devices", self.devices.iter().map(|device| json!({
                "volume": device.volume,
                "device": device_text(&device.selector),
                "filesystem": device.filesystem,
                "read_only": device.read_only,
                "mount_point": device.mount_point,
            })).collect()),
            ("files", self.files.iter().map(|file| json!({
                "path": file.path,
                "bytes": file.content.bytes().len(),
                "mode": format!("{:04o}", file.mode),
                "uid": file.uid,
                "gid": file.gid,
            })).collect()),
            ("registries", self.registries.keys().map(|host| json!(host)).collect()),
        ];
        for (name, parts) in parts {
            if !parts.is_empty() {
                printed[name] = parts.into();
            }
        }
        printed
    }
}

fn container_json(container: &ContainerPlan, is_redacted: bool) -> Json {
    let mut create = container.create.clone();
    if is_redacted && let Some(Json::Array(variables)) = create.get_mut("Env") {
        for variable in variables {
            let name =
                variable.as_str().and_then(|text| text.split('=').next()).unwrap_or_default();
            *variable = format!("{name}={HIDDEN}").into();
        }
    }
    let mut printed = Map::new();
    let mut add = |name: &str, value: Json| printed.insert(name.to_owned(), value);
    add("service", container.service.as_str().into());
    add("name", container.name.as_str().into());
    add("image", container.image.to_string().into());
    add("pull", json!(container.pull));
    if let ImageSource::Archive { location, .. } = &container.source {
        add("image_archive", archive_text(location).into());
    }
    if let Some(platform) = &container.platform {
        add("platform", platform.as_str().into());
    }
    add("when", json!(container.when));
    if !container.depends_on.is_empty() {
        let others = container.depends_on.iter().map(|other| {
            let condition = match other.condition {
                Condition::Started => "service_started",
                Condition::Healthy => "service_healthy",
                Condition::CompletedSuccessfully => "service_completed_successfully",
            };
            json!({ "service": other.service, "condition": condition, "required": other.required })
        });
        add("depends_on", others.collect());
    }
    if !container.attachments.is_empty() {
        let attachments = container.attachments.iter();
        let attachments =
            attachments.map(|one| json!({ "network": one.network, "endpoint": one.endpoint }));
        add("attachments", attachments.collect());
    }
    if container.metadata_access {
        add("metadata_access", true.into());
    }
    add("create", create);
    Json::Object(printed)
}

fn device_text(selector: &DeviceSelector) -> String {
    match selector {
        DeviceSelector::Serial(serial) => format!("serial:{serial}"),
        DeviceSelector::Label(label) => format!("label:{label}"),
        DeviceSelector::Path(path) => path.display().to_string(),
    }
}

/// A URL may be a TempURL, so only its host is shown.
fn archive_text(location: &ArchiveLocation) -> String {
    match location {
        ArchiveLocation::Path(path) => path.display().to_string(),
        ArchiveLocation::Volume { selector, path } => {
            format!("{} of {}", path.display(), device_text(selector))
        }
        ArchiveLocation::Url(url) => {
            format!("{}://{}/{HIDDEN}", url.scheme(), url.host_str().unwrap_or("?"))
        }
        ArchiveLocation::Glance { image } => format!("glance:{image}"),
    }
}
