//! Several relays over one etcd: what they have in common, and what breaks.
//!
//! The scenes take turns: some of them are about time, and each has a cluster of its own.

mod faults;
mod heat;
mod load;
mod moving;
mod outage;
mod secured;
mod sharing;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    // A second installation, by whoever, is no harm.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let trials = vec![
        trial(
            "sharing::a_long_poll_ends_when_the_signal_came_by_another_relay",
            sharing::long_poll,
        ),
        trial("sharing::urls_of_one_relay_are_good_at_all", sharing::urls),
        trial("faults::nothing_is_lost_or_doubled_whatever_dies", faults::whatever_dies),
        trial(
            "outage::without_etcd_the_gateway_passes_and_signals_are_refused",
            outage::without_etcd,
        ),
        trial("moving::to_etcd_and_back_under_load_and_killed_half_way", moving::both_ways),
        trial("heat::polls_through_a_load_balancer_while_relays_die", heat::load_balancer),
        trial("secured::certificates_and_a_user", secured::certificates_and_a_user),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: &'static str, play: fn() -> Result<()>) -> Trial {
    Trial::test(name, move || {
        let begin = Instant::now();
        let outcome = play();
        eprintln!("  {name}: {:.1} s", begin.elapsed().as_secs_f32());
        outcome.map_err(|error| Failed::from(format!("{error:#}")))
    })
}
