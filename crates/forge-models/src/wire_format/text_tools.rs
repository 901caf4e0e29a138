//! Tools in plain text, for endpoints that accept only text: the description of tools, the notation of calls and
//! results, and the parser for calls in a model's output.
//!
//! The notation (`<tool_call>{"name": …, "arguments": {…}}</tool_call>`, `<tool_response>…</tool_response>`) is the one
//! that many open models were trained on, first published with the Hermes models. Text in `<think>` at the beginning of
//! a reply is reasoning.

use std::borrow::Cow;
use std::fmt::Write as _;

use forge_types::{FinishReason, Message, PartKind, Role};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::{WireRequest, argument_text};
use crate::reply_builder::{ReplyBuilder, inline_text, sendable_arguments};

const CALL_TAGS: (&str, &str) = ("<tool_call>", "</tool_call>");
const THINK_TAGS: (&str, &str) = ("<think>", "</think>");

// ---- to the model --------------------------------------------------------------------------------------------

/// Returns the system prompt followed by the tools.
pub(super) fn tool_system_prompt(call: &WireRequest<'_>) -> String {
    let mut system = call.full_system_prompt();
    if call.request.tools.is_empty() {
        return system;
    }
    if !system.is_empty() {
        system.push_str("\n\n");
    }
    system.push_str(
        "You can call tools. To call one, write exactly this, on lines of its own, as often as needed:\n\
         <tool_call>{\"name\": NAME, \"arguments\": {…}}</tool_call>\n\
         Then stop; the results come in <tool_response>. The tools, as JSON:",
    );
    for tool in &call.request.tools {
        let about =
            json!({"name": tool.name, "description": tool.description, "parameters": tool.json_schema()});
        let _ = write!(system, "\n{about}");
    }
    system
}

#[derive(Serialize)]
struct TextToolCall<'a> {
    name: &'a str,
    arguments: Cow<'a, RawValue>,
}

/// Renders the text of a message with its calls and results.
pub(super) fn render_message(message: &Message) -> String {
    let mut text = String::new();
    for part in &message.parts {
        let piece = match &part.kind {
            PartKind::Text { text } => Cow::Borrowed(inline_text(text)),
            PartKind::Call(call) => {
                let made = TextToolCall { name: &call.name, arguments: sendable_arguments(call) };
                let made = serde_json::to_string(&made).expect("strings always serialize");
                Cow::Owned(format!("{}{made}{}", CALL_TAGS.0, CALL_TAGS.1))
            }
            PartKind::Result(result) => {
                let name = if result.ok { "content" } else { "error" };
                let about = json!({"name": result.name, name: inline_text(&result.content)});
                Cow::Owned(format!("<tool_response>{about}</tool_response>"))
            }
            PartKind::Reasoning { .. } => continue,
        };
        if !text.is_empty() && !piece.is_empty() {
            text.push('\n');
        }
        text.push_str(&piece);
    }
    text
}

/// Returns the role of a message as text: results of tools belong to the user's side.
pub(super) fn turn_role(role: Role) -> Option<&'static str> {
    match role {
        Role::System => None,
        Role::Assistant => Some("assistant"),
        Role::User | Role::Tool => Some("user"),
    }
}

/// Returns the turns of a conversation; adjacent messages of one side form one turn.
pub(super) fn render_turns(call: &WireRequest<'_>) -> Vec<(&'static str, String)> {
    let mut turns: Vec<(&'static str, String)> = Vec::with_capacity(call.request.messages.len());
    for message in &call.request.messages {
        let Some(speaker) = turn_role(message.role) else { continue };
        let text = render_message(message);
        match turns.last_mut() {
            Some((last, whole)) if *last == speaker => {
                whole.push('\n');
                whole.push_str(&text);
            }
            _ => turns.push((speaker, text)),
        }
    }
    turns
}

// ---- from the model ------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum TextToolState {
    /// Before any text but white space.
    #[default]
    Beginning,
    Text,
    Thinking,
    Call,
}

/// An incremental parser of a reply's text. A possible beginning of a tag is held back.
#[derive(Default)]
pub(super) struct TextToolParser {
    inside: TextToolState,
    /// Text that is not classified yet.
    pending: String,
}

