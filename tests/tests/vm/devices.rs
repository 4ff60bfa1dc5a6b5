//! A machine with what a cloud plugs into it: volumes with serial numbers, a config drive in the other of
//! Nova's formats, a seed that the kernel's command line names, one in the machine's own serial number, and
//! a metadata address, which containers are kept from. After its power was cut, the containers are back on
//! their volumes.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use e2e::reference;
use e2e::vm::{self, Image, Machine, Plugged, Volume};
use tempfile::TempDir;

use crate::{RESULT, Scene, power};

const ID: &str = "5e0a1a40-1111-4222-8333-000000000003";
const OTHER_ID: &str = "5e0a1a40-1111-4222-8333-000000000004";

/// The ids of volumes, whose devices have the first 20 characters.
const EMPTY: &str = "9d1c6a52-0b1e-4c6f-8a4e-2f6f3f1b7d01";
const FILLED: &str = "1f7e0b93-5a2d-4e0c-9b7a-6c1d2e3f4a02";
const DAMAGED: &str = "c3b2a190-7d6e-4f5a-8b9c-0d1e2f3a4b03";

/// The one whose number the reference has in its example.
const OF_THE_REFERENCE: &str = "0b5a1e9c-6d0f-4a86-aa51-3e4f50617204";

const VOLUME_BYTES: u64 = 16 << 20;

/// What is on the second volume before any machine sees it.
const WORDS: &str = "written on another machine";

/// The container on the volumes.
const MAIN: &str = "heliograph-main-1";

const METADATA: &str = "169.254.169.254";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![("volumes_and_seeds_are_found_on_real_devices_also_after_a_power_cut", devices)]
}

fn devices() -> Result<()> {
    let directory = TempDir::new()?;
    let image = vm::image()?;
    let disk = image.new_disk(directory.path())?;
    let volumes = volumes(directory.path())?;
    let served = directory.path().join("served");
    serve(&served, "seed", ID, &document())?;

    let drive = vm::drive::config_of_vfat(directory.path(), ID, &document())?;
    let plugged = Plugged {
        config_drive: Some(drive),
        served: Some(served.clone()),
        volumes: volumes.clone(),
        ..Plugged::default()
    };
    let first = first_boot(image, &disk, &plugged)?;

    // The devices have other names without the drive, and the network comes late.
    let plugged = Plugged {
        served: Some(served.clone()),
        volumes,
        kernel_words: seed("seed"),
        serial: Some(seed("other")),
        ..Plugged::default()
    };
    let mut machine = Machine::start(image, &disk, &plugged)?;
    volumes_are_as_they_were(&mut machine, &first)?;
    containers_are_kept_from_the_metadata(&mut machine)?;
    the_serial_number_names_a_seed(&mut machine, &served)?;
    a_damaged_volume_is_the_reason(&mut machine, &served)
}

/// What has to be the same after the power was cut.
struct First {
    containers: Vec<String>,
    file_system: String,
}

fn first_boot(image: &Image, disk: &Path, plugged: &Plugged) -> Result<First> {
    let mut machine = Machine::start(image, disk, plugged)?;
    machine.said(RESULT)?;
    ensure!(machine.console()?.contains("heliograph: SUCCESS"), "{}", machine.last_words());
    machine.said(WORDS)?;
    let containers = power::running_containers(&mut machine, 2)?;
    let file_system = machine.run("blkid --match-tag UUID --output value /dev/vdc")?;
    ensure!(machine.run("findmnt --noheadings --output FSTYPE /dev/vdc")? == "ext4");
    machine.run("sync")?;
    machine.cut_power()?;
    Ok(First { containers, file_system })
}

fn volumes_are_as_they_were(machine: &mut Machine, first: &First) -> Result<()> {
    machine.said("was signalled before")?;
    ensure!(!machine.console()?.contains(RESULT), "{}", machine.last_words());
    let again = power::running_containers(machine, 2)?;
    ensure!(again == first.containers, "other containers after the power cut");
    let file_system = machine.run("blkid --match-tag UUID --output value /dev/vdb")?;
    ensure!(file_system == first.file_system, "the volume was formatted again");
    // One line of each boot, or one more if the engine was quicker than the mount.
    let starts = format!("docker exec {MAIN} cat /store/starts | grep -c start | grep '[2-9]'");
    machine.until(&starts).map(drop)
}

/// The rules of the agent's unit on this kernel, beside Docker's own.
fn containers_are_kept_from_the_metadata(machine: &mut Machine) -> Result<()> {
    let ask = format!(
        "docker exec {MAIN} sh -c \"printf 'GET /seed/meta-data HTTP/1.0\\r\\n\\r\\n' | \
         busybox nc -w 5 {METADATA} 80\""
    );
    machine.run(&format!("curl --silent --fail http://{METADATA}/seed/meta-data"))?;
    let refused = machine.run(&format!("{ask} && exit 1; true"))?;
    ensure!(refused.contains("onnection refused"), "{refused}");
    let answered = machine.run(&format!("nft delete table inet heliograph && {ask}"))?;
    ensure!(answered.contains(ID), "it is not the rules that kept the container away: {answered}");
    Ok(())
}

