//! By way of the metadata address, where no other way leads out.
//!
//! 169.254.169.254 is there on every network that serves user data, and a relay that stands before
//! Nova's metadata service takes signals from it. The way is narrow (see [`signal_protocol::frame`]), so
//! a signal is cut into frames, and for each frame there is a receipt that says what arrived. A `hello`
//! comes first: Nova alone answers it with 404, and to a `PUT` elsewhere Nova may answer 200 without
//! having understood anything, so a status says nothing here and the receipt everything.
//!
//! | a receipt that | |
//! |---|---|
//! | fits | goes on with the next frame |
//! | does not fit, or is none | the request was cut on its way: everything again, in the query, which survives that; a message with a secret, which a proxy would log, in frames that fit one TCP segment |
//! | says `retry` | goes on later |
//! | says anything else | is the relay's refusal |

mod http;
mod rate;
mod report;
mod slot;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rand::Rng as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use signal_protocol::frame::{
    BootId, Form, Frame, MAX_FRAME_DATA_BYTES, METADATA_PREFIX, MessageId, Receipt,
    SMALL_FRAME_DATA_BYTES, split_into,
};
use signal_protocol::message::{Destination, InstanceKey, Login, Message};
use signal_protocol::signal::Signal;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};
use tokio::time::{Instant, sleep};

use crate::link_local::{LINK_LOCAL_V4, addresses_v6};
use crate::signal::gateway::http::{
    Answer, MAX_REQUEST_BYTES, MAX_SEGMENT_BYTES, exchange, request,
};
use crate::signal::gateway::rate::Rate;
use crate::signal::{Handle, SendError, Transport};
use crate::text;

pub use crate::signal::gateway::report::Reporter;
pub(crate) use crate::signal::gateway::slot::PasswordSlot;

/// Where every cloud has its metadata service.
pub const METADATA_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(LINK_LOCAL_V4), 80);

/// What errors call it, also where its other address, that of IPv6, is used.
const HOST: &str = "169.254.169.254";

/// How often a message is begun anew when its receipts do not fit: once as it is, once in the form that
/// survives, and some more for a relay that was restarted in between.
const MAX_ROUNDS: usize = 4;

/// How long to wait when the relay asks for patience without saying how long.
const DEFAULT_PAUSE: Duration = Duration::from_secs(2);

/// How long it is asked anew whether a relay is there, when the answer is that there were too many
/// questions: three of Neutron's windows.
const HELLO_PATIENCE: Duration = Duration::from_secs(30);

/// How much of a refusal goes into an error.
const MAX_MESSAGE_BYTES: usize = 300;

/// The metadata address as a way to a handle.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    boot: BootId,
    next: AtomicU32,
    /// The numbers of messages that are not acknowledged, so that a repetition has the same.
    numbers: Mutex<HashMap<[u8; 32], u32>>,
    rate: Rate,
    /// Where a relay has answered.
    met_at: OnceCell<SocketAddr>,
    key: Option<InstanceKey>,
    key_given: OnceCell<()>,
    way: Mutex<Way>,
    /// One message after the other: the way is narrow.
    turn: AsyncMutex<()>,
}

/// How frames are put into requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    form: Form,
    size: usize,
}

const IN_BODIES: Way = Way { form: Form::Body, size: MAX_FRAME_DATA_BYTES };
const IN_QUERIES: Way = Way { form: Form::Query, size: MAX_FRAME_DATA_BYTES };
const IN_SMALL_BODIES: Way = Way { form: Form::Body, size: SMALL_FRAME_DATA_BYTES };

/// What a frame's answer means.
enum Outcome {
    Stored,
    Complete,
    /// Something on the way has changed the request or the answer.
    Torn,
}

/// Nobody at the metadata address knows what a relay is.
#[derive(Debug, thiserror::Error)]
#[error("no relay is at the metadata address")]
struct NoRelay;

/// The way loses what is sent, in every form.
#[derive(Debug, thiserror::Error)]
#[error("receipts do not fit what was sent")]
struct NoReceipt;

impl Gateway {
    pub fn new(address: SocketAddr, key: Option<InstanceKey>) -> Gateway {
        Gateway {
            address,
            boot: BootId::from_random(rand::rng().random()),
            next: AtomicU32::new(1),
            numbers: Mutex::default(),
            rate: Rate::default(),
            met_at: OnceCell::new(),
            key,
            key_given: OnceCell::new(),
            way: Mutex::new(IN_BODIES),
            turn: AsyncMutex::new(()),
        }
    }

