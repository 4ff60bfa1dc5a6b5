//! The tables of the maps in a service and in `signal`, each with documents that show all of its
//! keys.

use crate::userdata::schema::Placement::{Elsewhere, Field};
use crate::userdata::schema::{Kind, Table, keys};

/// All of them, in the order of the reference.
pub(crate) static PARTS: &[&Table] = &[
    &SIGNAL,
    &HEALTHCHECK,
    &PORT,
    &MOUNT,
    &SERVICE_NETWORK,
    &DEPENDENCY,
    &GRANT,
    &FILE,
    &DEVICE,
    &LOGGING,
    &ULIMIT,
    &GPU,
    &BLKIO,
    &BLKIO_DEVICE,
    &DEPLOY,
    &RESTART,
];

pub(crate) static SIGNAL: Table = Table {
    title: "`signal`",
    keys: keys! {
        "url", "handle" => Kind::SignalUrl, Elsewhere(""); default "the console only"; from "heliograph";
            "The handle's signal URL."
        "json" => Kind::SignalJson, Elsewhere(""); default "the console only"; from "heliograph";
            "The handle's `signal` attribute, instead of `url`."
        "id" => Kind::Text, Elsewhere(""); default "`<instance>/<service>/<document hash>`"; from "heliograph";
            "The signal's id, the same at every retry and reboot."
        "when" => Kind::When, Elsewhere(""); default "healthy with a `healthcheck`, else running"; from "heliograph";
            "What must have happened before SUCCESS is signalled."
        "stable_for" => Kind::Duration, Elsewhere(""); default "5s"; from "heliograph";
            "How long the container must stay up to count as running."
        "timeout" => Kind::Duration, Elsewhere(""); default "60m"; from "heliograph";
            "After this long FAILURE is signalled. Choose less than the orchestrator waits."
        "logs" => Kind::Number(0, 1000), Elsewhere(""); default "20"; from "heliograph";
            "How many lines of the container's log a FAILURE carries."
        "style" => Kind::Words(&["auto", "aws", "heat"]), Elsewhere(""); default "auto"; from "heliograph";
            "How the members of the signal are called: `heat` is `status`, `reason`, `id` and `data`; `aws` is `Status`, `Reason`, `UniqueId` and `Data`, which a handle of the type `AWS::CloudFormation::WaitConditionHandle` wants. `auto` is `heat`; for a presigned URL of CloudFormation's that stands in the document as a URL, `aws`, and `heat` if that is refused. A relay takes both."
        "transport" => Kind::Words(&["auto", "metadata", "cfn", "heat", "tempurl", "relay", "password", "console", "none"]), Elsewhere(""); default "auto"; from "heliograph";
            "By which way it goes. `auto`: to the handle's URL, and by a relay at the metadata address. `metadata`: by that relay only. `cfn`, `heat`, `tempurl` and `relay`: to the handle only, which has to be a presigned URL, one of Heat's API, a TempURL or a relay's. `password`: into Nova's password slot only. `console` and `none`: nowhere, the result is on the console as always."
    },
    examples: &[
        "signal:\n  url: https://relay.example/v1/AUTH_demo/handles/web?temp_url_sig=0000&temp_url_expires=1900000000\n  id: web-1\n  when: running\n  stable_for: 2s\n  timeout: 15m\n  logs: 40\n  style: heat\n  transport: tempurl",
        "signal:\n  json: {\"alarm_url\": \"https://heat.example:8000/v1/signal/arn\"}",
    ],
};

