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
