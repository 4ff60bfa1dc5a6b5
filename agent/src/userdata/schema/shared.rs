//! The tables of what services share and of where images come from, each with documents that show
//! all of its keys.

use crate::userdata::schema::Placement::Elsewhere;
use crate::userdata::schema::{Kind, Table, keys};

/// All of them, in the order of the reference.
pub(crate) static SHARED: &[&Table] =
    &[&NETWORK, &IPAM, &SUBNET, &VOLUME, &FILE_DEFINITION, &ARCHIVE, &REGISTRY, &PROXY, &GLANCE];

pub(crate) static ARCHIVE: Table = Table {
    title: "`image_archive`",
    keys: keys! {
        "path" => Kind::AbsolutePath, Elsewhere(""); default "none"; from "heliograph";
            "A file of the instance, or the directory of an OCI layout; with `volume`, a path on that volume."
        "volume" => Kind::Device, Elsewhere(""); default "none"; from "heliograph";
            "The attached volume that it is on, by `label:`, `serial:` or the device's path."
        "url" => Kind::SignalUrl, Elsewhere(""); default "none"; from "heliograph";
            "An http or https URL; Swift's TempURLs are such."
        "glance" => Kind::Text, Elsewhere(""); default "none"; from "nova";
            "An image of container format `docker`, by id or name."
        "sha256" => Kind::Sha256, Elsewhere(""); default "not checked"; from "heliograph";
            "The digest that the archive must have, in hex."
    },
    examples: &[
        "image_archive: {volume: \"label:images\", path: /busybox.tar}",
        "image_archive: {url: \"https://files.example/busybox.tar\", sha256: 0000000000000000000000000000000000000000000000000000000000000000}",
        "image_archive: {glance: busybox}",
    ],
};

pub(crate) static NETWORK: Table = Table {
    title: "an entry of the document's `networks`",
    keys: keys! {
        "name" => Kind::ContainerName, Elsewhere("`Name`"); default "`heliograph_<key>`"; from "compose";
            "Its name in the engine."
        "external" => Kind::Flag, Elsewhere("the agent"); default "false"; from "compose";
            "Whether it only has to be there."
        "driver" => Kind::Text, Elsewhere("`Driver`"); default "bridge"; from "compose";
            "Its driver."
        "driver_opts" => Kind::Settings, Elsewhere("`Options`"); default "none"; from "compose";
            "Options of the driver."
        "internal" => Kind::Flag, Elsewhere("`Internal`"); default "false"; from "compose";
            "Whether it has no way out."
        "attachable" => Kind::Flag, Elsewhere("`Attachable`"); default "false"; from "compose";
            "For a swarm's networks."
        "enable_ipv6" => Kind::Flag, Elsewhere("`EnableIPv6`"); default "false"; from "compose";
            "Whether it has IPv6 too."
        "ipam" => Kind::Part("a map"), Elsewhere("`IPAM`"); default "chosen by the engine"; from "compose";
            "Its addresses."
        "labels" => Kind::Labels, Elsewhere("`Labels`"); default "none"; from "compose";
            "Labels on it."
    },
    examples: &[
        "services:\n  web: {image: busybox, networks: [front]}\nnetworks:\n  front:\n    name: shop-front\n    driver: bridge\n    driver_opts: {com.docker.network.bridge.name: br-shop}\n    internal: true\n    attachable: false\n    enable_ipv6: false\n    ipam: {config: [{subnet: 198.51.100.0/24}]}\n    labels: {a: b}",
        "services:\n  web: {image: busybox, networks: [front]}\nnetworks:\n  front: {external: true, name: bridge-of-somebody}",
    ],
};

pub(crate) static IPAM: Table = Table {
    title: "`ipam`",
    keys: keys! {
        "driver" => Kind::Text, Elsewhere("`Driver`"); default "default"; from "compose";
            "The driver of addresses."
        "options" => Kind::Settings, Elsewhere("`Options`"); default "none"; from "compose";
            "Its options."
        "config" => Kind::Part("a list of maps"), Elsewhere("`Config`"); default "chosen by the engine"; from "compose";
            "The subnets."
    },
    examples: &[
        "services:\n  web: {image: busybox, networks: [front]}\nnetworks:\n  front: {ipam: {driver: default, options: {a: b}, config: [{subnet: 198.51.100.0/24}]}}",
    ],
};

