//! From what a model wrote to one tool and its content (LOOP-7). Never fails: what makes no sense is an answer in words.
//!
//! The cascade: thoughts are removed; then the last balanced JSON object that names a tool; then `<tool_call>` and
//! `<content>`; then a code fence; then plain text. The time grows with the length of the text alone.

use super::json::{self, Found};
use super::{CHAT, CODE, ContentStream, NO_REPLY, prompt};
use forge_types::ToolSpec;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashMap;

/// How a decision was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A JSON object.
    Json,
    /// `<tool_call>` and `<content>`.
    Xml,
    /// A code fence.
    Fence,
    /// Plain text.
    Plain,
    /// A tool was named that there is not: its content is the answer.
    UnknownTool,
    /// There was nothing, or nothing that anybody wants to read.
    Empty,
}

impl How {
    /// Its name in debug events.
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

/// What the router decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterDecision {
    /// The tool by its own name.
    pub tool: String,
    /// What it is given; never empty.
    pub content: String,
    /// What the model wrote.
    pub raw: String,
    /// Whether the model wants another step after this one.
    pub more: bool,
    /// How it was found.
    pub how: How,
}

/// Tokens of which one may be most.
const LOOP_TOKENS: usize = 10;

/// Decides by what a model wrote. `tools` are the enabled ones; the tool that answers is always one of them.
pub fn parse(raw: &str, tools: &[ToolSpec]) -> RouterDecision {
    let text = without_thoughts(raw);
    let text = text.trim();
    let cascade = Cascade { text, tools };
    let choice = cascade.run().filter(|choice| !is_noise(&choice.content));
    let choice = choice.unwrap_or_else(|| Choice {
        tool: CHAT.to_owned(),
        content: NO_REPLY.to_owned(),
        more: false,
        how: How::Empty,
    });
    let Choice { tool, content, more, how } = choice;
    RouterDecision { tool, content, raw: raw.to_owned(), more, how }
}

struct Choice {
    tool: String,
    content: String,
    more: bool,
    how: How,
}

impl Choice {
    fn chat(content: &str, how: How) -> Option<Self> {
        let content = content.trim();
        let tool = CHAT.to_owned();
        (!content.is_empty()).then(|| Self { tool, content: content.to_owned(), more: false, how })
    }
}

/// What an object says.
struct Named {
    tool: String,
    content: String,
    more: bool,
}

struct Cascade<'a> {
    text: &'a str,
    tools: &'a [ToolSpec],
}

impl Cascade<'_> {
    /// `None`: nothing that can be shown.
    fn run(&self) -> Option<Choice> {
        if self.text.is_empty() {
            return None;
        }
        let objects = if self.text.contains('{') { json::objects(self.text) } else { Vec::new() };
        let valid = objects.iter().rev().find_map(|object| {
            json::within(&object.map, &|map| named(map).filter(|named| self.find(&named.tool).is_some()))
                .map(|named| (named, object))
        });
        if let Some((named, object)) = valid {
            return self.chosen(named, How::Json, || self.around(object));
        }
        if let Some(choice) = self.xml() {
            return choice;
        }
        let unknown =
            objects.iter().rev().find_map(|object| Some((json::within(&object.map, &named)?, object)));
        if let Some((named, object)) = unknown {
            return self.chosen(named, How::UnknownTool, || self.around(object));
        }
        if let Some(choice) = self.cut() {
            return Some(choice);
        }
        if let Some(code) = self.tool_of(CODE)
            && let Some(program) = fenced(self.text)
        {
            let content = program.to_owned();
            return Some(Choice { tool: code.name.clone(), content, more: false, how: How::Fence });
        }
        Choice::chat(without_speaker(self.text), How::Plain)
    }

    /// The words of an answer whose object was cut off before its end.
    fn cut(&self) -> Option<Choice> {
        let words = ContentStream::default().push(self.text);
        Choice::chat(&words, How::Plain)
    }

    fn find(&self, name: &str) -> Option<&ToolSpec> {
        let name = name.trim();
        self.tool_of(name).or_else(|| self.tool_of(&name.to_ascii_lowercase()))
    }

    fn tool_of(&self, name: &str) -> Option<&ToolSpec> {
        self.tools.iter().find(|tool| tool.answers_to(name))
    }

    /// What stands around an object is the answer if the object holds none.
    fn around(&self, object: &Found) -> String {
        let rest = format!("{} {}", self.text[..object.start].trim(), self.text[object.end..].trim());
        let rest = rest.trim();
        // The ends of a fence around it are no answer.
        if rest.starts_with("```") { String::new() } else { without_speaker(rest).to_owned() }
    }

    /// A tool that does not exist answers with its content, one without content with what stands beside it.
    fn chosen(&self, named: Named, how: How, beside: impl FnOnce() -> String) -> Option<Choice> {
        if named.content.trim().is_empty() {
            return Choice::chat(&beside(), How::Plain);
        }
        match self.find(&named.tool) {
            Some(tool) => {
                let (tool, more) = (tool.name.clone(), named.more);
                Some(Choice { tool, content: named.content, more, how })
            }
            None => Choice::chat(&named.content, How::UnknownTool),
        }
    }

    /// `<tool_call>NAME</tool_call><content>TEXT</content>`, the last one; the call may also hold a JSON object. The
    /// outer `None`: there is no such call.
    #[allow(clippy::option_option, reason = "no call, and a call without anything to show, are two things")]
    fn xml(&self) -> Option<Option<Choice>> {
        let lower = self.text.to_ascii_lowercase();
        let open = lower.rfind("<tool_call>")?;
        let body = element(self.text, &lower, open, "tool_call");
        let after = open + "<tool_call>".len() + body.len();
        let content =
            lower[after..].find("<content>").map(|at| element(self.text, &lower, after + at, "content"));
        // Some put the content into the call.
        let inner = body.to_ascii_lowercase();
        let inside = inner.find("<content>").map(|at| element(body, &inner, at, "content"));
        let name = body.split('<').next().unwrap_or_default().trim();
        let named = match json::objects(body).last().and_then(|object| called(&object.map)) {
            Some(named) => named,
            None => Named {
                tool: name.to_owned(),
                content: content.or(inside).unwrap_or_default().trim().to_owned(),
                more: false,
            },
        };
        Some(self.chosen(named, How::Xml, || without_speaker(self.text[..open].trim()).to_owned()))
    }
}

