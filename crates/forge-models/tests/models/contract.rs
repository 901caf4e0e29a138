//! The contract of the port `Model`, run by every vendor in its usual shape and at every native endpoint that its
//! base URL can name.

use crate::set_up;
use forge_catalog::WireFormat;
use forge_catalog::vendors::VENDORS;
use forge_models::{ApiKey, Options, ProviderOptions};
use forge_ports::Model;
use forge_testkit::contract::model::Fixture;
use forge_testkit::model_contract;
use forge_testkit::model_server::{ModelServer, VendorFormat};
use forge_types::ModelRoute;

/// Where a provider is pointed at.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// Its usual base URL.
    Base,
    /// The full endpoint.
    Endpoint,
}

struct Provider(&'static str, VendorFormat, At, &'static str);

impl Fixture for Provider {
    fn vendor_format(&self) -> VendorFormat {
        self.1
    }

    fn route(&self) -> ModelRoute {
        ModelRoute { provider: self.0.to_owned(), model: self.3.to_owned() }
    }

    fn server_base_url(&self, server: &ModelServer) -> String {
        match self.2 {
            At::Base => server.base_url(self.1),
            At::Endpoint => server.endpoint_url(self.1),
        }
    }

    fn key_header(&self) -> Option<&'static str> {
        match (self.0, self.1) {
            ("ollama" | "llama_cpp", _) => None,
            (_, VendorFormat::Anthropic) => Some("x-api-key"),
            (_, VendorFormat::Gemini) => Some("x-goog-api-key"),
            _ => Some("authorization"),
        }
    }

    fn open(&self, base_url: &str, key: &str) -> Box<dyn Model> {
        let provider = ProviderOptions {
            base_url: Some(base_url.to_owned()),
            key: Some(ApiKey::new(key)),
            ..ProviderOptions::with_name(self.0)
        };
        Box::new(set_up(&Options { providers: vec![provider], ..Options::default() }))
    }
}

macro_rules! providers {
    ($($module:ident: $name:literal $shape:ident $at:ident $model:literal;)*) => {
        $(model_contract!($module, Provider($name, VendorFormat::$shape, At::$at, $model));)*

        const ALL: &[Provider] = &[$(Provider($name, VendorFormat::$shape, At::$at, $model)),*];
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
    let server = ModelServer::start(forge_testkit::model_server::ReplyScript::new());
    for vendor in VENDORS.iter().filter(|vendor| vendor.wire_format != WireFormat::Scripted) {
        let mine: Vec<_> = ALL.iter().filter(|provider| provider.0 == vendor.name).collect();
        let spoken: Vec<_> = mine
            .iter()
            .map(|provider| vendor.parse_address(&provider.server_base_url(&server)).wire_format)
            .collect();
        assert!(spoken.contains(&vendor.wire_format), "{} in its usual wire format", vendor.name);
        for format in vendor.endpoints.iter().filter_map(|endpoint| endpoint.wire_format) {
            assert!(spoken.contains(&format), "{} as {format:?}", vendor.name);
        }
    }
}
