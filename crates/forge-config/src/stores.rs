//! Where the encrypted stores of secrets lie, which of them count, and what comes out of them.
//!
//! Nothing here decrypts: whoever can hands in what a store holds ([`Loaded::lay_store`]).
//!
//! A repository's store counts only where the user made it or opened it once with `forge secret … --local`
//! ([`adopt`]): one that came with a clone is not even asked a passphrase for (SEC-11). Whoever wrote it can't know the
//! user's passphrase, so nothing could be forged; but it could stop every run, or ask a person for a passphrase.

use crate::environment::Dirs;
use crate::fault::{Notice, NoticeKind};
use crate::load::Loaded;
use crate::secrets::{self, Secret, SecretOrigin};
use crate::write;
use forge_types::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// The file's name in either place.
const NAME: &str = "secrets.enc";

/// The variable that holds the passphrase.
pub const PASSPHRASE: &str = "FORGE_PASSPHRASE";

/// The user's own store.
pub fn user(dirs: &Dirs) -> PathBuf {
    dirs.data.join(NAME)
}

/// The store of a repository.
pub fn project(repo: &Path) -> PathBuf {
    // Without `.` in the middle, since it is shown.
    repo.components().collect::<PathBuf>().join(".forge").join(NAME)
}

/// A file of the user's whose lock keeps the writers of a store apart; it lies in no repository.
pub fn lock(dirs: &Dirs, store: &Path) -> PathBuf {
    let folder = store.parent().and_then(|folder| folder.canonicalize().ok());
    let place = folder.map_or_else(|| store.to_owned(), |folder| folder.join(NAME));
    dirs.data.join("stores").join(format!("{}.lock", Digest::of(place.as_os_str().as_encoded_bytes())))
}

/// Whether the user made or opened the store of this repository before.
pub fn is_adopted(dirs: &Dirs, repo: &Path) -> bool {
    record(dirs, repo).is_some_and(|path| path.exists())
}

/// Lets the store of this repository count from now on.
///
/// # Errors
/// If the user's data folder can't be written.
pub fn adopt(dirs: &Dirs, repo: &Path) -> io::Result<()> {
    let Some(path) = record(dirs, repo) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the repository is not there"));
    };
    if path.exists() {
        return Ok(());
    }
    let place = repo.canonicalize()?.to_string_lossy().into_owned();
    write::private(&path, format!("{place}\n").as_bytes())
}

/// Takes that back; says whether there was anything to take.
pub(crate) fn disown(dirs: &Dirs, repo: &Path) -> bool {
    record(dirs, repo).is_some_and(|path| std::fs::remove_file(path).is_ok())
}

fn record(dirs: &Dirs, repo: &Path) -> Option<PathBuf> {
    let canonical = repo.canonicalize().ok()?;
    let name = Digest::of(canonical.as_os_str().as_encoded_bytes());
    Some(dirs.data.join("stores").join(format!("{name}.mine")))
}

impl Loaded {
    /// The stores that are there and count, in the order in which they are looked at, with what is said of those that
    /// are there and don't.
    pub fn stores(&self) -> (Vec<(SecretOrigin, PathBuf)>, Vec<Notice>) {
        let looked_at =
            self.settings.secrets.sources().contains(&crate::settings::SecretSource::EncryptedFile);
        if !looked_at {
            return (Vec::new(), Vec::new());
        }
        let there = |path: &PathBuf| path.symlink_metadata().is_ok();
        let (mut stores, mut notices) = (Vec::new(), Vec::new());
        let project = Some(project(&self.repo)).filter(there);
        match project {
            Some(path) if is_adopted(&self.dirs, &self.repo) => stores.push((SecretOrigin::ProjectStore, path)),
            Some(path) => notices.push(Notice {
                kind: NoticeKind::Refused,
                key: None,
                message: format!(
                    "{} is not used: it was not made here. If it is yours, open it once with `forge secret list --local`",
                    path.display()
                ),
            }),
            None => {}
        }
        stores.extend(Some(user(&self.dirs)).filter(there).map(|path| (SecretOrigin::UserStore, path)));
        (stores, notices)
    }

    /// Takes in what a store holds: keys of providers, of the egress proxy and for pull requests count as if they stood
    /// in the environment; all else is known from now on as something that must not be seen.
    pub fn lay_store(&mut self, origin: SecretOrigin, values: impl IntoIterator<Item = (String, Secret)>) {
        let values: std::collections::BTreeMap<String, Secret> = values.into_iter().collect();
        let providers: Vec<String> = self.settings.providers.keys().cloned().collect();
        let mut slots: Vec<(String, Vec<String>)> = Vec::new();
        for provider in providers {
            let names = secrets::variables(&self.settings, &provider);
            slots.push((provider, names));
        }
        for swap in self.settings.egress.rules().map(|rules| rules.keys).unwrap_or_default() {
            slots.push((secrets::egress_name(&swap.variable), vec![swap.variable]));
        }
        slots.push((secrets::PULL_REQUESTS.to_owned(), vec![self.settings.git.token_env.clone()]));
        for (slot, names) in slots {
            let found = names.iter().find_map(|name| {
                let value = values.get(name)?;
                match secrets::usable(value.expose()) {
                    Ok(secret) => Some((secret, name.clone(), origin)),
                    Err(reason) => {
                        let message = format!(
                            "{name} in the {origin} can't be used: {reason}; set it anew with `forge secret set {name}`"
                        );
                        self.notices.push(Notice { kind: NoticeKind::PassedOver, key: None, message });
                        None
                    }
                }
            });
            if let Some(found) = found {
                self.secrets.lay(&self.settings, &slot, found);
            }
        }
        for (_, secret) in values {
            self.secrets.hide(secret);
        }
        for value in &mut self.values {
            value.value = value.value.take().map(|shown| self.secrets.mask(&shown));
        }
    }
}