pub(crate) static HEALTHCHECK: Table = Table {
    title: "`healthcheck`",
    keys: keys! {
        "test" => Kind::HealthTest, Field("Healthcheck.Test"); default "the image's"; from "compose";
            "The command that ends with 0 if the container is healthy."
        "interval" => Kind::Duration, Field("Healthcheck.Interval"); default "30s"; from "compose";
            "The time between two checks."
        "timeout" => Kind::Duration, Field("Healthcheck.Timeout"); default "30s"; from "compose";
            "A check that takes longer has failed."
        "retries" => Kind::Number(0, 1_000_000), Field("Healthcheck.Retries"); default "3"; from "compose";
            "So many failures in a row make the container unhealthy."
        "start_period" => Kind::Duration, Field("Healthcheck.StartPeriod"); default "0s"; from "compose";
            "Failures this soon after the start do not count."
        "start_interval" => Kind::Duration, Elsewhere("nothing: the API 1.41 does not have it"); default "`interval`"; from "compose";
            "Accepted without effect."
        "disable" => Kind::Flag, Field("Healthcheck.Test"); default "false"; from "compose";
            "Switches the image's own check off."
    },
    examples: &[
        "healthcheck:\n  test: [CMD, /bin/true]\n  interval: 1s\n  timeout: 2s\n  retries: 6\n  start_period: 1m30s\n  start_interval: 1s",
        "healthcheck: {disable: true}",
    ],
};

pub(crate) static PORT: Table = Table {
    title: "an entry of `ports`",
    keys: keys! {
        "target" => Kind::Part("a port"), Elsewhere(""); default "required"; from "compose";
            "The port in the container."
        "published" => Kind::Part("a port or a range of ports"), Elsewhere(""); default "any free port"; from "compose";
            "The port or the range of ports on the instance."
        "host_ip" => Kind::Part("an IP address"), Elsewhere(""); default "every address"; from "compose";
            "The address of the instance to listen on."
        "protocol" => Kind::Part("tcp, udp or sctp"), Elsewhere(""); default "tcp"; from "compose";
            "The protocol."
        "mode" => Kind::Words(&["host", "ingress"]), Elsewhere(""); default "host"; from "compose";
            "Accepted without effect."
        "name" => Kind::Text, Elsewhere(""); default "none"; from "compose";
            "Accepted without effect."
        "app_protocol" => Kind::Text, Elsewhere(""); default "none"; from "compose";
            "Accepted without effect."
    },
    examples: &[
        "ports: [{target: 443, published: 8443, host_ip: \"0.0.0.0\", protocol: tcp, mode: host, name: web, app_protocol: https}]",
    ],
};

pub(crate) static MOUNT: Table = Table {
    title: "an entry of `volumes`",
    keys: keys! {
        "type" => Kind::Words(&["bind", "volume", "tmpfs"]), Elsewhere(""); default "required"; from "compose";
            "What is mounted."
        "source", "src" => Kind::Part("an absolute path, or a volume name"), Elsewhere(""); default "an anonymous volume"; from "compose";
            "The directory of the instance, or the volume's name."
        "target", "destination", "dst" => Kind::Part("an absolute path"), Elsewhere(""); default "required"; from "compose";
            "Where it appears in the container."
        "read_only", "readonly" => Kind::Flag, Elsewhere(""); default "false"; from "compose";
            "Whether the container may only read it."
        "device" => Kind::Device, Elsewhere(""); default "none"; from "heliograph";
            "The block device that the volume is, by `serial:`, `label:` or its path; of a Cinder volume the serial is the first 20 characters of its id. Mounted before the containers start, unmounted after they stopped."
        "filesystem" => Kind::Words(&["ext4", "xfs"]), Elsewhere(""); default "ext4"; from "heliograph";
            "What the device is formatted with if nothing is on it."
    },
    examples: &[
        "volumes:\n  - {type: bind, source: /srv/data, target: /data, read_only: true}\n  - {type: volume, source: db, target: /db, device: \"label:shop\", filesystem: ext4}\n  - {type: tmpfs, target: /run}",
        "volumes: [{type: volume, source: db, target: /db, device: \"serial:0b5a1e9c-6d0f-4a86-a\"}]",
    ],
};

