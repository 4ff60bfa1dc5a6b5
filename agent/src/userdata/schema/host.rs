//! The keys of a service that say what of the instance it may use: network, disk, memory, rights.

use crate::userdata::schema::Placement::{Elsewhere, Field};
use crate::userdata::schema::{Key, Kind, keys};

pub(crate) static HOST_KEYS: &[Key] = keys! {
    "ports" => Kind::Ports, Elsewhere("`ExposedPorts` and `HostConfig.PortBindings`");
        default "none"; from "compose";
        "Ports of the container that the instance publishes, the instance's first.";
        "ports: [\"8080:80\", \"127.0.0.1:8053:53/udp\"]"
    "port_bindings", "PortBindings" => Kind::PortBindings, Elsewhere("`ExposedPorts` and `HostConfig.PortBindings`");
        default "none"; from "heat";
        "The same as a map, the container's port first: a port, a list of ports, or a list of maps with `HostIp` and `HostPort`.";
        "port_bindings: {80/tcp: 8081}"
    "expose", "port_specs", "PortSpecs" => Kind::Expose, Field("ExposedPorts");
        default "the image's"; from "heat, compose";
        "Ports that the container listens on, without publishing them. `8080:80`, as `port_specs` had it, publishes and gives a warning.";
        "expose: [\"3306\", \"53/udp\"]"
    "publish_all" => Kind::Flag, Field("HostConfig.PublishAllPorts");
        default "false"; from "heliograph";
        "Whether every exposed port is published at a port that the engine chooses.";
        "publish_all: true\nexpose: [\"80\"]"
    "network_mode", "net" => Kind::NetworkMode, Elsewhere("`HostConfig.NetworkMode`");
        default "bridge; with `services`, a network of the document"; from "compose, docker-cmd";
        "bridge, host, none, `service:<name>` or `container:<name>`. Not together with `networks`.";
        "network_mode: host"
    "networks" => Kind::Networks, Elsewhere("`NetworkingConfig.EndpointsConfig`");
        default "with `services`, `default`"; from "compose";
        "The networks that the container is in, as a list or as a map with what it has there.";
        "networks: {front: {aliases: [www]}}"
    "dns", "Dns" => Kind::Addresses, Field("HostConfig.Dns");
        default "the engine's"; from "nova, heat, compose";
        "Name servers.";
        "dns: [192.0.2.53]"
    "dns_search" => Kind::Texts, Field("HostConfig.DnsSearch");
        default "the engine's"; from "compose";
        "Domains that names are looked up in.";
        "dns_search: [example.org]"
    "dns_opt" => Kind::Texts, Field("HostConfig.DnsOptions");
        default "the engine's"; from "compose";
        "Options of the resolver.";
        "dns_opt: [\"ndots:2\"]"
    "extra_hosts" => Kind::ExtraHosts, Field("HostConfig.ExtraHosts");
        default "none"; from "compose";
        "Names with their addresses; `host-gateway` is the instance.";
        "extra_hosts: {db: 192.0.2.5}"
    "links", "Links" => Kind::Links, Elsewhere("`HostConfig.Links`, or `Links` of the first network");
        default "none"; from "heat, compose";
        "Other containers, with the name that they have inside, as a list of `name:alias` or a map. An old way: services see each other by their names. It gives a warning.";
        "services:\n  web: {image: busybox, links: [\"db:database\"]}\n  db: {image: busybox}"
    "external_links" => Kind::Links, Elsewhere("as `links`");
        default "none"; from "compose";
        "The same for containers that are not of this document.";
        "services:\n  web: {image: busybox, external_links: [\"other:database\"]}"
    "mac_address" => Kind::MacAddress, Field("MacAddress");
        default "chosen by the engine"; from "compose";
        "The hardware address in the first network.";
        "mac_address: 02:42:ac:11:00:42"
    "volumes", "Volumes" => Kind::Volumes, Elsewhere("`HostConfig.Binds`, `HostConfig.Tmpfs` and `Volumes`");
        default "none"; from "heat, compose, konlet";
        "Directories of the instance, named volumes, block devices and memory file systems to mount; or a map of the instance's paths to the container's, as Heat has it.";
        "volumes: [\"/srv/data:/data\", \"cache:/var/cache:ro\", /scratch]"
    "volumes_from", "VolumesFrom" => Kind::VolumesFrom, Elsewhere("`HostConfig.VolumesFrom`");
        default "none"; from "heat, compose";
        "Services, or containers, whose volumes the container sees too.";
        "services:\n  web: {image: busybox, volumes_from: [\"db:ro\"]}\n  db: {image: busybox, volumes: [/data]}"
    "tmpfs" => Kind::Tmpfs, Field("HostConfig.Tmpfs");
        default "none"; from "compose";
        "Directories in memory, each with options after a colon.";
        "tmpfs: [\"/run:size=1m\"]"
    "devices", "Devices" => Kind::Devices, Field("HostConfig.Devices");
        default "none"; from "heat, compose";
        "Devices of the instance: `host[:container[:rwm]]`, or a map. They count in a privileged container, too.";
        "devices: [\"/dev/null:/dev/zilch:r\"]"
    "device_cgroup_rules" => Kind::Texts, Field("HostConfig.DeviceCgroupRules");
        default "none"; from "compose";
        "Rules for devices, as the kernel has them.";
        "device_cgroup_rules: [\"c 1:3 r\"]"
    "gpus" => Kind::Gpus, Field("HostConfig.DeviceRequests");
        default "none"; from "compose";
        "`all`, or a list of requests. Without a driver for them the engine refuses: Docker says `could not select device driver`.";
        "gpus: all"
    "mem_limit", "memory", "Memory" => Kind::Memory, Field("HostConfig.Memory");
        default "no limit"; from "nova, heat, compose";
        "The memory that the container may use.";
        "mem_limit: 64m"
    "mem_reservation" => Kind::Memory, Field("HostConfig.MemoryReservation");
        default "none"; from "compose";
        "The memory that the container is left when there is little.";
        "mem_reservation: 32m"
    "memswap_limit" => Kind::SizeOrUnlimited, Field("HostConfig.MemorySwap");
        default "twice `mem_limit`"; from "compose";
        "Memory and swap together; -1 is without limit.";
        "mem_limit: 64m\nmemswap_limit: 64m"
    "mem_swappiness" => Kind::Number(0, 100), Field("HostConfig.MemorySwappiness");
        default "the instance's"; from "compose";
        "How readily its memory is swapped out.";
        "mem_swappiness: 10"
    "shm_size" => Kind::Size, Field("HostConfig.ShmSize");
        default "64m"; from "compose";
        "The size of `/dev/shm`.";
        "shm_size: 16m"
    "cpus" => Kind::Cpus, Field("HostConfig.NanoCpus");
        default "no limit"; from "compose";
        "The processors that the container may use.";
        "cpus: 0.5"
    "cpu_shares", "CpuShares" => Kind::Number(0, 262_144), Field("HostConfig.CpuShares");
        default "0, which is 1024"; from "nova, heat, compose";
        "The container's weight when processors are scarce.";
        "cpu_shares: 512"
    "cpuset", "cpu_set", "CpuSet" => Kind::CpuSet, Field("HostConfig.CpusetCpus");
        default "every processor"; from "heat, compose";
        "The processors that the container runs on.";
        "cpuset: \"0\""
    "cpu_period" => Kind::Microseconds, Field("HostConfig.CpuPeriod");
        default "100ms"; from "compose";
        "The period of `cpu_quota`, in microseconds or as a duration.";
        "cpu_period: 50ms\ncpu_quota: 25ms"
    "cpu_quota" => Kind::Microseconds, Field("HostConfig.CpuQuota");
        default "no limit"; from "compose";
        "The time on processors in each period.";
        "cpu_quota: 50000"
    "pids_limit" => Kind::Number(-1, 4_194_304), Field("HostConfig.PidsLimit");
        default "no limit"; from "compose";
        "The number of processes; -1 is without limit.";
        "pids_limit: 100"
    "ulimits" => Kind::Ulimits, Field("HostConfig.Ulimits");
        default "the engine's"; from "compose";
        "Limits of each process: a number, or a map of `soft` and `hard`.";
        "ulimits: {nofile: {soft: 1024, hard: 2048}, core: 0}"
    "sysctls" => Kind::Settings, Field("HostConfig.Sysctls");
        default "none"; from "compose";
        "Settings of the kernel in the container's namespaces.";
        "sysctls: {net.ipv4.ip_forward: 1}"
    "oom_score_adj" => Kind::Number(-1000, 1000), Field("HostConfig.OomScoreAdj");
        default "0"; from "compose";
        "How readily its processes are killed when memory is out.";
        "oom_score_adj: 500"
    "oom_kill_disable" => Kind::Flag, Field("HostConfig.OomKillDisable");
        default "false"; from "compose";
        "Whether the kernel leaves its processes waiting instead, where it still can.";
        "oom_kill_disable: false"
    "storage_opt" => Kind::Settings, Field("HostConfig.StorageOpt");
        default "none"; from "compose";
        "Options of the storage driver. Docker has `size` only where its directory is on XFS that is mounted with `pquota`, and refuses it elsewhere.";
        "storage_opt: {size: 1G}"
    "blkio_config" => Kind::Blkio, Elsewhere("`HostConfig.BlkioWeight` and its siblings");
        default "none"; from "compose";
        "Weights and limits of block devices. A weight that the kernel does not have is left out by Docker.";
        "blkio_config: {weight: 300}"
    "cap_add", "CapAdd" => Kind::Capabilities, Field("HostConfig.CapAdd");
        default "none"; from "heat, compose";
        "Capabilities beyond the engine's default, with or without `CAP_`; `ALL` is all.";
        "cap_add: [NET_ADMIN]"
    "cap_drop", "CapDrop" => Kind::Capabilities, Field("HostConfig.CapDrop");
        default "none"; from "heat, compose";
        "Capabilities that the container does without.";
        "cap_drop: [ALL]"
    "privileged", "Privileged" => Kind::Flag, Field("HostConfig.Privileged");
        default "false"; from "heat, compose, konlet";
        "Whether the container has every privilege on the instance. An engine that does not have them all itself, because it is in a container, refuses.";
        "privileged: true"
    "read_only", "ReadOnly" => Kind::Flag, Field("HostConfig.ReadonlyRootfs");
        default "false"; from "heat, compose";
        "Whether the container's own file system is for reading only.";
        "read_only: true"
    "security_opt" => Kind::Texts, Field("HostConfig.SecurityOpt");
        default "the engine's"; from "compose";
        "Options of the security modules.";
        "security_opt: [\"no-new-privileges:true\"]"
    "userns_mode" => Kind::Words(&["host"]), Field("HostConfig.UsernsMode");
        default "the engine's"; from "compose";
        "`host` switches the engine's user namespace off.";
        "userns_mode: host"
    "group_add" => Kind::Texts, Field("HostConfig.GroupAdd");
        default "none"; from "compose";
        "Further groups of the command, by name or number.";
        "group_add: [\"100\"]"
    "ipc" => Kind::Namespace, Elsewhere("`HostConfig.IpcMode`");
        default "private"; from "compose";
        "host, private, shareable, none, `service:<name>` or `container:<name>`.";
        "ipc: shareable"
    "pid" => Kind::Namespace, Elsewhere("`HostConfig.PidMode`");
        default "private"; from "compose";
        "host, `service:<name>` or `container:<name>`.";
        "pid: host"
    "uts" => Kind::Words(&["host"]), Field("HostConfig.UTSMode");
        default "private"; from "compose";
        "`host` gives the container the instance's host name.";
        "uts: host"
    "cgroup" => Kind::Words(&["host", "private"]), Field("HostConfig.CgroupnsMode");
        default "the engine's"; from "compose";
        "The container's cgroup namespace.";
        "cgroup: private"
    "cgroup_parent" => Kind::Text, Field("HostConfig.CgroupParent");
        default "the engine's"; from "compose";
        "The cgroup that the container's is made in.";
        "cgroup_parent: /heliograph"
    "init" => Kind::Flag, Field("HostConfig.Init");
        default "false"; from "compose";
        "Whether a small init reaps processes in the container.";
        "init: false"
    "runtime" => Kind::Text, Field("HostConfig.Runtime");
        default "the engine's"; from "compose";
        "The engine's runtime.";
        "runtime: runc"
};
