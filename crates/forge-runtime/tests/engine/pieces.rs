//! A key that a model's text brings in pieces: neither what is shown live nor what is journalled has it.

use crate::harness::{Watched, World, plan};
use crate::model::{Brain, failure};
use forge_runtime::{REDACTED, Redactor};
use forge_types::*;
use std::sync::Arc;

const KEY: &str = "sk-very-secret-value";

fn thought() -> Part {
    Part { kind: PartKind::Reasoning { text: "hm".into() }, opaque: None }
}

fn said(parts: Vec<Part>, finish: Finish) -> ModelReply {
    let usage = Usage { input: 100, output: 10, known: true, ..Usage::default() };
    ModelReply { parts, usage, model: "m".into(), finish, latency_ms: 1 }
}

/// What is shown live and what is the answer of a run with these replies, of which the journal has no key.
async fn shown(replies: Vec<Result<ModelReply, forge_ports::model::Error>>) -> (String, String) {
    let world = World::new();
    let forge = world.forge_with(&world.store, Arc::new(Brain::replies(replies)), Redactor::new([KEY]));
    let run = world.create(&forge, &plan(&world.repo())).await;
    let watched = Arc::new(Watched::default());
    let shown = forge.drive(run, watched.clone()).await.expect("it ends");
    let journal = serde_json::to_string(&world.events(run).await).expect("JSON");
    assert!(!journal.contains(KEY), "{journal}");
    for name in ["run.json", "messages.jsonl", "events.jsonl", "summary.json"] {
        let text = std::fs::read_to_string(shown.folder.join(name)).expect(name);
        assert!(!text.contains(KEY), "{name}: {text}");
    }
    let live = watched.text.lock().expect("no panic").clone();
    (live, shown.summary.answer)
}

#[tokio::test]
async fn a_key_around_reasoning_is_neither_shown_nor_kept() {
    let (first, last) = KEY.split_at(9);
    let parts = vec![Part::text(first), thought(), Part::text(last), Part::text(", so")];
    let (live, answer) = shown(vec![Ok(said(parts, Finish::Stop))]).await;
    assert_eq!(live, format!("{REDACTED}, so"));
    assert_eq!(answer.replace(REDACTED, ""), ", so");
}

#[tokio::test]
async fn a_key_that_the_token_limit_cuts_is_neither_shown_nor_kept() {
    for at in 1..KEY.len() {
        let (first, last) = KEY.split_at(at);
        let cut = |text: String| Ok(said(vec![Part::text(text)], Finish::Length));
        let end = said(vec![Part::text(format!("{last}, so"))], Finish::Stop);
        let busy = Err(failure(ErrorKind::Overloaded, None));
        let (live, answer) = shown(vec![cut(format!("It is {first}")), busy, Ok(end)]).await;
        assert_eq!(live, format!("It is {REDACTED}, so"), "cut at {at}");
        let longest = (8..KEY.len()).rev().find(|length| {
            KEY.as_bytes().windows(*length).any(|part| answer.contains(&*String::from_utf8_lossy(part)))
        });
        assert_eq!(longest, None, "cut at {at}: {answer}");
    }
}
