//! What the model "says": neutral replies, the faults that may befall them, and the order in which they are given.

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::framing::ReplyFraming;
use super::render::VendorErrorKind;
use super::seen::SeenModelCall;

/// One answer of the scripted model, independent of any vendor's format.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MockReply {
    /// The answer's text; streamed in small pieces.
    pub text: String,
    /// Reasoning that comes before the text.
    pub thinking: Option<Thinking>,
    /// Tool calls, in order.
    pub tool_calls: Vec<MockCall>,
    /// Tokens reported; `None` means the vendor reports none.
    pub usage: Option<MockUsage>,
    /// Why the model stopped.
    pub finish: MockFinish,
    /// What goes wrong while this reply is given.
    pub fault: Option<ReplyFault>,
    /// How often this reply's fault strikes before the reply goes through; `None` is every time. Only of
    /// interest where a reply can be given more than once ([`ReplySelection::ByTurn`], [`WhenDone::RepeatLast`]).
    pub fault_times: Option<u32>,
    /// How this reply is cut into network pieces, if other than the server's way.
    pub framing: Option<ReplyFraming>,
    /// In a script file: how many times this reply stands in the script.
    pub repeat: u32,
    /// Stops in the middle of the stream until the test opens the gate.
    #[serde(skip)]
    pub hold: Option<Gate>,
}

impl Default for MockReply {
    fn default() -> Self {
        Self {
            text: String::new(),
            thinking: None,
            tool_calls: Vec::new(),
            usage: Some(MockUsage { input: 10, output: 5, cached: 0, cache_write: 0 }),
            finish: MockFinish::Natural,
            fault: None,
            fault_times: None,
            framing: None,
            repeat: 1,
            hold: None,
        }
    }
}

impl MockReply {
    /// A plain answer.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// A single tool call with the id `call_1`.
    pub fn call(name: impl Into<String>, arguments: Value) -> Self {
        Self::default().and_call("call_1", name, arguments)
    }

    /// A reply that fails with this vendor error (status code and body as the vendor sends them).
    pub fn error(kind: VendorErrorKind) -> Self {
        Self::default().with_fault(ReplyFault::Error(kind))
    }

    /// A reply that is a bare HTTP status with the vendor's usual error body.
    pub fn status(code: u16) -> Self {
        Self::default().with_fault(ReplyFault::Status { code, headers: Vec::new(), body: None })
    }

    /// A reply that befalls this fault.
    pub fn fault(fault: ReplyFault) -> Self {
        Self::text("this text should not arrive whole").with_fault(fault)
    }

    /// Adds a tool call.
    #[must_use]
    pub fn and_call(mut self, id: impl Into<String>, name: impl Into<String>, arguments: Value) -> Self {
        self.tool_calls.push(MockCall {
            id: Some(id.into()),
            name: name.into(),
            arguments,
            raw_arguments: None,
            signature: None,
        });
        self
    }

    /// Adds a tool call whose arguments are sent exactly as written, valid JSON or not.
    #[must_use]
    pub fn and_raw_call(
        mut self,
        id: impl Into<String>,
        name: impl Into<String>,
        raw: impl Into<String>,
    ) -> Self {
        self.tool_calls.push(MockCall {
            id: Some(id.into()),
            name: name.into(),
            arguments: Value::Null,
            raw_arguments: Some(raw.into()),
            signature: None,
        });
        self
    }

    /// Sets the thinking that comes before the text.
    #[must_use]
    pub fn with_thinking(mut self, text: impl Into<String>, signature: Option<&str>) -> Self {
        self.thinking =
            Some(Thinking { text: text.into(), signature: signature.map(str::to_owned), redacted: None });
        self
    }

    /// Sets the opaque signature of the last tool call (Gemini's `thoughtSignature`).
    #[must_use]
    pub fn signed(mut self, signature: impl Into<String>) -> Self {
        if let Some(call) = self.tool_calls.last_mut() {
            call.signature = Some(signature.into());
        }
        self
    }

    /// Sets the tokens reported.
    #[must_use]
    pub fn with_usage(mut self, usage: Option<MockUsage>) -> Self {
        self.usage = usage;
        self
    }

    /// Sets why the model stopped.
    #[must_use]
    pub fn with_finish(mut self, finish: MockFinish) -> Self {
        self.finish = finish;
        self
    }

