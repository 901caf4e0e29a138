//! What a container is shown of the host: the workspace, and the folders that were asked for.

use super::container::{Access, Shown};
use super::error::Error;
use super::place::Place;
use crate::masks;
use crate::paths::Places;
use crate::view::View;
use forge_jail::{Bind, JailSpec, Mapped, Network, Raw, Root, RunUser, Show, WORKSPACE};
use forge_ports::sandbox;
use forge_types::{NetworkPolicy, RunId, SandboxReport, SandboxSpec, SnapshotId, WorkspaceMode};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The host's side of a container's workspace.
#[derive(Debug)]
pub(super) struct Ground {
    /// What is bound into the container.
    pub(super) shown: Vec<Shown>,
    /// Paths below the workspace that are covered.
    pub(super) masked: Vec<PathBuf>,
    /// The folder that must be seen at `/workspace` itself, if there is one.
    pub(super) seen: Option<PathBuf>,
    /// Mounts that only have to last until the container has its own.
    pub(super) maps: Vec<Mapped>,
    pub(super) view: Option<Arc<View>>,
    pub(super) places: Places,
    pub(super) report: SandboxReport,
}

impl Ground {
    /// Decides what stands where. `user` is who the box runs as if this is root.
    pub(super) fn prepare(
        spec: &SandboxSpec,
        _run: RunId,
        _at: Option<SnapshotId>,
        user: Option<&RunUser>,
        place: &Place,
    ) -> Result<Self, sandbox::Error> {
        if spec.mode != WorkspaceMode::Inplace {
            return Err(sandbox::Error::View { why: "no private view for this backend yet".to_owned() });
        }
        let repo = std::fs::canonicalize(&spec.repo)
            .map_err(Error::host(format!("the workspace {}", spec.repo.display())))?;
        let masks = masks::scan(&repo, &spec.reveal);
        let report = SandboxReport {
            view: "direct".to_owned(),
            masked: masks.paths.iter().map(|p| p.to_string_lossy().into_owned()).collect(),
            warnings: masks.warnings,
            ..SandboxReport::default()
        };
        let roots = vec![Root { source: repo.clone(), target: WORKSPACE.into(), show: Show::Direct }];
        let mut ground = Self {
            shown: Vec::new(),
            masked: masks.paths,
            seen: None,
            maps: Vec::new(),
            view: None,
            places: Places::one(repo),
            report,
        };
        for (number, root) in roots.iter().enumerate() {
            ground.show(root, number, user, place)?;
        }
        ground.further(spec);
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
                give(&root.source, user.id()).map_err(Error::host(format!(
                    "giving {} to the user of the box",
                    root.source.display()
                )))?;
                root.source.clone()
            }
            (Show::Direct, Some(user)) => {
                let point = place
                    .mount_point(&format!("root-{number}"))
                    .map_err(Error::host("making a place for the workspace"))?;
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

    /// Folders beside the workspace that the run asked for.
    fn further(&mut self, spec: &SandboxSpec) {
        let read = spec.read_only.iter().flat_map(|folder| crate::native::binds(folder));
        let shown = |bind: Bind, access| Shown { source: bind.source, target: bind.target, access };
        self.shown.extend(read.filter(|bind| bind.source.exists()).map(|bind| shown(bind, Access::Read)));
        let write = spec.writable.iter().filter(|folder| folder.exists());
        self.shown.extend(write.map(|folder| Shown {
            source: folder.clone(),
            target: folder.clone(),
            access: Access::Write,
        }));
    }

    /// What is covered, as the container names it.
    pub(super) fn covered(&self) -> Vec<PathBuf> {
        self.masked.iter().map(|path| Path::new(WORKSPACE).join(path)).collect()
    }

    /// The box as its init is told it.
    pub(super) fn describe(&self, spec: &SandboxSpec, run: RunId) -> JailSpec {
        let mut jail = JailSpec::new(run.to_string(), &spec.repo);
        jail.network = match &spec.network {
            NetworkPolicy::Host => Network::Host,
            NetworkPolicy::Off | NetworkPolicy::Allow(_) => Network::Off,
        };
        jail.writable = spec
            .writable
            .iter()
            .map(|folder| Bind {
                source: folder.clone(),
                target: folder.clone(),
                missing: forge_jail::Missing::Skip,
            })
            .collect();
        jail.limits.memory_bytes = spec.limits.memory_bytes;
        jail.limits.pids = spec.limits.pids;
        jail.limits.cpus = spec.limits.cpus;
        jail.limits.tmp_bytes = spec.limits.tmp_bytes;
        for (name, value) in &spec.env {
            let (name, value) = (Raw::from(name.as_str()), Raw::from(value.as_str()));
            jail.env.retain(|(known, _)| *known != name);
            jail.env.push((name, value));
        }
        jail
    }
}

/// Makes a tree belong to the box's user, links themselves included. A tree that begins with that owner is taken to
/// be given already.
fn give(tree: &Path, id: u32) -> std::io::Result<()> {
    let top = std::fs::symlink_metadata(tree)?;
    if top.uid() == id && top.gid() == id {
        return Ok(());
    }
    // The top last: it says that all below is done.
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
