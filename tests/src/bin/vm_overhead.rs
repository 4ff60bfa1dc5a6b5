//! Prints what it costs to start a container in a virtual machine and to signal that, by the agent and by
//! a hand-written `runcmd` of cloud-init: time, processor, memory. `make bench-vm` builds what it wants.
//!
//!     vm_overhead HELIOGRAPH_AGENT [BOOTS]
//!
//! Every boot is the first boot of the same image, which has both programs, the engine and the container's
//! image in it, with a config drive that is there at power-on. The ways take turns. What is measured is in
//! docs/benchmarks.md.

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::relay::{Handle, Relay};
use e2e::vm::{self, Image, Machine, Plugged};
use e2e::wait;
use tempfile::TempDir;

/// A median of fewer says little.
const N_BOOTS: usize = 5;

/// It is measured, not judged; this is when there will be no signal any more.
const SIGNAL_LIMIT: Duration = Duration::from_secs(900);

const SLICES: [&str; 2] = ["bench-agent", "bench-cloudinit"];

/// How the container is started.
#[derive(Clone, Copy)]
enum Way {
    /// By the agent, with cloud-init in the image.
    AgentBesideCloudInit,
    /// By the agent, with cloud-init told to keep still, as in an image without it.
    AgentAlone,
    /// By cloud-init, with the agent masked, as in an image without it.
    Runcmd,
    /// By the agent, while cloud-init does its own part of the same user data.
    Mime,
}

/// What one boot has cost, until the signal was stored by the relay.
struct Cost {
    /// From power-on to the signal.
    seconds: f64,
    /// What the emulator used of this machine's processors meanwhile.
    machine_seconds: f64,
    /// Of the slices, in their order, until the machine had nothing more to do.
    slices: Vec<Slice>,
}

struct Slice {
    processor_seconds: f64,
    peak_mebibytes: f64,
    resident_mebibytes: f64,
}

fn main() -> Result<()> {
    let usage = "usage: vm_overhead HELIOGRAPH_AGENT [BOOTS]";
    let mut arguments = std::env::args_os().skip(1);
    let agent = PathBuf::from(arguments.next().context(usage)?).canonicalize()?;
    let n_boots = match arguments.next() {
        Some(number) => number.to_string_lossy().parse().context(usage)?,
        None => N_BOOTS,
    };
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let image = Image::beside_cloud_init(&agent)?;
    let directory = TempDir::new()?;
    let relay = Relay::start(&directory.path().join("relay"))?;

    // Not measured: it fills this machine's page cache, and shows the two programs on one user data.
    let (_, status) = boot(&image, &relay, Way::Mime)?;
    println!("{}: {status}\n", Way::Mime.name());
    let ways = [Way::AgentBesideCloudInit, Way::AgentAlone, Way::Runcmd];
    let mut costs: [Vec<Cost>; 3] = Default::default();
    for number in 0..n_boots {
        for (way, costs) in ways.iter().zip(&mut costs) {
            let (cost, status) = boot(&image, &relay, *way)?;
            if number == 0 {
                println!("{}: {status}\n", way.name());
            }
            println!("{}: {}", way.name(), cost.line());
            costs.push(cost);
        }
    }
    println!(
        "\n| way | power-on to signal | of it machine CPU | CPU | peak | kept |\n|---|---|---|---|---|---|"
    );
    for (way, costs) in ways.iter().zip(&costs) {
        println!("{}", way.row(costs));
    }
    Ok(())
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::AgentBesideCloudInit => "agent, cloud-init idle beside it",
            Way::AgentAlone => "agent alone",
            Way::Runcmd => "cloud-init runcmd",
            Way::Mime => "agent and cloud-init on one MIME",
        }
    }

    fn kernel_words(self) -> &'static str {
        match self {
            Way::AgentBesideCloudInit | Way::Mime => "",
            Way::AgentAlone => "cloud-init=disabled",
            Way::Runcmd => "systemd.mask=heliograph-agent.service",
        }
    }

    fn user_data(self, url: &str) -> String {
        let document = format!(
            "#docker\nimage: localhost/busybox\ncmd: sleep 100000\noutputs: [network_ip]\n\
             signal: {{url: \"{url}\", when: created}}\n"
        );
        match self {
            Way::AgentBesideCloudInit | Way::AgentAlone => document,
            Way::Runcmd => runcmd(url),
            Way::Mime => format!(
                "Content-Type: multipart/mixed; boundary=\"b\"\nMIME-Version: 1.0\n\n\
                 --b\nContent-Type: text/cloud-config\n\n#cloud-config\nbootcmd: [touch /run/cloud-config-was-read]\n\n\
                 --b\nContent-Type: text/x-docker\n\n{document}\n--b--\n"
            ),
        }
    }

    /// The slice of the program that does the work.
    fn slice(self) -> usize {
        usize::from(matches!(self, Way::Runcmd))
    }

    fn row(self, costs: &[Cost]) -> String {
        let median = |figure: fn(&Cost, usize) -> f64| {
            let mut figures: Vec<f64> =
                costs.iter().map(|cost| figure(cost, self.slice())).collect();
            figures.sort_by(f64::total_cmp);
            let (low, high) = (figures.first().copied(), figures.last().copied());
            let middle = figures.get(figures.len() / 2).copied().unwrap_or_default();
            format!(
                "{middle:.1} ({:.1} to {:.1})",
                low.unwrap_or_default(),
                high.unwrap_or_default()
            )
        };
        format!(
            "| {} | {} s | {} s | {} s | {} MiB | {} MiB |",
            self.name(),
            median(|cost, _| cost.seconds),
            median(|cost, _| cost.machine_seconds),
            median(|cost, slice| cost.slices[slice].processor_seconds),
            median(|cost, slice| cost.slices[slice].peak_mebibytes),
            median(|cost, slice| cost.slices[slice].resident_mebibytes),
        )
    }
}

