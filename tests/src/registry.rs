//! An image registry: Debian's `docker-registry` on the loopback address.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
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
        Registry::start("", "")
    }

    /// A registry that wants [`USER`] and [`PASSWORD`].
    pub fn start_with_password() -> Result<Registry> {
        Registry::start("auth:\n  htpasswd: {realm: scene, path: PASSWORDS}\n", "")
    }

    /// A registry that lets everybody in, over TLS, with a certificate of an authority that nobody
    /// knows; see [`Registry::authority`].
    pub fn start_with_tls() -> Result<Registry> {
        Registry::start("", "  tls: {certificate: CERTIFICATE, key: KEY}\n")
    }

    /// The certificate, in PEM, of the authority behind [`Registry::start_with_tls`].
    pub fn authority(&self) -> Result<String> {
        Ok(fs::read_to_string(self.directory.path().join("authority.pem"))?)
    }

    /// Makes a manifest other than its digest says, as a registry that was broken into would.
    pub fn tamper_with(&self, digest: &str) -> Result<()> {
        let hex = digest.strip_prefix("sha256:").context("a SHA-256 digest")?;
        let blobs = self.directory.path().join("data/docker/registry/v2/blobs/sha256");
        let path = blobs.join(&hex[..2]).join(hex).join("data");
        let mut content = fs::read(&path).with_context(|| format!("no blob {digest}"))?;
        content.push(b'\n');
        Ok(fs::write(path, content)?)
    }

    /// The digest of an image, as the registry says it.
    pub fn digest_of(&self, repository: &str, tag: &str) -> Result<String> {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.address);
        let accept = "application/vnd.docker.distribution.manifest.v2+json";
        let response = reqwest::blocking::Client::new().get(url).header("accept", accept).send()?;
        let digest = response.error_for_status()?.headers().get("docker-content-digest").cloned();
        Ok(digest.context("the registry gave no digest")?.to_str()?.to_owned())
    }

    /// `host:port`, as in an image's name.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn start(authentication: &str, tls: &str) -> Result<Registry> {
        let directory = TempDir::new()?;
        let passwords = directory.path().join("passwords");
        fs::write(&passwords, format!("{USER}:{PASSWORD_BCRYPT}\n"))?;
        let address = free_address()?;
        let configuration = directory.path().join("registry.yml");
        fs::write(
            &configuration,
            format!(
                "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http:\n  addr: \"{address}\"\n{}{}",
                directory.path().join("data").display(),
                tls.replace(
                    "CERTIFICATE",
                    &directory.path().join("server.pem").display().to_string()
                )
                .replace("KEY", &directory.path().join("server.key").display().to_string()),
                authentication.replace("PASSWORDS", &passwords.display().to_string())
            ),
        )?;
        if !tls.is_empty() {
            make_certificates(directory.path())?;
        }
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

/// An authority, and a certificate of it for the loopback address.
fn make_certificates(directory: &Path) -> Result<()> {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let authority =
        ["-subj", "/CN=scene authority", "-keyout", "authority.key", "-out", "authority.pem"];
    openssl(directory, &[&["req", "-x509"][..], &key, &authority].concat())?;
    let server = [
        "-subj",
        "/CN=scene registry",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-CA",
        "authority.pem",
        "-CAkey",
        "authority.key",
        "-keyout",
        "server.key",
        "-out",
        "server.pem",
    ];
    openssl(directory, &[&["req", "-x509"][..], &key, &server].concat())
}

fn openssl(directory: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("openssl");
    let output = command.args(arguments).current_dir(directory).output();
    let output = output.context("is openssl installed? run `make test-deps`")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The registry cannot say which port the kernel gave it, so it is told one that is free now.
fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}
