//! One encrypted file of secrets.

use crate::{Error, format, private_file};
use forge_files::{Directory, OWNER_ONLY_MODE, find_symlink_below};
use secrecy::zeroize::{Zeroize as _, Zeroizing};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Secrets by name. The `Debug` form shows only names.
pub type SecretValues = BTreeMap<String, SecretString>;

/// Largest size in bytes of a store.
const MAX_STORE_BYTES: u64 = 4 << 20;

/// Policy for links on the way to the store's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkPolicy {
    /// Links are followed, because the user may keep the store elsewhere.
    Follow,
    /// Links below this directory are refused: it is a repository, and another user may have created them.
    Refuse {
        /// Path of the repository.
        below: PathBuf,
    },
}

/// An encrypted file of secrets. Nothing is read before it is opened.
#[derive(Clone, Debug)]
pub struct SecretStore {
    path: PathBuf,
    lock: PathBuf,
    links: LinkPolicy,
}

impl SecretStore {
    /// Returns the store in this file. `lock` is a file in the user's data directory that serializes writers.
    pub fn new(path: PathBuf, lock: PathBuf, links: LinkPolicy) -> Self {
        Self { path, lock, links }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether anything exists at the path of the file, or may exist there; opening it then reports the error.
    pub fn exists(&self) -> bool {
        let link = match &self.links {
            LinkPolicy::Refuse { below } => {
                self.relative_path(below).and_then(|path| find_symlink_below(below, path))
            }
            LinkPolicy::Follow => None,
        };
        // A link on the way is reported when the store is opened.
        link.is_some() || forge_files::may_be_present(&self.path)
    }

    fn relative_path(&self, root: &Path) -> Option<&Path> {
        self.path.strip_prefix(root).ok()
    }

    /// Opens the directory in a repository that holds the file.
    fn open_directory(&self, root: &Path, make: bool) -> Result<Directory, forge_files::Error> {
        let relative = self.relative_path(root).and_then(Path::parent).unwrap_or(Path::new(""));
        if make {
            Directory::open_or_create_within(root, relative)
        } else {
            Directory::open_within(root, relative)
        }
    }

    fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns the error for a file or directory that can't be read or written.
    fn access_error(&self, what: &'static str) -> impl FnOnce(forge_files::Error) -> Error {
        let path = self.path.clone();
        move |error| match error {
            forge_files::Error::Link { path } => Error::Link { path },
            forge_files::Error::NotRegular { .. } => Error::Foreign { path, why: "it is not a regular file" },
            forge_files::Error::TooLarge { .. } => Error::Foreign { path, why: "it is too large" },
            error => Error::Io { what, path, source: error.into_io_error() },
        }
    }

    /// Reads all secrets; there are none if the file does not exist. Deriving the key takes about 50 ms.
    ///
    /// # Errors
    /// If the file can't be read or decrypted.
    pub fn open(&self, passphrase: &SecretString) -> Result<SecretValues, Error> {
        match self.read_file()? {
            Some(bytes) => self.decrypt(passphrase, &bytes),
            None => Ok(SecretValues::new()),
        }
    }

    /// Changes the secrets while other writers wait. A store that does not exist is created with this passphrase.
    ///
    /// # Errors
    /// As [`SecretStore::open`], and if the file can't be written; nothing is changed then.
    pub fn update<T>(
        &self,
        passphrase: &SecretString,
        change: impl FnOnce(&mut SecretValues) -> T,
    ) -> Result<T, Error> {
        let lock = private_file::open_lock_file(&self.lock).map_err(Error::io_error("locked", &self.lock))?;
        // Held as long as `lock` lives; the system releases it if this process dies.
        lock.lock().map_err(Error::io_error("locked", &self.lock))?;
        let mut values = self.open(passphrase)?;
        let answer = change(&mut values);
        let plain = encode_values(&values)?;
        let sealed = format::seal(passphrase, &plain)?;
        match &self.links {
            LinkPolicy::Follow => {
                let target = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
                private_file::replace_file(&target, &sealed)
                    .map_err(Error::io_error("written", &self.path))?;
            }
            LinkPolicy::Refuse { below } => self
                .open_directory(below, true)
                .and_then(|directory| directory.replace_file(&self.file_name(), &sealed, OWNER_ONLY_MODE))
                .map_err(self.access_error("written"))?,
        }
        Ok(answer)
    }

    fn decrypt(&self, passphrase: &SecretString, bytes: &[u8]) -> Result<SecretValues, Error> {
        let Some(plain) = format::open(passphrase, bytes)? else {
            return Err(Error::Unopened { path: self.path.clone() });
        };
        let values: BTreeMap<String, String> = serde_json::from_slice(&plain).map_err(|_| {
            self.foreign_file_error("its content is not names and values; another program wrote it")
        })?;
        Ok(values.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect())
    }

    /// Reads the file, if it exists and its bytes can be a store.
    fn read_file(&self) -> Result<Option<Vec<u8>>, Error> {
        if !self.exists() {
            return Ok(None);
        }
        let bytes = match &self.links {
            LinkPolicy::Follow => {
                let file = forge_files::open(&self.path).map_err(self.access_error("read"))?;
                let meta = file.metadata().map_err(Error::io_error("read", &self.path))?;
                self.check_mode(private_file::exposed_mode(&meta))?;
                forge_files::read_from(&self.path, file, MAX_STORE_BYTES)
                    .map_err(self.access_error("read"))?
            }
            LinkPolicy::Refuse { below } => {
                let directory = self.open_directory(below, false).map_err(self.access_error("read"))?;
                let mode = directory
                    .file_mode(&self.file_name())
                    .map_err(self.access_error("read"))?
                    .unwrap_or_default();
                self.check_mode((mode & 0o077 != 0).then_some(mode))?;
                directory.read_file(&self.file_name(), MAX_STORE_BYTES).map_err(self.access_error("read"))?
            }
        };
        self.check_contents(&bytes)?;
        Ok(Some(bytes))
    }

    fn check_mode(&self, open_to_others: Option<u32>) -> Result<(), Error> {
        match open_to_others {
            Some(mode) => Err(Error::TooOpen { path: self.path.clone(), mode }),
            None => Ok(()),
        }
    }

    fn check_contents(&self, bytes: &[u8]) -> Result<(), Error> {
        // Random bytes of this length are text with a probability of 10^-20.
        let is_text = !bytes.is_empty()
            && std::str::from_utf8(bytes)
                .is_ok_and(|text| text.chars().all(|c| !c.is_control() || c.is_whitespace()));
        if is_text {
            Err(self.foreign_file_error("it is text"))
        } else if bytes.len() < format::MIN_STORE_BYTES {
            Err(Error::Truncated {
                path: self.path.clone(),
                bytes: bytes.len() as u64,
                least: format::MIN_STORE_BYTES as u64,
            })
        } else {
            Ok(())
        }
    }

    fn foreign_file_error(&self, why: &'static str) -> Error {
        Error::Foreign { path: self.path.clone(), why }
    }
}

/// Encodes the secrets as the JSON object to encrypt.
fn encode_values(values: &SecretValues) -> Result<Zeroizing<Vec<u8>>, Error> {
    let exposed: BTreeMap<&str, &str> =
        values.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
    // Allocated in full, so that growth leaves no copies in memory.
    let room = exposed.iter().map(|(name, value)| 2 * (name.len() + value.len()) + 8).sum::<usize>() + 2;
    let mut plain = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *plain, &exposed).map_err(|error| {
        plain.zeroize();
        Error::Machine { why: format!("the content can't be encoded: {error}") }
    })?;
    Ok(plain)
}
