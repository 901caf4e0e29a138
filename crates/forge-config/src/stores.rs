//! The encrypted stores of secrets: their location, which of them are used, and what is taken from them.
//!
//! This module decrypts nothing: the caller passes in the content of a store ([`ResolvedConfig::add_store_values`]).
//!
//! A repository's store is used only if the user created it or opened it once with `forge secret … --local`
//! ([`adopt_store`]). For a store that came with a clone, Forge does not even ask for a passphrase (SEC-11). Its author
//! can't know the user's passphrase and so can't forge content, but could otherwise stop every run or make it prompt
//! for a passphrase.

pub use crate::adoption::{adopt_store, is_adopted};
use crate::environment::UserDirs;
use crate::error::{ConfigNotice, NoticeKind};
use crate::resolved::ResolvedConfig;
use crate::secrets::{self, SecretOrigin, SecretValue};
use forge_types::{Digest, NextStep};
use std::path::{Path, PathBuf};

/// Name of the file in both directories.
const STORE_FILE: &str = "secrets.enc";

/// Variable that holds the passphrase.
pub const PASSPHRASE_VAR: &str = "FORGE_PASSPHRASE";

/// Returns the path of the user's own store.
pub fn user_store(dirs: &UserDirs) -> PathBuf {
    dirs.data.join(STORE_FILE)
}

/// Returns the path of a repository's store.
pub fn project_store(repo: &Path) -> PathBuf {
    // Displayed to users, so without `.` components.
    repo.components().collect::<PathBuf>().join(".forge").join(STORE_FILE)
}

/// Returns the lock file that serializes writers of a store. It is in the user's data directory, never in a repository.
pub fn store_lock_path(dirs: &UserDirs, store: &Path) -> PathBuf {
    let folder = store.parent().and_then(|folder| folder.canonicalize().ok());
    let place = folder.map_or_else(|| store.to_owned(), |folder| folder.join(STORE_FILE));
    dirs.data.join("stores").join(format!("{}.lock", Digest::of_bytes(place.as_os_str().as_encoded_bytes())))
}

impl ResolvedConfig {
    /// Returns the existing stores that may be used, in lookup order, and notices about those that may not.
    pub fn usable_stores(&self) -> (Vec<(SecretOrigin, PathBuf)>, Vec<ConfigNotice>) {
        let looked_at =
            self.settings.secrets.secret_sources().contains(&crate::settings::SecretSource::EncryptedFile);
        if !looked_at {
            return (Vec::new(), Vec::new());
        }
        // Opening one that cannot be examined reports the error.
        let there = |path: &PathBuf| forge_files::may_be_present(path);
        let (mut stores, mut notices) = (Vec::new(), Vec::new());
        let project = Some(project_store(&self.repo)).filter(there);
        match project {
            Some(path) if is_adopted(&self.dirs, &self.repo) => {
                stores.push((SecretOrigin::ProjectStore, path))
            }
            Some(path) => notices.push(ConfigNotice {
                kind: NoticeKind::Refused,
                key: None,
                message: format!(
                    "ignoring {}: it was not created by you on this machine. If it is yours, open it once",
                    path.display()
                ),
                next_step: Some(NextStep::AdoptStore),
            }),
            None => {}
        }
        stores.extend(Some(user_store(&self.dirs)).filter(there).map(|path| (SecretOrigin::UserStore, path)));
        (stores, notices)
    }

    /// Adds the values of a store. Keys of providers, of the egress proxy and for pull requests are treated as if they
    /// were set in the environment; all other values are redacted from now on.
    pub fn add_store_values(
        &mut self,
        origin: SecretOrigin,
        values: impl IntoIterator<Item = (String, SecretValue)>,
    ) {
        let values: std::collections::BTreeMap<String, SecretValue> = values.into_iter().collect();
        let providers: Vec<String> = self.settings.providers.keys().cloned().collect();
        let mut slots: Vec<(String, Vec<String>)> = Vec::new();
        for provider in providers {
            let names = secrets::key_variables(&self.settings, &provider);
            slots.push((provider, names));
        }
        for swap in self.settings.egress.parse_rules().map(|rules| rules.keys).unwrap_or_default() {
            slots.push((secrets::egress_slot(&swap.variable), vec![swap.variable]));
        }
        slots.push((secrets::PULL_REQUEST_SLOT.to_owned(), vec![self.settings.git.token_env.clone()]));
        for (slot, names) in slots {
            let found = names.iter().find_map(|name| {
                let value = values.get(name)?;
                match secrets::parse_usable_key(value.expose()) {
                    Ok(secret) => Some((secret, name.clone(), origin)),
                    Err(reason) => {
                        let message = format!("{name} in the {origin} can't be used: {reason}; set it again");
                        let next_step = Some(NextStep::SetSecret { name: Some(name.clone()) });
                        self.notices.push(ConfigNotice {
                            kind: NoticeKind::PassedOver,
                            key: None,
                            message,
                            next_step,
                        });
                        None
                    }
                }
            });
            if let Some(found) = found {
                self.secrets.insert_from_store(&self.settings, &slot, found);
            }
        }
        for (_, secret) in values {
            self.secrets.add_redacted(secret);
        }
        for value in &mut self.values {
            value.value = value.value.take().map(|shown| self.secrets.redact(&shown));
        }
    }
}
