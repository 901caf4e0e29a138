//! Host directories that are mounted in a container: the workspace, and those in the specification.

use super::error::Error;
use super::host_dir::ContainerHostDir;
use forge_jail::{IdMappedMount, JailSpec, MissingSource, RootMode, RunUser, WORKSPACE_PATH, WorkspaceRoot};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A host path and its mount point in the container.
#[derive(Clone, Debug)]
pub(crate) struct BindMount {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) access: MountAccess,
}

/// The access to a mounted path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MountAccess {
    Read,
    Write,
}

/// The host's side of a container's workspace.
#[derive(Debug, Default)]
pub(super) struct ContainerMounts {
    /// Bind mounts of the container.
    pub(super) mounts: Vec<BindMount>,
    /// Masked paths as the container names them, with the kind of their mask.
    pub(super) covered: Vec<(PathBuf, MaskKind)>,
    /// Directory that must be visible at `/workspace` itself, if there is one.
    pub(super) seen: Option<PathBuf>,
    /// Mounts that only have to last until the container has its own.
    pub(super) maps: Vec<IdMappedMount>,
}

/// The kind of a masked path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaskKind {
    File,
    Directory,
}

impl ContainerMounts {
    /// Determines all mounts. `user` is the user of the sandbox if this process is root.
    pub(super) fn prepare(
        jail: &JailSpec,
        user: Option<&RunUser>,
        place: &ContainerHostDir,
    ) -> Result<Self, Error> {
        let mut ground = Self::default();
        for (number, root) in jail.roots.iter().enumerate() {
            ground.add_root(root, number, user, place)?;
        }
        ground.add_binds(jail);
        for masked in &jail.masked {
            ground.mask_path(&jail.roots, masked.as_path());
        }
        Ok(ground)
    }

    /// Adds a root of the workspace.
    fn add_root(
        &mut self,
        root: &WorkspaceRoot,
        number: usize,
        user: Option<&RunUser>,
        place: &ContainerHostDir,
    ) -> Result<(), Error> {
        let source = match (&root.mode, user) {
            (RootMode::Overlay { .. }, _) => {
                let why = "a copy-on-write overlay cannot be mounted in a container".to_owned();
                return Err(Error::Jail(forge_jail::Error::Overlay { why }));
            }
            // An ordinary user's sandbox has that user's id.
            (_, None) => root.source.clone(),
            (RootMode::Owned, Some(user)) => {
                let doing = format!("changing the owner of {} to the sandbox's user", root.source.display());
                chown_tree(&root.source, user.id()).map_err(Error::host_failure(doing))?;
                root.source.clone()
            }
            (RootMode::Bind, Some(user)) => {
                let point = place.create_mount_point(&format!("root-{number}"));
                let point = point.map_err(Error::host_failure("creating a mount point for the workspace"))?;
                self.maps.push(IdMappedMount::new(&root.source, root.identity, &point, user)?);
                point
            }
        };
        if root.target == Path::new(WORKSPACE_PATH) {
            self.seen = Some(source.clone());
        }
        self.mounts.push(BindMount { source, target: root.target.clone(), access: MountAccess::Write });
        Ok(())
    }

    /// Adds directories outside the workspace.
    fn add_binds(&mut self, jail: &JailSpec) {
        let read = jail.binds.iter().map(|bind| (bind, MountAccess::Read));
        let all = read.chain(jail.writable.iter().map(|bind| (bind, MountAccess::Write)));
        // The engine reports a source that is missing but required.
        let wanted = all.filter(|(bind, _)| bind.missing == MissingSource::Fail || bind.source.exists());
        self.mounts.extend(wanted.map(|(bind, access)| BindMount {
            source: bind.source.clone(),
            target: bind.target.clone(),
            access,
        }));
    }

    /// Masks a path of the workspace. Masking a missing path would create it; a link is harmless itself.
    fn mask_path(&mut self, roots: &[WorkspaceRoot], path: &Path) {
        let inside = Path::new(WORKSPACE_PATH).join(path);
        let on_host =
            roots.iter().find_map(|root| Some(root.source.join(inside.strip_prefix(&root.target).ok()?)));
        match on_host.and_then(|path| std::fs::symlink_metadata(path).ok()) {
            Some(meta) if meta.is_dir() => self.covered.push((inside, MaskKind::Directory)),
            Some(meta) if !meta.is_symlink() => self.covered.push((inside, MaskKind::File)),
            _ => {}
        }
    }
}

/// Returns the owner of the files that an earlier sandbox of the run left.
pub(super) fn existing_owner(jail: &JailSpec) -> Option<u32> {
    let owned = jail.roots.iter().find(|root| root.mode == RootMode::Owned)?;
    let owner = std::fs::metadata(&owned.source).ok()?.uid();
    RunUser::is_run_user_id(owner).then_some(owner)
}

/// Changes the owner of a tree, links included, to the sandbox's user. A tree with a top that has that owner is assumed
/// to be done.
fn chown_tree(tree: &Path, id: u32) -> std::io::Result<()> {
    let top = std::fs::symlink_metadata(tree)?;
    if top.uid() == id && top.gid() == id {
        return Ok(());
    }
    // The top is changed last, as a sign that everything below is done. Until then no sandbox user owns it.
    std::os::unix::fs::lchown(tree, Some(0), Some(0))?;
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            std::os::unix::fs::lchown(entry.path(), Some(id), Some(id))?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    std::os::unix::fs::lchown(tree, Some(id), Some(id))
}
