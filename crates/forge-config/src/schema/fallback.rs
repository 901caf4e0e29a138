//! Entries of `model.fallbacks`: `provider`, `provider:model`, or a table with an organization as well.

use super::kind::{Mismatch, shown};
use super::{KEYS, Raw, nearest};

/// An entry of `model.fallbacks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The provider.
    pub provider: String,
    /// The model; the provider's default if it is left out.
    pub name: Option<String>,
    /// The organization that is charged, if not `model.organization_id`.
    pub organization_id: Option<String>,
}

const ORGANIZATION: &str = " organization_id=";

impl Fallback {
    /// The entry that a text means: `provider[:model][ organization_id=NAME]`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (head, organization_id) = match text.split_once(ORGANIZATION) {
            Some((head, organization)) => (head.trim(), Some(organization.trim().to_owned())),
            None => (text, None),
        };
        let (provider, name) = match head.split_once(':') {
            Some((provider, name)) => (provider, Some(name.to_owned())),
            None => (head, None),
        };
        Self { provider: provider.to_owned(), name, organization_id }.checked()
    }

    fn checked(self) -> Result<Self, String> {
        let word = |text: &str| {
            !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == ',')
        };
        if !word(&self.provider) {
            return Err("an entry without a provider".to_owned());
        }
        for (what, value) in [("model", &self.name), ("organization", &self.organization_id)] {
            if value.as_deref().is_some_and(|value| !word(value)) {
                return Err(format!(
                    "{} with a {what} that is empty or holds white space",
                    shown(&self.provider)
                ));
            }
        }
        Ok(self)
    }

    /// The entry as a text that [`Self::parse`] reads back.
    pub fn text(&self) -> String {
        let mut text = self.provider.clone();
        if let Some(name) = &self.name {
            text = format!("{text}:{name}");
        }
        if let Some(organization) = &self.organization_id {
            text = format!("{text}{ORGANIZATION}{organization}");
        }
        text
    }

    /// The entry as it stands in a file: a text, or a table.
    pub(crate) fn read(raw: &Raw) -> Result<Self, Mismatch> {
        let entry = Self::written(raw).map_err(|found| Mismatch::new(format!("the entry {found}")))?;
        if providers().any(|known| known == entry.provider) {
            return Ok(entry);
        }
        let hint = nearest(&entry.provider, providers()).map_or_else(
            || format!("there are: {}", providers().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        Err(Mismatch::new(format!("the entry {}", shown(&entry.provider))).hint(hint))
    }

    fn written(raw: &Raw) -> Result<Self, String> {
        let fields = match raw {
            Raw::Text(text) => return Self::parse(text),
            Raw::Table(fields) => fields,
            other => return Err(other.shown()),
        };
        let mut entry = Self { provider: String::new(), name: None, organization_id: None };
        for (name, value) in fields {
            let Raw::Text(text) = value else {
                return Err(format!("`{name}` with {}", value.shown()));
            };
            match name.as_str() {
                "provider" => entry.provider.clone_from(text),
                "name" | "model" => entry.name = Some(text.clone()),
                "organization_id" => entry.organization_id = Some(text.clone()),
                _ => {
                    return Err(format!(
                        "the key {} (there are provider, name and organization_id)",
                        shown(name)
                    ));
                }
            }
        }
        entry.checked()
    }
}

/// All providers, in the order of the schema.
fn providers() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    KEYS.iter().filter_map(move |key| {
        let name = key.path.strip_prefix("providers.")?.split('.').next()?;
        let new = name != last;
        last = name;
        new.then_some(name)
    })
}

/// A model with its provider, as it was written.
pub(super) fn model(text: &str) -> Result<String, Mismatch> {
    let (provider, name) = text.split_once('/').unwrap_or((text, ""));
    let plain = !name.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if plain && providers().any(|known| known == provider) {
        return Ok(text.to_owned());
    }
    let near = nearest(provider, providers()).filter(|_| plain);
    let hint = near.map_or_else(
        || "write it as `openai/gpt-4o`".to_owned(),
        |near| format!("did you mean `{near}/{name}`?"),
    );
    Err(Mismatch::new(shown(text)).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_and_written_back() {
        for text in
            ["anthropic", "anthropic:claude-x", "ollama:llama3:8b", "openai:gpt-4o organization_id=org-1"]
        {
            assert_eq!(Fallback::parse(text).unwrap().text(), text);
        }
        assert_eq!(Fallback::parse("ollama:llama3:8b").unwrap().name.as_deref(), Some("llama3:8b"));
        for text in ["", ":x", "a b", "openai:", "openai:a b", "openai organization_id="] {
            Fallback::parse(text).unwrap_err();
        }
    }
}
