//! What belongs to single endpoints and vendors: organizations, vectors, templates and slots, encrypted reasoning,
//! endless answers, connection tests.

use std::time::Duration;

use crate::set_up;
use forge_models::{ApiKey, ModelProviders, Options, ProviderOptions, ReplyLimits};
use forge_ports::{Embedder, Model};
use forge_testkit::contract::model::run;
use forge_testkit::model_server::{
    MockReply, ModelServer, ModelServerSettings, ReplyFault, ReplyScript, TemplateMode, VendorFormat,
};
use forge_types::{
    EmbedRequest, ErrorKind, JsonFormat, Message, MessagePart, ModelRequest, ModelRoute, ModelSettings,
    OnSchemaMismatch, ReplyFormat, Role,
};

fn at(name: &str, url: &str) -> ProviderOptions {
    ProviderOptions {
        base_url: Some(url.to_owned()),
        key: Some(ApiKey::new("k")),
        organization: Some("org-set".to_owned()),
        ..ProviderOptions::with_name(name)
    }
}

fn models(provider: ProviderOptions) -> ModelProviders {
    set_up(&Options { providers: vec![provider], ..Options::default() })
}

fn route(provider: &str, model: &str) -> ModelRoute {
    ModelRoute { provider: provider.to_owned(), model: model.to_owned() }
}

fn request(provider: &str, model: &str, messages: Vec<Message>) -> ModelRequest {
    ModelRequest {
        route: route(provider, model),
        system: "Be brief.".to_owned(),
        messages: messages.into_iter().map(std::sync::Arc::new).collect(),
        tools: Vec::new(),
        settings: ModelSettings { max_tokens: None, temperature: None, top_p: None, timeout_ms: 20_000 },
        format: ReplyFormat::Text,
        organization: None,
    }
}

fn texts(provider: &str, model: &str) -> EmbedRequest {
    EmbedRequest {
        route: route(provider, model),
        texts: vec!["ab".to_owned(), "abcd".to_owned()],
        organization: None,
        timeout_ms: 20_000,
    }
}

#[test]
fn the_organization_is_named_in_every_request_to_the_vendor_that_has_one() {
    run(async {
        let server = ModelServer::start(ReplyScript::always(|_| MockReply::text("x")));
        let hi = || vec![Message::user("hi")];
        let ask = async |provider: ProviderOptions, organization: Option<&str>| {
            let name = provider.name.clone();
            let models = models(provider);
            let mut request = request(&name, "m", hi());
            request.organization = organization.map(str::to_owned);
            models.request_reply(request, &()).await.unwrap();
        };
        ask(at("openai", &server.base_url(VendorFormat::OpenAi)), None).await;
        ask(at("openai", &server.endpoint_url(VendorFormat::Responses)), None).await;
        ask(at("openai", &server.base_url(VendorFormat::OpenAi)), Some("org-own")).await;
        ask(at("custom", &server.base_url(VendorFormat::OpenAi)), Some("org-own")).await;
        let openai = models(at("openai", &server.base_url(VendorFormat::OpenAi)));
        openai.embed(texts("openai", "text-embedding-3-small")).await.unwrap();
        assert!(openai.test_connection("openai", None).await.success);
        let named: Vec<_> = server
            .recorded_requests()
            .iter()
            .map(|request| request.header("openai-organization").map(str::to_owned))
            .collect();
        let named: Vec<_> = named.iter().map(Option::as_deref).collect();
        let set = Some("org-set");
        assert_eq!(named, [set, set, Some("org-own"), None, set, set]);
    });
}

#[test]
fn texts_become_vectors_in_their_order() {
    run(async {
        let server = ModelServer::start_with(
            ReplyScript::new(),
            ModelServerSettings { key: Some("k".to_owned()), ..ModelServerSettings::default() },
        )
        .unwrap();
        let open = ModelServer::start(ReplyScript::new());
        for (name, url, known) in [
            ("openai", server.base_url(VendorFormat::OpenAi), true),
            ("openai", server.endpoint_url(VendorFormat::Responses), true),
            ("openrouter", server.base_url(VendorFormat::OpenAi), true),
            ("custom", server.base_url(VendorFormat::OpenAi), true),
            ("gemini", server.url(), false),
            ("ollama", open.url(), true),
            ("ollama", open.endpoint_url(VendorFormat::Generate), true),
            ("llama_cpp", open.url(), true),
            ("llama_cpp", open.endpoint_url(VendorFormat::Completion), true),
        ] {
            let models = models(at(name, &url));
            let found =
                models.embed(texts(name, "m")).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(found.vectors, [[2.0, 0.195, 97.0], [4.0, 0.394, 97.0]], "{name}");
            assert_eq!(found.usage.known, known, "{name}");
            assert!(found.usage.input >= 2 && found.usage.output == 0, "{name}");
        }
    });
}

