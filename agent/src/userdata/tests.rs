use super::*;
use crate::userdata::document::{Output, OutputName, SignalTarget, When};

fn check_error(text: &str, expected: &str) {
    let shown = match parse(text) {
        Ok(_) => "ok".to_owned(),
        Err(diagnostic) => format!("{} {diagnostic}", diagnostic.code),
    };
    assert_eq!(shown, expected, "{text}");
}

#[test]
fn the_readme_example() {
    let text = "#docker\nimage: centos\ncmd: \"while true; do date ; sleep 1; done\"\n";
    let document = load(text.as_bytes()).unwrap();
    assert_eq!(document.services[0].image.to_string(), "centos");
    assert_eq!(document.outputs, OutputName::DEFAULT.map(Output::from));
    assert_eq!(document.signal.target, None);
    assert!(document.warnings.is_empty());
}

#[test]
fn errors_name_the_place_and_the_way_out() {
    let cases = [
        (
            "#docker\nimage: a\nenviroment:\n  A: 1\n",
            "unknown_key line 3, column 1: the document has no key `enviroment`; did you mean `environment`?",
        ),
        (
            "image: a\nPortSpec: []\n",
            "unknown_key line 2, column 1: the document has no key `PortSpec`; did you mean `expose`?",
        ),
        (
            "services:\n  web: {image: a, depends_on: [bd]}\n  db: {image: a}\n",
            "unknown_service line 2, column 31: `depends_on` names `bd`, which is no active service; did you mean `db`?",
        ),
        (
            "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c: {image: x, depends_on: [b]}\n",
            "dependency_cycle line 4, column 29: services wait for each other: `b` → `c` → `b`",
        ),
        (
            "inputs: {db: {network_ip: 10.0.0.4}}\nimage: a\nenvironment:\n  DB: ${inputs.db.network_pi}\n",
            "unknown_variable line 4, column 7: there is no value for `inputs.db.network_pi`; did you mean `inputs.db.network_ip`?",
        ),
        (
            "image: a\nservices: {}\n",
            "stray_key line 1, column 1: `image` stands beside `services`; write it in the service that it is for",
        ),
        (
            "image: a\ncmd: x\ncommand: y\n",
            "cmd_and_command line 3, column 1: `cmd` and `command` exclude each other; they stand at line 2, column 1 and line 3, column 1; keep `cmd` for a shell command line, `command` for one without a shell",
        ),
        (
            "image: a\nenv: [A=1]\nenvironment: [A=1]\n",
            "duplicate_key line 3, column 1: `environment` is given already at line 2, column 1, in another spelling; remove one of the two",
        ),
        ("cmd: x\n", "missing_key line 1, column 1: the document needs the key `image`"),
        (
            "image: CentOS\n",
            "bad_image line 1, column 8: `image` has upper-case letters in the image's name; write it in lower case",
        ),
        (
            "image: http://a/b\n",
            "bad_image line 1, column 8: `image` has no valid registry before the first `/`; write it without `http://`",
        ),
        (
            "image: a\ntty: yes\n",
            "bad_boolean line 2, column 6: `tty` must be true or false; write true, without quotes",
        ),
        (
            "image: a\nmem_limit: 512\n",
            "bad_size line 2, column 12: `mem_limit` is less than the engine's minimum of 6m; add a unit, such as m",
        ),
        (
            "image: a\nrestart: alway\n",
            "bad_restart line 2, column 10: `restart` must be no, always, on-failure[:retries] or unless-stopped; did you mean always?",
        ),
        (
            "image: a\nprofiles: [debug]\n",
            "stray_key line 2, column 1: `profiles` chooses among `services`, and this document has none; remove it, or write `services`",
        ),
        (
            "image: a\nsignal: {url: 'http://h/x', alarm_url: 'http://h/x'}\n",
            "bad_signal line 2, column 9: `signal` gives two handles, and only one can be signalled",
        ),
        (
            "image: a\nsignal: {url: 'http://h/x', transport: tempurl}\n",
            "bad_signal line 2, column 9: `transport` of `signal` needs a TempURL, which `signal` does not give; leave `transport` out",
        ),
        (
            "image: a\nsignal: {transport: zaqar}\n",
            "bad_word line 2, column 21: the agent does not send by Zaqar; give the handle the signal_transport TEMP_URL_SIGNAL",
        ),
        (
            "image: a\nsignal: {style: asw}\n",
            "bad_word line 2, column 17: `style` must be auto, aws or heat; did you mean aws?",
        ),
        (
            "image: a\noutputs: {a: network_ip..b}\n",
            "bad_output line 2, column 14: `outputs` must be a map to names of outputs, with places in them after dots",
        ),
        (
            "image: a\nproxy: {no_proxy: '*'}\n",
            "missing_key line 2, column 8: `proxy` needs the key `http` or `https`",
        ),
        (
            "image: a\nsignal: {when: runing}\n",
            "bad_word line 2, column 16: `when` must be created, running, healthy or exit; did you mean running?",
        ),
        (
            "image: a\nsignal: wait_handle\n",
            "bad_signal_url line 2, column 9: `signal` must be an http or https URL of at most 8 KiB; check that the template replaces the placeholder by the handle's URL",
        ),
        (
            "image: a\noutputs: [network_ipp]\n",
            "unknown_output line 2, column 11: `outputs` has no output of this name; did you mean network_ip?",
        ),
        ("- image: a\n", "wrong_type line 1, column 1: the document must be a map, not a list"),
        (
            "#docker\n",
            "document_empty line 1, column 1: there is nothing after the `#docker` line; give at least an `image`; in a template, start the user data with `|`",
        ),
        (
            "image: a\nrestart: always\nsignal: {when: exit}\n",
            "restart_and_exit line 2, column 10: `restart` keeps the container running, but `signal` waits for its exit; remove `restart`, or write no or on-failure",
        ),
        (
            "image: a\nuser: b: c\n",
            "yaml_syntax line 2, column 8: a `:` makes this line a key where no key may stand; put quotes around a value that contains a colon",
        ),
        (
            "image: a\nenvironment: {A: b: c}\n",
            "yaml_syntax line 2, column 19: a `,` or `}` is missing here; put quotes around a value that contains a colon",
        ),
    ];
    for (text, expected) in cases {
        check_error(text, expected);
    }
}

