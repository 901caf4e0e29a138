//! Which model is asked: what a server sees is what `forge route explain` and the journal say.

use crate::harness::{KEY, World};
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat, WhenDone};
use serde_json::{Value, json};

const HARD: &str = "Build a REST API with a database and authentication";
const SIMPLE: &str = "Print hello world";

fn server() -> ModelServer {
    ModelServer::start(ReplyScript::from_replies([MockReply::text("Done.")]).when_done(WhenDone::RepeatLast))
}

/// openai and anthropic with keys, both served by one server.
fn world(server: &ModelServer) -> World {
    let mut world = World::new();
    world.set("OPENAI_BASE_URL", &server.base_url(VendorFormat::OpenAi)).set("OPENAI_API_KEY", KEY);
    world.set("ANTHROPIC_BASE_URL", &server.base_url(VendorFormat::Anthropic)).set("ANTHROPIC_API_KEY", KEY);
    world
}

fn explain(world: &World, task: &str, flags: &[&str]) -> Value {
    world.forge(&[&["route", "explain", task, "--json"][..], flags].concat()).exits(0).json()
}

/// Runs a task and insists that the model that was called is the one that was explained and journalled.
fn runs_as_explained(world: &World, server: &ModelServer, task: &str, flags: &[&str]) -> String {
    let said = explain(world, task, flags);
    let before = server.model_calls().len();
    world.run(flags, task).exits(0);
    let calls = server.model_calls();
    assert_eq!(calls.len(), before + 1);
    let called = calls.last().expect("a call");
    assert_eq!(json!(called.model), said["model"]);
    let newest = world.runs()[0].clone();
    assert_eq!((&newest["provider"], &newest["model"]), (&said["provider"], &said["model"]));
    let events = world.events(newest["run_id"].as_str().expect("an id"));
    let routed = events.iter().find(|event| event["kind"] == "model.routed").expect("a choice");
    for field in ["provider", "model", "stage", "tier", "task_type", "reason"] {
        assert_eq!(routed["data"][field], said[field], "{field}");
    }
    format!("{}/{}", said["provider"].as_str().unwrap_or("?"), called.model)
}

#[test]
fn the_model_that_is_called_is_the_one_that_was_chosen() {
    let server = server();
    let mut world = world(&server);
    assert_eq!(runs_as_explained(&world, &server, HARD, &[]), "openai/gpt-5.2-2025-12-11");
    let flags = ["--provider", "anthropic", "--model", "claude-x"];
    assert_eq!(runs_as_explained(&world, &server, HARD, &flags), "anthropic/claude-x");
    world.set("FORGE_ROUTING_COMPLEX_MODEL", "anthropic/claude-hard");
    world.set("FORGE_ROUTING_SIMPLE_MODEL", "openai/easy");
    assert_eq!(runs_as_explained(&world, &server, HARD, &[]), "anthropic/claude-hard");
    assert_eq!(runs_as_explained(&world, &server, SIMPLE, &[]), "openai/easy");
    assert_eq!(runs_as_explained(&world, &server, HARD, &["--model", "openai/pinned"]), "openai/pinned");
    world.set("FORGE_MODEL_NAME", "gpt-usual").set("FORGE_ROUTING_TIERS", "off");
    assert_eq!(runs_as_explained(&world, &server, HARD, &[]), "openai/gpt-usual");
}

#[test]
fn weights_set_by_hand_choose_and_pins_win_over_them() {
    let server = server();
    let world = world(&server);
    let set = |model: &str, weight: &str, outcomes: &str| {
        world.forge(&["routing", "set", "code", "simple", model, weight, "--outcomes", outcomes]).exits(0);
    };
    set("openai/heavy", "1", "3");
    set("anthropic/light", "0.1", "1");
    let few = explain(&world, SIMPLE, &[]);
    assert_eq!(few["model"], "gpt-5.2-2025-12-11");
    assert!(
        few["stages"][2]["reason"]
            .as_str()
            .is_some_and(|why| why.starts_with("4 of the required 5 outcomes"))
    );
    set("anthropic/light", "0.1", "2");
    let drawn = |seed: u32| {
        let said = explain(&world, SIMPLE, &["--seed", &seed.to_string()]);
        assert_eq!(
            said,
            explain(&world, SIMPLE, &["--seed", &seed.to_string()]),
            "the same seed chooses the same"
        );
        said["model"].as_str().unwrap_or("?").to_owned()
    };
    let all: std::collections::BTreeSet<_> = (0..12).map(drawn).collect();
    assert!(all.contains("heavy") && all.len() > 1, "{all:?}");
    assert_eq!(explain(&world, HARD, &[])["stage"], "availability", "the weights are those of another tier");
    assert_eq!(explain(&world, SIMPLE, &["--model", "openai/pinned"])["model"], "pinned");
    let list = world.forge(&["routing", "list", "--json"]).exits(0).json();
    assert_eq!(list.as_array().map(Vec::len), Some(2));
    world.forge(&["routing", "delete", "code", "simple", "openai/heavy"]).exits(0);
    world.forge(&["routing", "delete", "code", "simple", "openai/heavy"]).exits(1).says(&["has no weight"]);
    world
        .forge(&["routing", "set", "code", "simple", "openai/x", "7"])
        .exits(2)
        .says(&["is not between 0.1 and 1"]);
    world
        .forge(&["routing", "set", "code", "simple", "x", "0.5"])
        .exits(2)
        .says(&["is not of the form provider/model"]);
}

