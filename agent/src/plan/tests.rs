use super::*;
use crate::userdata;

fn plan(text: &str) -> Plan {
    Plan::new(
        &userdata::parse(text).unwrap_or_else(|diagnostic| panic!("{diagnostic}: {text}")),
        std::path::Path::new("/state"),
    )
}

/// The body of the one container, without what every body has.
fn create(text: &str) -> serde_json::Value {
    let mut create = plan(text).containers.remove(0).create;
    let body = create.as_object_mut().unwrap();
    body.remove("Image");
    let labels = body["Labels"].as_object_mut().unwrap();
    labels.retain(|name, _| !name.starts_with("io.heliograph."));
    if labels.is_empty() {
        body.remove("Labels");
    }
    let host = body["HostConfig"].as_object_mut().unwrap();
    host.remove("LogConfig");
    if host["RestartPolicy"]["Name"] == "unless-stopped" {
        host.remove("RestartPolicy");
    }
    if host.is_empty() {
        body.remove("HostConfig");
    }
    create
}

fn check(keys: &str, expected: &serde_json::Value) {
    assert_eq!(create(&format!("image: centos\n{keys}")), *expected, "{keys}");
}

#[test]
fn commands() {
    let shell = json!({"Cmd": ["/bin/sh", "-c", "while true; do date ; sleep 1; done"]});
    check("cmd: while true; do date ; sleep 1; done", &shell);
    check("cmd: \"while true; do date ; sleep 1; done\"", &shell);
    check("Cmd: |-\n  while true; do date ; sleep 1; done", &shell);
    check("cmd: [date, -u, '']", &json!({"Cmd": ["date", "-u", ""]}));
    check("cmd: 42", &json!({"Cmd": ["/bin/sh", "-c", "42"]}));
    check("command: date -u '+%H %M' $HOME", &json!({"Cmd": ["date", "-u", "+%H %M", "$HOME"]}));
    check("command: [sleep, 1.50]", &json!({"Cmd": ["sleep", "1.50"]}));
    check("command:", &json!({}));
    check("entrypoint: /bin/x -y", &json!({"Entrypoint": ["/bin/x", "-y"]}));
}

