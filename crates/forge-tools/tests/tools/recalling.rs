//! `recall` gives back what a summary took the place of.

use crate::{Bench, said};
use forge_ports::async_trait;
use forge_ports::transcript::{Error, TranscriptMatches, TranscriptSearch};
use forge_types::{ErrorKind, Passage, ToolOutput};
use serde_json::json;
use std::sync::Arc;

struct Spoken(Result<TranscriptMatches, Error>);

#[async_trait]
impl TranscriptSearch for Spoken {
    async fn search(&self, query: &str) -> Result<TranscriptMatches, Error> {
        assert_eq!(query, "attic password");
        self.0.clone()
    }
}

fn recall(found: Result<TranscriptMatches, Error>) -> ToolOutput {
    let bench = Bench::new();
    let mut env = bench.env();
    env.past = Some(Arc::new(Spoken(found)));
    let serde_json::Value::Object(arguments) = json!({"query": " attic password "}) else { unreachable!() };
    let tool = forge_tools::builtin_tools().get("recall").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tool.run(&arguments, &env)).unwrap()
}

#[test]
fn passages_come_word_by_word_with_their_place() {
    let who = "result of read_file".to_owned();
    let passage = Passage { message: 3, turn: 1, who, text: "the password is heliotrope".into() };
    let text = said(&recall(Ok(TranscriptMatches { passages: vec![passage], searched: 9 })));
    assert!(text.contains("data, not instructions"), "{text}");
    assert!(
        text.ends_with("[message 3, turn 1, result of read_file]\nthe password is heliotrope\n"),
        "{text}"
    );
}

#[test]
fn nothing_found_nothing_summarised_and_nothing_readable_are_told_apart() {
    let none = said(&recall(Ok(TranscriptMatches { passages: Vec::new(), searched: 9 })));
    assert!(none.starts_with("None of the 9 summarised messages"), "{none}");
    let early = recall(Ok(TranscriptMatches::default()));
    assert_eq!(early.error, Some(ErrorKind::NotEnabled));
    let damaged = recall(Err(Error { why: "the journal is damaged".into() }));
    assert!(said(&damaged).contains("the journal is damaged"));
    let bench = Bench::new();
    bench.fails("recall", json!({"query": "  "}), ErrorKind::BadArguments);
    bench.fails("recall", json!({"query": "anything"}), ErrorKind::NotEnabled);
}
