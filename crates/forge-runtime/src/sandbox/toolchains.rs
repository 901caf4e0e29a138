//! Toolchains outside `/usr`: the user's directories that a sandbox sees, read-only, and its `PATH`.
//!
//! Only directories with programs and libraries are listed; none of them holds credentials (`~/.cargo` does,
//! `~/.cargo/bin` does not).

use std::path::{Path, PathBuf};

/// Toolchain directories below the home directory.
const HOME_DIRS: &[&str] = &[
    ".cargo/bin",
    ".rustup",
    ".pyenv",
    ".nvm/versions",
    ".volta/bin",
    ".volta/tools",
    ".fnm",
    ".bun/bin",
    ".deno/bin",
    ".local/bin",
    ".local/lib",
    ".local/share/uv",
    ".local/share/mise",
    ".asdf",
    ".rbenv",
    ".sdkman/candidates",
    "go/bin",
];
/// Toolchain directories of the whole machine.
const SYSTEM_DIRS: &[&str] = &["/opt", "/nix/store", "/snap"];
/// The directories that every sandbox has on its `PATH`.
const SYSTEM_PATH_DIRS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The toolchains that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Toolchains {
    /// Directories that the sandbox sees at the same path.
    pub(crate) folders: Vec<PathBuf>,
    /// The sandbox's `PATH`.
    pub(crate) path: String,
    /// Variables that the toolchains need.
    pub(crate) variables: Vec<(String, String)>,
}

/// Finds toolchains. `path` is the user's own `PATH`; the sandbox's `PATH` keeps its order.
pub(crate) fn find_toolchains(home: Option<&Path>, path: Option<&str>) -> Toolchains {
    let at_home = home.into_iter().flat_map(|home| HOME_DIRS.iter().map(move |below| home.join(below)));
    let on_machine = SYSTEM_DIRS.iter().map(PathBuf::from);
    let folders: Vec<PathBuf> = at_home.chain(on_machine).filter(|folder| folder.is_dir()).collect();
    let mut entries: Vec<String> = Vec::new();
    for entry in path.unwrap_or_default().split(':').filter(|entry| entry.starts_with('/')) {
        let seen = SYSTEM_PATH_DIRS.contains(&entry)
            || folders.iter().any(|folder| Path::new(entry).starts_with(folder));
        if seen && !entries.iter().any(|known| known == entry) {
            entries.push(entry.to_owned());
        }
    }
    for entry in SYSTEM_PATH_DIRS {
        if !entries.iter().any(|known| known == entry) {
            entries.push(entry.to_owned());
        }
    }
    let variables = [("RUSTUP_HOME", ".rustup"), ("PYENV_ROOT", ".pyenv")]
        .into_iter()
        .filter_map(|(name, below)| {
            let folder = home?.join(below);
            folders.contains(&folder).then(|| (name.to_owned(), folder.display().to_string()))
        })
        .collect();
    Toolchains { folders, path: entries.join(":"), variables }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_sees_programs_but_no_credentials() {
        let home = tempfile::tempdir().unwrap();
        for below in [".cargo/bin", ".rustup/toolchains", ".ssh"] {
            std::fs::create_dir_all(home.path().join(below)).unwrap();
        }
        let at = |below: &str| home.path().join(below).display().to_string();
        let path = format!("{}:/evil:relative:{}:/usr/bin", at(".cargo/bin"), at(".ssh"));
        let found = find_toolchains(Some(home.path()), Some(&path));
        assert!(found.folders.contains(&home.path().join(".cargo/bin")));
        assert!(!found.folders.iter().any(|folder| folder.ends_with(".cargo") || folder.ends_with(".ssh")));
        assert_eq!(
            found.path,
            format!("{}:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/bin", at(".cargo/bin"))
        );
        assert_eq!(found.variables, [("RUSTUP_HOME".to_owned(), at(".rustup"))]);
    }
}
