//! Signals arrive whole and once, whatever the way does to them.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::neutron::{Kind, METADATA, Pace, enter, exchange, instance_id};
use e2e::wait;
use serde_json::{Value, json};
use signal_protocol::frame::{BootId, Form, Frame, MessageId, Receipt, split};
use signal_protocol::message::{Destination, Message};
use signal_protocol::signal::Signal;

use crate::knowing::agent;
use crate::{Scene, Set};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        ("the_agents_signals_of_every_size_arrive_whole_by_debians_agent", |set| {
            sizes(set, Kind::Debian)
        }),
        ("the_agents_signals_of_every_size_arrive_whole_by_a_later_agent", |set| {
            sizes(set, Kind::Ovs)
        }),
        ("the_agents_signals_of_every_size_arrive_whole_by_ovns_agent", |set| {
            sizes(set, Kind::Ovn)
        }),
        ("an_instance_without_ipv4_signals_by_the_address_of_ipv6", by_ipv6),
        ("a_request_that_comes_in_pieces_is_whole_or_not_acknowledged", pieces),
        ("ten_thousand_signals_over_a_bad_way_arrive_once_each", ten_thousand),
    ]
}

/// From 100 bytes to 64 KiB, UTF-8 and escaped bytes, sent by the real agent at its own pace.
fn sizes(set: &Set, kind: Kind) -> Result<()> {
    let byte = match kind {
        Kind::Debian => 6,
        Kind::Ovs => 7,
        Kind::Ovn => 8,
    };
    for length in [100, 1_500, 3_000, 16 << 10, 64 << 10] {
        let letters = ["a", "é", "\u{1F680}", "\u{0}", "\""];
        let mut data = String::new();
        while serde_json::to_string(&data)?.len() < length {
            data.push_str(letters[data.len() % letters.len()]);
        }
        let (data, id) = (json!(data), length.to_string());
        let text = data.to_string();
        let arguments = ["signal", "--id", &id, "--data", &text, "--timeout", "120"];
        let (mut command, _directory) = agent(set, kind, byte, &arguments)?;
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{kind:?} {length}: {}: {said}", output.status);
        let view = set.gateway.instance(&instance_id(byte))?;
        let signals = view["signals"].as_array().context("no signals")?;
        let arrived = signals.iter().find(|signal| signal["id"] == id.as_str());
        ensure!(
            arrived.is_some_and(|signal| signal["data"] == data),
            "{kind:?} {length} has not arrived whole"
        );
    }
    Ok(())
}

/// No address and no route of IPv4: Neutron's proxy answers on the link, too, and knows the instance by
/// the hardware address in the one of IPv6.
fn by_ipv6(set: &Set) -> Result<()> {
    let (mut command, _directory) =
        agent(set, Kind::Debian, 25, &["signal", "--id", "six", "--timeout", "60"])?;
    let namespace = set.lab.own_namespace(Kind::Debian, 25)?;
    let flushed = Command::new("ip")
        .args(["-n", &namespace, "-4", "address", "flush", "dev", "eth0"])
        .status()?;
    ensure!(flushed.success(), "the address of IPv4 was not removed");
    // The kernel uses an address when it has seen that nobody else has it.
    wait::until("the address of IPv6", Duration::from_secs(30), || {
        let shown = Command::new("ip").args(["-n", &namespace, "-6", "address"]).output()?;
        Ok((!String::from_utf8_lossy(&shown.stdout).contains("tentative")).then_some(()))
    })?;
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    let view = set.gateway.instance(&instance_id(25))?;
    ensure!(view["state"] == "complete" && view["signals"][0]["id"] == "six", "{view:#}");
    Ok(())
}

pub(crate) fn put(target: &str, body: &str) -> String {
    format!(
        "PUT {target} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn message(number: usize, data: &Value) -> Message {
    let body = json!({"id": number.to_string(), "data": data}).to_string();
    // What was just made is a signal.
    let signal = Signal::parse(body.as_bytes())
        .unwrap_or_else(|_| Signal::new(signal_protocol::signal::Status::Failure));
    Message::Signal { signal, to: None }
}

/// A frame that comes byte after byte, or head first: an acknowledgement means that it was whole.
fn pieces(set: &Set) -> Result<()> {
    for (kind, byte) in [(Kind::Debian, 9), (Kind::Ovs, 10), (Kind::Ovn, 11)] {
        for (seq, pace) in [(1, Pace::Whole), (2, Pace::HeadThenBody), (3, Pace::Bytes)] {
            let id = MessageId { boot: BootId::from_random(1), seq };
            let sent = message(usize::try_from(seq)?, &json!("x".repeat(300)));
            let frame = split(id, &sent.to_bytes(id, None))?.remove(0);
            let in_body = frame.to_request(Form::Body);
            let (status, answer) =
                set.lab.ask(kind, byte, &put(&in_body.target, &in_body.body), pace)?;
            let receipt: Receipt = serde_json::from_str(&answer)
                .with_context(|| format!("{kind:?} {pace:?}: {status} {answer}"))?;
            let arrived = is_signalled(set, byte, seq)?;
            ensure!(receipt.ok == arrived, "{kind:?} {pace:?}: {receipt:?}, arrived: {arrived}");
            if pace == Pace::Whole || kind == Kind::Debian {
                ensure!(receipt.ok, "{kind:?} {pace:?}: {receipt:?}");
            }
            // The query is whole in every case.
            let in_query = frame.to_request(Form::Query);
            let (_, answer) = set.lab.ask(kind, byte, &put(&in_query.target, ""), pace)?;
            ensure!(answer.contains("\"complete\""), "{kind:?} {pace:?}: {answer}");
            ensure!(is_signalled(set, byte, seq)?, "{kind:?} {pace:?}");
        }
        let view = set.gateway.instance(&instance_id(byte))?;
        let n = view["signals"].as_array().map_or(0, Vec::len);
        ensure!(n == 3, "{kind:?}: three signals, and {n} are there");
    }
    Ok(())
}

fn is_signalled(set: &Set, byte: u8, seq: u32) -> Result<bool> {
    let view = set.gateway.instance(&instance_id(byte))?;
    let id = seq.to_string();
    Ok(view["signals"].as_array().into_iter().flatten().any(|signal| signal["id"] == id.as_str()))
}

/// How many signals, by how many senders; each sender has a handle of its own.
const N_SIGNALS: usize = 10_000;
const N_SENDERS: usize = 20;

/// Drops, doubles, reorders and cuts, by a generator with a seed of its own for each sender.
fn ten_thousand(set: &Set) -> Result<()> {
    let per_sender = N_SIGNALS / N_SENDERS;
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        // Eight at once: Neutron's agents are what takes the time.
        let chunks: Vec<Vec<usize>> = (0..8)
            .map(|lane| (0..N_SENDERS).filter(|sender| sender % 8 == lane).collect())
            .collect();
        let lanes: Vec<_> = chunks
            .into_iter()
            .map(|senders| {
                scope.spawn(move || {
                    for sender in senders {
                        send_all(set, sender, per_sender)?;
                    }
                    Ok(())
                })
            })
            .collect();
        let joined = lanes.into_iter().map(|lane| lane.join());
        joined
            .map(|lane| lane.unwrap_or_else(|_| Err(anyhow::anyhow!("a sender panicked"))))
            .collect()
    });
    results.into_iter().collect()
}

