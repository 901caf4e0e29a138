//! The layers of values, applied from weakest to strongest.

use crate::dotenv::EnvAssignment;
use crate::environment::UserDirs;
use crate::error::{ConfigError, ConfigNotice, NoticeKind, ValueOrigin};
use crate::file::ConfigLeaf;
use crate::schema::{
    self, AliasReading, KEYS, RawSetting, ReadContext, SchemaKey, SettingValue, ValueMismatch, nearest_name,
    quote_safely,
};
use crate::sources::ConfigSources;
use crate::trust_state::TrustState;
use forge_catalog::vendors::OWN_SERVER;
use std::path::{Path, PathBuf};

/// A value and its origin.
pub(crate) type ResolvedValue = (Option<SettingValue>, ValueOrigin);

/// Largest number of errors with a hint; a hostile file could contain many thousands of unknown keys.
const MAX_HINTED_ERRORS: usize = 100;

/// Variables with Forge's prefix that are not keys. Tests, tools and the program's own child processes use them.
const RESERVED_VARIABLES: [&str; 6] =
    ["FORGE_SOAK", "FORGE_LOG", "FORGE_UPDATE_DOCS", "FORGE_PASSPHRASE", "FORGE_TEST", "FORGE_BENCH"];

/// Keys that belong together: another provider has other models and another address.
const MODEL_KEYS: [&str; 3] = ["model.provider", "model.name", "model.base_url"];

/// The values so far, with all their errors.
pub(crate) struct LayeredValues<'a> {
    sources: &'a ConfigSources,
    dirs: &'a UserDirs,
    trust_state: TrustState,
    slots: Vec<ResolvedValue>,
    pub(crate) faults: Vec<ConfigError>,
    notices: Vec<ConfigNotice>,
}

impl<'a> LayeredValues<'a> {
    /// Starts with the defaults.
    pub(crate) fn new(
        sources: &'a ConfigSources,
        dirs: &'a UserDirs,
        trust_state: TrustState,
        faults: Vec<ConfigError>,
    ) -> Self {
        let slots = KEYS.iter().map(|key| (key.default_value(), ValueOrigin::Default)).collect();
        Self { sources, dirs, trust_state, slots, faults, notices: Vec::new() }
    }

    /// Returns the values, errors and notices.
    pub(crate) fn finish(self) -> (Vec<ResolvedValue>, Vec<ConfigError>, Vec<ConfigNotice>) {
        (self.slots, self.faults, self.notices)
    }

    /// Applies a file.
    pub(crate) fn apply_file(
        &mut self,
        leaves: &[ConfigLeaf],
        path: &Path,
        place: fn(PathBuf) -> ValueOrigin,
        gated: bool,
    ) {
        let before = self.current_model();
        self.apply_leaves(leaves, path, place, gated);
        self.drop_stale_model(&before);
    }

    fn apply_leaves(
        &mut self,
        leaves: &[ConfigLeaf],
        path: &Path,
        place: fn(PathBuf) -> ValueOrigin,
        gated: bool,
    ) {
        let base = path.parent().unwrap_or(path);
        let mut set: Vec<(usize, &str)> = Vec::new();
        // Canonical spellings are applied last, so that they override other spellings in the same file.
        let canonical =
            |leaf: &&ConfigLeaf| schema::find_key(&leaf.path).is_some_and(|key| key.path == leaf.path);
        let (own, other): (Vec<_>, Vec<_>) = leaves.iter().partition(canonical);
        for leaf in other.into_iter().chain(own) {
            let origin = place(path.to_owned()).at_line(leaf.line);
            let index = match (schema::key_index(&leaf.path), &leaf.raw) {
                // `key:` or `section:` without a value sets nothing.
                (Some(_), RawSetting::Null) => continue,
                (None, RawSetting::Null) if schema::is_section(&leaf.path) => continue,
                (Some(index), _) => index,
                (None, _) => {
                    self.push_unknown_key(&leaf.path, origin);
                    continue;
                }
            };
            let key = &KEYS[index];
            match key.kind.read_raw(&leaf.raw, self.read_context(base)) {
                Ok(value) => {
                    if let Some((_, earlier)) = set.iter().find(|(earlier, _)| *earlier == index) {
                        let message = format!("{origin}: {} overrides {earlier} in the same file", leaf.path);
                        self.push_notice(NoticeKind::PassedOver, Some(key), message);
                    }
                    set.push((index, &leaf.path));
                    self.set_value(index, value, origin, gated);
                }
                Err(wrong) => self.push_mismatch(key, &leaf.path, wrong, origin),
            }
        }
    }

    /// Applies the variables of a `--env` file.
    pub(crate) fn apply_env_file(&mut self, assigned: &[EnvAssignment], path: &Path, gated: bool) {
        let place = |found: &EnvAssignment| ValueOrigin::EnvFile {
            path: path.to_owned(),
            line: found.line,
            variable: found.name.clone(),
        };
        let lookup = |name: &str| {
            let found = assigned.iter().find(|found| found.name == name && !found.value.is_empty())?;
            Some((found.value.clone(), place(found)))
        };
        let before = self.current_model();
        self.apply_variables(&lookup, gated);
        self.drop_stale_model(&before);
        let names: Vec<_> = assigned.iter().map(|found| found.name.as_str()).collect();
        self.warn_unknown_variables(&names, &|name| format!("{} in {}", name, path.display()));
    }