#[derive(Deserialize)]
struct ParsedToolCall<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default, borrow, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

impl TextToolParser {
    /// Takes more of the reply.
    pub(super) fn push(&mut self, piece: &str, reply: &mut ReplyBuilder<'_>) {
        self.pending.push_str(piece);
        while self.parse_next(reply) {}
    }

    /// Processes the text held back when the reply ends. A call without its closing tag counts unless the reply was
    /// cut.
    pub(super) fn finish(&mut self, finish: FinishReason, reply: &mut ReplyBuilder<'_>) -> FinishReason {
        let rest = std::mem::take(&mut self.pending);
        match std::mem::take(&mut self.inside) {
            TextToolState::Thinking => reply.push_reasoning(&rest),
            TextToolState::Call if finish == FinishReason::Length => {
                reply.push_text(&format!("{}{rest}", CALL_TAGS.0))
            }
            TextToolState::Call => push_call(&rest, reply),
            // White space around calls is not text.
            TextToolState::Beginning | TextToolState::Text if reply.has_calls() && rest.trim().is_empty() => {
            }
            TextToolState::Beginning | TextToolState::Text => reply.push_text(&rest),
        }
        if finish == FinishReason::Stop && reply.has_calls() { FinishReason::ToolCalls } else { finish }
    }

    /// Parses the next element of the pending text; returns whether there may be more.
    fn parse_next(&mut self, reply: &mut ReplyBuilder<'_>) -> bool {
        match self.inside {
            TextToolState::Beginning => {
                let begun = self.pending.trim_start();
                if begun.is_empty() {
                    return false;
                }
                if let Some(rest) = begun.strip_prefix(THINK_TAGS.0) {
                    self.pending = rest.to_owned();
                    self.inside = TextToolState::Thinking;
                    return true;
                }
                if THINK_TAGS.0.starts_with(begun) {
                    return false;
                }
                self.inside = TextToolState::Text;
                true
            }
            TextToolState::Thinking => self.pass_until(
                THINK_TAGS.1,
                TextToolState::Text,
                |text, reply| reply.push_reasoning(text),
                reply,
            ),
            TextToolState::Text => self.pass_until(CALL_TAGS.0, TextToolState::Call, push_text, reply),
            TextToolState::Call => {
                let Some(at) = self.pending.find(CALL_TAGS.1) else { return false };
                push_call(&self.pending[..at], reply);
                self.pending.drain(..at + CALL_TAGS.1.len());
                self.inside = TextToolState::Text;
                true
            }
        }
    }

