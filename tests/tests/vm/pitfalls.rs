//! A machine on which everything is as it should not be: its drive comes late, its last console is a
//! screen that nobody sees, its line is hung up by a login prompt, its network never comes online, and its
//! engine lacks AppArmor's program.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::vm::{self, Machine, Plugged};
use tempfile::TempDir;

use crate::Scene;

const ID: &str = "5e0a1a40-1111-4222-8333-0000000000a1";

const TICKING: &str = "#docker\nimage: localhost/busybox\ncmd: \"while true; do echo it ticks; sleep 1; done\"\nsignal:\n  stable_for: 2s\n";

/// The container writes a line each second, on a machine that is slow.
const LINE_LIMIT: Duration = Duration::from_secs(60);

/// Without AppArmor's program the engine cannot load the profile that it gives every container.
const BREAK_ENGINE: &str = "systemctl stop docker.socket docker && mv /usr/sbin/apparmor_parser /srv && \
    echo -n docker-default >/sys/kernel/security/apparmor/.remove && systemctl start docker.socket docker";

const REPAIR_ENGINE: &str = "mv /srv/apparmor_parser /usr/sbin && systemctl restart docker && \
    rm /var/lib/heliograph-agent/done.json && systemctl restart --no-block heliograph-agent";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![("a_late_drive_a_screen_as_console_and_a_broken_engine_are_coped_with", pitfalls)]
}

fn pitfalls() -> Result<()> {
    let directory = TempDir::new()?;
    let image = vm::image()?;
    let disk = image.new_disk(directory.path())?;
    let plugged = Plugged {
        late_drive: Some(vm::drive::config(directory.path(), ID, TICKING)?),
        kernel_words: "console=tty0".to_owned(),
        ..Plugged::default()
    };
    let mut machine = Machine::start(image, &disk, &plugged)?;

    // There is no network, and the engine is up all the same: it waited for one as long as the image says.
    machine.until("systemctl is-active docker")?;
    let waited =
        machine.run("journalctl --boot --output cat --unit systemd-networkd-wait-online")?;
    ensure!(waited.contains("Timeout occurred"), "the network is online: {waited}");
    let consoles = machine.run("cat /sys/class/tty/console/active")?;
    ensure!(consoles == "ttyS0 tty0", "the last console is no screen: {consoles}");

    // The agent has found no drive yet, and goes on looking.
    let state = machine.run("systemctl show --property ActiveState --value heliograph-agent")?;
    ensure!(state == "activating", "the agent has given up: it is {state}");
    machine.run(BREAK_ENGINE)?;
    machine.plug_in_late_drive()?;
    machine.said("heliograph: FAILURE start: engine cannot load its AppArmor profile")?;

    // A person who reads that puts it right, and has the agent begin anew.
    machine.run(REPAIR_ENGINE)?;
    machine.said("heliograph: SUCCESS")?;
    machine.said("login: ")?;
    let n_lines = n_lines(&machine)?;
    e2e::wait::until("output on the line after the login prompt", LINE_LIMIT, || {
        Ok((self::n_lines(&machine)? > n_lines).then_some(()))
    })
}

fn n_lines(machine: &Machine) -> Result<usize> {
    Ok(machine.console()?.matches("it ticks").count())
}
