//! What stands in a file's place.

use super::changing_file::ChangingFile;
use super::programs::run_program;
use super::targets::{HostileTarget, TargetSyntax};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// A hole that no memory holds, in a file of this size.
const SPARSE_BYTES: u64 = 20 << 30;
/// The same, longer than anybody waits for it to be read; where a file system has no such files it is the smaller one.
const HUGE_SPARSE_BYTES: u64 = 8 << 40;
/// One line that is longer than any setting.
const LONG_LINE_BYTES: usize = 3 << 20;
/// Brackets within brackets, in a text.
const BRACKET_LEVELS: usize = 200_000;
/// Directories within directories.
const DEEP_LEVELS: usize = 1_200;
/// Bytes of the name of each of them.
const DEEP_NAME_BYTES: usize = 200;

/// What is put into a path's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostileForm {
    Missing,
    Directory,
    Pipe,
    Socket,
    /// `/dev/zero` by another name; only root can make it, for others it is a link there.
    Device,
    LinkToZero,
    LinkOut,
    LinkLoop,
    Sparse,
    HugeSparse,
    Unreadable,
    /// Grows, shrinks and becomes other things while it is read.
    Changing,
    NotUtf8,
    LongLine,
    Brackets,
    Deep,
    /// A path that leads to somebody else's repository.
    LeadsOut,
}

/// All forms.
pub(super) const ALL_FORMS: [HostileForm; 17] = [
    HostileForm::Missing,
    HostileForm::Directory,
    HostileForm::Pipe,
    HostileForm::Socket,
    HostileForm::Device,
    HostileForm::LinkToZero,
    HostileForm::LinkOut,
    HostileForm::LinkLoop,
    HostileForm::Sparse,
    HostileForm::HugeSparse,
    HostileForm::Unreadable,
    HostileForm::Changing,
    HostileForm::NotUtf8,
    HostileForm::LongLine,
    HostileForm::Brackets,
    HostileForm::Deep,
    HostileForm::LeadsOut,
];

/// Where a hostile repository may lead.
pub(super) struct OutsideTargets<'a> {
    /// A file outside of it.
    pub(super) file: &'a Path,
    /// A directory outside of it.
    pub(super) directory: &'a Path,
    /// The git data of a repository outside of it.
    pub(super) git: &'a Path,
}

impl HostileForm {
    /// Whether it means anything for this target.
    pub(super) fn suits_target(self, target: HostileTarget) -> bool {
        match self {
            Self::LeadsOut => matches!(target.syntax, TargetSyntax::Path(_)),
            Self::Brackets => target.syntax == TargetSyntax::Values,
            _ => true,
        }
    }

    /// Puts it into the place of `target` below `repo`. What changes on its own does so until the value is dropped.
    pub(super) fn install_form(
        self,
        repo: &Path,
        target: HostileTarget,
        beside: &OutsideTargets<'_>,
    ) -> io::Result<Option<ChangingFile>> {
        let path = repo.join(target.path);
        if self == Self::Unreadable && path.symlink_metadata().is_ok() {
            return revoke_access(&path).map(|()| None);
        }
        let was_directory = path.is_dir();
        remove_existing(&path)?;
        let Some(parent) = path.parent().filter(|parent| is_usable_parent(repo, parent)) else {
            return Ok(None);
        };
        fs::create_dir_all(parent)?;
        match self {
            Self::Missing => {}
            Self::Directory if was_directory => fs::write(&path, "a file")?,
            Self::Directory => fs::create_dir(&path)?,
            Self::Pipe => run_program("mkfifo", &[path.as_os_str()])?,
            Self::Socket => create_socket(&path)?,
            Self::Device => {
                let made =
                    run_program("mknod", &[path.as_os_str(), "c".as_ref(), "1".as_ref(), "5".as_ref()]);
                made.or_else(|_| symlink("/dev/zero", &path))?;
            }
            Self::LinkToZero => symlink("/dev/zero", &path)?,
            Self::LinkOut => symlink(if was_directory { beside.directory } else { beside.file }, &path)?,
            Self::LinkLoop => symlink(path.file_name().unwrap_or_default(), &path)?,
            Self::Sparse => File::create(&path)?.set_len(SPARSE_BYTES)?,
            Self::HugeSparse => {
                let file = File::create(&path)?;
                file.set_len(HUGE_SPARSE_BYTES).or_else(|_| file.set_len(SPARSE_BYTES))?;
            }
            Self::Unreadable => {
                fs::write(&path, "nobody reads this")?;
                revoke_access(&path)?;
            }
            Self::Changing => return ChangingFile::start(&path).map(Some),
            Self::NotUtf8 => fs::write(&path, b"\xff\xfe = \xc3\x28 \0 \xed\xa0\x80\n[\xf0\x28")?,
            Self::LongLine => fs::write(&path, vec![b'x'; LONG_LINE_BYTES])?,
            Self::Brackets => fs::write(&path, nested_brackets(&path))?,
            Self::Deep => create_deep_dirs(&path)?,
            Self::LeadsOut => write_outside_pointer(&path, target, beside)?,
        }
        Ok(None)
    }
}

