//! Paths as models write them, made relative to the workspace. Only the text is normalised here: the kernel decides
//! whether a path leaves the workspace when it is opened.

use forge_jail_protocol::{FaultKind, FileFault, JailFileKind, RawBytes, WORKSPACE_PATH};
use forge_ports::sandbox::{Error, PathErrorKind};
use std::path::{Path, PathBuf};

/// Host directories by which a workspace may be named, each with its path in the workspace.
#[derive(Clone, Debug, Default)]
pub struct WorkspacePaths(Vec<(PathBuf, PathBuf)>);

impl WorkspacePaths {
    /// Returns the paths of a workspace that is the host directory `root`.
    pub fn for_root(root: impl Into<PathBuf>) -> Self {
        Self(vec![(root.into(), PathBuf::new())])
    }

    /// Adds a host directory and its path in the workspace; an empty path means the workspace itself.
    pub fn with_root(mut self, host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        self.0.push((host.into(), inside.into()));
        self
    }

    /// Returns `path` relative to the workspace; `.` is the workspace itself. Absolute paths must begin with the
    /// location of the workspace inside (`/workspace`) or outside the sandbox.
    pub fn to_relative(&self, path: &str) -> Result<String, Error> {
        let given = Path::new(path);
        let outside = |(host, inside): &(PathBuf, PathBuf)| {
            given.strip_prefix(host).ok().map(|below| inside.join(below))
        };
        let below = match given.strip_prefix(WORKSPACE_PATH) {
            Ok(below) => below.to_owned(),
            Err(_) => self.0.iter().find_map(outside).unwrap_or_else(|| given.to_owned()),
        };
        normalize(path, &below)
    }
}

fn normalize(path: &str, below: &Path) -> Result<String, Error> {
    let refuse = |why: &str, kind| Error::Path { path: path.to_owned(), why: why.to_owned(), kind };
    if path.contains('\0') {
        return Err(refuse("a path cannot contain NUL", PathErrorKind::Other));
    }
    if below.is_absolute() {
        return Err(refuse(
            "it leads out of the workspace; give a path relative to it",
            PathErrorKind::Escapes,
        ));
    }
    let mut parts = Vec::new();
    for part in below.components() {
        // `..` stays: its meaning depends on the links before it.
        if part != std::path::Component::CurDir {
            parts.push(part.as_os_str().to_string_lossy());
        }
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

/// Converts a refused file operation to the port's error.
pub fn file_error(fault: &FileFault) -> Error {
    let (why, kind) = match fault.kind {
        FaultKind::NotFound => ("there is no such file or directory".to_owned(), PathErrorKind::NotFound),
        FaultKind::Denied => ("permission denied (is it masked?)".to_owned(), PathErrorKind::Denied),
        FaultKind::Outside => ("it leads out of the workspace".to_owned(), PathErrorKind::Escapes),
        FaultKind::GitData => {
            ("it belongs to git; change it with git commands in run_shell".to_owned(), PathErrorKind::Denied)
        }
        FaultKind::Dangling => ("it is a dangling symbolic link".to_owned(), PathErrorKind::Escapes),
        FaultKind::Loop => ("its symbolic links form a loop".to_owned(), PathErrorKind::Escapes),
        FaultKind::NotDir => {
            ("a part of the path is a file, not a directory".to_owned(), PathErrorKind::NotDirectory)
        }
        FaultKind::Exists => ("it already exists".to_owned(), PathErrorKind::Exists),
        FaultKind::NotEmpty => ("the directory is not empty".to_owned(), PathErrorKind::Exists),
        FaultKind::NotRegular(JailFileKind::Dir) => {
            ("it is a directory".to_owned(), PathErrorKind::IsDirectory)
        }
        FaultKind::NotRegular(kind) => {
            (format!("it is a {kind}, not a regular file"), PathErrorKind::Special)
        }
        FaultKind::BadPath => ("the path is empty or too long".to_owned(), PathErrorKind::Other),
        FaultKind::Full => ("no space left on the disk".to_owned(), PathErrorKind::NoSpace),
        FaultKind::NoSuchTemp => ("the write was abandoned".to_owned(), PathErrorKind::Other),
        FaultKind::Os(errno) => (std::io::Error::from_raw_os_error(errno).to_string(), PathErrorKind::Other),
    };
    Error::Path { path: display_path(&fault.path), why, kind }
}

fn display_path(path: &RawBytes) -> String {
    path.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(path: &str) -> Result<String, PathErrorKind> {
        WorkspacePaths::for_root("/srv/repo").to_relative(path).map_err(|error| match error {
            Error::Path { kind, .. } => kind,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn paths_become_relative() {
        assert_eq!(at("").unwrap(), ".");
        assert_eq!(at("./a//b/").unwrap(), "a/b");
        assert_eq!(at("/workspace/a").unwrap(), "a");
        assert_eq!(at("/workspace").unwrap(), ".");
        assert_eq!(at("/srv/repo/a/../b").unwrap(), "a/../b");
        assert_eq!(at("/workspace2/a"), Err(PathErrorKind::Escapes));
        assert_eq!(at("/etc/passwd"), Err(PathErrorKind::Escapes));
        assert_eq!(at("a\0b"), Err(PathErrorKind::Other));
    }

    proptest! {
        #[test]
        fn no_path_becomes_absolute(path in any::<String>()) {
            if let Ok(path) = WorkspacePaths::for_root("/srv/repo").to_relative(&path) {
                prop_assert!(!path.is_empty() && !path.starts_with('/'));
            }
        }
    }
}
