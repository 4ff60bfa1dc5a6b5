use super::*;
use crate::userdata;

fn plan(text: &str) -> Plan {
    Plan::new(&userdata::parse(text).unwrap_or_else(|diagnostic| panic!("{diagnostic}: {text}")))
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
    assert_eq!(plan.outputs, OutputName::DEFAULT);
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
