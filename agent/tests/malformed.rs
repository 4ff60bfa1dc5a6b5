//! User data that is wrong in every way we could think of: a stable code each, no panic, no hang,
//! no memory.
//!
//! A binary of its own, because it measures the memory of its process.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use heliograph_agent::plan::Plan;
use heliograph_agent::userdata;

/// No single input may take longer.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// All inputs together may not make the process grow by more.
const MEMORY_LIMIT_KIB: u64 = 64 * 1024;

struct Case {
    bytes: Vec<u8>,
    code: &'static str,
}

fn raw(bytes: impl Into<Vec<u8>>, code: &'static str) -> Case {
    Case { bytes: bytes.into(), code }
}

/// A document after its `#docker` line.
fn document(text: impl AsRef<str>, code: &'static str) -> Case {
    raw(format!("#docker\n{}", text.as_ref()), code)
}

/// A document with an image and the keys that are given.
fn keys(text: impl AsRef<str>, code: &'static str) -> Case {
    document(format!("image: a\n{}", text.as_ref()), code)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

/// Packed as it is made: a large buffer here would hide a large buffer in the code under test.
fn gzip_bomb(start: &[u8], n_line_feeds: u64) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let mut unpacked = start.chain(std::io::repeat(b'\n').take(n_line_feeds));
    std::io::copy(&mut unpacked, &mut encoder).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes).into_bytes()
}

fn wrapping_cases() -> Vec<Case> {
    let plain = b"#docker\nimage: a\n";
    let packed = gzip(plain);
    let mime = |headers: &str, body: &str| format!("MIME-Version: 1.0\n{headers}\n\n{body}");
    let nested = (0..40).fold("#docker\n".to_owned(), |inner, level| {
        mime(
            &format!("Content-Type: multipart/mixed; boundary=b{level}"),
            &format!("--b{level}\n{inner}\n--b{level}--\n"),
        )
    });
    let many = "--b\n\nx\n".repeat(100_000);
    let bomb = gzip_bomb(b"", 200 << 20);
    let late_bomb = gzip_bomb(plain, 50 << 20);
    vec![
        raw("", "user_data_empty"),
        raw("\n \t\r\n", "user_data_empty"),
        raw([0; 4096], "user_data_empty"),
        raw("#!/bin/sh\n", "user_data_not_docker"),
        raw("#cloud-config\n", "user_data_not_docker"),
        raw("#docker-compose\nimage: a\n", "user_data_not_docker"),
        raw("# docker\nimage: a\n", "user_data_not_docker"),
        raw("image: a\n", "user_data_not_docker"),
        raw("{\"ignition\": {}}", "user_data_not_docker"),
        raw([0xff; 1000], "user_data_not_docker"),
        raw("\u{feff}", "user_data_not_docker"),
        raw(b"\xff\xfe#\0d\0o\0c\0k\0e\0r\0\n\0".as_slice(), "user_data_not_docker"),
        raw(vec![b'A'; 2 << 20], "user_data_too_large"),
        raw(vec![b'A'; 1 << 20], "user_data_not_docker"),
        raw(b"#docker\nimage: \xc3\x28\n".as_slice(), "user_data_not_utf8"),
        raw(base64(&base64(&base64(plain))), "user_data_base64_depth"),
        raw(base64(b"#docker\n\xff"), "user_data_not_utf8"),
        raw(&packed[..12], "user_data_gzip_broken"),
        raw(b"\x1f\x8b".as_slice(), "user_data_gzip_broken"),
        raw([&packed[..], b"garbage"].concat(), "user_data_gzip_broken"),
        raw(gzip(&gzip(&packed)), "user_data_gzip_depth"),
        raw(bomb, "user_data_gzip_too_large"),
        raw(late_bomb, "user_data_gzip_too_large"),
        raw(mime("Content-Type: multipart/mixed", "--b\n\nx\n--b--"), "user_data_mime_boundary"),
        raw(mime("Content-Type: multipart/mixed; boundary=\"", ""), "user_data_mime_boundary"),
        raw(
            mime("Content-Type: multipart/mixed; boundary=b", "no part"),
            "user_data_mime_boundary",
        ),
        raw(mime("Content-Type: multipart/mixed; boundary=b", &many), "user_data_mime_parts"),
        raw(nested, "user_data_mime_depth"),
        raw(format!("Content-Type: {}", "x".repeat(100_000)), "user_data_mime_header"),
        raw(format!("MIME-Version: 1.0\n{}\n", " x\n".repeat(50_000)), "user_data_mime_header"),
        raw(
            mime("Content-Type: text/x-docker\nContent-Transfer-Encoding: base64", "%%%"),
            "user_data_mime_encoding",
        ),
        raw(
            mime(
                "Content-Type: text/x-docker\nContent-Transfer-Encoding: quoted-printable",
                "a=G0",
            ),
            "user_data_mime_encoding",
        ),
        raw(
            mime(
                "Content-Type: multipart/mixed; boundary=b",
                "--b\n\n#docker\n--b\n\n#docker\n--b--",
            ),
            "user_data_mime_many_docker",
        ),
        raw(
            mime("Content-Type: multipart/mixed; boundary=b", "--b\n\n#cloud-config\n--b--"),
            "user_data_not_docker",
        ),
    ]
}

