//! A TCP proxy that breaks off: what a flaky network does to a pull.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result};

/// A listener that lives as long as the process: its thread sits in `accept`.
#[derive(Clone, Debug)]
pub struct CuttingProxy {
    address: String,
}

impl CuttingProxy {
    /// Forwards connections to `target`, and cuts each after so many bytes of answers.
    pub fn start(target: &str, cut_after_bytes: usize) -> Result<CuttingProxy> {
        let listener = TcpListener::bind("127.0.0.1:0").context("failed to bind the proxy")?;
        let address = listener.local_addr()?.to_string();
        let target = target.to_owned();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let target = target.clone();
                thread::spawn(move || forward(&client, &target, cut_after_bytes));
            }
        });
        Ok(CuttingProxy { address })
    }

    /// Forwards the connections of a listener, which may be one of another network, to `target` in this
    /// thread's network, and cuts none.
    pub fn start_on(listener: TcpListener, target: &str) {
        let target = target.to_owned();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let target = target.clone();
                thread::spawn(move || forward(&client, &target, usize::MAX));
            }
        });
    }

    /// `host:port`, as in an image's name.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// Both directions at once; whichever ends first, both connections are closed.
fn forward(client: &TcpStream, target: &str, cut_after_bytes: usize) {
    let Ok(server) = TcpStream::connect(target) else {
        return;
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            copy(client, &server, usize::MAX);
            close(client, &server);
        });
        copy(&server, client, cut_after_bytes);
        close(client, &server);
    });
}

/// A proxied connection ends in many ways, none of which is the scene's business.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut remaining_bytes: usize) {
    let mut buffer = [0; 16 * 1024];
    while remaining_bytes > 0 {
        let Ok(n_bytes @ 1..) = from.read(&mut buffer) else {
            return;
        };
        let n_bytes = n_bytes.min(remaining_bytes);
        if to.write_all(&buffer[..n_bytes]).is_err() {
            return;
        }
        remaining_bytes -= n_bytes;
    }
}

fn close(client: &TcpStream, server: &TcpStream) {
    for stream in [client, server] {
        let _already_closed = stream.shutdown(Shutdown::Both);
    }
}