    /// Whether a relay is there. Asked once; only a yes is remembered, for a relay may come later.
    pub(crate) async fn greet(&self) -> Result<(), SendError> {
        self.met_at.get_or_try_init(|| self.meet()).await?;
        if let Some(key) = &self.key {
            let giving = self.key_given.get_or_try_init(|| self.deliver(Message::Key(key.clone())));
            giving.await?;
        }
        Ok(())
    }

    /// The address at which a relay answers. That of IPv6 is tried where nothing can be reached at the
    /// usual one.
    async fn meet(&self) -> Result<SocketAddr, SendError> {
        let mut met = self.meet_at(self.address).await;
        let others = match &met {
            Err(error) if self.address == METADATA_ADDRESS && is_unreachable(error) => {
                addresses_v6()
            }
            _ => Vec::new(),
        };
        let mut asked: FuturesUnordered<_> =
            others.into_iter().map(|address| self.meet_at(address)).collect();
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(address) => return Ok(address),
                Err(error) if is_unreachable(&error) => {}
                // Whoever answers at all says more.
                Err(error) => met = Err(error),
            }
        }
        met
    }

    async fn meet_at(&self, address: SocketAddr) -> Result<SocketAddr, SendError> {
        let target = format!("{METADATA_PREFIX}hello");
        let answer = self.ask_at(address, &request("GET", HOST, &target, "")).await?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match (answer.status, value["code"].as_str()) {
            (200, Some("hello")) => Ok(address),
            (200, Some("retry")) => Err(busy(200, value["after_ms"].as_u64())),
            (429 | 500..=599, _) => Err(busy(answer.status, None)),
            _ => Err(no_answer(NoRelay)),
        }
    }

    /// Sends a message until it is complete, or something is in the way.
    pub(crate) async fn deliver(&self, message: Message) -> Result<(), SendError> {
        let _turn = self.turn.lock().await;
        let content = Sha256::digest(message.to_bytes(self.id(0), None)).into();
        let id = self.id(self.number_of(content));
        let bytes = message.to_bytes(id, self.key.as_ref());
        let mut way = *self.way.lock().unwrap_or_else(PoisonError::into_inner);
        if message.carries_secret() && way.form == Form::Query {
            way = IN_SMALL_BODIES;
        }
        for _ in 0..MAX_ROUNDS {
            let too_large = |error: signal_protocol::frame::FrameError| refused(200, error.code());
            let frames = split_into(id, &bytes, way.size).map_err(too_large)?;
            match self.offer(&frames, way.form).await? {
                Outcome::Complete => {
                    self.numbers().remove(&content);
                    return Ok(());
                }
                // A relay that was restarted has forgotten the first ones.
                Outcome::Stored => {}
                Outcome::Torn if message.carries_secret() => way = IN_SMALL_BODIES,
                Outcome::Torn => {
                    tracing::info!(
                        "metadata path tears requests, frames go into the query from now on"
                    );
                    way = IN_QUERIES;
                    *self.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
                }
            }
        }
        Err(no_answer(NoReceipt))
    }

    /// Every frame once. The last answer counts, for it is the one that can say `complete`.
    async fn offer(&self, frames: &[Frame], form: Form) -> Result<Outcome, SendError> {
        let mut outcome = Outcome::Stored;
        for frame in frames {
            let sent = frame.to_request(form);
            let answer = self.ask(&request("PUT", HOST, &sent.target, &sent.body)).await?;
            outcome = read_receipt(frame, &answer)?;
            match outcome {
                Outcome::Stored => {}
                // The whole message has been there before.
                Outcome::Complete | Outcome::Torn => return Ok(outcome),
            }
        }
        Ok(outcome)
    }

    /// A signed URL of an object store whose host cannot be reached: the signature does not cover the
    /// host, and the relay serves the path.
    async fn put(&self, target: &str, body: &str) -> Result<(), SendError> {
        let answer = self.ask(&request("PUT", HOST, target, body)).await?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status == 200 && value.is_object() {
            return Ok(());
        }
        let code = value["error"]["code"].as_str().unwrap_or("no reason given");
        let error =
            SendError::of_status(HOST, answer.status, None, text::clean(code, MAX_MESSAGE_BYTES));
        Err(error.unwrap_or_else(|| no_answer(NoRelay)))
    }

    async fn ask(&self, request: &str) -> Result<Answer, SendError> {
        self.ask_at(self.met_at.get().copied().unwrap_or(self.address), request).await
    }

    async fn ask_at(&self, address: SocketAddr, request: &str) -> Result<Answer, SendError> {
        self.rate.turn().await;
        exchange(address, request).await.map_err(no_answer)
    }

    fn id(&self, seq: u32) -> MessageId {
        MessageId { boot: self.boot, seq }
    }

    fn number_of(&self, content: [u8; 32]) -> u32 {
        let mut numbers = self.numbers();
        *numbers.entry(content).or_insert_with(|| self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn numbers(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], u32>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transport for Gateway {
    async fn send(&self, handle: &Handle, body: &str) -> Result<(), SendError> {
        self.greet().await?;
        if let Some(target) = small_put(handle, body) {
            return self.put(&target, body).await;
        }
        let malformed = |_| refused(0, "the signal is not one");
        let signal = Signal::parse(body.as_bytes()).map_err(malformed)?;
        self.deliver(Message::Signal { signal, to: destination(handle) }).await
    }

    async fn knows_this_instance(&self) -> bool {
        let deadline = Instant::now() + HELLO_PATIENCE;
        loop {
            // That there were too many questions is no answer to this one.
            let pause = match self.greet().await {
                Ok(()) => return true,
                Err(SendError::Busy { retry_after, .. }) => retry_after.unwrap_or(DEFAULT_PAUSE),
                Err(_) => return false,
            };
            if Instant::now() + pause >= deadline {
                return false;
            }
            sleep(pause).await;
        }
    }
}

/// Path and query of a TempURL, if the whole request fits one TCP segment. A larger one could lose its
/// body on the way, and nobody would know.
fn small_put(handle: &Handle, body: &str) -> Option<String> {
    let Handle::Put { url, .. } = handle else { return None };
    if !url.path().starts_with("/v1/AUTH_") {
        return None;
    }
    let target = format!("{}?{}", url.path(), url.query()?);
    let length = request("PUT", HOST, &target, body).len();
    // A proxy decodes the path and encodes it anew; what comes out of that unchanged passes.
    let is_plain = url.path().bytes().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~')
    });
    (is_plain && length <= MAX_SEGMENT_BYTES).then_some(target)
}

