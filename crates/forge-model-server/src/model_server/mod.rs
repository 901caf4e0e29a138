//! A scripted model server: real HTTP, seven wire formats of the vendors, streaming, faults on demand.
//!
//! ```
//! use forge_model_server::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
//!
//! let server = ModelServer::start(ReplyScript::from_replies([MockReply::text("done")]));
//! let url = server.base_url(VendorFormat::OpenAi); // e.g. http://127.0.0.1:40123/v1
//! assert!(url.starts_with("http://127.0.0.1:"));
//! assert!(server.recorded_requests().is_empty());
//! ```
//!
//! The vendor is chosen by the path of the request, so one server serves all of them at once. It runs in threads of
//! its own and ends when dropped; no async runtime is needed.

mod auxiliary_routes;
mod connection;
mod framing;
mod http;
mod native;
mod render;
mod rules;
mod script;
mod seen;

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use framing::{Chunker, LineEnd, ReplyFraming, StreamKeepAlive};
pub use render::VendorErrorKind;
pub use script::{
    Gate, MockCall, MockFinish, MockReply, MockUsage, ReplyFault, ReplyScript, ReplySelection, StreamCut,
    Thinking, WhenDone,
};
pub use seen::{RecordedRequest, SeenCall, SeenMessage, SeenModelCall, SeenRole, SeenTool};

/// A vendor's wire shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VendorFormat {
    /// `POST …/chat/completions`
    OpenAi,
    /// `POST …/responses`
    Responses,
    /// `POST …/v1/messages`
    Anthropic,
    /// `POST …/models/{model}:streamGenerateContent` or `:generateContent`
    Gemini,
    /// `POST …/api/chat`
    Ollama,
    /// `POST …/api/generate`
    Generate,
    /// `POST …/completion`
    Completion,
}

impl VendorFormat {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::OpenAi,
        Self::Responses,
        Self::Anthropic,
        Self::Gemini,
        Self::Ollama,
        Self::Generate,
        Self::Completion,
    ];

    /// The shape that a path belongs to.
    fn from_path(path: &str) -> Option<Self> {
        let bare = path.split('?').next().unwrap_or(path);
        let ends = |endings: &[&str]| endings.iter().any(|ending| bare.ends_with(ending));
        Some(match bare {
            _ if ends(&["/chat/completions"]) => Self::OpenAi,
            _ if ends(&["/responses"]) => Self::Responses,
            _ if ends(&["/messages"]) => Self::Anthropic,
            _ if ends(&[":streamGenerateContent", ":generateContent"]) => Self::Gemini,
            _ if ends(&["/api/chat"]) => Self::Ollama,
            _ if ends(&["/api/generate"]) => Self::Generate,
            _ if ends(&["/completion"]) => Self::Completion,
            _ => return None,
        })
    }

    /// Where a conversation is had, below the server's root; empty where the model's name is part of it.
    pub const fn path(self) -> &'static str {
        match self {
            Self::OpenAi => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Anthropic => "/v1/messages",
            Self::Gemini => "",
            Self::Ollama => "/api/chat",
            Self::Generate => "/api/generate",
            Self::Completion => "/completion",
        }
    }

    /// Whether the format knows tool calls; elsewhere they are written into the text.
    pub const fn has_tools(self) -> bool {
        !matches!(self, Self::Generate | Self::Completion)
    }

    /// Whether tool calls have ids.
    pub const fn has_call_ids(self) -> bool {
        self.has_tools()
    }

    /// Whether the stream is one JSON object per line.
    const fn is_lines(self) -> bool {
        matches!(self, Self::Ollama | Self::Generate)
    }
}

/// How a server behaves besides its script.
#[derive(Clone, Debug)]
pub struct ModelServerSettings {
    /// Port on the loopback address; 0 takes a free one.
    pub port: u16,
    /// How replies are cut into network pieces.
    pub framing: ReplyFraming,
    /// The key every request must carry in its vendor's header; others get the vendor's 401.
    pub key: Option<String>,
    /// The models that exist; others get the vendor's 404. `None`: every name exists.
    pub models: Option<Vec<String>>,
    /// Whether requests are kept for [`ModelServer::recorded_requests`] (long benches switch this off).
    pub record: RecordMode,
    /// Whether requests that a real service would refuse are refused.
    pub rules: RuleMode,
    /// Whether `/apply-template` is there, as llama.cpp has it.
    pub template: TemplateMode,
    /// What `/props` says of itself, for clients that look for llama.cpp; `None` is a 404.
    pub props: Option<serde_json::Value>,
}

impl Default for ModelServerSettings {
    fn default() -> Self {
        Self {
            port: 0,
            framing: ReplyFraming::default(),
            key: None,
            models: None,
            record: RecordMode::All,
            rules: RuleMode::Strict,
            template: TemplateMode::ChatMl,
            props: Some(serde_json::json!({
                "default_generation_settings": {"n_ctx": 8192}, "total_slots": 1,
                "model_path": "scripted.gguf", "build_info": "scripted"})),
        }
    }
}

/// Whether requests are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordMode {
    /// Every one.
    All,
    /// Only their number.
    Count,
}

/// Whether a server renders conversations with a template of its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateMode {
    /// It does: turns between `<|im_start|>` and `<|im_end|>`.
    ChatMl,
    /// It does not know the question.
    Missing,
}

/// Whether malformed conversations are refused as the real services refuse them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleMode {
    /// With status 400.
    Strict,
    /// Everything is answered.
    Lenient,
}

