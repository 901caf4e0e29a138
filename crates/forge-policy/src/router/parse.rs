//! Parsing of a model's text into one tool and its content (LOOP-7). Never fails: unparsable text is an answer in
//! words.
//!
//! The cascade: remove thoughts; then the last balanced JSON object that names a tool; then `<tool_call>` and
//! `<content>`; then a code fence; then plain text. The time is linear in the length of the text.

use super::json::{self, FoundObject};
use super::rules::leaks_rules;
use super::{CHAT_TOOL, CODE_TOOL, ContentStream, NO_REPLY};
use forge_types::ToolSpec;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashMap;

/// The source of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionSource {
    /// A JSON object.
    Json,
    /// `<tool_call>` and `<content>`.
    Xml,
    /// A code fence.
    Fence,
    /// Plain text.
    Plain,
    /// An unknown tool was named: its content is the answer.
    UnknownTool,
    /// The text is empty or contains nothing worth showing.
    Empty,
}

impl DecisionSource {
    /// Returns the name used in debug events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Xml => "xml",
            Self::Fence => "fence",
            Self::Plain => "plain",
            Self::UnknownTool => "unknown_tool",
            Self::Empty => "empty",
        }
    }
}

/// A decision of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterDecision {
    /// The tool's name.
    pub tool: String,
    /// The tool's content; never empty.
    pub content: String,
    /// The model's text.
    pub raw: String,
    /// Whether the model asks for another step after this one.
    pub more: bool,
    /// The source of the decision.
    pub how: DecisionSource,
}

/// Minimum length in tokens of a text that can count as a loop.
const MIN_LOOP_TOKENS: usize = 10;

/// Parses a model's text into a decision. `tools` are the enabled ones; the tool that answers is always among them.
pub fn parse(raw: &str, tools: &[ToolSpec]) -> RouterDecision {
    let text = without_thoughts(raw);
    let text = text.trim();
    let cascade = Cascade { text, tools };
    let choice = cascade.run().filter(|choice| !is_noise(&choice.content));
    let choice = choice.unwrap_or_else(|| ParsedChoice {
        tool: CHAT_TOOL.to_owned(),
        content: NO_REPLY.to_owned(),
        more: false,
        how: DecisionSource::Empty,
    });
    let ParsedChoice { tool, content, more, how } = choice;
    RouterDecision { tool, content, raw: raw.to_owned(), more, how }
}

struct ParsedChoice {
    tool: String,
    content: String,
    more: bool,
    how: DecisionSource,
}

impl ParsedChoice {
    fn chat_answer(content: &str, how: DecisionSource) -> Option<Self> {
        let content = content.trim();
        let tool = CHAT_TOOL.to_owned();
        (!content.is_empty()).then(|| Self { tool, content: content.to_owned(), more: false, how })
    }
}

/// A tool and content named by an object.
struct ToolMention {
    tool: String,
    content: String,
    more: bool,
}

struct Cascade<'a> {
    text: &'a str,
    tools: &'a [ToolSpec],
}

