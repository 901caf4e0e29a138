//! Keys, connections, local servers, the scripted provider.

use crate::set_up;
use forge_models::{ApiKey, ModelProviders, Options, ProviderOptions, ProviderSetupError, ScriptSource};
use forge_ports::Model;
use forge_testkit::contract::model::run;
use forge_testkit::model_server::{
    MockReply, ModelServer, ModelServerSettings, ReplyFault, ReplyScript, VendorFormat,
};
use forge_types::{
    ErrorKind, FinishReason, Message, MessagePart, ModelReply, ModelRequest, ModelRoute, ModelSettings,
    ReplyFormat, Role,
};

fn models(provider: ProviderOptions) -> Result<ModelProviders, ProviderSetupError> {
    let (models, mut faults) =
        ModelProviders::new(&Options { providers: vec![provider], ..Options::default() });
    faults.pop().map_or(Ok(models), Err)
}

fn at(name: &str, url: &str) -> ProviderOptions {
    ProviderOptions {
        base_url: Some(url.to_owned()),
        key: Some(ApiKey::new("k")),
        ..ProviderOptions::with_name(name)
    }
}

fn request(provider: &str, model: &str, messages: Vec<Message>) -> ModelRequest {
    ModelRequest {
        route: ModelRoute { provider: provider.to_owned(), model: model.to_owned() },
        system: String::new(),
        messages: messages.into_iter().map(std::sync::Arc::new).collect(),
        tools: Vec::new(),
        settings: ModelSettings {
            max_tokens: Some(100),
            temperature: Some(0.0),
            top_p: None,
            timeout_ms: 20_000,
        },
        format: ReplyFormat::Text,
        organization: None,
    }
}

async fn ask(models: &ModelProviders, provider: &str, model: &str) -> ModelReply {
    models.request_reply(request(provider, model, vec![Message::user("hi")]), &()).await.unwrap()
}

