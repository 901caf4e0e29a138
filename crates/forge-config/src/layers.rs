//! The layers of values, laid over one another from weakest to strongest.

use crate::dotenv::Assignment;
use crate::environment::Dirs;
use crate::fault::{Fault, Notice, NoticeKind, Origin};
use crate::file::Leaf;
use crate::load::{Sources, at_line};
use crate::schema::{self, Context, KEYS, Key, Mismatch, Raw, Reading, Value, nearest, shown};
use crate::trust::Standing;
use std::path::{Path, PathBuf};

/// A value and where it came from.
pub(crate) type Slot = (Option<Value>, Origin);

/// Hints are looked up for so many faults; a hostile file could name many thousand unknown keys.
const HINTED: usize = 100;

/// Variables that are ours and are no keys: tests, tools, and the program's own children.
const RESERVED: [&str; 6] =
    ["FORGE_SOAK", "FORGE_LOG", "FORGE_UPDATE_DOCS", "FORGE_PASSPHRASE", "FORGE_TEST", "FORGE_BENCH"];

/// The keys that belong together: another provider has other models and another address.
const MODEL: [&str; 3] = ["model.provider", "model.name", "model.base_url"];

/// The values so far, with everything that was wrong with them.
pub(crate) struct Layers<'a> {
    sources: &'a Sources,
    dirs: &'a Dirs,
    standing: Standing,
    slots: Vec<Slot>,
    pub(crate) faults: Vec<Fault>,
    notices: Vec<Notice>,
}

impl<'a> Layers<'a> {
    /// The defaults.
    pub(crate) fn new(sources: &'a Sources, dirs: &'a Dirs, standing: Standing, faults: Vec<Fault>) -> Self {
        let slots = KEYS.iter().map(|key| (key.default_value(), Origin::Default)).collect();
        Self { sources, dirs, standing, slots, faults, notices: Vec::new() }
    }

    /// The outcome.
    pub(crate) fn finish(self) -> (Vec<Slot>, Vec<Fault>, Vec<Notice>) {
        (self.slots, self.faults, self.notices)
    }

    /// Lays a file over what is there.
    pub(crate) fn file(&mut self, leaves: &[Leaf], path: &Path, place: fn(PathBuf) -> Origin, gated: bool) {
        let before = self.model();
        self.leaves(leaves, path, place, gated);
        self.settle(&before);
    }

    fn leaves(&mut self, leaves: &[Leaf], path: &Path, place: fn(PathBuf) -> Origin, gated: bool) {
        let base = path.parent().unwrap_or(path);
        let mut set: Vec<(usize, &str)> = Vec::new();
        // Canonical spellings come last, so that they win over other spellings in the same file.
        let canonical = |leaf: &&Leaf| schema::find(&leaf.path).is_some_and(|key| key.path == leaf.path);
        let (own, other): (Vec<_>, Vec<_>) = leaves.iter().partition(canonical);
        for leaf in other.into_iter().chain(own) {
            let origin = at_line(place(path.to_owned()), leaf.line);
            let index = match (schema::position(&leaf.path), &leaf.raw) {
                // `key:` or `section:` with nothing behind it sets nothing.
                (Some(_), Raw::Null) => continue,
                (None, Raw::Null) if schema::is_section(&leaf.path) => continue,
                (Some(index), _) => index,
                (None, _) => {
                    self.unknown(&leaf.path, origin);
                    continue;
                }
            };
            let key = &KEYS[index];
            match key.kind.read(&leaf.raw, self.context(base)) {
                Ok(value) => {
                    if let Some((_, earlier)) = set.iter().find(|(earlier, _)| *earlier == index) {
                        let message =
                            format!("{origin}: {} is used, {earlier} in the same file is not", leaf.path);
                        self.note(NoticeKind::PassedOver, Some(key), message);
                    }
                    set.push((index, &leaf.path));
                    self.put(index, value, origin, gated);
                }
                Err(wrong) => self.mismatch(key, &leaf.path, wrong, origin),
            }
        }
    }

    /// Lays the variables of a `--env` file over what is there.
    pub(crate) fn env_file(&mut self, assigned: &[Assignment], path: &Path, gated: bool) {
        let place = |found: &Assignment| Origin::EnvFile {
            path: path.to_owned(),
            line: found.line,
            variable: found.name.clone(),
        };
        let lookup = |name: &str| {
            let found = assigned.iter().find(|found| found.name == name && !found.value.is_empty())?;
            Some((found.value.clone(), place(found)))
        };
        let before = self.model();
        self.variables(&lookup, gated);
        self.settle(&before);
        let names: Vec<_> = assigned.iter().map(|found| found.name.as_str()).collect();
        self.unknown_variables(&names, &|name| format!("{} in {}", name, path.display()));
    }

