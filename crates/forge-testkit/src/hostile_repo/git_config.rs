//! `.git/config`, attributes and hooks of a repository that wants to run something.

use super::canary::Canary;
use super::git_keys::{GIT_KEYS, GitConfigKey, KeyMeaning};
use super::programs::write_executable;
use crate::seeded_rng::SeededRng;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// All that git starts by itself.
const GIT_HOOKS: &[&str] = &[
    "applypatch-msg",
    "commit-msg",
    "fsmonitor-watchman",
    "post-applypatch",
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-merge",
    "post-receive",
    "post-rewrite",
    "post-update",
    "pre-applypatch",
    "pre-auto-gc",
    "pre-commit",
    "pre-merge-commit",
    "pre-push",
    "pre-rebase",
    "pre-receive",
    "prepare-commit-msg",
    "proc-receive",
    "push-to-checkout",
    "reference-transaction",
    "sendemail-validate",
    "update",
];
/// Names of drivers, which the attributes name as well.
const DRIVER_NAME: &str = "x";
/// Values of keys that make git see no repository, and so hide what the others do, come this seldom.
const SHAPE_ONCE_IN: u64 = 4;
/// One configuration in so many belongs to a repository of which objects are missing.
const PROMISE_ONCE_IN: u64 = 6;
/// How many keys there may be: a few, or so many that each is met by what any command does.
const KEY_COUNTS: &[usize] = &[3, 12, 40];

/// Adds keys to the configuration, drawn by `dice`; says which.
pub(super) fn add_keys(repo: &Path, canary: &Canary, dice: &mut SeededRng) -> io::Result<String> {
    let most = *dice.pick(KEY_COUNTS);
    let count = 1 + dice.index(most);
    let mut keys: Vec<&GitConfigKey> = (0..count).map(|_| dice.pick(GIT_KEYS)).collect();
    keys.retain(|key| !matches!(key.3, KeyMeaning::Shape(_)) || dice.one_in(SHAPE_ONCE_IN) || key.0 == "url");
    // What rewrites an address has an effect only together with what the address allows.
    let rewriting: Vec<&GitConfigKey> = GIT_KEYS.iter().filter(|key| key.0 == "url").collect();
    keys.push(*dice.pick(&rewriting));
    if !dice.one_in(4) {
        keys.extend(GIT_KEYS.iter().filter(|key| matches!(key.3, KeyMeaning::Allows(_))));
    }
    let mut text = String::new();
    let mut told = Vec::new();
    for key in keys {
        let (section, subsection, name, means) = *key;
        let subsection = match subsection {
            "*" => DRIVER_NAME.to_owned(),
            "@" => canary.address_value(dice),
            other => other.to_owned(),
        };
        let value = match means {
            KeyMeaning::Program => canary.program_value(dice),
            KeyMeaning::Reads => canary.readable_value(dice),
            KeyMeaning::Writes => canary.writable_value(dice),
            KeyMeaning::Address => canary.address_value(dice),
            KeyMeaning::Allows(value) | KeyMeaning::Shape(value) => value.to_owned(),
        };
        told.push(format!("{section}.{subsection}.{name}={value}"));
        let head =
            if subsection.is_empty() { String::new() } else { format!(" \"{}\"", quote_value(&subsection)) };
        let name = if name.is_empty() { "x" } else { name };
        text.push_str(&format!("[{section}{head}]\n\t{name} = \"{}\"\n", quote_value(&value)));
    }
    if dice.one_in(PROMISE_ONCE_IN) {
        make_partial_clone(repo, &canary.address_value(dice), &mut text)?;
        told.push("objects that another repository promises".to_owned());
    }
    let mut file = OpenOptions::new().append(true).create(true).open(repo.join(".git/config"))?;
    file.write_all(text.as_bytes())?;
    Ok(format!("config {}", told.join(" ")))
}

/// Takes loose objects away and names an address that has them: git asks it when it needs one.
fn make_partial_clone(repo: &Path, address: &str, text: &mut String) -> io::Result<()> {
    for entry in fs::read_dir(repo.join(".git/objects"))? {
        let entry = entry?;
        if entry.file_name().len() == 2 {
            fs::remove_dir_all(entry.path())?;
        }
    }
    text.push_str("[core]\n\trepositoryformatversion = 1\n[extensions]\n\tpartialClone = origin\n");
    text.push_str("[remote \"origin\"]\n\tpromisor = true\n\tpartialclonefilter = blob:none\n");
    text.push_str(&format!("\turl = \"{}\"\n", quote_value(address)));
    Ok(())
}

fn quote_value(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Attributes that name the drivers, and every hook.
pub(super) fn add_attributes_and_hooks(repo: &Path, canary: &Canary) -> io::Result<()> {
    let line = format!("* filter={DRIVER_NAME} diff={DRIVER_NAME} merge={DRIVER_NAME}\n");
    fs::write(repo.join(".gitattributes"), &line)?;
    fs::create_dir_all(repo.join(".git/info"))?;
    fs::write(repo.join(".git/info/attributes"), &line)?;
    for place in [repo.join(".git/hooks"), repo.join("hooks")] {
        fs::create_dir_all(&place)?;
        for hook in GIT_HOOKS {
            write_executable(&place.join(hook), &canary.marker_script(hook))?;
        }
    }
    Ok(())
}
