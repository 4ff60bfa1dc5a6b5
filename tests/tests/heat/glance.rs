//! Images out of a real Glance, and into it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::agent::{Asked, Instance, Ran};
use e2e::engine::{Engine, Kind, Turn};
use e2e::heat::{ApplicationCredential, Glance, Lab, User};
use e2e::relay::{Relay, Waited};
use tempfile::TempDir;

use crate::reference;
use crate::stage::{Scene, Stage};

const SIGNAL_LIMIT: Duration = Duration::from_secs(60);

/// What the image is called in Glance.
const NAME: &str = "archive-of-busybox";
const SNAPSHOTS: [&str; 2] = ["made-on-docker", "made-on-podman"];
/// An image that is a disk.
const DISK: &str = "a-disk";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new("glance::containers_are_made_of_its_images", |stage| {
        images(stage)?;
        reference::examples_with_glance_run(stage)
    })]
}

/// Who asks for what, and the log of the container or what the FAILURE has to say.
struct Case<'a> {
    what: &'a str,
    image: &'a str,
    access: &'a str,
    expect: Result<(), &'a str>,
}

fn images(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let cloud = stage.cloud()?;
    let glance = cloud.lab.glance()?;
    let engine = stage.engine()?;
    let user = cloud.lab.user("demo")?;
    let id = glance.upload(&user, NAME, "docker", engine.save("busybox:latest")?)?;
    glance.upload(&user, DISK, "bare", b"not an archive".to_vec())?;

    let [reader, member, stranger] =
        [&["reader"][..], &["reader", "member"], &["heat_stack_owner"]]
            .map(|roles| cloud.lab.application_credential(&user, roles));
    let (reader, member) = (reader?, member?);
    let by_secret = with_secret(&member);
    let (by_reader, by_stranger) = (with_secret(&reader), with_secret(&stranger?));
    let wrong = ApplicationCredential { secret: "wrong".to_owned(), ..member.clone() };
    let by_wrong_secret = with_secret(&wrong);
    let by_token = format!("token: {}", user.token);
    let by_other = format!("token: {}", cloud.lab.user("other")?.token);
    let no_such = |name: &str| format!("no image with the id or name {name} that this credential");
    let withheld = "Glance does not give the image's data to this credential (status 403)";
    let denied = "Glance refuses the credential (status 403)";
    let (none, hidden) = (no_such("no-such-image"), no_such(&id));
    let case = |what, image, access, expect| Case { what, image, access, expect };
    let cases = [
        case("id with a token", &id, &by_token, Ok(())),
        case("name with a token", NAME, &by_token, Ok(())),
        case("id with an application credential", &id, &by_secret, Ok(())),
        case("name with an application credential", NAME, &by_secret, Ok(())),
        case("another name", "no-such-image", &by_secret, Err(&none)),
        case("another project's", &id, &by_other, Err(&hidden)),
        case("a role that may see no image", &id, &by_stranger, Err(denied)),
        case("a role that may see and not have it", &id, &by_reader, Err(withheld)),
        case("a disk", DISK, &by_token, Err("container format is bare, and `docker` is needed")),
        case(
            "another secret",
            NAME,
            &by_wrong_secret,
            Err("Keystone refused the credential (status 401)"),
        ),
        case(
            "a token that is none",
            NAME,
            "token: wrong",
            Err("Keystone refused the credential (status 401)"),
        ),
    ];
    let directory = TempDir::new()?;
    let relay = Relay::start(&directory.path().join("data"))?;
    let turn = engine.turn()?;
    let runs = Runs { lab: &cloud.lab, relay: &relay, turn: &turn };
    for (n, case) in cases.iter().enumerate() {
        let image = format!("out-of-glance:{n}");
        runs.end_as_expected(&image, case).with_context(|| case.what.to_owned())?;
    }

    let refused = [(&wrong, "Keystone refused the credential"), (&reader, denied)];
    let podman = Engine::start(Kind::Podman, &[])?;
    let on_podman = Runs { turn: &podman.turn()?, ..runs };
    let [of_docker, of_podman] = SNAPSHOTS.map(|name| case("a snapshot", name, &by_secret, Ok(())));
    for (runs, kept) in [(&runs, &of_docker), (&on_podman, &of_podman)] {
        a_container_is_kept(runs, (&glance, &user), (&cases[3], kept), &member, &refused)?;
    }
    // What Podman has made runs on Docker.
    runs.end_with("out-of-podman:1", &of_podman, "cat /tmp/kept", "it is kept").map(drop)
}