    /// Lays the environment over what is there.
    pub(crate) fn environment(&mut self) {
        let env = &self.sources.env;
        let lookup = |name: &str| {
            env.get(name).map(|value| (value.to_owned(), Origin::Env { variable: name.to_owned() }))
        };
        let before = self.model();
        self.variables(&lookup, false);
        self.settle(&before);
        let names: Vec<_> = env.names().collect();
        self.unknown_variables(&names, &|name| format!("{name} in the environment"));
    }

    /// Lays the flags over what is there.
    pub(crate) fn flags(&mut self) {
        let before = self.model();
        for flag in &self.sources.flags {
            let origin = Origin::Flag { name: flag.name.clone() };
            let Some(index) = schema::position(&flag.key) else {
                self.unknown(&flag.key, origin);
                continue;
            };
            match KEYS[index].kind.read_text(&flag.value, self.context(&self.sources.cwd)) {
                Ok(value) => self.slots[index] = (Some(value), origin),
                Err(wrong) => self.mismatch(&KEYS[index], KEYS[index].path, wrong, origin),
            }
        }
        self.settle(&before);
    }

    /// Provider, model and address as they are now.
    fn model(&self) -> [Slot; 3] {
        MODEL.map(|path| schema::position(path).map_or((None, Origin::Default), |at| self.slots[at].clone()))
    }

    /// Drops the model and the address that a weaker layer meant for another provider than the one this layer names.
    ///
    /// Without this, `--provider openai` over a file for a server of one's own would send OpenAI's key there.
    fn settle(&mut self, before: &[Slot; 3]) {
        let after = self.model();
        let [provider, name, base_url] = before;
        // An address without a provider means a server of one's own.
        let implied = base_url.0.as_ref().map(|_| Value::Text("custom".to_owned()));
        let meant = [None, provider.0.clone(), provider.0.clone().or(implied)];
        let Some(Value::Text(now)) = &after[0].0 else { return };
        for (at, slot) in [(1, name), (2, base_url)] {
            let Some(Value::Text(meant)) = &meant[at] else { continue };
            if slot.0.is_none() || after[at].1 != slot.1 || meant == now {
                continue;
            }
            let message = format!(
                "{}: {} is not used: it was meant for {meant}, and {} asks {now}",
                slot.1, MODEL[at], after[0].1
            );
            if let Some(index) = schema::position(MODEL[at]) {
                self.slots[index] = (KEYS[index].default_value(), Origin::Default);
                self.note(NoticeKind::PassedOver, Some(&KEYS[index]), message);
            }
        }
    }

    /// Looks every key up by all its variables; the first that is set and readable counts.
    fn variables(&mut self, lookup: &dyn Fn(&str) -> Option<(String, Origin)>, gated: bool) {
        for (index, key) in KEYS.iter().enumerate() {
            for (name, reading) in key.variables() {
                let Some((text, origin)) = lookup(&name) else { continue };
                match (key.kind.read_text(&text, self.context(&self.sources.cwd)), reading) {
                    (Ok(Value::Bool(value)), Reading::Negated) => {
                        self.put(index, Value::Bool(!value), origin, gated);
                        break;
                    }
                    (Ok(value), _) => {
                        self.put(index, value, origin, gated);
                        break;
                    }
                    (Err(wrong), Reading::Foreign) => {
                        let message = format!(
                            "{origin} does not set {}: expected {}, found {}; another program may use it",
                            key.path,
                            key.kind.expected(),
                            wrong.found
                        );
                        self.note(NoticeKind::PassedOver, Some(key), message);
                    }
                    (Err(wrong), _) => {
                        self.mismatch(key, key.path, wrong, origin);
                        break;
                    }
                }
            }
        }
    }

    /// Sets a value, unless an untrusted repository may not.
    fn put(&mut self, index: usize, value: Value, origin: Origin, gated: bool) {
        let key = &KEYS[index];
        let base = self.slots[index].0.as_ref();
        if gated && base == Some(&value) {
            return;
        }
        if gated && !key.trust.allows(base, &value) {
            let shown = shown(&key.kind.show(&value));
            self.notices.push(refusal(key.path, &origin.to_string(), Some(&shown), self.standing));
            return;
        }
        self.slots[index] = (Some(value), origin);
    }

    fn context<'b>(&'b self, base: &'b Path) -> Context<'b> {
        Context { base, home: self.dirs.home() }
    }