struct ModelServerState {
    settings: ModelServerSettings,
    script: Mutex<ReplyScript>,
    log: Mutex<RequestLog>,
    bell: Condvar,
    stopping: AtomicBool,
    connections: Mutex<HashMap<u64, TcpStream>>,
    next_connection: AtomicU64,
}

#[derive(Default)]
struct RequestLog {
    requests: Vec<RecordedRequest>,
    count: usize,
}

/// A running server. Dropping it closes every connection and frees the port.
pub struct ModelServer {
    address: SocketAddr,
    state: Arc<ModelServerState>,
    acceptor: Option<JoinHandle<()>>,
}

impl ModelServer {
    /// Starts a server on a free port of the loopback address.
    ///
    /// # Panics
    /// If no port can be had; a test has nothing to do without its server.
    pub fn start(script: ReplyScript) -> Self {
        Self::start_with(script, ModelServerSettings::default()).expect("a free port on the loopback address")
    }

    /// Starts a server whose replies are cut into network pieces by `chunker`.
    ///
    /// # Panics
    /// As [`ModelServer::start`].
    pub fn start_split(script: ReplyScript, chunker: Chunker) -> Self {
        let settings = ModelServerSettings {
            framing: ReplyFraming::with_chunker(chunker),
            ..ModelServerSettings::default()
        };
        Self::start_with(script, settings).expect("a free port on the loopback address")
    }

    /// Starts a server with settings.
    ///
    /// # Errors
    /// If the port cannot be bound.
    pub fn start_with(script: ReplyScript, settings: ModelServerSettings) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port))?;
        let address = listener.local_addr()?;
        let state = Arc::new(ModelServerState {
            settings,
            script: Mutex::new(script),
            log: Mutex::default(),
            bell: Condvar::new(),
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        let acceptor = std::thread::Builder::new()
            .name("model-server".to_owned())
            .spawn(move || accept_connections(&listener, &shared))?;
        Ok(Self { address, state, acceptor: Some(acceptor) })
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL in the form each vendor's own setting has (`OPENAI_BASE_URL` ends in `/v1`, the others at
    /// the port).
    pub fn base_url(&self, shape: VendorFormat) -> String {
        match shape {
            VendorFormat::OpenAi => format!("{}/v1", self.url()),
            VendorFormat::Anthropic | VendorFormat::Gemini | VendorFormat::Ollama => self.url(),
            // These are nobody's usual endpoint: only their own URL chooses them.
            VendorFormat::Responses | VendorFormat::Generate | VendorFormat::Completion => {
                self.endpoint_url(shape)
            }
        }
    }

    /// The full URL of an endpoint, as the settings of some tools hold it.
    pub fn endpoint_url(&self, shape: VendorFormat) -> String {
        format!("{}{}", self.url(), shape.path())
    }

    /// Replaces the script.
    pub fn set_script(&self, script: ReplyScript) {
        *lock(&self.state.script) = script;
    }

    /// Every request so far, in the order they were read.
    pub fn recorded_requests(&self) -> Vec<RecordedRequest> {
        lock(&self.state.log).requests.clone()
    }

    /// Every model call so far, in neutral form.
    pub fn model_calls(&self) -> Vec<SeenModelCall> {
        self.recorded_requests()
            .into_iter()
            .filter_map(|request| request.shape.map(|shape| SeenModelCall::from_request(shape, request)))
            .collect()
    }

    /// How many requests have come, recorded or not.
    pub fn request_count(&self) -> usize {
        lock(&self.state.log).count
    }

    /// How many connections clients have made.
    pub fn connection_count(&self) -> u64 {
        self.state.next_connection.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests have come, or the time is over; says which.
    pub fn wait_for_requests(&self, count: usize, at_most: Duration) -> bool {
        let end = Instant::now() + at_most;
        let mut log = lock(&self.state.log);
        while log.count < count {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.state.bell.wait_for(&mut log, left);
        }
        true
    }

    /// Waits until no client is connected any more, or the time is over; says which.
    pub fn wait_until_idle(&self, at_most: Duration) -> bool {
        let end = Instant::now() + at_most;
        let mut log = lock(&self.state.log);
        while !lock(&self.state.connections).is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.state.bell.wait_for(&mut log, left);
        }
        true
    }

    /// Blocks until the process is ended: for a server that is a program of its own.
    pub fn serve_forever(mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            // The acceptor ends only with the process; a panic in it has been printed already.
            let _ = acceptor.join();
        }
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which looks at `stopping` next; if this fails it is gone already.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for stream in lock(&self.state.connections).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept_connections(listener: &TcpListener, state: &Arc<ModelServerState>) {
    for stream in listener.incoming() {
        if state.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let id = state.next_connection.fetch_add(1, Ordering::SeqCst);
        let Ok(copy) = stream.try_clone() else { continue };
        lock(&state.connections).insert(id, copy);
        let shared = Arc::clone(state);
        let started = std::thread::Builder::new().name("model-connection".to_owned()).spawn(move || {
            // A client that goes away in the middle is an ordinary end of a connection.
            let _ = connection::serve_requests(&stream, &shared);
            let _ = stream.shutdown(Shutdown::Both);
            lock(&shared.connections).remove(&id);
            // Under the log's lock, so that a waiter can't miss it between its look and its sleep.
            let _log = lock(&shared.log);
            shared.bell.notify_all();
        });
        if started.is_err() {
            lock(&state.connections).remove(&id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