/// Ten times ten times ten … aliases.
fn alias_bomb() -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let aliases = format!("*a{}, ", level - 1).repeat(10);
        let _ = writeln!(text, "a{level}: &a{level} [{aliases}]");
    }
    text
}

fn yaml_cases() -> Vec<Case> {
    let anchors: String = (0..5_000).fold(String::new(), |mut text, n| {
        let _ = write!(text, "- &a{n} [x]\n- *a{n}\n");
        text
    });
    vec![
        document("", "document_empty"),
        document("---\n...\n", "document_empty"),
        document("~\n", "document_empty"),
        document("image", "wrong_type"),
        document("- image: a\n", "wrong_type"),
        document("cmd: x\n", "missing_key"),
        document("{}\n", "missing_key"),
        keys("image: b\n", "duplicate_key"),
        keys("Image: b\n", "duplicate_key"),
        keys("  user: b\n", "yaml_syntax"),
        keys("user: \"b\n", "yaml_syntax"),
        keys("user: 'b\n", "yaml_syntax"),
        keys("user: b: c\n", "yaml_syntax"),
        keys("user: [a\n", "yaml_syntax"),
        keys("user: a]\nports: ]\n", "yaml_syntax"),
        keys("user: {a: b\n", "yaml_syntax"),
        keys("user: @b\n", "yaml_syntax"),
        keys("user: %b\n", "yaml_syntax"),
        keys("user: \"\\q\"\n", "yaml_syntax"),
        keys("user: \"\\ud800\"\n", "yaml_syntax"),
        keys("user: \u{7}\n", "yaml_syntax"),
        keys("user:\n\tb\n", "yaml_tab"),
        keys("labels:\n\ta: b\n", "yaml_tab"),
        keys("user: !!python/object:os.system x\n", "yaml_tag"),
        keys("user: !x y\n", "yaml_tag"),
        keys("user: *b\n", "yaml_alias"),
        keys("labels: &b {c: *b}\n", "yaml_alias"),
        keys("labels: &b {c: d}\nuser:\n  <<: *b\n", "yaml_merge_key"),
        keys("? [a]\n: b\n", "yaml_key"),
        keys("? {a: b}\n: b\n", "yaml_key"),
        keys("~: b\n", "yaml_key"),
        keys("---\nimage: b\n", "yaml_multiple_documents"),
        raw("%YAML 9.9\n---\n", "user_data_not_docker"),
        raw("#docker\n%YAML 1.1\n---\nimage: a\n", "yaml_directive"),
        keys(alias_bomb(), "yaml_too_large"),
        keys(
            format!("user: &a {}\nports: [{}]\n", "x".repeat(60_000), "*a, ".repeat(10_000)),
            "yaml_too_large",
        ),
        keys(format!("ports: [{}]\n", "80, ".repeat(60_000)), "yaml_too_large"),
        document(anchors, "yaml_too_large"),
        keys("[".repeat(200_000), "yaml_too_deep"),
        keys("{a: ".repeat(50_000), "yaml_too_deep"),
        document("- ".repeat(100_000), "yaml_too_deep"),
        document("? ".repeat(100_000), "yaml_key"),
        document("x".repeat(300_000), "document_too_large"),
        document("#\n".repeat(130_000), "document_empty"),
        document(format!("{}: b\n", "k".repeat(100_000)), "yaml_syntax"),
        keys(format!("? {}\n: b\n", "k".repeat(100_000)), "unknown_key"),
    ]
}