pub(crate) static SUBNET: Table = Table {
    title: "an entry of `config` in `ipam`",
    keys: keys! {
        "subnet" => Kind::Subnet, Elsewhere("`Subnet`"); default "chosen by the engine"; from "compose";
            "The network's addresses."
        "ip_range" => Kind::Subnet, Elsewhere("`IPRange`"); default "the subnet"; from "compose";
            "What containers get theirs from."
        "gateway" => Kind::Address, Elsewhere("`Gateway`"); default "the first"; from "compose";
            "The instance's own address there."
        "aux_addresses" => Kind::Settings, Elsewhere("`AuxiliaryAddresses`"); default "none"; from "compose";
            "Addresses that are not given to containers."
    },
    examples: &[
        "services:\n  web: {image: busybox, networks: [front]}\nnetworks:\n  front: {ipam: {config: [{subnet: 198.51.100.0/24, ip_range: 198.51.100.128/25, gateway: 198.51.100.1, aux_addresses: {router: 198.51.100.2}}]}}",
    ],
};

pub(crate) static VOLUME: Table = Table {
    title: "an entry of the document's `volumes`",
    keys: keys! {
        "name" => Kind::ContainerName, Elsewhere("`Name`"); default "the key"; from "compose";
            "Its name in the engine."
        "external" => Kind::Flag, Elsewhere("the agent"); default "false"; from "compose";
            "Whether it only has to be there."
        "driver" => Kind::Text, Elsewhere("`Driver`"); default "local"; from "compose";
            "Its driver."
        "driver_opts" => Kind::Settings, Elsewhere("`DriverOpts`"); default "none"; from "compose";
            "Options of the driver."
        "labels" => Kind::Labels, Elsewhere("`Labels`"); default "none"; from "compose";
            "Labels on it."
        "device" => Kind::Device, Elsewhere("a mount, made before the containers start and taken away after they stopped"); default "none"; from "heliograph";
            "The block device that the volume is, by `serial:`, `label:` or its path. Only with `filesystem` and `read_only`."
        "filesystem" => Kind::Words(&["ext4", "xfs"]), Elsewhere("the agent"); default "ext4"; from "heliograph";
            "What the device is formatted with if nothing is on it."
        "read_only" => Kind::Flag, Elsewhere("the agent"); default "false"; from "heliograph";
            "Whether the device is mounted for reading only, and never formatted."
    },
    examples: &[
        "services:\n  web: {image: busybox, volumes: [\"data:/data\"]}\nvolumes:\n  data: {name: shop-data, driver: local, driver_opts: {type: tmpfs, device: tmpfs}, labels: {a: b}}",
        "services:\n  web: {image: busybox, volumes: [\"data:/data\"]}\nvolumes:\n  data: {external: true}",
        "services:\n  web: {image: busybox, volumes: [\"data:/data\"]}\nvolumes:\n  data: {device: \"label:shop\", filesystem: ext4, read_only: false}",
    ],
};

pub(crate) static FILE_DEFINITION: Table = Table {
    title: "an entry of the document's `secrets` or `configs`",
    keys: keys! {
        "content" => Kind::Text, Elsewhere("a file of the agent"); default "none"; from "compose";
            "What is in it."
        "encoding" => Kind::Words(&["text", "base64"]), Elsewhere(""); default "text"; from "heliograph";
            "How `content` is written."
        "file" => Kind::AbsolutePath, Elsewhere("`HostConfig.Mounts`"); default "none"; from "compose";
            "A file of the instance, instead of `content`. It keeps its mode and owner."
        "environment" => Kind::Refused("an instance has no environment to take it from; write `content`"), Elsewhere("nothing"); default "none"; from "compose";
            "Refused."
        "external" => Kind::Refused("only a swarm has such; write `content`"), Elsewhere("nothing"); default "none"; from "compose";
            "Refused."
        "name" => Kind::Text, Elsewhere("nothing"); default "none"; from "compose";
            "Accepted without effect."
    },
    examples: &[
        "services:\n  web: {image: busybox, secrets: [password], configs: [hosts]}\nsecrets:\n  password: {content: bm90IHJlYWxseQ==, encoding: base64, name: pw}\nconfigs:\n  hosts: {file: /etc/hosts}",
    ],
};

