//! What containers see of the instance's disks: directories, volumes, block devices, files.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use crate::plan::create::put;
use crate::plan::{DevicePlan, FileContent, FilePlan, VolumePlan};
use crate::userdata::document::{DeviceDefinition, Document, Service};
use crate::userdata::read::files::FileDefinition;
use crate::userdata::value::{FileAccess, Value};
use crate::userdata::volumes::{Mount, MountSource};

/// Where block devices are mounted, below the state directory.
const VOLUMES_DIRECTORY: &str = "volumes";

/// Where the agent writes the document's files, below the state directory.
const FILES_DIRECTORY: &str = "files";

/// The shared parts of the document, and what containers are given of them.
pub(crate) struct Mounts {
    state_directory: PathBuf,
    pub(crate) volumes: Vec<VolumePlan>,
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) files: Vec<FilePlan>,
    /// By the service: the file's path on the instance, and in the container.
    file_mounts: Vec<(String, PathBuf, String)>,
}

impl Mounts {
    pub(crate) fn new(document: &Document, state_directory: &Path) -> Mounts {
        let mut mounts = Mounts {
            state_directory: state_directory.to_owned(),
            volumes: Vec::new(),
            devices: Vec::new(),
            files: Vec::new(),
            file_mounts: Vec::new(),
        };
        for service in &document.services {
            for mount in mounts_of(service) {
                mounts.add_volume(document, mount);
            }
            mounts.add_files(document, service);
        }
        mounts
    }

    fn add_volume(&mut self, document: &Document, mount: &Mount) {
        let MountSource::Volume(key) = &mount.source else { return };
        let definition = document.volumes.get(key);
        let inline = mount.device.clone().map(|selector| DeviceDefinition {
            selector,
            filesystem: mount.filesystem.clone(),
            read_only: mount.read_only,
        });
        let device = inline.or_else(|| definition.and_then(|definition| definition.device.clone()));
        if let Some(device) = device {
            if !self.devices.iter().any(|other| other.volume == *key) {
                self.devices.push(DevicePlan {
                    volume: key.clone(),
                    selector: device.selector,
                    filesystem: device.filesystem,
                    read_only: device.read_only,
                    mount_point: self.mount_point(key),
                });
            }
            return;
        }
        let Some(definition) = definition else { return };
        let name = volume_name(document, key);
        let has_options = definition.external || !definition.create.is_null();
        if !has_options || self.volumes.iter().any(|other| other.name == name) {
            return;
        }
        let mut create = definition.create.clone();
        if definition.external {
            create = Json::Null;
        } else {
            create["Name"] = name.as_str().into();
        }
        self.volumes.push(VolumePlan { name, external: definition.external, create });
    }

    fn mount_point(&self, volume: &str) -> PathBuf {
        self.state_directory.join(VOLUMES_DIRECTORY).join(volume)
    }

    fn add_files(&mut self, document: &Document, service: &Service) {
        if let Some(Value::Files(files)) = service.values.get("files") {
            for (index, file) in files.iter().enumerate() {
                let content = FileContent::new(file.content.clone());
                self.add_file(service, &format!("file-{index}"), &file.path, content, file.access);
            }
        }
        let shared = [("secrets", &document.secrets), ("configs", &document.configs)];
        for (key, definitions) in shared {
            let Some(Value::Grants(grants)) = service.values.get(key) else { continue };
            for (index, grant) in grants.iter().enumerate() {
                match definitions.get(&grant.source) {
                    Some(FileDefinition::Content(content)) => {
                        let content = FileContent::new(content.clone());
                        let name = format!("{key}-{index}");
                        self.add_file(service, &name, &grant.target, content, grant.access);
                    }
                    Some(FileDefinition::Path(path)) => {
                        let mount =
                            (service.name.clone(), PathBuf::from(path), grant.target.clone());
                        self.file_mounts.push(mount);
                    }
                    // The document was checked.
                    None => {}
                }
            }
        }
    }

    fn add_file(
        &mut self,
        service: &Service,
        name: &str,
        target: &str,
        content: FileContent,
        access: FileAccess,
    ) {
        let path = self.state_directory.join(FILES_DIRECTORY).join(&service.name).join(name);
        let FileAccess { mode, uid, gid } = access;
        self.files.push(FilePlan { path: path.clone(), content, mode, uid, gid });
        self.file_mounts.push((service.name.clone(), path, target.to_owned()));
    }

    /// Bind strings for what people name themselves: with them the engine makes a missing directory,
    /// as they expect from `docker run -v`. `Mounts` for what has to be there.
    pub(crate) fn put(&self, body: &mut Map<String, Json>, document: &Document, service: &Service) {
        let mut mounts: Vec<Json> = Vec::new();
        let mut bind = |source: &Path, target: &str, read_only: bool| {
            mounts.push(json!({
                "Type": "bind", "Source": source.display().to_string(), "Target": target,
                "ReadOnly": read_only,
            }));
        };
        for mount in mounts_of(service) {
            match &mount.source {
                MountSource::Volume(key)
                    if self.devices.iter().any(|device| device.volume == *key) =>
                {
                    bind(&self.mount_point(key), &mount.target, mount.read_only);
                }
                _ => put_mount(body, document, mount),
            }
        }
        for (_, source, target) in
            self.file_mounts.iter().filter(|(name, ..)| *name == service.name)
        {
            bind(source, target, true);
        }
        if !mounts.is_empty() {
            put(body, "HostConfig.Mounts", mounts.into());
        }
    }
}

fn mounts_of(service: &Service) -> &[Mount] {
    match service.values.get("volumes") {
        Some(Value::Mounts(mounts)) => mounts,
        _ => &[],
    }
}

fn volume_name(document: &Document, key: &str) -> String {
    let name = document.volumes.get(key).and_then(|definition| definition.name.clone());
    name.unwrap_or_else(|| key.to_owned())
}

fn put_mount(body: &mut Map<String, Json>, document: &Document, mount: &Mount) {
    let mut options: Vec<&str> = mount.options.clone();
    if mount.read_only {
        options.insert(0, "ro");
    }
    let options = options.join(",");
    let source = match &mount.source {
        MountSource::Bind(path) => path.clone(),
        MountSource::Volume(key) => volume_name(document, key),
        MountSource::Anonymous => {
            return put(body, "Volumes", json!({ &mount.target: {} }));
        }
        MountSource::Tmpfs => {
            return put(body, "HostConfig.Tmpfs", json!({ &mount.target: options }));
        }
    };
    let bind = match options.is_empty() {
        true => format!("{source}:{}", mount.target),
        false => format!("{source}:{}:{options}", mount.target),
    };
    put(body, "HostConfig.Binds", json!([bind]));
}
