//! The repository as text: files by path, and the packages among them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;
use toml_edit::{DocumentMut, Item, TableLike};

/// Git's directory, or the file that names it in a linked working tree.
const GIT_ENTRY: &str = ".git";

/// Directories without our own sources, at any depth.
const SKIPPED_FOLDERS: &[&str] = &[
    GIT_ENTRY,
    ".forge",
    ".venv",
    ".pytest_cache",
    "__pycache__",
    "node_modules",
    "target",
    "proptest-regressions",
];

/// Reasons why the repository could not be read.
#[derive(Debug, Error)]
pub enum TreeError {
    /// A directory or file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Path of the directory or file.
        path: PathBuf,
        /// Underlying error.
        source: io::Error,
    },
    /// A manifest is not valid TOML or lacks a package name.
    #[error("{path} is not a usable manifest: {why}; fix it so that cargo accepts it")]
    Manifest {
        /// Path of the manifest inside the repository.
        path: String,
        /// Description of the problem.
        why: String,
    },
}

/// One cargo package of the workspace.
#[derive(Debug, Clone)]
pub struct Package {
    /// Name as in `[package]`.
    pub name: String,
    /// Directory inside the repository, without a trailing slash.
    pub folder: String,
    /// The whole manifest.
    pub manifest: DocumentMut,
}

/// The kind of dependency table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DependencyKind {
    /// `[dependencies]`, also under a target.
    Normal,
    /// `[dev-dependencies]`
    Dev,
    /// `[build-dependencies]`
    Build,
}

/// One line of a dependency table.
#[derive(Debug)]
pub(crate) struct Dependency<'a> {
    /// Name of the package: `package = "…"` when renamed, otherwise the key.
    pub(crate) name: String,
    pub(crate) kind: DependencyKind,
    pub(crate) item: &'a Item,
}

impl Package {
    /// Returns the path of the manifest inside the repository.
    pub fn manifest_path(&self) -> String {
        format!("{}/Cargo.toml", self.folder)
    }

    /// Returns all dependencies in the manifest, including those of targets.
    pub(crate) fn dependencies(&self) -> Vec<Dependency<'_>> {
        let mut found = Vec::new();
        collect_dependencies(self.manifest.as_table(), &mut found);
        if let Some(targets) = self.manifest.get("target").and_then(Item::as_table_like) {
            for (_, target) in targets.iter() {
                if let Some(table) = target.as_table_like() {
                    collect_dependencies(table, &mut found);
                }
            }
        }
        found
    }
}

fn collect_dependencies<'a>(table: &'a dyn TableLike, found: &mut Vec<Dependency<'a>>) {
    let tables = [
        ("dependencies", DependencyKind::Normal),
        ("dev-dependencies", DependencyKind::Dev),
        ("build-dependencies", DependencyKind::Build),
    ];
    for (key, kind) in tables {
        let Some(entries) = table.get(key).and_then(Item::as_table_like) else { continue };
        for (name, item) in entries.iter() {
            let renamed = item
                .as_table_like()
                .and_then(|entry| entry.get("package"))
                .and_then(Item::as_str)
                .unwrap_or(name);
            found.push(Dependency { name: renamed.to_owned(), kind, item });
        }
    }
}

/// All text files of the repository.
#[derive(Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
    packages: Vec<Package>,
}

impl Tree {
    /// Reads every UTF-8 file below `root`, except in directories of build output and caches.
    ///
    /// # Errors
    /// A directory cannot be read, or a crate's manifest is invalid.
    pub fn load(root: &Path) -> Result<Self, TreeError> {
        let mut files = BTreeMap::new();
        read_folder(root, root, &mut files)?;
        Self::from_map(files)
    }

    /// Builds a tree from given files, for samples in tests.
    ///
    /// # Errors
    /// One of the files is an invalid manifest of a crate.
    pub fn from_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, TreeError> {
        Self::from_map(files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect())
    }

    fn from_map(files: BTreeMap<String, String>) -> Result<Self, TreeError> {
        let mut packages = Vec::new();
        for (path, text) in &files {
            if let Some(folder) = package_folder(path) {
                packages.push(read_package(path, folder, text)?);
            }
        }
        Ok(Self { files, packages })
    }

    /// Iterates over all files, as path inside the repository and text.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Iterates over the Rust sources of the workspace's crates, without sample projects of tests.
    pub(crate) fn rust_files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(|(path, _)| path.ends_with(".rs") && self.package_of(path).is_some())
    }

    /// Returns the text of one file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Returns whether a file or directory with this path exists.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty()
            || self.files.contains_key(path)
            || self.files.range(folder.clone()..).next().is_some_and(|(next, _)| next.starts_with(&folder))
    }

    /// Returns the workspace's packages, sorted by path.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// Returns the package called `name`.
    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// Returns the package to which a file belongs.
    pub(crate) fn package_of(&self, path: &str) -> Option<&Package> {
        self.packages.iter().find(|package| {
            path.strip_prefix(package.folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

/// Returns the directory of a workspace member's manifest: `crates/NAME` or `xtask`.
fn package_folder(path: &str) -> Option<&str> {
    let folder = path.strip_suffix("/Cargo.toml")?;
    let direct = folder.strip_prefix("crates/").is_some_and(|name| !name.contains('/'));
    (direct || folder == "xtask").then_some(folder)
}

fn read_package(path: &str, folder: &str, text: &str) -> Result<Package, TreeError> {
    let refused = |why: String| TreeError::Manifest { path: path.to_owned(), why };
    let manifest: DocumentMut = text.parse().map_err(|error| refused(format!("{error}")))?;
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(Item::as_str)
        .ok_or_else(|| refused("[package] has no name".to_owned()))?
        .to_owned();
    Ok(Package { name, folder: folder.to_owned(), manifest })
}

fn read_folder(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) -> Result<(), TreeError> {
    let failed = |path: &Path, source: io::Error| TreeError::Read { path: path.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let entry = entry.map_err(|error| failed(folder, error))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| failed(&path, error))?;
        let name = entry.file_name();
        if kind.is_dir() {
            if !SKIPPED_FOLDERS.iter().any(|skipped| name == *skipped) {
                read_folder(root, &path, files)?;
            }
        } else if kind.is_file() && name != GIT_ENTRY {
            read_text(root, &path, files).map_err(|error| failed(&path, error))?;
        }
    }
    Ok(())
}

fn read_text(root: &Path, path: &Path, files: &mut BTreeMap<String, String>) -> io::Result<()> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        // An editor's temporary file may vanish between listing and reading.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
    let inside = path.strip_prefix(root).unwrap_or(path);
    files.insert(inside.to_string_lossy().replace('\\', "/"), text);
    Ok(())
}