fn schema_cases() -> Vec<Case> {
    vec![
        keys("imgae: b\n", "unknown_key"),
        keys("\u{202e}user: b\n", "unknown_key"),
        keys("\"\\0\": b\n", "unknown_key"),
        keys("services: {}\n", "stray_key"),
        keys("build: .\n", "refused_key"),
        keys("PortSpecs: [http]\n", "bad_port"),
        keys("cmd: a\ncommand: b\n", "cmd_and_command"),
        document("image:\n", "missing_value"),
        document("image: ''\n", "empty_value"),
        document("image: A\n", "bad_image"),
        document("image: a:b:c\n", "bad_image"),
        document(format!("image: {}\n", "a/".repeat(5_000)), "bad_image"),
        document("image: [a]\n", "wrong_type"),
        keys("cmd: []\n", "empty_value"),
        keys("cmd: {a: b}\n", "wrong_type"),
        keys("cmd: [[a]]\n", "wrong_type"),
        keys("cmd: \"a\\0b\"\n", "bad_text"),
        keys("command: \"a 'b\"\n", "bad_command"),
        keys("environment: a\n", "wrong_type"),
        keys("environment: [A, A]\n", "duplicate_key"),
        keys("environment: [[A]]\n", "wrong_type"),
        keys("environment: ['=b']\n", "bad_assignment"),
        keys("environment: {A=B: c}\n", "bad_assignment"),
        keys("environment: [A=1, A=2]\n", "duplicate_key"),
        keys("environment: {A: [1]}\n", "wrong_type"),
        keys("ports: 80\n", "wrong_type"),
        keys("ports: ['80:80:80:80']\n", "bad_port"),
        keys("ports: ['99999']\n", "bad_port"),
        keys("ports: ['1-65535']\n", "too_many_ports"),
        keys(format!("ports: [{}]\n", "1-65535, ".repeat(9_000)), "too_many_ports"),
        keys("ports: ['80:1', '80:2']\n", "duplicate_port"),
        keys("volumes: [./a:/b]\n", "bad_volume"),
        keys("volumes: ['/a:/b:/c:/d']\n", "bad_volume"),
        keys("volumes: [/a:/b, /c:/b]\n", "duplicate_volume"),
        keys("volumes: [{type: bind, target: /a}]\n", "missing_key"),
        keys("volumes: [{type: nfs, target: /a}]\n", "bad_word"),
        keys("container_name: '../x'\n", "bad_name"),
        keys("hostname: a_b\n", "bad_name"),
        keys("working_dir: srv\n", "bad_path"),
        keys("tty: yes\n", "bad_boolean"),
        keys("privileged: 1\n", "bad_boolean"),
        keys("restart: sometimes\n", "bad_restart"),
        keys("restart: on-failure:-1\n", "bad_restart"),
        keys("restart: always\nsignal: {when: exit}\n", "restart_and_exit"),
        keys("healthcheck: true\n", "wrong_type"),
        keys("healthcheck: {test: [curl]}\n", "bad_healthcheck"),
        keys("healthcheck: {test: a, disable: true}\n", "bad_healthcheck"),
        keys("healthcheck: {interval: 5}\n", "bad_duration"),
        keys("healthcheck: {retries: -1}\n", "bad_number"),
        keys("healthcheck: {disable: true}\nsignal: {when: healthy}\n", "no_healthcheck"),
        keys("labels: {io.heliograph.agent: 0}\n", "reserved_label"),
        keys("pull_policy: sometimes\n", "bad_word"),
        keys("mem_limit: 1\n", "bad_size"),
        keys("mem_limit: 1e9g\n", "bad_size"),
        keys("mem_limit: 9999999999999999999g\n", "bad_size"),
        keys("cpus: -1\n", "bad_number"),
        keys("cpus: .inf\n", "bad_number"),
        keys("signal: [a]\n", "wrong_type"),
        keys("signal: $url\n", "bad_signal_url"),
        keys("signal: ftp://h/\n", "bad_signal_url"),
        keys("signal: file:///etc/shadow\n", "bad_signal_url"),
        keys(format!("signal: http://h/{}\n", "x".repeat(10_000)), "bad_signal_url"),
        keys("signal: {alarm_url: 5}\n", "bad_signal_url"),
        keys("signal: '{\"alarm_url\": '\n", "bad_signal_json"),
        keys("signal: '{\"a\": 1}'\n", "bad_signal_json"),
        keys(format!("signal: '{}'\n", "{\"a\":".repeat(10_000)), "bad_signal_json"),
        keys("signal: {url: http://h/, json: {}}\n", "bad_signal"),
        keys("signal: {timeout: 0s}\n", "bad_duration"),
        keys("signal: {timeout: 5s, stable_for: 5s}\n", "bad_duration"),
        keys("signal: {timeout: 99999h}\n", "bad_duration"),
        keys("signal: {logs: 99999}\n", "bad_number"),
        keys("signal: {whem: exit}\n", "unknown_key"),
        keys("outputs: info\n", "wrong_type"),
        keys("outputs: [inf0]\n", "unknown_output"),
        keys("outputs: [info, info]\n", "duplicate_key"),
    ]
}

