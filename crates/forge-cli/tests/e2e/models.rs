//! Models at a glance, connection tests, and the price table.

use crate::harness::{KEY, World};
use forge_testkit::model_server::{MockReply, MockUsage, ModelServer, ReplyScript, VendorFormat, WhenDone};
use serde_json::{Value, json};

fn server() -> ModelServer {
    let usage = MockUsage { input: 1_000_000, output: 1_000, cached: 0, cache_write: 0 };
    let reply = MockReply::text("Done.").with_usage(Some(usage));
    ModelServer::start(ReplyScript::from_replies([reply]).when_done(WhenDone::RepeatLast))
}

fn row(glance: &Value, provider: &str) -> Value {
    let rows = glance["providers"].as_array().expect("rows");
    rows.iter().find(|row| row["provider"] == provider).expect("a row").clone()
}

#[test]
fn a_glance_shows_keys_answers_windows_and_prices() {
    let server = server();
    let mut world = World::new();
    world.set("OPENAI_BASE_URL", &server.base_url(VendorFormat::OpenAi)).set("OPENAI_API_KEY", KEY);
    world.set("ANTHROPIC_BASE_URL", "http://127.0.0.1:9").set("ANTHROPIC_API_KEY", KEY);
    let glance = world.forge(&["models", "--json"]).exits(0).json();
    let openai = row(&glance, "openai");
    assert_eq!((&openai["reachable"], &openai["has_key"]), (&json!(true), &json!(true)));
    assert_eq!(openai["key_from"], "OPENAI_API_KEY (environment)");
    assert!(
        openai["latency_ms"].is_u64() && openai["window"].is_u64() && openai["price"]["input"].is_number()
    );
    assert_eq!(row(&glance, "anthropic")["reachable"], false);
    assert_eq!(row(&glance, "gemini")["reachable"], Value::Null, "without a key nobody is asked");
    assert_eq!(glance["first"], "openai/gpt-5.2-2025-12-11");
    let asked = server.request_count();
    world.forge(&["models"]).exits(0).shows(&["PROVIDER", "openai", "Prices as of"]);
    assert_eq!(server.request_count(), asked, "answers hold for five minutes");
    world.forge(&["models", "--refresh"]).exits(0);
    assert!(server.request_count() > asked);
}

#[test]
fn a_test_says_whether_a_provider_answers() {
    let server = server();
    let mut world = World::new();
    world.set("OPENAI_BASE_URL", &server.base_url(VendorFormat::OpenAi)).set("OPENAI_API_KEY", KEY);
    let good = world.forge(&["models", "test", "openai", "--json"]).exits(0).json();
    assert_eq!(good["success"], true);
    assert!(good["latency_ms"].is_u64() && good["message"].is_string());
    world.forge(&["models", "test", "gemini"]).exits(1).shows(&["FAIL", "GEMINI_API_KEY"]);
    world.forge(&["models", "test", "nobody"]).exits(2).says(&["there is no provider `nobody`"]);
    world.set("OPENAI_BASE_URL", "http://127.0.0.1:9");
    let bad = world.forge(&["models", "test", "openai", "--json"]).exits(1).json();
    assert_eq!(bad["success"], false);
}

#[test]
fn a_refreshed_price_is_what_runs_are_charged_and_a_wrong_table_changes_nothing() {
    let server = server();
    let mut world = World::new();
    world.set("OPENAI_BASE_URL", &server.base_url(VendorFormat::OpenAi)).set("OPENAI_API_KEY", KEY);
    world.set("FORGE_AGENT_MAX_TOKENS_PER_RUN", "9000000").set("FORGE_COST_ALLOW_UNKNOWN", "true");
    let table = |input: &str| {
        format!(
            r#"{{"as_of": "2026-11-20", "source": "a test", "models": [
                {{"provider": "openai", "model": "gpt-new", "input": {input}, "output": 2, "window": 4000000}}]}}"#
        )
    };
    world
        .file("good.json", &table("0.125"))
        .file("negative.json", &table("-1"))
        .file("broken.json", "{\"models\": [");
    let flags = ["--model", "openai/gpt-new"];
    let cost = |world: &World| {
        world.run(&flags, "Say it").exits(0);
        world.runs()[0]["cost_usd"].as_f64().unwrap_or(-1.0)
    };
    assert_eq!(cost(&world), 0.0, "an unknown price is unknown");
    let shown = world.forge(&["prices", "update", "good.json"]).exits(0);
    shown.shows(&["Now using prices of 2026-11-20", "1 model new: openai/gpt-new"]);
    assert!((cost(&world) - 0.127).abs() < 1e-9);
    world.forge(&["prices", "update", "negative.json"]).exits(2).says(&[
        "row 1",
        "input",
        "The old table stays",
    ]);
    world
        .forge(&["prices", "update", "broken.json"])
        .exits(2)
        .says(&["not valid JSON", "The old table stays"]);
    world
        .forge(&["prices", "update", "missing.json"])
        .exits(2)
        .says(&["can't be read", "Nothing was changed"]);
    world.forge(&["prices", "update", "http://127.0.0.1:9/x"]).exits(2).says(&["can't be fetched"]);
    assert!((cost(&world) - 0.127).abs() < 1e-9);
    world.forge(&["prices", "show", "gpt-new"]).exits(0).shows(&[
        "openai/gpt-new",
        "0.125",
        "As of 2026-11-20",
    ]);
}

#[test]
fn what_another_model_would_have_cost_is_told() {
    let server = server();
    let mut world = World::new();
    world.set("OPENAI_BASE_URL", &server.base_url(VendorFormat::OpenAi)).set("OPENAI_API_KEY", KEY);
    world.set("FORGE_AGENT_MAX_TOKENS_PER_RUN", "9000000");
    let done =
        world.run(&["--model", "openai/gpt-4o-mini", "--output-format", "json"], "Say it").exits(0).json();
    let savings = &done["savings"];
    assert_eq!(savings["reference"], "openai/gpt-4o");
    let near =
        |value: &Value, expected: f64| value.as_f64().is_some_and(|value| (value - expected).abs() < 1e-6);
    assert!(near(&savings["reference_usd"], 2.51), "{savings}");
    assert!(near(&savings["saved_usd"], 2.51 - 0.1506), "{savings}");
    let run = world.only_run();
    world.forge(&["status", &run]).exits(0).shows(&["openai/gpt-4o"]);
}