    /// Sets the fault.
    #[must_use]
    pub fn with_fault(mut self, fault: ReplyFault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// Sets how the reply is cut into network pieces.
    #[must_use]
    pub fn with_framing(mut self, framing: ReplyFraming) -> Self {
        self.framing = Some(framing);
        self
    }

    /// Stops in the middle of the stream (after the first piece) until `gate` is opened.
    #[must_use]
    pub fn with_gate(mut self, gate: &Gate) -> Self {
        self.hold = Some(gate.clone());
        self
    }
}

/// Reasoning text and the opaque state some vendors attach to it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thinking {
    /// The visible reasoning.
    pub text: String,
    /// The vendor's signature over it.
    pub signature: Option<String>,
    /// Data of a `redacted_thinking` block (Anthropic), sent after the visible one.
    pub redacted: Option<String>,
}

/// A tool call of the scripted model.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MockCall {
    /// The call's id; `None` leaves it out where the format can, and is numbered where it cannot.
    pub id: Option<String>,
    /// The tool's name. Alternatives may be given as `a|b`: the first one that the request offers is taken.
    pub name: String,
    /// The arguments as JSON.
    pub arguments: Value,
    /// The arguments as text sent instead, valid JSON or not. Formats that carry an object send a string.
    pub raw_arguments: Option<String>,
    /// Opaque state on the call (Gemini's `thoughtSignature`).
    pub signature: Option<String>,
}

impl MockCall {
    /// The arguments as the text that formats with textual arguments stream.
    pub(super) fn argument_text(&self) -> String {
        match &self.raw_arguments {
            Some(raw) => raw.clone(),
            None if self.arguments.is_null() => "{}".to_owned(),
            None => self.arguments.to_string(),
        }
    }

    /// The arguments as the value that formats with object arguments carry.
    pub(super) fn with_signature(&self) -> Value {
        match &self.raw_arguments {
            Some(raw) => serde_json::from_str(raw).unwrap_or_else(|_| Value::String(raw.clone())),
            None if self.arguments.is_null() => Value::Object(serde_json::Map::new()),
            None => self.arguments.clone(),
        }
    }
}

/// Tokens of one call. The prompt is the sum of `input`, `cached` and `cache_write`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MockUsage {
    /// Prompt tokens that no cache served.
    pub input: u64,
    /// Tokens produced.
    pub output: u64,
    /// Prompt tokens read from a cache.
    pub cached: u64,
    /// Prompt tokens written to a cache.
    pub cache_write: u64,
}

/// Why the model stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MockFinish {
    /// "stop", or "tool calls" where there are some and the vendor has a word for it.
    #[default]
    Natural,
    /// "stop" even if there are tool calls, as some servers say.
    Stop,
    /// The token limit.
    Length,
    /// A content filter or refusal.
    Refusal,
}

/// What goes wrong with a reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyFault {
    /// An HTTP status. Without a body the vendor's own error body for the status is sent.
    Status {
        /// Status code.
        code: u16,
        /// Extra headers such as `Retry-After`.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// The body, sent as it is.
        #[serde(default)]
        body: Option<String>,
    },
    /// A vendor error by meaning: status and body as the vendor has them.
    Error(VendorErrorKind),
    /// A vendor error with extra headers.
    ErrorWith(VendorErrorKind, Vec<(String, String)>),
    /// An error event inside a stream that began well (status 200).
    StreamError(VendorErrorKind),
    /// The request is read and never answered.
    Hang,
    /// The stream begins, then nothing more comes and the connection stays open.
    Stall,
    /// The stream ends early.
    Cut(StreamCut),
    /// One event in the middle is not JSON.
    MalformedEvent,
    /// Status 200 with a body that is no event stream at all.
    NotAStream,
    /// Status 200 with a vendor error as the body.
    ErrorBody(VendorErrorKind),
    /// The same, and it says that it is a stream.
    ErrorBodyAsStream(VendorErrorKind),
    /// A stream that begins well and repeats one event for ever.
    Endless,
    /// The connection is closed before a byte of the answer.
    Refuse,
}

/// Where a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamCut {
    /// Inside an HTTP chunk, in the middle of an event: the transport sees an error.
    MidChunk,
    /// The HTTP body ends properly, but the vendor's terminal event is missing.
    BeforeTerminal,
    /// After the terminal event, without the closing HTTP chunk: the answer is whole.
    AfterTerminal,
}

/// Holds a stream back until it is opened. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everything through that waits or will wait.
    pub fn open(&self) {
        let (open, bell) = &*self.0;
        *open.lock() = true;
        bell.notify_all();
    }

    /// Waits until the gate is open or `given_up` says so (asked about 50 times a second).
    pub(super) fn wait(&self, given_up: impl Fn() -> bool) {
        let (open, bell) = &*self.0;
        let mut guard = open.lock();
        while !*guard && !given_up() {
            bell.wait_for(&mut guard, Duration::from_millis(20));
        }
    }
}

