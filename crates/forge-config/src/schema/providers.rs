//! Keys of the providers: one section for each row of the table of vendors, built at compile time.

use forge_catalog::WireFormat;
use forge_catalog::vendors::{VENDORS, Vendor};

use super::key::{DefaultValue, EnvAlias, SchemaKey};
use super::kind::{ChoiceSpelling, KeyKind};
use super::rows::{api_key_schema, base_url_schema, default_model_schema, env_alias, script_schema};

/// Names of providers with their alternative spellings.
pub(crate) const PROVIDER_KIND: KeyKind = KeyKind::Choice(&PROVIDER_CHOICES);

static PROVIDER_CHOICES: [ChoiceSpelling; VENDORS.len()] = {
    let mut all: [ChoiceSpelling; VENDORS.len()] = [("", &[]); VENDORS.len()];
    let mut at = 0;
    while at < VENDORS.len() {
        all[at] = (VENDORS[at].name, VENDORS[at].other_names);
        at += 1;
    }
    all
};

/// Keys of a provider with replies from a server, without `providers.<name>.`.
const SERVER_KEYS: [&str; 3] = ["api_key_env", "default_model", "base_url"];
/// Keys of a provider with replies from a file.
const SCRIPT_KEYS: [&str; 1] = ["script"];
/// Largest length of a path, and largest number of variables of a key, checked at compile time.
const MAX_PATH_BYTES: usize = 48;
const MAX_ALIASES: usize = 4;

const fn key_names(vendor: &Vendor) -> &'static [&'static str] {
    match vendor.wire_format {
        WireFormat::Scripted => &SCRIPT_KEYS,
        _ => &SERVER_KEYS,
    }
}

/// Number of keys of all providers.
const PROVIDER_KEY_COUNT: usize = {
    let (mut count, mut at) = (0, 0);
    while at < VENDORS.len() {
        count += key_names(&VENDORS[at]).len();
        at += 1;
    }
    count
};

/// The path of a key.
#[derive(Clone, Copy)]
struct KeyPath {
    bytes: [u8; MAX_PATH_BYTES],
    len: usize,
}

impl KeyPath {
    const EMPTY: Self = Self { bytes: [0; MAX_PATH_BYTES], len: 0 };

    const fn with(mut self, text: &str) -> Self {
        let text = text.as_bytes();
        let mut at = 0;
        while at < text.len() {
            self.bytes[self.len] = text[at];
            self.len += 1;
            at += 1;
        }
        self
    }

    const fn as_str(&self) -> &str {
        match str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(path) => path,
            Err(_) => panic!("a path is joined from texts"),
        }
    }
}

static KEY_PATHS: [KeyPath; PROVIDER_KEY_COUNT] = {
    let mut all = [KeyPath::EMPTY; PROVIDER_KEY_COUNT];
    let (mut next, mut at) = (0, 0);
    while at < VENDORS.len() {
        let names = key_names(&VENDORS[at]);
        let mut of = 0;
        while of < names.len() {
            let section = KeyPath::EMPTY.with("providers.").with(VENDORS[at].name);
            all[next] = section.with(".").with(names[of]);
            next += 1;
            of += 1;
        }
        at += 1;
    }
    all
};

/// Variables that hold the address of each provider.
static BASE_URL_ALIASES: [[EnvAlias; MAX_ALIASES]; VENDORS.len()] = {
    let mut all = [[env_alias(""); MAX_ALIASES]; VENDORS.len()];
    let mut at = 0;
    while at < VENDORS.len() {
        let mut of = 0;
        while of < VENDORS[at].base_url_env.len() {
            all[at][of] = env_alias(VENDORS[at].base_url_env[of]);
            of += 1;
        }
        at += 1;
    }
    all
};

const fn text_or_unset(text: Option<&'static str>) -> DefaultValue {
    match text {
        Some(text) => DefaultValue::Text(text),
        None => DefaultValue::Unset,
    }
}

/// Keys of all providers, in the order of the table of vendors.
pub(crate) const PROVIDER_KEYS: &[SchemaKey] = &KEY_TABLE;

static KEY_TABLE: [SchemaKey; PROVIDER_KEY_COUNT] = {
    let mut all = [script_schema(""); PROVIDER_KEY_COUNT];
    let (mut next, mut at) = (0, 0);
    while at < VENDORS.len() {
        let vendor = &VENDORS[at];
        if matches!(vendor.wire_format, WireFormat::Scripted) {
            all[next] = script_schema(KEY_PATHS[next].as_str());
        } else {
            let key_env = if vendor.key_env.is_empty() { None } else { Some(vendor.key_env[0]) };
            let aliases = BASE_URL_ALIASES[at].split_at(vendor.base_url_env.len()).0;
            all[next] = api_key_schema(KEY_PATHS[next].as_str(), text_or_unset(key_env));
            all[next + 1] =
                default_model_schema(KEY_PATHS[next + 1].as_str(), text_or_unset(vendor.default_model));
            all[next + 2] = base_url_schema(KEY_PATHS[next + 2].as_str()).with_env(aliases);
        }
        next += key_names(vendor).len();
        at += 1;
    }
    all
};