/// With a command line that names nothing; another instance's container takes over the volume, and a second
/// one is what the reference has for an example.
fn the_serial_number_names_a_seed(machine: &mut Machine, served: &Path) -> Result<()> {
    let link = format!("/dev/disk/by-id/virtio-{}", &EMPTY[..20]);
    let mut examples = reference::examples()?;
    examples.retain(|example| example.contains("serial:"));
    let [example] = examples.as_slice() else { bail!("examples of volumes: {examples:?}") };
    let document = format!(
        "#docker\nservices:\n  main:\n    image: localhost/busybox\n    volumes: [\"store:/store\"]\n\
         \x20   cmd: echo by serial number; cat /store/starts; sleep 100000\n\
         \x20 example:\n    image: localhost/busybox\n    cmd: sleep 100000\n    {example}\n\
         volumes:\n  store: {{device: {link}}}\nsignal: {{stable_for: 2s}}\n"
    );
    serve(served, "other", OTHER_ID, &document)?;
    machine.run("echo console=ttyS0 >/run/words && mount --bind /run/words /proc/cmdline")?;
    machine.run("systemctl restart --no-block heliograph-agent")?;
    machine.said(RESULT)?;
    let console = machine.console()?;
    ensure!(console.contains("heliograph: SUCCESS"), "{}", machine.last_words());
    let said = console.split_once("by serial number").map(|(_, rest)| rest).unwrap_or_default();
    ensure!(said.contains("start"), "{}", machine.last_words());
    // Nobody uses the other one any more.
    machine.run("findmnt /dev/vdb && ! findmnt /dev/vdc && findmnt /dev/vde")?;
    Ok(())
}

fn a_damaged_volume_is_the_reason(machine: &mut Machine, served: &Path) -> Result<()> {
    let document = format!(
        "#docker\nservices:\n  main:\n    image: localhost/busybox\n    volumes: [\"store:/store\"]\n\
         \x20   cmd: \"true\"\nvolumes:\n  store: {{device: \"serial:{DAMAGED}\"}}\n"
    );
    serve(served, "other", OTHER_ID, &document)?;
    machine.run("systemctl restart --no-block heliograph-agent")?;
    machine.said("heliograph: FAILURE")?;
    machine.said("volume store: e2fsck failed with exit status: 4")?;
    machine.said("Root inode is not a directory")?;
    Ok(())
}

/// Uses the first volume by the number of its device, and the second by its label; and has another service
/// that needs the first, for the sake of their order.
fn document() -> String {
    format!(
        "#docker\nservices:\n  main:\n    image: localhost/busybox\n\
         \x20   volumes: [\"store:/store\", \"words:/words:ro\"]\n\
         \x20   cmd: echo start >> /store/starts; cat /words/words; sleep 100000\n\
         \x20 beside:\n    image: localhost/busybox\n    cmd: sleep 100000\n    depends_on: [main]\n\
         volumes:\n  store: {{device: \"serial:{EMPTY}\"}}\n  words: {{device: \"label:words\"}}\n\
         signal: {{stable_for: 2s}}\n"
    )
}

/// An empty one, one that another machine has written to, one that is past repair, and another empty one.
fn volumes(directory: &Path) -> Result<Vec<Volume>> {
    let make = |id: &str| -> Result<Volume> {
        let file = directory.join(id);
        File::create(&file)?.set_len(VOLUME_BYTES)?;
        Ok(Volume { file, id: id.to_owned() })
    };
    let volumes = vec![make(EMPTY)?, make(FILLED)?, make(DAMAGED)?, make(OF_THE_REFERENCE)?];
    let files = directory.join("files");
    fs::create_dir(&files)?;
    fs::write(files.join("words"), format!("{WORDS}\n"))?;
    let mut format = Command::new("mkfs.ext4");
    vm::run(format.args(["-q", "-F", "-L", "words", "-d"]).arg(&files).arg(&volumes[1].file))?;
    vm::run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&volumes[2].file))?;
    // Without the root directory, and not marked as clean.
    for request in ["clri <2>", "set_super_value state 0"] {
        vm::run(Command::new("debugfs").args(["-w", "-R", request]).arg(&volumes[2].file))?;
    }
    Ok(volumes)
}

/// Puts a seed where the metadata address serves it.
fn serve(served: &Path, name: &str, instance: &str, user_data: &str) -> Result<()> {
    let place = served.join(name);
    fs::create_dir_all(&place)?;
    fs::write(place.join("meta-data"), format!("instance-id: {instance}\n"))?;
    Ok(fs::write(place.join("user-data"), user_data)?)
}

fn seed(name: &str) -> String {
    format!("ds=nocloud;s=http://{METADATA}/{name}/")
}
