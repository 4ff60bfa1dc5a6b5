use std::path::Path;

use super::*;
use crate::plan::Plan;
use crate::userdata;

fn plan(text: &str) -> serde_json::Value {
    let document =
        userdata::load(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut plan = Plan::new(&document, Path::new("/state")).to_json();
    plan["document_hash"] = "".into();
    for container in plan["containers"].as_array_mut().unwrap() {
        container["create"]["Labels"]["io.heliograph.document"] = "".into();
    }
    plan
}

/// The converted document is what is expected, and means what the original means where that can be
/// run as it is.
fn check(origin: Origin, header: Option<&str>, original: &str, same_as: &str) {
    let converted = convert(origin, original).unwrap_or_else(|error| panic!("{error}\n{original}"));
    assert!(converted.text.starts_with("#docker\n"), "{}", converted.text);
    let converted = plan(&converted.text);
    assert_eq!(converted, plan(same_as), "{original}");
    if let Some(header) = header {
        assert_eq!(converted, plan(&format!("{header}\n{original}")), "{original}");
    }
}

#[test]
fn konlet_declarations() {
    let original = "spec:
  containers:
    - name: web
      image: gcr.io/project/web:1
      command: [/bin/web]
      args: [--port, '80', '${HOME}']
      env: [{name: A, value: '1'}, {name: EMPTY}]
      stdin: false
      tty: true
      securityContext: {privileged: true}
      volumeMounts:
        - {name: host, mountPath: /host, readOnly: true}
        - {name: memory, mountPath: /memory}
        - {name: disk, mountPath: /disk}
  volumes:
    - {name: host, hostPath: {path: /srv}}
    - {name: memory, emptyDir: {medium: Memory}}
    - {name: disk, gcePersistentDisk: {pdName: data-1, fsType: ext4}}
  restartPolicy: OnFailure
";
    let same = "#docker
container_name: web
image: gcr.io/project/web:1
network_mode: host
restart: on-failure
entrypoint: [/bin/web]
command: [--port, '80', '$${HOME}']
environment: {A: '1', EMPTY: ''}
stdin_open: false
tty: true
privileged: true
volumes:
  - {type: bind, source: /srv, target: /host, read_only: true}
  - {type: tmpfs, target: /memory}
  - {type: volume, source: disk, target: /disk, device: 'label:data-1'}
";
    check(Origin::Konlet, Some("#docker"), original, same);
    let several = "spec: {containers: [{name: aa, image: x}, {name: bb, image: y}]}";
    let same = "#docker
services:
  aa: {network_mode: host, restart: always, container_name: aa, image: x}
  bb: {network_mode: host, restart: always, container_name: bb, image: y}
";
    check(Origin::Konlet, Some("#docker"), several, same);
    for (text, code) in [
        ("image: a", "missing_key"),
        ("spec: {containers: [{image: a, resources: {}}]}", "refused_key"),
        (
            "spec: {containers: [{image: a, volumeMounts: [{name: x, mountPath: /x}]}]}",
            "unknown_name",
        ),
        ("spec: {containers: [{image: a}], restartPolicy: Sometimes}", "bad_word"),
        ("spec: {containers: []}", "bad_services"),
    ] {
        assert_eq!(convert(Origin::Konlet, text).unwrap_err().code, code, "{text}");
    }
}

#[test]
fn docker_cmd_documents() {
    let original = "db:
  image: mariadb
  net: host
  environment: [A=1]
  start_order: 2
web:
  image: nginx
  command: run --fast
  net: container:db
  privileged: false
  start_order: 3
init:
  image: busybox
  command: [echo, '${X}']
  exit_codes: [0, 2]
  start_order: 1
";
    let same = "#docker
services:
  init: {image: busybox, command: [echo, '$${X}'], exit_codes: [0, 2], network_mode: bridge, restart: no}
  db: {image: mariadb, network_mode: host, environment: [A=1], depends_on: [init], restart: no}
  web: {image: nginx, command: run --fast, network_mode: 'service:db', privileged: false, depends_on: [db], restart: no}
";
    check(Origin::Heat, None, &format!("#docker-cmd\n{original}"), same);
    assert_eq!(plan(&format!("#docker-cmd\n{original}")), plan(same));
    let refused = "#docker-cmd\na: {action: exec, image: b}\n";
    assert_eq!(convert(Origin::Heat, refused).unwrap_err().code, "refused_key");
}

#[test]
fn heat_templates() {
    let original = "heat_template_version: 2015-04-30
resources:
  network: {type: OS::Neutron::Net}
  web:
    type: DockerInc::Docker::Container
    properties:
      docker_endpoint: tcp://h:2375
      image: nginx
      port_bindings: {80/tcp: 8080}
      links: {db: database}
      env: [A=1]
      cmd: [nginx, -g, 'daemon off;']
      restart_policy: {Name: always, MaximumRetryCount: 0}
  db:
    type: OS::Heat::Docker
    properties: {Image: mysql, PortSpecs: ['3306'], Memory: 67108864}
";
    let same = "#docker
services:
  web: {image: nginx, port_bindings: {80/tcp: 8080}, links: ['db:database'], environment: {A: 1}, cmd: [nginx, -g, daemon off;], restart: always}
  db: {image: mysql, expose: ['3306'], mem_limit: 64m, restart: no}
";
    check(Origin::Heat, None, original, same);
    let converted = convert(Origin::Heat, original).unwrap();
    assert_eq!(converted.warnings[0].code, "left_out");
    let computed =
        "resources: {a: {type: OS::Heat::Docker, properties: {image: {get_param: image}}}}";
    let error = convert(Origin::Heat, computed).unwrap_err();
    assert_eq!((error.code, error.line), ("template_function", 1));
    assert_eq!(convert(Origin::Heat, "resources: {}").unwrap_err().code, "no_container");
}

#[test]
fn compose_files() {
    let original = "version: '3.8'
name: shop
x-common: {a: 1}
services:
  web:
    build: .
    image: shop/web
    ports: ['80:80']
    depends_on: {db: {condition: service_healthy}}
    environment: {HOST: \"${DB_HOST:-db}\", COST: $$5}
  db:
    image: postgres
    healthcheck: {test: [CMD-SHELL, pg_isready]}
    volumes: ['data:/var/lib/postgresql']
volumes:
  data:
";
    let same = original.replace("    build: .\n", "");
    check(Origin::Compose, None, original, &format!("#docker\n{same}"));
    let built = "services: {web: {build: .}}";
    assert_eq!(convert(Origin::Compose, built).unwrap_err().code, "refused_key");
}

/// Documents of others, put together at random: what `convert` writes is planned as the original is.
mod arbitrary {
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
    use serde_json::{Value, json};

    use super::*;

    /// Whatever a text may have in it, also what means something in our form.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{1,12}",
            Just("${HOME} $$ $(date)".to_owned()),
            Just("null".to_owned()),
            Just("1.10".to_owned()),
            Just("a: b # c".to_owned()),
        ]
    }

    fn words() -> impl Strategy<Value = Value> {
        proptest::collection::vec(text(), 1..4).prop_map(|words| json!(words))
    }

    /// Some of these fields, each as it comes.
    fn some_of(fields: Vec<(&'static str, Value)>) -> impl Strategy<Value = Value> {
        let n_fields = fields.len();
        proptest::sample::subsequence(fields, 0..=n_fields).prop_map(|fields| {
            let mut map = serde_json::Map::new();
            map.insert("image".to_owned(), "busybox".into());
            map.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
            Value::Object(map)
        })
    }

    fn container_of_konlet() -> impl Strategy<Value = Value> {
        (words(), words(), text(), any::<bool>()).prop_flat_map(|(command, args, value, flag)| {
            some_of(vec![
                ("command", command),
                ("args", args),
                ("env", json!([{"name": "A", "value": value}, {"name": "EMPTY"}])),
                ("stdin", json!(flag)),
                ("tty", json!(!flag)),
                ("workingDir", json!("/tmp")),
                ("imagePullPolicy", json!("Always")),
                ("securityContext", json!({ "privileged": flag })),
                (
                    "volumeMounts",
                    json!([
                        {"name": "host", "mountPath": "/host", "readOnly": flag},
                        {"name": "memory", "mountPath": "/memory"},
                        {"name": "disk", "mountPath": "/disk"},
                    ]),
                ),
            ])
        })
    }

    fn konlet() -> impl Strategy<Value = String> {
        let restart = prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")];
        let containers = proptest::collection::vec(container_of_konlet(), 1..4);
        (containers, restart).prop_map(|(mut containers, restart)| {
            for (index, container) in containers.iter_mut().enumerate() {
                container["name"] = format!("container-{index}").into();
            }
            json!({"spec": {
                "containers": containers,
                "restartPolicy": restart,
                "volumes": [
                    {"name": "host", "hostPath": {"path": "/srv"}},
                    {"name": "memory", "emptyDir": {"medium": "Memory"}},
                    {"name": "disk", "gcePersistentDisk": {"pdName": "data-1", "fsType": "ext4"}},
                ],
            }})
            .to_string()
        })
    }

    fn docker_cmd() -> impl Strategy<Value = String> {
        let container = (words(), text(), any::<bool>(), 0..4).prop_flat_map(
            |(command, value, flag, order)| {
                some_of(vec![
                    ("command", command),
                    ("environment", json!([format!("A={value}")])),
                    ("privileged", json!(flag)),
                    ("start_order", json!(order)),
                    ("exit_codes", json!([0, order])),
                    ("net", json!("host")),
                    ("user", json!("1000")),
                    ("labels", json!({ "a": value })),
                    ("cap_add", json!(["NET_ADMIN"])),
                    ("mem_limit", json!("64m")),
                    ("restart", json!("always")),
                    ("detach", json!(flag)),
                ])
            },
        );
        proptest::collection::vec(container, 1..4).prop_map(|containers| {
            let named = containers.into_iter().enumerate();
            let named = named.map(|(index, one)| (format!("c{index}"), one));
            format!("#docker-cmd\n{}", Value::Object(named.collect()))
        })
    }

    /// A template, and the same as services: properties are keys, `$` is `$$`, nothing is restarted.
    fn template() -> impl Strategy<Value = (String, String)> {
        let properties = (words(), text(), any::<bool>(), any::<u16>()).prop_flat_map(
            |(cmd, value, flag, n)| {
                some_of(vec![
                    ("cmd", cmd),
                    ("env", json!([format!("A={value}")])),
                    ("hostname", json!("web-1")),
                    ("Memory", json!(67_108_864)),
                    ("PortSpecs", json!(["3306"])),
                    ("port_bindings", json!({"80/tcp": n.max(1)})),
                    ("Privileged", json!(flag)),
                    ("tty", json!(flag)),
                    ("StdinOnce", json!(flag)),
                    ("dns", json!(["192.0.2.53"])),
                    ("Volumes", json!({"data": {"bind": "/data", "ro": flag}})),
                    ("CapDrop", json!(["MKNOD"])),
                    ("read_only", json!(flag)),
                    ("cpu_shares", json!(512)),
                    ("CpuSet", json!("0")),
                    ("restart_policy", json!({"Name": "on-failure", "MaximumRetryCount": 3})),
                ])
            },
        );
        proptest::collection::vec((properties, any::<bool>()), 1..4).prop_map(|all| {
            let mut resources = json!({"net": {"type": "OS::Neutron::Net"}});
            let mut services = json!({});
            for (index, (mut properties, is_old)) in all.into_iter().enumerate() {
                let name = format!("c{index}");
                let kind = if is_old { "OS::Heat::Docker" } else { "DockerInc::Docker::Container" };
                let mut with_endpoint = properties.clone();
                with_endpoint["docker_endpoint"] = "tcp://192.0.2.1:2375".into();
                resources[&name] = json!({"type": kind, "properties": with_endpoint});
                if properties.get("restart_policy").is_none() {
                    properties["restart"] = "no".into();
                }
                services[&name] = properties;
            }
            let template = json!({"heat_template_version": "2015-04-30", "resources": resources});
            let same = match services.as_object().map(serde_json::Map::len) {
                Some(1) => services["c0"].take(),
                _ if services.to_string().contains("Volumes") => {
                    json!({"services": services, "volumes": {"data": null}})
                }
                _ => json!({ "services": services }),
            };
            let services = same.to_string().replace('$', "$$");
            (template.to_string(), format!("#docker\n{services}"))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

        #[test]
        fn konlet_means_the_same(original in konlet()) {
            let original_plan = plan(&format!("#docker\n{original}"));
            let converted = convert(Origin::Konlet, &original).expect("it runs as it is");
            proptest::prop_assert_eq!(plan(&converted.text), original_plan, "{}", converted.text);
        }

        #[test]
        fn docker_cmd_means_the_same(original in docker_cmd()) {
            let original_plan = plan(&original);
            let converted = convert(Origin::Heat, &original).expect("it runs as it is");
            proptest::prop_assert_eq!(plan(&converted.text), original_plan, "{}", converted.text);
        }

        #[test]
        fn templates_mean_the_same((template, services) in template()) {
            let converted = convert(Origin::Heat, &template).expect("it has only what a document has");
            proptest::prop_assert_eq!(plan(&converted.text), plan(&services), "{}", converted.text);
        }
    }
}