/// The text of an element that begins at `open`; without an end tag it ends with the text or the next call.
fn element<'t>(text: &'t str, lower: &str, open: usize, name: &str) -> &'t str {
    let start = open + name.len() + 2;
    let end = lower[start..].find(&format!("</{name}>")).map_or(text.len(), |at| start + at);
    &text[start..end]
}

fn named(map: &Map<String, Value>) -> Option<Named> {
    let tool = map.get("tool")?.as_str()?.to_owned();
    let more = map.get("done").and_then(Value::as_bool) == Some(false);
    Some(Named { tool, content: content(map.get("content")), more })
}

/// As some models write calls in XML: `{"name": …, "arguments": {"content": …}}`.
fn called(map: &Map<String, Value>) -> Option<Named> {
    if let Some(named) = named(map) {
        return Some(named);
    }
    let tool = map.get("name")?.as_str()?.to_owned();
    let arguments = map.get("arguments").or_else(|| map.get("parameters"));
    let content = match arguments {
        Some(Value::Object(inner)) if inner.contains_key("content") => content(inner.get("content")),
        Some(Value::Object(inner)) if inner.len() == 1 => content(inner.values().next()),
        other => content(other),
    };
    Some(Named { tool, content, more: false })
}

/// A text as it is, anything else as JSON.
fn content(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The body of the first code fence that holds something; one without an end ends with the text.
fn fenced(text: &str) -> Option<&str> {
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

/// The text without a leaked `Assistant:` at its front.
fn without_speaker(text: &str) -> &str {
    const SPEAKER: &str = "assistant:";
    let mut text = text.trim();
    while text.get(..SPEAKER.len()).is_some_and(|head| head.eq_ignore_ascii_case(SPEAKER)) {
        text = text[SPEAKER.len()..].trim_start();
    }
    text
}

/// The text without `<think>` blocks. One that was never closed hides all that follows if nothing stands before it;
/// one that was never opened, as some templates leave it, all that precedes.
fn without_thoughts(raw: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(raw);
    for (open, close) in [("<think>", "</think>"), ("<thinking>", "</thinking>")] {
        if let Some(cut) = without(&text, open, close) {
            text = Cow::Owned(cut);
        }
    }
    text
}

fn without(text: &str, open: &str, close: &str) -> Option<String> {
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

/// One word over and over, or a piece of the router's own instructions.
fn is_noise(text: &str) -> bool {
    repeats(text) || prompt::leaks(text)
}

fn repeats(text: &str) -> bool {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut all = 0_usize;
    for token in text.split_whitespace() {
        *counts.entry(token).or_default() += 1;
        all += 1;
    }
    // More than 60 %.
    all >= LOOP_TOKENS && counts.values().any(|count| count * 10 > all * 6)
}
