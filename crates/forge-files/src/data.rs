//! Ownership checks for the data directory. Forge trusts its contents, so no other user may have put them there.

use crate::remove;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Reasons for rejecting a data directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotOwnData {
    /// The directory or one of its entries belongs to another user.
    #[error(
        "{} belongs to user {owner}, who could change what forge keeps there; run forge as that user, make it yours \
         with `chown -R`, or set XDG_DATA_HOME to another directory",
        path.display()
    )]
    Foreign {
        /// Path of the directory or of its entry.
        path: PathBuf,
        /// User ID of the owner.
        owner: u32,
    },
    /// A system call failed.
    #[error("cannot inspect the data directory {}: {source}", path.display())]
    Io {
        /// Path of the directory or of its entry.
        path: PathBuf,
        /// Underlying error.
        source: std::io::Error,
    },
}

/// Checks that an existing data directory and its entries belong to this user, and removes other users' write
/// permission from the directory, its entries and the directories that they link to. Symlinks owned by this user are followed because data may be on another disk.
///
/// # Errors
/// [`NotOwnData`] if the directory, one of its entries, or the target of such an entry belongs to another user.
pub fn check_data_directory(path: &Path) -> Result<(), NotOwnData> {
    let failed = |errno: Errno| NotOwnData::Io { path: path.to_owned(), source: errno.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(opened) => opened,
        // The code that creates the directory reports the error.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(Errno::ACCESS) => {
            let stat = rustix::fs::statat(CWD, path, AtFlags::empty()).map_err(failed)?;
            return if remove::is_own(stat.st_uid) {
                Err(failed(Errno::ACCESS))
            } else {
                Err(NotOwnData::Foreign { path: path.to_owned(), owner: stat.st_uid })
            };
        }
        Err(errno) => return Err(failed(errno)),
    };
    let stat = rustix::fs::fstat(&opened).map_err(failed)?;
    if !remove::is_own(stat.st_uid) {
        return Err(NotOwnData::Foreign { path: path.to_owned(), owner: stat.st_uid });
    }
    // Another user's link can lead into any directory of this user.
    let named = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    if !remove::is_own(named.st_uid) {
        return Err(NotOwnData::Foreign { path: path.to_owned(), owner: named.st_uid });
    }
    remove_others_write(&opened, stat.st_mode).map_err(failed)?;
    for entry in Dir::read_from(&opened).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            check_entry(&opened, path, OsStr::from_bytes(entry.file_name().to_bytes()))?;
        }
    }
    Ok(())
}

fn check_entry(directory: &OwnedFd, path: &Path, name: &OsStr) -> Result<(), NotOwnData> {
    let stat = |flags| rustix::fs::statat(directory.as_fd(), name, flags);
    let foreign = |owner| Err(NotOwnData::Foreign { path: path.join(name), owner });
    let failed = |errno: Errno| NotOwnData::Io { path: path.join(name), source: errno.into() };
    let found = match stat(AtFlags::SYMLINK_NOFOLLOW) {
        // Another process of this user has removed it.
        Err(Errno::NOENT) => return Ok(()),
        found => found.map_err(failed)?,
    };
    if !remove::is_own(found.st_uid) {
        return foreign(found.st_uid);
    }
    if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
        // By name, because opening and closing a database would release the locks that this process has on it. No
        // other user can exchange the entry: the directory is not writable for them any more.
        if found.st_mode & OTHERS_WRITE == 0 {
            return Ok(());
        }
        return match rustix::fs::chmodat(
            directory,
            name,
            mode_without_others_write(found.st_mode),
            AtFlags::empty(),
        ) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed(errno)),
        };
    }
    let Ok(target) = stat(AtFlags::empty()) else {
        return Ok(());
    };
    if !remove::is_own(target.st_uid) {
        return foreign(target.st_uid);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(target) = rustix::fs::openat(directory, name, flags, Mode::empty()) else {
        return Ok(());
    };
    let stat = rustix::fs::fstat(&target).map_err(failed)?;
    if remove::is_own(stat.st_uid) {
        remove_others_write(&target, stat.st_mode).map_err(failed)
    } else {
        foreign(stat.st_uid)
    }
}

/// Write permission of the group and of all others.
const OTHERS_WRITE: u32 = 0o022;

fn mode_without_others_write(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777 & !OTHERS_WRITE)
}

fn remove_others_write(opened: &OwnedFd, mode: u32) -> Result<(), Errno> {
    if mode & OTHERS_WRITE == 0 {
        return Ok(());
    }
    rustix::fs::fchmod(opened, mode_without_others_write(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};

    #[test]
    fn a_data_directory_of_ones_own_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("forge");
        check_data_directory(&data).unwrap();
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
        fs::create_dir(dir.path().join("disk")).unwrap();
        fs::create_dir(data.join("pricing")).unwrap();
        fs::write(data.join("forge.db"), "").unwrap();
        for (path, mode) in [("disk", 0o777), ("forge/pricing", 0o1777), ("forge/forge.db", 0o666)] {
            fs::set_permissions(dir.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("../disk", data.join("runs")).unwrap();
        symlink("nowhere", data.join("images")).unwrap();
        check_data_directory(&data).unwrap();
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().mode() & 0o7777;
        assert_eq!(
            ["forge", "disk", "forge/pricing", "forge/forge.db"].map(mode),
            [0o755, 0o755, 0o1755, 0o644],
            "as octal: {:o} {:o} {:o} {:o}",
            mode("forge"),
            mode("disk"),
            mode("forge/pricing"),
            mode("forge/forge.db")
        );
    }

    #[test]
    fn what_somebody_else_put_into_a_data_directory_is_named() {
        if !rustix::process::geteuid().is_root() {
            println!("NOT TESTED: only root can make files of others");
            return;
        }
        let other = Some(4301);
        for what in ["the directory", "its link", "a directory", "a link", "a link's target"] {
            let dir = tempfile::tempdir().unwrap();
            let (data, disk) = (dir.path().join("forge"), dir.path().join("disk"));
            fs::create_dir(&data).unwrap();
            fs::create_dir(&disk).unwrap();
            match what {
                "the directory" => lchown(&data, other, other).unwrap(),
                "its link" => {
                    fs::remove_dir(&data).unwrap();
                    symlink("disk", &data).unwrap();
                    check_data_directory(&data).unwrap();
                    lchown(&data, other, other).unwrap();
                }
                "a directory" => {
                    fs::create_dir(data.join("runs")).unwrap();
                    lchown(data.join("runs"), other, other).unwrap();
                }
                "a link" => {
                    symlink("../disk", data.join("runs")).unwrap();
                    lchown(data.join("runs"), other, other).unwrap();
                }
                _ => {
                    symlink("../disk", data.join("runs")).unwrap();
                    lchown(&disk, other, other).unwrap();
                }
            }
            let error = check_data_directory(&data).expect_err(what);
            assert!(matches!(error, NotOwnData::Foreign { owner: 4301, .. }), "{what}: {error}");
        }
    }
}
