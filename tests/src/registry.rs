//! An image registry: Debian's `docker-registry` on the loopback address.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::process::Process;
use crate::wait;

/// A registry that cannot serve within this time will not.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Who may push to and pull from a registry that asks.
pub const USER: &str = "scene";
/// See [`USER`].
pub const PASSWORD: &str = "scene-password";
/// [`PASSWORD`] as `htpasswd -B` writes it.
const PASSWORD_BCRYPT: &str = "$2b$05$qL3I2i.K23afo4jQrZXw9.OZWTyBaz5yvpLy7Cl70nD9oJ7Ei9rTu";

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    process: Process,
    directory: TempDir,
    address: String,
}

impl Registry {
    /// A registry that lets everybody in.
    pub fn start_open() -> Result<Registry> {
        Registry::start("")
    }

    /// A registry that wants [`USER`] and [`PASSWORD`].
    pub fn start_with_password() -> Result<Registry> {
        Registry::start("auth:\n  htpasswd: {realm: scene, path: PASSWORDS}\n")
    }

    /// `host:port`, as in an image's name.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn start(authentication: &str) -> Result<Registry> {
        let directory = TempDir::new()?;
        let passwords = directory.path().join("passwords");
        fs::write(&passwords, format!("{USER}:{PASSWORD_BCRYPT}\n"))?;
        let address = free_address()?;
        let configuration = directory.path().join("registry.yml");
        fs::write(
            &configuration,
            format!(
                "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http: {{addr: \"{address}\"}}\n{}",
                directory.path().join("data").display(),
                authentication.replace("PASSWORDS", &passwords.display().to_string())
            ),
        )?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&configuration);
        let mut process = Process::spawn("registry", &mut command, directory.path())
            .context("is docker-registry installed? run `make test-deps`")?;
        wait::until("the registry", START_LIMIT, || {
            if let Some(status) = process.has_ended()? {
                anyhow::bail!("the registry ended with {status}:{}", process.last_words());
            }
            Ok(std::net::TcpStream::connect(&address).ok())
        })?;
        Ok(Registry { process, directory, address })
    }

    /// Its log, for the message of a failing scene.
    pub fn last_words(&self) -> String {
        format!("{} {}", self.directory.path().display(), self.process.last_words())
    }
}

/// The registry cannot say which port the kernel gave it, so it is told one that is free now.
fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}
