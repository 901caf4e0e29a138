//! What every adapter of the port `Model` must do, whatever its wire shape.
//!
//! An adapter names a [`Fixture`] and calls [`crate::model_contract!`], which makes one `#[test]` of each case. The
//! cases run over real HTTP against [`ModelServer`].

mod answers;
mod conversation;
mod faults;
mod structured;

use parking_lot::Mutex;
use std::time::Duration;

use forge_ports::model::{DeltaSink, Error, Model};
use forge_types::{
    Message, MessagePart, ModelReply, ModelRequest, ModelRoute, ModelSettings, ParamSpec, ParamType,
    ReplyFormat, Role, ToolAccess, ToolCall, ToolCategory, ToolResultPart, ToolSpec,
};

use crate::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};

pub use answers::*;
pub use conversation::*;
pub use faults::*;
pub use structured::*;

/// An adapter under test.
pub trait Fixture {
    /// The wire shape it speaks.
    fn vendor_format(&self) -> VendorFormat;

    /// The provider and model that are asked.
    fn route(&self) -> ModelRoute;

    /// The base URL that is configured for a server: the vendor's usual one, or a full endpoint.
    fn server_base_url(&self, server: &ModelServer) -> String {
        server.base_url(self.vendor_format())
    }

    /// The header in which the key is sent; `None` for a provider without keys.
    fn key_header(&self) -> Option<&'static str> {
        match self.vendor_format() {
            VendorFormat::OpenAi | VendorFormat::Responses => Some("authorization"),
            VendorFormat::Anthropic => Some("x-api-key"),
            VendorFormat::Gemini => Some("x-goog-api-key"),
            VendorFormat::Ollama | VendorFormat::Generate | VendorFormat::Completion => None,
        }
    }

    /// The adapter, pointed at a base URL, with a key.
    fn open(&self, base_url: &str, key: &str) -> Box<dyn Model>;
}

/// The key of all cases; no message may ever show it.
pub const API_KEY: &str = "sk-contract-0123456789-secret";

/// Makes one test of each case: `model_contract!(openai, Fixture)` gives the module `openai`.
#[macro_export]
macro_rules! model_contract {
    ($name:ident, $fixture:expr) => {
        $crate::model_contract!(@cases $name, $fixture;
            simple_answer, deltas_make_up_the_text, deltas_come_before_the_end, odd_borders_change_nothing,
            usage_counts_cached_tokens, usage_that_is_missing_is_estimated, a_length_stop_is_told,
            a_refusal_is_told, the_key_goes_where_it_belongs,
            parallel_tool_calls, tool_results_go_back, the_system_prompt_stays_one, tools_are_offered,
            broken_arguments_are_delivered_as_they_are, duplicate_ids_are_delivered_as_they_are,
            unknown_tools_are_delivered_as_they_are, opaque_state_goes_back_verbatim,
            foreign_state_is_not_sent, each_request_extends_the_one_before, fifty_steps_extend_each_other,
            settings_are_sent_only_when_set, replies_in_json_are_asked_for_and_checked,
            a_reply_in_json_may_stand_beside_tools, forms_that_cannot_be_checked_are_refused,
            every_error_has_its_kind, a_wait_that_is_asked_for_is_passed_on, a_cut_stream_is_no_answer,
            a_stream_cut_after_its_end_is_an_answer, silence_ends_in_a_timeout, a_stalled_stream_ends_in_a_timeout,
            a_closed_connection_is_told, an_absent_server_is_told, a_malformed_event_is_told,
            a_body_that_is_no_stream_is_told, an_error_as_the_whole_body_is_told,
            a_tool_that_is_not_accepted_is_explained, an_error_inside_a_stream_is_told, one_call_is_one_attempt,
            redirects_are_not_followed, dropping_the_call_ends_the_request, errors_do_not_show_the_key,
        );
    };
    (@cases $name:ident, $fixture:expr; $($case:ident),* $(,)?) => {
        mod $name {
            #[allow(unused_imports, reason = "a fixture may be a path or a value")]
            use super::*;
            $(
                #[test]
                fn $case() {
                    $crate::contract::model::run($crate::contract::model::$case(&$fixture));
                }
            )*
        }
    };
}

/// Runs a case to its end on a runtime of its own.
///
/// # Panics
/// If the case fails.
pub fn run(case: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for one test")
        .block_on(case);
}

/// Keeps what was shown live.
#[derive(Default)]
struct DeltaRecorder {
    text: Mutex<Vec<String>>,
    reasoning: Mutex<String>,
}

