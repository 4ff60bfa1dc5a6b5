//! Telling the service manager that the agent has done what it was started for.
//!
//! The protocol is that of sd_notify(3): a datagram of `NAME=VALUE` lines to the socket that
//! `NOTIFY_SOCKET` names, a path or, after `@`, a name in the abstract namespace. The unit is of
//! `Type=notify`, so it becomes active when the success is acknowledged, and not before: whoever
//! waits with `systemctl is-system-running --wait` is told the truth.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that the unit is active. Nobody listening is no failure of the run.
pub(crate) fn ready(socket: &str) {
    if let Err(error) = send(socket, "READY=1\nSTATUS=the outcome is acknowledged\n") {
        tracing::warn!(%error, "service manager was not told");
    }
}

fn send(socket: &str, message: &str) -> io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, listener: &UnixDatagram) {
        ready(name);
        let mut buffer = [0; 256];
        let n_bytes = listener.recv(&mut buffer).unwrap();
        assert!(buffer[..n_bytes].starts_with(b"READY=1\n"), "{name}");
    }

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        check(path.to_str().unwrap(), &UnixDatagram::bind(&path).unwrap());

        let name = format!("heliograph-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        check(&format!("@{name}"), &UnixDatagram::bind_addr(&address).unwrap());
    }

    #[test]
    fn nobody_listening_is_no_failure() {
        for socket in ["/nowhere/at/all", "@heliograph-nobody", "", "\0"] {
            ready(socket);
        }
    }
}