#[test]
fn a_provider_that_cannot_work_is_refused_at_once() {
    assert!(
        matches!(models(ProviderOptions::with_name("opnai")), Err(ProviderSetupError::UnknownProvider(_, all)) if all.contains("openai"))
    );
    assert!(matches!(models(ProviderOptions::with_name("custom")), Err(ProviderSetupError::NoBaseUrl(_))));
    assert!(matches!(models(ProviderOptions::with_name("scripted")), Err(ProviderSetupError::NoScript(_))));
    for bad in ["localhost:11434", "ftp://host", "http://", "http://ho st"] {
        assert!(matches!(models(at("ollama", bad)), Err(ProviderSetupError::BadBaseUrl { .. })), "{bad}");
    }
    let error = models(at("openai", "https://user:secret@host/v1")).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn a_provider_that_cannot_work_leaves_the_others_alone() {
    run(async {
        let server = ModelServer::start(ReplyScript::always(|_| MockReply::text("x")));
        let (models, faults) = ModelProviders::new(&Options {
            providers: vec![
                ProviderOptions::with_name("custom"),
                at("openai", &server.url()),
                at("ollama", "ftp://host"),
            ],
            ..Options::default()
        });
        let names: Vec<_> = faults.iter().map(ProviderSetupError::provider).collect();
        assert_eq!(names, ["custom", "ollama"]);
        ask(&models, "openai", "m").await;
        let error =
            models.request_reply(request("custom", "m", vec![Message::user("x")]), &()).await.unwrap_err();
        assert!(error.message.contains("is not configured"), "{error}");
    });
}

#[test]
fn a_key_shows_itself_to_nobody() {
    let options = at("openai", "http://h");
    let key = ApiKey::new("sk-visible\n");
    assert_eq!(format!("{key:?}"), "Key(hidden)");
    let options = ProviderOptions { key: Some(key), ..options };
    assert!(!format!("{options:?} {:?}", models(options.clone()).unwrap()).contains("sk-visible"));
}

#[test]
fn a_missing_key_names_its_variable() {
    run(async {
        let server = ModelServer::start(ReplyScript::always(|_| MockReply::text("x")));
        let mut options = at("anthropic", &server.url());
        options.key = Some(ApiKey::new(" "));
        let models = models(options).unwrap();
        let error =
            models.request_reply(request("anthropic", "m", vec![Message::user("x")]), &()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Auth);
        assert!(error.message.contains("ANTHROPIC_API_KEY"));
        assert_eq!(server.request_count(), 0);
    });
}

#[test]
fn parameters_go_by_the_names_and_rules_of_the_model() {
    run(async {
        let server = ModelServer::start(ReplyScript::always(|_| MockReply::text("x")));
        let options = |name| at(name, &server.base_url(VendorFormat::OpenAi));
        let mut openai = options("openai");
        openai.organization = Some("org-1".to_owned());
        let models = set_up(&Options {
            providers: vec![openai, options("custom"), at("ollama", &server.url())],
            ..Options::default()
        });
        ask(&models, "openai", "gpt-5.2-2025-12-11").await;
        ask(&models, "openai", "gpt-4o-2024-08-06").await;
        ask(&models, "custom", "llama").await;
        ask(&models, "ollama", "llama3:8b").await;
        let seen = server.recorded_requests();
        assert_eq!(seen[0].json["max_completion_tokens"], 100);
        assert!(seen[0].json["temperature"].is_null(), "this model refuses it");
        assert_eq!(seen[0].header("openai-organization"), Some("org-1"));
        assert_eq!(seen[1].json["temperature"], 0.0);
        assert_eq!(seen[2].json["max_tokens"], 100);
        assert_eq!(seen[2].header("openai-organization"), None);
        assert_eq!(seen[3].json["options"]["num_ctx"], 8192, "never the server's own small window");
        assert_eq!(seen[3].header("authorization"), None, "no key for a provider without keys");
    });
}

#[test]
fn a_key_goes_to_its_own_provider_only() {
    run(async {
        let (one, two) = (
            ModelServer::start(ReplyScript::always(|_| MockReply::text("1"))),
            ModelServer::start(ReplyScript::always(|_| MockReply::text("2"))),
        );
        let mut first = at("openai", &one.url());
        first.key = Some(ApiKey::new("key-one"));
        let mut second = at("anthropic", &two.url());
        second.key = Some(ApiKey::new("key-two"));
        let models = set_up(&Options { providers: vec![first, second], ..Options::default() });
        ask(&models, "openai", "m").await;
        ask(&models, "anthropic", "m").await;
        assert!(!format!("{:?}", one.recorded_requests()).contains("key-two"));
        assert!(!format!("{:?}", two.recorded_requests()).contains("key-one"));
    });
}

#[test]
fn connections_are_used_again() {
    run(async {
        let server = ModelServer::start(ReplyScript::always(|_| MockReply::text("x")));
        let models = models(at("openai", &server.url())).unwrap();
        for _ in 0..5 {
            ask(&models, "openai", "m").await;
        }
        assert_eq!(server.connection_count(), 1);
    });
}

#[test]
fn a_kept_connection_that_dies_under_a_request_costs_nothing() {
    run(async {
        let refuse = || MockReply::fault(ReplyFault::Refuse);
        let replies = [MockReply::text("1"), refuse(), MockReply::text("2"), refuse(), MockReply::text("3")];
        let server = ModelServer::start(ReplyScript::from_replies(replies));
        let models = models(at("custom", &server.url())).unwrap();
        ask(&models, "custom", "m").await;
        let second = ask(&models, "custom", "m").await;
        assert_eq!(second.parts, [MessagePart::text("2")], "sent again over a connection of its own");
        let error =
            models.request_reply(request("custom", "m", vec![Message::user("hi")]), &()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "a fresh connection that dies is an error: {error}");
        assert_eq!(server.request_count(), 4);
    });
}

#[test]
fn local_servers_are_known_by_their_own_answer() {
    run(async {
        let settings = ModelServerSettings {
            models: Some(vec!["llama3:8b".to_owned()]),
            ..ModelServerSettings::default()
        };
        let server = ModelServer::start_with(ReplyScript::new(), settings.clone()).unwrap();
        let other =
            ModelServer::start_with(ReplyScript::new(), ModelServerSettings { props: None, ..settings })
                .unwrap();
        let found = models(at("ollama", &server.url())).unwrap().find_local_server("ollama").await.unwrap();
        assert_eq!(found.models, ["llama3:8b"]);
        let found =
            models(at("llama_cpp", &server.url())).unwrap().find_local_server("llama_cpp").await.unwrap();
        assert_eq!(found.window, Some(8192));
        let found = models(at("llama_cpp", &format!("{}/v1", server.url())))
            .unwrap()
            .find_local_server("llama_cpp")
            .await;
        assert!(found.is_some(), "the API version is no part of the probe's path");
        assert_eq!(models(at("llama_cpp", &other.url())).unwrap().find_local_server("llama_cpp").await, None);
        assert_eq!(models(at("openai", &server.url())).unwrap().find_local_server("openai").await, None);
        drop(other);
    });
}

#[test]
fn a_connection_test_says_what_is_wrong() {
    run(async {
        let server = ModelServer::start(ReplyScript::new());
        let test = models(at("openai", &server.url())).unwrap().test_connection("openai", None).await;
        assert!(test.success, "{}", test.message);
        let url = server.url();
        drop(server);
        let test = models(at("openai", &url)).unwrap().test_connection("openai", None).await;
        assert!(!test.success && test.message.contains(&url), "{}", test.message);
    });
}

#[test]
fn the_scripted_provider_answers_by_turn() {
    run(async {
        let script = r#"{"replies": [
            {"text": "Looking.", "tool_calls": [{"id": "c1", "name": "read_file", "arguments": {"path": "a"}}]},
            {"text": "Done.", "usage": {"input": 5, "output": 2}}]}"#;
        let options = ProviderOptions {
            script: Some(ScriptSource::Text(script.to_owned())),
            ..ProviderOptions::with_name("scripted")
        };
        let models = models(options).unwrap();
        let ask = |messages| models.request_reply(request("scripted", "scripted", messages), &());
        let first = ask(vec![Message::user("go")]).await.unwrap();
        assert_eq!(first.finish, FinishReason::ToolCalls);
        assert_eq!(first.tool_calls().next().unwrap().arguments, r#"{"path":"a"}"#);
        assert!(!first.usage.known && first.usage.input > 0);
        let again = ask(vec![Message::user("go")]).await.unwrap();
        assert_eq!(again, first, "a repeated request gets the same answer");
        let said = Message { role: Role::Assistant, parts: first.parts };
        let last = ask(vec![Message::user("go"), said.clone()]).await.unwrap();
        assert_eq!((last.finish, last.usage.output), (FinishReason::Stop, 2));
        let over = ask(vec![Message::user("go"), said.clone(), said]).await.unwrap_err();
        assert!(!over.class().retryable() && over.message.contains("2 replies"), "{over}");
    });
}

#[test]
fn a_script_that_cannot_be_read_is_named() {
    run(async {
        let options = ProviderOptions {
            script: Some(ScriptSource::File("/does/not/exist.json".into())),
            ..ProviderOptions::with_name("scripted")
        };
        let models = models(options).unwrap();
        let error =
            models.request_reply(request("scripted", "x", vec![Message::user("x")]), &()).await.unwrap_err();
        assert!(error.message.contains("/does/not/exist.json"), "{error}");
    });
}