    /// Applies the environment.
    pub(crate) fn apply_environment(&mut self) {
        let env = &self.sources.env;
        let lookup = |name: &str| {
            env.get(name).map(|value| (value.to_owned(), ValueOrigin::Env { variable: name.to_owned() }))
        };
        let before = self.current_model();
        self.apply_variables(&lookup, false);
        self.drop_stale_model(&before);
        let names: Vec<_> = env.variable_names().collect();
        self.warn_unknown_variables(&names, &|name| format!("{name} in the environment"));
    }

    /// Applies the flags.
    pub(crate) fn apply_flags(&mut self) {
        let before = self.current_model();
        for flag in &self.sources.flags {
            let origin = ValueOrigin::Flag { name: flag.name.clone() };
            let Some(index) = schema::key_index(&flag.key) else {
                self.push_unknown_key(&flag.key, origin);
                continue;
            };
            match KEYS[index].read_flag(&flag.value, &flag.name, self.read_context(&self.sources.cwd)) {
                Ok(value) => self.slots[index] = (Some(value), origin),
                Err(faults) => self.faults.extend(faults.0),
            }
        }
        self.drop_stale_model(&before);
    }

    /// Returns the present provider, model and address.
    fn current_model(&self) -> [ResolvedValue; 3] {
        MODEL_KEYS.map(|path| {
            schema::key_index(path).map_or((None, ValueOrigin::Default), |at| self.slots[at].clone())
        })
    }

    /// Drops a model and an address that a weaker layer set for another provider than this layer's.
    ///
    /// Otherwise `--provider openai`, over a file that configures the user's own server, would send OpenAI's key to
    /// that server.
    fn drop_stale_model(&mut self, before: &[ResolvedValue; 3]) {
        let after = self.current_model();
        let [provider, name, base_url] = before;
        // An address without a provider means the user's own server.
        let implied = base_url.0.as_ref().map(|_| SettingValue::Text(OWN_SERVER.to_owned()));
        let meant = [None, provider.0.clone(), provider.0.clone().or(implied)];
        let Some(SettingValue::Text(now)) = &after[0].0 else { return };
        for (at, slot) in [(1, name), (2, base_url)] {
            let Some(SettingValue::Text(meant)) = &meant[at] else { continue };
            if slot.0.is_none() || after[at].1 != slot.1 || meant == now {
                continue;
            }
            let message = format!(
                "{}: {} is ignored: it is for {meant}, but {} selects {now}",
                slot.1, MODEL_KEYS[at], after[0].1
            );
            if let Some(index) = schema::key_index(MODEL_KEYS[at]) {
                self.slots[index] = (KEYS[index].default_value(), ValueOrigin::Default);
                self.push_notice(NoticeKind::PassedOver, Some(&KEYS[index]), message);
            }
        }
    }

    /// Looks up the variables of every key; the first one that is set and valid is used.
    fn apply_variables(&mut self, lookup: &dyn Fn(&str) -> Option<(String, ValueOrigin)>, gated: bool) {
        for (index, key) in KEYS.iter().enumerate() {
            for (name, reading) in key.variable_names() {
                let Some((text, origin)) = lookup(&name) else { continue };
                match (key.kind.read_text(&text, self.read_context(&self.sources.cwd)), reading) {
                    (Ok(SettingValue::Bool(value)), AliasReading::Negated) => {
                        self.set_value(index, SettingValue::Bool(!value), origin, gated);
                        break;
                    }
                    (Ok(value), _) => {
                        self.set_value(index, value, origin, gated);
                        break;
                    }
                    (Err(wrong), AliasReading::Foreign) => {
                        let message = format!(
                            "{origin} is ignored for {}: expected {}, found {}; it may belong to another program",
                            key.path,
                            key.kind.expected_text(),
                            wrong.found
                        );
                        self.push_notice(NoticeKind::PassedOver, Some(key), message);
                    }
                    (Err(wrong), _) => {
                        self.push_mismatch(key, key.path, wrong, origin);
                        break;
                    }
                }
            }
        }
    }

    /// Sets a value, unless an untrusted repository may not.
    fn set_value(&mut self, index: usize, value: SettingValue, origin: ValueOrigin, gated: bool) {
        let key = &KEYS[index];
        let base = self.slots[index].0.as_ref();
        if gated && base == Some(&value) {
            return;
        }
        if gated && !key.trust.allows(base, &value) {
            let shown = quote_safely(&key.kind.format_value(&value));
            self.notices.push(refusal_notice(key.path, &origin.to_string(), Some(&shown), self.trust_state));
            return;
        }
        self.slots[index] = (Some(value), origin);
    }

    fn read_context<'b>(&'b self, base: &'b Path) -> ReadContext<'b> {
        ReadContext { base, home: self.dirs.home_dir() }
    }

