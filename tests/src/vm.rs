//! Virtual machines: a Debian with Docker and the agent's package in it, booted under QEMU.
//!
//! The processor is emulated, so that the scenes run wherever the other tests run; a boot to the
//! container's signal takes some 30 s of one processor. A machine has two serial lines: the console,
//! kept in a file as a cloud keeps it, and one with a shell on it (`shell`), through which a scene
//! looks inside. Its disk is a layer over the image's, so it can be changed, copied and thrown away.

pub mod drive;
mod shell;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::process::Process;
use crate::vm::shell::Shell;
use crate::{programs, wait};

/// From power-on to whatever a scene waits for. A machine that has a processor to itself takes a tenth of it.
pub const BOOT_LIMIT: Duration = Duration::from_secs(480);

/// How long the emulator may take to answer on its monitor, on busy processors.
const MONITOR_LIMIT: Duration = Duration::from_secs(60);

/// How often a machine is asked whether it has come so far: every question costs it a process or two, and
/// its processor is slow.
const PAUSE: Duration = Duration::from_millis(500);

/// Two emulated processors wait for one another in loops. Where several machines share the real ones, two
/// for each cost a third more than one.
const OF_SCENES: &str = "1";

/// A machine of this many is measured, alone.
const MEASURED: &str = "2";

/// Where a machine with a forwarded port finds it.
pub const FORWARDED: &str = "10.0.2.100:80";

/// What the disk of a new machine is made of.
#[derive(Debug)]
pub struct Image {
    root: PathBuf,
    disk: PathBuf,
    /// How many processors its machines have.
    n_processors: &'static str,
}

/// What is plugged into a machine besides its disk.
#[derive(Clone, Debug, Default)]
pub struct Plugged {
    /// A config drive, made by [`drive::config`].
    pub config_drive: Option<PathBuf>,
    /// A drive that is there only after [`Machine::plug_in_late_drive`].
    pub late_drive: Option<PathBuf>,
    pub network: Option<Network>,
    /// A network card on a network of QEMU's own, with a DHCP server, from which nothing is reached but
    /// [`FORWARDED`], which is this port of the loopback address of the machine that QEMU runs on.
    pub forwarded_port: Option<u16>,
    /// A directory whose files are all that the machine reaches, at the metadata address.
    pub served: Option<PathBuf>,
    /// In this order they follow the disk and the config drive.
    pub volumes: Vec<Volume>,
    /// The serial number of the machine itself.
    pub serial: Option<String>,
    /// Words for the kernel, after `console=ttyS0`.
    pub kernel_words: String,
}

/// A volume, as Cinder's are attached.
#[derive(Clone, Debug)]
pub struct Volume {
    pub file: PathBuf,
    /// Its id, of which a virtual disk has room for 20 characters.
    pub id: String,
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
    static IMAGE: Once<Image> = OnceLock::new();
    once(&IMAGE, Image::make)
}

type Once<T> = OnceLock<Result<T, String>>;

