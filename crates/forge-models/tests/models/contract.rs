//! The contract of the port `Model`, run by every vendor in its usual shape and at every native endpoint that its
//! base URL can name.

use forge_models::vendors::VENDORS;
use forge_models::{Key, Models, Options, ProviderOptions, catalog};
use forge_ports::Model;
use forge_testkit::contract::model::Fixture;
use forge_testkit::model_contract;
use forge_testkit::model_server::{ModelServer, Shape};
use forge_types::Route;

/// Where a provider is pointed at.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// Its usual base URL.
    Base,
    /// The full endpoint.
    Endpoint,
}

struct Provider(&'static str, Shape, At, &'static str);

impl Fixture for Provider {
    fn shape(&self) -> Shape {
        self.1
    }

    fn route(&self) -> Route {
        Route { provider: self.0.to_owned(), model: self.3.to_owned() }
    }

    fn address(&self, server: &ModelServer) -> String {
        match self.2 {
            At::Base => server.base_url(self.1),
            At::Endpoint => server.endpoint_url(self.1),
        }
    }

    fn key_header(&self) -> Option<&'static str> {
        match (self.0, self.1) {
            ("ollama" | "llama_cpp", _) => None,
            (_, Shape::Anthropic) => Some("x-api-key"),
            (_, Shape::Gemini) => Some("x-goog-api-key"),
            _ => Some("authorization"),
        }
    }

    fn open(&self, base_url: &str, key: &str) -> Box<dyn Model> {
        let provider = ProviderOptions {
            base_url: Some(base_url.to_owned()),
            key: Some(Key::new(key)),
            ..ProviderOptions::named(self.0)
        };
        Box::new(Models::new(&Options { providers: vec![provider], ..Options::default() }).unwrap())
    }
}

macro_rules! providers {
    ($($module:ident: $name:literal $shape:ident $at:ident $model:literal;)*) => {
        $(model_contract!($module, Provider($name, Shape::$shape, At::$at, $model));)*

        const ALL: &[Provider] = &[$(Provider($name, Shape::$shape, At::$at, $model)),*];
    };
}

providers! {
    openai: "openai" OpenAi Base "gpt-4o";
    openai_responses: "openai" Responses Endpoint "gpt-4o";
    openrouter: "openrouter" OpenAi Base "openai/gpt-4o-mini";
    openrouter_endpoint: "openrouter" OpenAi Endpoint "openai/gpt-4o-mini";
    openrouter_responses: "openrouter" Responses Endpoint "openai/gpt-5";
    anthropic: "anthropic" Anthropic Base "claude-sonnet-4-20250514";
    gemini: "gemini" Gemini Base "gemini-2.5-flash";
    ollama: "ollama" Ollama Base "llama3";
    ollama_generate: "ollama" Generate Endpoint "llama3";
    ollama_openai: "ollama" OpenAi Endpoint "llama3";
    llama_cpp: "llama_cpp" OpenAi Base "default";
    llama_cpp_responses: "llama_cpp" Responses Endpoint "default";
    llama_cpp_messages: "llama_cpp" Anthropic Endpoint "default";
    llama_cpp_completion: "llama_cpp" Completion Endpoint "default";
    custom: "custom" OpenAi Base "some-model";
    custom_responses: "custom" Responses Endpoint "some-model";
    custom_messages: "custom" Anthropic Endpoint "some-model";
    custom_ollama: "custom" Ollama Endpoint "some-model";
    custom_generate: "custom" Generate Endpoint "some-model";
    custom_completion: "custom" Completion Endpoint "some-model";
}

#[test]
fn every_vendor_and_every_endpoint_is_in_the_contract() {
    let server = ModelServer::start(forge_testkit::model_server::Script::new());
    for vendor in VENDORS.iter().filter(|vendor| vendor.shape != forge_models::Shape::Scripted) {
        let mine: Vec<_> = ALL.iter().filter(|provider| provider.0 == vendor.name).collect();
        let spoken: Vec<_> =
            mine.iter().map(|provider| vendor.address(&provider.address(&server)).shape).collect();
        assert!(spoken.contains(&vendor.shape), "{} in its usual shape", vendor.name);
        for shape in vendor.endpoints.iter().filter_map(|endpoint| endpoint.shape) {
            assert!(spoken.contains(&shape), "{} as {shape:?}", vendor.name);
        }
    }
}

#[test]
fn the_table_of_models_is_read() {
    assert!(catalog::catalog().as_of.starts_with("20"));
}
