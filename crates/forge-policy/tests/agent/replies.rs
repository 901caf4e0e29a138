//! What the router makes of what models write: a table, and whatever can be written at all.

use forge_policy::router::{DecisionSource, NO_REPLY, RouterDecision, format_answer, parse};
use forge_types::{ParamSpec, ParamType, ToolAccess, ToolCategory, ToolSpec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::time::{Duration, Instant};

fn tool(name: &str, alias: &str, param: &str) -> ToolSpec {
    ToolSpec {
        name: name.into(),
        aliases: vec![alias.into()],
        description: String::new(),
        params: vec![ParamSpec::required(param, ParamType::String, "")],
        access: ToolAccess::Nothing,
        category: ToolCategory::Builtin,
    }
}

fn tools() -> Vec<ToolSpec> {
    vec![
        tool("chat", "answer", "content"),
        tool("code", "generate_code", "content"),
        tool("read_file", "file_read", "path"),
    ]
}

fn decide(raw: &str) -> RouterDecision {
    parse(raw, &tools())
}

/// What was written, and tool, way and content of the decision.
type Row = (&'static str, &'static str, DecisionSource, &'static str);

use DecisionSource::{Empty, Fence, Json, Plain, UnknownTool, Xml};

const JSON: &[Row] = &[
    (r#"{"tool":"chat","content":"Hello"}"#, "chat", Json, "Hello"),
    (r#"  {"tool": "chat", "content": "Hello"}  "#, "chat", Json, "Hello"),
    (r#"{"content":"Hello","tool":"chat"}"#, "chat", Json, "Hello"),
    (r#"{"tool":"code","content":"print(1)"}"#, "code", Json, "print(1)"),
    (r#"{"tool":"generate_code","content":"print(1)"}"#, "code", Json, "print(1)"),
    (r#"{"tool":"CHAT","content":"loud"}"#, "chat", Json, "loud"),
    (r#"{"tool":" chat ","content":"spaced"}"#, "chat", Json, "spaced"),
    (r#"{"tool":"read_file","content":"src/a.rs"}"#, "read_file", Json, "src/a.rs"),
    (r#"{"tool":"chat","content":"a { b } c"}"#, "chat", Json, "a { b } c"),
    (r#"{"tool":"chat","content":"an open { brace"}"#, "chat", Json, "an open { brace"),
    (r#"{"tool":"chat","content":"a closing } brace"}"#, "chat", Json, "a closing } brace"),
    (
        r#"{"tool":"chat","content":"{\"tool\":\"code\",\"content\":\"x\"}"}"#,
        "chat",
        Json,
        r#"{"tool":"code","content":"x"}"#,
    ),
    (r#"{"tool":"chat","content":"say \"hi\""}"#, "chat", Json, "say \"hi\""),
    (r#"{"tool":"chat","content":"back\\slash"}"#, "chat", Json, "back\\slash"),
    (r#"{"tool":"chat","content":"\u00e4\ud83d\ude00"}"#, "chat", Json, "ä😀"),
    (r#"Sure! {"tool":"chat","content":"Hello"}"#, "chat", Json, "Hello"),
    (r#"{"tool":"chat","content":"Hello"} Is that right?"#, "chat", Json, "Hello"),
    (r#"{"tool":"chat","content":"first"} {"tool":"code","content":"last"}"#, "code", Json, "last"),
    (r#"{"tool":"code","content":"x"} and {"a":1}"#, "code", Json, "x"),
    (r#"{"tool":"code","content":"x"} then {"tool":"fly","content":"up"}"#, "code", Json, "x"),
    (r#"I { think } so: {"tool":"chat","content":"ok"}"#, "chat", Json, "ok"),
    (r#"an unclosed { and {"tool":"chat","content":"ok"}"#, "chat", Json, "ok"),
    (r#"a " quote {"tool":"chat","content":"ok"}"#, "chat", Json, "ok"),
    (r#"{"decision":{"tool":"chat","content":"inner"}}"#, "chat", Json, "inner"),
    (r#"[{"tool":"chat","content":"one"},{"tool":"chat","content":"two"}]"#, "chat", Json, "two"),
    (r#"{"steps":[{"tool":"chat","content":"one"}]}"#, "chat", Json, "one"),
    (r#"{"tool":"chat","content":42}"#, "chat", Json, "42"),
    (r#"{"tool":"chat","content":["a","b"]}"#, "chat", Json, r#"["a","b"]"#),
    (r#"{"tool":"chat","content":"done","done":true}"#, "chat", Json, "done"),
    ("{\"tool\":\"chat\",\"content\":\"two\nlines\"}", "chat", Json, "two\nlines"),
    ("{\"tool\":\"code\",\"content\":\"if x:\n\tprint(x)\"}", "code", Json, "if x:\n\tprint(x)"),
    (r#"{"tool":"chat","content":"comma",}"#, "chat", Json, "comma"),
    ("```json\n{\"tool\":\"chat\",\"content\":\"fenced\"}\n```", "chat", Json, "fenced"),
    (
        "{\"tool\":\"chat\",\"content\":\"old\"}\n{\"tool\":\"chat\",\"content\":\"new\nraw\"}",
        "chat",
        Json,
        "new\nraw",
    ),
    (r#"<think>{"tool":"code","content":"no"}</think>{"tool":"chat","content":"yes"}"#, "chat", Json, "yes"),
    ("<think>\nhm\n</think>\n\n{\"tool\":\"chat\",\"content\":\"yes\"}", "chat", Json, "yes"),
    ("<THINK>hm</THINK>{\"tool\":\"chat\",\"content\":\"yes\"}", "chat", Json, "yes"),
    ("hm, let me see</think>{\"tool\":\"chat\",\"content\":\"yes\"}", "chat", Json, "yes"),
    ("<think>a</think>x<think>b</think>{\"tool\":\"chat\",\"content\":\"yes\"}", "chat", Json, "yes"),
];

const OTHERS: &[Row] = &[
    ("<tool_call>chat</tool_call><content>Hi</content>", "chat", Xml, "Hi"),
    ("<tool_call>code</tool_call>\n<content>\nprint(1)\n</content>", "code", Xml, "print(1)"),
    ("<TOOL_CALL>chat</TOOL_CALL><CONTENT>Hi</CONTENT>", "chat", Xml, "Hi"),
    ("<tool_call>chat<content>inside</content></tool_call>", "chat", Xml, "inside"),
    ("<tool_call>chat</tool_call><content>no end", "chat", Xml, "no end"),
    ("<tool_call>fly</tool_call><content>up</content>", "chat", UnknownTool, "up"),
    ("<tool_call>{\"name\":\"code\",\"arguments\":{\"content\":\"x=1\"}}</tool_call>", "code", Xml, "x=1"),
    ("<tool_call>{\"name\":\"read_file\",\"arguments\":{\"path\":\"a\"}}</tool_call>", "read_file", Xml, "a"),
    (
        "one <tool_call>code</tool_call><content>a</content> two <tool_call>chat</tool_call><content>b</content>",
        "chat",
        Xml,
        "b",
    ),
    ("<tool_call>chat</tool_call>", "chat", Empty, NO_REPLY),
    ("Well. <tool_call>chat</tool_call>", "chat", Plain, "Well."),
    ("```python\nprint(1)\n```", "code", Fence, "print(1)"),
    ("```\nprint(1)\nprint(2)\n```", "code", Fence, "print(1)\nprint(2)"),
    ("Here you are:\n```py\nprint(1)\n```\nEnjoy!", "code", Fence, "print(1)"),
    ("```python\nprint('no end')", "code", Fence, "print('no end')"),
    ("```\n\n```\n```\nx = 1\n```", "code", Fence, "x = 1"),
    ("Just ```x = 1``` inline", "code", Fence, "x = 1"),
    ("```", "chat", Plain, "```"),
    ("Hello there", "chat", Plain, "Hello there"),
    ("Assistant: Hello", "chat", Plain, "Hello"),
    ("assistant:   Hello", "chat", Plain, "Hello"),
    ("Assistant: Assistant: Hello", "chat", Plain, "Hello"),
    ("An assistant: me", "chat", Plain, "An assistant: me"),
    ("Grüße 😀", "chat", Plain, "Grüße 😀"),
    ("{not json", "chat", Plain, "{not json"),
    ("{}", "chat", Plain, "{}"),
    (r#"{"a":1}"#, "chat", Plain, r#"{"a":1}"#),
    (r#"{"tool": "chat", "content": "cut in the mid"#, "chat", Plain, "cut in the mid"),
    (r#"{"tool":"chat""#, "chat", Plain, r#"{"tool":"chat""#),
    (r#"{"tool":"fly","content":"up"}"#, "chat", UnknownTool, "up"),
    ("```json\n{\"tool\":\"fly\",\"content\":\"up\"}\n```", "chat", UnknownTool, "up"),
    (r#"{"tool":"fly","content":""}"#, "chat", Empty, NO_REPLY),
    (r#"{"tool":"chat","content":""}"#, "chat", Empty, NO_REPLY),
    (r#"{"tool":"chat","content":"   "}"#, "chat", Empty, NO_REPLY),
    (r#"{"tool":"chat"}"#, "chat", Empty, NO_REPLY),
    (r#"{"tool":"code","content":null}"#, "chat", Empty, NO_REPLY),
    (r#"I would say yes. {"tool":"chat","content":""}"#, "chat", Plain, "I would say yes."),
    ("", "chat", Empty, NO_REPLY),
    (" \n\t ", "chat", Empty, NO_REPLY),
    ("<think>only thoughts</think>", "chat", Empty, NO_REPLY),
    ("<think>thoughts without an end", "chat", Empty, NO_REPLY),
    ("Assistant:", "chat", Empty, NO_REPLY),
    ("the the the the the the the the the the", "chat", Empty, NO_REPLY),
    ("no no no no no no no a b c", "chat", Empty, NO_REPLY),
    ("no no no no no no a b c d", "chat", Plain, "no no no no no no a b c d"),
    ("ha ha ha ha ha ha ha ha ha", "chat", Plain, "ha ha ha ha ha ha ha ha ha"),
    (r#"{"tool":"chat","content":"ja ja ja ja ja ja ja ja ja ja ja"}"#, "chat", Empty, NO_REPLY),
    (
        "The object names exactly one tool from the list below and the content that this tool is given.",
        "chat",
        Empty,
        NO_REPLY,
    ),
];

#[test]
fn the_cascade_is_this_table() {
    assert!(JSON.len() + OTHERS.len() >= 60, "{}", JSON.len() + OTHERS.len());
    let mut wrong = String::new();
    for (raw, tool, how, content) in JSON.iter().chain(OTHERS) {
        let found = decide(raw);
        if (found.tool.as_str(), found.how, found.content.as_str()) != (*tool, *how, *content) {
            wrong += &format!(
                "{raw:?}\n  wanted {tool} {how:?} {content:?}\n  found  {} {:?} {:?}\n",
                found.tool, found.how, found.content
            );
        }
        assert_eq!(found.raw, *raw, "what was written is kept");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn another_step_is_wanted_only_in_so_many_words() {
    assert!(decide(r#"{"tool":"chat","content":"x","done":false}"#).more);
    for raw in [r#"{"tool":"chat","content":"x","done":"false"}"#, r#"{"tool":"chat","content":"x"}"#] {
        assert!(!decide(raw).more, "{raw}");
    }
}

#[test]
fn without_the_tool_for_programs_a_fence_is_an_answer() {
    let only = [tool("chat", "answer", "content")];
    let found = parse("```python\nprint(1)\n```", &only);
    assert_eq!((found.tool.as_str(), found.how), ("chat", DecisionSource::Plain));
}

/// Pieces out of which replies that are hard to read are made.
fn piece() -> impl Strategy<Value = String> {
    let fixed = proptest::sample::select(vec![
        "{",
        "}",
        "\"",
        "\\",
        "\"tool\"",
        ":",
        "\"chat\"",
        "\"code\"",
        ",",
        "\"content\"",
        "[",
        "]",
        "```",
        "```python\n",
        "\n",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<content>",
        "</content>",
        "Assistant:",
        "null",
        "ß",
        "😀",
        "\u{0}",
        "{\"tool\":\"chat\",\"content\":\"",
        "\"}",
        "{\"tool\":\"code\",\"content\":\"x\"}",
        "\\u12",
        "ſ",
        "İ",
        " ",
    ]);
    prop_oneof![4 => fixed.prop_map(str::to_owned), 1 => "\\PC{0,8}", 1 => Just("a ".to_owned())]
}

fn reply() -> impl Strategy<Value = String> {
    let made = proptest::collection::vec(piece(), 0..60).prop_map(|pieces| pieces.concat());
    let mutated = (proptest::sample::select(rows()), any::<proptest::sample::Index>(), piece()).prop_map(
        |(raw, at, piece)| {
            let mut chars: Vec<char> = raw.chars().collect();
            let at = at.index(chars.len() + 1);
            chars.splice(at..(at + 1).min(chars.len()), piece.chars());
            chars.into_iter().collect()
        },
    );
    prop_oneof![3 => made, 2 => mutated, 1 => "[\\s\\S]{0,200}"]
}

fn rows() -> Vec<&'static str> {
    JSON.iter().chain(OTHERS).map(|row| row.0).collect()
}

/// For a minute in `make test`, for ten in `make soak`; how many replies that makes is told, not asked for.
#[test]
fn no_reply_makes_it_fail() {
    let (began, long) = (Instant::now(), Duration::from_mins(forge_testkit::scale::sample_or_all(1, 10)));
    let mut replies = 0;
    while began.elapsed() < long {
        replies += some_replies_are_read();
    }
    println!("{replies} replies were read");
}

fn some_replies_are_read() -> u32 {
    let cases = 1_000;
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let all = tools();
    let checked = runner.run(&reply(), |raw| {
        let found = parse(&raw, &all);
        prop_assert!(all.iter().any(|tool| tool.name == found.tool));
        prop_assert!(!found.content.trim().is_empty());
        prop_assert_eq!(found.how == DecisionSource::Empty, found.content == NO_REPLY);
        prop_assert_eq!(&found.raw, &raw);
        prop_assert_eq!(parse(&raw, &all), found, "the same again");
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
    cases
}

proptest! {
    #[test]
    fn an_answer_comes_back_as_it_was_said(text in "\\PC{1,80}", before in "[a-z ]{0,20}") {
        prop_assume!(!text.trim().is_empty() && !text.contains("think"));
        let words: Vec<_> = text.split_whitespace().collect();
        prop_assume!(words.len() < 10);
        let found = decide(&format!("{before}{}", format_answer(&text)));
        prop_assert_eq!(found.content, text);
        prop_assert_eq!(found.how, DecisionSource::Json);
    }
}

/// Texts that would take for ever if the time grew faster than the length. Nothing is timed: the test ends or does not.
#[test]
fn long_and_nasty_replies_are_read_in_passing() {
    let many = forge_testkit::scale::sample_or_all(20_000, 1_000_000);
    for piece in [
        "{",
        "}",
        "{}",
        "{\"",
        "{\"a\":",
        "{\"a\":\"",
        "{\"a\":[",
        "[{",
        "\"",
        "\\",
        "```",
        "```\n",
        "<think>",
        "</think>",
        "<tool_call>",
        "<content>",
        "{\"tool\":\"chat\",",
        "{\"tool\":\"chat\",\"content\":\"x\"",
        "Assistant:",
        "{\"tool\":",
        "{\"tool\":\"x\",\"content\":\"",
        ", ",
        "{\"tool\":\"chat\",\"content\":\"\n\"}",
        "<think>a</think>",
        "{\"a\":{\"tool\":\"b\"},",
    ] {
        let raw = piece.repeat(many / piece.len());
        decide(&raw);
        decide(&format!("{raw}{}", "}".repeat(many)));
        decide(&format!("{{\"tool\":\"chat\",\"content\":\"{raw}"));
    }
}