fn send_all(set: &Set, sender: usize, n_signals: usize) -> Result<()> {
    let kind = Kind::ALL[sender % 3];
    let byte = 12 + u8::try_from(sender % 7)?;
    let (handle, url) = set.gateway.create_handle(n_signals)?;
    let namespace = set.lab.guest(kind)?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| -> Result<()> {
            enter(namespace)?;
            let mut way =
                BadWay { random: 0x9e37_79b9_7f4a_7c15 ^ sender as u64, byte, held: Vec::new() };
            for number in 1..=n_signals {
                let boot = BootId::from_random(1_000 + sender as u64);
                let id = MessageId { boot, seq: u32::try_from(number)? };
                let data = json!({"n": number, "x": "é".repeat(way.below(1_200))});
                let Message::Signal { signal, .. } = message(number, &data) else { continue };
                let to = Destination { url: url.clone(), token: None, login: None };
                let bytes = Message::Signal { signal, to: Some(to) }.to_bytes(id, None);
                way.deliver(&split(id, &bytes)?)?;
            }
            Ok(())
        });
        sending.join().map_err(|_| anyhow::anyhow!("a sender panicked"))?
    })?;
    let view = set.gateway.get(&format!("/api/v1/handles/{handle}"))?;
    let signals = view["signals"].as_array().context("no signals")?;
    ensure!(signals.len() == n_signals, "{} of {n_signals} arrived", signals.len());
    ensure!(view["state"] == "complete", "{}", view["state"]);
    for signal in signals {
        ensure!(
            signal["data"]["n"].as_u64() == signal["id"].as_str().and_then(|id| id.parse().ok()),
            "{signal}"
        );
    }
    Ok(())
}

struct BadWay {
    random: u64,
    byte: u8,
    /// Frames that are sent late, when they are long outdated.
    held: Vec<Frame>,
}

impl BadWay {
    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % limit.max(1) as u64).unwrap_or(0)
    }

    /// As an agent does: everything again until the relay says `complete`.
    fn deliver(&mut self, frames: &[Frame]) -> Result<()> {
        for _ in 0..200 {
            let mut order: Vec<usize> = (0..frames.len()).collect();
            if self.below(3) == 0 {
                order.reverse();
            }
            for index in order {
                let frame = &frames[index];
                match self.below(10) {
                    // Dropped.
                    0 => continue,
                    // Doubled.
                    1 => drop(self.send(frame, 0)?),
                    // Cut.
                    2 => {
                        let lost = 1 + self.below(300);
                        let receipt = self.send(frame, lost)?;
                        ensure!(!receipt.ok, "a frame that was cut was acknowledged: {receipt:?}");
                        continue;
                    }
                    // Late: it comes again after others.
                    3 => self.held.push(frame.clone()),
                    _ => {}
                }
                let receipt = self.send(frame, 0)?;
                let expect = frame.receipt(&receipt.code);
                ensure!(receipt == expect, "{receipt:?}, and {expect:?} was due");
                if receipt.code == "complete" {
                    return self.send_what_is_late();
                }
            }
        }
        anyhow::bail!("a message was not complete after 200 rounds")
    }

    fn send_what_is_late(&mut self) -> Result<()> {
        if self.held.len() > 5 {
            let late = std::mem::take(&mut self.held);
            for frame in &late {
                let receipt = self.send(frame, 0)?;
                ensure!(receipt.code == "complete", "{receipt:?}");
            }
        }
        Ok(())
    }

    fn send(&mut self, frame: &Frame, lost: usize) -> Result<Receipt> {
        let form = if self.below(4) == 0 && lost == 0 { Form::Query } else { Form::Body };
        let sent = frame.to_request(form);
        let kept = sent.body.len().saturating_sub(lost);
        let request = put(&sent.target, &sent.body[..kept]);
        let source = SocketAddr::from((Ipv4Addr::new(10, 77, 0, self.byte), 0));
        let (status, body) = exchange(source, METADATA.parse()?, &request, Pace::Whole)?;
        serde_json::from_str(&body).with_context(|| format!("{status} {body}"))
    }
}
