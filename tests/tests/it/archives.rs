//! Images out of archives, where no registry is: a path, a directory, a URL, a volume.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::engine::Kind;
use e2e::process::Process;
use e2e::wait;
use tempfile::TempDir;

use crate::stage::{Scene, Stage, Waiting, free_address, only_data};

const SIGNAL_LIMIT: Duration = Duration::from_secs(60);

/// What the archives have in them, under the name that the document gives it.
const IMAGE: &str = "out-of-an-archive:1";

/// The label of the volume. The last letters make it no other volume of this machine.
const LABEL: &str = "images-e2e";

/// One place for an archive.
#[derive(Clone)]
struct Case {
    name: &'static str,
    kinds: &'static [Kind],
    archive: fn(&Archives) -> Result<String>,
    expect: Result<(), &'static [&'static str]>,
}

const BOTH: &[Kind] = &[Kind::Docker, Kind::Podman];
const DOCKER: &[Kind] = &[Kind::Docker];

const CASES: &[Case] = &[
    Case {
        name: "path",
        kinds: BOTH,
        archive: |archives| Ok(archives.path("saved.tar")),
        expect: Ok(()),
    },
    Case {
        name: "oci_layout",
        kinds: BOTH,
        archive: |archives| Ok(archives.path("layout")),
        expect: Ok(()),
    },
    Case {
        name: "oci_archive",
        kinds: DOCKER,
        archive: |archives| Ok(archives.path("oci.tar")),
        expect: Ok(()),
    },
    Case {
        name: "url",
        kinds: BOTH,
        archive: |archives| {
            let sha256 = archives.sha256("saved.tar.gz")?;
            Ok(format!("{{url: \"{}\", sha256: {sha256}}}", archives.url("saved.tar.gz")))
        },
        expect: Ok(()),
    },
    Case {
        name: "url_with_another_sha256",
        kinds: DOCKER,
        archive: |archives| {
            let sha256 = archives.sha256("saved.tar")?;
            Ok(format!("{{url: \"{}\", sha256: {sha256}}}", archives.url("saved.tar.gz")))
        },
        expect: Err(&["out-of-an-archive:1", "it has the digest", "instead of"]),
    },
    Case {
        name: "url_with_nothing_there",
        kinds: DOCKER,
        archive: |archives| Ok(format!("{{url: \"{}\"}}", archives.url("none.tar"))),
        expect: Err(&["out-of-an-archive:1", "answered 404"]),
    },
    Case {
        name: "volume",
        kinds: DOCKER,
        archive: |_| Ok(format!("{{volume: \"label:{LABEL}\", path: /saved.tar}}")),
        expect: Ok(()),
    },
    Case {
        name: "no_archive",
        kinds: DOCKER,
        archive: |_| Ok("/etc/hostname".to_owned()),
        expect: Err(&["out-of-an-archive:1", "neither an archive of `docker save` nor an OCI"]),
    },
];

pub(crate) fn scenes() -> Vec<Scene> {
    let mut scenes = Vec::new();
    for case in CASES {
        for kind in case.kinds {
            let name = format!("archives::{}::{}", kind.name(), case.name);
            scenes.push(Scene::new(name, |stage| ends_as_expected(stage, *kind, case)));
        }
    }
    scenes
}

fn ends_as_expected(stage: &Stage, kind: Kind, case: &Case) -> Result<()> {
    let archives = Archives::make(stage)?;
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let keys = format!(
        "image: {IMAGE}\nimage_archive: {}\npull_policy: always\ncmd: echo it is here\n\
         outputs: [exit_code, logs_tail]",
        (case.archive)(&archives)?
    );
    let document = waiting.document(", when: exit", &keys);
    let ran = Instance::new(case.name, &turn.engine.url(), &document)?.run()?;
    let waited = waiting.relay.wait(&waiting.handle, SIGNAL_LIMIT)?;
    let Err(words) = case.expect else {
        ensure!(waited.exit_code == Some(0), "{waited:?}{}", ran.last_words);
        let data = only_data(&waited.view)?;
        ensure!(data["logs_tail"] == "it is here", "{data}");
        ensure!(turn.engine.has_image(IMAGE)?, "the image has not the document's name");
        return Ok(());
    };
    ensure!(waited.exit_code == Some(1), "{waited:?}{}", ran.last_words);
    let reason = waited.view["reason"].as_str().context("no reason")?;
    eprintln!("  {}: {reason}", case.name);
    for word in words {
        ensure!(reason.contains(word), "the reason lacks {word:?}: {reason}");
    }
    Ok(())
}

/// One image as every kind of archive, a server of them, and a volume with one.
struct Archives {
    directory: TempDir,
    address: String,
    _server: Process,
    device: String,
}

impl Archives {
    fn make(stage: &Stage) -> Result<Archives> {
        let directory = TempDir::new()?;
        let path = directory.path();
        let docker = stage.engine(Kind::Docker)?;
        fs::write(path.join("saved.tar"), docker.save("centos:latest")?)?;
        run(path, "gzip --keep saved.tar")?;
        run(path, "skopeo copy --quiet docker-archive:saved.tar oci-archive:oci.tar:1")?;
        run(path, "skopeo copy --quiet docker-archive:saved.tar oci:layout:1")?;
        fs::create_dir(path.join("files"))?;
        fs::copy(path.join("saved.tar"), path.join("files/saved.tar"))?;
        run(
            path,
            &format!("truncate --size 16M volume && mkfs.ext4 -q -L {LABEL} -d files volume"),
        )?;
        let device = run(path, "losetup --find --show --read-only volume")?;

        let address = free_address()?;
        let mut command = Command::new("busybox");
        command.args(["httpd", "-f", "-p", &address, "-h"]).arg(path);
        let server = Process::spawn("httpd", &mut command, path)?;
        wait::until("the server of archives", SIGNAL_LIMIT, || {
            Ok(std::net::TcpStream::connect(&address).ok())
        })?;
        Ok(Archives { directory, address, _server: server, device })
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    fn sha256(&self, name: &str) -> Result<String> {
        let printed = run(self.directory.path(), &format!("sha256sum {name}"))?;
        Ok(printed.split(' ').next().unwrap_or_default().to_owned())
    }
}

impl Drop for Archives {
    fn drop(&mut self) {
        let _best_effort = run(Path::new("/"), &format!("losetup --detach {}", self.device));
    }
}

fn run(directory: &Path, command: &str) -> Result<String> {
    let output = Command::new("sh").args(["-c", command]).current_dir(directory).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command}: {errors}; is it installed? run `make test-deps`");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
