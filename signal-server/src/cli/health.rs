//! `health`: whether the relay on this machine is ready, for a container's health check and for scripts.

use std::net::SocketAddr;

use clap::Args;
use serde::Serialize;
use url::Url;

use crate::cli::Exit;
use crate::cli::output::{Failure, Output};
use crate::client::Client;

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Address of the admin surface, as the relay was given it
    #[arg(
        long,
        env = "HELIOGRAPH_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8091"
    )]
    admin_listen: SocketAddr,

    /// Answer in JSON, errors too
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
}

impl HealthArgs {
    pub(crate) fn output(&self) -> Output {
        Output { json: self.json }
    }
}

pub(crate) async fn health(args: &HealthArgs) -> Result<Exit, Failure> {
    let url = Url::parse(&format!("http://{}", args.admin_listen)).map_err(Failure::usage)?;
    Client::new(url, None)?.ready().await?;
    args.output().answer(&Ready { ready: true }, "ready");
    Ok(Exit::Success)
}