/// What somebody writes who has no agent: start the container, ask for its address, send the signal, and
/// try again if the relay is not there yet.
fn runcmd(url: &str) -> String {
    format!(
        "#cloud-config\nruncmd:\n  - |\n    \
         docker run --detach --name main --restart unless-stopped localhost/busybox sh -c 'sleep 100000'\n    \
         address=$(docker inspect --format '{{{{.NetworkSettings.IPAddress}}}}' main)\n    \
         curl --silent --show-error --fail --retry 10 --retry-connrefused --request PUT \
         --header 'Content-Type: application/json' \
         --data '{{\"status\": \"SUCCESS\", \"id\": \"1\", \"data\": {{\"network_ip\": \"'\"$address\"'\"}}}}' '{url}'\n"
    )
}

/// One first boot, and what the machine says of it when it has come to rest.
fn boot(image: &Image, relay: &Relay, way: Way) -> Result<(Cost, String)> {
    let directory = TempDir::new()?;
    let handle = relay.create_handle(1, Duration::from_secs(3600))?;
    let url = handle.signal_url.replace(relay.address(), vm::FORWARDED);
    let id = "5e0a1a40-1111-4222-8333-0000000000b1";
    let port = relay.address().rsplit(':').next().context("no port")?.parse()?;
    let plugged = Plugged {
        config_drive: Some(vm::drive::config(directory.path(), id, &way.user_data(&url))?),
        forwarded_port: Some(port),
        kernel_words: way.kernel_words().to_owned(),
        ..Plugged::default()
    };
    let disk = image.new_disk(directory.path())?;
    let begin = Instant::now();
    let mut machine = Machine::start(image, &disk, &plugged)?;
    wait::until("the signal", SIGNAL_LIMIT, || signalled(relay, &handle))
        .with_context(|| machine.last_words())?;
    let seconds = begin.elapsed().as_secs_f64();
    let machine_seconds = processor_seconds(machine.process_id())?;
    // Ends when every unit has, cloud-init's last one included.
    let state = machine.until("systemctl is-system-running --wait; true")?;
    let slices = SLICES.iter().map(|name| slice(&mut machine, name)).collect::<Result<_>>()?;
    let status = machine.run(
        "cloud-init --version; cloud-init status --long; echo \"exit code $?\"; \
         cat /run/cloud-init/status.json; grep -h WARNING /var/log/cloud-init.log; \
         ls /run/cloud-config-was-read; heliograph-agent analyze; \
         systemctl show docker -p ActiveEnterTimestampMonotonic; \
         systemctl --failed --no-legend --plain; free -m; true",
    )?;
    machine.cut_power()?;
    Ok((Cost { seconds, machine_seconds, slices }, format!("{state}\n{status}")))
}

fn signalled(relay: &Relay, handle: &Handle) -> Result<Option<()>> {
    Ok((relay.poll(handle)?["state"] == "complete").then_some(()))
}

/// What a process has used of the processors, in user and kernel mode.
fn processor_seconds(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may have blanks in it.
    let (_, rest) = status.rsplit_once(") ").context("no name")?;
    let ticks = rest.split(' ').skip(11).take(2).map(str::parse::<f64>);
    // Every Linux counts a hundred of them in a second.
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

/// The counters of a slice; none of it has run where there is no such slice.
fn slice(machine: &mut Machine, name: &str) -> Result<Slice> {
    let text = machine.run(&format!(
        "cd /sys/fs/cgroup/bench.slice/{name}.slice 2>/dev/null && \
         sed -n 's/^usage_usec //p' cpu.stat && cat memory.peak && sed -n 's/^anon //p' memory.stat || echo 0 0 0"
    ))?;
    let numbers: Vec<f64> = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| text.clone())?;
    let [micros, peak, anonymous] = numbers[..] else {
        anyhow::bail!("{name} has other counters: {text}");
    };
    let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
    Ok(Slice {
        processor_seconds: micros / 1e6,
        peak_mebibytes: mebibytes(peak),
        resident_mebibytes: mebibytes(anonymous),
    })
}

impl Cost {
    fn line(&self) -> String {
        let slices = SLICES.iter().zip(&self.slices).map(|(name, slice)| {
            format!(
                "{name} CPU {:.2} s, peak {:.1} MiB, kept {:.1} MiB",
                slice.processor_seconds, slice.peak_mebibytes, slice.resident_mebibytes
            )
        });
        let slices = slices.collect::<Vec<_>>().join("; ");
        format!("{:.1} s, machine CPU {:.1} s; {slices}", self.seconds, self.machine_seconds)
    }
}
