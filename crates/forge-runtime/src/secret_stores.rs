//! The encrypted stores of secrets: opened for a run that needs a key, and changed by `forge secret`.
//!
//! A store is opened only if it may hold a key that is needed: a run with a local model pays nothing, and its
//! user is not asked for a passphrase.

use forge_catalog::vendors::{OWN_SERVER, ROUTER_DEFAULT_SERVER};
use forge_config::stores;
use forge_config::{
    ConfigNotice, ExecutorName, NoticeKind, ResolvedConfig, SecretOrigin, SecretValue, UserDirs,
};
use forge_secrets::{ExposeSecret as _, LinkPolicy, SecretStore, SecretString, SecretValues};
use forge_types::ErrorClass;
use std::path::{Path, PathBuf};

pub use forge_secrets::{check_name, check_value, redacted_preview};

/// The scope of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreScope {
    /// The user's own store.
    User,
    /// The repository's store, `.forge/secrets.enc`.
    Project,
}

impl StoreScope {
    /// Returns the origin of keys from this store.
    pub const fn origin(self) -> SecretOrigin {
        match self {
            Self::User => SecretOrigin::UserStore,
            Self::Project => SecretOrigin::ProjectStore,
        }
    }
}

/// The reason that a store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretStoreError {
    /// An error of the store itself.
    #[error(transparent)]
    Store(#[from] forge_secrets::Error),
    /// There is no passphrase, and no terminal on which to ask for it.
    #[error(
        "{path} is encrypted, and there is no passphrase: set FORGE_PASSPHRASE, or run forge in a terminal to be asked \
         for it. To use keys from the environment only, set secrets.providers = [\"env\"]"
    )]
    NoPassphrase {
        /// The store.
        path: PathBuf,
    },
    /// The record of accepted stores can't be written.
    #[error("the acceptance of {path} can't be recorded: {why}")]
    Record {
        /// The store.
        path: PathBuf,
        /// The cause.
        why: std::io::Error,
    },
}

impl SecretStoreError {
    /// Returns the class of the error, which determines how to react to it.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Store(error) => error.class(),
            Self::NoPassphrase { .. } => ErrorClass::Invalid,
            Self::Record { .. } => ErrorClass::Unavailable,
        }
    }

    /// Returns whether another passphrase could help.
    pub const fn is_wrong_passphrase(&self) -> bool {
        matches!(self, Self::Store(forge_secrets::Error::Unopened { .. }))
    }
}

/// The stores of a user and a repository.
#[derive(Clone, Debug)]
pub struct SecretStores {
    dirs: UserDirs,
    repo: PathBuf,
}

impl SecretStores {
    /// Creates the stores for these directories; reads nothing yet.
    pub fn new(dirs: UserDirs, repo: PathBuf) -> Self {
        Self { dirs, repo }
    }

    fn scoped_store(&self, place: StoreScope) -> SecretStore {
        let (path, links) = match place {
            StoreScope::User => (stores::user_store(&self.dirs), LinkPolicy::Follow),
            StoreScope::Project => {
                (stores::project_store(&self.repo), LinkPolicy::Refuse { below: self.repo.clone() })
            }
        };
        let lock = stores::store_lock_path(&self.dirs, &path);
        SecretStore::new(path, lock, links)
    }

    /// Returns the path of a store's file.
    pub fn path(&self, place: StoreScope) -> PathBuf {
        self.scoped_store(place).path().to_owned()
    }

    /// Returns whether a store exists.
    pub fn exists(&self, place: StoreScope) -> bool {
        self.scoped_store(place).exists()
    }

    /// Returns the secrets in a store, by name. Opening a repository's store accepts it from then on.
    ///
    /// # Errors
    /// If the store can't be opened.
    pub fn open(
        &self,
        place: StoreScope,
        passphrase: &SecretValue,
    ) -> Result<Vec<(String, SecretValue)>, SecretStoreError> {
        let values = self.scoped_store(place).open(&to_secret_string(passphrase))?;
        if place == StoreScope::Project && self.exists(place) {
            self.adopt_project_store()?;
        }
        Ok(exposed_values(values).collect())
    }