/// What a container has become is put into Glance by those who may, and is there for the next one.
fn a_container_is_kept(
    runs: &Runs<'_>,
    (glance, user): (&Glance, &User),
    (first, second): (&Case<'_>, &Case<'_>),
    member: &ApplicationCredential,
    refused: &[(&ApplicationCredential, &str)],
) -> Result<()> {
    let made = "[sh, -c, 'echo it is kept > /tmp/kept; cat /tmp/kept']";
    let maker = runs.end_with("maker:1", first, made, "it is kept")?;
    for (who, words) in refused {
        let asked = snapshot(runs.lab, &maker, second.image, who)?;
        ensure!(asked.exit_code != Some(0) && asked.complained.contains(words), "{asked:?}");
        ensure!(glance.images(user, second.image)?.is_empty(), "a failure has left an image");
    }
    let asked = snapshot(runs.lab, &maker, second.image, member)?;
    ensure!(asked.exit_code == Some(0), "{asked:?}");
    let [kept] = &glance.images(user, second.image)?[..] else { bail!("not one image: {asked:?}") };
    ensure!(kept["status"] == "active" && kept["container_format"] == "docker", "{kept}");
    let kept_id = kept["id"].as_str().context("an image without id")?;
    ensure!(asked.printed.contains(kept_id), "{asked:?}");
    runs.end_with("out-of-glance:kept", second, "cat /tmp/kept", "it is kept").map(drop)
}

fn with_secret(credential: &ApplicationCredential) -> String {
    let ApplicationCredential { id, secret } = credential;
    format!("application_credential_id: {id}, application_credential_secret: {secret}")
}

fn snapshot(lab: &Lab, maker: &Instance, name: &str, who: &ApplicationCredential) -> Result<Asked> {
    let directory = TempDir::new()?;
    let file = directory.path().join("secret");
    std::fs::write(&file, format!("{}\n", who.secret))?;
    let file = file.to_str().context("no text")?;
    let to_glance = ["snapshot", "main", "--to", "glance", name];
    let who = ["--application-credential-id", &who.id, "--secret-file", file];
    let keystone = ["--auth-url", lab.fact("keystone_url")?];
    maker.ask(&[&to_glance[..], &who, &keystone].concat())
}

/// Where documents run, and what they signal.
#[derive(Clone, Copy)]
struct Runs<'a> {
    lab: &'a Lab,
    relay: &'a Relay,
    turn: &'a Turn<'a>,
}

impl Runs<'_> {
    fn end_as_expected(&self, image: &str, case: &Case<'_>) -> Result<()> {
        self.end_with(image, case, "echo it is here", "it is here").map(drop)
    }

    fn end_with(&self, image: &str, case: &Case<'_>, command: &str, log: &str) -> Result<Instance> {
        let keystone = self.lab.fact("keystone_url")?;
        let handle = self.relay.create_handle_quickly()?;
        let document = format!(
            "#docker\nsignal: {{url: \"{}\", when: exit, timeout: 45s}}\nimage: {image}\n\
             image_archive: \"glance:{}\"\nglance: {{auth_url: \"{keystone}/v3\", {}}}\n\
             cmd: {command}\noutputs: [exit_code, logs_tail]\n",
            handle.signal_url, case.image, case.access
        );
        let id = image.replace(':', "-");
        let instance = Instance::new(&id, &self.turn.engine.url(), &document)?;
        let ran = instance.run()?;
        let waited = self.relay.wait(&handle, SIGNAL_LIMIT)?;
        let checked = check(&waited, &ran, case, log);
        checked.with_context(|| format!("{waited:?}{}", ran.last_words))?;
        Ok(instance)
    }
}

fn check(waited: &Waited, ran: &Ran, case: &Case<'_>, log: &str) -> Result<()> {
    let Err(words) = case.expect else {
        ensure!(waited.exit_code == Some(0));
        ensure!(waited.view.to_string().contains(log));
        return Ok(());
    };
    ensure!(waited.exit_code == Some(1));
    let reason = waited.view["reason"].as_str().context("no reason")?;
    eprintln!("  {}: {reason}", case.what);
    ensure!(reason.contains(words), "the reason lacks {words:?}");
    ensure!(ran.console.contains(words), "the console lacks {words:?}: {}", ran.console);
    Ok(())
}
