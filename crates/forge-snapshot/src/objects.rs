//! Contents by their digest, in one folder of a run.
//!
//! Small contents are appended to one pack file, larger ones are files named by their digest. One process writes at a
//! time; others may read meanwhile and see what was flushed. Deleting the folder deletes everything: nothing is shared
//! between runs.

mod pack;

use crate::bounds::Bounds;
use crate::copy::{self, Copied};
use crate::error::{During, Error};
use crate::host::{self, Stamp};
use forge_types::Digest;
use pack::Pack;
use rustix::fs::FlockOperation;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Contents up to this length live in the pack file.
pub(crate) const SMALL: u64 = 256 * 1024;
const HALF_MADE: &str = ".new-";

/// A content-addressed store in one folder.
#[derive(Debug)]
pub struct Objects {
    folder: PathBuf,
    state: Mutex<State>,
    /// Held while this process may write; `None`: it only reads.
    lock: Option<File>,
}

#[derive(Debug)]
struct State {
    pack: Pack,
    /// Digest and length of what is too large for the pack.
    large: HashMap<Digest, u64>,
    /// Names were added to the folder of large files since it was synced.
    large_dirty: bool,
    /// Whether the names in the store's own folder may not be on the disk yet.
    opened: bool,
    made: u64,
}

/// Whether a file may be written to while it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stillness {
    /// No: that is an error.
    Required,
    /// Yes: what is stored is some state that a reader could have seen.
    Whatever,
}

