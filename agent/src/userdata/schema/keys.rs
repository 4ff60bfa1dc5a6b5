//! The tables of keys.
//!
//! A row that leaves a field out has the one that the function after the dots gives it.

use crate::userdata::schema::{Key, Kind, Placement};

const fn key(name: &'static str, kind: Kind, placement: Placement) -> Key {
    Key { name, aliases: &[], kind, default: "", placement, summary: "", origin: "compose" }
}

/// The keys at the top of a document: one service, and what to tell whom about it.
pub(crate) static DOCUMENT_KEYS: &[Key] = &[
    Key {
        aliases: &["Image"],
        default: "required",
        summary: "The image that the container is made from.",
        origin: "2013, heat, compose",
        ..key("image", Kind::Image, Placement::Field("Image"))
    },
    Key {
        aliases: &["Cmd"],
        default: "the image's",
        summary: "The command, through `/bin/sh -c` if it is a string. Not together with `command`.",
        origin: "2013, heat",
        ..key("cmd", Kind::ShellCommand, Placement::Field("Cmd"))
    },
    Key {
        default: "the image's",
        summary: "The command as Compose has it: a string is split into words, and no shell reads it.",
        ..key("command", Kind::SplitCommand, Placement::Field("Cmd"))
    },
    Key {
        default: "the image's",
        summary: "The program that receives the command as its arguments.",
        ..key("entrypoint", Kind::SplitCommand, Placement::Field("Entrypoint"))
    },
    Key {
        aliases: &["env", "Env"],
        default: "none",
        summary: "Environment variables. Each needs a value; an empty one is written `\"\"`.",
        origin: "heat, compose",
        ..key("environment", Kind::Environment, Placement::Field("Env"))
    },
    Key {
        default: "none",
        summary: "Ports of the container that the instance publishes.",
        origin: "compose",
        ..key(
            "ports",
            Kind::Ports,
            Placement::Elsewhere("`ExposedPorts` and `HostConfig.PortBindings`"),
        )
    },
    Key {
        default: "none",
        summary: "Directories of the instance, named volumes and memory file systems to mount.",
        ..key(
            "volumes",
            Kind::Volumes,
            Placement::Elsewhere("`HostConfig.Binds`, `HostConfig.Tmpfs` and `Volumes`"),
        )
    },
    Key {
        aliases: &["name", "Name"],
        default: "`heliograph-main-1`",
        summary: "The container's name.",
        origin: "heat, compose",
        ..key("container_name", Kind::ContainerName, Placement::Elsewhere("the `name` parameter"))
    },
    Key {
        aliases: &["Hostname"],
        default: "the container's id",
        summary: "The host name inside the container.",
        origin: "heat, compose",
        ..key("hostname", Kind::Hostname, Placement::Field("Hostname"))
    },
    Key {
        aliases: &["User"],
        default: "the image's",
        summary: "The user, and with a colon the group, that the command runs as.",
        origin: "heat, compose",
        ..key("user", Kind::Text, Placement::Field("User"))
    },
    Key {
        aliases: &["workdir", "working_directory", "WorkingDir"],
        default: "the image's",
        summary: "The directory that the command starts in.",
        ..key("working_dir", Kind::AbsolutePath, Placement::Field("WorkingDir"))
    },
    Key {
        aliases: &["Tty"],
        default: "false",
        summary: "Whether the command has a terminal.",
        origin: "heat, compose",
        ..key("tty", Kind::Flag, Placement::Field("Tty"))
    },
    Key {
        aliases: &["Privileged"],
        default: "false",
        summary: "Whether the container has every privilege on the instance.",
        origin: "heat, compose",
        ..key("privileged", Kind::Flag, Placement::Field("HostConfig.Privileged"))
    },
    Key {
        aliases: &["restart_policy", "RestartPolicy"],
        default: "unless-stopped, or no if `signal.when` is exit",
        summary: "What the engine does when the command ends.",
        origin: "heat, compose",
        ..key("restart", Kind::Restart, Placement::Field("HostConfig.RestartPolicy"))
    },
    Key {
        default: "the image's",
        summary: "How the engine finds out whether the container works. It drives the signal.",
        ..key("healthcheck", Kind::Healthcheck, Placement::Field("Healthcheck"))
    },
    Key {
        default: "none",
        summary: "Labels on the container. Names that start with `io.heliograph.` are the agent's.",
        ..key("labels", Kind::Labels, Placement::Field("Labels"))
    },
    Key {
        aliases: &["image_pull_policy"],
        default: "missing",
        summary: "When the image is pulled. `latest` is no exception: `missing` pulls it once.",
        ..key("pull_policy", Kind::Pull, Placement::Elsewhere("whether `/images/create` is called"))
    },
    Key {
        aliases: &["memory", "Memory"],
        default: "no limit",
        summary: "The memory that the container may use.",
        origin: "heat, compose",
        ..key("mem_limit", Kind::Size, Placement::Field("HostConfig.Memory"))
    },
    Key {
        default: "no limit",
        summary: "The processors that the container may use.",
        ..key("cpus", Kind::Cpus, Placement::Field("HostConfig.NanoCpus"))
    },
    Key {
        default: "the console only",
        summary: "The handle that is told the outcome, and when.",
        origin: "heliograph",
        ..key("signal", Kind::Signal, Placement::Elsewhere("the agent"))
    },
    Key {
        default: "see below",
        summary: "What a SUCCESS carries in its `data`.",
        origin: "heat, heliograph",
        ..key("outputs", Kind::Outputs, Placement::Elsewhere("the agent"))
    },
];