/// Values may be secrets; keys are needed to find the mistake.
#[test]
fn no_message_quotes_a_value() {
    let secret = "hunter2-hunter2";
    let documents = [
        "image: SECRET@\n",
        "image: a\nuser: [SECRET]\n",
        "image: a\ntty: SECRET\n",
        "image: a\nmem_limit: SECRET\n",
        "image: a\ncpus: SECRET\n",
        "image: a\nrestart: SECRET\n",
        "image: a\nenvironment: SECRET\n",
        "image: a\nenvironment: ['=SECRET']\n",
        "image: a\nenvironment: {A: [SECRET]}\n",
        "image: a\nports: [SECRET]\n",
        "image: a\nvolumes: [SECRET:SECRET]\n",
        "image: a\ncommand: 'a \"SECRET'\n",
        "image: a\nsignal: SECRET\n",
        "image: a\nsignal: 'ftp://SECRET/'\n",
        "image: a\nsignal: '{\"alarm_url\": SECRET}'\n",
        "image: a\nsignal: {alarm_url: SECRET}\n",
        "image: a\nsignal: {when: SECRET}\n",
        "image: a\nsignal: {timeout: SECRET}\n",
        "image: a\noutputs: [SECRET]\n",
        "image: a\noutputs: {a: SECRET}\n",
        "image: a\nproxy: {http: SECRET}\n",
        "image: a\nproxy: {http: 'http://p', no_proxy: 'SECRET!'}\n",
        "image: a\nsignal: {transport: SECRET}\n",
        "image: a\nsignal: {url: 'http://SECRET/x', transport: cfn}\n",
        "image: a\nhealthcheck: {test: [SECRET]}\n",
        "image: a\ncmd: \"SECRET\nuser: b\n",
        "image: a\nuser: SECRET: SECRET\n",
        "image: a\nuser: @SECRET\n",
        "image: a\nuser: !SECRET x\n",
        "image: a\nuser: *SECRET\n",
    ];
    for document in documents {
        let text = document.replace("SECRET", secret);
        let diagnostic = parse(&text).map(|_| ()).expect_err(&text);
        let shown = format!("{diagnostic} {diagnostic:?}");
        assert!(!shown.contains("hunter2"), "{document}: {shown}");
    }
}