impl Objects {
    /// Opens the store in `folder` for writing; makes it if there is none. What a crash left half written is removed.
    ///
    /// # Errors
    /// [`Error::Busy`] while another process has it open for writing; the host's.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let large = folder.join("large");
        std::fs::create_dir_all(&large).during("make", &large)?;
        let path = folder.join("lock");
        let lock = File::create(&path).during("open", &path)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Busy { path: folder.to_owned() }),
            Err(error) => return Err(Error::io("lock", &path, error)),
        }
        let mut state = State {
            pack: Pack::open_for_writing(&folder.join("pack"))?,
            large: HashMap::new(),
            large_dirty: true,
            opened: true,
            made: 0,
        };
        for entry in std::fs::read_dir(&large).during("read", &large)? {
            let entry = entry.during("read", &large)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(HALF_MADE) {
                let _ = std::fs::remove_file(entry.path());
            } else if let Ok(digest) = name.parse() {
                state.large.insert(digest, entry.metadata().during("look at", &entry.path())?.len());
            }
        }
        Ok(Self { folder: folder.to_owned(), state: Mutex::new(state), lock: Some(lock) })
    }

    /// Opens the store in `folder` for reading, also while another process writes to it.
    ///
    /// # Errors
    /// The host's: there is no store, or it may not be read.
    pub fn open_read_only(folder: &Path) -> Result<Self, Error> {
        let pack = Pack::open_for_reading(&folder.join("pack"))?;
        let state = State { pack, large: HashMap::new(), large_dirty: false, opened: false, made: 0 };
        Ok(Self { folder: folder.to_owned(), state: Mutex::new(state), lock: None })
    }

    /// The folder of the store.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stores `bytes`. Durable after [`Objects::flush`]; what is stored already costs nothing.
    ///
    /// # Errors
    /// [`Error::Full`], after which everything stored before is still there; the host's.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        self.writable()?;
        if bytes.len() as u64 <= SMALL {
            self.state().pack.append(digest, bytes)?;
        } else if !self.contains(digest) {
            let (path, mut file) = self.half_made()?;
            let written = file.write_all(bytes).during("write", &path);
            self.finish(&path, &file, written, digest, bytes.len() as u64)?;
        }
        Ok(digest)
    }

    /// Stores the content of an open regular file of `size` bytes, wherever its cursor is.
    ///
    /// # Errors
    /// [`Error::Changed`] if it has another size or is written to meanwhile; [`Error::Full`]; [`Error::Ceiling`];
    /// [`Error::Stopped`]; the host's.
    pub fn put_file(&self, file: &File, size: u64, bounds: &Bounds) -> Result<Digest, Error> {
        let before = Stamp::of_open(file).during("look at", &self.folder)?;
        if before.size != size {
            return Err(Error::Changed { path: name_of(file) });
        }
        self.store(file, &before, Stillness::Required, bounds).map(|(digest, _)| digest)
    }

    /// Stores the content of a file whose stamp was `before`; returns its digest and length.
    pub(crate) fn store(
        &self,
        file: &File,
        before: &Stamp,
        still: Stillness,
        bounds: &Bounds,
    ) -> Result<(Digest, u64), Error> {
        self.writable()?;
        bounds.file(before.size, || name_of(file))?;
        let unchanged = |len: u64| match Stamp::of_open(file) {
            _ if still == Stillness::Whatever => Ok(()),
            Ok(after) if after.still(before) && len == before.size => Ok(()),
            Ok(_) => Err(Error::Changed { path: name_of(file) }),
            Err(error) => Err(Error::io("look at", &name_of(file), error)),
        };
        if before.size <= SMALL {
            let bytes = read_up_to(file, SMALL).during("read", &name_of(file))?;
            if let Some(bytes) = bytes {
                unchanged(bytes.len() as u64)?;
                return Ok((self.put(&bytes)?, bytes.len() as u64));
            }
            if still == Stillness::Required {
                return Err(Error::Changed { path: name_of(file) });
            }
        }
        let (path, copy) = self.half_made()?;
        let written = (|| {
            copy::content(file, &copy, before.size, bounds).during("write", &path)?;
            let (digest, len) = copy::digest(&copy, bounds).during("read", &path)?;
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
        if len <= SMALL {
            // It shrank meanwhile.
            let bytes = read_up_to(&copy, SMALL).during("read", &path)?.unwrap_or_default();
            let _ = std::fs::remove_file(&path);
            return Ok((self.put(&bytes)?, bytes.len() as u64));
        }
        self.finish(&path, &copy, Ok(()), digest, len)?;
        Ok((digest, len))
    }

    /// The whole of a content of at most `limit` bytes. What comes back is what was put: it is hashed again.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::TooLarge`], [`Error::Damaged`]; the host's.
    pub fn read(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, Error> {
        let mut content = self.open_object(digest)?;
        let size = content.len();
        if size > limit {
            return Err(Error::TooLarge { digest, size, limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        content.read_to_end(&mut bytes).during("read", &self.folder)?;
        if Digest::of(&bytes) != digest {
            return Err(Error::Damaged { what: format!("the stored content {digest}") });
        }
        Ok(bytes)
    }

    /// A stored content to be read piece by piece. Large ones are not hashed again.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Damaged`]; the host's.
    pub fn open_object(&self, digest: Digest) -> Result<Content, Error> {
        let mut state = self.state();
        if let Some(bytes) = state.pack.read(digest)? {
            return Ok(Content { from: Source::Memory(io::Cursor::new(bytes)) });
        }
        if self.lock.is_none()
            && state.pack.refresh()?
            && let Some(bytes) = state.pack.read(digest)?
        {
            return Ok(Content { from: Source::Memory(io::Cursor::new(bytes)) });
        }
        drop(state);
        let path = self.large(digest);
        match File::open(&path) {
            Ok(file) => {
                let len = file.metadata().during("look at", &path)?.len();
                Ok(Content { from: Source::Disk(file, len) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing { digest }),
            Err(error) => Err(Error::io("open", &path, error)),
        }
    }

    /// Writes a stored content into an empty file, sharing blocks where the file system can.
    pub(crate) fn copy_to(
        &self,
        digest: Digest,
        file: &File,
        path: &Path,
        bounds: &Bounds,
    ) -> Result<(), Error> {
        match self.open_object(digest)?.from {
            Source::Memory(bytes) => file.write_all_at(bytes.get_ref(), 0).during("write", path),
            Source::Disk(from, len) => {
                copy::content(&from, file, len, bounds).map(|_: Copied| ()).during("write", path)
            }
        }
    }

    /// Whether this content is stored.
    pub fn contains(&self, digest: Digest) -> bool {
        let mut state = self.state();
        if state.pack.holds(digest) || state.large.contains_key(&digest) {
            return true;
        }
        // A reader learns of what another process wrote.
        self.lock.is_none()
            && (matches!(state.pack.refresh(), Ok(true)) && state.pack.holds(digest)
                || self.large(digest).exists())
    }

    /// Makes everything put so far durable. Costs nothing if nothing was put since.
    ///
    /// # Errors
    /// The host's.
    pub fn flush(&self) -> Result<(), Error> {
        let mut state = self.state();
        if self.lock.is_none() {
            return Ok(());
        }
        if state.opened {
            host::sync_folder(&self.folder).during("write", &self.folder)?;
            state.opened = false;
        }
        if state.large_dirty {
            let large = self.folder.join("large");
            host::sync_folder(&large).during("write", &large)?;
            state.large_dirty = false;
        }
        state.pack.flush()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        let state = self.state();
        state.pack.len() + state.large.values().sum::<u64>()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self) -> Result<(), Error> {
        match self.lock {
            Some(_) => Ok(()),
            None => Err(Error::ReadOnly { path: self.folder.clone() }),
        }
    }

    fn large(&self, digest: Digest) -> PathBuf {
        self.folder.join("large").join(digest.to_string())
    }

    /// A new file that nobody finds before it has its name.
    fn half_made(&self) -> Result<(PathBuf, File), Error> {
        let mut state = self.state();
        state.made += 1;
        let path = self.folder.join("large").join(format!("{HALF_MADE}{}", state.made));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        Ok((path.clone(), file.during("make", &path)?))
    }

    /// Gives a written file its name, durably; removes it if it could not be written.
    fn finish(
        &self,
        path: &Path,
        file: &File,
        written: Result<(), Error>,
        digest: Digest,
        len: u64,
    ) -> Result<(), Error> {
        let done = written.and_then(|()| {
            if self.state().large.contains_key(&digest) {
                return std::fs::remove_file(path).during("remove", path);
            }
            file.sync_data().during("write", path)?;
            std::fs::rename(path, self.large(digest)).during("rename", path)?;
            let mut state = self.state();
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

impl Drop for Objects {
    /// Lets go of the lock at once: a child process that is just being started may hold a copy of the descriptor.
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            let _ = rustix::fs::flock(lock, FlockOperation::Unlock);
        }
    }
}

/// A stored content; see [`Objects::open_object`].
#[derive(Debug)]
pub struct Content {
    from: Source,
}

#[derive(Debug)]
enum Source {
    Memory(io::Cursor<Vec<u8>>),
    Disk(File, u64),
}

impl Content {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match &self.from {
            Source::Memory(bytes) => bytes.get_ref().len() as u64,
            Source::Disk(_, len) => *len,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.from {
            Source::Memory(bytes) => bytes.read(buffer),
            Source::Disk(file, _) => file.read(buffer),
        }
    }
}

/// The content of a file from its beginning; `None` if it is longer than `limit`.
fn read_up_to(file: &File, limit: u64) -> io::Result<Option<Vec<u8>>> {
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

/// What an open file is called, for messages.
fn name_of(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link).unwrap_or_else(|_| "a file of the workspace".into())
}