impl Cascade<'_> {
    /// Returns the choice, or `None` if nothing can be shown.
    fn run(&self) -> Option<ParsedChoice> {
        if self.text.is_empty() {
            return None;
        }
        let objects = if self.text.contains('{') { json::find_objects(self.text) } else { Vec::new() };
        let valid = objects.iter().rev().find_map(|object| {
            json::find_within(&object.map, &|map| {
                parse_mention(map).filter(|named| self.find_tool(&named.tool).is_some())
            })
            .map(|named| (named, object))
        });
        if let Some((named, object)) = valid {
            return self.choose_tool(named, DecisionSource::Json, || self.surrounding_text(object));
        }
        if let Some(choice) = self.parse_xml() {
            return choice;
        }
        let unknown = objects
            .iter()
            .rev()
            .find_map(|object| Some((json::find_within(&object.map, &parse_mention)?, object)));
        if let Some((named, object)) = unknown {
            return self.choose_tool(named, DecisionSource::UnknownTool, || self.surrounding_text(object));
        }
        if let Some(choice) = self.truncated_answer() {
            return Some(choice);
        }
        if let Some(code) = self.exact_tool(CODE_TOOL)
            && let Some(program) = fenced_code(self.text)
        {
            let content = program.to_owned();
            return Some(ParsedChoice {
                tool: code.name.clone(),
                content,
                more: false,
                how: DecisionSource::Fence,
            });
        }
        ParsedChoice::chat_answer(without_speaker(self.text), DecisionSource::Plain)
    }

    /// Returns the words of an answer with an object that was cut off.
    fn truncated_answer(&self) -> Option<ParsedChoice> {
        let words = ContentStream::default().push(self.text);
        ParsedChoice::chat_answer(&words, DecisionSource::Plain)
    }

    fn find_tool(&self, name: &str) -> Option<&ToolSpec> {
        let name = name.trim();
        self.exact_tool(name).or_else(|| self.exact_tool(&name.to_ascii_lowercase()))
    }

    fn exact_tool(&self, name: &str) -> Option<&ToolSpec> {
        self.tools.iter().find(|tool| tool.answers_to(name))
    }

    /// Returns the text around an object, which is the answer if the object contains none.
    fn surrounding_text(&self, object: &FoundObject) -> String {
        let rest = format!("{} {}", self.text[..object.start].trim(), self.text[object.end..].trim());
        let rest = rest.trim();
        // The ends of a fence around the object are no answer.
        if rest.starts_with("```") { String::new() } else { without_speaker(rest).to_owned() }
    }

    /// Chooses the tool. For an unknown tool the content is the answer, and for a tool without content the text around
    /// it is.
    fn choose_tool(
        &self,
        named: ToolMention,
        how: DecisionSource,
        beside: impl FnOnce() -> String,
    ) -> Option<ParsedChoice> {
        if named.content.trim().is_empty() {
            return ParsedChoice::chat_answer(&beside(), DecisionSource::Plain);
        }
        match self.find_tool(&named.tool) {
            Some(tool) => {
                let (tool, more) = (tool.name.clone(), named.more);
                Some(ParsedChoice { tool, content: named.content, more, how })
            }
            None => ParsedChoice::chat_answer(&named.content, DecisionSource::UnknownTool),
        }
    }

    /// Parses the last `<tool_call>NAME</tool_call><content>TEXT</content>`; the call may also be a JSON object. The
    /// outer `None` means that there is no call.
    #[allow(clippy::option_option, reason = "no call, and a call without anything to show, are two things")]
    fn parse_xml(&self) -> Option<Option<ParsedChoice>> {
        let lower = self.text.to_ascii_lowercase();
        let open = lower.rfind("<tool_call>")?;
        let body = element_text(self.text, &lower, open, "tool_call");
        let after = open + "<tool_call>".len() + body.len();
        let content =
            lower[after..].find("<content>").map(|at| element_text(self.text, &lower, after + at, "content"));
        // Some models put the content inside the call.
        let inner = body.to_ascii_lowercase();
        let inside = inner.find("<content>").map(|at| element_text(body, &inner, at, "content"));
        let name = body.split('<').next().unwrap_or_default().trim();
        let named = match json::find_objects(body).last().and_then(|object| parse_call(&object.map)) {
            Some(named) => named,
            None => ToolMention {
                tool: name.to_owned(),
                content: content.or(inside).unwrap_or_default().trim().to_owned(),
                more: false,
            },
        };
        Some(
            self.choose_tool(named, DecisionSource::Xml, || {
                without_speaker(self.text[..open].trim()).to_owned()
            }),
        )
    }
}

/// Returns the text of the element that begins at `open`; without an end tag it extends to the next call or the end.
fn element_text<'t>(text: &'t str, lower: &str, open: usize, name: &str) -> &'t str {
    let start = open + name.len() + 2;
    let end = lower[start..].find(&format!("</{name}>")).map_or(text.len(), |at| start + at);
    &text[start..end]
}

fn parse_mention(map: &Map<String, Value>) -> Option<ToolMention> {
    let tool = map.get("tool")?.as_str()?.to_owned();
    let more = map.get("done").and_then(Value::as_bool) == Some(false);
    Some(ToolMention { tool, content: content_text(map.get("content")), more })
}

