//! What a container is shown of the host: the workspace, and the folders that were asked for.

use super::container::{Access, Shown};
use super::error::Error;
use super::place::Place;
use forge_jail::{JailSpec, Mapped, Missing, Root, RunUser, Show, WORKSPACE};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The host's side of a container's workspace.
#[derive(Debug, Default)]
pub(super) struct Ground {
    /// What is bound into the container.
    pub(super) shown: Vec<Shown>,
    /// What is covered, as the container names it, with whether it is a folder.
    pub(super) covered: Vec<(PathBuf, Cover)>,
    /// The folder that must be seen at `/workspace` itself, if there is one.
    pub(super) seen: Option<PathBuf>,
    /// Mounts that only have to last until the container has its own.
    pub(super) maps: Vec<Mapped>,
}

/// What something is covered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    File,
    Folder,
}

impl Ground {
    /// Decides what stands where. `user` is who the box runs as if this is root.
    pub(super) fn prepare(jail: &JailSpec, user: Option<&RunUser>, place: &Place) -> Result<Self, Error> {
        let mut ground = Self::default();
        for (number, root) in jail.roots.iter().enumerate() {
            ground.show(root, number, user, place)?;
        }
        ground.further(jail);
        for masked in &jail.masked {
            ground.cover(&jail.roots, masked.as_path());
        }
        Ok(ground)
    }

    /// One folder to work in.
    fn show(
        &mut self,
        root: &Root,
        number: usize,
        user: Option<&RunUser>,
        place: &Place,
    ) -> Result<(), Error> {
        let source = match (&root.show, user) {
            (Show::Overlay { .. }, _) => {
                let why = "a copy-on-write view made of mounts cannot be shown to a container".to_owned();
                return Err(Error::Jail(forge_jail::Error::Overlay { why }));
            }
            // An ordinary user's box has that user's id.
            (_, None) => root.source.clone(),
            (Show::Owned, Some(user)) => {
                let doing = format!("giving {} to the user of the box", root.source.display());
                give(&root.source, user.id()).map_err(Error::host(doing))?;
                root.source.clone()
            }
            (Show::Direct, Some(user)) => {
                let point = place.mount_point(&format!("root-{number}"));
                let point = point.map_err(Error::host("making a place for the workspace"))?;
                self.maps.push(Mapped::new(&root.source, &point, user)?);
                point
            }
        };
        if root.target == Path::new(WORKSPACE) {
            self.seen = Some(source.clone());
        }
        self.shown.push(Shown { source, target: root.target.clone(), access: Access::Write });
        Ok(())
    }

    /// Folders beside the workspace.
    fn further(&mut self, jail: &JailSpec) {
        let read = jail.binds.iter().map(|bind| (bind, Access::Read));
        let all = read.chain(jail.writable.iter().map(|bind| (bind, Access::Write)));
        // What is missing and must be there the engine refuses by name.
        let wanted = all.filter(|(bind, _)| bind.missing == Missing::Fail || bind.source.exists());
        self.shown.extend(wanted.map(|(bind, access)| Shown {
            source: bind.source.clone(),
            target: bind.target.clone(),
            access,
        }));
    }

    /// Covers a path of the workspace. One that is not there would be made by covering it; a link is harmless itself.
    fn cover(&mut self, roots: &[Root], path: &Path) {
        let inside = Path::new(WORKSPACE).join(path);
        let on_host =
            roots.iter().find_map(|root| Some(root.source.join(inside.strip_prefix(&root.target).ok()?)));
        match on_host.and_then(|path| std::fs::symlink_metadata(path).ok()) {
            Some(meta) if meta.is_dir() => self.covered.push((inside, Cover::Folder)),
            Some(meta) if !meta.is_symlink() => self.covered.push((inside, Cover::File)),
            _ => {}
        }
    }
}

/// The user who owns what an earlier box of the run left.
pub(super) fn kept_user(jail: &JailSpec) -> Option<u32> {
    let owned = jail.roots.iter().find(|root| root.show == Show::Owned)?;
    let owner = std::fs::metadata(&owned.source).ok()?.uid();
    RunUser::is_one(owner).then_some(owner)
}

/// Makes a tree belong to the box's user, links themselves included. A tree that begins with that owner is taken to
/// be given already.
fn give(tree: &Path, id: u32) -> std::io::Result<()> {
    let top = std::fs::symlink_metadata(tree)?;
    if top.uid() == id && top.gid() == id {
        return Ok(());
    }
    // The top last: it says that all below is done. Until then it is nobody's of those that boxes get.
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
