//! Keeping containers away from the metadata service.
//!
//! What answers at 169.254.169.254 and fe80::a9fe:a9fe takes whoever asks for the instance: it hands
//! out the user data with the secrets in it, and takes signals. A container asks through the
//! instance, by a bridge of the engine, so its packets are forwarded; where the instance itself has
//! that address, they are received by an interface other than the loopback one. Both are refused by
//! one table of nftables, `inet heliograph`. A container that was given `metadata_access: true`
//! is let through by the hardware address of its interfaces, which goes for IPv4 and IPv6 alike.
//!
//! The rules are given to the program `nft`, which is on every system that has nftables: the
//! libraries of netlink messages that exist either link a C library or build rules instruction by
//! instruction, for three rules that a person can check with `nft list table inet heliograph`.
//! The table is written as a whole, in one transaction, so at no moment is there half of it.
//!
//! A reboot takes the table away, and an engine starts containers by itself before it answers anybody.
//! So where there was a guard before, it is raised again before the engine starts, or at the latest at
//! the beginning of a run. Then it lets nobody through: an address may have become another's.
//!
//! A container on the host's network, or on a network that does not pass the instance (macvlan),
//! cannot be held back this way.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::text;

const PROGRAM: &str = "nft";

/// A script on standard input, which is one transaction.
const FROM_INPUT: [&str; 2] = ["-f", "-"];

/// Replacing three rules takes milliseconds; a machine that is starting up is busy.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How much of the program's own words goes into an error.
const MAX_MESSAGE_BYTES: usize = 300;

/// A hardware address, as engines write it: `02:42:ac:11:00:02`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HardwareAddress(String);

impl HardwareAddress {
    /// None for anything else, which would otherwise end up in a rule.
    pub fn parse(text: &str) -> Option<HardwareAddress> {
        let parts: Vec<&str> = text.split(':').collect();
        let is_octet =
            |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        (parts.len() == 6 && parts.iter().all(is_octet))
            .then(|| HardwareAddress(text.to_ascii_lowercase()))
    }
}

/// Why the rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("run the program nft")]
    Run { source: io::Error },
    #[error("nft did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    #[error("nft refused the rules: {message}")]
    Refused { message: String },
}

/// Holds every container back but those with one of these addresses.
pub async fn raise(allowed: &BTreeSet<HardwareAddress>) -> Result<(), GuardError> {
    nft(&FROM_INPUT, &rules(allowed)).await
}

/// Whether there are rules of ours, whomever they let through.
pub async fn is_raised() -> Result<bool, GuardError> {
    match nft(&["list", "table", "inet", "heliograph"], "").await {
        Ok(()) => Ok(true),
        // There is none, or it cannot be seen; raising it tells which.
        Err(GuardError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Holds nobody back any more. A table that is not there is no error.
pub async fn lower() -> Result<(), GuardError> {
    // Naming a table makes it, so that there is one to delete.
    nft(&FROM_INPUT, "table inet heliograph\ndelete table inet heliograph\n").await
}

fn rules(allowed: &BTreeSet<HardwareAddress>) -> String {
    let mut elements = String::new();
    if !allowed.is_empty() {
        let addresses: Vec<&str> = allowed.iter().map(|address| address.0.as_str()).collect();
        // Writing to a String does not fail.
        let _ = write!(elements, "elements = {{ {} }}", addresses.join(", "));
    }
    // A refusal, unlike silence, is known to the container at once. Before the engine's own rules,
    // which may accept for good.
    format!(
        r#"table inet heliograph
delete table inet heliograph
table inet heliograph {{
    set allowed {{
        type ether_addr
        {elements}
    }}
    chain metadata {{
        ether saddr @allowed accept
        reject
    }}
    chain forward {{
        type filter hook forward priority filter - 10; policy accept;
        ip daddr 169.254.169.254 jump metadata
        ip6 daddr fe80::a9fe:a9fe jump metadata
    }}
    chain input {{
        type filter hook input priority filter - 10; policy accept;
        iifname "lo" accept
        ip daddr 169.254.169.254 jump metadata
        ip6 daddr fe80::a9fe:a9fe jump metadata
    }}
}}
"#
    )
}

async fn nft(arguments: &[&str], script: &str) -> Result<(), GuardError> {
    let failed = |source| GuardError::Run { source };
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let work = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(TIMEOUT, work).await.map_err(|_| GuardError::TimedOut)?;
    let output = output.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(GuardError::Refused { message: text::clean(&message, MAX_MESSAGE_BYTES) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hardware_addresses_get_into_a_rule() {
        let check = |text: &str, expect: bool| {
            assert_eq!(HardwareAddress::parse(text).is_some(), expect, "{text}");
        };
        check("02:42:ac:11:00:02", true);
        check("02:42:AC:11:00:0f", true);
        check("", false);
        check("02:42:ac:11:00", false);
        check("02:42:ac:11:00:02:03", false);
        check("02:42:ac:11:00:0g", false);
        check("02:42:ac:11:00:0 ", false);
        check("}; flush ruleset", false);
    }

    #[test]
    fn who_is_allowed_is_in_the_set() {
        let none = rules(&BTreeSet::new());
        assert!(!none.contains("elements"), "{none}");
        let address = |text| HardwareAddress::parse(text).unwrap();
        let two = [address("02:42:AC:11:00:02"), address("02:42:ac:11:00:03")];
        let two = rules(&two.into_iter().collect());
        assert!(two.contains("elements = { 02:42:ac:11:00:02, 02:42:ac:11:00:03 }"), "{two}");
    }
}
