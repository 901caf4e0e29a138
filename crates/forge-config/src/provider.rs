//! Which provider and model a run asks (PROV-3), as far as settings and keys tell.

use crate::load::Loaded;

/// Providers with keys, in the fixed order of automatic choice.
pub const KEYED: [&str; 4] = ["openai", "anthropic", "gemini", "openrouter"];

/// Local servers, in the order in which they are probed when no key is there.
pub const LOCAL: [&str; 2] = ["ollama", "llama_cpp"];

/// What settings and keys say about whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The settings name a provider.
    Named(Candidate),
    /// The first provider that has a key.
    Detected(Candidate),
    /// Nothing is named and no key is there: the first of these local servers that answers.
    Probe(Vec<Candidate>),
}

/// A provider that could be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The provider.
    pub provider: String,
    /// The model; `None` if neither the settings nor the provider name one.
    pub model: Option<String>,
    /// The server, if not the provider's own address.
    pub base_url: Option<String>,
}

impl Loaded {
    /// Whom to ask.
    pub fn provider_choice(&self) -> Choice {
        let model = &self.settings.model;
        if let Some(provider) = &model.provider {
            return Choice::Named(self.candidate(provider));
        }
        if model.base_url.is_some() {
            // An address alone can only mean a server of the user's own; a vendor's key must not go there.
            return Choice::Named(self.candidate("custom"));
        }
        match KEYED.iter().find(|provider| self.secrets.get(provider).is_some()) {
            Some(provider) => Choice::Detected(self.candidate(provider)),
            None => Choice::Probe(LOCAL.iter().map(|provider| self.candidate(provider)).collect()),
        }
    }

    /// A provider with the model and server that the settings give it.
    fn candidate(&self, provider: &str) -> Candidate {
        let own = self.settings.providers.get(provider);
        let model = &self.settings.model;
        Candidate {
            provider: provider.to_owned(),
            model: model.name.clone().or_else(|| own?.default_model.clone()),
            base_url: model.base_url.clone().or_else(|| own?.base_url.clone()),
        }
    }
}