    fn push_notice(&mut self, kind: NoticeKind, key: Option<&SchemaKey>, message: String) {
        self.notices.push(ConfigNotice {
            kind,
            key: key.map(|key| key.path.to_owned()),
            message,
            next_step: None,
        });
    }

    fn push_mismatch(&mut self, key: &SchemaKey, written: &str, wrong: ValueMismatch, origin: ValueOrigin) {
        let fault = ConfigError::new(origin, key.kind.expected_text(), wrong.found).with_key(written);
        self.faults.push(fault.with_optional_hint(wrong.hint));
    }

    fn push_unknown_key(&mut self, path: &str, origin: ValueOrigin) {
        let shown = quote_safely(path);
        let fault = match enclosing_key(path) {
            Some(key) => ConfigError::new(origin, key.kind.expected_text(), "a section").with_key(key.path),
            None => {
                let hint = if self.faults.len() < MAX_HINTED_ERRORS { unknown_key_hint(path) } else { None };
                ConfigError::new(origin, "a known key", shown).with_optional_hint(hint)
            }
        };
        self.faults.push(fault);
    }

    /// Reports variables that have Forge's prefix and set nothing.
    fn warn_unknown_variables(&mut self, names: &[&str], place: &dyn Fn(&str) -> String) {
        let ours = |name: &&&str| name.starts_with("FORGE_") || name.starts_with("AGENT_FORGE_");
        if !names.iter().any(|name| ours(&name)) {
            return; // the usual case, kept cheap because every start passes here
        }
        let known: Vec<String> =
            KEYS.iter().flat_map(|key| key.variable_names().into_iter().map(|(name, _)| name)).collect();
        for name in names.iter().filter(ours) {
            let reserved = |reserved: &str| {
                name.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            };
            // A name chosen by the user, such as a variable for an API key or for commands.
            let named = self.slots.iter().any(|(value, _)| match value {
                Some(SettingValue::Text(text)) => text == name,
                Some(SettingValue::List(items)) => items.iter().any(|item| item == name),
                _ => false,
            });
            let listed = known.iter().any(|known| known == name);
            if named || listed || RESERVED_VARIABLES.iter().any(|item| reserved(item)) {
                continue;
            }
            let hint = nearest_name(name, known.iter().map(String::as_str));
            let hint = hint.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            let message = format!("{} is ignored: unknown key{hint}", schema::escape_controls(&place(name)));
            self.push_notice(NoticeKind::UnknownVariable, None, message);
        }
    }
}

/// Returns the notice that a value of an untrusted repository was not applied.
pub(crate) fn refusal_notice(
    key: &str,
    place: &str,
    value: Option<&str>,
    standing: TrustState,
) -> ConfigNotice {
    let what = value.map_or_else(|| key.to_owned(), |value| format!("{key} = {value}"));
    let why = match standing {
        TrustState::Changed => "the repository's files have changed since you trusted them",
        _ => "the repository is not trusted",
    };
    let message = format!("{place}: {what} has no effect: {why}; review and accept it");
    ConfigNotice {
        kind: NoticeKind::Refused,
        key: Some(key.to_owned()),
        message,
        next_step: Some(forge_types::NextStep::Trust { file: None }),
    }
}

/// Returns the key that `path` lies below, as in `agent.max_iterations.x`.
fn enclosing_key(path: &str) -> Option<&'static SchemaKey> {
    path.match_indices('.').find_map(|(at, _)| schema::find_key(&path[..at]))
}

/// Suggests the intended key for an unknown one.
fn unknown_key_hint(path: &str) -> Option<String> {
    let paths =
        || KEYS.iter().flat_map(|key| std::iter::once(key.path).chain(key.other_paths.iter().copied()));
    let mean = |name: &str| format!("did you mean `{name}`?");
    if let Some(near) = nearest_name(path, paths()) {
        return Some(mean(near));
    }
    let sections = schema::section_names();
    if let Some(section) = sections.iter().find(|section| **section == path && !section.is_empty()) {
        return Some(format!("`{section}` is a section: put its keys below it"));
    }
    match path.rsplit_once('.') {
        // A top-level key that belongs in a section.
        None => paths().find(|known| known.rsplit('.').next() == Some(path)).map(mean),
        Some((section, name)) if sections.contains(&section) => {
            let names: Vec<_> = KEYS
                .iter()
                .filter(|key| key.section_name() == section)
                .filter_map(|key| key.path.rsplit('.').next())
                .collect();
            match nearest_name(name, names.iter().copied()) {
                Some(near) => Some(mean(&format!("{section}.{near}"))),
                None => Some(format!("[{section}] has the keys {}", names.join(", "))),
            }
        }
        Some((section, _)) => {
            let top = section.split('.').next().unwrap_or(section);
            let tops = sections.iter().map(|section| section.split('.').next().unwrap_or(section));
            let near = nearest_name(section, sections.iter().copied()).or_else(|| nearest_name(top, tops));
            near.filter(|near| !near.is_empty()).map(|near| format!("did you mean the section [{near}]?"))
        }
    }
}
