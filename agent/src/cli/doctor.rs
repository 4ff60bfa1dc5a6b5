//! `heliograph-agent doctor`: every hop between user data and an acknowledged signal, one after the
//! other, and which of them is broken.
//!
//! Nothing is changed and nothing is signalled: a hop is asked whether it is there. It may run beside
//! an agent that runs.

mod hops;

use std::time::Duration;

use serde_json::json;

use crate::boot::{engines, sources};
use crate::cli::doctor::hops::Reached;
use crate::cli::{print, run};
use crate::config::Config;
use crate::datasource;
use crate::error::{AgentError, Exit, chain};
use crate::fetch::Trust;
use crate::image::Images;
use crate::plan::Plan;
use crate::state::{self, SignalState};
use crate::userdata::document::{Document, SignalTarget};
use crate::userdata::{self, Decoded};

/// A person waits: long enough for two attempts at a metadata service.
const DATASOURCE_TIMEOUT: Duration = Duration::from_secs(15);

/// A TempURL's time and a certificate's are compared with this clock; people allow minutes.
const MAX_CLOCK_SKEW_SECONDS: i64 = 60;

/// What was found out about one hop.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    hop: &'static str,
    verdict: Verdict,
    /// What was seen.
    what: String,
    /// What to do about it; empty where there is nothing to do.
    advice: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Worth knowing, and no reason for a failure by itself.
    Notice,
    Broken,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Verdict::Good => "ok",
            Verdict::Notice => "note",
            Verdict::Broken => "BROKEN",
        }
    }
}

fn good(hop: &'static str, what: impl Into<String>) -> Finding {
    Finding { hop, verdict: Verdict::Good, what: what.into(), advice: "" }
}

fn notice(hop: &'static str, what: impl Into<String>, advice: &'static str) -> Finding {
    Finding { hop, verdict: Verdict::Notice, what: what.into(), advice }
}

fn broken(hop: &'static str, what: impl Into<String>, advice: &'static str) -> Finding {
    Finding { hop, verdict: Verdict::Broken, what: what.into(), advice }
}

/// Exit code 1 if a hop is broken.
pub(super) async fn doctor(config: &Config, json: bool) -> Result<Exit, AgentError> {
    let mut findings = Vec::new();
    let document = user_data(config, &mut findings).await;
    images(config, document.as_ref(), &mut findings).await;
    ways_to_the_handle(config, document.as_ref(), &mut findings).await;
    findings.push(last_run(config));

    let is_broken = findings.iter().any(|finding| finding.verdict == Verdict::Broken);
    if json {
        print(&in_json(&findings));
    } else {
        findings.iter().for_each(|finding| print(&in_words(finding)));
    }
    Ok(if is_broken { Exit::Failure } else { Exit::Success })
}

/// Datasource and document.
async fn user_data(config: &Config, findings: &mut Vec<Finding>) -> Option<Document> {
    let race = datasource::race(sources::sources(config), DATASOURCE_TIMEOUT).await;
    let reports = race.reports.iter().map(|one| format!("{}: {}", one.datasource, one.summary));
    let reports = reports.collect::<Vec<_>>().join("; ");
    let Some(found) = race.found else {
        findings.push(broken(
            "datasource",
            reports,
            "check that the instance has a config drive, or a route to 169.254.169.254 (DHCP option 121)",
        ));
        return None;
    };
    let Some(bytes) = found.user_data else {
        let what = format!("{} knows the instance, which has no user data", found.datasource);
        findings.push(notice("datasource", what, "give the instance user data and start it anew"));
        return None;
    };
    findings.push(good("datasource", format!("{} has {} bytes", found.datasource, bytes.len())));
    let parsed = match userdata::decode(&bytes) {
        Ok(Decoded::Docker(_)) => userdata::load(&bytes),
        Ok(Decoded::NotDocker(kind)) => {
            let why = userdata::UserDataError::NotDocker(kind).to_string();
            findings.push(notice("document", why, "nothing, if it is for another program"));
            return None;
        }
        Err(error) => Err(userdata::UserDataError::Decode(error)),
    };
    match parsed {
        Ok(document) => {
            let services = document.services.iter().map(|one| one.name.as_str());
            let services = services.collect::<Vec<_>>().join(", ");
            findings.push(good("document", format!("it is good; services: {services}")));
            Some(document)
        }
        Err(error) => {
            let advice =
                "correct the document; `heliograph-agent validate` checks it on any machine";
            findings.push(broken("document", chain(&error), advice));
            None
        }
    }
}

/// Engine and images.
async fn images(config: &Config, document: Option<&Document>, findings: &mut Vec<Finding>) {
    let engine = match engines::connect(&config.engine_sockets).await {
        Ok(engine) => engine,
        Err(error) => {
            let advice = "install and start Docker or Podman (podman.socket), or name its socket with --engine";
            findings.push(broken("engine", error.reason(), advice));
            return;
        }
    };
    match engine.ping().await {
        Ok(version) => {
            findings.push(good("engine", format!("{} speaks API {}", version.server, version.api)));
        }
        Err(error) => findings.push(broken("engine", chain(&error), "see the engine's own log")),
    }
    let Some(document) = document else { return };
    let plan = Plan::new(document, &config.state_dir);
    // It is only asked what is here, so nothing is fetched into the directory.
    let images = Images::new(engine, &plan, &config.authorities, config.state_dir.join("images"));
    for container in &plan.containers {
        let finding = match images.local(&container.image).await {
            Ok(Some(_)) => good("image", format!("{} is here", container.image)),
            Err(error) => broken("image", error.reason(), "see the engine's own log"),
            Ok(None) => hops::image_source(&plan, container, &config.authorities).await,
        };
        findings.push(finding);
    }
}