#[test]
fn the_signal_section() {
    let url = "https://h/v1/AUTH_a/c/o?temp_url_sig=s&temp_url_expires=1";
    let json = format!("{{\"alarm_url\": \"{url}\", \"user_id\": 7}}");
    let as_url = |text: &str| match parse(text).unwrap().signal.target {
        Some(SignalTarget::Url(url)) => url.to_string(),
        other => panic!("{other:?}: {text}"),
    };
    let as_json = |text: &str| match parse(text).unwrap().signal.target {
        Some(SignalTarget::Json(json)) => json,
        other => panic!("{other:?}: {text}"),
    };
    for text in [
        format!("image: a\nsignal: {url}\n"),
        format!("image: a\nsignal: '{url}'\n"),
        format!("image: a\nsignal:\n  url: {url}\n"),
        format!("image: a\nsignal: {{handle: '{url}', timeout: 5m}}\n"),
    ] {
        assert_eq!(as_url(&text), url, "{text}");
    }
    for text in [
        format!("image: a\nsignal: {json}\n"),
        format!("image: a\nsignal: '{json}'\n"),
        format!("image: a\nsignal:\n  json: {json}\n"),
        format!("image: a\nsignal:\n  json: '{json}'\n  when: exit\n"),
    ] {
        let json = as_json(&text);
        assert_eq!((&json["alarm_url"], &json["user_id"]), (&url.into(), &7.into()), "{text}");
    }
    for text in
        ["image: a\nsignal: {}\n", "image: a\nsignal: '{}'\n", "image: a\nsignal: {json: {}}\n"]
    {
        let document = parse(text).unwrap();
        assert_eq!((document.signal.target, document.warnings.len()), (None, 0), "{text}");
    }
    for text in ["image: a\nsignal: null\n", "image: a\nsignal: 'null'\n", "image: a\nsignal:\n"] {
        let document = parse(text).unwrap();
        assert_eq!(document.signal.target, None);
        assert_eq!(document.warnings[0].code, "signal_null", "{text}");
    }
    let text = "image: a\nsignal: {when: healthy, stable_for: 1s, timeout: 90s, logs: 0, id: x}";
    let signal = parse(text).unwrap().signal;
    assert_eq!(
        (signal.when, signal.log_lines, signal.id.as_deref()),
        (Some(When::Healthy), 0, Some("x"))
    );
    assert!(
        !format!("{:?}", parse(&format!("image: a\nsignal: {url}\n"))).contains("temp_url_sig")
    );
}