/// Whether something can be put into a directory: no earlier change has put a link or a file on the way there.
fn is_usable_parent(repo: &Path, parent: &Path) -> bool {
    let below = parent.ancestors().take_while(|path| *path != repo);
    below.into_iter().all(|path| path.symlink_metadata().map_or(true, |meta| meta.is_dir()))
}

fn remove_existing(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => run_program("rm", &["-rf".as_ref(), "--".as_ref(), path.as_os_str()]),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

fn revoke_access(path: &Path) -> io::Result<()> {
    if path.is_symlink() {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o000))
}

/// Names of sockets are short, so it is made elsewhere first.
fn create_socket(path: &Path) -> io::Result<()> {
    let place = tempfile::tempdir()?;
    let short = place.path().join("s");
    drop(UnixListener::bind(&short)?);
    run_program("mv", &["--".as_ref(), short.as_os_str(), path.as_os_str()])
}

fn nested_brackets(path: &Path) -> String {
    let many = |text: &str| text.repeat(BRACKET_LEVELS);
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("toml") => format!("a = {}", many("[")),
        Some("yaml") => many("[").split_off(1),
        _ => format!("{}{}", many("{\"a\":"), many("[")),
    }
}

/// Directories within directories, deeper than any path names: the lower part is made first and moved to the end of the
/// part above it, until the whole is long enough.
fn create_deep_dirs(path: &Path) -> io::Result<()> {
    let name = "d".repeat(DEEP_NAME_BYTES);
    let parent = path.parent().unwrap_or(path);
    let (top, next) = (parent.join(".deep-a"), parent.join(".deep-b"));
    // So many levels stay below the longest path that the kernel takes.
    let levels = (4_000 - parent.as_os_str().len()) / (DEEP_NAME_BYTES + 1) - 1;
    fs::create_dir(&top)?;
    fs::write(top.join("at the bottom"), "x")?;
    for _ in 0..DEEP_LEVELS / levels {
        let bottom = (1..levels).fold(next.clone(), |place, _| place.join(&name));
        fs::create_dir_all(&bottom)?;
        fs::rename(&top, bottom.join(&name))?;
        fs::rename(&next, &top)?;
    }
    fs::rename(&top, path)
}

/// A file whose text leads to a repository that is not this one.
fn write_outside_pointer(path: &Path, target: HostileTarget, beside: &OutsideTargets<'_>) -> io::Result<()> {
    let TargetSyntax::Path(before) = target.syntax else { return Ok(()) };
    let to: PathBuf = match target.path {
        ".git/objects/info/alternates" => beside.git.join("objects"),
        path if path.ends_with("HEAD") || path.contains("refs/") => beside.git.join("refs/heads/main"),
        _ => beside.git.to_owned(),
    };
    let mut file = File::create(path)?;
    writeln!(file, "{before}{}", to.display())
}