    /// Sets a secret; returns whether it existed before.
    ///
    /// # Errors
    /// If the store can't be opened or written; nothing is changed then.
    pub fn set_secret(
        &self,
        place: StoreScope,
        passphrase: &SecretValue,
        name: &str,
        value: &SecretValue,
    ) -> Result<bool, SecretStoreError> {
        let before = self.scoped_store(place).update(&to_secret_string(passphrase), |values| {
            values.insert(name.to_owned(), SecretString::from(value.expose())).is_some()
        })?;
        if place == StoreScope::Project {
            self.adopt_project_store()?;
        }
        Ok(before)
    }

    /// Removes a secret; returns whether it existed.
    ///
    /// # Errors
    /// As [`SecretStores::set_secret`].
    pub fn delete_secret(
        &self,
        place: StoreScope,
        passphrase: &SecretValue,
        name: &str,
    ) -> Result<bool, SecretStoreError> {
        // If the secret does not exist, the store is not rewritten.
        let there = self.scoped_store(place).open(&to_secret_string(passphrase))?.contains_key(name);
        if there {
            self.scoped_store(place).update(&to_secret_string(passphrase), |values| values.remove(name))?;
        }
        Ok(there)
    }

    fn adopt_project_store(&self) -> Result<(), SecretStoreError> {
        let record = |why| SecretStoreError::Record { path: stores::project_store(&self.repo), why };
        stores::adopt_store(&self.dirs, &self.repo).map_err(record)
    }
}

fn to_secret_string(passphrase: &SecretValue) -> SecretString {
    SecretString::from(passphrase.expose())
}

fn exposed_values(values: SecretValues) -> impl Iterator<Item = (String, SecretValue)> {
    values.into_iter().map(|(name, value)| (name, SecretValue::new(value.expose_secret())))
}

/// A prompt for the passphrase of a store; the number counts earlier attempts. `None` means that it can't ask.
pub type PassphrasePrompt<'a> = &'a mut dyn FnMut(&Path, u32) -> Option<SecretValue>;

/// The number of times that a passphrase may be typed.
const MAX_PASSPHRASE_TRIES: u32 = 3;

/// Opens the stores if they may hold a key that is needed, so that their keys count like those of the
/// environment.
///
/// # Errors
/// If a needed store can't be opened. A missing passphrase is no error as long as a provider that may be asked
/// has a key from elsewhere; a notice reports it.
pub fn unlock(loaded: &mut ResolvedConfig, ask: PassphrasePrompt<'_>) -> Result<(), SecretStoreError> {
    if needs_stores(loaded) { unlock_all(loaded, ask) } else { Ok(()) }
}

/// Opens the stores that can be opened without a prompt, for commands that only show what exists.
///
/// # Errors
/// If a store can't be opened although there is a passphrase.
pub fn unlock_silently(loaded: &mut ResolvedConfig) -> Result<(), SecretStoreError> {
    if loaded.passphrase.is_some() { unlock_all(loaded, &mut |_, _| None) } else { Ok(()) }
}

fn unlock_all(loaded: &mut ResolvedConfig, ask: PassphrasePrompt<'_>) -> Result<(), SecretStoreError> {
    let (found, notices) = loaded.usable_stores();
    loaded.notices.extend(notices);
    let vault = SecretStores::new(loaded.dirs.clone(), loaded.repo.clone());
    let mut passphrase = loaded.passphrase.clone();
    for (origin, path) in found {
        let place = if origin == SecretOrigin::UserStore { StoreScope::User } else { StoreScope::Project };
        match unlock_one(&vault, place, &mut passphrase, loaded.passphrase.is_some(), ask)? {
            Some(values) => loaded.add_store_values(origin, values),
            None if has_other_key(loaded) => loaded.notices.push(ConfigNotice {
                kind: NoticeKind::PassedOver,
                key: None,
                message: format!(
                    "{} was not opened: there is no passphrase (FORGE_PASSPHRASE). Keys from other sources are used",
                    path.display()
                ),
                next_step: None,
            }),
            None => return Err(SecretStoreError::NoPassphrase { path }),
        }
    }
    if let Some(passphrase) = passphrase.filter(|phrase| phrase.expose().len() >= MIN_REDACTED_BYTES) {
        loaded.secrets.add_redacted(passphrase);
    }
    Ok(())
}

