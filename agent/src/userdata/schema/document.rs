//! The keys beside the services: whom to tell, and what services share.

use crate::userdata::schema::Placement::Elsewhere;
use crate::userdata::schema::{Key, Kind, keys};

/// What every document may say, whatever its form.
pub(crate) static AGENT_KEYS: &[Key] = keys! {
    "signal" => Kind::Signal, Elsewhere("the agent");
        default "the console only"; from "heliograph";
        "The handle that is told the outcome, and when.";
        "signal: {when: running, stable_for: 1s}"
    "outputs" => Kind::Outputs, Elsewhere("the agent");
        default "see below"; from "heat, heliograph";
        "What a SUCCESS carries in its `data`: names of outputs, or a map of names of your own to them. After a dot stands a place in an output, such as `network_info.Networks.bridge.IPAddress`.";
        "outputs: {address: network_ip, all: info, started: info.State.StartedAt}"
    "inputs" => Kind::Inputs, Elsewhere("`${inputs.…}`");
        default "none"; from "heliograph";
        "Values for `${inputs.…}`: a map, or JSON, whose texts may be JSON again, such as the `data` of a wait condition.";
        "inputs: {db: '{\"i-1\": \"{\\\"network_ip\\\": \\\"192.0.2.7\\\"}\"}'}\nenvironment: {DB_HOST: \"${inputs.db.network_ip}\"}"
    "registries" => Kind::Registries, Elsewhere("pulls");
        default "none"; from "heliograph";
        "How to speak to registries, by `host` or `host:port`.";
        "registries: {registry.example: {username: web, password: not really}}"
    "proxy" => Kind::Proxy, Elsewhere("pulls");
        default "the engine's own for its pulls, the environment's for what the agent fetches"; from "heliograph";
        "The proxies by which the agent gets images and archives, and speaks to Glance. An engine cannot be told of a proxy for one pull, so with this key the agent fetches images itself. Signals never go by a proxy.";
        "proxy: {https: \"http://proxy.example:3128\"}"
    "glance" => Kind::Glance, Elsewhere("`image_archive`");
        default "none"; from "nova";
        "How to speak to Glance, for `image_archive`.";
        "image: busybox\nimage_archive: glance:busybox\nglance: {auth_url: \"https://keystone.example/v3\", token: not-really}"
    "ca_certificates" => Kind::Certificates, Elsewhere("the agent's HTTPS");
        default "the system's"; from "heliograph";
        "Certificates of authorities, in PEM, that the agent trusts beside the system's: a text or a list of texts.";
        "ca_certificates: |\n  -----BEGIN CERTIFICATE-----\n  MAA=\n  -----END CERTIFICATE-----"
    "strict" => Kind::Flag, Elsewhere("the agent");
        default "true"; from "heliograph";
        "Whether an unknown key of a service or of the document is an error; if not, it gives a warning.";
        "strict: false"
    "version" => Kind::Text, Elsewhere("nothing");
        default "none"; from "compose";
        "Accepted without effect, because files have it.";
        "version: \"3.8\""
};

/// What a document with `services` has beside those.
pub(crate) static SERVICES_KEYS: &[Key] = keys! {
    "services" => Kind::Services, Elsewhere("a container each");
        default "the keys of one service stand at the top"; from "compose";
        "The services, by name.";
        "services:\n  web: {image: busybox}\n  db: {image: busybox}"
    "networks" => Kind::NetworkDefinitions, Elsewhere("`/networks/create`");
        default "`default`, if a service needs it"; from "compose";
        "The networks of the services, by name.";
        "services:\n  web: {image: busybox, networks: [back]}\nnetworks:\n  back: {internal: true}"
    "volumes" => Kind::VolumeDefinitions, Elsewhere("`/volumes/create`, or a mount of a block device");
        default "none"; from "compose";
        "The named volumes of the services.";
        "services:\n  web: {image: busybox, volumes: [\"data:/data\"]}\nvolumes:\n  data:"
    "secrets" => Kind::FileDefinitions, Elsewhere("the agent");
        default "none"; from "compose";
        "Files that services may ask for, readable by their owner only.";
        "services:\n  web: {image: busybox, secrets: [password]}\nsecrets:\n  password: {content: not really}"
    "configs" => Kind::FileDefinitions, Elsewhere("the agent");
        default "none"; from "compose";
        "Files that services may ask for, readable by everybody in the container.";
        "services:\n  web: {image: busybox, configs: [motd]}\nconfigs:\n  motd: {content: hello}"
    "profiles" => Kind::Texts, Elsewhere("the agent");
        default "none"; from "compose";
        "The profiles that are active.";
        "profiles: [debug]\nservices:\n  web: {image: busybox}\n  debug: {image: busybox, profiles: [debug]}"
    "name" => Kind::Text, Elsewhere("nothing");
        default "none"; from "compose";
        "Accepted without effect: names of containers start with `heliograph`.";
        "name: shop\nservices:\n  web: {image: busybox}"
};
