//! Ceilings through the built program: what is reserved, where a run waits, how it goes on.

use crate::harness::{KEY, World};
use forge_testkit::model_server::{MockReply, MockUsage, ModelServer, ReplyScript, VendorFormat, WhenDone};
use serde_json::json;

/// A model whose replies cost about ten cents each: gpt-4o, at 2.50 dollars per million prompt tokens.
fn server() -> ModelServer {
    let usage = MockUsage { input: 40_000, output: 10, cached: 0, cache_write: 0 };
    let look = MockReply::default().and_call("c1", "list_directory", json!({})).with_usage(Some(usage));
    let done = MockReply::text("Done.").with_usage(Some(usage));
    ModelServer::start(ReplyScript::from_replies([look, done]).when_done(WhenDone::RepeatLast))
}

fn world(server: &ModelServer) -> World {
    let mut world = World::new();
    world.set("OPENAI_BASE_URL", &server.base_url(VendorFormat::OpenAi)).set("OPENAI_API_KEY", KEY);
    world
}

const RUN: [&str; 4] = ["run", "Look", "--model", "openai/gpt-4o"];

#[test]
fn a_run_waits_for_its_budget_and_goes_on_when_it_is_raised() {
    let server = server();
    let mut world = world(&server);
    world.set("FORGE_AGENT_ON_LIMIT", "wait").set("FORGE_AGENT_MAX_TOKENS_PER_RUN", "100000000");
    // Waiting is its own exit code, since nobody is there to ask.
    world.forge(&[&RUN[..], &["--max-cost", "0.15"]].concat()).exits(5).says(&["budget raise"]);
    let id = world.only_run();
    let shown = world.forge(&["budget", "--json"]).exits(0).json();
    let (day, run) = (&shown["days"][0], &shown["runs"][0]);
    assert!((day["spent_usd"].as_f64().expect("a number") - 0.100_1).abs() < 1e-9, "{day}");
    assert_eq!(day["reserved_usd"], 0.0);
    assert_eq!((&run["waits_for_budget"], run["run_id"].as_str()), (&json!(true), Some(id.as_str())));
    world.forge(&["budget"]).exits(0).shows(&["SPENT", "waiting for budget", "forge budget raise"]);
    world.forge(&["budget", "raise", &id, "0.1"]).exits(2).says(&["may already spend $0.1500"]);
    world.forge(&["budget", "raise", &id, "-1"]).exits(2);
    world
        .forge(&["budget", "raise", &id, "5", "--no-resume"])
        .exits(0)
        .says(&["may spend $5.0000", "forge resume"]);
    world.forge(&["budget", "raise", &id, "6"]).exits(0).shows(&["Done."]);
    let status = world.forge(&["status", &id, "--json"]).exits(0).json();
    assert_eq!(status["status"], "completed");
    world.forge(&["budget", "raise", &id, "7"]).exits(2).says(&["completed"]);
}

#[test]
fn a_day_has_a_ceiling_of_its_own() {
    let server = server();
    let mut world = world(&server);
    world.set("FORGE_COST_MAX_PER_DAY_USD", "0.15").set("FORGE_AGENT_MAX_TOKENS_PER_RUN", "100000000");
    world.forge(&RUN).exits(3).says(&["day:"]);
    let asked = server.request_count();
    world.forge(&RUN).exits(3).says(&["the ceiling of day:"]);
    assert_eq!(server.request_count(), asked, "nothing is sent that could not be paid");
    world.forge(&["budget"]).exits(0).shows(&["daily limit of all runs: $0.1500"]);
}

#[test]
fn a_ceiling_of_nothing_is_refused() {
    let server = server();
    let world = world(&server);
    for wrong in ["0", "-1", "nan"] {
        world.forge(&[&RUN[..], &["--max-cost", wrong]].concat()).exits(2);
    }
    assert_eq!(server.request_count(), 0);
}
