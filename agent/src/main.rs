//! Turns the command line into an exit code; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use heliograph_agent::cli::{self, Cli};
use heliograph_agent::error::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The only TLS provider; an error means that it is there already.
    drop(rustls::crypto::ring::default_provider().install_default());
    // One thread: the agent waits most of the time, and should be small while it does.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let exit = runtime.map_or(Exit::State, |runtime| {
        let exit = runtime.block_on(cli::run(cli));
        // A console that takes nothing must not hold the process back.
        runtime.shutdown_background();
        exit
    });
    exit.into()
}