pub(crate) static SERVICE_NETWORK: Table = Table {
    title: "an entry of a service's `networks`",
    keys: keys! {
        "aliases" => Kind::Texts, Elsewhere("`Aliases`"); default "the service's name"; from "compose";
            "Further names of the container in the network."
        "ipv4_address" => Kind::Address, Elsewhere("`IPAMConfig.IPv4Address`"); default "chosen by the engine"; from "compose";
            "Its address."
        "ipv6_address" => Kind::Address, Elsewhere("`IPAMConfig.IPv6Address`"); default "chosen by the engine"; from "compose";
            "Its IPv6 address."
        "link_local_ips" => Kind::Addresses, Elsewhere("`IPAMConfig.LinkLocalIPs`"); default "none"; from "compose";
            "Link-local addresses."
        "priority" => Kind::Number(-1_000_000, 1_000_000), Elsewhere("the order"); default "0"; from "compose";
            "The network with the highest is the first."
        "driver_opts" => Kind::Settings, Elsewhere("`DriverOpts`"); default "none"; from "compose";
            "Options of the network's driver."
        "mac_address" => Kind::MacAddress, Elsewhere("`MacAddress`"); default "chosen by the engine"; from "compose";
            "The hardware address."
    },
    examples: &[
        "services:\n  web:\n    image: busybox\n    networks:\n      front:\n        aliases: [www]\n        ipv4_address: 198.51.100.5\n        ipv6_address: 2001:db8::5\n        link_local_ips: [169.254.8.8]\n        priority: 10\n        driver_opts: {com.example.speed: fast}\n        mac_address: 02:42:ac:11:00:43\nnetworks:\n  front: {enable_ipv6: true, ipam: {config: [{subnet: 198.51.100.0/24}, {subnet: \"2001:db8::/64\"}]}}",
    ],
};

pub(crate) static DEPENDENCY: Table = Table {
    title: "an entry of `depends_on`",
    keys: keys! {
        "condition" => Kind::Words(&["service_started", "service_healthy", "service_completed_successfully"]), Elsewhere(""); default "service_started"; from "compose";
            "What the other service must have reached."
        "required" => Kind::Flag, Elsewhere(""); default "true"; from "compose";
            "Whether its failure keeps this service from starting."
        "restart" => Kind::Flag, Elsewhere(""); default "false"; from "compose";
            "Accepted without effect."
    },
    examples: &[
        "services:\n  web:\n    image: busybox\n    depends_on:\n      db: {condition: service_healthy, required: true, restart: false}\n  db: {image: busybox, healthcheck: {test: \"true\", interval: 1s}}",
    ],
};

pub(crate) static GRANT: Table = Table {
    title: "an entry of a service's `secrets` or `configs`",
    keys: keys! {
        "source" => Kind::Text, Elsewhere(""); default "required"; from "compose";
            "Its name in the document."
        "target" => Kind::Text, Elsewhere(""); default "its name"; from "compose";
            "Where it appears: a path, or for a secret a name below `/run/secrets`."
        "uid" => Kind::Id, Elsewhere(""); default "0"; from "compose";
            "Its owner, as a number."
        "gid" => Kind::Id, Elsewhere(""); default "0"; from "compose";
            "Its group, as a number."
        "mode" => Kind::Mode, Elsewhere(""); default "0400 for a secret, 0444 for a config"; from "compose";
            "Its mode, in octal."
    },
    examples: &[
        "services:\n  web:\n    image: busybox\n    secrets: [{source: password, target: db-password, uid: 1000, gid: 1000, mode: 0440}]\nsecrets:\n  password: {content: not really}",
    ],
};

pub(crate) static FILE: Table = Table {
    title: "an entry of `files`",
    keys: keys! {
        "path" => Kind::AbsolutePath, Elsewhere("`HostConfig.Mounts`"); default "required"; from "heliograph";
            "Where it appears in the container."
        "content" => Kind::Text, Elsewhere(""); default "required"; from "heliograph";
            "What is in it."
        "encoding" => Kind::Words(&["text", "base64"]), Elsewhere(""); default "text"; from "heliograph";
            "How `content` is written."
        "mode" => Kind::Mode, Elsewhere(""); default "0444"; from "heliograph";
            "Its mode, in octal."
        "uid" => Kind::Id, Elsewhere(""); default "0"; from "heliograph";
            "Its owner, as a number."
        "gid" => Kind::Id, Elsewhere(""); default "0"; from "heliograph";
            "Its group, as a number."
    },
    examples: &[
        "files:\n  - {path: /etc/motd, content: aGVsbG8K, encoding: base64, mode: 0644, uid: 0, gid: 0}",
    ],
};

