//! Which device a cloud shows as the console.
//!
//! The kernel may have several consoles; `/dev/console` is the last of its command line. A cloud keeps
//! what comes on the serial line. So on a machine whose command line ends with `console=tty0` nothing
//! that is written to `/dev/console` is ever seen by whoever reads the console's log: there the serial
//! line itself is written to.

use std::path::{Path, PathBuf};

const CONSOLE: &str = "/dev/console";

/// The names of all consoles; the last is the one behind `/dev/console`.
const ACTIVE_CONSOLES: &str = "/sys/class/tty/console/active";

/// The device to write to for one that is configured: itself, unless it is the kernel's console, that
/// is a screen, and there is a line besides.
pub(super) fn shown(configured: &Path) -> PathBuf {
    if configured != Path::new(CONSOLE) {
        return configured.to_owned();
    }
    let active = std::fs::read_to_string(ACTIVE_CONSOLES).unwrap_or_default();
    line_beside_a_screen(&active).unwrap_or_else(|| configured.to_owned())
}

fn line_beside_a_screen(active: &str) -> Option<PathBuf> {
    let mut names = active.split_whitespace().rev();
    if !is_screen(names.next()?) {
        return None;
    }
    names.find(|name| !is_screen(name)).map(|name| Path::new("/dev").join(name))
}

/// `tty0` is the screen in front, `tty1` and so on are certain ones; `ttyS0` is a line.
fn is_screen(name: &str) -> bool {
    let number = name.strip_prefix("tty").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_to_when_the_last_console_is_a_screen() {
        let check = |active: &str, expect: Option<&str>| {
            assert_eq!(line_beside_a_screen(active), expect.map(PathBuf::from), "{active:?}");
        };
        check("ttyS0 tty0\n", Some("/dev/ttyS0"));
        check("ttyS0 ttyS1 tty1\n", Some("/dev/ttyS1"));
        check("hvc0 tty0 tty1\n", Some("/dev/hvc0"));
        check("tty0 ttyS0\n", None);
        check("tty0 ttyAMA0\n", None);
        check("tty0\n", None);
        check("ttyS0\n", None);
        check("", None);
    }

    #[test]
    fn what_is_configured_is_not_second_guessed() {
        assert_eq!(shown(Path::new("/dev/tty0")), Path::new("/dev/tty0"));
        assert_eq!(shown(Path::new("/var/log/x")), Path::new("/var/log/x"));
    }
}
