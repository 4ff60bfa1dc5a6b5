//! What a sequence of looks at a container amounts to.

use std::collections::BTreeMap;

use super::*;
use crate::engine::ContainerState;

/// One look: milliseconds since the start, and what was seen.
type Look = (u64, Option<Inspection>);

fn container(status: ContainerStatus) -> Inspection {
    Inspection {
        id: "c".to_owned(),
        labels: BTreeMap::new(),
        has_tty: false,
        memory_limit: 0,
        has_restart_policy: false,
        restart_count: 0,
        state: ContainerState {
            status,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            started_at: Some("t0".to_owned()),
            health: None,
        },
        raw: serde_json::Value::Null,
    }
}

fn running() -> Inspection {
    container(ContainerStatus::Running)
}

fn exited(exit_code: i64) -> Inspection {
    let mut exited = container(ContainerStatus::Exited);
    exited.state.exit_code = exit_code;
    exited
}

fn restarting(restart_count: i64, exit_code: i64) -> Inspection {
    let mut restarting = container(ContainerStatus::Restarting);
    restarting.restart_count = restart_count;
    restarting.state.exit_code = exit_code;
    restarting
}

fn with_health(status: HealthStatus) -> Inspection {
    let mut container = running();
    let last_output = Some("refused\n".to_owned());
    container.state.health = Some(Health { status, last_output, last_exit_code: Some(1) });
    container
}

/// Feeds the looks until the first verdict that is not Wait.
fn check(when: When, looks: &[Look], expect: &Verdict) {
    let watch = Watch {
        when,
        stable_for: Duration::from_secs(5),
        timeout: Duration::from_secs(60),
        success_exit_codes: vec![0],
    };
    let start = Instant::now();
    let mut observer = Observer::new(watch, 0);
    let mut verdict = Verdict::Wait;
    for (milliseconds, look) in looks {
        assert_eq!(verdict, Verdict::Wait, "decided before {milliseconds} ms");
        verdict = observer.observe(look.as_ref(), start + Duration::from_millis(*milliseconds));
    }
    assert_eq!(verdict, *expect, "{when:?} {looks:?}");
}

fn failed(code: &'static str, looks: &[Look], when: When) {
    let watch = Watch {
        when,
        stable_for: Duration::from_secs(5),
        timeout: Duration::from_secs(60),
        success_exit_codes: vec![0],
    };
    let start = Instant::now();
    let mut observer = Observer::new(watch, 0);
    let verdicts: Vec<Verdict> = looks
        .iter()
        .map(|(ms, look)| observer.observe(look.as_ref(), start + Duration::from_millis(*ms)))
        .collect();
    match verdicts.last() {
        Some(Verdict::Failed(failure)) => assert_eq!(failure.code(), code, "{failure:?}"),
        other => panic!("{other:?} for {looks:?}"),
    }
}

#[test]
fn running_means_running_for_the_stable_period() {
    let created = || Some(container(ContainerStatus::Created));
    check(
        When::Running,
        &[(0, created()), (100, Some(running())), (5099, Some(running())), (5100, Some(running()))],
        &Verdict::Ready,
    );
    check(When::Running, &[(0, Some(running())), (4999, Some(running()))], &Verdict::Wait);
    check(When::Created, &[(0, Some(running()))], &Verdict::Ready);
}

#[test]
fn a_new_start_begins_the_stable_period_anew() {
    let mut second = running();
    second.state.started_at = Some("t1".to_owned());
    second.restart_count = 1;
    check(
        When::Running,
        &[
            (0, Some(running())),
            (4000, Some(restarting(1, 3))),
            (4200, Some(second.clone())),
            (6000, Some(second.clone())),
            (9200, Some(second.clone())),
        ],
        &Verdict::Ready,
    );
    // The restart itself was not seen, only its time.
    check(
        When::Running,
        &[(0, Some(running())), (4000, Some(second.clone())), (6000, Some(second))],
        &Verdict::Wait,
    );
}

#[test]
fn an_end_is_a_failure_of_a_service() {
    failed("container_exited", &[(0, Some(running())), (9, Some(exited(3)))], When::Running);
    failed("container_exited", &[(0, Some(exited(0)))], When::Running);
    failed("command_not_found", &[(0, Some(exited(127)))], When::Running);
    failed("command_not_executable", &[(0, Some(exited(126)))], When::Healthy);
    failed("container_gone", &[(0, Some(running())), (9, None)], When::Running);
    failed("container_dead", &[(0, Some(container(ContainerStatus::Dead)))], When::Running);
}

#[test]
fn a_job_ends_with_its_exit_code() {
    check(When::Exit, &[(0, Some(running())), (9000, Some(exited(0)))], &Verdict::Ready);
    failed("container_exited", &[(0, Some(running())), (9, Some(exited(3)))], When::Exit);
    // Its restart policy decides how often it is tried.
    let looks: Vec<Look> = (0..20u64).map(|n| (n, Some(restarting(n.cast_signed(), 1)))).collect();
    check(When::Exit, &looks, &Verdict::Wait);
}

