//! Every example of the reference, run: what it names is there, under the names that it has.
//!
//! The names of hosts resolve to addresses of the loopback where real servers are: relay, registries,
//! a server of files, each behind TLS of an authority that the agent is told to trust. What an example
//! only stands for is put in the place of it: credentials, digests, certificates. Those tables are
//! all that is done to an example; what is left of the page is in [`ELSEWHERE`].

mod world;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::agent::{Instance, Ran};
use e2e::engine::{Engine, Kind};
use e2e::reference;

use crate::examples::world::World;
use crate::stage::{IDLE, Scene, Stage};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("examples::docker::every_example_runs", every_example_runs),
        Scene::new("examples::podman::those_that_want_every_privilege", privileged_ones),
    ]
}

/// Examples by a part of their text, and which other scene runs them.
const ELSEWHERE: [(&str, &str); 3] = [
    (
        "privileged: true",
        "on Podman: Docker cannot give privileges that a test may not have itself",
    ),
    ("glance:", "glance::containers_are_made_of_its_images, where Glance is"),
    ("serial:", "devices of a virtual machine: only a hypervisor gives a serial number"),
];

/// What engines refuse where the machine does not have it, and their words. Where it is there, the
/// example runs.
const MAY_BE_REFUSED: [(&str, &str); 2] = [
    ("gpus:", "could not select device driver"),
    ("storage_opt:", "supported only for overlay over xfs with 'pquota'"),
];

/// Keys beside those of an example, by a part of its text: an image that comes from where the example
/// says, although the engine has one of that name.
const COMPLETIONS: [(&str, &str); 4] = [
    (
        "heat.example",
        "ca_certificates: |\n  -----BEGIN CERTIFICATE-----\n  MAA=\n  -----END CERTIFICATE-----",
    ),
    ("image_archive:", "pull_policy: always"),
    ("mirror:", "image: registry.example:5000/hello:1\npull_policy: always"),
    (
        "proxy:",
        "image: registry.example:5000/hello:1\npull_policy: always\nregistries: {registry.example:5000: {username: USER, password: PASSWORD}}",
    ),
];

fn every_example_runs(stage: &Stage) -> Result<()> {
    let engine = stage.engine(Kind::Docker)?;
    let examples = reference::examples()?;
    ensure!(examples.len() > 130, "{} examples on the page", examples.len());
    let examples: Vec<String> =
        examples.into_iter().filter(|example| !is_one_of(&ELSEWHERE, example)).collect();
    ensure!(examples.len() > 120, "only {} examples are run here", examples.len());
    let world = World::make(stage, &engine)?;
    let (services, documents): (Vec<String>, Vec<String>) = examples
        .into_iter()
        .map(|example| world.with_what_it_stands_for(&completed(&example)))
        .partition(|example| is_service(example));
    let mut failures = String::new();
    let mut note = |example: &str, outcome: Result<()>| {
        if let Err(error) = outcome {
            failures.push_str(&format!("{example}\n{error:#}\n"));
        }
    };
    for group in services.chunks(GROUP) {
        if let Err(error) = runs(&world, &grouped(group)) {
            // One by one, to see which. If it is none, they do not go together.
            note("a group", Err(error));
            group.iter().for_each(|example| note(example, runs(&world, &alone(example))));
        }
    }
    for example in &documents {
        note(example, ends_as_the_page_says(&world, example));
    }
    note("the examples of `signal`", world.has_been_told());
    note("the examples of `proxy`", world.has_been_passed());
    ensure!(failures.is_empty(), "{failures}");
    Ok(())
}

fn privileged_ones(stage: &Stage) -> Result<()> {
    let engine = stage.engine(Kind::Podman)?;
    let (part, _) = ELSEWHERE[0];
    let examples = reference::examples()?;
    let privileged: Vec<&String> =
        examples.iter().filter(|example| example.contains(part)).collect();
    ensure!(!privileged.is_empty(), "no example has {part}");
    for example in privileged {
        let turn = engine.turn()?;
        let document = format!("#docker\n{}\n", alone(&completed(example)));
        let ran = Instance::new("example", &turn.engine.url(), &document)?.run()?;
        made_a_container(turn.engine, &ran).context(document)?;
    }
    Ok(())
}

fn is_one_of(table: &[(&str, &str)], example: &str) -> bool {
    table.iter().any(|(part, _)| example.contains(part))
}

fn ends_as_the_page_says(world: &World<'_>, example: &str) -> Result<()> {
    let Some((_, words)) = MAY_BE_REFUSED.iter().find(|(part, _)| example.contains(part)) else {
        return runs(world, &alone(example));
    };
    let document = alone(example);
    world.run(&document, |engine, ran| {
        if ran.status.success() {
            return made_a_container(engine, ran);
        }
        ensure!(ran.console.contains(words), "the reason lacks {words:?}: {}", ran.console);
        Ok(())
    })
}

fn runs(world: &World<'_>, document: &str) -> Result<()> {
    world.run(document, made_a_container)
}

fn made_a_container(engine: &Engine, ran: &Ran) -> Result<()> {
    if !ran.status.success() {
        bail!("{}{}{}", ran.status, ran.console, ran.last_words);
    }
    ensure!(!engine.containers()?.is_empty(), "no container was made");
    Ok(())
}

/// Examples of a service's keys are services of one document, because starting an agent for each
/// takes longer than starting a container.
const GROUP: usize = 15;

/// Whether the example can be one service among others, whatever becomes of them.
fn is_service(example: &str) -> bool {
    let others = [
        "services:",
        "signal:",
        "outputs:",
        "inputs:",
        "registries:",
        "proxy:",
        "ca_certificates:",
        "strict:",
        "version:",
    ];
    // What ends by itself would be waited for among others.
    let is_alone = ["device: \"", "cmd: date"].iter().any(|part| example.contains(part))
        || is_one_of(&MAY_BE_REFUSED, example);
    !is_alone && !others.iter().any(|key| has(example, key))
}

fn has(example: &str, key: &str) -> bool {
    example.lines().any(|line| line.starts_with(key))
}

/// With an image and something to do, where the example names none.
fn completed(example: &str) -> String {
    if has(example, "services:") {
        return example
            .replace("image: busybox,", &format!("image: busybox, cmd: {IDLE},"))
            .replace("image: busybox}", &format!("image: busybox, cmd: {IDLE}}}"))
            .replace("    image: busybox\n", &format!("    image: busybox\n    cmd: {IDLE}\n"));
    }
    let mut keys = example.to_owned();
    for (_, more) in COMPLETIONS.iter().filter(|(part, _)| example.contains(part)) {
        keys = format!("{more}\n{keys}");
    }
    if !has(&keys, "image:") {
        keys = format!("image: busybox\n{keys}");
    }
    if !has(&keys, "cmd:") && !has(&keys, "command:") {
        keys = format!("{keys}\ncmd: {IDLE}");
    }
    keys
}

fn grouped(examples: &[String]) -> String {
    // What the examples name has to be there.
    let mut document =
        "signal: {when: created}\nvolumes: {cache: }\nnetworks: {front: }\nservices:\n".to_owned();
    for (index, example) in examples.iter().enumerate() {
        let service = example.replace('\n', "\n    ");
        document.push_str(&format!("  s{index}:\n    {service}\n"));
    }
    document
}

/// A document of its own.
fn alone(example: &str) -> String {
    match has(example, "signal:") {
        true => example.to_owned(),
        false => format!("{example}\nsignal: {{when: created}}"),
    }
}