/// A document with the services that are given, one a line.
fn services(text: impl AsRef<str>, code: &'static str) -> Case {
    document(format!("services:\n  {}\n", text.as_ref().replace('\n', "\n  ")), code)
}

fn service_cases() -> Vec<Case> {
    let ring: String = (0..40).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "s{n}: {{image: a, depends_on: [s{}]}}", (n + 1) % 40);
        text
    });
    let crowd: String = (0..100).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "s{n}: {{image: a}}");
        text
    });
    vec![
        document("services: {}\n", "bad_services"),
        document("services: []\n", "wrong_type"),
        document("services: a\n", "wrong_type"),
        document("services:\n  a:\n", "wrong_type"),
        document("services:\n  a: {}\n", "missing_key"),
        document("services: {a: {image: b}}\nports: ['80']\n", "stray_key"),
        document("services: {a: {image: b}}\ncmd: x\n", "stray_key"),
        document("services: {a: {image: b}}\nservcies: {}\n", "unknown_key"),
        services("a/b: {image: a}", "bad_name"),
        services("'': {image: a}", "bad_name"),
        services("-a: {image: a}", "bad_name"),
        services("a: {imgae: a}", "unknown_key"),
        services("a: {build: .}", "refused_key"),
        services("a: {image: a, signal: http://h/}", "unknown_key"),
        services("a: {image: a, depends_on: [b]}", "unknown_service"),
        services("a: {image: a, depends_on: [a]}", "dependency_cycle"),
        services(
            "a: {image: a, depends_on: [b]}\nb: {image: a, depends_on: [a]}",
            "dependency_cycle",
        ),
        services("a: {image: a, links: [b]}\nb: {image: a, depends_on: [a]}", "dependency_cycle"),
        services(ring, "dependency_cycle"),
        services(crowd, "bad_services"),
        services("a: {image: a, depends_on: [b, b]}\nb: {image: a}", "duplicate_key"),
        services("a: {image: a, depends_on: b}\nb: {image: a}", "wrong_type"),
        services("a: {image: a, depends_on: {b: {condition: healthy}}}\nb: {image: a}", "bad_word"),
        services("a: {image: a, depends_on: {b: {required: maybe}}}\nb: {image: a}", "bad_boolean"),
        services("a: {image: a, depends_on: {b: {conditon: x}}}\nb: {image: a}", "unknown_key"),
        services("a: {image: a, depends_on: [b]}\nb: {image: a, profiles: [x]}", "unknown_service"),
        services("a: {image: a, profiles: [x]}", "bad_services"),
        services("a: {image: a, network_mode: 'service:b'}", "unknown_service"),
        services("a: {image: a, pid: 'service:b'}", "unknown_service"),
        services("a: {image: a, volumes_from: [b]}", "unknown_service"),
        services("a: {image: a, networks: [x]}", "unknown_name"),
        services("a: {image: a, volumes: ['x:/x']}", "unknown_name"),
        services("a: {image: a, secrets: [x]}", "unknown_name"),
        services("a: {image: a, configs: [x]}", "unknown_name"),
        services("a: {image: a, scale: 0}", "bad_number"),
        services("a: {image: a, scale: 33}", "bad_number"),
        services("a: {image: a, scale: 2, ports: ['80:80']}", "bad_scale"),
        services("a: {image: a, scale: 2, container_name: ab}", "bad_scale"),
        services("a: {image: a, deploy: {replicas: 2}, ports: ['80:80']}", "bad_scale"),
        services(
            "a: {image: a, container_name: ab}\nb: {image: a, container_name: ab}",
            "bad_services",
        ),
        document("services: {a: {image: b}}\nnetworks: {x: {drivr: y}}\n", "unknown_key"),
        document(
            "services: {a: {image: b}}\nnetworks: {x: {external: true, driver: y}}\n",
            "bad_network",
        ),
        document("services: {a: {image: b}}\nnetworks: {'x y': }\n", "bad_name"),
        document(
            "services: {a: {image: b}}\nnetworks: {x: {ipam: {config: [{subnet: 10.0.0.0}]}}}\n",
            "bad_address",
        ),
        document(
            "services: {a: {image: b}}\nnetworks: {x: {ipam: {config: [{subnet: 10.0.0.0/33}]}}}\n",
            "bad_address",
        ),
        document("services: {a: {image: b}}\nvolumes: {x: {device: sdb}}\n", "bad_device"),
        document(
            "services: {a: {image: b}}\nvolumes: {x: {device: 'label:', name: y}}\n",
            "bad_device",
        ),
        document(
            "services: {a: {image: b}}\nvolumes: {x: {device: 'label:y', driver: z}}\n",
            "bad_volume",
        ),
        document("services: {a: {image: b}}\nvolumes: {x: {filesystem: ext4}}\n", "bad_volume"),
        document(
            "services: {a: {image: b}}\nvolumes: {x: {device: 'label:y', filesystem: fat}}\n",
            "bad_word",
        ),
        document("services: {a: {image: b}}\nvolumes: [x]\n", "wrong_type"),
        document("services: {a: {image: b}}\nsecrets: {x: {}}\n", "missing_key"),
        document("services: {a: {image: b}}\nsecrets: {x: {file: ./x}}\n", "bad_path"),
        document("services: {a: {image: b}}\nsecrets: {x: {environment: X}}\n", "refused_key"),
        document("services: {a: {image: b}}\nsecrets: {x: {external: true}}\n", "refused_key"),
        document("services: {a: {image: b}}\nsecrets: {x: {file: /x, content: y}}\n", "bad_file"),
        document(
            "services: {a: {image: b}}\nsecrets: {x: {content: '%', encoding: base64}}\n",
            "bad_base64",
        ),
    ]
}