/// Parses a call that some models write inside XML: `{"name": …, "arguments": {"content": …}}`.
fn parse_call(map: &Map<String, Value>) -> Option<ToolMention> {
    if let Some(named) = parse_mention(map) {
        return Some(named);
    }
    let tool = map.get("name")?.as_str()?.to_owned();
    let arguments = map.get("arguments").or_else(|| map.get("parameters"));
    let content = match arguments {
        Some(Value::Object(inner)) if inner.contains_key("content") => content_text(inner.get("content")),
        Some(Value::Object(inner)) if inner.len() == 1 => content_text(inner.values().next()),
        other => content_text(other),
    };
    Some(ToolMention { tool, content, more: false })
}

/// Returns a string as it is, any other value as JSON.
fn content_text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Returns the body of the first code fence that is not empty; an unclosed fence extends to the end of the text.
fn fenced_code(text: &str) -> Option<&str> {
    let mut at = 0;
    while let Some(open) = text[at..].find("```").map(|offset| at + offset) {
        let line = open + 3;
        let Some(end) = text[line..].find('\n').map(|offset| line + offset) else {
            // All on one line: ```print(1)```
            let inline = text[line..].split("```").next().unwrap_or_default().trim();
            return (!inline.is_empty() && text[line..].contains("```")).then_some(inline);
        };
        if let Some(close) = text[line..end].find("```") {
            let inline = text[line..line + close].trim();
            if !inline.is_empty() {
                return Some(inline);
            }
            at = line + close + 3;
            continue;
        }
        let body = end + 1;
        let close = text[body..].find("```").map_or(text.len(), |offset| body + offset);
        if !text[body..close].trim().is_empty() {
            return Some(text[body..close].trim_matches('\n').trim_end());
        }
        at = (close + 3).min(text.len());
    }
    None
}

/// Removes a leaked `Assistant:` from the start of the text.
fn without_speaker(text: &str) -> &str {
    const SPEAKER_PREFIX: &str = "assistant:";
    let mut text = text.trim();
    while text.get(..SPEAKER_PREFIX.len()).is_some_and(|head| head.eq_ignore_ascii_case(SPEAKER_PREFIX)) {
        text = text[SPEAKER_PREFIX.len()..].trim_start();
    }
    text
}

/// Removes `<think>` blocks. An unclosed block removes everything after it if nothing precedes it; a closing tag
/// without an opening one, as some templates produce, removes everything before it.
fn without_thoughts(raw: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(raw);
    for (open, close) in [("<think>", "</think>"), ("<thinking>", "</thinking>")] {
        if let Some(cut) = remove_blocks(&text, open, close) {
            text = Cow::Owned(cut);
        }
    }
    text
}

fn remove_blocks(text: &str, open: &str, close: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let (first_open, first_close) = (lower.find(open), lower.find(close));
    let orphan = first_close.filter(|close| first_open.is_none_or(|open| open > *close));
    let orphan = orphan.filter(|_| !text.trim_start().starts_with('{'));
    if orphan.is_none() && first_open.is_none() {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut at = orphan.map_or(0, |start| start + close.len());
    while let Some(start) = lower[at..].find(open).map(|offset| at + offset) {
        match lower[start..].find(close).map(|offset| start + offset) {
            Some(end) => {
                out.push_str(&text[at..start]);
                at = end + close.len();
            }
            None if out.trim().is_empty() && text[at..start].trim().is_empty() => return Some(String::new()),
            None => break,
        }
    }
    out.push_str(&text[at..]);
    Some(out)
}

/// Returns whether a text is one word repeated, or part of the router's own instructions.
fn is_noise(text: &str) -> bool {
    is_repetition(text) || leaks_rules(text)
}

fn is_repetition(text: &str) -> bool {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut all = 0_usize;
    for token in text.split_whitespace() {
        *counts.entry(token).or_default() += 1;
        all += 1;
    }
    // More than 60 %.
    all >= MIN_LOOP_TOKENS && counts.values().any(|count| count * 10 > all * 6)
}
