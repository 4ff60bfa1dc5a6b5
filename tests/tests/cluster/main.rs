//! Several relays over one etcd: what they have in common, and what breaks.
//!
//! The scenes take turns: some of them are about time, and each has a cluster of its own.

mod balancer;
mod faults;
mod heat;
mod load;
mod moving;
mod outage;
mod secured;
mod sharing;
mod upgrade;

use std::process::ExitCode;

use anyhow::Result;
use e2e::scene::Scene;

fn main() -> ExitCode {
    let scenes = [
        scene(
            "sharing::a_long_poll_ends_when_the_signal_came_by_another_relay",
            sharing::long_poll,
        ),
        scene("sharing::urls_of_one_relay_are_good_at_all", sharing::urls),
        scene("sharing::a_long_poll_ends_behind_a_compacted_revision", sharing::compaction),
        scene("sharing::relays_hear_of_one_another_after_etcd_was_restored", sharing::restored),
        scene("sharing::another_relay_sweeps_when_one_is_killed", sharing::sweeps),
        scene("faults::nothing_is_lost_or_doubled_whatever_dies", faults::whatever_dies),
        scene("upgrade::nobody_notices_one_restart_after_the_other", upgrade::one_by_one),
        scene(
            "outage::without_etcd_the_gateway_passes_and_signals_are_refused",
            outage::without_etcd,
        ),
        scene("moving::to_etcd_and_back_under_load_and_killed_half_way", moving::both_ways),
        scene(
            "heat::polls_and_is_signalled_through_a_load_balancer_while_relays_die",
            heat::load_balancer,
        ),
        scene("secured::certificates_and_a_user", secured::certificates_and_a_user),
    ];
    e2e::scene::play(1, scenes)
}

fn scene(name: &'static str, play: fn() -> Result<()>) -> Scene<()> {
    Scene::new(name, move |()| play())
}
