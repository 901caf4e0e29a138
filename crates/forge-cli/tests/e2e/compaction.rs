//! A run that outgrows its model's window goes on with a summary, and finds again what that stands for.

use crate::harness::{KEY, World};
use forge_testkit::model_server::{
    MockReply, MockUsage, ModelServer, ReplyScript, SeenModelCall, VendorErrorKind, VendorFormat,
};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

const FILES: usize = 8;
const NEEDLE: &str = "the attic's password is heliotrope";

fn world(server: &ModelServer) -> World {
    let mut world = World::new();
    for n in 0..FILES {
        let needle = if n == 0 { NEEDLE } else { "" };
        let text = format!("file{n}\n{needle}\n{}", "nothing of interest stands here\n".repeat(250));
        world.file(&format!("file{n}.txt"), &text);
    }
    world.set("OPENAI_BASE_URL", &server.base_url(VendorFormat::OpenAi)).set("OPENAI_API_KEY", KEY);
    world.set("FORGE_MODEL_TRIES", "2").set("FORGE_MODEL_RETRY_BASE_MS", "1");
    world
}

/// A model with a window of 16,385 tokens.
const SMALL: [&str; 4] = ["--provider", "openai", "--model", "gpt-3.5-turbo"];

fn is_summary(call: &SeenModelCall) -> bool {
    call.system.starts_with("You summarise")
}

/// The number of the last file that the conversation or its summary names as read.
fn last_read(call: &SeenModelCall) -> Option<usize> {
    let said: String = call.messages.iter().map(|message| message.text.as_str()).collect();
    (0..FILES)
        .rev()
        .find(|n| said.contains(&format!("file{n}\n")) || said.contains(&format!("file{n} was read")))
}

/// Reads one file after the other, then looks up what stood in the first; counts tokens about as real servers do.
fn read_all(call: &SeenModelCall) -> MockReply {
    let bytes: usize = call.messages.iter().map(|message| message.text.len()).sum();
    let usage =
        MockUsage { input: (call.system.len() + bytes) as u64 / 3, output: 20, ..MockUsage::default() };
    answer(call).with_usage(Some(usage))
}

fn answer(call: &SeenModelCall) -> MockReply {
    if is_summary(call) {
        let last = last_read(call).unwrap_or(0);
        return MockReply::text(format!(
            "One file after the other is read. So far nothing was found; file{last} was read."
        ));
    }
    if let Some(found) = call.last_tool_result().filter(|text| text.starts_with("Passages of the earlier")) {
        return MockReply::text(if found.contains(NEEDLE) { "It is heliotrope." } else { "It is gone." });
    }
    match last_read(call).map_or(0, |last| last + 1) {
        next if next < FILES => MockReply::call("read_file", json!({"path": format!("file{next}.txt")})),
        _ => MockReply::call("recall", json!({"query": "password of the attic"})),
    }
}

