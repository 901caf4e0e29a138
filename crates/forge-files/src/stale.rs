//! Files and directories that belong to one process and would outlive it if it were killed. Their names identify the
//! process, which distinguishes stale ones from those of a running process.
//!
//! A name proves nothing, because anyone who can create files in a directory can choose such names. Stale entries are
//! searched for in trusted directories only and are removed only if they belong to this user.

use crate::remove::{RequiredOwner, is_own, remove_at};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Stat};
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Prefix of all such names. The kind, process ID, start time, PID namespace, a counter and a random number follow.
const NAME_PREFIX: &str = "forge-";
/// Flags without `NOFOLLOW`: the caller may name a directory by a link; only the owner of its target matters.
const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Creates a unique, unpredictable name of this kind for a file or directory of this process. `kind` is one word.
#[must_use]
pub fn owned_temp_name(kind: &str) -> String {
    static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);
    let pid = std::process::id();
    let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new().build_hasher().finish();
    format!(
        "{NAME_PREFIX}{kind}-{pid}-{}-{}-{number}-{random:x}",
        process_start_time(pid).unwrap_or(0),
        pid_namespace()
    )
}

/// Finds entries of `directory` named by [`owned_temp_name`] with one of these kinds that belong to this user and to a
/// process that no longer exists. Returns nothing if others could have moved them there. In a directory where others
/// can create files, remove them with [`crate::remove_own_tree`].
#[must_use]
pub fn find_stale(directory: &Path, kinds: &[&str]) -> Vec<PathBuf> {
    // In a sticky directory, only the owner of a file or of the directory can move the file.
    let keeps = |stat: &Stat| {
        (is_own(stat.st_uid) || stat.st_uid == 0) && (stat.st_mode & 0o022 == 0 || stat.st_mode & 0o1000 != 0)
    };
    let Some(opened) = open_trusted_dir(directory, keeps) else { return Vec::new() };
    stale_names(&opened, kinds).iter().map(|name| directory.join(to_os_str(name))).collect()
}

/// Removes stale entries of `directory`, if it belongs to this user and no other user can write to it. Returns the
/// removed paths.
pub fn remove_stale(directory: &Path, kinds: &[&str]) -> Vec<PathBuf> {
    let private = |stat: &Stat| is_own(stat.st_uid) && stat.st_mode & 0o022 == 0;
    let Some(opened) = open_trusted_dir(directory, private) else { return Vec::new() };
    let mut removed = Vec::new();
    for name in stale_names(&opened, kinds) {
        remove_at(opened.as_fd(), &name, RequiredOwner::Own);
        if rustix::fs::statat(&opened, &name, AtFlags::SYMLINK_NOFOLLOW).is_err() {
            removed.push(directory.join(to_os_str(&name)));
        }
    }
    removed
}

fn open_trusted_dir(directory: &Path, wanted: impl Fn(&Stat) -> bool) -> Option<OwnedFd> {
    let opened = rustix::fs::openat(CWD, directory, DIRECTORY_FLAGS, Mode::empty()).ok()?;
    rustix::fs::fstat(&opened).is_ok_and(|stat| wanted(&stat)).then_some(opened)
}

/// Returns the names of stale entries of an open directory that belong to this user.
fn stale_names(directory: &OwnedFd, kinds: &[&str]) -> Vec<CString> {
    let mut found = Vec::new();
    let Ok(mut entries) = Dir::read_from(directory) else { return found };
    while let Some(Ok(entry)) = entries.read() {
        let name = entry.file_name();
        let stale = name.to_str().is_ok_and(|name| kinds.iter().any(|kind| is_stale(name, kind)));
        let own = || {
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
            stat.is_ok_and(|stat| is_own(stat.st_uid))
        };
        if stale && own() {
            found.push(name.to_owned());
        }
    }
    found
}

fn to_os_str(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

/// Returns whether a name was made by [`owned_temp_name`] for this kind in a process that no longer exists.
#[must_use]
pub fn is_stale(name: &str, kind: &str) -> bool {
    let rest = name.strip_prefix(NAME_PREFIX).and_then(|name| name.strip_prefix(kind)?.strip_prefix('-'));
    let mut parts = rest.unwrap_or_default().split(['-', '.']);
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (Some(pid), Some(started), Some(home)) = (number(), number(), number()) else { return false };
    // Processes of another PID namespace are not visible from here.
    home == pid_namespace() && u32::try_from(pid).is_ok_and(|pid| process_start_time(pid) != Some(started))
}

/// Returns the PID namespace in which process IDs are valid.
fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino())
}

/// Returns the start time of a process in clock ticks since boot, which together with its ID identifies it uniquely.
fn process_start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_named_is_stale() {
        let (one, other) = (owned_temp_name("box"), owned_temp_name("box"));
        assert_ne!(one, other);
        assert!(!is_stale(&one, "box") && !is_stale(&format!("{one}.pem"), "box"));
        let dead = format!("forge-box-4194304-12-{}-0", pid_namespace());
        assert!(is_stale(&dead, "box") && is_stale(&format!("{dead}.pem"), "box"));
        let elsewhere = "forge-box-4194304-12-1-0";
        for name in [elsewhere, "forge-box-12", "forge-box-a-b-c", "forge-boxes-0", "box", &dead[6..]] {
            assert!(!is_stale(name, "box"), "{name}");
        }
        assert!(!is_stale(&dead, "other"));
        let directory = tempfile::tempdir().unwrap();
        for name in [&one, &dead] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(find_stale(directory.path(), &["other", "box"]), [directory.path().join(&dead)]);
    }
}