pub(crate) static DEVICE: Table = Table {
    title: "an entry of `devices`",
    keys: keys! {
        "path_on_host", "PathOnHost", "source" => Kind::AbsolutePath, Elsewhere("`PathOnHost`"); default "required"; from "heat, compose";
            "The device of the instance."
        "path_in_container", "PathInContainer", "target" => Kind::AbsolutePath, Elsewhere("`PathInContainer`"); default "the same"; from "heat, compose";
            "Where it appears in the container."
        "permissions", "CgroupPermissions" => Kind::Text, Elsewhere("`CgroupPermissions`"); default "rwm"; from "heat, compose";
            "Letters out of r, w and m."
    },
    examples: &[
        "devices: [{path_on_host: /dev/null, path_in_container: /dev/zilch, permissions: rw}]",
    ],
};

pub(crate) static LOGGING: Table = Table {
    title: "`logging`",
    keys: keys! {
        "driver" => Kind::Text, Elsewhere("`Type`"); default "json-file"; from "compose";
            "The engine's driver."
        "options" => Kind::Settings, Elsewhere("`Config`"); default "max-size 10m, max-file 3 for json-file"; from "compose";
            "Its options."
    },
    examples: &["logging: {driver: json-file, options: {max-size: 1m, max-file: 2}}"],
};

pub(crate) static ULIMIT: Table = Table {
    title: "an entry of `ulimits`",
    keys: keys! {
        "soft" => Kind::Number(-1, i64::MAX), Elsewhere("`Soft`"); default "required"; from "compose";
            "What holds at first."
        "hard" => Kind::Number(-1, i64::MAX), Elsewhere("`Hard`"); default "required"; from "compose";
            "What it can be raised to."
    },
    examples: &["ulimits: {nofile: {soft: 1024, hard: 2048}}"],
};

pub(crate) static GPU: Table = Table {
    title: "an entry of `gpus`",
    keys: keys! {
        "driver" => Kind::Text, Elsewhere("`Driver`"); default "the engine's"; from "compose";
            "The driver of the request."
        "count" => Kind::Text, Elsewhere("`Count`"); default "all"; from "compose";
            "How many, or `all`."
        "device_ids" => Kind::Texts, Elsewhere("`DeviceIDs`"); default "any"; from "compose";
            "Which. Not together with `count`."
        "capabilities" => Kind::Texts, Elsewhere("`Capabilities`"); default "gpu"; from "compose";
            "What they must be able to do."
        "options" => Kind::Settings, Elsewhere("`Options`"); default "none"; from "compose";
            "Options of the driver."
    },
    examples: &[
        "gpus: [{driver: nvidia, count: 1, capabilities: [gpu], options: {a: b}}, {device_ids: [\"0\"]}]",
    ],
};

pub(crate) static BLKIO: Table = Table {
    title: "`blkio_config`",
    keys: keys! {
        "weight" => Kind::Number(10, 1000), Elsewhere("`HostConfig.BlkioWeight`"); default "the kernel's"; from "compose";
            "The container's weight."
        "weight_device" => Kind::Part("a list of maps"), Elsewhere("`HostConfig.BlkioWeightDevice`"); default "none"; from "compose";
            "Its weight for a device: maps of `path` and `weight`."
        "device_read_bps" => Kind::Part("a list of maps"), Elsewhere("`HostConfig.BlkioDeviceReadBps`"); default "none"; from "compose";
            "Bytes per second: maps of `path` and `rate`."
        "device_write_bps" => Kind::Part("a list of maps"), Elsewhere("`HostConfig.BlkioDeviceWriteBps`"); default "none"; from "compose";
            "Bytes per second."
        "device_read_iops" => Kind::Part("a list of maps"), Elsewhere("`HostConfig.BlkioDeviceReadIOps`"); default "none"; from "compose";
            "Requests per second."
        "device_write_iops" => Kind::Part("a list of maps"), Elsewhere("`HostConfig.BlkioDeviceWriteIOps`"); default "none"; from "compose";
            "Requests per second."
    },
    examples: &[
        "blkio_config:\n  weight: 300\n  weight_device: [{path: /dev/vda, weight: 400}]\n  device_read_bps: [{path: /dev/vda, rate: 12m}]\n  device_write_bps: [{path: /dev/vda, rate: 12m}]\n  device_read_iops: [{path: /dev/vda, rate: 120}]\n  device_write_iops: [{path: /dev/vda, rate: 120}]",
    ],
};