#[test]
fn what_can_not_be_turned_into_vectors_is_said() {
    run(async {
        let server = ModelServer::start_with(
            ReplyScript::new(),
            ModelServerSettings { key: Some("other".to_owned()), ..ModelServerSettings::default() },
        )
        .unwrap();
        let anthropic = models(at("anthropic", &server.url()));
        let error = anthropic.embed(texts("anthropic", "m")).await.unwrap_err();
        assert!(
            error.kind == ErrorKind::Format && error.message.contains("does not support embeddings"),
            "{error}"
        );
        let openai = models(at("openai", &server.base_url(VendorFormat::OpenAi)));
        let error = openai.embed(texts("openai", "m")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Auth, "{error}");
        let nothing = EmbedRequest { texts: Vec::new(), ..texts("openai", "m") };
        assert_eq!(openai.embed(nothing).await.unwrap_err().kind, ErrorKind::Format);
    });
}

#[test]
fn the_servers_own_template_makes_the_prompt_and_a_conversation_keeps_its_slot() {
    run(async {
        let server = ModelServer::start(ReplyScript::always(|_| MockReply::text("yes")));
        let models = models(at("llama_cpp", &server.endpoint_url(VendorFormat::Completion)));
        let mut messages = vec![Message::user("hi")];
        let first = models.request_reply(request("llama_cpp", "m", messages.clone()), &()).await.unwrap();
        messages.push(Message { role: Role::Assistant, parts: first.parts });
        messages.push(Message::user("and?"));
        models.request_reply(request("llama_cpp", "m", messages), &()).await.unwrap();
        models.request_reply(request("llama_cpp", "m", vec![Message::user("another")]), &()).await.unwrap();
        let calls = server.model_calls();
        let body = |at: usize| &calls[at].http.json;
        assert!(body(0)["prompt"].as_str().unwrap().starts_with("<|im_start|>system\nBe brief.<|im_end|>"));
        assert_eq!((&body(0)["cache_prompt"], &body(0)["n_predict"]), (&true.into(), &512.into()));
        assert!(body(0)["id_slot"].is_null());
        assert_eq!(body(1)["id_slot"], 0);
        assert!(body(2)["id_slot"].is_null(), "another conversation may have another slot");
    });
}

#[test]
fn a_server_without_templates_gets_plain_headings() {
    run(async {
        let settings =
            ModelServerSettings { template: TemplateMode::Missing, ..ModelServerSettings::default() };
        let server =
            ModelServer::start_with(ReplyScript::from_replies([MockReply::text("yes")]), settings).unwrap();
        let models = models(at("llama_cpp", &server.endpoint_url(VendorFormat::Completion)));
        let reply =
            models.request_reply(request("llama_cpp", "m", vec![Message::user("hi")]), &()).await.unwrap();
        assert_eq!(reply.parts, [MessagePart::text("yes")]);
        let body = &server.model_calls()[0].http.json;
        assert_eq!(body["prompt"], "### System:\nBe brief.\n\n### User:\nhi\n\n### Assistant:\n");
        assert_eq!(body["stop"][0], "\n\n### User:");
    });
}

#[test]
fn only_models_that_reason_are_asked_for_their_encrypted_reasoning() {
    run(async {
        let server = ModelServer::start(ReplyScript::always(|_| MockReply::text("x")));
        let models = models(at("openai", &server.endpoint_url(VendorFormat::Responses)));
        for model in ["gpt-5.2-2025-12-11", "gpt-4o"] {
            models.request_reply(request("openai", model, vec![Message::user("hi")]), &()).await.unwrap();
        }
        let calls = server.model_calls();
        assert_eq!(calls[0].http.json["include"][0], "reasoning.encrypted_content");
        assert!(calls[1].http.json["include"].is_null());
        assert!(calls.iter().all(|call| call.http.json["store"] == false));
        assert_eq!(calls[0].http.json["instructions"], "Be brief.");
    });
}

