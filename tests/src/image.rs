//! Images without a network: a file system of one static busybox, as a tar that an engine imports.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// What the scenes' containers run.
const APPLETS: &[&str] = &[
    "cat", "date", "echo", "env", "false", "head", "httpd", "ls", "nc", "sh", "sleep", "tail",
    "true", "wget",
];

/// A root file system with a shell and a few tools, plus so many bytes that do not compress, for a
/// pull that takes long enough to be broken.
pub fn root_file_system(ballast_bytes: u64) -> Result<Vec<u8>> {
    make(ballast_bytes, &[])
}

/// The same with programs of this machine, at their own places and with the libraries they need.
pub fn root_file_system_with(programs: &[&Path]) -> Result<Vec<u8>> {
    make(0, programs)
}

fn make(ballast_bytes: u64, programs: &[&Path]) -> Result<Vec<u8>> {
    let root = TempDir::new()?;
    let path = root.path();
    for directory in ["bin", "etc", "tmp"] {
        fs::create_dir(path.join(directory))?;
    }
    fs::copy(busybox()?, path.join("bin/busybox")).context("failed to copy busybox")?;
    for applet in APPLETS {
        symlink("busybox", path.join("bin").join(applet))?;
    }
    for program in programs {
        add_with_libraries(path, program)?;
    }
    if ballast_bytes > 0 {
        let mut noise = fs::File::open("/dev/urandom")?.take(ballast_bytes);
        std::io::copy(&mut noise, &mut fs::File::create(path.join("ballast"))?)?;
    }
    let output = Command::new("tar")
        .args(["--create", "--numeric-owner", "--owner=0", "--group=0", "--directory"])
        .arg(path)
        .arg(".")
        .output()
        .context("failed to run tar")?;
    ensure!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Libraries are where the dynamic linker finds them on this machine.
fn add_with_libraries(root: &Path, program: &Path) -> Result<()> {
    let output = Command::new("ldd").arg(program).output().context("failed to run ldd")?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for file in libraries.chain([program]) {
        let target = root.join(file.strip_prefix("/")?);
        if target.exists() {
            continue;
        }
        fs::create_dir_all(target.parent().context("a file has a directory")?)?;
        fs::copy(file, &target).with_context(|| format!("failed to copy {}", file.display()))?;
    }
    Ok(())
}

fn busybox() -> Result<&'static Path> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.exists())
        .context("busybox is not installed: run `make test-deps`")
}