pub(crate) static BLKIO_DEVICE: Table = Table {
    title: "an entry of a list in `blkio_config`",
    keys: keys! {
        "path" => Kind::AbsolutePath, Elsewhere("`Path`"); default "required"; from "compose";
            "The device."
        "weight" => Kind::Number(10, 1000), Elsewhere("`Weight`"); default "required"; from "compose";
            "In `weight_device`."
        "rate" => Kind::Size, Elsewhere("`Rate`"); default "required"; from "compose";
            "In the other lists."
    },
    examples: &[
        "blkio_config: {weight_device: [{path: /dev/vda, weight: 400}], device_read_bps: [{path: /dev/vda, rate: 12m}]}",
    ],
};

pub(crate) static DEPLOY: Table = Table {
    title: "`deploy`",
    keys: keys! {
        "resources" => Kind::Part("a map of `limits` (`cpus`, `memory`, `pids`) and `reservations` (`memory`)"), Elsewhere("`HostConfig`"); default "none"; from "compose";
            "As `cpus`, `mem_limit`, `pids_limit` and `mem_reservation`."
        "restart_policy" => Kind::Part("a map of `condition` (none, on-failure, any) and `max_attempts`"), Elsewhere("`HostConfig.RestartPolicy`"); default "none"; from "compose";
            "As `restart`."
        "replicas" => Kind::Number(1, 32), Elsewhere("the number of containers"); default "1"; from "compose";
            "As `scale`."
        "mode" => Kind::Ignored("it is for a swarm"), Elsewhere("nothing"); default "none"; from "compose";
            "Ignored with a warning."
        "placement" => Kind::Ignored("it is for a swarm"), Elsewhere("nothing"); default "none"; from "compose";
            "Ignored with a warning."
        "update_config" => Kind::Ignored("it is for a swarm"), Elsewhere("nothing"); default "none"; from "compose";
            "Ignored with a warning."
        "rollback_config" => Kind::Ignored("it is for a swarm"), Elsewhere("nothing"); default "none"; from "compose";
            "Ignored with a warning."
        "endpoint_mode" => Kind::Ignored("it is for a swarm"), Elsewhere("nothing"); default "none"; from "compose";
            "Ignored with a warning."
        "labels" => Kind::Ignored("it is for a swarm"), Elsewhere("nothing"); default "none"; from "compose";
            "Ignored with a warning."
    },
    examples: &[
        "deploy:\n  resources:\n    limits: {cpus: \"0.5\", memory: 64m, pids: 100}\n    reservations: {memory: 32m}\n  restart_policy: {condition: on-failure, max_attempts: 3}\n  replicas: 1\n  mode: replicated\n  placement: {}\n  update_config: {}\n  rollback_config: {}\n  endpoint_mode: vip\n  labels: {}",
    ],
};

pub(crate) static RESTART: Table = Table {
    title: "`restart_policy`",
    keys: keys! {
        "name", "Name" => Kind::Words(&["no", "always", "on-failure", "unless-stopped"]), Elsewhere(""); default "no"; from "heat";
            "The policy."
        "maximum_retry_count", "MaximumRetryCount" => Kind::Number(0, 1_000_000), Elsewhere(""); default "0"; from "heat";
            "With on-failure: so many restarts at most; 0 is without limit."
    },
    examples: &["restart_policy: {name: on-failure, maximum_retry_count: 3}"],
};