#[test]
fn an_answer_without_end_is_no_answer() {
    run(async {
        for (name, shape) in [
            ("custom", VendorFormat::OpenAi),
            ("custom", VendorFormat::Ollama),
            ("custom", VendorFormat::Completion),
        ] {
            for limits in [
                ReplyLimits { largest: 1 << 20, ..ReplyLimits::default() },
                ReplyLimits { longest: Duration::from_millis(80), largest: u64::MAX },
            ] {
                let server = ModelServer::start(ReplyScript::from_replies([
                    MockReply::text("on and on").with_fault(ReplyFault::Endless)
                ]));
                let providers = vec![at(name, &server.endpoint_url(shape))];
                let models = set_up(&Options { providers, limits, ..Options::default() });
                let error = models
                    .request_reply(request(name, "m", vec![Message::user("hi")]), &())
                    .await
                    .unwrap_err();
                assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
                assert!(
                    error.message.contains("exceeded the limit") && error.message.contains("max_tokens"),
                    "{error}"
                );
            }
        }
    });
}

#[test]
fn marks_for_the_cache_move_with_the_conversation() {
    run(async {
        let server = ModelServer::start(ReplyScript::always(|_| MockReply::text("x")));
        let models = models(at("anthropic", &server.url()));
        let said = || Message::assistant("said");
        let talk = vec![Message::user("1"), said(), Message::user("2"), said(), Message::user("3")];
        models.request_reply(request("anthropic", "claude-sonnet-4", talk), &()).await.unwrap();
        let body = server.model_calls().remove(0).http.json;
        let marked = |at: usize| !body["messages"][at]["content"][0]["cache_control"].is_null();
        assert_eq!(body["system"][0]["cache_control"]["type"], "ephemeral");
        assert_eq!([0, 1, 2, 3, 4].map(marked), [false, false, true, false, true]);
    });
}

#[test]
fn a_connection_test_lists_the_models() {
    run(async {
        let settings = ModelServerSettings {
            models: Some(vec!["a".to_owned(), "b".to_owned()]),
            ..ModelServerSettings::default()
        };
        let server = ModelServer::start_with(ReplyScript::new(), settings).unwrap();
        let models = models(at("custom", &server.base_url(VendorFormat::OpenAi)));
        assert!(models.test_connection("custom", None).await.success);
        assert_eq!(server.request_count(), 1);
        let has = models.test_connection("custom", Some("b")).await;
        assert!(has.success && has.message.contains("`b`"), "{}", has.message);
        let lacks = models.test_connection("custom", Some("c")).await;
        assert!(!lacks.success && lacks.message.contains("a, b"), "{}", lacks.message);
        assert!(!models.test_connection("nobody", None).await.success);
    });
}

#[test]
fn a_grammar_of_the_callers_own_goes_before_the_schema() {
    run(async {
        let server = ModelServer::start(ReplyScript::always(|_| MockReply::text("{}")));
        for shape in [VendorFormat::OpenAi, VendorFormat::Responses, VendorFormat::Completion] {
            let models = models(at("llama_cpp", &server.endpoint_url(shape)));
            for grammar in [Some("root ::= \"{}\"".to_owned()), None] {
                let mut request = request("llama_cpp", "m", vec![Message::user("hi")]);
                let schema = serde_json::json!({"type": "object"});
                let name = "thing".to_owned();
                let form =
                    JsonFormat { name, schema, grammar: grammar.clone(), unfit: OnSchemaMismatch::Refuse };
                request.format = ReplyFormat::Json(form);
                models.request_reply(request, &()).await.unwrap();
                let body = server.model_calls().pop().unwrap().http.json;
                assert_eq!(body["grammar"].as_str(), grammar.as_deref(), "{shape:?}");
                let by_schema = !body["json_schema"].is_null() || !body["response_format"].is_null();
                assert_eq!(by_schema, grammar.is_none(), "{shape:?}");
            }
        }
    });
}
