//! Conversations with tools in plain text, for endpoints that know only text: how tools are explained, calls and
//! results written down, and calls read from what a model says.
//!
//! The notation (`<tool_call>{"name": …, "arguments": {…}}</tool_call>`, `<tool_response>…</tool_response>`) is the
//! one that many open models were trained on, first published with the Hermes models. What stands in `<think>` at
//! the beginning of a reply is reasoning.

use std::borrow::Cow;
use std::fmt::Write as _;

use forge_types::{Finish, Message, PartKind, Role};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Call, argument_text};
use crate::assembly::{Assembly, inline, sendable_arguments};

const CALL: (&str, &str) = ("<tool_call>", "</tool_call>");
const THINK: (&str, &str) = ("<think>", "</think>");

// ---- to the model --------------------------------------------------------------------------------------------

/// The system prompt with the tools behind it.
pub(super) fn system(call: &Call<'_>) -> String {
    let mut system = call.whole_system();
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
        let about = json!({"name": tool.name, "description": tool.description, "parameters": tool.schema()});
        let _ = write!(system, "\n{about}");
    }
    system
}

#[derive(Serialize)]
struct WrittenCall<'a> {
    name: &'a str,
    arguments: Cow<'a, RawValue>,
}

/// What a message says, with its calls and results written down.
pub(super) fn written(message: &Message) -> String {
    let mut text = String::new();
    for part in &message.parts {
        let piece = match &part.kind {
            PartKind::Text { text } => Cow::Borrowed(inline(text)),
            PartKind::Call(call) => {
                let made = WrittenCall { name: &call.name, arguments: sendable_arguments(call) };
                let made = serde_json::to_string(&made).expect("strings always serialize");
                Cow::Owned(format!("{}{made}{}", CALL.0, CALL.1))
            }
            PartKind::Result(result) => {
                let name = if result.ok { "content" } else { "error" };
                let about = json!({"name": result.name, name: inline(&result.content)});
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

/// Who says it in the conversation: results of tools come from the user's side.
pub(super) fn speaker(role: Role) -> Option<&'static str> {
    match role {
        Role::System => None,
        Role::Assistant => Some("assistant"),
        Role::User | Role::Tool => Some("user"),
    }
}

/// The turns of a conversation: neighbours of one side are one turn.
pub(super) fn turns(call: &Call<'_>) -> Vec<(&'static str, String)> {
    let mut turns: Vec<(&'static str, String)> = Vec::with_capacity(call.request.messages.len());
    for message in &call.request.messages {
        let Some(speaker) = speaker(message.role) else { continue };
        let text = written(message);
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
enum Inside {
    /// Before anything but white space.
    #[default]
    Beginning,
    Text,
    Thinking,
    Call,
}

/// Takes a reply's text apart while it comes. What might be the beginning of a tag is held back.
#[derive(Default)]
pub(super) struct Listener {
    inside: Inside,
    /// What is not decided yet.
    held: String,
}

#[derive(Deserialize)]
struct SpokenCall<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default, borrow, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

impl Listener {
    /// More of the reply.
    pub(super) fn hear(&mut self, piece: &str, reply: &mut Assembly<'_>) {
        self.held.push_str(piece);
        while self.step(reply) {}
    }

    /// The reply is over: what is held is what it seems to be. A call without its closing tag counts unless the
    /// reply was cut.
    pub(super) fn finish(&mut self, finish: Finish, reply: &mut Assembly<'_>) -> Finish {
        let rest = std::mem::take(&mut self.held);
        match std::mem::take(&mut self.inside) {
            Inside::Thinking => reply.reasoning(&rest),
            Inside::Call if finish == Finish::Length => reply.text(&format!("{}{rest}", CALL.0)),
            Inside::Call => call(&rest, reply),
            // White space around calls is no text.
            Inside::Beginning | Inside::Text if reply.has_calls() && rest.trim().is_empty() => {}
            Inside::Beginning | Inside::Text => reply.text(&rest),
        }
        if finish == Finish::Stop && reply.has_calls() { Finish::ToolCalls } else { finish }
    }

    /// Takes the next thing out of what is held; says whether there may be more.
    fn step(&mut self, reply: &mut Assembly<'_>) -> bool {
        match self.inside {
            Inside::Beginning => {
                let begun = self.held.trim_start();
                if begun.is_empty() {
                    return false;
                }
                if let Some(rest) = begun.strip_prefix(THINK.0) {
                    self.held = rest.to_owned();
                    self.inside = Inside::Thinking;
                    return true;
                }
                if THINK.0.starts_with(begun) {
                    return false;
                }
                self.inside = Inside::Text;
                true
            }
            Inside::Thinking => self.until(THINK.1, Inside::Text, |text, reply| reply.reasoning(text), reply),
            Inside::Text => self.until(CALL.0, Inside::Call, said, reply),
            Inside::Call => {
                let Some(at) = self.held.find(CALL.1) else { return false };
                call(&self.held[..at], reply);
                self.held.drain(..at + CALL.1.len());
                self.inside = Inside::Text;
                true
            }
        }
    }

    /// Passes on what stands before `tag`, as far as it is certain.
    fn until(
        &mut self,
        tag: &str,
        then: Inside,
        pass: impl Fn(&str, &mut Assembly<'_>),
        reply: &mut Assembly<'_>,
    ) -> bool {
        if let Some(at) = self.held.find(tag) {
            pass(self.held[..at].trim_end(), reply);
            self.held.drain(..at + tag.len());
            self.inside = then;
            return true;
        }
        // The longest end that could be the tag's beginning; white space before a tag waits with it.
        let mut certain = self.held.len()
            - (1..tag.len()).rev().find(|length| self.held.ends_with(&tag[..*length])).unwrap_or(0);
        certain = self.held[..certain].trim_end().len();
        pass(&self.held[..certain], reply);
        self.held.drain(..certain);
        false
    }
}

/// Text between calls, without the white space that only sets them apart.
fn said(text: &str, reply: &mut Assembly<'_>) {
    let text = if reply.parts.iter().all(|part| matches!(part.kind, PartKind::Reasoning { .. })) {
        text.trim_start()
    } else {
        text
    };
    if !(text.trim().is_empty() && reply.has_calls()) {
        reply.text(text);
    }
}

/// A call as it was written; one that can't be read is text, so that nothing the model said is lost.
fn call(written: &str, reply: &mut Assembly<'_>) {
    match serde_json::from_str::<SpokenCall<'_>>(written.trim()) {
        Ok(made) => {
            let arguments = made.arguments.map(argument_text).unwrap_or_default();
            reply.call("", &made.name, &arguments);
        }
        Err(_) => reply.text(&format!("{}{written}{}", CALL.0, CALL.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_types::{ModelRequest, ModelSettings, Part, ReplyFormat, Route};
    use proptest::prelude::*;

    /// What is heard of a text that comes in these pieces.
    fn heard(pieces: &[&str], finish: Finish) -> (Vec<Part>, Finish) {
        let request = ModelRequest {
            route: Route { provider: "custom".to_owned(), model: "m".to_owned() },
            system: String::new(),
            messages: Vec::new(),
            tools: Vec::new(),
            settings: ModelSettings { max_tokens: None, temperature: None, top_p: None, timeout_ms: 1 },
            format: ReplyFormat::Text,
            organization: None,
        };
        let mut reply = Assembly::new(&request, &());
        let mut listener = Listener::default();
        for piece in pieces {
            listener.hear(piece, &mut reply);
        }
        let finish = listener.finish(finish, &mut reply);
        (reply.parts, finish)
    }

    fn shown(parts: &[Part]) -> String {
        let mut out = String::new();
        for part in parts {
            let _ = match &part.kind {
                PartKind::Text { text } => write!(out, "[{}]", inline(text)),
                PartKind::Reasoning { text } => write!(out, "(thinks {})", inline(text)),
                PartKind::Call(call) => write!(out, "({} {})", call.name, call.arguments),
                PartKind::Result(_) => Ok(()),
            };
        }
        out
    }

    #[test]
    fn calls_thoughts_and_text_are_told_apart() {
        for (text, finish, parts) in [
            ("plain text", Finish::Stop, "[plain text]"),
            ("  <think>hm</think>\n\nyes", Finish::Stop, "(thinks hm)[yes]"),
            ("<think>never ends", Finish::Length, "(thinks never ends)"),
            ("a <think>b</think>", Finish::Stop, "[a <think>b</think>]"),
            (
                "look\n<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>",
                Finish::Stop,
                "[look](f {\"a\": 1})",
            ),
            (
                "<tool_call>\n{\"name\":\"f\"}\n</tool_call>\n<tool_call>{\"name\":\"g\",\"parameters\":{}}</tool_call>\n",
                Finish::Stop,
                "(f )(g {})",
            ),
            ("<tool_call>{\"name\": \"f\", \"arguments\": {}}", Finish::Stop, "(f {})"),
            ("<tool_call>{\"name\": \"f\", \"argu", Finish::Length, "[<tool_call>{\"name\": \"f\", \"argu]"),
            ("<tool_call>no JSON</tool_call>", Finish::Stop, "[<tool_call>no JSON</tool_call>]"),
            ("1 < 2 and <tool", Finish::Stop, "[1 < 2 and <tool]"),
        ] {
            assert_eq!(shown(&heard(&[text], finish).0), parts, "{text}");
        }
        let call = "<tool_call>{\"name\": \"f\"}</tool_call>";
        assert_eq!(heard(&[call], Finish::Stop).1, Finish::ToolCalls);
        assert_eq!(heard(&[call], Finish::Length).1, Finish::Length);
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
            prop_assert_eq!(heard(&pieces, Finish::Stop), heard(&[&text], Finish::Stop));
        }
    }
}
