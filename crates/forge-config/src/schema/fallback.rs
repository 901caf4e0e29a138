//! Entries of `model.fallbacks`: `provider`, `provider:model`, or a table that may name an organization too.

use forge_catalog::vendors::vendor_names;

use super::nearest_name::nearest_name;
use super::value::{RawSetting, ValueMismatch, quote_safely};

/// An entry of `model.fallbacks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackEntry {
    /// Name of the provider.
    pub provider: String,
    /// Name of the model; `None` means the provider's default.
    pub name: Option<String>,
    /// Organization that is billed in place of `model.organization_id`.
    pub organization_id: Option<String>,
}

const ORGANIZATION_PREFIX: &str = " organization_id=";

impl FallbackEntry {
    /// Parses an entry of the form `provider[:model][ organization_id=NAME]`.
    ///
    /// # Errors
    /// A description of the error.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (head, organization_id) = match text.split_once(ORGANIZATION_PREFIX) {
            Some((head, organization)) => (head.trim(), Some(organization.trim().to_owned())),
            None => (text, None),
        };
        let (provider, name) = match head.split_once(':') {
            Some((provider, name)) => (provider, Some(name.to_owned())),
            None => (head, None),
        };
        Self { provider: provider.to_owned(), name, organization_id }.into_checked()
    }

    fn into_checked(self) -> Result<Self, String> {
        let word = |text: &str| {
            !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == ',')
        };
        if !word(&self.provider) {
            return Err("its provider is missing".to_owned());
        }
        for (what, value) in [("model", &self.name), ("organization", &self.organization_id)] {
            if value.as_deref().is_some_and(|value| !word(value)) {
                return Err(format!(
                    "the {what} of {} is empty or contains white space",
                    quote_safely(&self.provider)
                ));
            }
        }
        Ok(self)
    }

    /// Returns the entry as a text that [`Self::parse`] reads back.
    pub fn to_text(&self) -> String {
        let mut text = self.provider.clone();
        if let Some(name) = &self.name {
            text = format!("{text}:{name}");
        }
        if let Some(organization) = &self.organization_id {
            text = format!("{text}{ORGANIZATION_PREFIX}{organization}");
        }
        text
    }

    /// Reads an entry from a file, where it is a text or a table.
    pub(crate) fn read_raw(raw: &RawSetting) -> Result<Self, ValueMismatch> {
        let entry =
            Self::parse_raw(raw).map_err(|found| ValueMismatch::new(format!("an invalid entry: {found}")))?;
        if vendor_names().any(|known| known == entry.provider) {
            return Ok(entry);
        }
        let hint = nearest_name(&entry.provider, vendor_names()).map_or_else(
            || format!("known providers: {}", vendor_names().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        Err(ValueMismatch::new(format!("the unknown provider {}", quote_safely(&entry.provider)))
            .with_hint(hint))
    }

    fn parse_raw(raw: &RawSetting) -> Result<Self, String> {
        let fields = match raw {
            RawSetting::Text(text) => return Self::parse(text),
            RawSetting::Table(fields) => fields,
            other => return Err(other.describe()),
        };
        let mut entry = Self { provider: String::new(), name: None, organization_id: None };
        for (name, value) in fields {
            let RawSetting::Text(text) = value else {
                return Err(format!("`{name}` is {}", value.describe()));
            };
            match name.as_str() {
                "provider" => entry.provider.clone_from(text),
                "name" | "model" => entry.name = Some(text.clone()),
                "organization_id" => entry.organization_id = Some(text.clone()),
                _ => {
                    return Err(format!(
                        "unknown key {} (valid keys: provider, name, organization_id)",
                        quote_safely(name)
                    ));
                }
            }
        }
        entry.into_checked()
    }
}

/// Checks a model with its provider and returns it as written.
pub(super) fn parse_model(text: &str) -> Result<String, ValueMismatch> {
    let (provider, name) = text.split_once('/').unwrap_or((text, ""));
    let plain = !name.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if plain && vendor_names().any(|known| known == provider) {
        return Ok(text.to_owned());
    }
    let near = nearest_name(provider, vendor_names()).filter(|_| plain);
    let hint = near.map_or_else(
        || "write it as `openai/gpt-4o`".to_owned(),
        |near| format!("did you mean `{near}/{name}`?"),
    );
    Err(ValueMismatch::new(quote_safely(text)).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_and_written_back() {
        for text in
            ["anthropic", "anthropic:claude-x", "ollama:llama3:8b", "openai:gpt-4o organization_id=org-1"]
        {
            assert_eq!(FallbackEntry::parse(text).unwrap().to_text(), text);
        }
        assert_eq!(FallbackEntry::parse("ollama:llama3:8b").unwrap().name.as_deref(), Some("llama3:8b"));
        for text in ["", ":x", "a b", "openai:", "openai:a b", "openai organization_id="] {
            FallbackEntry::parse(text).unwrap_err();
        }
    }
}