/// The handle directly, the gateway, and the clock as the handle's server has it.
async fn ways_to_the_handle(
    config: &Config,
    document: Option<&Document>,
    findings: &mut Vec<Finding>,
) {
    let target = document.and_then(|document| document.signal.target.as_ref());
    let of_document = document.map(|document| document.certificate_authorities.as_slice());
    let authorities = [&config.authorities, of_document.unwrap_or_default()].concat();
    let trust = Trust { authorities, ..Trust::default() };
    let direct = match target.map(hops::url_of) {
        None => None,
        Some(None) => {
            let advice = "pass the whole `signal` attribute of the handle, or its URL";
            findings.push(broken("handle", "it has no URL that can be used", advice));
            None
        }
        Some(Some(url)) => Some(hops::reach(&url, &trust).await),
    };
    let gateway = match run::ways(config) {
        Ok(ways) => match ways.gateway() {
            Some(gateway) => Some(gateway.greet().await),
            None => None,
        },
        Err(error) => {
            findings.push(broken("gateway", error.reason(), "check the state directory"));
            None
        }
    };
    let has_gateway = matches!(gateway, Some(Ok(())));
    match &direct {
        None if document.is_some() && !matches!(target, Some(SignalTarget::Url(_) | SignalTarget::Json(_))) => {
            findings.push(notice("handle", "the document names none", "give `signal`, if somebody waits"));
        }
        None => {}
        Some(Ok(reached)) => findings.push(good("handle", format!("{} answers", reached.host))),
        Some(Err(error)) if has_gateway => {
            let what = format!("{error}; the relay at the metadata address is used instead");
            findings.push(notice("handle", what, "nothing: that is what the gateway is for"));
        }
        Some(Err(error)) => findings.push(broken(
            "handle",
            error.clone(),
            "give the network a route to the relay, or put the relay's gateway before Nova's metadata service",
        )),
    }
    findings.extend(gateway.map(|greeted| match greeted {
        Ok(()) => good("gateway", "a relay answers at the metadata address"),
        Err(error) => {
            let advice = "nothing, unless signals are to go that way";
            notice("gateway", chain(&error), advice)
        }
    }));
    if let Some(Ok(Reached { skew_seconds: Some(skew), host })) = direct {
        findings.push(clock(skew, &host));
    }
}

fn clock(skew_seconds: i64, host: &str) -> Finding {
    if skew_seconds.abs() <= MAX_CLOCK_SKEW_SECONDS {
        return good("clock", format!("within {MAX_CLOCK_SKEW_SECONDS} s of {host}'s"));
    }
    let direction = if skew_seconds > 0 { "ahead of" } else { "behind" };
    let what = format!("{} s {direction} {host}'s", skew_seconds.abs());
    broken("clock", what, "set the clock (NTP): certificates and signed URLs have times in them")
}

fn last_run(config: &Config) -> Finding {
    let status = match state::read_status(&config.state_dir) {
        Ok(Some(status)) => status,
        Ok(None) => {
            return notice("run", "none yet on this instance", "start heliograph-agent run");
        }
        Err(error) => {
            return broken("run", chain(&error), "check the state directory's disk and owner");
        }
    };
    if !status.is_over {
        return notice("run", format!("it is in step {}", status.step), "wait for it");
    }
    let reason = status.reason.unwrap_or_else(|| "it had nothing to do".to_owned());
    match status.signal {
        SignalState::Pending => broken(
            "run",
            "its signal is not acknowledged, and waits in the outbox".to_owned(),
            "mend the way to the handle, then start heliograph-agent run again",
        ),
        _ => good("run", reason.lines().next().unwrap_or_default()),
    }
}

fn in_words(finding: &Finding) -> String {
    let line = format!("{:6}  {:10}  {}", finding.verdict.as_str(), finding.hop, finding.what);
    if finding.advice.is_empty() {
        return line;
    }
    format!("{line}\n                    {}", finding.advice)
}

fn in_json(findings: &[Finding]) -> String {
    let hops: Vec<_> = findings
        .iter()
        .map(|one| {
            let verdict = match one.verdict {
                Verdict::Good => "ok",
                Verdict::Notice => "note",
                Verdict::Broken => "broken",
            };
            json!({"hop": one.hop, "verdict": verdict, "what": one.what, "advice": one.advice})
        })
        .collect();
    json!({ "hops": hops }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_a_minute_off() {
        let check = |skew: i64, verdict: Verdict, expect: &str| {
            let finding = clock(skew, "relay.example");
            assert_eq!(finding.verdict, verdict, "{skew}");
            assert!(finding.what.contains(expect), "{}", finding.what);
        };
        check(0, Verdict::Good, "within 60 s");
        check(-60, Verdict::Good, "within 60 s");
        check(61, Verdict::Broken, "61 s ahead of relay.example's");
        check(-7200, Verdict::Broken, "7200 s behind relay.example's");
    }

    #[test]
    fn a_finding_is_a_line_and_its_advice_another() {
        assert_eq!(in_words(&good("engine", "it answers")), "ok      engine      it answers");
        let words = in_words(&broken("engine", "no answer", "start it"));
        assert_eq!(words, "BROKEN  engine      no answer\n                    start it");
        let json = in_json(&[notice("run", "none yet", "start it")]);
        assert_eq!(
            json,
            r#"{"hops":[{"advice":"start it","hop":"run","verdict":"note","what":"none yet"}]}"#
        );
    }
}
