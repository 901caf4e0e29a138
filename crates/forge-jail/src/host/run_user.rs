//! Selection of the user id for a sandbox started by root: one that no other running sandbox of this machine has.
//!
//! An id is reserved twice. The decisive reservation is a lock on one byte of a file in a directory that only root can
//! enter: no other user can take it. A name in the abstract socket namespace reserves the id where two of root's
//! processes see different files, for example in a container that shares the host's network. Any user can take such
//! names, so a taken name only causes another id to be tried, and prevents nothing.
//!
//! The process that owns the sandbox holds both, and its init holds the name as well: no host file is open in the init.
//! The kernel frees them with their holders.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use crate::sys;
use crate::user_ids::{FIRST_UID, UID_COUNT, can_change_user, is_run_user_id};
use forge_files::PrivateDir;
use forge_jail_protocol::{JailSpec, RootMode};

/// The directory of the reservations of root's sandboxes. It is in memory, and only root can create it.
const RESERVATION_DIR: &str = "/run/forge-sandbox";
/// The file in it with one byte for each id.
const LOCK_FILE_NAME: &str = "run-users";
/// Number of ids to try before taken names are ignored.
const MAX_TRIES: usize = 256;

/// An id that is reserved while this, or a copy of its descriptors, exists.
#[derive(Debug)]
pub(crate) struct ReservedUid {
    id: u32,
    _lock: Option<OwnedFd>,
    name: Option<UnixDatagram>,
}

impl ReservedUid {
    /// Reserves an unused id; `kept` is tried first, and its lock suffices even if its name is taken.
    ///
    /// # Errors
    /// When no id is free, which takes millions of sandboxes, or a machine where root cannot create files in `/run` and
    /// another process has taken the names.
    pub(crate) fn reserve(kept: Option<u32>) -> io::Result<Self> {
        Self::reserve_in(Path::new(RESERVATION_DIR), kept, bind_name_socket)
    }

    fn reserve_in(
        directory: &Path,
        kept: Option<u32>,
        name: impl Fn(u32) -> io::Result<Option<UnixDatagram>>,
    ) -> io::Result<Self> {
        // Without such a directory, names alone have to suffice.
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
        // Another process occupies the names: the lock alone decides.
        for id in std::iter::repeat_with(random_uid).take(MAX_TRIES) {
            let lock = locks();
            if lock.is_some() && try_lock_uid(lock.as_ref(), id)? {
                return Ok(Self { id, _lock: lock, name: None });
            }
        }
        Err(io::Error::from_raw_os_error(libc::EADDRINUSE))
    }

    /// Returns the id of the user, which is also that of the group.
    pub(crate) const fn id(&self) -> u32 {
        self.id
    }

    /// Duplicates the name's socket, for another process to hold as well.
    pub(crate) fn clone_name_socket(&self) -> io::Result<Option<OwnedFd>> {
        self.name.as_ref().map(|name| name.as_fd().try_clone_to_owned()).transpose()
    }
}

/// Reserves an unused id for a sandbox of these roots if root starts it; `None` for sandboxes of ordinary users.
pub(crate) fn reserve_run_user(spec: &JailSpec) -> io::Result<Option<ReservedUid>> {
    if !can_change_user(&std::fs::read_to_string("/proc/self/uid_map")?) {
        return Ok(None);
    }
    ReservedUid::reserve(previous_id(spec)).map(Some)
}

/// Returns the id that owns the files of an earlier sandbox of the same run, so that no owner has to change.
fn previous_id(spec: &JailSpec) -> Option<u32> {
    let folders = spec.roots.iter().filter_map(|root| match &root.mode {
        RootMode::Overlay { upper, .. } => Some(upper),
        RootMode::Owned => Some(&root.source),
        RootMode::Bind => None,
    });
    let mut owners = folders.filter_map(|folder| std::fs::metadata(folder).ok()).map(|meta| meta.uid());
    owners.find(|uid| is_run_user_id(*uid))
}

/// Returns a random id, which no other process can predict.
fn random_uid() -> u32 {
    let random = RandomState::new().build_hasher().finish();
    FIRST_UID + u32::try_from(random % u64::from(UID_COUNT)).unwrap_or_default()
}

fn open_lock_file(directory: &PrivateDir) -> io::Result<OwnedFd> {
    let file = forge_files::open_or_create(&directory.path().join(LOCK_FILE_NAME));
    file.map(OwnedFd::from).map_err(forge_files::Error::into_io_error)
}

/// Locks the id; returns false if another holder has it. Without a lock file, returns true.
fn try_lock_uid(lock: Option<&OwnedFd>, id: u32) -> io::Result<bool> {
    lock.map_or(Ok(true), |lock| sys::lock_byte(lock.as_fd(), id - FIRST_UID))
}

/// Binds the name of an id, unless another process holds it.
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
        // A kept id is free only after its holder is gone.
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
