//! Where the encrypted stores of secrets lie, which of them count, and what comes out of them.
//!
//! Nothing here decrypts: whoever can hands in what a store holds ([`Loaded::lay_store`]).
//!
//! A repository's store counts only where the user made it or opened it once with `forge secret … --local`
//! ([`adopt`]): one that came with a clone is not even asked a passphrase for (SEC-11). Whoever wrote it can't know the
//! user's passphrase, so nothing could be forged; but it could stop every run, or ask a person for a passphrase.

use crate::environment::UserDirs;
use crate::error::{ConfigNotice, NoticeKind};
use crate::load::ResolvedConfig;
use crate::secrets::{self, SecretOrigin, SecretValue};
use crate::write;
use forge_types::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// The file's name in either place.
const STORE_FILE: &str = "secrets.enc";

/// The variable that holds the passphrase.
pub const PASSPHRASE_VAR: &str = "FORGE_PASSPHRASE";

/// The user's own store.
pub fn user_store(dirs: &UserDirs) -> PathBuf {
    dirs.data.join(STORE_FILE)
}

/// The store of a repository.
pub fn project_store(repo: &Path) -> PathBuf {
    // Without `.` in the middle, since it is shown.
    repo.components().collect::<PathBuf>().join(".forge").join(STORE_FILE)
}

/// A file of the user's whose lock keeps the writers of a store apart; it lies in no repository.
pub fn store_lock_path(dirs: &UserDirs, store: &Path) -> PathBuf {
    let folder = store.parent().and_then(|folder| folder.canonicalize().ok());
    let place = folder.map_or_else(|| store.to_owned(), |folder| folder.join(STORE_FILE));
    dirs.data.join("stores").join(format!("{}.lock", Digest::of_bytes(place.as_os_str().as_encoded_bytes())))
}

/// Whether the user made or opened the store of this repository before.
pub fn is_adopted(dirs: &UserDirs, repo: &Path) -> bool {
    adoption_record(dirs, repo).is_some_and(|path| path.exists())
}

/// Lets the store of this repository count from now on.
///
/// # Errors
/// If the user's data folder can't be written.
pub fn adopt_store(dirs: &UserDirs, repo: &Path) -> io::Result<()> {
    let Some(path) = adoption_record(dirs, repo) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the repository is not there"));
    };
    if path.exists() {
        return Ok(());
    }
    let place = repo.canonicalize()?.to_string_lossy().into_owned();
    write::write_private(&path, format!("{place}\n").as_bytes())
}

/// Takes that back; says whether there was anything to take.
pub(crate) fn revoke_adoption(dirs: &UserDirs, repo: &Path) -> bool {
    adoption_record(dirs, repo).is_some_and(|path| std::fs::remove_file(path).is_ok())
}

fn adoption_record(dirs: &UserDirs, repo: &Path) -> Option<PathBuf> {
    let canonical = repo.canonicalize().ok()?;
    let name = Digest::of_bytes(canonical.as_os_str().as_encoded_bytes());
    Some(dirs.data.join("stores").join(format!("{name}.mine")))
}

impl ResolvedConfig {
    /// The stores that are there and count, in the order in which they are looked at, with what is said of those that
    /// are there and don't.
    pub fn usable_stores(&self) -> (Vec<(SecretOrigin, PathBuf)>, Vec<ConfigNotice>) {
        let looked_at =
            self.settings.secrets.secret_sources().contains(&crate::settings::SecretSource::EncryptedFile);
        if !looked_at {
            return (Vec::new(), Vec::new());
        }
        let there = |path: &PathBuf| path.symlink_metadata().is_ok();
        let (mut stores, mut notices) = (Vec::new(), Vec::new());
        let project = Some(project_store(&self.repo)).filter(there);
        match project {
            Some(path) if is_adopted(&self.dirs, &self.repo) => stores.push((SecretOrigin::ProjectStore, path)),
            Some(path) => notices.push(ConfigNotice {
                kind: NoticeKind::Refused,
                key: None,
                message: format!(
                    "{} is not used: it was not made here. If it is yours, open it once with `forge secret list --local`",
                    path.display()
                ),
            }),
            None => {}
        }
        stores.extend(Some(user_store(&self.dirs)).filter(there).map(|path| (SecretOrigin::UserStore, path)));
        (stores, notices)
    }

    /// Takes in what a store holds: keys of providers, of the egress proxy and for pull requests count as if they stood
    /// in the environment; all else is known from now on as something that must not be seen.
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
                        let message = format!(
                            "{name} in the {origin} can't be used: {reason}; set it anew with `forge secret set {name}`"
                        );
                        self.notices.push(ConfigNotice { kind: NoticeKind::PassedOver, key: None, message });
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
