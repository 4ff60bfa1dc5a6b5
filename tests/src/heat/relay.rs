//! The relay of a lab: it asks the lab's Keystone about tokens, and forwards to the lab's Heat.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::heat::{Lab, private_file, quiet_port};
use crate::process::Process;
use crate::{programs, wait};

const START_LIMIT: Duration = Duration::from_secs(60);

/// A relay that can be killed and started again behind the same URL.
#[derive(Debug)]
pub struct HeatRelay {
    directory: TempDir,
    port: u16,
    process: Mutex<Option<Process>>,
}

impl HeatRelay {
    /// Chooses a place and an address, and starts nothing: the lab's catalog names the address, and the
    /// relay wants to know the lab.
    pub fn plan() -> Result<HeatRelay> {
        let directory = TempDir::with_prefix("heliograph-relay-")?;
        Ok(HeatRelay { directory, port: quiet_port()?, process: Mutex::default() })
    }

    /// Base URL of the public listener.
    pub fn public(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Writes the configuration for this lab and starts.
    pub fn start_for(&self, lab: &Lab) -> Result<()> {
        self.start_for_with(lab, "")
    }

    /// Likewise, with more tables in the configuration.
    pub fn start_for_with(&self, lab: &Lab, more: &str) -> Result<()> {
        // Forwards have a heat-api of their own, which can be stopped without harm to other scenes.
        lab.knob(&["start", "heat-api-spare"])?;
        let cfn = format!("cfn_url = \"{}\"\n{more}", lab.fact("cfn_url")?);
        self.start_at(lab, lab.fact("keystone_url")?, lab.fact("heat_spare_url")?, "", &cfn)
    }

    /// Starts with these addresses of Keystone and heat-api, and more keys for each of the two tables.
    pub fn start_at(
        &self,
        lab: &Lab,
        keystone_url: &str,
        heat_url: &str,
        keystone_more: &str,
        heat_more: &str,
    ) -> Result<()> {
        let password = lab.facts["relay"]["password"].as_str().context("no password")?;
        write!(private_file(&self.directory.path().join("password"))?, "{password}")?;
        let configuration = format!(
            "[keystone]\nauth_url = \"{keystone_url}/v3\"\nusername = \"heliograph\"\nproject = \"service\"\n\
             password_file = \"{}\"\n{keystone_more}\n[heat]\napi_url = \"{heat_url}\"\n{heat_more}",
            self.directory.path().join("password").display(),
        );
        fs::write(self.configuration(), configuration)?;
        self.start()
    }

    /// Starts it, for the first time or again.
    pub fn start(&self) -> Result<()> {
        let mut command = Command::new(programs::heliograph_server()?);
        command
            .args(["serve", "--admin-listen", "127.0.0.1:0", "--listen"])
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--data-dir")
            .arg(self.directory.path().join("data"))
            .arg("--config")
            .arg(self.configuration());
        let mut process = Process::spawn("relay", &mut command, self.directory.path())?;
        wait::until("the relay's listening lines", START_LIMIT, || {
            if let Some(status) = process.has_ended()? {
                bail!("the relay ended with {status}:{}", process.last_words());
            }
            Ok(process.output()?.contains("listening admin ").then_some(()))
        })?;
        *self.process() = Some(process);
        Ok(())
    }

    /// Ends it without a warning, as a power cut would.
    pub fn kill(&self) -> Result<()> {
        let mut process = self.process().take().context("the relay does not run")?;
        process.kill()?;
        Ok(())
    }

    /// The operator's credential for the native surface.
    pub fn operator_token(&self) -> Result<String> {
        let path = self.directory.path().join("data/operator.token");
        Ok(fs::read_to_string(path)?.trim().to_owned())
    }

    /// Base URL of the admin listener, which is another after each start.
    pub fn admin(&self) -> Result<String> {
        let output = self.process().as_ref().context("the relay does not run")?.output()?;
        let url = output.lines().find_map(|line| line.strip_prefix("listening admin "));
        Ok(url.context("no admin listener")?.to_owned())
    }

    /// Its log since it was last started.
    pub fn log(&self) -> Result<String> {
        self.process().as_ref().context("the relay does not run")?.errors()
    }

    /// The end of its log, for the message of a failing scene.
    pub fn last_words(&self) -> String {
        self.process().as_ref().map(Process::last_words).unwrap_or_default()
    }

    fn configuration(&self) -> PathBuf {
        self.directory.path().join("relay.toml")
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
