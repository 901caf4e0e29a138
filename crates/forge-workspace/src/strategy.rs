//! Choice of how a workspace is provided: copy-on-write by the kernel where that works, otherwise a copy; with the
//! reason.

use super::layout::{WorkspaceKind, WorkspaceLayout, WorkspaceMeta, workspace_io_error};
use super::repos::OpenRepo;
use super::{ForcedCopy, OpenError, workspace_error};
use forge_ports::sandbox::Error;
use forge_snapshot::{BaseManifest, CopyKind, CopyStats, RelPath, WorkBounds, copy_tree};
use forge_types::WorkspaceMode;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

/// A chosen kind of workspace, and why.
#[derive(Debug)]
pub(super) struct MountStrategy {
    pub(super) kind: WorkspaceKind,
    pub(super) reason: String,
    pub(super) warnings: Vec<String>,
}

/// Chooses by what is known before anything is tried: the kernel may still refuse an overlay.
pub(super) fn choose_strategy(
    mode: WorkspaceMode,
    repos: &[OpenRepo],
    bases: &[Arc<BaseManifest>],
    limit: Option<&ForcedCopy>,
) -> MountStrategy {
    let chosen = |kind, reason: &str| MountStrategy { kind, reason: reason.to_owned(), warnings: Vec::new() };
    if mode == WorkspaceMode::Inplace {
        return chosen(WorkspaceKind::Direct, "");
    }
    if let Some(ForcedCopy { why }) = limit {
        return chosen(WorkspaceKind::Copy, why);
    }
    let root = rustix::process::geteuid().is_root();
    let mut overlay = chosen(WorkspaceKind::Overlay, "");
    for (repo, base) in repos.iter().zip(bases) {
        let own = if root { repo.stamp.uid } else { rustix::process::geteuid().as_raw() };
        let foreign = base.count_foreign(own);
        if foreign > 0 && root {
            return chosen(WorkspaceKind::Copy, "files of several owners");
        }
        if foreign > 0 {
            overlay.warnings.push(format!(
                "{foreign} files and directories of {} belong to other users: commands cannot change them",
                repo.record.path.display()
            ));
        }
    }
    overlay
}

/// Creates the layers that receive the changes. Returns statistics of the copies made.
pub(super) fn create_layers(
    place: &WorkspaceLayout,
    meta: &mut WorkspaceMeta,
    repos: &[OpenRepo],
    bases: &[Arc<BaseManifest>],
    bounds: &WorkBounds,
) -> Result<Vec<CopyStats>, Error> {
    let mut copies = Vec::new();
    for (index, repo) in repos.iter().enumerate() {
        match meta.kind {
            WorkspaceKind::Direct => {}
            WorkspaceKind::Overlay => create_overlay_dirs(place, index, repo)?,
            WorkspaceKind::Reflink | WorkspaceKind::Copy => {
                let copy = place.copy_dir(meta, index);
                forge_files::remove_tree(&copy);
                let ignored: Vec<RelPath> = meta
                    .masks
                    .iter()
                    .filter(|mask| mask.repo == index)
                    .filter_map(super::FileMask::rel_path)
                    .collect();
                let done = copy_tree(&repo.root, &copy, &bases[index], None, &ignored, bounds);
                let done = done.map_err(|error| workspace_error(&error))?;
                if done.skipped > 0 {
                    meta.warnings.push(format!(
                        "{} files and directories of {} cannot be read and are not in the workspace",
                        done.skipped,
                        repo.record.path.display()
                    ));
                }
                copies.push(done);
            }
        }
    }
    if !copies.is_empty() && copies.iter().all(|copy| copy.kind == CopyKind::Reflink) {
        meta.kind = WorkspaceKind::Reflink;
    }
    Ok(copies)
}

/// Checks that an existing workspace has the layers that a sandbox needs.
pub(super) fn check_layers(
    place: &WorkspaceLayout,
    meta: &WorkspaceMeta,
    repos: &[OpenRepo],
) -> Result<(), Error> {
    for (index, repo) in repos.iter().enumerate() {
        match meta.kind {
            WorkspaceKind::Direct => {}
            WorkspaceKind::Overlay => create_overlay_dirs(place, index, repo)?,
            WorkspaceKind::Reflink | WorkspaceKind::Copy => {
                let copy = place.copy_dir(meta, index);
                if !copy.is_dir() {
                    return Err(Error::View {
                        why: format!("{} is missing, so the run's work is lost", copy.display()),
                    });
                }
            }
        }
    }
    Ok(())
}

/// Creates the two layers over a repository; the upper one gets the permissions of the repository's directory.
fn create_overlay_dirs(place: &WorkspaceLayout, index: usize, repo: &OpenRepo) -> Result<(), Error> {
    let (upper, work) = (place.upper_dir(index), place.work_dir(index));
    let made = || -> std::io::Result<()> {
        // The kernel leaves something in it that only the kernel can use again.
        forge_files::remove_tree(&work);
        fs::create_dir(&work)?;
        if !upper.exists() {
            fs::create_dir(&upper)?;
            fs::set_permissions(&upper, fs::Permissions::from_mode(repo.stamp.mode))?;
        }
        Ok(())
    };
    made().map_err(|error| workspace_io_error(&format!("creating {}", upper.display()), &error))
}

/// Passes the statistics of copies to their trackers.
pub(super) fn adopt_copies(
    trackers: &mut [forge_snapshot::Tracker],
    copies: Vec<CopyStats>,
) -> Result<(), OpenError> {
    for (tracker, copy) in trackers.iter_mut().zip(copies) {
        tracker.adopt_copy(copy)?;
    }
    Ok(())
}
