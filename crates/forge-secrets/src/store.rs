//! One encrypted file of secrets.

use crate::{Error, format, private};
use forge_files::{Directory, OWNER_ONLY, link_on};
use secrecy::zeroize::{Zeroize as _, Zeroizing};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Secrets by name. Its `Debug` form shows names only.
pub type Values = BTreeMap<String, SecretString>;

/// A file that is larger is none of ours.
const LARGEST: u64 = 4 << 20;

/// Whether the store's file may be reached through a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Links {
    /// Yes: the user keeps it elsewhere.
    Follow,
    /// No link below this directory: it is a repository, and somebody else may have made the link.
    Refuse {
        /// The repository.
        below: PathBuf,
    },
}

/// One encrypted file. Nothing is read before it is opened.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    lock: PathBuf,
    links: Links,
}

impl Store {
    /// The store in this file. `lock` is a file in the user's own folder whose lock keeps writers apart.
    pub fn new(path: PathBuf, lock: PathBuf, links: Links) -> Self {
        Self { path, lock, links }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether something stands in the file's place.
    pub fn exists(&self) -> bool {
        let link = match &self.links {
            Links::Refuse { below } => self.relative(below).and_then(|path| link_on(below, path)),
            Links::Follow => None,
        };
        // A link on the way is told of when the store is opened.
        link.is_some() || self.path.symlink_metadata().is_ok()
    }

    fn relative(&self, root: &Path) -> Option<&Path> {
        self.path.strip_prefix(root).ok()
    }

    /// The directory in a repository that holds the file.
    fn directory(&self, root: &Path, make: bool) -> Result<Directory, forge_files::Error> {
        let relative = self.relative(root).and_then(Path::parent).unwrap_or(Path::new(""));
        if make { Directory::make_within(root, relative) } else { Directory::open_within(root, relative) }
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The error of a file or directory that can't be read or written.
    fn refused(&self, what: &'static str) -> impl FnOnce(forge_files::Error) -> Error {
        let path = self.path.clone();
        move |error| match error {
            forge_files::Error::Link { path } => Error::Link { path },
            forge_files::Error::NotRegular { .. } => Error::Foreign { path, why: "it is no plain file" },
            forge_files::Error::TooLarge { .. } => Error::Foreign { path, why: "it is far too large" },
            error => Error::Io { what, path, source: error.into_io() },
        }
    }

    /// Everything in it; nothing if there is no file. Deriving the key takes about a twentieth of a second.
    ///
    /// # Errors
    /// If the file can't be read or decrypted.
    pub fn open(&self, passphrase: &SecretString) -> Result<Values, Error> {
        match self.read()? {
            Some(bytes) => self.decrypt(passphrase, &bytes),
            None => Ok(Values::new()),
        }
    }

    /// Changes what is in it, with nobody else writing meanwhile. A store that is not there yet is made, with this
    /// passphrase.
    ///
    /// # Errors
    /// As [`Store::open`], and if the file can't be written; nothing is changed then.
    pub fn change<T>(
        &self,
        passphrase: &SecretString,
        change: impl FnOnce(&mut Values) -> T,
    ) -> Result<T, Error> {
        let lock = private::lock_file(&self.lock).map_err(Error::io("locked", &self.lock))?;
        // Held for as long as `lock` lives; the system lets go of it if this process dies.
        lock.lock().map_err(Error::io("locked", &self.lock))?;
        let mut values = self.open(passphrase)?;
        let answer = change(&mut values);
        let plain = plain(&values)?;
        let sealed = format::seal(passphrase, &plain)?;
        match &self.links {
            Links::Follow => {
                let target = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
                private::replace(&target, &sealed).map_err(Error::io("written", &self.path))?;
            }
            Links::Refuse { below } => self
                .directory(below, true)
                .and_then(|directory| directory.replace(&self.name(), &sealed, OWNER_ONLY))
                .map_err(self.refused("written"))?,
        }
        Ok(answer)
    }

    fn decrypt(&self, passphrase: &SecretString, bytes: &[u8]) -> Result<Values, Error> {
        let Some(plain) = format::open(passphrase, bytes)? else {
            return Err(Error::Unopened { path: self.path.clone() });
        };
        let values: BTreeMap<String, String> = serde_json::from_slice(&plain).map_err(|_| {
            self.foreign("it decrypts, but to something else than names and values; another program wrote it")
        })?;
        Ok(values.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect())
    }

    /// The file's bytes, if there is one and it can be a store.
    fn read(&self) -> Result<Option<Vec<u8>>, Error> {
        if !self.exists() {
            return Ok(None);
        }
        let bytes = match &self.links {
            Links::Follow => {
                let file = forge_files::open(&self.path).map_err(self.refused("read"))?;
                let meta = file.metadata().map_err(Error::io("read", &self.path))?;
                self.closed(private::open_to_others(&meta))?;
                forge_files::read_from(&self.path, file, LARGEST).map_err(self.refused("read"))?
            }
            Links::Refuse { below } => {
                let directory = self.directory(below, false).map_err(self.refused("read"))?;
                let mode = directory.mode(&self.name()).map_err(self.refused("read"))?.unwrap_or_default();
                self.closed((mode & 0o077 != 0).then_some(mode))?;
                directory.read(&self.name(), LARGEST).map_err(self.refused("read"))?
            }
        };
        self.check(&bytes)?;
        Ok(Some(bytes))
    }

    fn closed(&self, open_to_others: Option<u32>) -> Result<(), Error> {
        match open_to_others {
            Some(mode) => Err(Error::TooOpen { path: self.path.clone(), mode }),
            None => Ok(()),
        }
    }

    fn check(&self, bytes: &[u8]) -> Result<(), Error> {
        // Noise of this length is not all text, but for one file in 10^20.
        let is_text = !bytes.is_empty()
            && std::str::from_utf8(bytes)
                .is_ok_and(|text| text.chars().all(|c| !c.is_control() || c.is_whitespace()));
        if is_text {
            Err(self.foreign("it is text"))
        } else if bytes.len() < format::LEAST {
            Err(Error::Truncated {
                path: self.path.clone(),
                bytes: bytes.len() as u64,
                least: format::LEAST as u64,
            })
        } else {
            Ok(())
        }
    }

    fn foreign(&self, why: &'static str) -> Error {
        Error::Foreign { path: self.path.clone(), why }
    }
}

/// The JSON object that is encrypted.
fn plain(values: &Values) -> Result<Zeroizing<Vec<u8>>, Error> {
    let exposed: BTreeMap<&str, &str> =
        values.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
    // Room for all, so that growing leaves no copies behind.
    let room = exposed.iter().map(|(name, value)| 2 * (name.len() + value.len()) + 8).sum::<usize>() + 2;
    let mut plain = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *plain, &exposed).map_err(|error| {
        plain.zeroize();
        Error::Machine { why: format!("the contents can't be written: {error}") }
    })?;
    Ok(plain)
}