#[test]
fn the_line_form_of_2013() {
    let cases = [
        ("#docker\nimage: centos\ncmd: echo a: b\n", "centos", "echo a: b"),
        ("image: 'centos\ncmd: \"echo \"x\" y\"\r\n", "centos", "echo \"x\" y"),
        ("#docker\n\n# c\n  cmd :  echo @: 'x'  \nimage: a\n", "a", "echo @: 'x"),
    ];
    for (text, image, command) in cases {
        let document = parse(text).expect(text);
        assert_eq!(document.warnings[0].code, "line_form");
        assert_eq!(document.services[0].image.to_string(), image);
        let plan = crate::plan::Plan::new(&document, std::path::Path::new("/state"));
        assert_eq!(plan.containers[0].create["Cmd"][2], command, "{text}");
    }
    // Anything more than the two keys is not that form.
    for text in [
        "image: a\ncmd: b: c\nuser: d\n",
        "image: a\ncmd: b: c\ncmd: d\n",
        "image: a\nx\ncmd: b: c\n",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

/// The value of the first environment variable, on an instance.
fn check_value(keys: &str, expected: &str) {
    let instance = [("name", "web-1"), ("meta.tier", "front"), ("meta.empty", "")];
    let instance = instance.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let facts =
        Facts { instance: Some(instance.into()), default_image: Some("fallback".to_owned()) };
    let document = parse_with(keys, &facts).unwrap_or_else(|error| panic!("{error}: {keys}"));
    let plan = crate::plan::Plan::new(&document, std::path::Path::new("/state"));
    assert_eq!(plan.containers[0].image.to_string(), "fallback");
    assert_eq!(plan.containers[0].create["Env"][0], format!("A={expected}"), "{keys}");
}

#[test]
fn variables_are_replaced() {
    let cases = [
        ("environment: {A: 'x ${instance.name} y'}", "x web-1 y"),
        ("environment: ['A=${instance.meta.tier}']", "front"),
        ("environment: {A: '${tier}'}", "front"),
        ("environment: {A: '${tier:-back}'}", "front"),
        ("environment: {A: '${empty:-back}'}", "back"),
        ("environment: {A: '${empty-back}'}", ""),
        ("environment: {A: '${nothing-back}'}", "back"),
        ("environment: {A: '${inputs.db.ip:-none}'}", "none"),
        ("inputs: {db: {ip: 10.0.0.4}}\nenvironment: {A: '${inputs.db.ip}'}", "10.0.0.4"),
        ("inputs: {v: 1.10}\nenvironment: {A: '${v}'}", "1.10"),
        ("inputs: {v: 'null'}\nenvironment: {A: '${v}'}", "null"),
        ("inputs: {v: '${instance.name}'}\nenvironment: {A: '${v}'}", "${instance.name}"),
        (
            "environment: {A: '$${instance.name} $$ $HOME $(date)'}",
            "${instance.name} $ $HOME $(date)",
        ),
        ("inputs: {v: 'x: [y]'}\nenvironment: {A: '${v}'}", "x: [y]"),
        ("inputs: {A: '${x}'}\nenvironment: {A: }", "${x}"),
        ("inputs: {A: 1.10}\nenvironment: [A]", "1.10"),
        ("inputs: {A: 'null'}\nEnv: {A: ~}", "null"),
        ("inputs: {A: ''}\nenv: {A: null}", ""),
        ("inputs: {a: b}\nenvironment: {A: '', B: '${a}'}", ""),
    ];
    for (keys, expected) in cases {
        check_value(keys, expected);
    }
}

#[test]
fn on_a_workstation_a_placeholder_stands_for_the_instance() {
    let text = "image: a\nports: ['${instance.host_ip}:80:80']\nhostname: ${instance.name}\n";
    let document = parse(text).unwrap();
    let warnings: Vec<&str> = document.warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(warnings, ["instance_unknown"; 2]);
    let facts = Facts { instance: Some(Default::default()), default_image: None };
    assert_eq!(parse_with(text, &facts).unwrap_err().code, "unknown_variable");
}

/// Named and not given: what the instance has for it, or nothing that runs.
#[test]
fn a_variable_without_a_value_has_the_instances() {
    let facts = |entries: &[(&str, &str)]| Facts {
        instance: Some(
            entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ),
        default_image: None,
    };
    let texts = [
        "#docker\nimage: a\nenvironment: {TIER: }\n",
        "#docker\nimage: a\nenvironment: [TIER]\n",
        "#docker\nservices: {web: {image: a, environment: [TIER]}}\n",
    ];
    for text in texts {
        let document = parse_with(text, &facts(&[("meta.TIER", "front: 1")])).unwrap();
        let plan = crate::plan::Plan::new(&document, std::path::Path::new("/state"));
        assert_eq!(plan.containers[0].create["Env"][0], "TIER=front: 1", "{text}");
        let error = parse_with(text, &facts(&[("meta.TEER", "hunter2")])).unwrap_err();
        assert_eq!(error.code, "missing_value", "{text}");
        let document = parse(text).unwrap();
        assert_eq!(document.warnings[0].code, "instance_unknown", "{text}");
    }
    // What stands where a name is expected may be a value.
    let text = "#docker\nimage: a\nenvironment: [hunter2]\n";
    let error = parse_with(text, &facts(&[])).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    let warnings = parse(text).unwrap().warnings;
    assert!(!format!("{warnings:?}").contains("hunter2"), "{warnings:?}");
    // In the forms of others it is an error, as it is there.
    let konlet = "#docker-cmd\na: {image: a, environment: [A]}\n";
    assert_eq!(parse(konlet).unwrap_err().code, "missing_value");
}

/// Heat's attribute may have our keys between its own.
#[test]
fn heats_keys_and_ours_stand_side_by_side() {
    let text =
        "image: a\nsignal: {endpoint: 'http://h/s', token: t, when: exit, transport: heat}\n";
    let signal = parse(text).unwrap().signal;
    let Some(SignalTarget::Json(json)) = signal.target else { panic!("{signal:?}") };
    assert_eq!(json.keys().collect::<Vec<_>>(), ["endpoint", "token"]);
    assert_eq!(signal.when, Some(When::Exit));
    assert_eq!(
        parse(&text.replace("exit", "exti")).unwrap_err().code,
        "bad_word",
        "a wrong word is not taken for Heat's"
    );
}

#[test]
fn strictness() {
    let text = "strict: false\nimage: a\nimgae: b\nx-mine: c\n";
    let document = parse(text).unwrap();
    assert_eq!(document.warnings[0].code, "unknown_key");
    assert!(parse("image: a\nx-mine: c\nversion: '3'\n").unwrap().warnings.is_empty());
    assert_eq!(parse("strict: false\nimage: a\nbuild: b\n").unwrap_err().code, "refused_key");
}

#[test]
fn the_handle_of_a_broken_document() {
    let cases = [
        ("#docker\nimage: a\nnonsense: 1\nsignal: http://h/x\n", true),
        ("#docker\nimage: a\nsignal: {url: 'http://h/x', when: never}\n", true),
        ("#docker\nimage: a: b: c\nuser: x\nsignal: http://h/x\n", true),
        ("#docker\nimage: [\nsignal:\n  url: \"http://h/x\"\n", true),
        ("#docker\nimage: [\nsignal: '{\"alarm_url\": \"http://h/x\"}'\n", true),
        ("#docker\nimage: [\nsignal: {\"alarm_url\": \"http://h/x\"}\n", true),
        ("#docker\nimage: [\nsignal: {url: \"http://h/x\", timeout: 45s}\n", true),
        ("#docker\nimage: [\n", false),
        ("#docker\nimage: [\nsignal: nothing\n", false),
        ("#docker\nimage: [\ncmd: curl signal: http://h/x\n", false),
        ("image: a\nsignal: http://h/x\n", false),
    ];
    for (text, expected) in cases {
        assert!(load(text.as_bytes()).is_err(), "{text}");
        assert_eq!(signal_target_of(text.as_bytes()).is_some(), expected, "{text}");
    }
}

#[test]
fn errors_of_user_data_have_codes_and_hints() {
    let cases: [(&[u8], &str, &str); 4] = [
        (b"", "user_data_empty", "starts with `|`"),
        (b"#cloud-config\n", "user_data_not_docker", "looks like a cloud-config"),
        (b"image: a\n", "user_data_not_docker", "`#docker`, is missing"),
        (b"#docker\nimag: a\n", "unknown_key", "line 2, column 1"),
    ];
    for (bytes, code, hint) in cases {
        let error = load(bytes).unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains(hint), "{error}");
    }
}

mod arbitrary {
    use proptest::prelude::{ProptestConfig, Strategy, any, proptest};

    use super::*;
    use crate::userdata::schema::host::HOST_KEYS;
    use crate::userdata::schema::service::SERVICE_KEYS;

    const VALID: &str = include_str!("../../../examples/everything.yaml");

    /// A valid document with a few bytes replaced, removed or put in.
    fn mutated() -> impl Strategy<Value = Vec<u8>> {
        let edit = (any::<proptest::sample::Index>(), any::<Option<u8>>(), any::<bool>());
        proptest::collection::vec(edit, 1..6).prop_map(|edits| {
            let mut bytes = VALID.as_bytes().to_vec();
            for (index, byte, is_insertion) in edits {
                let at = index.index(bytes.len());
                match (byte, is_insertion) {
                    (Some(byte), true) => bytes.insert(at, byte),
                    (Some(byte), false) => bytes[at] = byte,
                    (None, _) => drop(bytes.remove(at)),
                }
            }
            bytes
        })
    }

    /// Loading ends, and whatever loads can be planned.
    fn exercise(bytes: &[u8]) {
        let _ = signal_target_of(bytes);
        if let Ok(document) = load(bytes) {
            let _ = crate::plan::Plan::new(&document, std::path::Path::new("/state")).to_json();
        }
    }

    /// A service of some keys of the reference, as their examples have them, each key once.
    fn service() -> impl Strategy<Value = String> {
        let rows: Vec<&str> = SERVICE_KEYS
            .iter()
            .chain(HOST_KEYS)
            .map(|key| key.example)
            .filter(|example| {
                !["image:", "services:", "signal:"].iter().any(|key| example.contains(key))
            })
            .collect();
        proptest::sample::subsequence(rows, 0..8).prop_shuffle().prop_map(|examples| {
            let mut lines = vec!["image: busybox"];
            let mut seen = std::collections::HashSet::new();
            for example in examples {
                let is_new = |line: &str| seen.contains(line.split(':').next().unwrap_or_default());
                if !example.lines().any(is_new) {
                    seen.extend(example.lines().filter_map(|line| line.split(':').next()));
                    lines.extend(example.lines());
                }
            }
            lines.join("\n")
        })
    }

    fn services() -> impl Strategy<Value = String> {
        proptest::collection::vec((service(), any::<bool>()), 1..5).prop_map(|services| {
            let mut text = "#docker\nservices:\n".to_owned();
            for (index, (service, waits)) in services.iter().enumerate() {
                text.push_str(&format!("  s{index}:\n    {}\n", service.replace('\n', "\n    ")));
                if *waits && index > 0 {
                    text.push_str(&format!("    depends_on: [s{}]\n", index - 1));
                }
            }
            // What the examples name has to be there.
            text + "volumes: {cache: }\n"
        })
    }

    fn plan_of(text: &str) -> Option<serde_json::Value> {
        let document = load(text.as_bytes()).ok()?;
        Some(crate::plan::Plan::new(&document, std::path::Path::new("/state")).to_json())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_validates_plans_and_converts_to_the_same(text in services()) {
            let plan = plan_of(&text);
            proptest::prop_assume!(plan.is_some());
            let converted = convert::convert(convert::Origin::Compose, &text).expect("it validates");
            proptest::prop_assert_eq!(plan_of(&converted.text), plan, "{}", converted.text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

        #[test]
        fn bytes_do_not_panic(bytes in any::<Vec<u8>>()) {
            exercise(&bytes);
        }

        #[test]
        fn documents_do_not_panic(tail in "[ -~\n\t\u{e9}]{0,200}") {
            exercise(format!("#docker\n{tail}").as_bytes());
            exercise(format!("#docker\nimage: a\n{tail}").as_bytes());
            exercise(format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n{tail}").as_bytes());
        }

        #[test]
        fn mutated_documents_do_not_panic(bytes in mutated()) {
            exercise(&bytes);
        }
    }
}
