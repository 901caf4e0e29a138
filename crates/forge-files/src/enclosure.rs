//! Whether a place is in one of several directories: decided by walking up from where the place really is, not by
//! comparing paths, which links, `..` and mounts make ambiguous.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Device and inode number of a directory.
type DirectoryId = (u64, u64);

/// Longest chain of links that lead nowhere.
const MAX_DANGLING_LINKS: usize = 40;
/// Deepest directory, as a guard against trees that change while they are walked.
const MAX_DEPTH: usize = 4096;

/// A place that is in a directory, or is that directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnclosedPlace {
    /// The place as it was named.
    pub place: PathBuf,
    /// Index of the directory.
    pub directory: usize,
}

/// Finds a place that is in one of `directories`, each given by its device and inode number, or is one of them. Links in
/// a place are followed. For one that does not exist, the directory counts in which it would be created.
///
/// # Errors
/// A place cannot be examined.
pub fn find_enclosed_place(
    places: &[PathBuf],
    directories: &[DirectoryId],
) -> io::Result<Option<EnclosedPlace>> {
    for place in places {
        let found = Ascent::begin(place)?.find(directories)?;
        if let Some(directory) = found {
            return Ok(Some(EnclosedPlace { place: place.clone(), directory }));
        }
    }
    Ok(None)
}

/// Returns the symbolic links in a directory and in the directories in it. What cannot be read has none.
#[must_use]
pub fn list_links(directory: &Path) -> Vec<PathBuf> {
    let entries = |directory: &Path| std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut links = Vec::new();
    for entry in entries(directory) {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_symlink() {
            links.push(entry.path());
        } else if kind.is_dir() {
            let below = entries(&entry.path());
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
            links.extend(below.map(|entry| entry.path()));
        }
    }
    links
}

/// A walk from a directory up to the root.
struct Ascent {
    at: OwnedFd,
    /// Path of the directory without links.
    path: PathBuf,
}

impl Ascent {
    /// Begins at a directory, or at the nearest one that exists around something else.
    fn begin(place: &Path) -> io::Result<Self> {
        let mut place = place.to_owned();
        let mut links = 0;
        loop {
            let real = match std::fs::canonicalize(&place) {
                Ok(real) if real.is_dir() => real,
                Ok(real) => real.parent().unwrap_or(Path::new("/")).to_owned(),
                // A loop of links, too.
                Err(_) => {
                    let around = place.parent().unwrap_or(Path::new("/")).to_owned();
                    links += 1;
                    place = match std::fs::read_link(&place) {
                        Ok(target) if links < MAX_DANGLING_LINKS => around.join(target),
                        _ => around,
                    };
                    continue;
                }
            };
            return Ok(Self { at: open_directory(&real)?, path: real });
        }
    }

    /// Returns the index of the first directory that is met.
    fn find(mut self, directories: &[DirectoryId]) -> io::Result<Option<usize>> {
        let mut id = directory_id(&self.at)?;
        for _ in 0..MAX_DEPTH {
            if let Some(index) = directories.iter().position(|directory| *directory == id) {
                return Ok(Some(index));
            }
            self.at = match rustix::fs::openat(&self.at, "..", FLAGS, Mode::empty()) {
                Ok(above) => above,
                // Not searchable by this user.
                Err(Errno::ACCESS) => open_directory(self.path.parent().unwrap_or(Path::new("/")))?,
                Err(errno) => return Err(errno.into()),
            };
            self.path.pop();
            let above = directory_id(&self.at)?;
            if above == id {
                return Ok(None);
            }
            id = above;
        }
        Err(io::Error::other(format!("{}: too deep", self.path.display())))
    }
}

const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let opened = rustix::fs::openat(CWD, path, FLAGS, Mode::empty());
    opened.map_err(|errno| io::Error::other(format!("{}: {errno}", path.display())))
}

fn directory_id(directory: &OwnedFd) -> io::Result<DirectoryId> {
    let stat = rustix::fs::fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    fn id(path: &Path) -> DirectoryId {
        let meta = fs::metadata(path).unwrap();
        (meta.dev(), meta.ino())
    }

    #[test]
    fn a_place_is_in_a_directory_however_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["repo/data/runs", "repo/deep", "other", "disk"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("repo/file"), "").unwrap();
        symlink(at("repo"), at("link")).unwrap();
        symlink(at("repo/file"), at("other/file")).unwrap();
        symlink(at("repo/later/data"), at("other/dangling")).unwrap();
        symlink("loop", at("other/loop")).unwrap();
        let (repo, other) = (id(&at("repo")), id(&at("disk")));
        for place in [
            "repo",
            "repo/data",
            "repo/data/runs/../../later/still-later",
            "link/data",
            "link/later",
            "other/file",
            "other/dangling",
            "other/../link/deep/..",
        ] {
            let found = find_enclosed_place(&[at("other"), at(place)], &[other, repo]).unwrap();
            let wanted = EnclosedPlace { place: at(place), directory: 1 };
            assert_eq!(found, Some(wanted), "{place}");
        }
        for place in ["other", "other/later", "other/loop", "", "disk-of-another-name"] {
            assert_eq!(find_enclosed_place(&[at(place)], &[other, repo]).unwrap(), None, "{place}");
        }
    }

    #[test]
    fn links_of_two_levels_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("images/base")).unwrap();
        for link in ["runs", "images/python", "images/base/bin"] {
            symlink("/nowhere", dir.path().join(link)).unwrap();
        }
        let mut links = list_links(dir.path());
        links.sort();
        assert_eq!(links, ["images/python", "runs"].map(|link| dir.path().join(link)));
        assert!(list_links(&dir.path().join("missing")).is_empty());
    }
}
