//! The document: what `#docker` user data says, after it has been checked.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Map;
use url::Url;

use crate::userdata::access::{DeviceSelector, GlanceAccess, ProxyAccess, RegistryAccess};
use crate::userdata::diagnostic::Warning;
use crate::userdata::image::ImageReference;
use crate::userdata::read::files::FileDefinition;
use crate::userdata::value::Value;

/// A document that has been checked; nothing in it can still be wrong in form.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Those that are active, in the order of the document.
    pub services: Vec<Service>,
    /// Whether they stand under `services`: then they share a network and see each other by name.
    pub(crate) is_composed: bool,
    pub(crate) networks: BTreeMap<String, NetworkDefinition>,
    pub(crate) volumes: BTreeMap<String, VolumeDefinition>,
    pub(crate) secrets: BTreeMap<String, FileDefinition>,
    pub(crate) configs: BTreeMap<String, FileDefinition>,
    pub registries: BTreeMap<String, RegistryAccess>,
    pub proxy: Option<ProxyAccess>,
    pub glance: Option<GlanceAccess>,
    /// In PEM.
    pub certificate_authorities: Vec<String>,
    pub signal: SignalSection,
    pub outputs: Vec<Output>,
    pub warnings: Vec<Warning>,
}

/// A network of the document.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct NetworkDefinition {
    pub(crate) name: Option<String>,
    pub(crate) external: bool,
    /// The rest of the body of `POST /networks/create`.
    pub(crate) create: serde_json::Value,
}

/// A named volume of the document.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct VolumeDefinition {
    pub(crate) name: Option<String>,
    pub(crate) external: bool,
    /// The rest of the body of `POST /volumes/create`; null if nothing is said.
    pub(crate) create: serde_json::Value,
    pub(crate) device: Option<DeviceDefinition>,
}

/// The block device that a volume is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DeviceDefinition {
    pub(crate) selector: DeviceSelector,
    pub(crate) filesystem: Option<String>,
    pub(crate) read_only: bool,
}

/// One container to run.
#[derive(Clone, PartialEq, Serialize)]
pub struct Service {
    pub name: String,
    pub image: ImageReference,
    /// The other keys that the document sets, by the name of their row in the schema table.
    pub(crate) values: BTreeMap<&'static str, Value>,
}

/// Values are environment values and commands, which must not reach a log.
impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("keys", &self.values.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Where and when the outcome is signalled.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalSection {
    /// None: no handle is given, and the outcome goes to the console only.
    pub target: Option<SignalTarget>,
    pub id: Option<String>,
    pub when: Option<When>,
    pub stable_for: Duration,
    pub timeout: Duration,
    /// How many lines of the container's log a FAILURE carries.
    pub log_lines: u32,
    pub style: SignalStyle,
    pub transport: SignalTransport,
}

/// How the members of the signal are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SignalStyle {
    /// As the handle's form says.
    #[default]
    Auto,
    /// CloudFormation's way.
    Aws,
    Heat,
}

impl SignalStyle {
    pub(crate) const WORDS: [(&'static str, SignalStyle); 3] =
        [("auto", SignalStyle::Auto), ("aws", SignalStyle::Aws), ("heat", SignalStyle::Heat)];
}

/// By which way the signal goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SignalTransport {
    /// By every way that there is.
    #[default]
    Auto,
    Metadata,
    /// To the handle's URL only, which has to be presigned by CloudFormation's rules.
    Cfn,
    /// To Heat's API only.
    Heat,
    /// To the handle's URL only, which has to be a TempURL.
    TempUrl,
    /// To the handle's URL only, which has to be a relay's own.
    Relay,
    /// Into Nova's password slot.
    Password,
    /// Nowhere but the console.
    Console,
}

impl SignalTransport {
    pub(crate) const WORDS: [(&'static str, SignalTransport); 9] = [
        ("auto", SignalTransport::Auto),
        ("metadata", SignalTransport::Metadata),
        ("cfn", SignalTransport::Cfn),
        ("heat", SignalTransport::Heat),
        ("tempurl", SignalTransport::TempUrl),
        ("relay", SignalTransport::Relay),
        ("password", SignalTransport::Password),
        ("console", SignalTransport::Console),
        ("none", SignalTransport::Console),
    ];
}

/// The handle, as the document gives it.
#[derive(Clone, PartialEq)]
pub enum SignalTarget {
    /// A TempURL, the relay's own signal URL, or a presigned CloudFormation URL: PUT to it.
    Url(Url),
    /// Heat's `signal` attribute, verbatim: `alarm_url` and perhaps credentials.
    Json(Map<String, serde_json::Value>),
}

/// A handle is a credential: whoever has the URL may signal.
impl fmt::Debug for SignalTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignalTarget::Url(url) => write!(f, "Url({}…)", url.host_str().unwrap_or("?")),
            SignalTarget::Json(json) => write!(f, "Json({:?})", json.keys().collect::<Vec<_>>()),
        }
    }
}

