//! The contract of the port `Model`, run by all four wire shapes.

use forge_models::{Key, Models, Options, ProviderOptions, catalog};
use forge_ports::Model;
use forge_testkit::contract::model::Fixture;
use forge_testkit::model_contract;
use forge_testkit::model_server::Shape;
use forge_types::Route;

struct Provider(&'static str, Shape, &'static str);

impl Fixture for Provider {
    fn shape(&self) -> Shape {
        self.1
    }

    fn route(&self) -> Route {
        Route { provider: self.0.to_owned(), model: self.2.to_owned() }
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

model_contract!(openai, Provider("openai", Shape::OpenAi, "gpt-4o"));
model_contract!(openrouter, Provider("openrouter", Shape::OpenAi, "openai/gpt-4o-mini"));
model_contract!(anthropic, Provider("anthropic", Shape::Anthropic, "claude-sonnet-4-20250514"));
model_contract!(gemini, Provider("gemini", Shape::Gemini, "gemini-2.5-flash"));
model_contract!(ollama, Provider("ollama", Shape::Ollama, "llama3"));

#[test]
fn the_table_of_models_is_read() {
    assert!(catalog::catalog().as_of.starts_with("20"));
}