pub(crate) static REGISTRY: Table = Table {
    title: "an entry of `registries`",
    keys: keys! {
        "username" => Kind::Text, Elsewhere("`X-Registry-Auth`"); default "none"; from "heliograph";
            "The user. With `password`."
        "password" => Kind::Text, Elsewhere("`X-Registry-Auth`"); default "none"; from "heliograph";
            "The user's password."
        "token" => Kind::Text, Elsewhere("`X-Registry-Auth`"); default "none"; from "heliograph";
            "An identity token, instead of the two."
        "ca" => Kind::Certificates, Elsewhere("the agent"); default "the system's"; from "heliograph";
            "Certificates of authorities for this registry, in PEM."
        "mirror" => Kind::Text, Elsewhere("the agent"); default "none"; from "heliograph";
            "A registry that is asked first, as `host[:port]` or a URL."
        "insecure" => Kind::Flag, Elsewhere("the agent"); default "false"; from "heliograph";
            "Whether plain HTTP and unknown certificates will do."
    },
    examples: &[
        "registries:\n  registry.example:5000:\n    username: web\n    password: not really\n    ca: |\n      -----BEGIN CERTIFICATE-----\n      MAA=\n      -----END CERTIFICATE-----\n    mirror: mirror.example:5000\n    insecure: false\n  other.example: {token: not-really}",
    ],
};

pub(crate) static PROXY: Table = Table {
    title: "`proxy`",
    keys: keys! {
        "http" => Kind::SignalUrl, Elsewhere(""); default "none"; from "heliograph";
            "The proxy for http URLs. It may have a user and a password in it."
        "https" => Kind::SignalUrl, Elsewhere(""); default "none"; from "heliograph";
            "The proxy for https URLs, spoken to by `CONNECT`."
        "no_proxy" => Kind::Texts, Elsewhere(""); default "none"; from "heliograph";
            "Names, domains, addresses and networks that are asked directly, as a list or with commas; `*` is all. Link-local addresses always are."
    },
    examples: &[
        "proxy:\n  http: http://proxy.example:3128\n  https: http://proxy.example:3128\n  no_proxy: [registry.example, .internal.example, 10.0.0.0/8]",
    ],
};

pub(crate) static GLANCE: Table = Table {
    title: "`glance`",
    keys: keys! {
        "auth_url" => Kind::SignalUrl, Elsewhere(""); default "none"; from "nova";
            "Keystone's address, which gives the token and knows where Glance is."
        "endpoint" => Kind::SignalUrl, Elsewhere(""); default "as Keystone says"; from "nova";
            "Glance's address."
        "token" => Kind::Text, Elsewhere(""); default "none"; from "nova";
            "A token."
        "application_credential_id" => Kind::Text, Elsewhere(""); default "none"; from "heliograph";
            "An application credential, instead of the token. With its secret."
        "application_credential_secret" => Kind::Text, Elsewhere(""); default "none"; from "heliograph";
            "Its secret."
        "region" => Kind::Text, Elsewhere(""); default "the first"; from "heliograph";
            "The region of Glance."
    },
    examples: &[
        "image_archive: glance:busybox\nglance:\n  auth_url: https://keystone.example/v3\n  application_credential_id: abc\n  application_credential_secret: not really\n  region: north",
        "image_archive: glance:busybox\nglance: {endpoint: \"https://glance.example\", token: not-really}",
    ],
};