    /// Emits the text before `tag`, as far as it is certain.
    fn pass_until(
        &mut self,
        tag: &str,
        then: TextToolState,
        pass: impl Fn(&str, &mut ReplyBuilder<'_>),
        reply: &mut ReplyBuilder<'_>,
    ) -> bool {
        if let Some(at) = self.pending.find(tag) {
            pass(self.pending[..at].trim_end(), reply);
            self.pending.drain(..at + tag.len());
            self.inside = then;
            return true;
        }
        // The longest suffix that could begin the tag is held back, with the white space before it.
        let mut certain = self.pending.len()
            - (1..tag.len()).rev().find(|length| self.pending.ends_with(&tag[..*length])).unwrap_or(0);
        certain = self.pending[..certain].trim_end().len();
        pass(&self.pending[..certain], reply);
        self.pending.drain(..certain);
        false
    }
}

/// Emits text between calls without the white space that separates them.
fn push_text(text: &str, reply: &mut ReplyBuilder<'_>) {
    let text = if reply.parts.iter().all(|part| matches!(part.kind, PartKind::Reasoning { .. })) {
        text.trim_start()
    } else {
        text
    };
    if !(text.trim().is_empty() && reply.has_calls()) {
        reply.push_text(text);
    }
}

/// Adds a call; an invalid one is kept as text, so that none of the model's output is lost.
fn push_call(written: &str, reply: &mut ReplyBuilder<'_>) {
    match serde_json::from_str::<ParsedToolCall<'_>>(written.trim()) {
        Ok(made) => {
            let arguments = made.arguments.map(argument_text).unwrap_or_default();
            reply.push_call("", &made.name, &arguments);
        }
        Err(_) => reply.push_text(&format!("{}{written}{}", CALL_TAGS.0, CALL_TAGS.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_types::{MessagePart, ModelRequest, ModelRoute, ModelSettings, ReplyFormat};
    use proptest::prelude::*;

    /// Returns the parsed parts of a text that arrives in these pieces.
    fn heard(pieces: &[&str], finish: FinishReason) -> (Vec<MessagePart>, FinishReason) {
        let request = ModelRequest {
            route: ModelRoute { provider: "custom".to_owned(), model: "m".to_owned() },
            system: String::new(),
            messages: Vec::new(),
            tools: Vec::new(),
            settings: ModelSettings { max_tokens: None, temperature: None, top_p: None, timeout_ms: 1 },
            format: ReplyFormat::Text,
            organization: None,
        };
        let mut reply = ReplyBuilder::new(&request, &());
        let mut listener = TextToolParser::default();
        for piece in pieces {
            listener.push(piece, &mut reply);
        }
        let finish = listener.finish(finish, &mut reply);
        (reply.parts, finish)
    }

    fn shown(parts: &[MessagePart]) -> String {
        let mut out = String::new();
        for part in parts {
            let _ = match &part.kind {
                PartKind::Text { text } => write!(out, "[{}]", inline_text(text)),
                PartKind::Reasoning { text } => write!(out, "(thinks {})", inline_text(text)),
                PartKind::Call(call) => write!(out, "({} {})", call.name, call.arguments),
                PartKind::Result(_) => Ok(()),
            };
        }
        out
    }

    #[test]
    fn calls_thoughts_and_text_are_told_apart() {
        for (text, finish, parts) in [
            ("plain text", FinishReason::Stop, "[plain text]"),
            ("  <think>hm</think>\n\nyes", FinishReason::Stop, "(thinks hm)[yes]"),
            ("<think>never ends", FinishReason::Length, "(thinks never ends)"),
            ("a <think>b</think>", FinishReason::Stop, "[a <think>b</think>]"),
            (
                "look\n<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>",
                FinishReason::Stop,
                "[look](f {\"a\": 1})",
            ),
            (
                "<tool_call>\n{\"name\":\"f\"}\n</tool_call>\n<tool_call>{\"name\":\"g\",\"parameters\":{}}</tool_call>\n",
                FinishReason::Stop,
                "(f )(g {})",
            ),
            ("<tool_call>{\"name\": \"f\", \"arguments\": {}}", FinishReason::Stop, "(f {})"),
            (
                "<tool_call>{\"name\": \"f\", \"argu",
                FinishReason::Length,
                "[<tool_call>{\"name\": \"f\", \"argu]",
            ),
            ("<tool_call>no JSON</tool_call>", FinishReason::Stop, "[<tool_call>no JSON</tool_call>]"),
            ("1 < 2 and <tool", FinishReason::Stop, "[1 < 2 and <tool]"),
        ] {
            assert_eq!(shown(&heard(&[text], finish).0), parts, "{text}");
        }
        let call = "<tool_call>{\"name\": \"f\"}</tool_call>";
        assert_eq!(heard(&[call], FinishReason::Stop).1, FinishReason::ToolCalls);
        assert_eq!(heard(&[call], FinishReason::Length).1, FinishReason::Length);
    }

    proptest! {
        #[test]
        fn borders_of_pieces_mean_nothing(
            tokens in proptest::collection::vec(prop_oneof![
                Just("<think>"), Just("</think>"), Just("<tool_call>"), Just("</tool_call>"), Just("<tool"),
                Just("{\"name\": \"f\", \"arguments\": {}}"), Just(" "), Just("\n"), Just("text"), Just("ü"), Just("<"),
            ], 0..16),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let text = tokens.concat();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.retain(|at| text.is_char_boundary(*at));
            at.extend([0, text.len()]);
            at.sort_unstable();
            let pieces: Vec<&str> = at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(heard(&pieces, FinishReason::Stop), heard(&[&text], FinishReason::Stop));
        }
    }
}
