//! How a workspace is shown: copy on write by the kernel where that works, else a copy, and why.

use super::place::{Kind, Meta, Place, Repo, in_words};
use super::{Limit, Unready, view_error};
use forge_ports::sandbox::Error;
use forge_snapshot::{Base, Bounds, CopyKind, CopyStats, RelPath, copy_tree};
use forge_types::WorkspaceMode;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

/// A choice.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) kind: Kind,
    pub(super) reason: String,
    pub(super) warnings: Vec<String>,
}

/// Chooses by what is known before anything is tried: an overlay may still be refused by the kernel.
pub(super) fn kind(
    mode: WorkspaceMode,
    repos: &[Repo],
    bases: &[Arc<Base>],
    limit: Option<&Limit>,
) -> Chosen {
    let chosen = |kind, reason: &str| Chosen { kind, reason: reason.to_owned(), warnings: Vec::new() };
    if mode == WorkspaceMode::Inplace {
        return chosen(Kind::Direct, "");
    }
    if let Some(Limit { why }) = limit {
        return chosen(Kind::Copy, why);
    }
    let root = rustix::process::geteuid().is_root();
    let mut overlay = chosen(Kind::Overlay, "");
    for (repo, base) in repos.iter().zip(bases) {
        let owner = fs::metadata(&repo.path).map_or(0, |meta| meta.uid());
        let own = if root { owner } else { rustix::process::geteuid().as_raw() };
        let foreign = base.foreign(own);
        if foreign > 0 && root {
            return chosen(Kind::Copy, "files of several owners");
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
pub(super) fn make(
    place: &Place,
    meta: &mut Meta,
    bases: &[Arc<Base>],
    bounds: &Bounds,
) -> Result<Vec<CopyStats>, Error> {
    let mut copies = Vec::new();
    for (index, repo) in meta.repos.clone().iter().enumerate() {
        match meta.kind {
            Kind::Direct => {}
            Kind::Overlay => layers(place, index, &repo.path)?,
            Kind::Reflink | Kind::Copy => {
                let copy = place.copy(meta, index);
                forge_files::remove_tree(&copy);
                let ignored: Vec<RelPath> = meta
                    .masks
                    .iter()
                    .filter(|mask| mask.repo == index)
                    .filter_map(super::Mask::rel)
                    .collect();
                let done = copy_tree(&repo.path, &copy, &bases[index], None, &ignored, bounds);
                let done = done.map_err(|error| view_error(&error))?;
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
        meta.kind = Kind::Reflink;
    }
    Ok(copies)
}

/// Makes sure that an existing view has what a box needs.
pub(super) fn ready(place: &Place, meta: &Meta) -> Result<(), Error> {
    for (index, repo) in meta.repos.iter().enumerate() {
        match meta.kind {
            Kind::Direct => {}
            Kind::Overlay => layers(place, index, &repo.path)?,
            Kind::Reflink | Kind::Copy => {
                let copy = place.copy(meta, index);
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
fn layers(place: &Place, index: usize, repo: &Path) -> Result<(), Error> {
    let (upper, work) = (place.upper(index), place.work(index));
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
    made().map_err(|error| Error::View { why: format!("making {}: {}", upper.display(), in_words(&error)) })
}

/// Tells the trackers of copies what was copied.
pub(super) fn adopt(trackers: &mut [forge_snapshot::Tracker], copies: Vec<CopyStats>) -> Result<(), Unready> {
    for (tracker, copy) in trackers.iter_mut().zip(copies) {
        tracker.adopt_copy(copy)?;
    }
    Ok(())
}
