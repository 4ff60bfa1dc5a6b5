//! Beside cloud-init: the same user data, read by Debian's real cloud-init and by the agent, in one
//! root file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use e2e::programs;
use tempfile::TempDir;

use crate::stage::{Scene, Stage};

const MIME: &str = "Content-Type: multipart/mixed; boundary=\"b\"\nMIME-Version: 1.0\n\n\
    --b\nContent-Type: text/cloud-config\n\n\
    #cloud-config\nbootcmd: [touch /run/cloud-config-was-read]\n\n\
    --b\nContent-Type: text/x-docker\n\n#docker\nimage: centos\n\n--b--\n";
const BARE: &str = "#docker\nimage: centos\n";
const OTHER: &str = "this is for nobody\n";

/// User data, with or without the handler, and what cloud-init has to say.
#[derive(Clone)]
struct Case {
    name: &'static str,
    user_data: &'static str,
    has_handler: bool,
    expect: &'static str,
    is_document: bool,
}

const CASES: &[Case] = &[
    Case {
        name: "mime",
        user_data: MIME,
        has_handler: true,
        expect: "status: done\ncloud-config was read\n",
        is_document: true,
    },
    Case {
        name: "mime_without_handler",
        user_data: MIME,
        has_handler: false,
        expect: "status: done\ncloud-config was read\n\
            WARNING: Unhandled unknown content-type (text/x-docker) userdata: 'b'#docker'...'\n",
        is_document: true,
    },
    Case {
        name: "bare",
        user_data: BARE,
        has_handler: true,
        expect: "status: done\n",
        is_document: true,
    },
    Case {
        name: "bare_without_handler",
        user_data: BARE,
        has_handler: false,
        expect: "status: done\n\
            WARNING: Unhandled non-multipart (text/x-not-multipart) userdata: 'b'#docker'...'\n",
        is_document: true,
    },
    Case {
        name: "of_somebody_else",
        user_data: OTHER,
        has_handler: true,
        expect: "status: done\n\
            WARNING: Unhandled non-multipart (text/x-not-multipart) userdata\n",
        is_document: false,
    },
];

/// The tree is built once, and each boot mounts in it.
static TURN: Mutex<()> = Mutex::new(());

pub(crate) fn scenes() -> Vec<Scene> {
    let scene = |case: &'static Case| {
        Scene::new(format!("cloud_init::{}", case.name), |stage| boots_as_expected(stage, case))
    };
    CASES.iter().map(scene).collect()
}

fn boots_as_expected(_stage: &Stage, case: &Case) -> Result<()> {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let root = programs::target_directory()?.join("cloud-init");
    run(&script("build"), &[&root])?;
    let directory = TempDir::new()?;
    let user_data = directory.path().join("user-data");
    fs::write(&user_data, case.user_data)?;
    let handler = programs::source_tree().join("images/cloud-init/heliograph_docker.py");
    let mut arguments = vec![root.as_path(), &user_data];
    arguments.extend(case.has_handler.then_some(handler.as_path()));
    let said = run(&script("boot"), &arguments)?;
    ensure!(said == case.expect, "cloud-init says {said:?} instead of {:?}", case.expect);

    // Whatever cloud-init makes of it, it is the agent's document.
    let agent = programs::heliograph_agent()?;
    let validated = Command::new(agent).arg("validate").arg(&user_data).output()?;
    ensure!(validated.status.success() == case.is_document, "{validated:?}");
    Ok(())
}

fn script(name: &str) -> PathBuf {
    programs::source_tree().join("tests/cloud-init").join(name)
}

fn run(program: &Path, arguments: &[&Path]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("failed to run {}", program.display()))?;
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {said}{errors}", program.display());
    Ok(said.into_owned())
}