/// Where the signal would have gone; nothing when the relay is to find the handle by the instance.
fn destination(handle: &Handle) -> Option<Destination> {
    let to = |url: &url::Url| Destination { url: url.to_string(), token: None, login: None };
    match handle {
        Handle::Instance => None,
        Handle::Put { url, .. } => Some(to(url)),
        Handle::HeatToken { url, token } => {
            Some(Destination { token: Some(token.clone()), ..to(url) })
        }
        Handle::HeatPassword { url, auth_url, user_id, password, project_id } => {
            let login = Login {
                auth_url: auth_url.to_string(),
                user_id: user_id.clone(),
                password: password.clone(),
                project_id: project_id.clone(),
            };
            Some(Destination { login: Some(login), ..to(url) })
        }
    }
}

fn read_receipt(frame: &Frame, answer: &Answer) -> Result<Outcome, SendError> {
    if matches!(answer.status, 429 | 502..=504) {
        return Err(busy(answer.status, None));
    }
    let Ok(receipt) = serde_json::from_slice::<Receipt>(&answer.body) else {
        // A page of some proxy's, or of Nova's.
        return Ok(Outcome::Torn);
    };
    if receipt.ok {
        let expect = frame.receipt(&receipt.code);
        let fits =
            (receipt.seq, receipt.len, &receipt.sha256) == (expect.seq, expect.len, &expect.sha256);
        return Ok(match (fits, receipt.code.as_str()) {
            (true, "complete") => Outcome::Complete,
            (true, _) => Outcome::Stored,
            (false, _) => Outcome::Torn,
        });
    }
    match receipt.code.as_str() {
        "retry" => Err(busy(answer.status, receipt.after_ms)),
        // What arrived was no frame, or not the one that was sent.
        code if code.starts_with("frame_bad_") => Ok(Outcome::Torn),
        code => Err(refused(answer.status, code)),
    }
}

/// Whether there was no connection, or it broke.
fn is_unreachable(error: &SendError) -> bool {
    matches!(error, SendError::NoAnswer { source, .. } if source.is::<io::Error>())
}

fn busy(status: u16, after_ms: Option<u64>) -> SendError {
    let retry_after = Some(after_ms.map_or(DEFAULT_PAUSE, Duration::from_millis));
    SendError::Busy { host: HOST.to_owned(), status, retry_after }
}

fn refused(status: u16, code: &str) -> SendError {
    let message = text::clean(code, MAX_MESSAGE_BYTES);
    SendError::Refused { host: HOST.to_owned(), status, message }
}

fn no_answer(source: impl Into<crate::error::BoxError>) -> SendError {
    SendError::NoAnswer { host: HOST.to_owned(), source: source.into() }
}

/// A frame of the largest size fits a request; checked where the sizes are.
const _: () = assert!(MAX_FRAME_DATA_BYTES * 4 / 3 + 400 < MAX_REQUEST_BYTES);

#[cfg(test)]
mod tests;
