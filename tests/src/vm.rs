//! Virtual machines: a Debian with Docker and the agent's package in it, booted under QEMU.
//!
//! The processor is emulated, so that the scenes run wherever the other tests run; a boot to the
//! container's signal takes some 25 s on a quiet machine. A machine has two serial lines: the console,
//! kept in a file as a cloud keeps it, and one with a shell on it (`shell`), through which a scene
//! looks inside. Its disk is a layer over the image's, so it can be changed, copied and thrown away.

mod shell;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tempfile::TempDir;

use crate::process::Process;
use crate::vm::shell::Shell;
use crate::{programs, wait};

/// From power-on to whatever a scene waits for. A quiet machine takes a sixth of it.
pub const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// What the disk of a new machine is made of.
#[derive(Debug)]
pub struct Image {
    root: PathBuf,
    disk: PathBuf,
}

/// What is plugged into a machine besides its disk.
#[derive(Clone, Debug, Default)]
pub struct Plugged {
    /// A config drive, made by [`config_drive`].
    pub config_drive: Option<PathBuf>,
    pub network: Option<Network>,
    /// Words for the kernel, after `console=ttyS0`.
    pub kernel_words: String,
}

/// A network card.
#[derive(Clone, Debug)]
pub struct Network {
    /// The network namespace in which the tap device is, and QEMU runs.
    pub namespace: String,
    pub tap: String,
    pub mac: String,
}

/// A machine that is on.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    directory: TempDir,
    shell: Shell,
}

/// The image with this build's agent. The first call makes it; the rest of it is made once for all runs.
pub fn image() -> Result<&'static Image> {
    static IMAGE: OnceLock<Result<Image, String>> = OnceLock::new();
    let made = IMAGE.get_or_init(|| Image::make().map_err(|error| format!("{error:#}")));
    made.as_ref().map_err(|text| anyhow::anyhow!("{text}"))
}

impl Image {
    fn make() -> Result<Image> {
        let root = programs::target_directory()?.join("vm");
        run(Command::new(script("build")).arg(&root))?;
        let package = packages()?.join("agent.deb");
        let disk = root.join("disk.img");
        run(Command::new(script("image")).arg(&root).arg(&disk).arg(package))?;
        Ok(Image { root, disk })
    }

    /// A new disk, in `directory`.
    pub fn new_disk(&self, directory: &Path) -> Result<PathBuf> {
        layer(&self.disk, "raw", &directory.join("disk.qcow2"))
    }
}

/// A copy of a disk that a machine has written to, as a snapshot of an instance is. The machine is off.
pub fn copy_of_disk(disk: &Path, directory: &Path) -> Result<PathBuf> {
    layer(disk, "qcow2", &directory.join("copy.qcow2"))
}

fn layer(below: &Path, format: &str, disk: &Path) -> Result<PathBuf> {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(below).arg(disk);
    run(&mut command)?;
    Ok(disk.to_owned())
}

/// The packages of this build, as `agent.deb`, `agent.rpm`, `server.deb` and `server.rpm` in one
/// directory.
pub fn packages() -> Result<PathBuf> {
    static PACKAGES: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = PACKAGES.get_or_init(|| make_packages().map_err(|error| format!("{error:#}")));
    made.clone().map_err(anyhow::Error::msg)
}

fn make_packages() -> Result<PathBuf> {
    let out = programs::target_directory()?.join("vm-packages");
    let programs = [programs::heliograph_agent()?, programs::heliograph_server()?];
    run(Command::new(script("packages")).arg(&out).args(programs))?;
    Ok(out)
}

/// A config drive as Nova makes it, in `directory`.
pub fn config_drive(directory: &Path, instance: &str, user_data: &str) -> Result<PathBuf> {
    let tree = directory.join(format!("drive-{instance}"));
    let latest = tree.join("openstack/latest");
    fs::create_dir_all(&latest)?;
    let meta_data = json!({"uuid": instance, "name": "scene", "hostname": "scene"});
    fs::write(latest.join("meta_data.json"), meta_data.to_string())?;
    fs::write(latest.join("user_data"), user_data)?;
    let drive = directory.join(format!("drive-{instance}.iso"));
    let mut command = Command::new("genisoimage");
    command.args(["-quiet", "-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-J", "-r"]);
    run(command.args(["-V", "config-2", "-o"]).arg(&drive).arg(&tree))?;
    Ok(drive)
}