#[test]
fn plain_fields() {
    check(
        "environment: {A: 1, B: 'x y', C: \"\", D: true}",
        &json!({"Env": ["A=1", "B=x y", "C=", "D=true"]}),
    );
    check("env: [A=1, 'B=x=y', C=]", &json!({"Env": ["A=1", "B=x=y", "C="]}));
    check("hostname: web-1.example", &json!({"Hostname": "web-1.example"}));
    check("user: 1000:1000", &json!({"User": "1000:1000"}));
    check("workdir: /srv", &json!({"WorkingDir": "/srv"}));
    check("tty: true", &json!({"Tty": true}));
    check("labels: {a: 1, b: }", &json!({"Labels": {"a": "1", "b": ""}}));
    check("labels: [a=1, b]", &json!({"Labels": {"a": "1", "b": ""}}));
    check("privileged: true", &json!({"HostConfig": {"Privileged": true}}));
    check("mem_limit: 512m", &json!({"HostConfig": {"Memory": 536_870_912}}));
    check("memory: 536870912", &json!({"HostConfig": {"Memory": 536_870_912}}));
    check("cpus: 0.1", &json!({"HostConfig": {"NanoCpus": 100_000_000}}));
    let on_failure =
        json!({"HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}});
    check("restart: on-failure:3", &on_failure);
    check("restart_policy: {Name: on-failure, MaximumRetryCount: 3}", &on_failure);
    check(
        "restart: no",
        &json!({"HostConfig": {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}}),
    );
    check(
        "healthcheck: {test: curl -f x, interval: 1m30s, timeout: 500ms, retries: 2, start_period: 0s}",
        &json!({"Healthcheck": {
            "Test": ["CMD-SHELL", "curl -f x"], "Interval": 90_000_000_000_u64,
            "Timeout": 500_000_000, "Retries": 2, "StartPeriod": 0,
        }}),
    );
    check("healthcheck: {disable: true}", &json!({"Healthcheck": {"Test": ["NONE"]}}));
}

#[test]
fn ports_and_volumes() {
    check(
        "ports: ['8080:80', '127.0.0.1:53:53/udp', 81, '[::1]:8081:80']",
        &json!({
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "81/tcp": {}},
            "HostConfig": {"PortBindings": {
                "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "::1", "HostPort": "8081"}],
                "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
                "81/tcp": [{"HostIp": "", "HostPort": ""}],
            }},
        }),
    );
    check("ports: []", &json!({}));
    check(
        "volumes: ['/a:/b:ro,z', 'data:/c', /d, {type: tmpfs, target: /e}]",
        &json!({
            "Volumes": {"/d": {}},
            "HostConfig": {"Binds": ["/a:/b:ro,z", "data:/c"], "Tmpfs": {"/e": ""}},
        }),
    );
}

#[test]
fn what_every_container_has() {
    let plan = plan("image: centos:7\n");
    let container = &plan.containers[0];
    assert_eq!(
        (container.service.as_str(), container.name.as_str()),
        ("main", "heliograph-main-1")
    );
    assert_eq!(container.pull, PullPolicy::Missing);
    let expected = json!({
        "Image": "centos:7",
        "Labels": {
            "io.heliograph.agent": "1",
            "io.heliograph.document": plan.document_hash,
            "io.heliograph.service": "main",
        },
        "HostConfig": {
            "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        },
    });
    assert_eq!(container.create, expected);
    assert_eq!(plan.document_hash.len(), HASH_HEX_DIGITS);
    assert_eq!(plan.outputs, OutputName::DEFAULT.map(Output::from));
}

#[test]
fn the_watch_is_resolved() {
    let cases = [
        ("", When::Running, "unless-stopped"),
        ("healthcheck: {test: x}", When::Healthy, "unless-stopped"),
        ("healthcheck: {disable: true}", When::Running, "unless-stopped"),
        ("healthcheck: {test: x}\nsignal: {when: running}", When::Running, "unless-stopped"),
        ("signal: {when: exit}", When::Exit, "no"),
        ("signal: {when: exit}\nrestart: on-failure", When::Exit, "on-failure"),
        ("signal: {when: healthy}", When::Healthy, "unless-stopped"),
    ];
    for (keys, when, restart) in cases {
        let plan = plan(&format!("image: a\n{keys}"));
        assert_eq!(plan.watch.when, when, "{keys}");
        let policy = &plan.containers[0].create["HostConfig"]["RestartPolicy"]["Name"];
        assert_eq!(policy, restart, "{keys}");
    }
    let watch = plan("image: a\nsignal: {timeout: 2m, stable_for: 1s}").watch;
    assert_eq!((watch.timeout.as_secs(), watch.stable_for.as_secs()), (120, 1));
}

#[test]
fn the_hash_is_of_the_meaning() {
    let base = "image: a\ncmd: x\nenvironment: {A: 1}\nsignal: http://h/1\n";
    let same = [
        "#docker\n# comment\ncmd: 'x'\nimage: \"a\"\nenv: [A=1]\nsignal: {url: 'http://h/1'}\n",
        "image: a\ncmd: [/bin/sh, -c, x]\nenvironment: {A: '1'}\nsignal: {handle: http://h/1, timeout: 1h}\n",
    ];
    for text in same {
        assert_eq!(plan(text).document_hash, plan(base).document_hash, "{text}");
    }
    let others = [
        base.replace("image: a", "image: b"),
        base.replace("A: 1", "A: 2"),
        base.replace("h/1", "h/2"),
        base.replace("cmd", "user"),
        format!("{base}outputs: []\n"),
    ];
    for text in others {
        assert_ne!(plan(&text).document_hash, plan(base).document_hash, "{text}");
    }
}

#[test]
fn the_printed_plan_has_no_handle() {
    let plan = plan("image: a\nsignal: http://h/x?temp_url_sig=secret\n");
    let printed = plan.to_json().to_string();
    assert!(!printed.contains("secret"), "{printed}");
    assert!(!format!("{plan:?}").contains("secret"));
    assert_eq!(plan.to_json()["watch"]["when"], "running");
}

#[test]
fn fields_of_the_host() {
    let host =
        |keys: &str, expected: serde_json::Value| check(keys, &json!({ "HostConfig": expected }));
    host("dns: 192.0.2.1", json!({"Dns": ["192.0.2.1"]}));
    host("extra_hosts: ['a:192.0.2.1', 'b=::1']", json!({"ExtraHosts": ["a:192.0.2.1", "b:::1"]}));
    host("extra_hosts: {a: host-gateway}", json!({"ExtraHosts": ["a:host-gateway"]}));
    host("memswap_limit: -1", json!({"MemorySwap": -1}));
    host("cpu_period: 50ms", json!({"CpuPeriod": 50_000}));
    host("cpu_quota: 25000", json!({"CpuQuota": 25_000}));
    host("cap_add: [CAP_NET_ADMIN, all]", json!({"CapAdd": ["NET_ADMIN", "ALL"]}));
    host("cap_drop: [mknod]", json!({"CapDrop": ["MKNOD"]}));
    host("ulimits: {core: -1}", json!({"Ulimits": [{"Name": "core", "Soft": -1, "Hard": -1}]}));
    host("sysctls: [a=1, b]", json!({"Sysctls": {"a": "1", "b": ""}}));
    host("pid: host", json!({"PidMode": "host"}));
    host("network_mode: 'container:x'", json!({"NetworkMode": "container:x"}));
    host(
        "tmpfs: '/run:size=1m'\nvolumes: [{type: tmpfs, target: /tmp}]",
        json!({"Tmpfs": {"/run": "size=1m", "/tmp": ""}}),
    );
    host(
        "devices: ['/dev/a', '/dev/b:rw', '/dev/c:/dev/d:r']",
        json!({"Devices": [
            {"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "rwm"},
            {"PathOnHost": "/dev/b", "PathInContainer": "/dev/b", "CgroupPermissions": "rw"},
            {"PathOnHost": "/dev/c", "PathInContainer": "/dev/d", "CgroupPermissions": "r"},
        ]}),
    );
    host("gpus: all", json!({"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}));
    host(
        "deploy: {resources: {limits: {cpus: '0.5', memory: 64m, pids: 9}, reservations: {memory: 32m}}}",
        json!({"NanoCpus": 500_000_000, "Memory": 64 << 20, "PidsLimit": 9, "MemoryReservation": 32 << 20}),
    );
    host("links: {db: database}", json!({"Links": ["db:database"]}));
    host("volumes_from: ['a:ro', 'container:b']", json!({"VolumesFrom": ["a:ro", "b"]}));
    check(
        "port_bindings: {80/tcp: 8080, 53/udp: [{HostIp: 127.0.0.1, HostPort: 5353}]}",
        &json!({
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "HostConfig": {"PortBindings": {
                "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
                "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
            }},
        }),
    );
    check(
        "PortSpecs: ['80', '8080:81']",
        &json!({
            "ExposedPorts": {"80/tcp": {}, "81/tcp": {}},
            "HostConfig": {"PortBindings": {"81/tcp": [{"HostIp": "", "HostPort": "8080"}]}},
        }),
    );
    check(
        "stop_grace_period: 1500ms\nstop_signal: SIGINT",
        &json!({"StopTimeout": 2, "StopSignal": "SIGINT"}),
    );
    check(
        "files: [{path: /e, content: \"# c\\nA=1\\nB='x y'\\n\"}]\nenv_file: /e\nenvironment: {A: 2}",
        &json!({
            "Env": ["B=x y", "A=2"],
            "HostConfig": {"Mounts": [
                {"Type": "bind", "Source": "/state/files/main/file-0", "Target": "/e", "ReadOnly": true},
            ]},
        }),
    );
}

const SHOP: &str = "
services:
  web:
    image: web
    depends_on: {db: {condition: service_healthy}, init: {condition: service_completed_successfully}}
    networks: {back: , front: {priority: 5, aliases: [www]}}
    secrets: [password]
    volumes: ['data:/data:ro', 'cache:/cache', 'plain:/plain']
  db: {image: db, healthcheck: {test: x}, scale: 2, links: ['init:first']}
  init: {image: init, volumes: ['disk:/disk']}
networks:
  front: {external: true, name: outside}
  back: {internal: true}
volumes:
  data: {name: shop-data}
  cache: {external: true}
  plain:
  disk: {device: 'serial:abc', filesystem: xfs}
secrets:
  password: {content: s3cret}
";

#[test]
fn services_share_networks_volumes_and_files() {
    let plan = plan(SHOP);
    let order: Vec<&str> = plan.containers.iter().map(|one| one.service.as_str()).collect();
    assert_eq!(order, ["init", "db", "db-2", "web"]);
    let names: Vec<&str> = plan.containers.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names[1..3], ["heliograph-db-1", "heliograph-db-2"]);
    let whens: Vec<When> = plan.containers.iter().map(|one| one.when).collect();
    assert_eq!(whens, [When::Exit, When::Healthy, When::Healthy, When::Running]);
    let web = &plan.containers[3];
    let waits: Vec<(&str, Condition)> =
        web.depends_on.iter().map(|other| (other.service.as_str(), other.condition)).collect();
    let expected = [
        ("db", Condition::Healthy),
        ("db-2", Condition::Healthy),
        ("init", Condition::CompletedSuccessfully),
    ];
    assert_eq!(waits, expected);

    let networks: Vec<(&str, bool)> =
        plan.networks.iter().map(|network| (network.name.as_str(), network.external)).collect();
    let expected = [("outside", true), ("heliograph_back", false), ("heliograph_default", false)];
    assert_eq!(networks, expected);
    assert_eq!(
        plan.networks[1].create,
        json!({"Name": "heliograph_back", "Driver": "bridge", "Internal": true})
    );
    assert_eq!(web.create["HostConfig"]["NetworkMode"], "outside");
    assert_eq!(
        web.create["NetworkingConfig"]["EndpointsConfig"],
        json!({"outside": {"Aliases": ["web", "www"]}})
    );
    let attachment =
        Attachment { network: "heliograph_back".to_owned(), endpoint: json!({"Aliases": ["web"]}) };
    assert_eq!(web.attachments, [attachment]);
    let endpoint =
        &plan.containers[2].create["NetworkingConfig"]["EndpointsConfig"]["heliograph_default"];
    assert_eq!(*endpoint, json!({"Aliases": ["db"], "Links": ["heliograph-init-1:first"]}));
    assert_eq!(plan.containers[0].create["HostConfig"]["RestartPolicy"]["Name"], "no");

    let binds = json!(["shop-data:/data:ro", "cache:/cache", "plain:/plain"]);
    assert_eq!(web.create["HostConfig"]["Binds"], binds);
    let volumes: Vec<(&str, bool)> =
        plan.volumes.iter().map(|volume| (volume.name.as_str(), volume.external)).collect();
    assert_eq!(volumes, [("shop-data", false), ("cache", true)]);
    let device = &plan.devices[0];
    assert_eq!(
        (device.volume.as_str(), &device.selector),
        ("disk", &DeviceSelector::Serial("abc".to_owned()))
    );
    assert_eq!(device.filesystem.as_deref(), Some("xfs"));
    let mount = json!([{"Type": "bind", "Source": "/state/volumes/disk", "Target": "/disk", "ReadOnly": false}]);
    assert_eq!(plan.containers[0].create["HostConfig"]["Mounts"], mount);
    let file = &plan.files[0];
    assert_eq!(
        (file.path.to_str(), file.content.bytes()),
        (Some("/state/files/web/secrets-0"), &b"s3cret"[..])
    );
    assert_eq!((file.mode, file.uid), (0o400, 0));
    let printed = plan.to_json().to_string();
    assert!(!printed.contains("s3cret") && !format!("{plan:?}").contains("s3cret"), "{printed}");
}

#[test]
fn environment_values_are_hidden_on_request() {
    let plan = plan("image: a\nenvironment: {PASSWORD: s3cret}\n");
    assert!(plan.to_json().to_string().contains("PASSWORD=s3cret"));
    assert!(!plan.to_redacted_json().to_string().contains("s3cret"));
}
