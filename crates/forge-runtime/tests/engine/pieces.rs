//! A key that a model's text brings in pieces: neither what is shown live nor what is journalled has it.

use crate::harness::{Watched, World, plan};
use crate::model::{Brain, failure, say, shell};
use forge_runtime::{LiveSink, REDACTED, Redactor};
use forge_types::*;
use forge_wire::{LiveFrame, WireEvent};
use std::sync::{Arc, Mutex};

const KEY: &str = "sk-very-secret-value";

fn thought() -> MessagePart {
    MessagePart { kind: PartKind::Reasoning { text: "hm".into() }, opaque: None }
}

fn said(parts: Vec<MessagePart>, finish: FinishReason) -> ModelReply {
    let usage = Usage { input: 100, output: 10, known: true, ..Usage::default() };
    ModelReply { parts, usage, model: "m".into(), finish, latency_ms: 1 }
}

/// What is shown live and what is the answer of a run with these replies, of which the journal has no key.
async fn shown(replies: Vec<Result<ModelReply, forge_ports::model::Error>>) -> (String, String) {
    let world = World::new();
    let project = world.project_with(&world.store, Arc::new(Brain::replies(replies)), Redactor::new([KEY]));
    let run = world.create(&project, &plan(&world.repo())).await;
    let watched = Arc::new(Watched::default());
    let shown = project.drive(run, watched.clone()).await.expect("it ends");
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
    let parts = vec![MessagePart::text(first), thought(), MessagePart::text(last), MessagePart::text(", so")];
    let (live, answer) = shown(vec![Ok(said(parts, FinishReason::Stop))]).await;
    assert_eq!(live, format!("{REDACTED}, so"));
    assert_eq!(answer.replace(REDACTED, ""), ", so");
}

#[tokio::test]
async fn a_key_that_the_token_limit_cuts_is_neither_shown_nor_kept() {
    for at in 1..KEY.len() {
        let (first, last) = KEY.split_at(at);
        let cut = |text: String| Ok(said(vec![MessagePart::text(text)], FinishReason::Length));
        let end = said(vec![MessagePart::text(format!("{last}, so"))], FinishReason::Stop);
        let busy = Err(failure(ErrorKind::Overloaded, None));
        let (live, answer) = shown(vec![cut(format!("It is {first}")), busy, Ok(end)]).await;
        assert_eq!(live, format!("It is {REDACTED}, so"), "cut at {at}");
        let longest = (8..KEY.len()).rev().find(|length| {
            KEY.as_bytes().windows(*length).any(|part| answer.contains(&*String::from_utf8_lossy(part)))
        });
        assert_eq!(longest, None, "cut at {at}: {answer}");
    }
}

/// What a command prints while it works.
#[derive(Default)]
struct Printed(Mutex<String>);

impl LiveSink for Printed {
    fn on_event(&self, _event: &WireEvent) {}

    fn on_frame(&self, frame: LiveFrame) {
        if let LiveFrame::ExecOutput { line, .. } = frame {
            *self.0.lock().expect("no panic") += &(line + "\n");
        }
    }
}

#[tokio::test]
async fn a_dump_of_a_key_with_something_before_it_is_not_shown_live() {
    let world = World::new();
    let lines = KEY.as_bytes().chunks(16).enumerate().map(|(number, line)| {
        let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("+ {:08x}: {:<47}  {}\n", number * 16, digits.join(" "), String::from_utf8_lossy(line))
    });
    let dump = format!("The dump: {}and more\n", lines.collect::<String>());
    std::fs::write(world.repo().join("dump"), dump).expect("a file");
    let brain = Brain::replies(vec![Ok(shell("cat dump")), Ok(say("seen"))]);
    let project = world.project_with(&world.store, Arc::new(brain), Redactor::new([KEY]));
    let run = world.create(&project, &plan(&world.repo())).await;
    let printed = Arc::new(Printed::default());
    project.drive(run, printed.clone()).await.expect("it ends");
    let live = printed.0.lock().expect("no panic").clone();
    let journal = serde_json::to_string(&world.events(run).await).expect("JSON");
    for text in [live, journal] {
        assert!(text.contains("The dump: + 00000000: ***REDACTED***") && text.contains("and more"), "{text}");
        assert!(!text.contains("73 6b") && !text.contains("sk-very") && !text.contains("alue"), "{text}");
    }
}