/// The shortest passphrase that is redacted: a shorter one may be an ordinary word, and redacting it would
/// mangle texts.
const MIN_REDACTED_BYTES: usize = 12;

/// Opens a store with the known passphrase, otherwise with a prompted one; `None` if the prompt can't ask.
fn unlock_one(
    vault: &SecretStores,
    place: StoreScope,
    passphrase: &mut Option<SecretValue>,
    given: bool,
    ask: PassphrasePrompt<'_>,
) -> Result<Option<Vec<(String, SecretValue)>>, SecretStoreError> {
    // A passphrase that opens one store is tried for the other before the user is asked again.
    let mut tried = 0;
    let mut next = passphrase.clone();
    loop {
        let Some(phrase) = next.take().or_else(|| ask(&vault.path(place), tried)) else { return Ok(None) };
        match vault.open(place, &phrase) {
            Ok(values) => {
                *passphrase = Some(phrase);
                return Ok(Some(values));
            }
            Err(error) if error.is_wrong_passphrase() && !given && tried + 1 < MAX_PASSPHRASE_TRIES => {
                tried += 1
            }
            Err(error) => return Err(error),
        }
    }
}

/// Returns whether a key may be needed that a store could hold.
fn needs_stores(loaded: &ResolvedConfig) -> bool {
    let settings = &loaded.settings;
    let asks_a_model = matches!(settings.executor, ExecutorName::React | ExecutorName::Router);
    let named = preferred_provider(loaded);
    let others = settings.model.fallbacks.iter().map(String::as_str).chain(
        [&settings.routing.simple_model, &settings.routing.medium_model, &settings.routing.complex_model]
            .into_iter()
            .flatten()
            .map(String::as_str),
    );
    // Entries have the form `provider:model` or `provider/model`.
    let mut providers = named.into_iter().chain(others.filter_map(|text| text.split([':', '/', ' ']).next()));
    let wants_key = named.is_none() || providers.any(|provider| wants_key(loaded, provider));
    (asks_a_model && wants_key) || !settings.egress.keys.is_empty()
}

/// Opens the stores for a sandbox without a run, which needs only the keys of its proxy; otherwise as
/// [`unlock`].
///
/// # Errors
/// As [`unlock`].
pub fn unlock_for_sandbox(
    loaded: &mut ResolvedConfig,
    ask: PassphrasePrompt<'_>,
) -> Result<(), SecretStoreError> {
    if loaded.settings.egress.keys.is_empty() { Ok(()) } else { unlock_all(loaded, ask) }
}

/// Returns the provider that is asked first; `None` means the first one that has a key. A URL alone means the
/// user's own server, and a router asks a local one.
fn preferred_provider(loaded: &ResolvedConfig) -> Option<&str> {
    let model = &loaded.settings.model;
    let local = (loaded.settings.executor == ExecutorName::Router).then_some(ROUTER_DEFAULT_SERVER);
    model.provider.as_deref().or(model.base_url.as_ref().map(|_| OWN_SERVER)).or(local)
}

fn wants_key(loaded: &ResolvedConfig, provider: &str) -> bool {
    loaded.settings.providers.get(provider).is_some_and(|own| own.api_key_env.is_some())
}

/// Returns whether a provider that may be asked already has a key or a login.
fn has_other_key(loaded: &ResolvedConfig) -> bool {
    let (settings, secrets) = (&loaded.settings, &loaded.secrets);
    let can_ask = match preferred_provider(loaded) {
        Some(provider) => !wants_key(loaded, provider) || secrets.can_ask(provider),
        None => settings.providers.keys().any(|provider| secrets.can_ask(provider)),
    };
    let swaps = settings.egress.parse_rules().map(|rules| rules.keys).unwrap_or_default();
    can_ask && swaps.iter().all(|swap| secrets.egress_key(&swap.variable).is_some())
}