    fn note(&mut self, kind: NoticeKind, key: Option<&Key>, message: String) {
        self.notices.push(Notice { kind, key: key.map(|key| key.path.to_owned()), message });
    }

    fn mismatch(&mut self, key: &Key, written: &str, wrong: Mismatch, origin: Origin) {
        let fault = Fault::new(origin, key.kind.expected(), wrong.found).key(written);
        self.faults.push(fault.maybe_hint(wrong.hint));
    }

    fn unknown(&mut self, path: &str, origin: Origin) {
        let shown = shown(path);
        let fault = match enclosing(path) {
            Some(key) => Fault::new(origin, key.kind.expected(), "a section").key(key.path),
            None => {
                let hint = if self.faults.len() < HINTED { near_key(path) } else { None };
                Fault::new(origin, "a known key", shown).maybe_hint(hint)
            }
        };
        self.faults.push(fault);
    }

    /// Tells of variables that have our prefix and set nothing.
    fn unknown_variables(&mut self, names: &[&str], place: &dyn Fn(&str) -> String) {
        let ours = |name: &&&str| name.starts_with("FORGE_") || name.starts_with("AGENT_FORGE_");
        if !names.iter().any(|name| ours(&name)) {
            return; // the usual case, and start-up should cost nothing
        }
        let known: Vec<String> =
            KEYS.iter().flat_map(|key| key.variables().into_iter().map(|(name, _)| name)).collect();
        for name in names.iter().filter(ours) {
            let reserved = |reserved: &str| {
                name.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            };
            // A name of the user's own choice, as the holder of a key or a variable for commands.
            let named = self.slots.iter().any(|(value, _)| match value {
                Some(Value::Text(text)) => text == name,
                Some(Value::List(items)) => items.iter().any(|item| item == name),
                _ => false,
            });
            let listed = known.iter().any(|known| known == name);
            if named || listed || RESERVED.iter().any(|item| reserved(item)) {
                continue;
            }
            let hint = nearest(name, known.iter().map(String::as_str));
            let hint = hint.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            let message =
                format!("{} sets nothing: there is no such key{hint}", schema::escaped(&place(name)));
            self.note(NoticeKind::UnknownVariable, None, message);
        }
    }
}

/// The notice that a value of an untrusted repository was not applied.
pub(crate) fn refusal(key: &str, place: &str, value: Option<&str>, standing: Standing) -> Notice {
    let what = value.map_or_else(|| key.to_owned(), |value| format!("{key} = {value}"));
    let why = match standing {
        Standing::Changed => "the repository's files have changed since you trusted them",
        _ => "the repository is not trusted",
    };
    let message =
        format!("{place}: {what} has no effect: {why}; look at it and accept it with `forge trust`");
    Notice { kind: NoticeKind::Refused, key: Some(key.to_owned()), message }
}

/// The key that `path` lies below, as in `agent.max_iterations.x`.
fn enclosing(path: &str) -> Option<&'static Key> {
    path.match_indices('.').find_map(|(at, _)| schema::find(&path[..at]))
}

/// A hint at what was meant by an unknown key.
fn near_key(path: &str) -> Option<String> {
    let paths = || KEYS.iter().flat_map(|key| std::iter::once(key.path).chain(key.also.iter().copied()));
    let mean = |name: &str| format!("did you mean `{name}`?");
    if let Some(near) = nearest(path, paths()) {
        return Some(mean(near));
    }
    let sections = schema::sections();
    if let Some(section) = sections.iter().find(|section| **section == path && !section.is_empty()) {
        return Some(format!("`{section}` is a section: write its keys below it"));
    }
    match path.rsplit_once('.') {
        // A key at the top that belongs into a section.
        None => paths().find(|known| known.rsplit('.').next() == Some(path)).map(mean),
        Some((section, name)) if sections.contains(&section) => {
            let names: Vec<_> = KEYS
                .iter()
                .filter(|key| key.section() == section)
                .filter_map(|key| key.path.rsplit('.').next())
                .collect();
            match nearest(name, names.iter().copied()) {
                Some(near) => Some(mean(&format!("{section}.{near}"))),
                None => Some(format!("[{section}] knows {}", names.join(", "))),
            }
        }
        Some((section, _)) => {
            let top = section.split('.').next().unwrap_or(section);
            let tops = sections.iter().map(|section| section.split('.').next().unwrap_or(section));
            let near = nearest(section, sections.iter().copied()).or_else(|| nearest(top, tops));
            near.filter(|near| !near.is_empty()).map(|near| format!("did you mean the section [{near}]?"))
        }
    }
}