#[test]
fn every_stage_says_why_and_nobody_is_asked() {
    let server = server();
    let mut world = world(&server);
    world.set("FORGE_ROUTING_COMPLEX_MODEL", "gemini/gemini-hard");
    let said = explain(&world, HARD, &[]);
    let stages: Vec<_> =
        said["stages"].as_array().expect("stages").iter().map(|s| s["stage"].clone()).collect();
    assert_eq!(json!(stages), json!(["pin", "complexity", "weights", "availability", "escalation"]));
    assert_eq!((&said["tier"], &said["stage"]), (&json!("hard"), &json!("availability")));
    assert_eq!((&said["provider"], &said["model"]), (&json!("openai"), &json!("gpt-4o")));
    assert!(said["rejected"].to_string().contains("GEMINI_API_KEY"), "{}", said["rejected"]);
    let second = explain(&world, SIMPLE, &["--repair-attempt", "2"]);
    assert_eq!(second["stage"], "escalation");
    let text = world.forge(&["route", "explain", HARD]).exits(0);
    text.shows(&["openai/gpt-4o", "keyword database +0.25 hard", "Rejected:", "Fallbacks: anthropic/"]);
    assert_eq!(server.request_count(), 0);
}

#[test]
fn the_environment_and_the_file_go_through_one_configuration() {
    let server = server();
    let mut world = world(&server);
    let config = world.path("config").join("forge");
    std::fs::create_dir_all(&config).expect("a folder");
    let write = |text: &str| std::fs::write(config.join("forge.toml"), text).expect("a file");
    write("[routing]\ncomplex_model = 'openai/from-file'\n");
    assert_eq!(explain(&world, HARD, &[])["model"], "from-file");
    world.set("DEFAULT_COMPLEX_MODEL", "openai/from-environment");
    assert_eq!(explain(&world, HARD, &[])["model"], "from-environment");
    write("[routing]\nsimple_threshold = 0.9\n");
    world.run(&[], HARD).exits(2).says(&["forge.toml:2: routing.simple_threshold: expected less than"]);
}

#[test]
fn a_model_may_classify_and_the_heuristic_answers_for_it() {
    let verdict = r#"{"level": "hard", "confidence": 0.8, "reasoning": "it only looks easy"}"#;
    let script = ReplyScript::from_replies([
        MockReply::text(verdict),
        MockReply::text("Done."),
        MockReply::text("no idea"),
        MockReply::text("no idea"),
        MockReply::text("Done."),
    ]);
    let server = ModelServer::start(script);
    let mut world = world(&server);
    world
        .set("FORGE_ROUTING_SIMPLE_MODEL", "openai/easy")
        .set("FORGE_ROUTING_COMPLEX_MODEL", "openai/strong");
    world.set("FORGE_ROUTING_CLASSIFIER", "model");
    world.run(&[], SIMPLE).exits(0);
    let models: Vec<_> = server.model_calls().iter().map(|call| call.model.clone()).collect();
    assert_eq!(models, ["easy", "strong"]);
    world.run(&[], SIMPLE).exits(0);
    assert_eq!(server.model_calls().last().map(|call| call.model.clone()).as_deref(), Some("easy"));
}

#[test]
fn without_a_provider_the_text_of_a_task_is_still_judged() {
    let mut world = World::new();
    // Nobody is at home, and that is known from the look at all providers.
    world.set("OLLAMA_BASE_URL", "http://127.0.0.1:9").set("LLAMA_CPP_URL", "http://127.0.0.1:9");
    world.forge(&["models"]).exits(0);
    world
        .forge(&["route", "explain", HARD])
        .exits(2)
        .says(&["by its text, the task is hard", "no model provider"]);
}
