//! The keys of a service: its process, what it is given, and how long it lives.

use crate::userdata::schema::Placement::{Elsewhere, Field};
use crate::userdata::schema::{Key, Kind, keys};

pub(crate) static SERVICE_KEYS: &[Key] = keys! {
    "image", "Image" => Kind::Image, Field("Image");
        default "required"; from "2013, heat, compose";
        "The image that the container is made from. It may be left out only if the agent has a `default_image`.";
        "image: busybox\ncmd: date"
    "image_archive" => Kind::Archive, Elsewhere("`/images/load` before the container is made");
        default "the registry is asked"; from "nova";
        "Where the image comes from instead of a registry: an absolute path, `oci:` and a directory, `volume:` and a file system's label (or `volume:serial:` and a serial) and a path on it, an http or https URL, or `glance:` and an id or name. `image` says what the loaded image is called.";
        "image: busybox\nimage_archive: /srv/images/busybox.tar"
    "cmd", "Cmd" => Kind::ShellCommand, Field("Cmd");
        default "the image's"; from "2013, heat";
        "The command, through `/bin/sh -c` if it is a string. Not together with `command`.";
        "cmd: \"while true; do date; sleep 1; done\""
    "command" => Kind::SplitCommand, Field("Cmd");
        default "the image's"; from "compose";
        "The command as Compose has it: a string is split into words, and no shell reads it.";
        "command: sleep 1000"
    "entrypoint", "Entrypoint" => Kind::SplitCommand, Field("Entrypoint");
        default "the image's"; from "compose";
        "The program that receives the command as its arguments.";
        "entrypoint: [/bin/sh, -c]\ncommand: [\"sleep 1000\"]"
    "environment", "env", "Env" => Kind::Environment, Field("Env");
        default "none"; from "heat, compose";
        "Environment variables. One without a value has the input of its name, else the instance's metadata of its name; an empty value is written `\"\"`.";
        "environment: {GREETING: \"hello: world\", WORKERS: 4, REGION: }\ninputs: {REGION: north}"
    "env_file" => Kind::EnvFile, Field("Env");
        default "none"; from "compose, docker-cmd";
        "Entries of `files`, by their path, whose lines of `NAME=value` are environment variables. `environment` wins.";
        "files: [{path: /etc/app.env, content: \"A=1\"}]\nenv_file: [/etc/app.env]"
    "container_name", "name", "Name" => Kind::ContainerName, Elsewhere("the `name` parameter");
        default "`heliograph-<service>-1`"; from "heat, compose";
        "The container's name.";
        "container_name: web"
    "hostname", "Hostname" => Kind::Hostname, Field("Hostname");
        default "the container's id"; from "heat, compose";
        "The host name inside the container.";
        "hostname: web-1.example"
    "domainname", "Domainname" => Kind::Hostname, Field("Domainname");
        default "none"; from "compose";
        "The domain name inside the container.";
        "domainname: example.org"
    "user", "User" => Kind::Text, Field("User");
        default "the image's"; from "heat, compose";
        "The user, and with a colon the group, that the command runs as.";
        "user: \"1000:1000\""
    "working_dir", "workdir", "working_directory", "WorkingDir" => Kind::AbsolutePath, Field("WorkingDir");
        default "the image's"; from "nova, compose";
        "The directory that the command starts in.";
        "working_dir: /tmp"
    "tty", "Tty" => Kind::Flag, Field("Tty");
        default "false"; from "heat, compose";
        "Whether the command has a terminal.";
        "tty: true"
    "stdin_open", "open_stdin", "OpenStdin", "stdin" => Kind::Flag, Field("OpenStdin");
        default "false"; from "heat, compose, konlet";
        "Whether the command's standard input stays open.";
        "stdin_open: true"
    "stdin_once", "StdinOnce" => Kind::Flag, Field("StdinOnce");
        default "false"; from "heat";
        "Whether standard input is closed when the first client that is attached to it goes.";
        "stdin_open: true\nstdin_once: true"
    "attach_stdin", "AttachStdin" => Kind::Ignored("nobody is attached to a container of an instance"), Elsewhere("nothing");
        default "false"; from "heat of 2013";
        "Accepted without effect, with a warning.";
        "attach_stdin: false"
    "attach_stdout", "AttachStdout" => Kind::Ignored("the output always goes to the log"), Elsewhere("nothing");
        default "true"; from "heat of 2013";
        "Accepted without effect, with a warning.";
        "attach_stdout: true"
    "attach_stderr", "AttachStderr" => Kind::Ignored("the output always goes to the log"), Elsewhere("nothing");
        default "true"; from "heat of 2013";
        "Accepted without effect, with a warning.";
        "attach_stderr: true"
    "docker_endpoint", "DockerEndpoint" => Kind::Ignored("the engine is the instance's own; the agent's configuration names its socket"), Elsewhere("nothing");
        default "the instance's engine"; from "heat";
        "Accepted without effect, with a warning.";
        "docker_endpoint: tcp://192.0.2.1:2375"
    "restart", "restart_policy", "RestartPolicy" => Kind::Restart, Field("HostConfig.RestartPolicy");
        default "unless-stopped, or no if its exit is waited for"; from "heat, compose, konlet";
        "What the engine does when the command ends. Also the map `{Name, MaximumRetryCount}`.";
        "restart: on-failure:3"
    "stop_signal" => Kind::Text, Field("StopSignal");
        default "the image's, or SIGTERM"; from "compose";
        "The signal that asks the command to end.";
        "stop_signal: SIGINT"
    "stop_grace_period" => Kind::Grace, Elsewhere("`StopTimeout`, in seconds");
        default "10s"; from "compose";
        "How long the command has to end before it is killed.";
        "stop_grace_period: 30s"
    "healthcheck" => Kind::Healthcheck, Field("Healthcheck");
        default "the image's"; from "compose";
        "How the engine finds out whether the container works. It drives the signal.";
        "healthcheck: {test: \"true\", interval: 1s}"
    "exit_codes" => Kind::ExitCodes, Elsewhere("the agent");
        default "[0]"; from "docker-cmd";
        "The codes that count as success when the exit is waited for.";
        "cmd: exit 3\nexit_codes: [0, 3]\nsignal: {when: exit}"
    "labels", "Labels" => Kind::Labels, Field("Labels");
        default "none"; from "compose";
        "Labels on the container. Names that start with `io.heliograph.` are the agent's.";
        "labels: {com.example.team: web}"
    "annotations" => Kind::Ignored("the engine's API 1.41 has no annotations; write `labels`"), Elsewhere("nothing");
        default "none"; from "compose";
        "Accepted without effect, with a warning.";
        "annotations: {com.example.team: web}"
    "logging" => Kind::Logging, Field("HostConfig.LogConfig");
        default "json-file, max-size 10m, max-file 3"; from "compose";
        "The engine's log driver. Outputs, reasons and the console need one whose log can be read back.";
        "logging: {driver: json-file, options: {max-size: 1m}}"
    "pull_policy", "image_pull_policy" => Kind::Pull, Elsewhere("whether the image is pulled");
        default "missing"; from "compose";
        "When the image is pulled: always, missing (also if_not_present) or never. `latest` is no exception: `missing` pulls it once. `daily`, `weekly` and `every_…` are read as `missing`, with a warning.";
        "pull_policy: never"
    "platform" => Kind::Platform, Elsewhere("the `platform` parameter");
        default "the engine's"; from "compose";
        "The operating system and architecture of the image.";
        "platform: linux/amd64"
    "files" => Kind::Files, Elsewhere("`HostConfig.Mounts`");
        default "none"; from "heliograph";
        "Files that the agent writes and the container sees at their path, for reading only.";
        "files: [{path: /etc/motd, content: \"hello\\n\"}]"
    "secrets" => Kind::Secrets, Elsewhere("`HostConfig.Mounts`");
        default "none"; from "compose";
        "Entries of the document's `secrets` that the container sees below `/run/secrets`, mode 0400.";
        "services:\n  web: {image: busybox, secrets: [password]}\nsecrets:\n  password: {content: not really}"
    "configs" => Kind::Configs, Elsewhere("`HostConfig.Mounts`");
        default "none"; from "compose";
        "Entries of the document's `configs` that the container sees, mode 0444.";
        "services:\n  web: {image: busybox, configs: [{source: site, target: /etc/site.conf}]}\nconfigs:\n  site: {content: \"listen 80\"}"
    "depends_on" => Kind::DependsOn, Elsewhere("the order of starts");
        default "the order of the document"; from "compose";
        "Services that start before: a list, or a map with a `condition` for each.";
        "services:\n  web: {image: busybox, depends_on: [db]}\n  db: {image: busybox}"
    "profiles" => Kind::Profiles, Elsewhere("the agent");
        default "always active"; from "compose";
        "The service is left out unless the document's `profiles` names one of these. Only below `services`.";
        "services:\n  web: {image: busybox}\n  debug: {image: busybox, profiles: [debug]}"
    "scale" => Kind::Scale, Elsewhere("the number of containers");
        default "1"; from "compose";
        "How many containers the service has, up to 32. More than one excludes `container_name` and fixed ports of the instance.";
        "services:\n  worker: {image: busybox, scale: 2}"
    "deploy" => Kind::Deploy, Elsewhere("`HostConfig.Memory`, `NanoCpus`, `PidsLimit`, `MemoryReservation` and `RestartPolicy`");
        default "none"; from "compose";
        "`resources`, `restart_policy` and `replicas`; what only a swarm has is ignored with a warning.";
        "deploy: {resources: {limits: {cpus: \"0.5\", memory: 64m, pids: 100}}}"
    "metadata_access" => Kind::Flag, Elsewhere("the instance's firewall");
        default "false"; from "heliograph";
        "Whether the container may reach the metadata address.";
        "metadata_access: true"
};
