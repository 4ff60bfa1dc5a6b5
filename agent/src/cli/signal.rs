//! `heliograph-agent signal`: a script on the instance tells the document's handle something.
//!
//! This goes beside the run's own signal, with an id of its own, and past the outbox: whoever calls
//! it gets the outcome as exit code and can call it again.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::value::RawValue;
use signal_protocol::signal::{MAX_SIGNAL_BYTES, Signal, Status};
use tokio::time::Instant;

use crate::boot::destination::Destination;
use crate::boot::sources;
use crate::cli::print;
use crate::cli::run::ways;
use crate::config::{Config, ConfigError};
use crate::datasource;
use crate::error::{AgentError, Exit};
use crate::signal::{self, Handle};
use crate::userdata;

/// The instance runs already, so its datasource is there.
const DATASOURCE_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(crate) struct SignalArguments {
    #[arg(long, value_enum, default_value = "SUCCESS")]
    status: StatusWord,
    /// What happened, for a person
    #[arg(long)]
    reason: Option<String>,
    /// What makes this signal the same when it is sent again [default: INSTANCE/manual]
    #[arg(long)]
    id: Option<String>,
    /// Any JSON
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// How long to try, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "UPPER")]
enum StatusWord {
    Success,
    Failure,
}

pub(super) async fn send_by_hand(
    config: &Config,
    arguments: SignalArguments,
) -> Result<Exit, AgentError> {
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
    let race = datasource::race(sources::sources(config), DATASOURCE_TIMEOUT).await;
    let Some(found) = race.found else {
        let reports = race.reports.iter().map(|one| format!("{}: {}", one.datasource, one.summary));
        return Err(AgentError::NoDatasource { reports: reports.collect::<Vec<_>>().join("; ") });
    };
    let (destination, authorities) = destination(found.user_data.as_deref().unwrap_or_default())?;
    let Some(way) = destination.way else { return Err(AgentError::Config(ConfigError::NoHandle)) };
    let transport = ways(config)?.trusting(&authorities).by(way);
    let handle = match destination.handle {
        Some(handle) => handle,
        None if transport.knows_this_instance().await => Handle::Instance,
        None => return Err(AgentError::Config(ConfigError::NoHandle)),
    };
    let instance_id = config.instance_id.clone().or(found.instance_id);
    let signal = build(arguments, instance_id)?;
    let body = signal.to_json();
    let sent = signal::deliver(transport.as_ref(), &handle, &body, deadline).await;
    sent.map_err(AgentError::Undelivered)?;
    print(&format!("signal was acknowledged by {}", handle.host()));
    Ok(Exit::Success)
}

/// The handle of the user data, also if the rest of it is not a good document, and whom to trust on
/// the way to it.
fn destination(user_data: &[u8]) -> Result<(Destination, Vec<String>), AgentError> {
    let (destination, authorities) = match userdata::load(user_data) {
        Ok(document) => (Destination::of(&document.signal), document.certificate_authorities),
        Err(_) => {
            let target = userdata::signal_target_of(user_data);
            (Destination::of_target(target.as_ref()), Vec::new())
        }
    };
    Ok((destination.map_err(AgentError::Handle)?, authorities))
}

fn build(arguments: SignalArguments, instance_id: Option<String>) -> Result<Signal, AgentError> {
    let refuse = || AgentError::Config(ConfigError::SignalData);
    let data = arguments.data.map(RawValue::from_string).transpose().map_err(|_| refuse())?;
    let id = arguments.id.or_else(|| instance_id.map(|id| format!("{id}/manual")));
    let status = match arguments.status {
        StatusWord::Success => Status::Success,
        StatusWord::Failure => Status::Failure,
    };
    let signal = Signal { status, reason: arguments.reason, id, data };
    if signal.to_json().len() > MAX_SIGNAL_BYTES {
        return Err(refuse());
    }
    if signal.id.is_none() {
        return Err(AgentError::Config(ConfigError::NoSignalId));
    }
    Ok(signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(data: Option<&str>, id: Option<&str>) -> SignalArguments {
        SignalArguments {
            status: StatusWord::Failure,
            reason: Some("because".to_owned()),
            id: id.map(str::to_owned),
            data: data.map(str::to_owned),
            timeout: 1,
        }
    }

    #[test]
    fn a_signal_has_an_id_and_its_data_is_json() {
        let check = |data, id, instance: Option<&str>, expect: Result<&str, &str>| {
            let built = build(arguments(data, id), instance.map(str::to_owned));
            let built = built.map(|signal| signal.to_json()).map_err(|error| error.reason());
            assert_eq!(built.as_deref().map_err(String::as_str), expect);
        };
        check(
            Some("{\"a\":[1]}"),
            Some("me"),
            None,
            Ok(
                "{\"status\":\"FAILURE\",\"reason\":\"because\",\"id\":\"me\",\"data\":{\"a\":[1]}}",
            ),
        );
        check(
            None,
            None,
            Some("i-1"),
            Ok("{\"status\":\"FAILURE\",\"reason\":\"because\",\"id\":\"i-1/manual\"}"),
        );
        check(
            Some("{"),
            Some("me"),
            None,
            Err("data is not JSON, or the signal is longer than 1 MiB"),
        );
        check(None, None, None, Err("instance id is not known here, so --id has to be given"));
    }
}
