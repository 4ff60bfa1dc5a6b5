//! Images from registries as they are met: with a password, with a certificate of somebody's own,
//! behind a mirror, pinned by digest; on real registries.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::engine::Kind;
use e2e::registry::{PASSWORD, USER};

use crate::stage::{Registries, Scene, Stage, Waiting, only_data};

const SIGNAL_LIMIT: Duration = Duration::from_secs(60);

/// A password that is not the right one, and must not turn up anywhere either.
const WRONG_PASSWORD: &str = "not-the-password";

/// One way to get an image, or not.
#[derive(Clone)]
struct Case {
    name: &'static str,
    kinds: &'static [Kind],
    /// `image`, and `registries` or what takes its place.
    keys: fn(&Registries) -> Result<String>,
    /// The container ran; or what the reason of the FAILURE has in it.
    expect: Result<(), &'static [&'static str]>,
}

const BOTH: &[Kind] = &[Kind::Docker, Kind::Podman];
/// Docker does not look at certificates of registries on the loopback address.
const PODMAN: &[Kind] = &[Kind::Podman];
const DOCKER: &[Kind] = &[Kind::Docker];

const CASES: &[Case] = &[
    Case {
        name: "password",
        kinds: BOTH,
        keys: |registries| with_password(&registries.protected_image(), PASSWORD),
        expect: Ok(()),
    },
    Case {
        name: "wrong_password",
        kinds: BOTH,
        keys: |registries| with_password(&registries.protected_image(), WRONG_PASSWORD),
        expect: Err(&["registry refused access", "hello:1", "username and password"]),
    },
    Case {
        name: "private_ca",
        kinds: BOTH,
        keys: |registries| {
            access(&registries.private_image(), &format!("ca: {:?}", registries.authority()?))
        },
        expect: Ok(()),
    },
    Case {
        name: "private_ca_unknown",
        kinds: PODMAN,
        keys: |registries| Ok(format!("image: {}", registries.private_image())),
        expect: Err(&["no secure connection", "certificate", "`ca`"]),
    },
    Case {
        name: "private_ca_of_somebody_else",
        kinds: DOCKER,
        keys: |registries| {
            let other = registries.other_authority()?;
            access(&registries.private_image(), &format!("ca: {other:?}"))
        },
        expect: Err(&["no secure connection", "certificate", "`ca`"]),
    },
    Case {
        name: "insecure",
        kinds: DOCKER,
        keys: |registries| access(&registries.private_image(), "insecure: true"),
        expect: Ok(()),
    },
    Case {
        name: "mirror",
        kinds: BOTH,
        keys: |registries| {
            let mirror = registries.hello_image().replace("/hello:1", "");
            Ok(format!(
                "image: registry.invalid/hello:1\n\
                 registries: {{registry.invalid: {{mirror: \"http://{mirror}\"}}}}"
            ))
        },
        expect: Ok(()),
    },
    Case {
        name: "digest",
        kinds: BOTH,
        keys: |registries| Ok(format!("image: {}", registries.pinned_image()?)),
        expect: Ok(()),
    },
    Case {
        name: "digest_unknown",
        kinds: BOTH,
        keys: |registries| {
            let image = registries.hello_image();
            Ok(format!("image: {image}@sha256:{}", "0".repeat(64)))
        },
        expect: Err(&["no image of this digest", "sha256:0000"]),
    },
    Case {
        name: "digest_mismatch",
        kinds: BOTH,
        keys: |registries| Ok(format!("image: {}", registries.tampered_image()?)),
        expect: Err(&["does not have its digest", "do not use it"]),
    },
    Case {
        name: "digest_mismatch_without_the_engine",
        kinds: DOCKER,
        keys: |registries| access(&registries.tampered_image()?, "insecure: true"),
        expect: Err(&["does not have its digest", "do not use it"]),
    },
];

fn with_password(image: &str, password: &str) -> Result<String> {
    access(image, &format!("username: {USER}, password: {password}"))
}

/// An image, and what its registry's entry says.
fn access(image: &str, entry: &str) -> Result<String> {
    let (host, _) = image.split_once('/').context("an image with a registry")?;
    Ok(format!("image: {image}\nregistries: {{\"{host}\": {{{entry}}}}}"))
}

pub(crate) fn scenes() -> Vec<Scene> {
    let mut scenes = Vec::new();
    for case in CASES {
        for kind in case.kinds {
            let name = format!("registries::{}::{}", kind.name(), case.name);
            scenes.push(Scene::new(name, |stage| ends_as_expected(stage, *kind, case)));
        }
    }
    scenes
}

fn ends_as_expected(stage: &Stage, kind: Kind, case: &Case) -> Result<()> {
    let registries = stage.filled_registries()?;
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    // What another scene has pulled is asked for again.
    let keys = format!(
        "{}\npull_policy: always\ncmd: echo it is here\noutputs: [exit_code, logs_tail]",
        (case.keys)(&registries)?
    );
    let document = waiting.document(", when: exit", &keys);
    let ran = Instance::new(case.name, &turn.engine.url(), &document)?.run()?;
    let waited = waiting.relay.wait(&waiting.handle, SIGNAL_LIMIT)?;
    for (place, text) in [("console", &ran.console), ("log", &ran.last_words)] {
        for password in [PASSWORD, WRONG_PASSWORD] {
            ensure!(!text.contains(password), "a password is in the {place}: {text}");
        }
    }
    let Err(words) = case.expect else {
        ensure!(waited.exit_code == Some(0), "{waited:?}{}", ran.last_words);
        let data = only_data(&waited.view)?;
        ensure!(data["logs_tail"] == "it is here", "{data}");
        return Ok(());
    };
    ensure!(waited.exit_code == Some(1), "{waited:?}{}", ran.last_words);
    let reason = waited.view["reason"].as_str().context("no reason")?;
    eprintln!("  {}: {reason}", case.name);
    for word in words {
        ensure!(reason.contains(word), "the reason lacks {word:?}: {reason}");
    }
    ensure!(!reason.contains(PASSWORD) && !reason.contains(WRONG_PASSWORD), "{reason}");
    Ok(())
}