impl DeltaSink for DeltaRecorder {
    fn push_text(&self, text: &str) {
        self.text.lock().push(text.to_owned());
    }

    fn push_reasoning(&self, text: &str) {
        self.reasoning.lock().push_str(text);
    }
}

impl DeltaRecorder {
    fn joined_text(&self) -> String {
        self.text.lock().concat()
    }

    fn piece_count(&self) -> usize {
        self.text.lock().len()
    }
}

/// A server with its adapter.
struct AdapterSetup {
    server: ModelServer,
    model: Box<dyn Model>,
    route: ModelRoute,
}

impl AdapterSetup {
    fn new(fixture: &dyn Fixture, script: ReplyScript) -> Self {
        Self::with_server(fixture, ModelServer::start(script))
    }

    fn with_replies(fixture: &dyn Fixture, replies: impl IntoIterator<Item = MockReply>) -> Self {
        Self::new(fixture, ReplyScript::from_replies(replies))
    }

    fn with_server(fixture: &dyn Fixture, server: ModelServer) -> Self {
        let model = fixture.open(&fixture.server_base_url(&server), API_KEY);
        Self { server, model, route: fixture.route() }
    }

    fn build_request(&self, messages: Vec<Message>) -> ModelRequest {
        model_request(&self.route, messages)
    }

    async fn ask_model(&self, messages: Vec<Message>) -> Result<ModelReply, Error> {
        self.model.request_reply(self.build_request(messages), &()).await
    }

    /// Asks a simple question that must be answered.
    async fn expect_reply(&self) -> ModelReply {
        self.ask_model(hello_messages()).await.expect("an answer")
    }

    /// Asks a simple question that must fail.
    async fn expect_error(&self) -> Error {
        self.ask_model(hello_messages()).await.expect_err("an error")
    }

    /// Asks a simple question of a server that stops answering, with a short time limit.
    async fn expect_timeout(&self) -> Error {
        let mut request = self.build_request(hello_messages());
        request.settings.timeout_ms = 200;
        self.model.request_reply(request, &()).await.expect_err("an error")
    }
}

fn hello_messages() -> Vec<Message> {
    vec![Message::user("hello")]
}

fn model_request(route: &ModelRoute, messages: Vec<Message>) -> ModelRequest {
    ModelRequest {
        route: route.clone(),
        system: "You are careful.".to_owned(),
        messages: messages.into_iter().map(std::sync::Arc::new).collect(),
        tools: vec![tool_spec("read_file", &[("path", ParamType::String)]), tool_spec("list_files", &[])],
        settings: ModelSettings { max_tokens: Some(512), temperature: None, top_p: None, timeout_ms: 20_000 },
        format: ReplyFormat::Text,
        organization: None,
    }
}

fn tool_spec(name: &str, params: &[(&str, ParamType)]) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        aliases: Vec::new(),
        description: format!("does {name}"),
        params: params.iter().map(|(name, kind)| ParamSpec::required(name, *kind, "which")).collect(),
        access: ToolAccess::Read,
        category: ToolCategory::Builtin,
    }
}

/// The assistant's message that a reply becomes.
fn assistant_message(reply: &ModelReply) -> Message {
    Message { role: Role::Assistant, parts: reply.parts.clone() }
}

/// The assistant's message, with the ids that the run gives to calls that have none or share one.
fn admitted_message(reply: &ModelReply) -> Message {
    let mut message = assistant_message(reply);
    for (at, part) in message.parts.iter_mut().enumerate() {
        if let forge_types::PartKind::Call(call) = &mut part.kind {
            call.id = format!("run_{at}");
        }
    }
    message
}

/// Results for all calls of a message.
fn result_messages(message: &Message, ok: bool) -> Vec<Message> {
    message
        .tool_calls()
        .map(|call| {
            Message::tool(ToolResultPart {
                call_id: call.id.clone(),
                name: call.name.clone(),
                content: format!("result of {} ü", call.name).into(),
                ok,
            })
        })
        .collect()
}

fn reply_text(reply: &ModelReply) -> String {
    assistant_message(reply).text_parts().map(|text| text.inline_text().expect("inline").to_owned()).collect()
}

fn reply_calls(reply: &ModelReply) -> Vec<ToolCall> {
    reply.tool_calls().cloned().collect()
}

/// Long enough for a busy machine; a case that works never waits for it.
const CASE_TIMEOUT: Duration = Duration::from_secs(20);

/// A part whose state belongs to nobody.
fn strip_state(part: &MessagePart) -> MessagePart {
    MessagePart { kind: part.kind.clone(), opaque: None }
}