fn value_cases() -> Vec<Case> {
    vec![
        keys("networks: [x]\nnetwork_mode: host\n", "mode_and_networks"),
        keys("network_mode: front\n", "bad_word"),
        keys("networks: {x: {ipv4_address: '::1'}}\n", "bad_address"),
        keys("networks: [x, x]\n", "duplicate_key"),
        keys("pid: private\n", "bad_word"),
        keys("uts: bridge\n", "bad_word"),
        keys("dns: [h]\n", "bad_address"),
        keys("dns: {a: b}\n", "wrong_type"),
        keys("extra_hosts: [a]\n", "bad_address"),
        keys("extra_hosts: {a: b}\n", "bad_address"),
        keys("links: ['a b']\n", "bad_name"),
        keys("mac_address: 1:2\n", "bad_address"),
        keys("expose: ['80:81:82:83']\n", "bad_port"),
        keys("expose: [0]\n", "bad_port"),
        keys("port_bindings: ['80']\n", "wrong_type"),
        keys("port_bindings: {'80:81': 1}\n", "bad_port"),
        keys("port_bindings: {80: {HostPort: x}}\n", "bad_port"),
        keys("port_bindings: {80: {HostIp: 1.2.3.4}}\n", "missing_key"),
        keys("devices: [null]\n", "missing_value"),
        keys("devices: ['/dev/null:/dev/x:rx']\n", "bad_device"),
        keys("devices: [dev]\n", "bad_device"),
        keys("devices: [{path_in_container: /dev/x}]\n", "missing_key"),
        keys("gpus: some\n", "bad_word"),
        keys("gpus: [{count: 1, device_ids: ['0']}]\n", "bad_device"),
        keys("cap_add: [NET_ADMINN]\n", "bad_word"),
        keys("cap_add: NET_ADMIN\n", "wrong_type"),
        keys("ulimits: {nofile: {soft: 2, hard: 1}}\n", "bad_number"),
        keys("ulimits: {nofile: {soft: 2}}\n", "missing_key"),
        keys("ulimits: {NOFILE: 2}\n", "bad_name"),
        keys("sysctls: a\n", "wrong_type"),
        keys("sysctls: [a=1, a=2]\n", "duplicate_key"),
        keys("tmpfs: run\n", "bad_path"),
        keys("tmpfs: /\n", "bad_path"),
        keys("cpu_shares: -1\n", "bad_number"),
        keys("cpu_shares: 1e3\n", "bad_number"),
        keys("cpuset: a\n", "bad_number"),
        keys("cpu_period: 5000s\n", "bad_duration"),
        keys("mem_swappiness: 101\n", "bad_number"),
        keys("memswap_limit: -2\n", "bad_size"),
        keys("pids_limit: -2\n", "bad_number"),
        keys("oom_score_adj: 1001\n", "bad_number"),
        keys("blkio_config: {weight: 5}\n", "bad_number"),
        keys("blkio_config: {device_read_bps: [{path: /dev/a, weight: 10}]}\n", "missing_key"),
        keys("logging: {drivr: x}\n", "unknown_key"),
        keys("deploy: {resources: {limit: {}}}\n", "unknown_key"),
        keys("deploy: {restart_policy: {condition: sometimes}}\n", "bad_word"),
        keys("exit_codes: []\n", "wrong_type"),
        keys("exit_codes: [256]\n", "bad_number"),
        keys("stop_grace_period: 10\n", "bad_duration"),
        keys("platform: 'linux/'\n", "bad_name"),
        keys("files: [{path: a, content: b}]\n", "bad_path"),
        keys("files: [{path: /a}]\n", "missing_key"),
        keys("files: [{path: /a, content: b}, {path: /a/, content: b}]\n", "bad_path"),
        keys("files: [{path: /a, content: b, mode: 999}]\n", "bad_number"),
        keys("files: [{path: /a, content: b, uid: -1}]\n", "bad_number"),
        keys("env_file: /etc/env\n", "unknown_file"),
        keys("files: [{path: /e, content: nothing}]\nenv_file: /e\n", "bad_assignment"),
        keys("image_archive: a.tar\n", "bad_archive"),
        keys("image_archive: 'ftp://h/a'\n", "bad_archive"),
        keys("image_archive: 'volume:images'\n", "bad_archive"),
        keys("image_archive: {}\n", "bad_archive"),
        keys("image_archive: {path: /a, url: 'http://h/'}\n", "bad_archive"),
        keys("image_archive: {path: /a, sha256: 12}\n", "bad_digest"),
        keys("registries: [a]\n", "wrong_type"),
        keys("registries: {'https://h/': {}}\n", "bad_registry"),
        keys("registries: {h: {username: a}}\n", "bad_registry"),
        keys("registries: {h: {ca: x}}\n", "bad_certificate"),
        keys("ca_certificates: '-----BEGIN PRIVATE KEY-----'\n", "bad_certificate"),
        keys("glance: {token: a}\n", "missing_key"),
        keys("glance: {auth_url: h, token: a}\n", "bad_url"),
        keys("glance: {auth_url: 'http://h', application_credential_id: a}\n", "bad_glance"),
        keys("inputs: [a]\n", "wrong_type"),
        keys("user: ${inputs.a}\n", "unknown_variable"),
        keys("inputs: {db: {ip: 1}}\nuser: '${inputs.db.pi}'\n", "unknown_variable"),
        keys("user: ${HOME}\n", "unknown_variable"),
        keys("user: '${'\n", "bad_variable"),
        keys("user: '${}'\n", "bad_variable"),
        keys("cmd: 'echo ${x%%y}'\n", "bad_variable"),
        keys(
            format!(
                "inputs: {{a: {}}}\nlabels: [{}]\n",
                "x".repeat(60_000),
                "'${a}=1', ".repeat(100)
            ),
            "document_too_large",
        ),
        keys("strict: no\n", "bad_boolean"),
        keys("strict: false\nimgae: b\ntty: maybe\n", "bad_boolean"),
        document("spec: {containers: a}\n", "wrong_type"),
        document("spec: {containers: [{image: a, command: {}}]}\n", "wrong_type"),
        document("spec: {containers: [{image: a, ports: []}]}\n", "refused_key"),
        document("spec: {containers: [{image: a}], x: 1}\n", "refused_key"),
        raw("#docker-cmd\na: b\n", "wrong_type"),
        raw("#docker-cmd\na: {image: b, start_order: x}\n", "bad_number"),
        raw("#docker-cmd\na: {image: b, action: exec}\n", "refused_key"),
        raw("#docker-cmd\n", "document_empty"),
    ]
}

