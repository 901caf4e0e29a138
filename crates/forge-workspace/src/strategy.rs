//! How a workspace is shown: copy on write by the kernel where that works, else a copy, and why.

use super::layout::{RunRepo, WorkspaceKind, WorkspaceLayout, WorkspaceMeta, describe_io_error};
use super::{ForcedCopy, OpenError, workspace_error};
use forge_ports::sandbox::Error;
use forge_snapshot::{BaseManifest, CopyKind, CopyStats, RelPath, WorkBounds, copy_tree};
use forge_types::WorkspaceMode;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

/// A choice.
#[derive(Debug)]
pub(super) struct MountStrategy {
    pub(super) kind: WorkspaceKind,
    pub(super) reason: String,
    pub(super) warnings: Vec<String>,
}

/// Chooses by what is known before anything is tried: an overlay may still be refused by the kernel.
pub(super) fn choose_strategy(
    mode: WorkspaceMode,
    repos: &[RunRepo],
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
        let owner = fs::metadata(&repo.path).map_or(0, |meta| meta.uid());
        let own = if root { owner } else { rustix::process::geteuid().as_raw() };
        let foreign = base.count_foreign(own);
        if foreign > 0 && root {
            return chosen(WorkspaceKind::Copy, "files of several owners");
        }
        if foreign > 0 {
            overlay.warnings.push(format!(
                "{foreign} files and folders of {} belong to other users: commands can't change these",
                repo.path.display()
            ));
        }
    }
    overlay
}

/// Makes what receives the changes. For copies: what was copied, and how.
pub(super) fn create_layers(
    place: &WorkspaceLayout,
    meta: &mut WorkspaceMeta,
    bases: &[Arc<BaseManifest>],
    bounds: &WorkBounds,
) -> Result<Vec<CopyStats>, Error> {
    let mut copies = Vec::new();
    for (index, repo) in meta.repos.clone().iter().enumerate() {
        match meta.kind {
            WorkspaceKind::Direct => {}
            WorkspaceKind::Overlay => create_overlay_dirs(place, index, &repo.path)?,
            WorkspaceKind::Reflink | WorkspaceKind::Copy => {
                let copy = place.copy_dir(meta, index);
                forge_files::remove_tree(&copy);
                let ignored: Vec<RelPath> = meta
                    .masks
                    .iter()
                    .filter(|mask| mask.repo == index)
                    .filter_map(super::FileMask::rel_path)
                    .collect();
                let done = copy_tree(&repo.path, &copy, &bases[index], None, &ignored, bounds);
                let done = done.map_err(|error| workspace_error(&error))?;
                if done.skipped > 0 {
                    meta.warnings.push(format!(
                        "{} files and folders of {} can't be read and are not in the workspace",
                        done.skipped,
                        repo.path.display()
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

/// Makes sure that an existing view has what a box needs.
pub(super) fn check_layers(place: &WorkspaceLayout, meta: &WorkspaceMeta) -> Result<(), Error> {
    for (index, repo) in meta.repos.iter().enumerate() {
        match meta.kind {
            WorkspaceKind::Direct => {}
            WorkspaceKind::Overlay => create_overlay_dirs(place, index, &repo.path)?,
            WorkspaceKind::Reflink | WorkspaceKind::Copy => {
                let copy = place.copy_dir(meta, index);
                if !copy.is_dir() {
                    return Err(Error::View {
                        why: format!("{} is gone, and with it the run's work", copy.display()),
                    });
                }
            }
        }
    }
    Ok(())
}

/// The two layers over a repository; the upper one looks like the repository's own folder.
fn create_overlay_dirs(place: &WorkspaceLayout, index: usize, repo: &Path) -> Result<(), Error> {
    let (upper, work) = (place.upper_dir(index), place.work_dir(index));
    let made = || -> std::io::Result<()> {
        // The kernel leaves something in it that only it can use again.
        forge_files::remove_tree(&work);
        fs::create_dir(&work)?;
        if !upper.exists() {
            fs::create_dir(&upper)?;
            let mode = fs::metadata(repo)?.mode() & 0o7777;
            fs::set_permissions(&upper, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    };
    made().map_err(|error| Error::View {
        why: format!("making {}: {}", upper.display(), describe_io_error(&error)),
    })
}

/// Tells the trackers of copies what was copied.
pub(super) fn adopt_copies(
    trackers: &mut [forge_snapshot::Tracker],
    copies: Vec<CopyStats>,
) -> Result<(), OpenError> {
    for (tracker, copy) in trackers.iter_mut().zip(copies) {
        tracker.adopt_copy(copy)?;
    }
    Ok(())
}
