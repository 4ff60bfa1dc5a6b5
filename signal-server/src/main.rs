//! The relay and the commands that talk to it.

use heliograph_server::cli::{Exit, run};

fn main() -> Exit {
    // Fails only where one is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    run(std::env::args_os())
}
