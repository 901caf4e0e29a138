//! The encrypted stores of secrets: opened for a run that needs a key, and changed for `forge secret`.
//!
//! A store is opened only when a key may be needed that it could hold: a run that asks a local model pays nothing, and
//! nobody is asked for a passphrase.

use forge_config::stores;
use forge_config::{Dirs, ExecutorName, Loaded, Notice, NoticeKind, Secret, SecretOrigin};
use forge_models::vendors::{OWN_SERVER, ROUTERS_SERVER};
use forge_secrets::{ExposeSecret as _, Links, SecretString, Store, Values};
use forge_types::Class;
use std::path::{Path, PathBuf};

pub use forge_secrets::{check_name, check_value, masked};

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The user's own.
    User,
    /// The repository's, `.forge/secrets.enc`.
    Project,
}

impl Place {
    /// Where its secrets come from, as origins of keys call it.
    pub const fn origin(self) -> SecretOrigin {
        match self {
            Self::User => SecretOrigin::UserStore,
            Self::Project => SecretOrigin::ProjectStore,
        }
    }
}

/// Why a store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The store itself.
    #[error(transparent)]
    Store(#[from] forge_secrets::Error),
    /// There is no passphrase, and nobody who could be asked.
    #[error(
        "{path} is encrypted, and there is no passphrase: set FORGE_PASSPHRASE, or start forge on a terminal, where it \
         asks. To use keys from the environment only, set secrets.providers = [\"env\"]"
    )]
    NoPassphrase {
        /// The store.
        path: PathBuf,
    },
    /// What is remembered of the store can't be written.
    #[error("what is known of {path} can't be written down: {why}")]
    Record {
        /// The store.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
}

impl VaultError {
    /// What can be done about it.
    pub const fn class(&self) -> Class {
        match self {
            Self::Store(error) => error.class(),
            Self::NoPassphrase { .. } => Class::Invalid,
            Self::Record { .. } => Class::Unavailable,
        }
    }

    /// Whether another passphrase could help.
    pub const fn is_wrong_passphrase(&self) -> bool {
        matches!(self, Self::Store(forge_secrets::Error::Unopened { .. }))
    }
}

/// The stores of a user and a repository.
#[derive(Clone, Debug)]
pub struct Vault {
    dirs: Dirs,
    repo: PathBuf,
}

impl Vault {
    /// The stores as they lie in these folders; nothing is read yet.
    pub fn new(dirs: Dirs, repo: PathBuf) -> Self {
        Self { dirs, repo }
    }

    fn store(&self, place: Place) -> Store {
        let (path, links) = match place {
            Place::User => (stores::user(&self.dirs), Links::Follow),
            Place::Project => (stores::project(&self.repo), Links::Refuse { below: self.repo.clone() }),
        };
        let lock = stores::lock(&self.dirs, &path);
        Store::new(path, lock, links)
    }

    /// A store's file.
    pub fn path(&self, place: Place) -> PathBuf {
        self.store(place).path().to_owned()
    }

    /// Whether it is there.
    pub fn exists(&self, place: Place) -> bool {
        self.store(place).exists()
    }

    /// What is in a store, by name. A repository's store that opens counts from then on.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn open(&self, place: Place, passphrase: &Secret) -> Result<Vec<(String, Secret)>, VaultError> {
        let values = self.store(place).open(&sealed(passphrase))?;
        if place == Place::Project && self.exists(place) {
            self.adopt()?;
        }
        Ok(plain(values).collect())
    }

    /// Sets a secret; says whether it was there before.
    ///
    /// # Errors
    /// If the store can't be opened or written; nothing is changed then.
    pub fn set(
        &self,
        place: Place,
        passphrase: &Secret,
        name: &str,
        value: &Secret,
    ) -> Result<bool, VaultError> {
        let before = self.store(place).change(&sealed(passphrase), |values| {
            values.insert(name.to_owned(), SecretString::from(value.expose())).is_some()
        })?;
        if place == Place::Project {
            self.adopt()?;
        }
        Ok(before)
    }

    /// Removes a secret; says whether it was there.
    ///
    /// # Errors
    /// As [`Vault::set`].
    pub fn delete(&self, place: Place, passphrase: &Secret, name: &str) -> Result<bool, VaultError> {
        // Without it nothing is written anew.
        let there = self.store(place).open(&sealed(passphrase))?.contains_key(name);
        if there {
            self.store(place).change(&sealed(passphrase), |values| values.remove(name))?;
        }
        Ok(there)
    }

    fn adopt(&self) -> Result<(), VaultError> {
        let record = |why| VaultError::Record { path: stores::project(&self.repo), why };
        stores::adopt(&self.dirs, &self.repo).map_err(record)
    }
}

fn sealed(passphrase: &Secret) -> SecretString {
    SecretString::from(passphrase.expose())
}

fn plain(values: Values) -> impl Iterator<Item = (String, Secret)> {
    values.into_iter().map(|(name, value)| (name, Secret::new(value.expose_secret())))
}

/// Asks for the passphrase of a store; the number says how often it was asked for already. `None`: nobody can be asked.
pub type Ask<'a> = &'a mut dyn FnMut(&Path, u32) -> Option<Secret>;

/// A passphrase that was typed may be wrong so many times.
const TRIES: u32 = 3;