/// How the next reply is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplySelection {
    /// The next in the list, whoever asks.
    #[default]
    InOrder,
    /// The one whose place in the list is the number of assistant messages in the request: a repeated request
    /// gets the same answer, and many conversations may use one server.
    ByTurn,
}

/// What a request gets when the script has no reply left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenDone {
    /// Status 400 and a text saying so, which no client repeats.
    #[default]
    Fail,
    /// The last reply again.
    RepeatLast,
    /// The first reply again, and so on.
    StartOver,
}

type ReplyFn = Box<dyn FnMut(&SeenModelCall) -> MockReply + Send>;

enum ScriptTurn {
    Fixed(Box<MockReply>),
    Computed(ReplyFn),
}

/// The replies a server gives, in order or by turn.
#[derive(Default)]
pub struct ReplyScript {
    turns: Vec<ScriptTurn>,
    served: Vec<u32>,
    next: usize,
    select: ReplySelection,
    when_done: WhenDone,
}

/// The form of a script file (JSON): `{"replies": [...], "select": "by_turn", "when_done": "repeat_last"}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptFile {
    replies: Vec<MockReply>,
    #[serde(default)]
    select: ReplySelection,
    #[serde(default)]
    when_done: WhenDone,
}

impl ReplyScript {
    /// An empty script.
    pub fn new() -> Self {
        Self::default()
    }

    /// A script of fixed replies.
    pub fn from_replies(replies: impl IntoIterator<Item = MockReply>) -> Self {
        replies.into_iter().fold(Self::new(), Self::with_reply)
    }

    /// Every request is answered by `compute`.
    pub fn always(compute: impl FnMut(&SeenModelCall) -> MockReply + Send + 'static) -> Self {
        Self::new().with_computed(compute).when_done(WhenDone::RepeatLast)
    }

    /// Reads a script from the text of a script file.
    ///
    /// # Errors
    /// A sentence naming the place in the text where it is not a script.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let file: ScriptFile =
            serde_json::from_str(text).map_err(|error| format!("not a model script: {error}"))?;
        let mut script = Self::new().with_selection(file.select).when_done(file.when_done);
        for reply in file.replies {
            for _ in 0..reply.repeat {
                script = script.with_reply(reply.clone());
            }
        }
        Ok(script)
    }

    /// Adds a fixed reply.
    #[must_use]
    pub fn with_reply(mut self, reply: MockReply) -> Self {
        self.turns.push(ScriptTurn::Fixed(Box::new(reply)));
        self.served.push(0);
        self
    }

    /// Adds a reply computed from the request.
    #[must_use]
    pub fn with_computed(
        mut self,
        compute: impl FnMut(&SeenModelCall) -> MockReply + Send + 'static,
    ) -> Self {
        self.turns.push(ScriptTurn::Computed(Box::new(compute)));
        self.served.push(0);
        self
    }

    /// Sets how the next reply is found.
    #[must_use]
    pub fn with_selection(mut self, select: ReplySelection) -> Self {
        self.select = select;
        self
    }

    /// Sets what happens after the last reply.
    #[must_use]
    pub fn when_done(mut self, when_done: WhenDone) -> Self {
        self.when_done = when_done;
        self
    }

    /// The reply for this request, or `None` when the script is over.
    pub(super) fn next_reply(&mut self, call: &SeenModelCall) -> Option<MockReply> {
        let wanted = match self.select {
            ReplySelection::InOrder => self.next,
            ReplySelection::ByTurn => call.turn_index(),
        };
        let count = self.turns.len();
        let index = match self.when_done {
            _ if count == 0 => return None,
            _ if wanted < count => wanted,
            WhenDone::Fail => return None,
            WhenDone::RepeatLast => count - 1,
            WhenDone::StartOver => wanted % count,
        };
        self.next += 1;
        self.served[index] += 1;
        let mut reply = match &mut self.turns[index] {
            ScriptTurn::Fixed(reply) => (**reply).clone(),
            ScriptTurn::Computed(compute) => compute(call),
        };
        if reply.fault_times.is_some_and(|times| self.served[index] > times) {
            reply.fault = None;
        }
        for tool_call in &mut reply.tool_calls {
            tool_call.name = call.offered_name(&tool_call.name);
        }
        Some(reply)
    }
}
