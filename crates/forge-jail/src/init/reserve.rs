//! Which user id a box of root gets: one that no other living box of this machine has.
//!
//! An id is reserved twice. A lock on one byte of a file in a directory that only root can enter is what counts: no
//! other user can take it. A name in the abstract socket namespace holds the id where two of root's processes see
//! different files, in a container that shares the host's network, say. Any user can take such names, so one that is
//! taken makes another id be tried, and prevents nothing.
//!
//! The process that has the box holds both, and its init holds the name as well: nothing of the host's files is open in
//! it. The kernel frees them with their holders.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use crate::sys;
use forge_files::PrivateDir;

/// First of the user ids given to boxes of root: above what systemd gives to containers, below its reserved end.
pub(crate) const FIRST_UID: u32 = 0x7000_0000;
/// How many such ids there are.
pub(crate) const UID_COUNT: u32 = 0x0040_0000;
/// The directory of what root's boxes have reserved. It is in memory, and nobody but root can make it.
const RESERVATION_DIR: &str = "/run/forge-sandbox";
/// The file in it with one byte for each id.
const LOCK_FILE_NAME: &str = "run-users";
/// Ids that are tried before names that others have taken count for nothing.
const MAX_TRIES: usize = 256;

/// An id that is taken for as long as this, or a copy of its descriptors, is there.
#[derive(Debug)]
pub(crate) struct ReservedUid {
    id: u32,
    _lock: Option<OwnedFd>,
    name: Option<UnixDatagram>,
}

/// An id as the init has it: told by the process that has the box, with the name if there is one.
#[derive(Debug)]
pub(crate) struct InheritedUid {
    pub(crate) id: u32,
    pub(super) _name: Option<OwnedFd>,
}

impl ReservedUid {
    /// Takes an id that nothing else has; `kept` is tried first, and is worth more than its name.
    ///
    /// # Errors
    /// When none is free, which takes millions of boxes, or a machine where root cannot make files in `/run` and
    /// somebody else has taken the names.
    pub(crate) fn reserve(kept: Option<u32>) -> io::Result<Self> {
        Self::reserve_in(Path::new(RESERVATION_DIR), kept, bind_name_socket)
    }

    fn reserve_in(
        directory: &Path,
        kept: Option<u32>,
        name: impl Fn(u32) -> io::Result<Option<UnixDatagram>>,
    ) -> io::Result<Self> {
        // Where there is no such directory, names alone have to do.
        let locks = || {
            PrivateDir::open_or_create(directory).ok().and_then(|directory| open_lock_file(&directory).ok())
        };
        let candidates = kept.into_iter().chain(std::iter::repeat_with(random_uid).take(MAX_TRIES));
        for id in candidates {
            let lock = locks();
            if !try_lock_uid(lock.as_ref(), id)? {
                continue;
            }
            let name = name(id)?;
            if name.is_some() || (kept == Some(id) && lock.is_some()) {
                return Ok(Self { id, _lock: lock, name });
            }
        }
        // Somebody sits on names: the lock says what is free.
        for id in std::iter::repeat_with(random_uid).take(MAX_TRIES) {
            let lock = locks();
            if lock.is_some() && try_lock_uid(lock.as_ref(), id)? {
                return Ok(Self { id, _lock: lock, name: None });
            }
        }
        Err(io::Error::from_raw_os_error(libc::EADDRINUSE))
    }

    /// The id, of the user and of the group.
    pub(crate) const fn id(&self) -> u32 {
        self.id
    }

    /// The name, for another process to hold as well.
    pub(crate) fn clone_name_socket(&self) -> io::Result<Option<OwnedFd>> {
        self.name.as_ref().map(|name| name.as_fd().try_clone_to_owned()).transpose()
    }
}

/// Any of the ids; nobody else can know which.
fn random_uid() -> u32 {
    let random = RandomState::new().build_hasher().finish();
    FIRST_UID + u32::try_from(random % u64::from(UID_COUNT)).unwrap_or_default()
}

fn open_lock_file(directory: &PrivateDir) -> io::Result<OwnedFd> {
    let file = forge_files::open_or_create(&directory.path().join(LOCK_FILE_NAME));
    file.map(OwnedFd::from).map_err(forge_files::Error::into_io_error)
}

/// Whether nobody has the id, as far as locks tell; from now on it is this one's.
fn try_lock_uid(lock: Option<&OwnedFd>, id: u32) -> io::Result<bool> {
    lock.map_or(Ok(true), |lock| sys::lock_byte(lock.as_fd(), id - FIRST_UID))
}

/// The name of an id, unless somebody has it.
fn bind_name_socket(id: u32) -> io::Result<Option<UnixDatagram>> {
    let address = SocketAddr::from_abstract_name(format!("forge-jail-uid-{id}"))?;
    match UnixDatagram::bind_addr(&address) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn take(directory: &Path, kept: Option<u32>) -> u32 {
        ReservedUid::reserve_in(directory, kept, bind_name_socket).unwrap().id()
    }

    #[test]
    fn no_two_have_the_same_id() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("locks");
        let taken: Vec<_> =
            (0..64).map(|_| ReservedUid::reserve_in(&directory, None, bind_name_socket).unwrap()).collect();
        let ids: BTreeSet<u32> = taken.iter().map(ReservedUid::id).collect();
        assert_eq!(ids.len(), 64);
        assert!(ids.iter().all(|id| (FIRST_UID..FIRST_UID + UID_COUNT).contains(id)));
        // One that is kept is free again after its holder, and not before.
        let id = taken[0].id();
        assert_ne!(take(&directory, Some(id)), id);
        drop(taken);
        assert_eq!(take(&directory, Some(id)), id);
    }

    #[test]
    fn names_that_are_taken_prevent_nothing() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("locks");
        let all = |_| Ok(None);
        let one = ReservedUid::reserve_in(&directory, None, all).unwrap();
        let other = ReservedUid::reserve_in(&directory, Some(one.id()), all).unwrap();
        assert_ne!(one.id(), other.id());
        let id = one.id();
        drop(one);
        assert_eq!(ReservedUid::reserve_in(&directory, Some(id), all).unwrap().id(), id);
    }

    #[test]
    fn names_hold_an_id_where_there_is_no_directory() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        let one = ReservedUid::reserve_in(&file, None, bind_name_socket).unwrap();
        assert_ne!(take(&file, Some(one.id())), one.id());
        assert!(ReservedUid::reserve_in(&file, None, |_| Ok(None)).is_err());
    }
}
