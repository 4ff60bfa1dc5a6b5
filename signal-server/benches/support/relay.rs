//! What the benchmarks have in common: servers that are processes of their own, and a client of a few lines.
//!
//! The client does as little HTTP as will do, on one thread, so that it leaves most of the machine to the
//! server.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_protocol::tempurl::{Digest, sign};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// The account of the operator's token, which every data directory has.
pub(crate) const ACCOUNT: &str = "/v1/AUTH_operator";

/// The length of a signal, in bytes.
const N_BODY_BYTES: usize = 400;

/// A server process; killed at the end.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    child: Child,
    /// Keeps the pipe open, so that the server can go on printing.
    stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a server, and returns when it has said where it listens.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Server, Failure> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let address = listening(&mut stdout, "public")?;
        Ok(Server { name, address, child, stdout })
    }

    /// Where the admin surface of a relay listens. To be asked once.
    pub(crate) fn admin_address(&mut self) -> Result<SocketAddr, Failure> {
        listening(&mut self.stdout, "admin")
    }

    /// The relay with its embedded store in this directory.
    pub(crate) fn relay(data_dir: &Path) -> Result<Server, Failure> {
        Server::relay_on(data_dir, "embedded")
    }

    /// The relay on a store, with its token in this directory.
    pub(crate) fn relay_on(data_dir: &Path, store: &str) -> Result<Server, Failure> {
        Server::start("relay", relay_command(data_dir).args(["--store", store]))
    }

    /// How much of the processors the server has used, in ticks of 10 ms.
    pub(crate) fn cpu_ticks(&self) -> Result<u64, Failure> {
        let stat = self.read_proc("stat")?;
        let fields = stat.rsplit_once(')').ok_or("no stat")?.1.split_whitespace();
        let (user, system) = (fields.clone().nth(11), fields.clone().nth(12));
        Ok(user.ok_or("no time")?.parse::<u64>()? + system.ok_or("no time")?.parse::<u64>()?)
    }

    /// How many bytes the server has given to the disk.
    pub(crate) fn written_bytes(&self) -> Result<u64, Failure> {
        let io = self.read_proc("io")?;
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(line.ok_or("no write_bytes")?.parse()?)
    }

    /// The memory that is the server's own, in bytes; pages of files do not count.
    pub(crate) fn anonymous_bytes(&self) -> Result<u64, Failure> {
        anonymous_bytes_of(self.child.id())
    }

    /// Sends SIGTERM.
    pub(crate) fn tell_to_stop(&self) -> Result<(), Failure> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?)
    }

    /// Whether the server has ended, and as it should.
    pub(crate) fn has_stopped(&mut self) -> Result<bool, Failure> {
        match self.child.try_wait()? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => Err(format!("{} ended with {status}", self.name).into()),
        }
    }

    fn read_proc(&self, file: &str) -> io::Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))
    }
}

/// `serve` with what all relays here have in common.
pub(crate) fn relay_command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heliograph-server"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--log-level", "warn", "--data-dir"]).arg(data_dir);
    command
}

fn listening(stdout: &mut impl BufRead, surface: &str) -> Result<SocketAddr, Failure> {
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    let address = line.trim().strip_prefix(&format!("listening {surface} http://"));
    Ok(address.ok_or("no address")?.parse()?)
}

/// The memory that is a process's own, in bytes; pages of files do not count.
pub(crate) fn anonymous_bytes_of(process: u32) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes: u64 = line.ok_or("no RssAnon")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The operator's token of a data directory.
pub(crate) fn operator_token(data_dir: &Path) -> Result<String, Failure> {
    Ok(std::fs::read_to_string(data_dir.join("operator.token"))?.trim().to_owned())
}

/// A request of the operator.
pub(crate) fn operator_request(token: &str, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: relay\r\nx-auth-token: {token}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

/// The key that signs URLs for the operator's account.
pub(crate) async fn signing_key(
    connection: &mut Connection,
    token: &str,
) -> Result<String, Failure> {
    connection.ask(operator_request(token, "HEAD", ACCOUNT, "").as_bytes()).await?;
    let line = connection
        .head()
        .lines()
        .find_map(|line| line.strip_prefix("x-account-meta-temp-url-key: "));
    Ok(line.ok_or("the account has no key")?.to_owned())
}

/// The head of a signed PUT as curl sends it.
pub(crate) fn signed_head(key: &str, path: &str) -> String {
    let expires = 2_147_483_586;
    let signature = sign(Digest::Sha256, key.as_bytes(), "PUT", expires, path);
    format!(
        "PUT {path}?temp_url_sig={signature}&temp_url_expires={expires} HTTP/1.1\r\n\
         host: relay\r\nuser-agent: curl/7.88.1\r\naccept: */*\r\n\
         content-type: application/x-www-form-urlencoded\r\n\
         content-length: {N_BODY_BYTES}\r\n\r\n"
    )
}

/// A signal with an id of its own behind `head`.
pub(crate) fn write_request(request: &mut Vec<u8>, head: &str, id: usize) -> io::Result<()> {
    const TAIL: &str = r#""}}"#;
    request.clear();
    write!(
        request,
        "{head}{{\"status\":\"SUCCESS\",\"id\":\"8f9d3c1e-{id:012}\",\"reason\":\"web is up\",\
         \"data\":{{\"network_ip\":\"10.0.0.7\",\"logs_tail\":\""
    )?;
    request.resize(head.len() + N_BODY_BYTES - TAIL.len(), b'x');
    request.extend_from_slice(TAIL.as_bytes());
    Ok(())
}

/// One request at a time; answers with a Content-Length or without a body.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    n_bytes: usize,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: vec![0; 64 << 10], n_bytes: 0 })
    }

    pub(crate) async fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        self.n_bytes = 0;
        let is_head_request = request.starts_with(b"HEAD ");
        loop {
            let n_read = self.stream.read(&mut self.buffer[self.n_bytes..]).await?;
            if n_read == 0 {
                return Err(io::Error::other("the server closed the connection"));
            }
            self.n_bytes += n_read;
            if self.is_whole(is_head_request) {
                break;
            }
        }
        match self.buffer.get(9) {
            Some(b'2') => Ok(()),
            _ => Err(io::Error::other(self.head().to_owned())),
        }
    }

    /// The whole answer.
    pub(crate) fn head(&self) -> &str {
        std::str::from_utf8(&self.buffer[..self.n_bytes]).unwrap_or_default()
    }

    /// Answers to a PUT end with their head, which is what nearly all requests are.
    fn is_whole(&self, is_head_request: bool) -> bool {
        let answer = &self.buffer[..self.n_bytes];
        if answer.ends_with(b"\r\n\r\n") && (is_head_request || answer.starts_with(b"HTTP/1.1 201"))
        {
            return true;
        }
        let Some((head, body)) = self.head().split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        is_head_request || body.len() >= length.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// The value at this place of an ordered list of times.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index into what fits in memory"
)]
pub(crate) fn quantile(ordered: &[u32], quantile: f64) -> u32 {
    let index = (ordered.len() as f64 * quantile) as usize;
    ordered.get(index).copied().unwrap_or_default()
}

pub(crate) fn print(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}
