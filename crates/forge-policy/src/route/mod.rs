//! Which provider and model a run asks (PROV-3).

use forge_types::Route;

/// What is known of a provider when one is chosen. Candidates stand in the fixed order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub provider: String,
    /// Whether its key is there (or it needs none and its server answered).
    pub usable: bool,
    /// The model used if none is named.
    pub default_model: Option<String>,
    /// What makes it usable, such as the name of its key's variable; empty if it is never chosen by itself.
    pub hint: String,
}

/// What the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The provider, if one was named.
    pub provider: Option<String>,
    /// The model, if one was named; may hold its provider as `provider/model`.
    pub model: Option<String>,
}

/// Why no model was chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The named provider does not exist.
    #[error("there is no provider `{name}` (there are: {})", known.join(", "))]
    UnknownProvider {
        /// The name.
        name: String,
        /// Those that exist.
        known: Vec<String>,
    },
    /// The provider has no model by default.
    #[error("provider {provider} has no default model: name one with --model")]
    NoModel {
        /// The provider.
        provider: String,
    },
    /// Nothing is configured and nothing was found.
    #[error(
        "no model provider is configured. Any of these gives one: {}; or name one with --provider",
        hints.join(", ")
    )]
    Nothing {
        /// What gives one.
        hints: Vec<String>,
    },
}

/// Chooses: what the user named, else the first usable provider in the fixed order.
///
/// # Errors
/// [`Error`] says what is missing.
pub fn choose(wish: &Wish, candidates: &[Candidate]) -> Result<Route, Error> {
    let find = |name: &str| candidates.iter().find(|c| c.provider == name);
    let (provider, model) = split(wish, candidates);
    let candidate = match &provider {
        Some(name) => find(name).ok_or_else(|| Error::UnknownProvider {
            name: name.clone(),
            known: candidates.iter().map(|c| c.provider.clone()).collect(),
        })?,
        None => candidates
            .iter()
            .find(|candidate| candidate.usable)
            .ok_or_else(|| Error::Nothing { hints: hints(candidates) })?,
    };
    let model = model
        .or_else(|| candidate.default_model.clone())
        .ok_or_else(|| Error::NoModel { provider: candidate.provider.clone() })?;
    Ok(Route { provider: candidate.provider.clone(), model })
}

fn hints(candidates: &[Candidate]) -> Vec<String> {
    candidates.iter().map(|c| c.hint.clone()).filter(|hint| !hint.is_empty()).collect()
}

/// `--model anthropic/claude…` names the provider too, unless a provider was named: OpenRouter's models hold a
/// slash of their own.
fn split(wish: &Wish, candidates: &[Candidate]) -> (Option<String>, Option<String>) {
    if let (None, Some(model)) = (&wish.provider, &wish.model)
        && let Some((provider, rest)) = model.split_once('/')
        && candidates.iter().any(|c| c.provider == provider)
    {
        return (Some(provider.to_owned()), Some(rest.to_owned()));
    }
    (wish.provider.clone(), wish.model.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(usable: &[&str]) -> Vec<Candidate> {
        ["openai", "anthropic", "gemini", "openrouter", "ollama", "llama_cpp", "custom"]
            .iter()
            .map(|name| Candidate {
                provider: (*name).into(),
                usable: usable.contains(name),
                default_model: (*name != "custom").then(|| format!("{name}-model")),
                hint: format!("{name} key"),
            })
            .collect()
    }

    fn check(provider: &str, model: &str, usable: &[&str], expected: &str) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let wish = Wish { provider: some(provider), model: some(model) };
        let got = match choose(&wish, &candidates(usable)) {
            Ok(route) => route.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(got.starts_with(expected), "{got}");
    }

    #[test]
    fn the_order_is_fixed_and_names_win() {
        check("", "", &["gemini", "openrouter", "ollama"], "gemini/gemini-model");
        check("", "", &["ollama", "llama_cpp"], "ollama/ollama-model");
        check("", "", &["anthropic", "openai"], "openai/openai-model");
        check("ollama", "", &["openai"], "ollama/ollama-model");
        check("", "anthropic/claude-x", &["openai"], "anthropic/claude-x");
        check("openrouter", "anthropic/claude-x", &["openai"], "openrouter/anthropic/claude-x");
        check("", "gpt-x", &["openai"], "openai/gpt-x");
        check("custom", "", &[], "provider custom has no default model");
        check("nope", "", &[], "there is no provider `nope`");
        check("", "", &[], "no model provider is configured");
    }
}