/// What could not be made is not tried again: it would take as long, and fail as well.
fn once<T>(made: &'static Once<T>, make: impl FnOnce() -> Result<T>) -> Result<&'static T> {
    let made = made.get_or_init(|| make().map_err(|error| format!("{error:#}")));
    made.as_ref().map_err(|text| anyhow::anyhow!("{text}"))
}

impl Image {
    fn make() -> Result<Image> {
        let root = shared()?.clone();
        let package = packages()?.join("agent.deb");
        let disk = root.join("disk.img");
        run(Command::new(script("image")).arg(&root).arg(&disk).arg(package))?;
        Ok(Image { root, disk, n_processors: OF_SCENES })
    }

    /// Likewise with a given agent, and with Debian's cloud-init as tests/vm/bench sets it up.
    pub fn beside_cloud_init(agent: &Path) -> Result<Image> {
        let root = shared()?.clone();
        let out = programs::target_directory()?.join("vm-bench");
        let server = programs::heliograph_server()?;
        run(Command::new(script("packages")).arg(&out).arg(agent).arg(server))?;
        let disk = out.join("disk.img");
        let mut command = Command::new(script("image"));
        command.args([&root, &disk, &out.join("agent.deb"), &script("bench")]);
        run(command.arg("cloud-init"))?;
        Ok(Image { root, disk, n_processors: MEASURED })
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
pub fn packages() -> Result<&'static PathBuf> {
    static PACKAGES: Once<PathBuf> = OnceLock::new();
    once(&PACKAGES, || {
        let out = programs::target_directory()?.join("vm-packages");
        let programs = [programs::heliograph_agent()?, programs::heliograph_server()?];
        run(Command::new(script("packages")).arg(&out).args(programs))?;
        Ok(out)
    })
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
            .args(["-accel", "tcg", "-m", "1024", "-smp", image.n_processors])
            .args(["-nodefaults", "-no-user-config"])
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
        if let Some(drive) = &plugged.late_drive {
            let drive = drive.display();
            command
                .args(["-drive", &format!("file={drive},if=none,id=late,format=raw,readonly=on")]);
        }
        if let Some(port) = plugged.forwarded_port {
            let forward = format!("guestfwd=tcp:{FORWARDED}-cmd:busybox nc 127.0.0.1 {port}");
            command
                .args(["-netdev", &format!("user,id=own,restrict=on,{forward}")])
                .args(["-device", "virtio-net-pci,netdev=own,romfile="]);
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
        command.args(plugged.served.iter().flat_map(|directory| serve(directory)));
        command.args(plugged.volumes.iter().enumerate().flat_map(|(n, volume)| volume.plug(n)));
        if let Some(serial) = &plugged.serial {
            command.args(["-smbios", &format!("type=1,serial={serial}")]);
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
        let what = format!("success of {command}");
        let waited = wait::until_with_pause(&what, BOOT_LIMIT, PAUSE, || {
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
        self.monitor("system_reset")?;
        self.begins_anew();
        Ok(())
    }

    /// Attaches the late drive, as a cloud attaches a volume to an instance that runs.
    pub fn plug_in_late_drive(&self) -> Result<()> {
        self.monitor("device_add virtio-blk-pci,drive=late")
    }

    /// Gives the machine's monitor a command and waits until it was taken: what a line ends with that is
    /// closed too early is lost.
    fn monitor(&self, command: &str) -> Result<()> {
        use std::io::{Read as _, Write as _};
        use std::os::unix::net::UnixStream;
        let mut monitor = UnixStream::connect(self.directory.path().join("monitor"))?;
        monitor.set_read_timeout(Some(MONITOR_LIMIT))?;
        monitor.write_all(format!("{command}\n").as_bytes())?;
        let (mut heard, mut piece) = (Vec::new(), [0; 4096]);
        // One prompt before the command, one after it.
        while String::from_utf8_lossy(&heard).matches("(qemu) ").count() < 2 {
            let n_bytes = monitor.read(&mut piece).context("the monitor does not answer")?;
            ensure!(n_bytes > 0, "the monitor was closed");
            heard.extend_from_slice(&piece[..n_bytes]);
        }
        Ok(())
    }

    /// The process that is the machine.
    pub fn process_id(&self) -> u32 {
        self.process.id()
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

impl Volume {
    fn plug(&self, number: usize) -> [String; 4] {
        let Volume { file, id } = self;
        let drive = format!("file={},if=none,id=volume{number},format=raw", file.display());
        // The kernel names disks in the order of their slots, and those of `-drive` take the lowest.
        let slot = 16 + number;
        let device = format!("virtio-blk-pci,drive=volume{number},serial={id},addr={slot:#x}");
        ["-drive".to_owned(), drive, "-device".to_owned(), device]
    }
}

/// A network that QEMU itself is: it hands out an address, and leads nowhere but to a program that it
/// starts for each connection.
fn serve(directory: &Path) -> [String; 4] {
    let program = format!("busybox httpd -i -h {}", directory.display());
    let net = "user,id=served,restrict=on,net=169.254.169.0/24,host=169.254.169.2,dhcpstart=169.254.169.15";
    let net = format!("{net},guestfwd=tcp:169.254.169.254:80-cmd:{program}");
    let device = "virtio-net-pci,netdev=served,romfile=".to_owned();
    ["-netdev".to_owned(), net, "-device".to_owned(), device]
}

/// A Debian tree without the packages, unpacked below `directory`.
pub fn clean_root(directory: &Path) -> Result<PathBuf> {
    let root = shared()?;
    let tree = directory.join("root");
    fs::create_dir(&tree)?;
    let mut command = Command::new("tar");
    command.args(["--extract", "--numeric-owner", "--exclude=./var/lib/docker", "--file"]);
    run(command.arg(root.join("base.tar")).arg("--directory").arg(&tree))?;
    Ok(tree)
}

/// What all machines and trees are made of. The first call makes it, if no earlier run did.
fn shared() -> Result<&'static PathBuf> {
    static SHARED: Once<PathBuf> = OnceLock::new();
    once(&SHARED, || {
        let root = programs::target_directory()?.join("vm");
        run(Command::new(script("build")).arg(&root))?;
        Ok(root)
    })
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
