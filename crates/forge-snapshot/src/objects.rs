//! A content-addressed store in one directory of a run.
//!
//! Small contents are appended to one pack file; larger ones are files named by their digest. One process writes at
//! a time; other processes may read concurrently and see flushed contents. Deleting the directory deletes
//! everything: runs share nothing.

mod pack;

use crate::bounds::WorkBounds;
use crate::copy::{self, CopyMethod};
use crate::error::{Error, IoContext};
use crate::host::{self, FileStamp};
use forge_types::Digest;
use pack::PackFile;
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::FlockOperation;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Maximum size of contents in the pack file.
pub(crate) const MAX_PACKED_BYTES: u64 = 256 * 1024;
const TEMP_OBJECT_PREFIX: &str = ".new-";

/// A content-addressed store in one directory.
#[derive(Debug)]
pub struct ObjectStore {
    directory: PathBuf,
    state: Mutex<StoreState>,
    /// The writer's lock; `None`: the store is read-only.
    lock: Option<File>,
}

#[derive(Debug)]
struct StoreState {
    pack: PackFile,
    /// Digest and size of contents that are too large for the pack.
    large: HashMap<Digest, u64>,
    /// Whether the directory of large files has new names since its last sync.
    large_dirty: bool,
    /// Whether the names in the store's own directory may not be durable yet.
    opened: bool,
    made: u64,
}

/// The handling of writes to a file while it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RaceCheck {
    /// A write is an error.
    Required,
    /// A write is allowed: the stored content is a state that a reader could have seen.
    Whatever,
}