fn reasons(events: &[Value]) -> Vec<String> {
    let within =
        |event: &&Value| event["kind"] == "run.changed" && event["data"]["from"] == event["data"]["to"];
    events
        .iter()
        .filter(within)
        .filter_map(|event| Some(event["data"]["reason"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn a_long_run_with_a_small_window_ends_well_and_recalls_what_it_no_longer_sees() {
    let server = ModelServer::start(ReplyScript::always(read_all));
    let world = world(&server);
    world
        .run(&SMALL, "Find the password of the attic")
        .exits(0)
        .shows(&["It is heliotrope."])
        .says(&["messages were replaced by a summary by the model"]);
    let calls = server.model_calls();
    let summaries: Vec<_> = calls.iter().filter(|call| is_summary(call)).collect();
    assert!(summaries.len() >= 2, "{} summaries", summaries.len());
    for call in &summaries {
        assert_eq!(call.http.json["temperature"].as_f64().map(|t| (t * 10.0).round()), Some(3.0));
        assert!(call.max_tokens.is_some_and(|most| most <= 1_024));
        assert!(call.tools.is_empty());
    }
    let mut compacted = false;
    let mut before: Option<&SeenModelCall> = None;
    for call in &calls {
        if is_summary(call) {
            (compacted, before) = (true, None);
            continue;
        }
        assert_eq!(call.offers_tool("recall"), compacted, "offered once there is something to look up");
        assert!(
            call.messages[0].text.contains("Find the password of the attic"),
            "the task is never dropped"
        );
        if let Some(before) = before {
            assert_eq!(call.system, before.system);
            let texts =
                |call: &SeenModelCall| call.messages.iter().map(|m| m.text.clone()).collect::<Vec<_>>();
            assert!(texts(call).starts_with(&texts(before)), "the prefix changes only at a compaction");
        }
        before = Some(call);
    }
    let run = world.only_run();
    let told = reasons(&world.events(&run));
    assert_eq!(
        told.iter().filter(|reason| reason.starts_with("compacted: ")).count(),
        summaries.len(),
        "{told:?}"
    );
    world.forge(&["logs", &run]).exits(0).shows(&["compacted: ", "were replaced by a summary by the model"]);
    // What a summary took the place of is still there.
    let messages = std::fs::read_to_string(world.path(&format!("data/forge/runs/{run}/messages.jsonl")))
        .expect("the conversation");
    assert!(messages.contains(NEEDLE));
    assert_eq!(messages.lines().filter(|line| line.contains("\"role\":\"tool\"")).count(), FILES + 1);
}

/// Reads three files; the request after them is refused as too long this often.
fn refusing(times: usize) -> ModelServer {
    let refused = AtomicUsize::new(0);
    ModelServer::start(ReplyScript::always(move |call| {
        if is_summary(call) {
            return MockReply::text("Two files were read, and nothing of interest was found in them.");
        }
        let results =
            call.messages.iter().filter(|message| message.text.contains("nothing of interest")).count();
        if refused.load(SeqCst) == 0 && results < 3 {
            return MockReply::call("read_file", json!({"path": format!("file{results}.txt")}));
        }
        if refused.fetch_add(1, SeqCst) < times {
            MockReply::status(413)
        } else {
            MockReply::text("All is read.")
        }
    }))
}

#[test]
fn a_413_leads_to_a_compaction_and_one_retry() {
    let server = refusing(1);
    let world = world(&server);
    let flags = ["--provider", "openai", "--model", "tiny"];
    world
        .run(&flags, "Read them")
        .exits(0)
        .shows(&["All is read."])
        .says(&["the provider refused it as too long"]);
    let calls = server.model_calls();
    assert_eq!(calls.iter().filter(|call| is_summary(call)).count(), 1);
    assert_eq!(calls.len(), 6, "three reads, the refused request, the summary, the retry");
    assert!(calls[5].messages.len() < calls[3].messages.len());
}

#[test]
fn a_second_413_ends_the_run_with_a_reason() {
    let server = refusing(2);
    let world = world(&server);
    let flags = ["--provider", "openai", "--model", "tiny"];
    world.run(&flags, "Read them").exits(1).says(&["was summarised once, and it is still too long"]);
    assert_eq!(server.model_calls().len(), 6);
    let row = &world.runs()[0];
    assert!(row.to_string().contains("context_overflow"), "{row}");
}

#[test]
fn a_busy_or_babbling_model_costs_the_summary_and_not_the_run() {
    for summary in [MockReply::error(VendorErrorKind::RateLimit), MockReply::text("la ".repeat(300))] {
        let server = ModelServer::start(ReplyScript::always(move |call| {
            if is_summary(call) { summary.clone() } else { read_all(call) }
        }));
        let world = world(&server);
        world
            .run(&SMALL, "Find the password of the attic")
            .exits(0)
            .shows(&["It is heliotrope."])
            .says(&["were replaced by a plain extract"]);
    }
}
