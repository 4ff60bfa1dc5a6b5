//! The kinds of values: how a value is read, and how the reference and the JSON Schema describe it.

use crate::userdata::document::{OutputName, PullPolicy, When};

/// How a value is read and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Image,
    Archive,
    Text,
    Texts,
    /// One of these.
    Words(&'static [&'static str]),
    ContainerName,
    Hostname,
    AbsolutePath,
    Flag,
    Size,
    Memory,
    SizeOrUnlimited,
    Cpus,
    CpuSet,
    /// A whole number within bounds.
    Number(i64, i64),
    Microseconds,
    Duration,
    Grace,
    Mode,
    Id,
    Sha256,
    Address,
    Addresses,
    Subnet,
    MacAddress,
    Platform,
    /// A map of texts, or a list of `name=value`.
    Settings,
    /// A string for `/bin/sh -c`, or a list of words.
    ShellCommand,
    /// A string that is split into words without a shell, or a list of words.
    SplitCommand,
    Environment,
    EnvFile,
    Labels,
    Ports,
    PortBindings,
    Expose,
    NetworkMode,
    Namespace,
    Networks,
    Links,
    ExtraHosts,
    Volumes,
    VolumesFrom,
    Tmpfs,
    Devices,
    /// A block device.
    Device,
    Gpus,
    Ulimits,
    Blkio,
    Capabilities,
    Logging,
    Deploy,
    Restart,
    Healthcheck,
    HealthTest,
    ExitCodes,
    Pull,
    Files,
    Secrets,
    Configs,
    DependsOn,
    Profiles,
    Scale,
    When,
    SignalUrl,
    SignalJson,
    Signal,
    Outputs,
    Inputs,
    Registries,
    Proxy,
    Glance,
    Certificates,
    Services,
    NetworkDefinitions,
    VolumeDefinitions,
    FileDefinitions,
    /// Accepted without effect, for this reason.
    Ignored(&'static str),
    /// Known and refused, with what to do instead.
    Refused(&'static str),
    /// Read by the code of the map that it stands in.
    Part(&'static str),
}

impl Kind {
    /// The expected shape, for messages and the reference.
    pub(crate) fn shape(self) -> &'static str {
        match self {
            Kind::Image => "an image reference such as `registry/name:tag`",
            Kind::Archive => "a place as a text, or a map",
            Kind::Text => "a string",
            Kind::Texts => "a string or a list of strings",
            Kind::Words(_) => "one of a few words",
            Kind::ContainerName => "a name of letters, digits, `_`, `.` and `-`",
            Kind::Hostname => "a host name of at most 64 letters, digits, `-` and `.`",
            Kind::AbsolutePath => "an absolute path",
            Kind::Flag => "true or false",
            Kind::Size | Kind::Memory => "a size such as 512m or 1g",
            Kind::SizeOrUnlimited => "a size such as 512m or 1g, or -1",
            Kind::Cpus => "a number of processors such as 1.5",
            Kind::CpuSet => "numbers of processors such as 0-2,4",
            Kind::Number(..) => "a whole number",
            Kind::Microseconds => "a whole number of microseconds, or a duration",
            Kind::Duration | Kind::Grace => "a duration such as 90s or 1m30s",
            Kind::Mode => "a mode in octal such as 0440",
            Kind::Id => "a numeric id",
            Kind::Sha256 => "64 hex digits",
            Kind::Address => "an IP address",
            Kind::Addresses => "an IP address or a list of them",
            Kind::Subnet => "a subnet such as 198.51.100.0/24",
            Kind::MacAddress => "six pairs of hex digits with colons between them",
            Kind::Platform => "os/architecture such as linux/amd64",
            Kind::Settings => "a map of texts, or a list of name=value",
            Kind::ShellCommand => "a shell command line, or a list of words",
            Kind::SplitCommand => "a command line without shell, or a list of words",
            Kind::Environment => "a list of NAME=value, or a map",
            Kind::EnvFile => "a path of an entry of `files`, or a list of them",
            Kind::Labels => "a list of name=value, or a map",
            Kind::Ports => "a list of [ip:][host:]container[/protocol], or of maps",
            Kind::PortBindings => "a map of container[/protocol] to ports of the instance",
            Kind::Expose => "a list of container[/protocol]",
            Kind::NetworkMode => "bridge, host, none, service:<name> or container:<name>",
            Kind::Namespace => "host, service:<name>, container:<name> or a word of the engine",
            Kind::Networks => "a list of names, or a map",
            Kind::Links => "a list of name[:alias], or a map of name to alias",
            Kind::ExtraHosts => "a list of name:address or name=address, or a map",
            Kind::Volumes => "a list of [source:]target[:options] or of maps, or a map of paths",
            Kind::VolumesFrom => "a name or a list of [container:]name[:ro]",
            Kind::Tmpfs => "a path or a list of path[:options]",
            Kind::Devices => "a list of host[:container[:rwm]], or of maps",
            Kind::Device => "serial:<serial>, label:<label> or the path of a block device",
            Kind::Gpus => "`all`, or a list of maps",
            Kind::Ulimits => "a map of names to numbers or to maps of soft and hard",
            Kind::Capabilities => "a list of names of capabilities",
            Kind::Restart => "no, always, on-failure[:retries] or unless-stopped",
            Kind::HealthTest => "a shell command line, or a list that starts with CMD",
            Kind::ExitCodes => "a list of numbers from 0 to 255",
            Kind::Pull => "always, missing or never",
            Kind::Files => "a list of maps",
            Kind::Secrets | Kind::Configs => "a list of names, or of maps",
            Kind::DependsOn => "a list of services, or a map",
            Kind::Profiles => "a list of names",
            Kind::Scale => "a whole number from 1 to 32",
            Kind::When => "created, running, healthy or exit",
            Kind::SignalUrl => "an http or https URL",
            Kind::SignalJson => "the handle's `signal` attribute, as JSON",
            Kind::Signal => "a URL, the handle's `signal` attribute, or a map",
            Kind::Outputs => "a list of output names, or a map to them",
            Kind::Inputs => "a map, or JSON",
            Kind::Certificates => "certificates in PEM",
            Kind::Blkio
            | Kind::Logging
            | Kind::Deploy
            | Kind::Healthcheck
            | Kind::Registries
            | Kind::Proxy
            | Kind::Glance
            | Kind::Services
            | Kind::NetworkDefinitions
            | Kind::VolumeDefinitions
            | Kind::FileDefinitions => "a map",
            Kind::Ignored(_) | Kind::Refused(_) => "anything",
            Kind::Part(shape) => shape,
        }
    }

    /// The words that are accepted, where only certain words are.
    pub(crate) fn words(self) -> Vec<&'static str> {
        match self {
            Kind::Words(words) => words.to_vec(),
            Kind::Restart => vec!["no", "always", "on-failure", "unless-stopped"],
            Kind::Pull => PullPolicy::WORDS.iter().map(|(word, _)| *word).collect(),
            Kind::When => When::WORDS.iter().map(|(word, _)| *word).collect(),
            Kind::Outputs => OutputName::ALL.iter().map(|name| name.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// The shape with the words or bounds in it, for the reference.
    pub(crate) fn description(self) -> String {
        match self {
            Kind::Words(words) => words.join(", "),
            Kind::Number(min, i64::MAX) => format!("a whole number from {min}"),
            Kind::Number(min, max) => format!("a whole number from {min} to {max}"),
            _ => self.shape().to_owned(),
        }
    }
}