/// What must have happened before SUCCESS is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    Created,
    Running,
    Healthy,
    Exit,
}

impl When {
    pub(crate) const WORDS: [(&'static str, When); 4] = [
        ("created", When::Created),
        ("running", When::Running),
        ("healthy", When::Healthy),
        ("exit", When::Exit),
    ];
}

/// When the image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    Always,
    Missing,
    Never,
}

impl PullPolicy {
    /// Compose has two words for `missing`; Kubernetes has capitals.
    pub(crate) const WORDS: [(&'static str, PullPolicy); 7] = [
        ("always", PullPolicy::Always),
        ("missing", PullPolicy::Missing),
        ("never", PullPolicy::Never),
        ("if_not_present", PullPolicy::Missing),
        ("Always", PullPolicy::Always),
        ("IfNotPresent", PullPolicy::Missing),
        ("Never", PullPolicy::Never),
    ];
}

/// One entry of a signal's `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What it is called in `data`.
    pub name: String,
    pub source: OutputName,
    /// A place in it, with dots between the names.
    pub path: Option<String>,
}

impl From<OutputName> for Output {
    fn from(source: OutputName) -> Output {
        Output { name: source.as_str().to_owned(), source, path: None }
    }
}

/// One under its own name is that name, as it was before there were others: the document's hash is
/// taken over it.
impl Serialize for Output {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if *self == Output::from(self.source) {
            return self.source.serialize(serializer);
        }
        (&self.name, self.source, &self.path).serialize(serializer)
    }
}

/// What a signal's `data` may carry. The first nine names are those of Heat's Docker plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputName {
    Info,
    NetworkInfo,
    NetworkIp,
    NetworkGateway,
    NetworkTcpPorts,
    NetworkUdpPorts,
    Logs,
    LogsHead,
    LogsTail,
    HostIp,
    HostIps,
    ContainerId,
    ImageDigest,
    ExitCode,
    OomKilled,
    Health,
    RestartCount,
    StartedAt,
    Timings,
}

impl OutputName {
    pub const ALL: [OutputName; 19] = [
        OutputName::Info,
        OutputName::NetworkInfo,
        OutputName::NetworkIp,
        OutputName::NetworkGateway,
        OutputName::NetworkTcpPorts,
        OutputName::NetworkUdpPorts,
        OutputName::Logs,
        OutputName::LogsHead,
        OutputName::LogsTail,
        OutputName::HostIp,
        OutputName::HostIps,
        OutputName::ContainerId,
        OutputName::ImageDigest,
        OutputName::ExitCode,
        OutputName::OomKilled,
        OutputName::Health,
        OutputName::RestartCount,
        OutputName::StartedAt,
        OutputName::Timings,
    ];

    /// What a document without `outputs` gets: addresses and identities, but no log line and no
    /// inspection, which are long and may hold what their author did not mean to publish.
    pub const DEFAULT: [OutputName; 8] = [
        OutputName::NetworkIp,
        OutputName::NetworkGateway,
        OutputName::NetworkTcpPorts,
        OutputName::NetworkUdpPorts,
        OutputName::HostIp,
        OutputName::ContainerId,
        OutputName::ImageDigest,
        OutputName::Timings,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            OutputName::Info => "info",
            OutputName::NetworkInfo => "network_info",
            OutputName::NetworkIp => "network_ip",
            OutputName::NetworkGateway => "network_gateway",
            OutputName::NetworkTcpPorts => "network_tcp_ports",
            OutputName::NetworkUdpPorts => "network_udp_ports",
            OutputName::Logs => "logs",
            OutputName::LogsHead => "logs_head",
            OutputName::LogsTail => "logs_tail",
            OutputName::HostIp => "host_ip",
            OutputName::HostIps => "host_ips",
            OutputName::ContainerId => "container_id",
            OutputName::ImageDigest => "image_digest",
            OutputName::ExitCode => "exit_code",
            OutputName::OomKilled => "oom_killed",
            OutputName::Health => "health",
            OutputName::RestartCount => "restart_count",
            OutputName::StartedAt => "started_at",
            OutputName::Timings => "timings",
        }
    }
}

impl fmt::Display for OutputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