/// The keys of `signal`, when it is a map.
pub(crate) static SIGNAL_KEYS: &[Key] = &[
    Key {
        aliases: &["handle"],
        default: "the console only",
        summary: "The handle's signal URL.",
        ..agent("url", Kind::SignalUrl)
    },
    Key {
        default: "the console only",
        summary: "The handle's `signal` attribute, instead of `url`.",
        ..agent("json", Kind::SignalJson)
    },
    Key {
        default: "`<instance>/<service>/<document hash>`",
        summary: "The signal's id, the same at every retry and reboot.",
        ..agent("id", Kind::Text)
    },
    Key {
        default: "healthy with a `healthcheck`, else running",
        summary: "What must have happened before SUCCESS is signalled.",
        ..agent("when", Kind::When)
    },
    Key {
        default: "5s",
        summary: "How long the container must stay up to count as running.",
        ..agent("stable_for", Kind::Duration)
    },
    Key {
        default: "60m",
        summary: "After this long FAILURE is signalled. Choose less than the orchestrator waits.",
        ..agent("timeout", Kind::Duration)
    },
    Key {
        default: "20",
        summary: "How many lines of the container's log a FAILURE carries.",
        ..agent("logs", Kind::Count)
    },
];

/// The keys of `healthcheck`.
pub(crate) static HEALTHCHECK_KEYS: &[Key] = &[
    Key {
        default: "the image's",
        summary: "The command that ends with 0 if the container is healthy.",
        ..key("test", Kind::HealthTest, Placement::Field("Healthcheck.Test"))
    },
    Key {
        default: "30s",
        summary: "The time between two checks.",
        ..key("interval", Kind::Duration, Placement::Field("Healthcheck.Interval"))
    },
    Key {
        default: "30s",
        summary: "A check that takes longer has failed.",
        ..key("timeout", Kind::Duration, Placement::Field("Healthcheck.Timeout"))
    },
    Key {
        default: "3",
        summary: "So many failures in a row make the container unhealthy.",
        ..key("retries", Kind::Count, Placement::Field("Healthcheck.Retries"))
    },
    Key {
        default: "0s",
        summary: "Failures this soon after the start do not count.",
        ..key("start_period", Kind::Duration, Placement::Field("Healthcheck.StartPeriod"))
    },
    Key {
        default: "false",
        summary: "Switches the image's own check off.",
        ..key("disable", Kind::Flag, Placement::Field("Healthcheck.Test"))
    },
];

/// The keys of one entry of `ports`, when it is a map.
pub(crate) static PORT_KEYS: &[Key] = &[
    Key { default: "required", summary: "The port in the container.", ..part("target", "a port") },
    Key {
        default: "any free port",
        summary: "The port or the range of ports on the instance.",
        ..part("published", "a port or a range of ports")
    },
    Key {
        default: "every address",
        summary: "The address of the instance to listen on.",
        ..part("host_ip", "an IP address")
    },
    Key { default: "tcp", summary: "The protocol.", ..part("protocol", "tcp, udp or sctp") },
];

/// The keys of one entry of `volumes`, when it is a map.
pub(crate) static VOLUME_KEYS: &[Key] = &[
    Key {
        default: "required",
        summary: "What is mounted.",
        ..part("type", "bind, volume or tmpfs")
    },
    Key {
        aliases: &["src"],
        default: "an anonymous volume",
        summary: "The directory of the instance, or the volume's name.",
        ..part("source", "an absolute path, or a volume name")
    },
    Key {
        aliases: &["destination", "dst"],
        default: "required",
        summary: "Where it appears in the container.",
        ..part("target", "an absolute path")
    },
    Key {
        aliases: &["readonly"],
        default: "false",
        summary: "Whether the container may only read it.",
        ..part("read_only", "true or false")
    },
];

/// The keys of `restart`, when it is a map as Heat's plugin has it.
pub(crate) static RESTART_KEYS: &[Key] = &[
    Key { aliases: &["Name"], default: "no", ..part("name", "no, always or on-failure") },
    Key {
        aliases: &["MaximumRetryCount"],
        default: "0",
        ..part("maximum_retry_count", "a whole number")
    },
];

const fn agent(name: &'static str, kind: Kind) -> Key {
    Key { origin: "heliograph", ..key(name, kind, Placement::Elsewhere("the agent")) }
}

const fn part(name: &'static str, shape: &'static str) -> Key {
    key(name, Kind::Part(shape), Placement::Elsewhere(""))
}

/// Keys that other tools have and that are refused here, with what to do instead.
pub(crate) const REFUSED_KEYS: &[(&str, &str)] = &[
    ("services", "write the keys of the one service at the top level"),
    ("version", "remove it"),
    ("build", "an instance builds no images; give an `image`"),
    ("extends", "write the keys out"),
    ("develop", "remove it"),
    ("credential_spec", "remove it"),
    ("isolation", "remove it"),
    ("provider", "remove it"),
    ("models", "remove it"),
    ("use_api_socket", "a container must not control the engine"),
    ("label_file", "write the labels under `labels`"),
    ("env_file", "write the variables under `environment`"),
    ("port_specs", "write `ports`"),
    ("PortSpecs", "write `ports`"),
    ("port_bindings", "write `ports`, with the port of the instance first"),
    ("packages", "this is a cloud-init key; an image brings its own packages"),
    ("runcmd", "this is a cloud-init key; write a `cmd`"),
];
