//! What scenes share: engines, registries with images in them, and small helpers.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::engine::{Engine, Kind};
use e2e::image;
use e2e::proxy::CuttingProxy;
use e2e::registry::Registry;
use e2e::relay::{Handle, Relay};
use serde_json::Value;
use tempfile::TempDir;

/// An image larger than what a broken pull lets through, by far.
const LARGE_IMAGE_BYTES: u64 = 8 << 20;
/// Manifests pass; a layer does not. Podman goes on where it was after a whole mebibyte, so less.
const CUT_AFTER_BYTES: usize = 400 << 10;

/// How long a handle of a scene waits. Every agent is told to give up earlier.
pub(crate) const HANDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// A command that stays, and goes at once when it is asked to: the first process of a container gets
/// no signal that it has not asked for, and would be killed after the grace time only.
pub(crate) const IDLE: &str = "\"trap 'exit 0' TERM; sleep 1000 & wait\"";

pub(crate) type Scene = e2e::scene::Scene<Stage>;

/// Everything shared, made when first wanted.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    docker: Mutex<Option<Arc<Engine>>>,
    podman: Mutex<Option<Arc<Engine>>>,
    registries: Mutex<Option<Arc<Registries>>>,
    filled: Mutex<bool>,
}

/// Registries on the loopback address.
#[derive(Debug)]
pub(crate) struct Registries {
    open: Registry,
    protected: Registry,
    flaky: CuttingProxy,
    private: Registry,
    /// Like the private one, with an authority of its own.
    other: Registry,
    /// Its image is not what its digest says.
    tampered: Registry,
    tampered_digest: OnceLock<String>,
}

impl Registries {
    fn start() -> Result<Registries> {
        let open = Registry::start_open()?;
        let protected = Registry::start_with_password()?;
        let flaky = CuttingProxy::start(open.address(), CUT_AFTER_BYTES)?;
        Ok(Registries {
            open,
            protected,
            flaky,
            private: Registry::start_with_tls()?,
            other: Registry::start_with_tls()?,
            tampered: Registry::start_open()?,
            tampered_digest: OnceLock::new(),
        })
    }

    /// A small image that anybody may pull.
    pub(crate) fn hello_image(&self) -> String {
        format!("{}/hello:1", self.open.address())
    }

    /// An image that is not there, in a registry that is.
    pub(crate) fn absent_image(&self) -> String {
        format!("{}/hello:no-such-tag", self.open.address())
    }

    /// An image that wants a password.
    pub(crate) fn protected_image(&self) -> String {
        format!("{}/hello:1", self.protected.address())
    }

    /// The registry that wants a password, as `host:port`.
    pub(crate) fn protected_address(&self) -> &str {
        self.protected.address()
    }

    /// An image whose registry has a certificate of [`Registries::authority`].
    pub(crate) fn private_image(&self) -> String {
        format!("{}/hello:1", self.private.address())
    }

    pub(crate) fn authority(&self) -> Result<String> {
        self.private.authority()
    }

    /// An authority that knows nothing of the private registry.
    pub(crate) fn other_authority(&self) -> Result<String> {
        self.other.authority()
    }

    /// The small image by its digest.
    pub(crate) fn pinned_image(&self) -> Result<String> {
        let digest = self.open.digest_of("hello", "1")?;
        Ok(format!("{}/hello@{digest}", self.open.address()))
    }

    /// An image by a digest that its registry has something else for.
    pub(crate) fn tampered_image(&self) -> Result<String> {
        let digest = self.tampered_digest.get().context("the registries are not filled")?;
        Ok(format!("{}/hello@{digest}", self.tampered.address()))
    }

    /// An image whose pull is cut in mid-stream, always.
    pub(crate) fn flaky_image(&self) -> String {
        format!("{}/large:1", self.flaky.address())
    }

    fn large_image(&self) -> String {
        format!("{}/large:1", self.open.address())
    }
}

