//! The index of applies: one entry for each run that is being applied, so that a beginning run finds interrupted applies
//! without a scan of all runs. It is usually empty. An entry exists whenever the marker of an apply does: it is created
//! durably before the marker and removed after it, both with exclusive access to the workspace of the run.

use super::WorkspaceStorage;
use super::layout::{WorkspaceLayout, WorkspaceMeta};
use forge_ports::sandbox::Error;
use forge_types::RunId;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

/// The directory of the index in the directory of locks.
const INDEX_DIR: &str = "applying";

/// The entry of a run in the index: a link to the directory that contains the run's workspace. A link is created as a
/// whole or not at all.
#[derive(Clone, Debug)]
pub(crate) struct IndexEntry {
    path: PathBuf,
    workspaces: PathBuf,
}

impl IndexEntry {
    /// Returns the entry of a run, which need not exist.
    pub(crate) fn for_run(store: &WorkspaceStorage, run: RunId) -> Self {
        let path = store.locks.join(INDEX_DIR).join(run.to_string());
        Self { path, workspaces: store.workspaces.clone() }
    }

    /// Creates the entry durably.
    pub(crate) fn create(&self) -> io::Result<()> {
        let index = self.path.parent().unwrap_or(Path::new("."));
        if !index.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(index)?;
        }
        let workspaces = std::path::absolute(&self.workspaces)?;
        match symlink(workspaces, &self.path) {
            // An earlier apply of the run was interrupted.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => forge_files::sync_directory(index),
        }
    }

    /// Removes the entry.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the runs of the index with the storage that contains their workspaces.
pub(crate) fn index_entries(store: &WorkspaceStorage) -> Result<Vec<(RunId, WorkspaceStorage)>, Error> {
    let index = store.locks.join(INDEX_DIR);
    let entries = match fs::read_dir(&index) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::View { why: format!("{}: {error}", index.display()) }),
    };
    let entry = |entry: fs::DirEntry| {
        let run = entry.file_name().to_str()?.parse::<RunId>().ok()?;
        // It may have been removed by now.
        let workspaces = fs::read_link(entry.path()).ok()?;
        Some((run, WorkspaceStorage { workspaces, ..store.clone() }))
    };
    Ok(entries.flatten().filter_map(entry).collect())
}

/// Returns the metadata of a run in the index if its workspace is still there. Otherwise removes its entry.
pub(crate) fn load_indexed(store: &WorkspaceStorage, run: RunId) -> Option<WorkspaceMeta> {
    let place = WorkspaceLayout::for_run(&store.workspaces, run);
    let own = rustix::process::geteuid().as_raw();
    // Another user can create the directory of a run that was not kept after it is gone.
    let is_own = fs::symlink_metadata(place.root_dir())
        .is_ok_and(|found| found.is_dir() && found.uid() == own && found.mode() & 0o022 == 0);
    match place.load_meta() {
        Ok(Some(meta)) if is_own => Some(meta),
        // A damaged workspace can't be used for anything.
        Err(_) if is_own => None,
        _ => {
            IndexEntry::for_run(store, run).remove();
            None
        }
    }
}

/// Removes the entries of runs without a workspace from the index.
pub fn remove_stale_entries(store: &WorkspaceStorage) {
    for (run, store) in index_entries(store).unwrap_or_default() {
        let _ = load_indexed(&store, run);
    }
}
