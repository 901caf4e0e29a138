//! The file and its lock.

use forge_ports::memory::{Error, Memory, Remembered};
use forge_ports::{Clock, async_trait};
use forge_types::{Fact, Said};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Messages that the file keeps at most; the oldest go first. Far more than any prompt holds.
const MAX_KEPT: usize = 2_000;
/// Facts that the file keeps at most.
const MAX_FACTS: usize = 500;
/// A file larger than this is no memory of ours.
const MAX_BYTES: u64 = 64 << 20;

/// What the file holds. Fields that are not known are kept as they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Content {
    #[serde(default)]
    history: Vec<Said>,
    #[serde(default)]
    facts: Vec<Fact>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

/// A memory in a file.
pub struct FileMemory {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    /// What was said to the user already: once is enough.
    told: Mutex<Option<String>>,
}

impl FileMemory {
    /// The memory in the file `path`, which need not exist.
    pub fn new(path: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self { path, clock, told: Mutex::new(None) }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, what: &'static str, why: impl ToString) -> Error {
        Error { file: self.path.display().to_string(), what, why: why.to_string() }
    }

    /// Reads the file. What is no memory is set aside, so that it is not lost and not in the way.
    fn read(&self) -> Result<(Content, Option<String>), Error> {
        let text = match self.text() {
            Ok(Some(text)) => text,
            Ok(None) => return Ok((Content::default(), None)),
            Err(error) => return Err(self.error("can't be read", error)),
        };
        if text.trim().is_empty() {
            return Ok((Content::default(), None));
        }
        match serde_json::from_str(&text) {
            Ok(content) => Ok((content, None)),
            Err(error) => {
                let aside = self.aside();
                std::fs::rename(&self.path, &aside)
                    .map_err(|why| self.error("is damaged and can't be set aside", why))?;
                let warning = format!(
                    "the memory {} is damaged ({error}); it was set aside as {} and a new one begins",
                    self.path.display(),
                    aside.display()
                );
                Ok((Content::default(), Some(warning)))
            }
        }
    }

    fn text(&self) -> std::io::Result<Option<String>> {
        let mut options = OpenOptions::new();
        // What is there may be a FIFO that somebody put there: opening it must not wait.
        options.read(true).custom_flags(NONBLOCK);
        let file = match options.open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(std::io::Error::other("it is not a regular file"));
        }
        if meta.len() > MAX_BYTES {
            return Err(std::io::Error::other("it is too large for a memory; move it away"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// A name that is free.
    fn aside(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stamp = self.clock.now().as_micros() / 1_000_000;
        (0_u32..)
            .map(|n| {
                if n == 0 { format!("{name}.corrupt-{stamp}") } else { format!("{name}.corrupt-{stamp}-{n}") }
            })
            .map(|name| self.path.with_file_name(name))
            .find(|path| path.symlink_metadata().is_err())
            .expect("an endless range holds a free name")
    }

    /// Changes the file under its lock.
    fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> Result<T, Error> {
        let _lock = self.lock()?;
        let (mut content, warning) = self.read()?;
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
            *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(warning);
        }
        let made = change(&mut content);
        let drop = content.history.len().saturating_sub(MAX_KEPT);
        content.history.drain(..drop);
        let drop = content.facts.len().saturating_sub(MAX_FACTS);
        content.facts.drain(..drop);
        self.write(&content).map_err(|error| self.error("can't be written", error))?;
        Ok(made)
    }

    /// Held until the value is dropped; also by a process that died it is free at once.
    fn lock(&self) -> Result<File, Error> {
        let fail = |error: std::io::Error| self.error("can't be locked", error);
        let folder = self.folder().map_err(fail)?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600).custom_flags(NOFOLLOW | NONBLOCK);
        let lock = options.open(folder.join(format!(".{name}.lock"))).map_err(fail)?;
        lock.lock().map_err(fail)?;
        Ok(lock)
    }

    /// The folder of the file, made if it is not there. A folder of our own making keeps what it holds out of git.
    fn folder(&self) -> std::io::Result<PathBuf> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        if !folder.is_dir() {
            std::fs::create_dir_all(folder)?;
            if folder.ends_with(".forge/memory") {
                std::fs::write(folder.join(".gitignore"), "*\n")?;
            }
        }
        Ok(folder.to_owned())
    }

    fn write(&self, content: &Content) -> std::io::Result<()> {
        let folder = self.folder()?;
        if self.path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
            return Err(std::io::Error::other("it is a symbolic link; put a file in its place"));
        }
        let mut text = serde_json::to_string_pretty(content)?;
        text.push('\n');
        let mut draft = tempfile::Builder::new().prefix(".memory-").tempfile_in(&folder)?;
        draft.write_all(text.as_bytes())?;
        let mode = self.path.metadata().map_or(0o600, |meta| meta.permissions().mode() & 0o777);
        draft.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
        draft.as_file().sync_all()?;
        draft.persist(&self.path).map_err(|error| error.error)?;
        // The name is durable with the folder.
        File::open(&folder)?.sync_all()
    }

    fn set(content: &mut Content, fact: Fact) -> bool {
        match content.facts.iter_mut().find(|old| old.key == fact.key) {
            Some(old) => {
                old.value = fact.value;
                true
            }
            None => {
                content.facts.push(fact);
                false
            }
        }
    }
}

/// `O_NONBLOCK` and `O_NOFOLLOW` of Linux, on all its architectures that Forge is built for.
const NONBLOCK: i32 = 0o4000;
#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
const NOFOLLOW: i32 = 0o100_000;
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm")))]
const NOFOLLOW: i32 = 0o400_000;

#[async_trait]
impl Memory for FileMemory {
    async fn recall(&self) -> Remembered {
        if self.path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Remembered::default();
        }
        let read = match self.lock() {
            Ok(_lock) => self.read(),
            // A folder that can't be written may still be read.
            Err(_) => self.read(),
        };
        let earlier = self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
        match read {
            Ok((content, warning)) => {
                Remembered { history: content.history, facts: content.facts, warning: warning.or(earlier) }
            }
            Err(error) => Remembered { warning: Some(error.to_string()), ..Remembered::default() },
        }
    }

    async fn get_facts(&self) -> Vec<Fact> {
        self.recall().await.facts
    }

    async fn add_turn(&self, said: Vec<Said>) -> Result<(), Error> {
        self.change(|content| content.history.extend(said))
    }

    async fn add_fact(&self, fact: Fact) -> Result<(), Error> {
        self.change(|content| {
            let _ = Self::set(content, fact);
        })
    }

    async fn update_fact(&self, fact: Fact) -> Result<bool, Error> {
        self.change(|content| {
            let known = content.facts.iter().any(|old| old.key == fact.key);
            known && Self::set(content, fact)
        })
    }

    async fn clear_history(&self) -> Result<(), Error> {
        self.change(|content| content.history.clear())
    }
}
