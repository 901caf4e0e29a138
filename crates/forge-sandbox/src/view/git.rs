//! The host's git, run on the repository of a run.

use forge_ports::sandbox::Error;
use forge_snapshot::compare::Beginning;
use forge_snapshot::{Item, RelPath};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where git is looked for on the host.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin";

/// What git knows of the files of a repository as they stood when a run began.
pub(super) struct Index(pub(super) PathBuf);

impl Beginning for Index {
    /// The content that git's index names, if the index saw the file with the very times, size and number that it had
    /// when the run began. Not if it was added or committed since, nor if git keeps it in another form than it stands
    /// on the disk (line ends, filters).
    fn content(&self, path: &RelPath, was: &Item) -> Option<Vec<u8>> {
        let name = OsStr::from_bytes(path.as_bytes());
        let list = ["ls-files", "--stage", "--debug", "--"].map(OsStr::new);
        let listed = host_git(&self.0, &[&list[..], &[name]].concat()).ok()?;
        let object = object_of(&String::from_utf8_lossy(&listed.stdout), was)?;
        // A git that does not know `GIT_NO_LAZY_FETCH` would fetch a missing blob, by a command of the configuration.
        let read = ["-c", "protocol.file.allow=never", "cat-file", "blob", &object];
        let blob = host_git(&self.0, &read).ok()?;
        (blob.status.success() && blob.stdout.len() as u64 == was.size).then_some(blob.stdout)
    }
}

/// The name of the content in the one entry that `git ls-files --stage --debug` lists, if it is of the file that `was`
/// describes.
fn object_of(listed: &str, was: &Item) -> Option<String> {
    let mut lines = listed.lines();
    let mut words = lines.next()?.split_whitespace();
    let (mode, object, stage) = (words.next()?, words.next()?, words.next()?);
    let (mut times, mut rest) = (Vec::new(), Vec::new());
    for line in lines {
        // The next entry: more than one stage, or a folder.
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
        // The index keeps 32 bits of it.
        && number(2)? == was.ino & 0xffff_ffff
        && number(6)? == was.size;
    let plain = mode.starts_with("100") && stage == "0" && object.bytes().all(|b| b.is_ascii_hexdigit());
    (same && plain).then(|| object.to_owned())
}

/// Runs the host's git on a repository, with nothing in force but the repository's own configuration, and of that
/// nothing that runs programs. As root it runs as the repository's owner.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place of this crate that runs the host's git; without a shell"
)]
pub(super) fn host_git(repo: &Path, arguments: &[impl AsRef<OsStr>]) -> Result<Output, Error> {
    const SETTINGS: &[&str] = &[
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "core.logAllRefUpdates=false",
        "core.alternateRefsCommand=true",
        "gc.auto=0",
        "maintenance.auto=false",
        "transfer.fsckObjects=true",
        "fetch.fsckObjects=true",
        "fetch.recurseSubmodules=false",
        "protocol.allow=never",
        "protocol.file.allow=always",
        "safe.directory=*",
    ];
    let mut git = Command::new("git");
    git.env_clear().env("PATH", PATH).env("HOME", "/nonexistent").env("LC_ALL", "C");
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
    git.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_NO_LAZY_FETCH", "1").env("GIT_LITERAL_PATHSPECS", "1");
    for setting in SETTINGS {
        git.args(["-c", setting]);
    }
    git.current_dir(repo).args(arguments).stdin(Stdio::null());
    let (uid, gid) = owner(repo)?;
    if rustix::process::geteuid().is_root() && uid != 0 {
        git.uid(uid).gid(gid);
    }
    git.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::View {
            why: "there is no git on this machine, which a branch needs; install it or use `--workspace transaction`"
                .to_owned(),
        },
        _ => Error::View { why: format!("git can't be started: {error}") },
    })
}

/// User and group of a repository's folder.
pub(super) fn owner(repo: &Path) -> Result<(u32, u32), Error> {
    let meta = std::fs::metadata(repo)
        .map_err(|error| Error::View { why: format!("{}: {error}", repo.display()) })?;
    Ok((meta.uid(), meta.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_snapshot::Kind;

    const LISTED: &str = "100644 78981922613b2afb6025042ff6bd878ac1994e85 0\ta b.txt
  ctime: 1795305747:942029787
  mtime: 1795305700:5
  dev: 65024\tino: 77
  uid: 0\tgid: 0
  size: 2\tflags: 0
";

    #[test]
    fn an_entry_counts_only_for_the_very_file_it_saw() {
        let was = Item {
            kind: Kind::File,
            mode: 0o644,
            size: 2,
            mtime_ns: 1_795_305_700_000_000_005,
            ctime_ns: 1_795_305_747_942_029_787,
            ino: (3 << 32) + 77,
            uid: 0,
            linked: false,
            readable: true,
        };
        assert_eq!(object_of(LISTED, &was).as_deref(), Some("78981922613b2afb6025042ff6bd878ac1994e85"));
        for other in [
            Item { size: 3, ..was },
            Item { mtime_ns: was.mtime_ns + 1, ..was },
            Item { ctime_ns: was.ctime_ns + 1, ..was },
            Item { ino: 78, ..was },
        ] {
            assert_eq!(object_of(LISTED, &other), None);
        }
        let conflicted = LISTED.replace(" 0\ta", " 1\ta");
        for listed in
            ["", "100644", &LISTED[..60], &conflicted, &LISTED.replace("100644", "160000"), &LISTED.repeat(2)]
        {
            assert_eq!(object_of(listed, &was), None, "{listed}");
        }
    }
}