/// What this thread has spent on a processor: the code under test neither waits nor sleeps, and a
/// busy machine is not its fault.
fn processor_time() -> Duration {
    let figures = std::fs::read_to_string("/proc/thread-self/schedstat").expect("/proc is mounted");
    let nanoseconds = figures.split(' ').next().unwrap_or_default();
    Duration::from_nanos(nanoseconds.parse().expect("the first figure is a number"))
}

/// A figure of `/proc/self/status`.
fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).expect("the figure is there");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("the figure is a number")
}

/// Starts the peak anew, so that it is not that of making the cases. Where the kernel refuses, the
/// measured growth is too large rather than too small.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[test]
fn malformed_user_data_is_refused_with_a_code() {
    let cases: Vec<Case> =
        [wrapping_cases(), yaml_cases(), schema_cases(), service_cases(), value_cases()]
            .into_iter()
            .flatten()
            .collect();
    assert!(cases.len() >= 200, "{} cases", cases.len());
    reset_peak();
    let before_kib = status_kib("VmRSS:");
    let mut failures = String::new();
    let mut slowest = Duration::ZERO;
    for (index, case) in cases.iter().enumerate() {
        let start = processor_time();
        let code = match userdata::load(&case.bytes) {
            Ok(document) => {
                let _ = Plan::new(&document, std::path::Path::new("/state"));
                "ok"
            }
            Err(error) => error.code(),
        };
        let _ = userdata::signal_target_of(&case.bytes);
        let elapsed = processor_time() - start;
        slowest = slowest.max(elapsed);
        let shown: String = String::from_utf8_lossy(&case.bytes).chars().take(80).collect();
        if code != case.code {
            let _ = writeln!(failures, "{index}: {code} instead of {}: {shown:?}", case.code);
        }
        if elapsed > TIME_LIMIT {
            let _ = writeln!(failures, "{index}: took {elapsed:?}: {shown:?}");
        }
    }
    let grown_kib = status_kib("VmHWM:").saturating_sub(before_kib);
    report(cases.len(), slowest, grown_kib);
    assert!(failures.is_empty(), "\n{failures}");
    assert!(grown_kib < MEMORY_LIMIT_KIB, "memory grew by {grown_kib} KiB");
}

#[expect(clippy::print_stdout, reason = "the figures are part of the test's report")]
fn report(n_cases: usize, slowest: Duration, grown_kib: u64) {
    println!(
        "{n_cases} malformed inputs, slowest {slowest:?}, peak memory grew by {grown_kib} KiB"
    );
}
