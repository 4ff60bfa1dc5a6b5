//! The relay and the commands that talk to it.

use heliograph_server::cli::{Exit, run};
use mimalloc::MiMalloc;

/// A signal is some tens of short-lived allocations, made in one thread and freed in another, and the
/// system's allocator takes a sixth of the relay's time for them. It is built so that it does without huge pages:
/// with them, requests that wait hold up to three times their memory, for what lies between them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> Exit {
    // Fails only where one is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    run(std::env::args_os())
}
