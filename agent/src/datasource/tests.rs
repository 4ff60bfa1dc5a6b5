use super::*;

/// A source that answers as it is told, one outcome after the other, the last one for ever.
struct Scripted {
    name: &'static str,
    /// How long each probe takes.
    latency: Duration,
    outcomes: Vec<Outcome>,
    n_probes: std::sync::atomic::AtomicUsize,
    may_appear: bool,
}

#[async_trait]
impl Datasource for Scripted {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn probe(&self) -> Outcome {
        sleep(self.latency).await;
        let n = self.n_probes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.outcomes[n.min(self.outcomes.len() - 1)].clone()
    }

    fn may_appear(&self) -> bool {
        self.may_appear
    }
}

fn source(name: &'static str, latency_ms: u64, outcomes: &[Outcome]) -> Box<dyn Datasource> {
    Box::new(Scripted {
        name,
        latency: Duration::from_millis(latency_ms),
        outcomes: outcomes.to_vec(),
        n_probes: 0.into(),
        may_appear: true,
    })
}

fn once(name: &'static str, outcome: Outcome) -> Box<dyn Datasource> {
    Box::new(Scripted {
        name,
        latency: Duration::ZERO,
        outcomes: vec![outcome],
        n_probes: 0.into(),
        may_appear: false,
    })
}

fn found(datasource: &'static str, user_data: Option<&str>) -> Outcome {
    Outcome::Found(Found {
        datasource,
        instance_id: None,
        user_data: user_data.map(|text| text.as_bytes().to_vec()),
        facts: BTreeMap::new(),
    })
}

fn broken() -> Outcome {
    Outcome::Broken(BrokenReason("answered 500".to_owned()))
}

/// Runs a race with paused time: which source won, and after how many milliseconds.
async fn winner(sources: Vec<Box<dyn Datasource>>) -> (Option<&'static str>, u64) {
    let start = Instant::now();
    let race = race(sources, Duration::from_secs(60)).await;
    let elapsed = start.elapsed().as_millis();
    (race.found.map(|found| found.datasource), u64::try_from(elapsed).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_first_source_wins_at_once() {
    let sources = vec![
        source("drive", 5, &[found("drive", Some("x"))]),
        source("http", 1, &[found("http", Some("x"))]),
    ];
    let (name, elapsed_ms) = winner(sources).await;
    assert_eq!(name, Some("drive"));
    assert!(elapsed_ms < 10, "{elapsed_ms}");
}

#[tokio::test(start_paused = true)]
async fn a_drive_that_follows_soon_is_preferred() {
    let late = [Outcome::Absent, found("drive", Some("x"))];
    let http = || source("http", 1, &[found("http", Some("x"))]);
    let (name, _) = winner(vec![source("drive", 5, &late), http()]).await;
    assert_eq!(name, Some("drive"));
    let too_late = [&[(); 8].map(|()| Outcome::Absent)[..], &late[1..]].concat();
    let (name, elapsed_ms) = winner(vec![source("drive", 5, &too_late), http()]).await;
    assert_eq!(name, Some("http"));
    assert!((500..600).contains(&elapsed_ms), "{elapsed_ms}");
}

#[tokio::test(start_paused = true)]
async fn broken_is_asked_again_and_absent_is_polled() {
    let sources = vec![
        source("drive", 0, &[Outcome::Absent]),
        source("http", 1, &[broken(), broken(), found("http", Some("x"))]),
    ];
    assert_eq!(winner(sources).await.0, Some("http"));
    let appears = [&[(); 20].map(|()| Outcome::Absent)[..], &[found("drive", Some("x"))]].concat();
    let sources = vec![source("drive", 0, &appears), source("http", 1, &[broken()])];
    let (name, elapsed_ms) = winner(sources).await;
    assert_eq!(name, Some("drive"));
    assert!((5000..5500).contains(&elapsed_ms), "{elapsed_ms}");
}

#[tokio::test(start_paused = true)]
async fn user_data_beats_an_instance_without() {
    let sources = vec![
        source("http", 0, &[found("http", None)]),
        source("other", 2_000, &[found("other", Some("x"))]),
    ];
    assert_eq!(winner(sources).await.0, Some("other"));
    let sources = vec![source("http", 0, &[found("http", None)]), source("other", 0, &[broken()])];
    let (name, elapsed_ms) = winner(sources).await;
    assert_eq!(name, Some("http"));
    assert!((10_000..10_100).contains(&elapsed_ms), "{elapsed_ms}");
}

#[tokio::test(start_paused = true)]
async fn nothing_found_is_reported_source_by_source() {
    let sources = vec![
        source("drive", 0, &[Outcome::Absent]),
        source("http", 1, &[broken()]),
        source("slow", 100_000, &[Outcome::Absent]),
    ];
    let race = race(sources, Duration::from_secs(60)).await;
    assert_eq!(race.found, None);
    let summaries: Vec<_> = race.reports.iter().map(|one| one.summary.as_str()).collect();
    assert_eq!(summaries, ["absent", "broken: answered 500", "not answered yet"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_change_is_asked_once() {
    let (name, elapsed_ms) = winner(vec![once("file", broken())]).await;
    assert_eq!((name, elapsed_ms), (None, 0));
    assert_eq!(winner(Vec::new()).await, (None, 0));
}

#[tokio::test(start_paused = true)]
async fn the_second_dialect_is_asked_only_where_the_first_is_absent() {
    let script = |outcome: &Outcome| Scripted {
        name: "a",
        latency: Duration::ZERO,
        outcomes: vec![outcome.clone()],
        n_probes: 0.into(),
        may_appear: true,
    };
    let cases = [
        (Outcome::Absent, found("b", None), found("b", None)),
        (broken(), found("b", None), broken()),
        (found("a", None), found("b", None), found("a", None)),
    ];
    for (first, second, expected) in cases {
        let source = Otherwise::new(script(&first), script(&second));
        assert_eq!(source.probe().await, expected);
    }
}

#[test]
fn debug_output_has_no_user_data() {
    let mut found = found("file", Some("secret"));
    if let Outcome::Found(found) = &mut found {
        found.facts.insert("meta.key".to_owned(), "secret".to_owned());
    }
    assert!(!format!("{found:?}").contains("secret"));
}