#[test]
fn restarts_without_end_are_a_crash_loop() {
    failed(
        "container_crash_loop",
        &[(0, Some(restarting(1, 3))), (9, Some(restarting(2, 3))), (99, Some(restarting(3, 3)))],
        When::Running,
    );
    check(
        When::Running,
        &[(0, Some(restarting(1, 3))), (9, Some(restarting(2, 3)))],
        &Verdict::Wait,
    );
    // Podman restarts at once: only `running` is seen, and at last one `stopped`.
    let mut busy = running();
    busy.restart_count = 10;
    let mut stopped = container(ContainerStatus::Stopped);
    stopped.restart_count = 11;
    stopped.state.exit_code = 3;
    check(
        When::Running,
        &[(0, Some(busy.clone())), (9, Some(stopped))],
        &Verdict::Failed(WatchFailure::CrashLoop {
            n_exits: 11,
            exit_code: Some(3),
            has_memory_limit: false,
        }),
    );
    busy.restart_count = MAX_UNSEEN_EXITS;
    failed("container_crash_loop", &[(0, Some(busy))], When::Healthy);
}

#[test]
fn restarts_from_before_do_not_count() {
    let watch = Watch {
        when: When::Running,
        stable_for: Duration::ZERO,
        timeout: Duration::ZERO,
        success_exit_codes: vec![0],
    };
    let mut kept = running();
    kept.restart_count = 40;
    let verdict = Observer::new(watch, 40).observe(Some(&kept), Instant::now());
    assert_eq!(verdict, Verdict::Ready);
}

#[test]
fn podmans_stopped_is_an_end_only_when_it_stays() {
    let stopped = |exit_code| {
        let mut stopped = container(ContainerStatus::Stopped);
        stopped.state.exit_code = exit_code;
        Some(stopped)
    };
    check(When::Exit, &[(0, stopped(0)), (1000, stopped(0))], &Verdict::Wait);
    check(When::Exit, &[(0, stopped(0)), (3000, stopped(0))], &Verdict::Ready);
    failed("container_exited", &[(0, stopped(3)), (3000, stopped(3))], When::Running);
}

#[test]
fn an_engine_that_comes_back_may_start_the_container_again() {
    let watch = Watch {
        when: When::Running,
        stable_for: Duration::from_secs(1),
        timeout: Duration::from_secs(60),
        success_exit_codes: vec![0],
    };
    let start = Instant::now();
    let after = |ms| start + Duration::from_millis(ms);
    let mut observer = Observer::new(watch, 0);
    let mut ended = exited(0);
    ended.has_restart_policy = true;

    assert_eq!(observer.observe(Some(&running()), start), Verdict::Wait);
    observer.engine_is_away(after(900));
    assert_eq!(observer.observe(Some(&ended), after(2000)), Verdict::Wait);
    assert_eq!(observer.observe(Some(&running()), after(3000)), Verdict::Wait);
    assert_eq!(observer.observe(Some(&running()), after(4000)), Verdict::Ready);

    observer.engine_is_away(after(5000));
    assert_eq!(observer.observe(Some(&ended), after(9_000)), Verdict::Wait);
    assert_eq!(observer.observe(Some(&ended), after(10_000)), Verdict::Start);
    let again = observer.observe(Some(&ended), after(10_100));
    assert!(matches!(again, Verdict::Failed(WatchFailure::Exited { .. })), "once is enough");

    observer.engine_is_away(after(11_000));
    ended.has_restart_policy = false;
    let left_alone = observer.observe(Some(&ended), after(11_100));
    assert!(matches!(left_alone, Verdict::Failed(_)), "{left_alone:?}");
}

#[test]
fn out_of_memory_is_told_at_once() {
    let mut killed = exited(137);
    killed.state.oom_killed = true;
    killed.memory_limit = 16 << 20;
    failed("container_out_of_memory", &[(0, Some(killed.clone()))], When::Running);
    failed("container_out_of_memory", &[(0, Some(killed.clone()))], When::Exit);
    killed.state.status = ContainerStatus::Restarting;
    failed("container_out_of_memory", &[(0, Some(killed.clone()))], When::Running);
    let reason = out_of_memory(&killed).reason();
    assert!(reason.contains("OOM") && reason.contains("16 MiB"), "{reason}");
}

#[test]
fn health_decides_where_it_is_asked_for() {
    let starting = || Some(with_health(HealthStatus::Starting));
    check(
        When::Healthy,
        &[
            (0, starting()),
            (60_000, starting()),
            (61_000, Some(with_health(HealthStatus::Healthy))),
        ],
        &Verdict::Ready,
    );
    failed(
        "container_unhealthy",
        &[(0, starting()), (9, Some(with_health(HealthStatus::Unhealthy)))],
        When::Healthy,
    );
    failed("health_check_missing", &[(0, Some(running()))], When::Healthy);
}

#[test]
fn reasons_tell_what_to_do() {
    let check = |failure: WatchFailure, expect: &str| assert_eq!(failure.reason(), expect);
    let exited =
        |exit_code, is_job| WatchFailure::Exited { exit_code, is_job, has_memory_limit: false };
    check(exited(3, true), "job ended with exit code 3");
    check(exited(127, false), "container ended with exit code 127 (command not found)");
    check(
        exited(0, false),
        "container ended with exit code 0 although it should keep running; if it is a job, write `when: exit` below `signal`",
    );
    check(
        WatchFailure::CrashLoop { n_exits: 3, exit_code: Some(137), has_memory_limit: true },
        "crash loop: container ended 3 times, last with exit code 137 (killed; out of memory (OOM) in all likelihood, raise mem_limit)",
    );
    check(
        WatchFailure::Unhealthy {
            exit_code: Some(1),
            output: Some("connection\nrefused\n".to_owned()),
        },
        "health check failed as often as its retries allow; the last ended with exit code 1, it wrote: connection refused",
    );
}