impl Stage {
    /// The engine, with the images `centos` and `busybox` in it.
    pub(crate) fn engine(&self, kind: Kind) -> Result<Arc<Engine>> {
        let registries = self.registries()?;
        let slot = match kind {
            Kind::Docker => &self.docker,
            Kind::Podman => &self.podman,
        };
        get_or_make(slot, || {
            let plain = [
                registries.open.address(),
                registries.protected.address(),
                registries.flaky.address(),
                registries.tampered.address(),
            ];
            let engine = Engine::start(kind, &plain)?;
            let tar = image::root_file_system(0)?;
            engine.import("centos:latest", tar.clone())?;
            engine.import("busybox:latest", tar)?;
            Ok(engine)
        })
    }

    /// The registries, with their images in them.
    pub(crate) fn filled_registries(&self) -> Result<Arc<Registries>> {
        let registries = self.registries()?;
        let mut filled = self.filled.lock().unwrap_or_else(PoisonError::into_inner);
        if !*filled {
            let docker = self.engine(Kind::Docker)?;
            let hello = image::root_file_system(1)?;
            let large = image::root_file_system(LARGE_IMAGE_BYTES)?;
            for (name, tar) in [
                (registries.hello_image(), hello.clone()),
                (registries.protected_image(), hello.clone()),
                (registries.private_image(), hello.clone()),
                (format!("{}/hello:1", registries.tampered.address()), hello),
                (registries.large_image(), large),
            ] {
                docker.import(&name, tar)?;
                docker.push(&name)?;
                // What is there already would not be pulled.
                docker.remove_image(&name)?;
            }
            let digest = registries.tampered.digest_of("hello", "1")?;
            registries.tampered.tamper_with(&digest)?;
            let _first = registries.tampered_digest.set(digest);
            *filled = true;
        }
        Ok(registries)
    }

    fn registries(&self) -> Result<Arc<Registries>> {
        get_or_make(&self.registries, Registries::start)
    }
}

impl e2e::scene::Stage for Stage {
    fn end(&self) -> Result<()> {
        for slot in [&self.docker, &self.podman] {
            let engine = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(engine) = engine {
                engine.stop()?;
            }
        }
        // The registries' processes end with their values.
        drop(self.registries.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(())
    }
}

/// An address of the loopback that nobody listens at now.
pub(crate) fn free_address() -> Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}

fn get_or_make<T>(
    slot: &Mutex<Option<Arc<T>>>,
    make: impl FnOnce() -> Result<T>,
) -> Result<Arc<T>> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(value) = &*slot {
        return Ok(Arc::clone(value));
    }
    let value = Arc::new(make()?);
    *slot = Some(Arc::clone(&value));
    Ok(value)
}

/// A relay for one scene, and a handle on it.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) relay: Relay,
    pub(crate) handle: Handle,
    _directory: TempDir,
}

impl Waiting {
    /// Waits for one signal.
    pub(crate) fn for_one() -> Result<Waiting> {
        Waiting::for_many(1)
    }

    /// Waits for so many distinct ids.
    pub(crate) fn for_many(count: usize) -> Result<Waiting> {
        let directory = TempDir::new()?;
        let relay = Relay::start(&data_directory(directory.path()))?;
        let handle = relay.create_handle(count, HANDLE_TIMEOUT)?;
        Ok(Waiting { relay, handle, _directory: directory })
    }

    /// A document of the given keys that signals the handle, as quickly as makes sense in a test.
    pub(crate) fn document(&self, signal_keys: &str, keys: &str) -> String {
        format!(
            "#docker\nsignal: {{url: \"{}\", stable_for: 1s, timeout: 45s{signal_keys}}}\n{keys}\n",
            self.handle.signal_url
        )
    }
}

/// Where a scene's relay keeps its data.
pub(crate) fn data_directory(scene_directory: &Path) -> std::path::PathBuf {
    scene_directory.join("data")
}

/// The data of the only signal of a handle.
pub(crate) fn only_data(view: &Value) -> Result<Value> {
    let signals = view["signals"].as_array().context("no list of signals")?;
    ensure!(signals.len() == 1, "one signal is expected: {view}");
    let data = &signals[0]["data"];
    // Data may be an object, or an object as text.
    match data.as_str() {
        Some(text) => {
            serde_json::from_str(text).with_context(|| format!("data is no JSON: {text}"))
        }
        None => Ok(data.clone()),
    }
}
