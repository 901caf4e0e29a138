//! A model that can't be had: others are asked in order, each within its tries; who was given up is left alone, and
//! asked again when its time is over.

use crate::harness::{KEY, World, until};
use forge_testkit::model_server::{
    MockReply, ModelServer, ReplyFault, ReplyScript, VendorErrorKind, VendorFormat, WhenDone,
};
use serde_json::{Value, json};

/// A server that always gives this reply.
fn always(reply: &MockReply) -> ModelServer {
    let reply = reply.clone();
    ModelServer::start(ReplyScript::always(move |_| reply.clone()))
}

/// A server that never has time.
fn busy() -> ModelServer {
    always(&MockReply::error(VendorErrorKind::RateLimit))
}

/// A server that does what it is asked: one file, then the end.
fn working() -> ModelServer {
    let write = json!({"command": "echo once >> log.txt"});
    let replies = [MockReply::text("I write.").and_call("c1", "run_shell", write), MockReply::text("Done.")];
    ModelServer::start(ReplyScript::from_replies(replies).when_done(WhenDone::RepeatLast))
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

/// openai, anthropic and gemini with keys and these addresses.
fn three(world: &mut World, addresses: [String; 3]) {
    for (prefix, address) in ["OPENAI", "ANTHROPIC", "GEMINI"].into_iter().zip(addresses) {
        world.set(&format!("{prefix}_BASE_URL"), &address).set(&format!("{prefix}_API_KEY"), KEY);
    }
    world.set("FORGE_MODEL_RETRY_BASE_MS", "1").set("FORGE_MODEL_TRIES", "3");
}

fn told(events: &[Value], kind: &str) -> Vec<Value> {
    events.iter().filter(|event| event["kind"] == kind).map(|event| event["data"].clone()).collect()
}

/// Who was asked, in order.
fn asked(events: &[Value]) -> Vec<String> {
    let all = told(events, "model.requested");
    all.iter().map(|data| data["provider"].as_str().unwrap_or("?").to_owned()).collect()
}

#[test]
fn the_first_is_busy_the_second_is_down_and_the_third_does_the_work() {
    let (first, third) = (busy(), working());
    let mut world = World::new();
    three(&mut world, [first.base_url(VendorFormat::OpenAi), nobody(), third.base_url(VendorFormat::Gemini)]);
    world.run(&[], "Write the file").exits(0).shows(&["Done."]);
    assert_eq!(world.read("log.txt"), "once\n");
    assert_eq!(first.model_calls().len(), 3, "at most its tries");
    assert_eq!(third.model_calls().len(), 2);
    let run = world.only_run();
    let events = world.events(&run);
    let all = asked(&events);
    let expected = ["openai", "openai", "openai", "anthropic", "anthropic", "anthropic", "gemini", "gemini"];
    assert_eq!(all, expected);
    let failed = told(&events, "model.failed");
    assert_eq!(failed.len(), 6);
    assert_eq!((&failed[0]["reason"], &failed[0]["next"]), (&json!("rate_limit"), &Value::Null));
    assert!(failed[0]["retry_in_ms"].is_u64(), "{}", failed[0]);
    assert_eq!(failed[2]["next"], "anthropic/claude-sonnet-4-20250514");
    assert_eq!(
        (&failed[5]["reason"], &failed[5]["next"]),
        (&json!("unavailable"), &json!("gemini/gemini-2.5-flash"))
    );
    let routed = told(&events, "model.routed");
    let names: Vec<_> = routed.iter().map(|data| data["provider"].as_str().unwrap_or("?")).collect();
    assert_eq!(names, ["openai", "anthropic", "gemini"]);
    assert_eq!(routed[2]["rejected"].as_array().map(Vec::len), Some(2));
    assert!(routed[2]["reason"].as_str().is_some_and(|reason| reason.contains("rate_limit after 3 tries")));
    let shown = world.forge(&["list", "--json"]).exits(0).json();
    assert_eq!(shown[0]["provider"], "gemini", "lists show who did the work");
}

#[test]
fn who_was_given_up_is_left_alone_by_later_runs_and_shown() {
    let (first, third) = (busy(), working());
    let mut world = World::new();
    three(&mut world, [first.base_url(VendorFormat::OpenAi), nobody(), third.base_url(VendorFormat::Gemini)]);
    world.run(&[], "Write the file").exits(0);
    world.run(&[], "Write it again").exits(0);
    assert_eq!(first.model_calls().len(), 3, "the second run does not ask it");
    let newest = world.runs()[0]["run_id"].as_str().expect("an id").to_owned();
    let routed = &told(&world.events(&newest), "model.routed")[0];
    assert_eq!((&routed["provider"], &routed["stage"]), (&json!("gemini"), &json!("availability")));
    assert!(routed["rejected"].to_string().contains("in cooldown until"), "{routed}");
    let glance = world.forge(&["models", "--json"]).exits(0).json();
    let rows = glance["providers"].as_array().expect("rows");
    let row = |name: &str| rows.iter().find(|row| row["provider"] == name).expect("a row").clone();
    let rest = &row("openai")["cooldown"];
    assert_eq!((&rest["reason"], &rest["failures"]), (&json!("rate_limit"), &json!(1)));
    assert!(rest["remaining_seconds"].as_u64().is_some_and(|left| (1..=60).contains(&left)), "{rest}");
    assert_eq!(row("gemini")["cooldown"], Value::Null);
    assert_eq!(glance["first"], "gemini/gemini-2.5-flash", "who is asked now");
    // Whoever is tested and answers is no longer left alone.
    world.forge(&["models", "test", "anthropic"]).exits(1);
    let explained = world.forge(&["route", "explain", "Write", "--json"]).exits(0).json();
    assert_eq!(explained["provider"], "gemini");
}

#[test]
fn the_first_is_asked_again_once_a_test_finds_it_well() {
    let first = ModelServer::start(
        ReplyScript::from_replies([
            MockReply::error(VendorErrorKind::RateLimit),
            MockReply::error(VendorErrorKind::RateLimit),
            MockReply::text("First."),
        ])
        .when_done(WhenDone::RepeatLast),
    );
    let second = working();
    let mut world = World::new();
    world.set("FORGE_MODEL_TRIES", "2").set("FORGE_MODEL_RETRY_BASE_MS", "1");
    world.set("OPENAI_BASE_URL", &first.base_url(VendorFormat::OpenAi)).set("OPENAI_API_KEY", KEY);
    world.set("ANTHROPIC_BASE_URL", &second.base_url(VendorFormat::Anthropic)).set("ANTHROPIC_API_KEY", KEY);
    world.run(&[], "Write the file").exits(0).shows(&["Done."]);
    assert_eq!((first.model_calls().len(), second.model_calls().len()), (2, 2));
    world.forge(&["models", "test", "openai"]).exits(0).shows(&["answers"]);
    world.run(&[], "And now").exits(0).shows(&["First."]);
    let glance = world.forge(&["models", "--json"]).exits(0).json();
    assert_eq!(glance["providers"][0]["cooldown"], Value::Null, "success forgets the failures");
}

#[test]
fn wrong_keys_unpaid_bills_and_wrong_requests_end_the_run_at_once_and_are_remembered() {
    for (kind, reason) in [
        (VendorErrorKind::Auth, "auth"),
        (VendorErrorKind::Billing, "billing"),
        (VendorErrorKind::Format, "format"),
    ] {
        let (first, second) = (always(&MockReply::error(kind)), working());
        let mut world = World::new();
        world.set("OPENAI_BASE_URL", &first.base_url(VendorFormat::OpenAi)).set("OPENAI_API_KEY", KEY);
        world
            .set("ANTHROPIC_BASE_URL", &second.base_url(VendorFormat::Anthropic))
            .set("ANTHROPIC_API_KEY", KEY);
        world.run(&[], "Write the file").exits(1);
        assert_eq!((first.model_calls().len(), second.model_calls().len()), (1, 0), "{reason}");
        let glance = world.forge(&["models", "--json"]).exits(0).json();
        assert_eq!(glance["providers"][0]["cooldown"]["reason"], reason);
        // The next run asks somebody else.
        world.run(&[], "Write the file").exits(0);
        assert_eq!((first.model_calls().len(), second.model_calls().len()), (1, 2), "{reason}");
        if kind == VendorErrorKind::Auth {
            // Another key is another matter.
            world.set("OPENAI_API_KEY", "sk-test-another-key-0123456789");
            world.run(&[], "Write the file").exits(1);
            assert_eq!(first.model_calls().len(), 2);
        }
    }
}

#[test]
fn a_list_of_fallbacks_is_the_list_and_none_is_none() {
    let (first, second, third) = (busy(), working(), working());
    let mut world = World::new();
    three(
        &mut world,
        [
            first.base_url(VendorFormat::OpenAi),
            second.base_url(VendorFormat::Anthropic),
            third.base_url(VendorFormat::Gemini),
        ],
    );
    world.set("FORGE_MODEL_FALLBACKS", "gemini:some-model");
    world.run(&[], "Write the file").exits(0);
    assert_eq!((second.model_calls().len(), third.model_calls().len()), (0, 2));
    assert_eq!(third.model_calls()[0].model, "some-model");
    let mut alone = World::new();
    three(
        &mut alone,
        [
            first.base_url(VendorFormat::OpenAi),
            second.base_url(VendorFormat::Anthropic),
            third.base_url(VendorFormat::Gemini),
        ],
    );
    alone.set("FORGE_MODEL_FALLBACKS", "none");
    alone.run(&[], "Write the file").exits(1).says(&["failed 3 times"]);
    assert_eq!(second.model_calls().len(), 0);
}

#[test]
fn a_fallback_is_charged_to_its_own_organization_or_the_usual_one() {
    for (entry, organization) in [("openai:x organization_id=org-9", "org-9"), ("openai:x", "org-usual")] {
        let (first, second) = (busy(), working());
        let mut world = World::new();
        world
            .set("ANTHROPIC_BASE_URL", &first.base_url(VendorFormat::Anthropic))
            .set("ANTHROPIC_API_KEY", KEY);
        world.set("OPENAI_BASE_URL", &second.base_url(VendorFormat::OpenAi)).set("OPENAI_API_KEY", KEY);
        world.set("OPENAI_ORG_ID", "org-usual").set("FORGE_MODEL_FALLBACKS", entry);
        world.set("FORGE_MODEL_TRIES", "1");
        world.run(&["--provider", "anthropic"], "Write the file").exits(0);
        for call in second.model_calls() {
            assert_eq!(call.http.header("openai-organization"), Some(organization), "{entry}");
        }
    }
}

#[test]
fn when_nobody_is_left_each_is_named_with_its_reason() {
    let first = busy();
    let mut world = World::new();
    three(&mut world, [first.base_url(VendorFormat::OpenAi), nobody(), nobody()]);
    let done = world.run(&[], "Write the file").exits(1);
    done.says(&[
        "FallbackExhausted",
        "openai/gpt-5.2-2025-12-11: rate_limit after 3 tries",
        "anthropic/claude-sonnet-4-20250514: unavailable after 3 tries",
        "gemini/gemini-2.5-flash: unavailable after 3 tries",
    ]);
}

#[test]
fn a_long_wait_moves_on_and_parks_where_nobody_else_is() {
    let long = |_: &_| {
        let headers = vec![("Retry-After".to_owned(), "3600".to_owned())];
        MockReply::fault(ReplyFault::ErrorWith(VendorErrorKind::RateLimit, headers))
    };
    let (first, second) = (ModelServer::start(ReplyScript::always(long)), working());
    let mut world = World::new();
    world.set("OPENAI_BASE_URL", &first.base_url(VendorFormat::OpenAi)).set("OPENAI_API_KEY", KEY);
    world.set("FORGE_MODEL_TRIES", "2").set("FORGE_MODEL_RETRY_BASE_MS", "1");
    world.run(&[], "Write the file").exits(5);
    assert_eq!(first.model_calls().len(), 1);
    let run = world.only_run();
    let waits = told(&world.events(&run), "wait.requested");
    assert_eq!(waits[0]["waiting_for"], "retry");
    world.set("ANTHROPIC_BASE_URL", &second.base_url(VendorFormat::Anthropic)).set("ANTHROPIC_API_KEY", KEY);
    world.run(&["--provider", "openai"], "Write the file").exits(0);
    assert_eq!(first.model_calls().len(), 1, "it asked to be left alone for an hour");
    let oldest = until("the parked run is there", || Some(world.oldest_run()));
    assert_eq!(oldest, run);
}

#[test]
fn own_servers_never_fall_back_to_others_by_themselves() {
    let (own, other) = (busy(), working());
    let mut world = World::new();
    world.set("OLLAMA_BASE_URL", &own.base_url(VendorFormat::Ollama));
    world.set("OPENAI_BASE_URL", &other.base_url(VendorFormat::OpenAi)).set("OPENAI_API_KEY", KEY);
    world.set("FORGE_MODEL_TRIES", "2").set("FORGE_MODEL_RETRY_BASE_MS", "1");
    world.run(&["--provider", "ollama"], "Write the file").exits(1);
    assert_eq!((own.model_calls().len(), other.model_calls().len()), (2, 0));
    world.set("FORGE_MODEL_FALLBACKS", "openai");
    world.run(&["--provider", "ollama"], "Write the file").exits(0);
    assert_eq!(other.model_calls().len(), 2);
}