impl Machine {
    /// Switches a machine on.
    pub fn start(image: &Image, disk: &Path, plugged: &Plugged) -> Result<Machine> {
        let directory = TempDir::with_prefix("heliograph-vm-")?;
        let file = |name: &str| directory.path().join(name).display().to_string();
        let mut command = match &plugged.network {
            Some(network) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &network.namespace, "qemu-system-x86_64"]);
                command
            }
            None => Command::new("qemu-system-x86_64"),
        };
        let words = &plugged.kernel_words;
        // On busy processors an emulated timer fails the kernel's check of it.
        command
            .args(["-accel", "tcg", "-m", "1024", "-smp", "2", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-kernel"])
            .arg(image.root.join("vmlinuz"))
            .arg("-initrd")
            .arg(image.root.join("initrd.img"))
            .args([
                "-append",
                &format!(
                    "console=ttyS0 no_timer_check systemd.show_status=0 net.ifnames=0 {words}"
                ),
            ])
            .args(["-drive", &format!("file={},if=virtio,format=qcow2", disk.display())])
            .args(["-serial", &format!("file:{}", file("console"))])
            .args(["-serial", &format!("unix:{},server=on,wait=off", file("shell"))])
            .args(["-monitor", &format!("unix:{},server=on,wait=off", file("monitor"))]);
        if let Some(drive) = &plugged.config_drive {
            let drive = drive.display();
            command.args(["-drive", &format!("file={drive},if=virtio,format=raw,readonly=on")]);
        }
        if let Some(network) = &plugged.network {
            let tap = &network.tap;
            command
                .args(["-netdev", &format!("tap,id=net,ifname={tap},script=no,downscript=no")])
                .args([
                    "-device",
                    &format!("virtio-net-pci,netdev=net,romfile=,mac={}", network.mac),
                ]);
        }
        let process = Process::spawn("qemu", &mut command, directory.path())
            .context("is qemu-system-x86 installed? run `make test-deps`")?;
        let shell = Shell::new(directory.path().join("shell"));
        Ok(Machine { process, directory, shell })
    }

    /// Everything that was written on the console since power-on.
    pub fn console(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.console_file()).unwrap_or_default()).into_owned())
    }

    /// The file that the cloud would show.
    pub fn console_file(&self) -> PathBuf {
        self.directory.path().join("console")
    }

    /// Waits until the console has a line with this in it.
    pub fn said(&mut self, text: &str) -> Result<()> {
        wait::until(&format!("{text:?} on the console"), BOOT_LIMIT, || {
            if let Some(status) = self.process.has_ended()? {
                bail!("the machine ended with {status}:{}", self.process.last_words());
            }
            Ok(self.console()?.contains(text).then_some(()))
        })
        .with_context(|| self.last_words())
    }

    /// What a command prints in the machine, which must be up to the point of having a shell.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.shell.run(command).with_context(|| format!("{command}{}", self.last_words()))
    }

    /// Waits until a command succeeds in the machine, and gives what it printed.
    pub fn until(&mut self, command: &str) -> Result<String> {
        let shell = &mut self.shell;
        let waited = wait::until(&format!("success of {command}"), BOOT_LIMIT, || {
            Ok(shell.try_run(command)?.and_then(|(code, output)| (code == 0).then_some(output)))
        });
        waited.with_context(|| self.last_words())
    }

    /// Tells the shell that the machine begins anew: what was asked before is not answered any more.
    pub fn begins_anew(&mut self) {
        self.shell.forget();
    }

    /// Presses the reset button.
    pub fn reset(&mut self) -> Result<()> {
        use std::io::Write as _;
        use std::os::unix::net::UnixStream;
        UnixStream::connect(self.directory.path().join("monitor"))?.write_all(b"system_reset\n")?;
        self.begins_anew();
        Ok(())
    }

    /// Pulls the plug.
    pub fn cut_power(mut self) -> Result<()> {
        self.process.kill()?;
        Ok(())
    }

    /// What to show when a scene fails.
    pub fn last_words(&self) -> String {
        let console = self.console().unwrap_or_default();
        let lines: Vec<&str> = console.lines().rev().take(40).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        format!("\n--- console ---\n{}\n{}", lines.join("\n"), self.process.last_words())
    }
}

/// A Debian tree without the packages, unpacked below `directory`.
pub fn clean_root(directory: &Path) -> Result<PathBuf> {
    let root = programs::target_directory()?.join("vm");
    run(Command::new(script("build")).arg(&root))?;
    let tree = directory.join("root");
    fs::create_dir(&tree)?;
    let mut command = Command::new("tar");
    command.args(["--extract", "--numeric-owner", "--exclude=./var/lib/docker", "--file"]);
    run(command.arg(root.join("base.tar")).arg("--directory").arg(&tree))?;
    Ok(tree)
}

fn script(name: &str) -> PathBuf {
    programs::source_tree().join("tests/vm").join(name)
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("failed to run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{name} ended with {}: {printed}{said}", output.status);
    Ok(printed)
}
