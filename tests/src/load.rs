//! Signals as fast as a relay takes them, and an exact account of what it acknowledged.
//!
//! The client is a few lines over a socket: a signal counts as acknowledged only when a complete
//! success status line has arrived, and every other outcome is seen as what it is.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::relay::Handle;

/// A relay that takes longer is as good as gone for these tests.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A keep-alive connection to a relay.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Where a signal goes: the path and query of a handle's signal URL.
#[derive(Clone, Debug)]
pub struct Target {
    pub handle: usize,
    pub path_and_query: String,
}

/// What one round of load brought.
#[derive(Debug, Default)]
pub struct Account {
    /// `(handle, id)` of each signal with a success answer.
    pub acknowledged: BTreeSet<(usize, String)>,
    /// Answers that were neither success nor silence.
    pub refused: Vec<Answer>,
}

impl Connection {
    pub fn open(address: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Connection { stream: BufReader::new(stream), host: address.to_owned() })
    }

    /// Likewise, for whoever does not wait as long for an answer.
    pub fn open_with_limit(address: &str, limit: Duration) -> io::Result<Connection> {
        let connection = Connection::open(address)?;
        connection.stream.get_ref().set_read_timeout(Some(limit))?;
        Ok(connection)
    }

    /// Sends a signal and gives the answer, which has been read to its end.
    pub fn put(&mut self, path_and_query: &str, body: &str) -> io::Result<Answer> {
        let request = format!(
            "PUT {path_and_query} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.answer()
    }

    /// Asks for a page, as a browser would.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("no status line"))?;
        let mut n_body_bytes = 0;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                n_body_bytes = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = String::new();
        self.stream.by_ref().take(n_body_bytes).read_to_string(&mut body)?;
        Ok(Answer { status, body })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        // The line is complete only with its end: a relay that was killed may have sent half.
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Target {
    /// The way to a handle, whichever relay process serves it.
    pub fn new(handle: usize, description: &Handle) -> Result<Target> {
        let (_, after_scheme) = description.signal_url.split_once("://").context("no scheme")?;
        let (_, path_and_query) = after_scheme.split_once('/').context("no path")?;
        Ok(Target { handle, path_and_query: format!("/{path_and_query}") })
    }
}

/// Signals over several connections until each has failed or `enough` were acknowledged, then calls
/// `then` while the load goes on, and gives the account when all connections are broken.
///
/// Ids begin with `round`, so that no two rounds share one.
pub fn until_broken(
    address: &str,
    targets: &[Target],
    round: &str,
    n_connections: usize,
    enough: usize,
    then: impl FnOnce() -> Result<()>,
) -> Result<Account> {
    let n_acknowledged = AtomicUsize::new(0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..n_connections)
            .map(|worker| {
                let n_acknowledged = &n_acknowledged;
                scope.spawn(move || {
                    // Each begins with another handle, so that all get their share.
                    let targets = targets.iter().cycle().skip(worker);
                    work(address, targets, &format!("{round}-{worker}"), n_acknowledged)
                })
            })
            .collect();
        crate::wait::until("enough acknowledged signals", Duration::from_secs(120), || {
            let done = workers.iter().all(|worker| worker.is_finished());
            let reached = n_acknowledged.load(Ordering::Relaxed) >= enough;
            anyhow::ensure!(reached || !done, "the load ended before it was broken");
            Ok(reached.then_some(()))
        })?;
        then()?;
        let mut account = Account::default();
        for worker in workers {
            let part = worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
            account.acknowledged.extend(part.acknowledged);
            account.refused.extend(part.refused);
        }
        Ok(account)
    })
}

/// One connection's signals, one after the other, spread over the handles.
fn work<'a>(
    address: &str,
    targets: impl Iterator<Item = &'a Target>,
    prefix: &str,
    n_acknowledged: &AtomicUsize,
) -> Account {
    let mut account = Account::default();
    let Ok(mut connection) = Connection::open(address) else {
        return account;
    };
    for (number, target) in targets.enumerate() {
        let id = format!("{prefix}-{number}");
        let body = format!(r#"{{"status":"SUCCESS","id":"{id}","data":"{number}"}}"#);
        match connection.put(&target.path_and_query, &body) {
            Ok(answer) if answer.is_success() => {
                account.acknowledged.insert((target.handle, id));
                n_acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => account.refused.push(answer),
            Err(_broken) => break,
        }
    }
    account
}