impl ObjectStore {
    /// Opens the store in a directory for writing; creates it if it is missing. Removes partial writes of a crash.
    ///
    /// # Errors
    /// Returns [`Error::Busy`] while another process has it open for writing, or the host's error.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let large = folder.join("large");
        std::fs::create_dir_all(&large).io_context("create", &large)?;
        let path = folder.join("lock");
        let lock = File::create(&path).io_context("open", &path)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Busy { path: folder.to_owned() }),
            Err(error) => return Err(Error::from_io("lock", &path, error)),
        }
        let mut state = StoreState {
            pack: PackFile::open_for_writing(&folder.join("pack"))?,
            large: HashMap::new(),
            large_dirty: true,
            opened: true,
            made: 0,
        };
        for entry in std::fs::read_dir(&large).io_context("read", &large)? {
            let entry = entry.io_context("read", &large)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(TEMP_OBJECT_PREFIX) {
                let _ = std::fs::remove_file(entry.path());
            } else if let Ok(digest) = name.parse() {
                state.large.insert(digest, entry.metadata().io_context("inspect", &entry.path())?.len());
            }
        }
        Ok(Self { directory: folder.to_owned(), state: Mutex::new(state), lock: Some(lock) })
    }

    /// Opens the store in a directory read-only; another process may be writing to it.
    ///
    /// # Errors
    /// Returns the host's error if the store is missing or unreadable.
    pub fn open_read_only(folder: &Path) -> Result<Self, Error> {
        let pack = PackFile::open_for_reading(&folder.join("pack"))?;
        let state = StoreState { pack, large: HashMap::new(), large_dirty: false, opened: false, made: 0 };
        Ok(Self { directory: folder.to_owned(), state: Mutex::new(state), lock: None })
    }

    /// Returns the directory of the store.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Stores `bytes`. Durable after [`ObjectStore::flush`]; already stored contents cost nothing.
    ///
    /// # Errors
    /// Returns [`Error::Full`], after which earlier contents are preserved, or the host's error.
    pub fn store_bytes(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of_bytes(bytes);
        self.check_writable()?;
        if bytes.len() as u64 <= MAX_PACKED_BYTES {
            self.lock_state().pack.append(digest, bytes)?;
        } else if !self.contains(digest) {
            let (path, mut file) = self.create_temp()?;
            let written = file.write_all(bytes).io_context("write", &path);
            self.persist_temp(&path, &file, written, digest, bytes.len() as u64)?;
        }
        Ok(digest)
    }

    /// Stores the content of an open regular file of `size` bytes, independent of its cursor.
    ///
    /// # Errors
    /// Returns [`Error::Changed`] if the size differs or the file is written to; [`Error::Full`];
    /// [`Error::Ceiling`]; [`Error::Stopped`]; or the host's error.
    pub fn store_file(&self, file: &File, size: u64, bounds: &WorkBounds) -> Result<Digest, Error> {
        let before = FileStamp::stat_open(file).io_context("inspect", &self.directory)?;
        if before.size != size {
            return Err(Error::Changed { path: fd_path(file) });
        }
        self.store_checked(file, &before, RaceCheck::Required, bounds).map(|(digest, _)| digest)
    }

    /// Stores the content of a file with the previous stamp `before`; returns its digest and size.
    pub(crate) fn store_checked(
        &self,
        file: &File,
        before: &FileStamp,
        still: RaceCheck,
        bounds: &WorkBounds,
    ) -> Result<(Digest, u64), Error> {
        self.check_writable()?;
        bounds.check_file_size(before.size, || fd_path(file))?;
        let unchanged = |len: u64| match FileStamp::stat_open(file) {
            _ if still == RaceCheck::Whatever => Ok(()),
            Ok(after) if after.is_same_state(before) && len == before.size => Ok(()),
            Ok(_) => Err(Error::Changed { path: fd_path(file) }),
            Err(error) => Err(Error::from_io("inspect", &fd_path(file), error)),
        };
        if before.size <= MAX_PACKED_BYTES {
            let bytes = read_at_most(file, MAX_PACKED_BYTES).io_context("read", &fd_path(file))?;
            if let Some(bytes) = bytes {
                unchanged(bytes.len() as u64)?;
                return Ok((self.store_bytes(&bytes)?, bytes.len() as u64));
            }
            if still == RaceCheck::Required {
                return Err(Error::Changed { path: fd_path(file) });
            }
        }
        let (path, copy) = self.create_temp()?;
        let written = (|| {
            copy::copy_content(file, &copy, before.size, bounds).io_context("write", &path)?;
            let (digest, len) = copy::hash_file(&copy, bounds).io_context("read", &path)?;
            unchanged(len)?;
            Ok((digest, len))
        })();
        let (digest, len) = match written {
            Ok(done) => done,
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                return Err(error);
            }
        };
        if len <= MAX_PACKED_BYTES {
            // The file shrank in the meantime.
            let bytes = read_at_most(&copy, MAX_PACKED_BYTES).io_context("read", &path)?.unwrap_or_default();
            let _ = std::fs::remove_file(&path);
            return Ok((self.store_bytes(&bytes)?, bytes.len() as u64));
        }
        self.persist_temp(&path, &copy, Ok(()), digest, len)?;
        Ok((digest, len))
    }

    /// Returns a complete content of at most `limit` bytes, verified by its digest.
    ///
    /// # Errors
    /// Returns [`Error::Missing`], [`Error::TooLarge`], [`Error::Damaged`] or the host's error.
    pub fn read(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, Error> {
        let mut content = self.open_object(digest)?;
        let size = content.len();
        if size > limit {
            return Err(Error::TooLarge { digest, size, limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        content.read_to_end(&mut bytes).io_context("read", &self.directory)?;
        if Digest::of_bytes(&bytes) != digest {
            return Err(Error::Damaged { what: format!("the stored content {digest}") });
        }
        Ok(bytes)
    }

    /// Opens a stored content for reading in pieces. Large contents are not verified again.
    ///
    /// # Errors
    /// Returns [`Error::Missing`], [`Error::Damaged`] or the host's error.
    pub fn open_object(&self, digest: Digest) -> Result<ObjectReader, Error> {
        let mut state = self.lock_state();
        if let Some(bytes) = state.pack.read(digest)? {
            return Ok(ObjectReader { from: ObjectSource::Memory(io::Cursor::new(bytes)) });
        }
        if self.lock.is_none()
            && state.pack.read_new_records()?
            && let Some(bytes) = state.pack.read(digest)?
        {
            return Ok(ObjectReader { from: ObjectSource::Memory(io::Cursor::new(bytes)) });
        }
        drop(state);
        let path = self.large_object_path(digest);
        match File::open(&path) {
            Ok(file) => {
                let len = file.metadata().io_context("inspect", &path)?.len();
                Ok(ObjectReader { from: ObjectSource::Disk(file, len) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing { digest }),
            Err(error) => Err(Error::from_io("open", &path, error)),
        }
    }

    /// Writes a stored content into an empty file, with shared blocks where the file system supports it.
    pub(crate) fn copy_to(
        &self,
        digest: Digest,
        file: &File,
        path: &Path,
        bounds: &WorkBounds,
    ) -> Result<(), Error> {
        match self.open_object(digest)?.from {
            ObjectSource::Memory(bytes) => file.write_all_at(bytes.get_ref(), 0).io_context("write", path),
            ObjectSource::Disk(from, len) => {
                copy::copy_content(&from, file, len, bounds).map(|_: CopyMethod| ()).io_context("write", path)
            }
        }
    }

    /// Returns whether the content is stored.
    pub fn contains(&self, digest: Digest) -> bool {
        let mut state = self.lock_state();
        if state.pack.contains(digest) || state.large.contains_key(&digest) {
            return true;
        }
        // A reader picks up contents that another process has written.
        self.lock.is_none()
            && (matches!(state.pack.read_new_records(), Ok(true)) && state.pack.contains(digest)
                || self.large_object_path(digest).exists())
    }

    /// Makes all stored contents durable. Costs nothing if none were added.
    ///
    /// # Errors
    /// Returns the host's error.
    pub fn flush(&self) -> Result<(), Error> {
        let mut state = self.lock_state();
        if self.lock.is_none() {
            return Ok(());
        }
        if state.opened {
            host::sync_directory(&self.directory).io_context("write", &self.directory)?;
            state.opened = false;
        }
        if state.large_dirty {
            let large = self.directory.join("large");
            host::sync_directory(&large).io_context("write", &large)?;
            state.large_dirty = false;
        }
        state.pack.flush()
    }

    /// Returns the number of bytes on disk.
    pub fn bytes_on_disk(&self) -> u64 {
        let state = self.lock_state();
        state.pack.len() + state.large.values().sum::<u64>()
    }

    fn lock_state(&self) -> MutexGuard<'_, StoreState> {
        self.state.lock()
    }

    fn check_writable(&self) -> Result<(), Error> {
        match self.lock {
            Some(_) => Ok(()),
            None => Err(Error::ReadOnly { path: self.directory.clone() }),
        }
    }

    fn large_object_path(&self, digest: Digest) -> PathBuf {
        self.directory.join("large").join(digest.to_string())
    }

    /// Creates a file without a visible name.
    fn create_temp(&self) -> Result<(PathBuf, File), Error> {
        let mut state = self.lock_state();
        state.made += 1;
        let path = self.directory.join("large").join(format!("{TEMP_OBJECT_PREFIX}{}", state.made));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        Ok((path.clone(), file.io_context("create", &path)?))
    }

    /// Gives a written file its name, durably; removes the file if the write failed.
    fn persist_temp(
        &self,
        path: &Path,
        file: &File,
        written: Result<(), Error>,
        digest: Digest,
        len: u64,
    ) -> Result<(), Error> {
        let done = written.and_then(|()| {
            if self.lock_state().large.contains_key(&digest) {
                return std::fs::remove_file(path).io_context("remove", path);
            }
            file.sync_data().io_context("write", path)?;
            std::fs::rename(path, self.large_object_path(digest)).io_context("rename", path)?;
            let mut state = self.lock_state();
            state.large.insert(digest, len);
            state.large_dirty = true;
            Ok(())
        });
        if done.is_err() {
            let _ = std::fs::remove_file(path);
        }
        done
    }
}

impl Drop for ObjectStore {
    /// Releases the lock immediately: a child process that is being started may hold a copy of the descriptor.
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            let _ = rustix::fs::flock(lock, FlockOperation::Unlock);
        }
    }
}

/// A stored content; see [`ObjectStore::open_object`].
#[derive(Debug)]
pub struct ObjectReader {
    from: ObjectSource,
}

#[derive(Debug)]
enum ObjectSource {
    Memory(io::Cursor<Vec<u8>>),
    Disk(File, u64),
}

impl ObjectReader {
    /// Returns the size in bytes.
    pub fn len(&self) -> u64 {
        match &self.from {
            ObjectSource::Memory(bytes) => bytes.get_ref().len() as u64,
            ObjectSource::Disk(_, len) => *len,
        }
    }

    /// Returns whether the content is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.from {
            ObjectSource::Memory(bytes) => bytes.read(buffer),
            ObjectSource::Disk(file, _) => file.read(buffer),
        }
    }
}

/// Returns the content of a whole file; `None` if it is longer than `limit`.
fn read_at_most(file: &File, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut piece = vec![0_u8; 64 * 1024];
    while bytes.len() as u64 <= limit {
        match file.read_at(&mut piece, bytes.len() as u64) {
            Ok(0) => return Ok(Some(bytes)),
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Returns the path of an open file, for messages.
fn fd_path(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link).unwrap_or_else(|_| "a file of the workspace".into())
}
