//! Contents of baseline files according to git's index, as the host's git reads it.

use super::repos::OpenRepo;
use forge_git::{Repository, ScratchRepository};
use forge_snapshot::compare::BaselineContents;
use forge_snapshot::{BaseItem, RelPath, WorkBounds};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Maximum size in bytes of an answer about one entry of the index.
const MAX_ENTRY_BYTES: u64 = 64 << 10;

/// The index of a repository's git, which may know the contents of files at the baseline.
pub(super) struct GitIndex {
    /// The repository; `None` if it is not available.
    repo: Option<OpenRepo>,
    /// Scratch repository in which git reads the index; `None` if it cannot.
    git: OnceLock<Option<ScratchRepository>>,
    /// Private directory for temporary files.
    temporary: PathBuf,
    /// Bounds of the work that asks; a stop ends git.
    bounds: WorkBounds,
}

impl GitIndex {
    pub(super) fn for_repo(repo: Option<OpenRepo>, temporary: &Path, bounds: &WorkBounds) -> Self {
        Self { repo, git: OnceLock::new(), temporary: temporary.to_owned(), bounds: bounds.clone() }
    }

    fn open_private(&self) -> Option<ScratchRepository> {
        let repository = Repository::find(self.repo.as_ref()?.work_tree()).ok()?;
        ScratchRepository::new(&repository, &self.temporary, &self.bounds).ok()?.with_index(&repository).ok()
    }
}

impl BaselineContents for GitIndex {
    /// Returns the content that git's index names, if the index saw the file with exactly the times, size and inode
    /// number of the baseline. Files that were added or committed since are not known, nor are those that git stores in
    /// another form than on disk (line ends, filters).
    fn baseline_content(&self, path: &RelPath, was: &BaseItem) -> Option<Vec<u8>> {
        let git = self.git.get_or_init(|| self.open_private()).as_ref()?;
        let list = ["ls-files", "--stage", "--debug", "--"].map(OsStr::new);
        let name = OsStr::from_bytes(path.as_bytes());
        let listed = git.run_query(&[&list[..], &[name]].concat(), MAX_ENTRY_BYTES).ok()??;
        let object = listed_object_id(&String::from_utf8_lossy(&listed), was)?;
        let read = ["cat-file", "blob", &object].map(OsStr::new);
        git.run_query(&read, was.size).ok()?.filter(|blob| blob.len() as u64 == was.size)
    }
}

/// Returns the object id of the only entry that `git ls-files --stage --debug` lists, if it is of the file that `was`
/// describes.
fn listed_object_id(listed: &str, was: &BaseItem) -> Option<String> {
    let mut lines = listed.lines();
    let mut words = lines.next()?.split_whitespace();
    let (mode, object, stage) = (words.next()?, words.next()?, words.next()?);
    let (mut times, mut rest) = (Vec::new(), Vec::new());
    for line in lines {
        // Another entry follows: more than one stage, or a directory.
        let (key, value) = line.strip_prefix("  ")?.split_once(": ")?;
        match key {
            "ctime" | "mtime" => {
                let (seconds, nanoseconds) = value.split_once(':')?;
                times.push(seconds.parse::<i64>().ok()? * 1_000_000_000 + nanoseconds.parse::<i64>().ok()?);
            }
            _ => rest.extend(value.split_whitespace().map(str::to_owned)),
        }
    }
    // dev, "ino:", ino, uid, "gid:", gid, size, "flags:", flags
    let number = |at: usize| rest.get(at)?.parse::<u64>().ok();
    let same = times == [was.ctime_ns, was.mtime_ns]
        // The index keeps only the low 32 bits.
        && number(2)? == was.ino & 0xffff_ffff
        && number(6)? == was.size;
    let plain = mode.starts_with("100") && stage == "0" && object.bytes().all(|b| b.is_ascii_hexdigit());
    (same && plain).then(|| object.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_snapshot::NodeKind;

    const LISTED: &str = "100644 78981922613b2afb6025042ff6bd878ac1994e85 0\ta b.txt
  ctime: 1795305747:942029787
  mtime: 1795305700:5
  dev: 65024\tino: 77
  uid: 0\tgid: 0
  size: 2\tflags: 0
";

    #[test]
    fn an_entry_counts_only_for_the_very_file_it_saw() {
        let was = BaseItem {
            kind: NodeKind::File,
            mode: 0o644,
            size: 2,
            mtime_ns: 1_795_305_700_000_000_005,
            ctime_ns: 1_795_305_747_942_029_787,
            ino: (3 << 32) + 77,
            uid: 0,
            linked: false,
            readable: true,
        };
        assert_eq!(
            listed_object_id(LISTED, &was).as_deref(),
            Some("78981922613b2afb6025042ff6bd878ac1994e85")
        );
        for other in [
            BaseItem { size: 3, ..was },
            BaseItem { mtime_ns: was.mtime_ns + 1, ..was },
            BaseItem { ctime_ns: was.ctime_ns + 1, ..was },
            BaseItem { ino: 78, ..was },
        ] {
            assert_eq!(listed_object_id(LISTED, &other), None);
        }
        let conflicted = LISTED.replace(" 0\ta", " 1\ta");
        for listed in
            ["", "100644", &LISTED[..60], &conflicted, &LISTED.replace("100644", "160000"), &LISTED.repeat(2)]
        {
            assert_eq!(listed_object_id(listed, &was), None, "{listed}");
        }
    }
}
