//! The examples of the reference that take an image out of Glance, run with a real one.

use anyhow::{Result, ensure};
use e2e::agent::Instance;
use e2e::reference;

use crate::stage::Stage;

/// What an image is called in every example.
const NAME: &str = "busybox";

pub(crate) fn examples_with_glance_run(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    let glance = cloud.lab.glance()?;
    let engine = stage.engine()?;
    let user = cloud.lab.user("demo")?;
    glance.upload(&user, NAME, "docker", engine.save("busybox:latest")?)?;
    let credential = cloud.lab.application_credential(&user, &["member", "reader"])?;
    let keystone = format!("{}/v3", cloud.lab.fact("keystone_url")?);
    let access = format!("glance: {{auth_url: \"{keystone}\", token: {}}}", user.token);
    // Where the lab is, and who may ask: what the examples can only stand for.
    let stands_for = [
        ("https://keystone.example/v3", keystone.as_str()),
        ("https://glance.example", cloud.lab.fact("glance_url")?),
        ("token: not-really", &format!("token: {}", user.token)),
        (
            "application_credential_id: abc",
            &format!("application_credential_id: {}", credential.id),
        ),
        (
            "application_credential_secret: not really",
            &format!("application_credential_secret: {}", credential.secret),
        ),
        ("region: north", "region: RegionOne"),
    ];
    let examples: Vec<String> =
        reference::examples()?.into_iter().filter(|example| example.contains("glance:")).collect();
    ensure!(examples.len() >= 4, "only {} examples have Glance", examples.len());
    let turn = engine.turn()?;
    for (index, example) in examples.iter().enumerate() {
        let mut keys = stands_for
            .iter()
            .fold(example.clone(), |text, (written, meant)| text.replace(written, meant));
        if !keys.lines().any(|line| line.starts_with("glance:")) {
            keys = format!("{keys}\n{access}");
        }
        if !keys.lines().any(|line| line.starts_with("image:")) {
            keys = format!("image: {NAME}\n{keys}");
        }
        let document = format!(
            "#docker\n{keys}\npull_policy: always\ncmd: echo it is here\nsignal: {{when: exit}}\n"
        );
        let id = format!("example-{index}");
        let ran = Instance::new(&id, &turn.engine.url(), &document)?.run()?;
        let is_good = ran.status.success() && ran.console.contains("it is here");
        ensure!(is_good, "{example}\n{}{}", ran.console, ran.last_words);
        ensure!(ran.console.contains("loading busybox from"), "{}", ran.console);
    }
    Ok(())
}