/// Opens the stores if something could be needed that they hold, so that their keys count like those of the
/// environment.
///
/// # Errors
/// If a store that is needed can't be opened. Without a passphrase that is no error as long as some provider that may be
/// asked has a key elsewhere; a notice tells of it.
pub fn unlock(loaded: &mut Loaded, ask: Ask<'_>) -> Result<(), VaultError> {
    if is_needed(loaded) { open_all(loaded, ask) } else { Ok(()) }
}

/// Opens the stores that can be opened without asking anybody, for commands that only show what is there.
///
/// # Errors
/// If one can't be opened although there is a passphrase.
pub fn unlock_silently(loaded: &mut Loaded) -> Result<(), VaultError> {
    if loaded.passphrase.is_some() { open_all(loaded, &mut |_, _| None) } else { Ok(()) }
}

fn open_all(loaded: &mut Loaded, ask: Ask<'_>) -> Result<(), VaultError> {
    let (found, notices) = loaded.stores();
    loaded.notices.extend(notices);
    let vault = Vault::new(loaded.dirs.clone(), loaded.repo.clone());
    let mut passphrase = loaded.passphrase.clone();
    for (origin, path) in found {
        let place = if origin == SecretOrigin::UserStore { Place::User } else { Place::Project };
        match open_one(&vault, place, &mut passphrase, loaded.passphrase.is_some(), ask)? {
            Some(values) => loaded.lay_store(origin, values),
            None if has_other_key(loaded) => loaded.notices.push(Notice {
                kind: NoticeKind::PassedOver,
                key: None,
                message: format!(
                    "{} was not opened: there is no passphrase (FORGE_PASSPHRASE). Keys from elsewhere are used",
                    path.display()
                ),
            }),
            None => return Err(VaultError::NoPassphrase { path }),
        }
    }
    if let Some(passphrase) = passphrase.filter(|phrase| phrase.expose().len() >= HIDDEN_FROM) {
        loaded.secrets.hide(passphrase);
    }
    Ok(())
}

/// A shorter passphrase may be an ordinary word, without which texts would be mangled.
const HIDDEN_FROM: usize = 12;

/// Opens a store with the passphrase that is there, else with one that is asked for; `None` if nobody can be asked.
fn open_one(
    vault: &Vault,
    place: Place,
    passphrase: &mut Option<Secret>,
    given: bool,
    ask: Ask<'_>,
) -> Result<Option<Vec<(String, Secret)>>, VaultError> {
    // One that is good for one store is tried for the other before anybody is asked again.
    let mut tried = 0;
    let mut next = passphrase.clone();
    loop {
        let Some(phrase) = next.take().or_else(|| ask(&vault.path(place), tried)) else { return Ok(None) };
        match vault.open(place, &phrase) {
            Ok(values) => {
                *passphrase = Some(phrase);
                return Ok(Some(values));
            }
            Err(error) if error.is_wrong_passphrase() && !given && tried + 1 < TRIES => tried += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Whether a key may be needed that a store could hold.
fn is_needed(loaded: &Loaded) -> bool {
    let settings = &loaded.settings;
    let asks_a_model = matches!(settings.executor, ExecutorName::React | ExecutorName::Router);
    let named = wanted(loaded);
    let others = settings.model.fallbacks.iter().map(String::as_str).chain(
        [&settings.routing.simple_model, &settings.routing.medium_model, &settings.routing.complex_model]
            .into_iter()
            .flatten()
            .map(String::as_str),
    );
    // `provider:model` and `provider/model`.
    let mut providers = named.into_iter().chain(others.filter_map(|text| text.split([':', '/', ' ']).next()));
    let wants_key = named.is_none() || providers.any(|provider| wants_key(loaded, provider));
    (asks_a_model && wants_key) || !settings.egress.keys.is_empty()
}

/// As [`unlock`], for a box without a run: only the keys of its proxy count.
///
/// # Errors
/// As [`unlock`].
pub fn unlock_for_box(loaded: &mut Loaded, ask: Ask<'_>) -> Result<(), VaultError> {
    if loaded.settings.egress.keys.is_empty() { Ok(()) } else { open_all(loaded, ask) }
}

/// The provider that is asked first; `None`: the first one that has a key. An address alone means a server of the
/// user's own, and a router asks a local one.
fn wanted(loaded: &Loaded) -> Option<&str> {
    let model = &loaded.settings.model;
    let local = (loaded.settings.executor == ExecutorName::Router).then_some(ROUTERS_SERVER);
    model.provider.as_deref().or(model.base_url.as_ref().map(|_| OWN_SERVER)).or(local)
}

fn wants_key(loaded: &Loaded, provider: &str) -> bool {
    loaded.settings.providers.get(provider).is_some_and(|own| own.api_key_env.is_some())
}

/// Whether a provider that may be asked has a key already, or a login.
fn has_other_key(loaded: &Loaded) -> bool {
    let (settings, secrets) = (&loaded.settings, &loaded.secrets);
    let can_ask = match wanted(loaded) {
        Some(provider) => !wants_key(loaded, provider) || secrets.can_ask(provider),
        None => settings.providers.keys().any(|provider| secrets.can_ask(provider)),
    };
    let swaps = settings.egress.rules().map(|rules| rules.keys).unwrap_or_default();
    can_ask && swaps.iter().all(|swap| secrets.egress(&swap.variable).is_some())
}
