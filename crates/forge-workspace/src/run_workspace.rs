//! One run's workspace: prepared before its sandbox opens, and the snapshots taken while it is open.

use crate::baseline::{BaselineState, BaselineWriter};
use crate::errors::{OpenError, workspace_error};
use crate::layout::{FileMask, WorkspaceKind, WorkspaceLayout, WorkspaceMeta, XattrNamespace};
use crate::paths::WorkspacePaths;
use crate::repos::{OpenRepo, check_disjoint, check_same_repos};
use crate::secret_masks::{self, InitialScan, SecretMasks};
use crate::strategy::MountStrategy;
use crate::{gitdir, masks, snapshot_id, strategy};
use forge_jail_protocol::{
    FileIdentity, HostBind, OverlayAttributes, RawBytes, RootMode, WORKSPACE_PATH, WorkspaceRoot,
};
use forge_ports::sandbox::Error;
use forge_snapshot::{
    BaseManifest, CopyStats, Layout, ObjectStore, OverlayXattrs, RelPath, StopFlag, Tracker, WorkBounds,
};
use forge_types::{RunId, SandboxReport, SandboxSpec, SnapshotId, WorkspaceMode};
use parking_lot::Mutex;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Directories that hold the workspaces of runs, and limits on how these are built.
#[derive(Clone, Debug)]
pub struct WorkspaceStorage {
    /// Directory with one subdirectory per run.
    pub workspaces: PathBuf,
    /// Directory for repository locks.
    pub locks: PathBuf,
    /// Places that no repository may contain: Forge's own data, the user's settings, and where links in them lead.
    pub protected: Vec<PathBuf>,
    /// Private directory for temporary files.
    pub temporary: PathBuf,
    /// Reason not to use an overlay, if there is one.
    pub limit: Option<ForcedCopy>,
}

/// A reason to make a workspace a copy, regardless of what the kernel supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedCopy {
    /// Reason as shown to users.
    pub why: String,
}

/// A repository as mounted in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoMount {
    /// Directory in the workspace; empty if the repository is the workspace itself.
    pub name: String,
    /// Repository on the host.
    pub repo: PathBuf,
    /// The directory that this path must lead to.
    pub identity: FileIdentity,
    /// Layers that the sandbox gets.
    pub layers: RepoLayers,
}

impl RepoMount {
    /// Returns the mount point in the sandbox.
    pub fn mount_target(&self) -> PathBuf {
        if self.name.is_empty() { WORKSPACE_PATH.into() } else { Path::new(WORKSPACE_PATH).join(&self.name) }
    }
}

/// The layers of a repository in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepoLayers {
    /// The repository itself, accessed as the sandbox's user.
    Direct,
    /// The repository, read-only, and an upper layer for the changes.
    Overlay {
        /// Directory on the host that receives the changes.
        upper: PathBuf,
        /// Work directory of the overlay, next to `upper`.
        work: PathBuf,
    },
    /// A directory owned by the sandbox's user alone.
    Owned(PathBuf),
}

/// The workspace of a run, ready for a sandbox or open in one.
#[derive(Debug)]
pub struct RunWorkspace {
    pub(crate) layout: WorkspaceLayout,
    pub(crate) meta: WorkspaceMeta,
    pub(crate) repos: Vec<OpenRepo>,
    pub(crate) trackers: Mutex<Vec<Tracker>>,
    /// State of the baseline: being made durable, durable, or failed.
    pub(crate) baseline: Mutex<BaselineState>,
    /// Flag that stops saving the baseline when the workspace is dropped.
    pub(crate) saving: StopFlag,
    /// Bounds on work that lasts as long as the workspace.
    pub(crate) own: WorkBounds,
    pub(crate) safe: AtomicBool,
    pub(crate) is_new: bool,
    pub(crate) mounts: Vec<RepoMount>,
    pub(crate) git: gitdir::GitDir,
    pub(crate) secret_masks: Arc<SecretMasks>,
    pub(crate) reveal: Vec<String>,
}

impl Drop for RunWorkspace {
    fn drop(&mut self) {
        self.secret_masks.stop();
        self.saving.stop();
    }
}

impl RunWorkspace {
    /// Creates the workspace of a new run on `repos`, or opens that of a resumed one, and restores it to the snapshot
    /// `at`.
    pub(crate) fn prepare(
        store: &WorkspaceStorage,
        spec: &SandboxSpec,
        repos: Vec<OpenRepo>,
        run: RunId,
        at: Option<SnapshotId>,
        bounds: &WorkBounds,
    ) -> Result<Self, OpenError> {
        let place = WorkspaceLayout::for_run(&store.workspaces, run);
        check_disjoint(store, &repos)?;
        repos.iter().try_for_each(masks::refuse_special_git_config)?;
        match place.load_meta()? {
            Some(meta) => {
                check_same_repos(&meta, &repos)?;
                let view = Self::resume_existing(place, meta, repos, &spec.reveal, bounds)?;
                if let Some(at) = at {
                    view.restore(Some(at), bounds)?;
                }
                Ok(view)
            }
            None if at.is_some() => {
                let why =
                    format!("{} is missing, so the steps of this run are lost", place.root_dir().display());
                Err(Error::View { why }.into())
            }
            None => Self::create_new(store, place, spec, repos, bounds),
        }
    }

    fn create_new(
        store: &WorkspaceStorage,
        place: WorkspaceLayout,
        spec: &SandboxSpec,
        repos: Vec<OpenRepo>,
        bounds: &WorkBounds,
    ) -> Result<Self, OpenError> {
        // Fails while an earlier sandbox of the run is still ending, which would lose its files.
        if place.objects_dir(0).exists() {
            drop(ObjectStore::open(&place.objects_dir(0))?);
        }
        place.reset_dirs(repos.len())?;
        if spec.mode == WorkspaceMode::Branch {
            check_branch_targets(store, &repos)?;
        }
        let mut bases = Vec::with_capacity(repos.len());
        for repo in &repos {
            bases.push(Arc::new(BaseManifest::scan_root(&repo.root, bounds)?));
        }
        if spec.mode != WorkspaceMode::Inplace {
            masks::refuse_private_files(&repos, &bases)?;
        }
        let MountStrategy { kind, reason, warnings } =
            strategy::choose_strategy(spec.mode, &repos, &bases, store.limit.as_ref());
        let records = repos.iter().map(|repo| repo.record.clone()).collect();
        let mut meta = WorkspaceMeta::new(kind, reason, XattrNamespace::expected_namespace(), records);
        meta.warnings = warnings;
        if meta.kind != WorkspaceKind::Overlay {
            // All contents are read or copied below.
            for (repo, base) in meta.repos.iter().zip(&bases) {
                base.check_readable(&repo.path, bounds)?;
            }
        }
        let look = secret_masks::scan_repos(store, &mut meta, &repos, &bases, &spec.reveal);
        let copies = strategy::create_layers(&place, &mut meta, &repos, &bases, bounds)?;
        let begun = WorkspaceOrigin::New(copies, look);
        Self::from_layout(place, meta, repos, bases, begun, &spec.reveal, bounds)
    }

    fn resume_existing(
        place: WorkspaceLayout,
        meta: WorkspaceMeta,
        repos: Vec<OpenRepo>,
        reveal: &[String],
        bounds: &WorkBounds,
    ) -> Result<Self, OpenError> {
        let bases: Result<Vec<_>, Error> =
            (0..meta.repos.len()).map(|index| place.load_base(index)).collect();
        Self::from_layout(place, meta, repos, bases?, WorkspaceOrigin::Existing, reveal, bounds)
    }

    fn from_layout(
        place: WorkspaceLayout,
        meta: WorkspaceMeta,
        repos: Vec<OpenRepo>,
        bases: Vec<Arc<BaseManifest>>,
        begun: WorkspaceOrigin,
        reveal: &[String],
        bounds: &WorkBounds,
    ) -> Result<Self, OpenError> {
        let objects: Result<Vec<_>, _> =
            (0..bases.len()).map(|index| ObjectStore::open(&place.objects_dir(index))).collect();
        let objects: Vec<_> = objects?.into_iter().map(Arc::new).collect();
        if matches!(begun, WorkspaceOrigin::Existing) {
            // Not earlier: the open object stores guarantee exclusive access to the workspace.
            strategy::check_layers(&place, &meta, &repos)?;
        }
        let mut trackers = Vec::with_capacity(bases.len());
        for (index, base) in bases.iter().enumerate() {
            let options = tracker_options(&place, &meta, (index, &repos[index]), base, &objects[index]);
            let mut tracker = Tracker::open(options)?;
            tracker.set_bounds(bounds);
            trackers.push(tracker);
        }
        let (copies, look) = match begun {
            WorkspaceOrigin::New(copies, look) => (Some(copies), Some(look)),
            WorkspaceOrigin::Existing => (None, None),
        };
        let is_new = copies.is_some();
        let saving = StopFlag::default();
        let own = bounds.with_stop(saving.clone());
        if let Some(copies) = copies {
            strategy::adopt_copies(&mut trackers, copies)?;
        }
        let shown: Vec<RepoMount> =
            repos.iter().enumerate().map(|(index, repo)| repo_mount(&place, &meta, index, repo)).collect();
        let mut git = gitdir::GitDir::default();
        for (repo, shown) in repos.iter().zip(&shown) {
            let found = gitdir::find_external_git(repo.work_tree(), &shown.mount_target());
            git.binds.extend(found.binds);
            git.warnings.extend(found.warnings);
        }
        let covers = SecretMasks::new(&place, &meta, &repos, &bases, reveal, look);
        let beginning = match is_new {
            false => BaselineState::Safe,
            true => {
                let saver = BaselineWriter::new(&place, &meta, bases, &trackers, &covers, &objects);
                BaselineState::Pending(Box::new(saver.with_bounds(&own)))
            }
        };
        Ok(Self {
            safe: AtomicBool::new(!is_new),
            is_new,
            layout: place,
            meta,
            repos,
            trackers: Mutex::new(trackers),
            baseline: Mutex::new(beginning),
            saving,
            own,
            mounts: shown,
            git,
            secret_masks: covers,
            reveal: reveal.to_vec(),
        })
    }

    /// Returns the host directory that is the workspace, if there is one. The path of a repository is one of its
    /// descriptor, valid in this process and its children as long as this workspace exists.
    pub fn host_directory(&self) -> Option<PathBuf> {
        match self.mounts.as_slice() {
            [RepoMount { layers: RepoLayers::Direct, .. }] => {
                self.repos.first().map(|repo| repo.root.descriptor_path())
            }
            [RepoMount { layers: RepoLayers::Owned(copy), .. }] => Some(copy.clone()),
            [RepoMount { layers: RepoLayers::Owned(_), .. }, ..] => Some(self.layout.copies_dir()),
            _ => None,
        }
    }

    /// Returns the workspace roots in the form that the jail takes.
    pub fn jail_roots(&self) -> Vec<WorkspaceRoot> {
        let root = |shown: &RepoMount| {
            let (repo, target) = (shown.repo.clone(), shown.mount_target());
            let root = |source, identity, mode| WorkspaceRoot { source, identity, target, mode };
            match &shown.layers {
                RepoLayers::Direct => root(repo, Some(shown.identity), RootMode::Bind),
                RepoLayers::Overlay { upper, work } => {
                    let mode = RootMode::Overlay { upper: upper.clone(), work: work.clone() };
                    root(repo, Some(shown.identity), mode)
                }
                // In a directory of this user alone.
                RepoLayers::Owned(copy) => root(copy.clone(), None, RootMode::Owned),
            }
        };
        self.mounts.iter().map(root).collect()
    }

    /// Returns the kind of the workspace.
    pub fn workspace_kind(&self) -> WorkspaceKind {
        self.meta.kind
    }

    /// Returns bind mounts for git data outside the repositories.
    pub fn git_binds(&self) -> Vec<HostBind> {
        self.git.binds.clone()
    }

    /// Returns the variables that git needs for such data: in root's sandbox it appears owned by the overflow user.
    pub fn git_env(&self) -> &'static [(&'static str, &'static str)] {
        const SAFE_DIRECTORY_ENV: &[(&str, &str)] =
            &[("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")];
        if self.git.binds.is_empty() { &[] } else { SAFE_DIRECTORY_ENV }
    }

    /// Returns the masked paths of the workspace.
    pub fn masked_paths(&self) -> Vec<RawBytes> {
        let meta = &self.meta;
        meta.masks
            .iter()
            .map(|mask| RawBytes(mask.workspace_path(meta).as_os_str().as_bytes().to_vec()))
            .collect()
    }

    /// Returns the host directories by which the workspace may be named.
    pub fn workspace_paths(&self) -> WorkspacePaths {
        let mut places = WorkspacePaths::default();
        for shown in &self.mounts {
            if let RepoLayers::Owned(copy) = &shown.layers {
                places = places.with_root(copy, &shown.name);
            }
            places = places.with_root(&shown.repo, &shown.name);
        }
        places
    }

    /// Describes the workspace in a report.
    pub fn describe(&self, report: &mut SandboxReport) {
        let meta = &self.meta;
        let word = meta.kind.display_name();
        report.view =
            if meta.reason.is_empty() { word.to_owned() } else { format!("{word} ({})", meta.reason) };
        let masked = meta.masks.iter().map(|mask| mask.workspace_path(meta).to_string_lossy().into_owned());
        report.masked.extend(masked);
        report.warnings.extend(meta.warnings.iter().cloned());
        report.warnings.extend(self.git.warnings.iter().cloned());
    }

    /// Checks that the kernel keeps the overlay's attributes in the namespace recorded for the workspace.
    pub fn record_mount(&self, attributes: Option<OverlayAttributes>) -> Result<(), Error> {
        let space = match attributes {
            None => return Ok(()),
            Some(OverlayAttributes::Trusted) => XattrNamespace::Trusted,
            Some(OverlayAttributes::User) => XattrNamespace::User,
        };
        if self.meta.space == space {
            return Ok(());
        }
        let why = "the workspace was created by another kind of user; use the same one for the whole run"
            .to_owned();
        Err(Error::View { why })
    }

    /// Returns whether the baseline is saved, so that changes may begin. Only a workspace that is the repository itself
    /// has to wait for it.
    pub fn is_baseline_saved(&self) -> bool {
        self.safe.load(Ordering::Acquire)
            || !matches!(self.mounts.first(), Some(RepoMount { layers: RepoLayers::Direct, .. }))
    }

    /// Takes a snapshot of the workspace.
    pub fn snapshot(&self, bounds: &WorkBounds) -> Result<SnapshotId, Error> {
        let (id, objects) = self.snapshot_unflushed(bounds)?;
        flush_objects(&objects)?;
        Ok(id)
    }

    /// Takes a snapshot as [`RunWorkspace::snapshot`] does, and returns the stores that must be
    /// [flushed](flush_objects) before it is durable.
    pub fn snapshot_unflushed(
        &self,
        bounds: &WorkBounds,
    ) -> Result<(SnapshotId, Vec<Arc<ObjectStore>>), Error> {
        self.wait_baseline_saved(bounds)?;
        let mut trackers = self.trackers.lock();
        let mut parts = Vec::with_capacity(trackers.len());
        for tracker in trackers.iter_mut() {
            tracker.set_bounds(bounds);
            parts.push(tracker.snapshot_unflushed().map_err(|error| workspace_error(&error))?);
        }
        let objects = trackers.iter().map(Tracker::objects).collect();
        Ok((snapshot_id::combine_digests(&self.layout, &self.meta, &parts)?, objects))
    }

    /// Restores the workspace to a snapshot, or to the baseline for `None`. No sandbox may be open on it.
    pub fn restore(&self, to: Option<SnapshotId>, bounds: &WorkBounds) -> Result<(), Error> {
        self.wait_baseline_saved(bounds)?;
        let parts = snapshot_id::split_digests(&self.layout, &self.meta, to)?;
        let mut trackers = self.trackers.lock();
        for (tracker, part) in trackers.iter_mut().zip(parts) {
            tracker.set_bounds(bounds);
            tracker.restore(part).map_err(|error| workspace_error(&error))?;
        }
        Ok(())
    }

    /// Replaces an overlay that the kernel refuses with a copy of the repositories, recording `why`. Changes made in
    /// the overlay are carried over.
    pub fn fall_back_to_copy(self, why: &str, bounds: &WorkBounds) -> Result<Self, OpenError> {
        // Waits for the baseline writer, which writes to the same directory.
        let done = match self.is_new {
            true => self.wait_baseline_saved(bounds).map(|()| None),
            false => self.snapshot(bounds).map(Some),
        }?;
        let mut meta = self.meta.clone();
        secret_masks::add_masks(&mut meta, self.secret_masks.pending_masks());
        let (place, reveal, repos) = (self.layout.clone(), self.reveal.clone(), self.repos.clone());
        drop(self);
        let bases: Result<Vec<_>, Error> =
            (0..meta.repos.len()).map(|index| place.load_base(index)).collect();
        let bases = bases?;
        meta.kind = WorkspaceKind::Copy;
        why.clone_into(&mut meta.reason);
        for (repo, base) in meta.repos.iter().zip(&bases) {
            base.check_readable(&repo.path, bounds)?;
        }
        let copies = strategy::create_layers(&place, &mut meta, &repos, &bases, bounds)?;
        for index in 0..meta.repos.len() {
            forge_files::remove_tree(&place.upper_dir(index));
            forge_files::remove_tree(&place.work_dir(index));
        }
        let view = Self::from_layout(
            place,
            meta,
            repos,
            bases,
            WorkspaceOrigin::New(copies, InitialScan::default()),
            &reveal,
            bounds,
        )?;
        if done.is_some() {
            view.restore(done, bounds)?;
        }
        Ok(view)
    }
}

/// The origin of a workspace.
enum WorkspaceOrigin {
    /// A new workspace, with the copies made for it and the result of its first scan.
    New(Vec<CopyStats>, InitialScan),
    /// A workspace that existed before.
    Existing,
}

impl XattrNamespace {
    /// Returns the namespace in which the kernel keeps the attributes of an overlay that this user mounts.
    fn expected_namespace() -> Self {
        if rustix::process::geteuid().is_root() { Self::Trusted } else { Self::User }
    }
}

impl From<XattrNamespace> for OverlayXattrs {
    fn from(space: XattrNamespace) -> Self {
        match space {
            XattrNamespace::Trusted => Self::Trusted,
            XattrNamespace::User => Self::User,
        }
    }
}

impl FileMask {
    /// Returns whether files with the same content are masked under any name.
    pub(crate) fn matches_by_content(&self) -> bool {
        self.content.is_some_and(|content| content != forge_types::Digest::of_bytes(b""))
            && !masks::can_be_credential(Path::new(std::ffi::OsStr::from_bytes(&self.path)))
    }

    pub(crate) fn rel_path(&self) -> Option<RelPath> {
        RelPath::new(self.path.clone())
    }

    /// Returns the path in the workspace.
    fn workspace_path(&self, meta: &WorkspaceMeta) -> PathBuf {
        let below = Path::new(std::ffi::OsStr::from_bytes(&self.path));
        meta.repos.get(self.repo).map_or_else(|| below.to_owned(), |repo| Path::new(&repo.name).join(below))
    }
}

impl WorkspaceLayout {
    pub(crate) fn load_base(&self, index: usize) -> Result<Arc<BaseManifest>, Error> {
        let path = self.base_path(index);
        BaseManifest::load(&path).map(Arc::new).map_err(|error| Error::View {
            why: format!("{}: {error}; the run's steps can no longer be used", path.display()),
        })
    }
}

/// Refuses repositories that cannot take a branch, for example because another one is in the way, before a run that would end with one costs anything. A missing
/// repository is only reported at the end: the user may have created one by then.
fn check_branch_targets(store: &WorkspaceStorage, repos: &[OpenRepo]) -> Result<(), Error> {
    for repo in repos {
        let checked = forge_git::Repository::find(repo.work_tree()).and_then(|repository| {
            repository.check_new_branch("forge/run")?;
            forge_git::ScratchRepository::check_place(&repository, &store.temporary)
        });
        match checked {
            Ok(()) | Err(forge_git::Error::NoRepository { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Returns the tracker options of one repository.
fn tracker_options(
    place: &WorkspaceLayout,
    meta: &WorkspaceMeta,
    (index, repo): (usize, &OpenRepo),
    base: &Arc<BaseManifest>,
    objects: &Arc<ObjectStore>,
) -> forge_snapshot::TrackerOptions {
    let layout = match meta.kind {
        WorkspaceKind::Direct => Layout::Directory { root: repo.record.path.clone() },
        WorkspaceKind::Overlay => {
            Layout::Overlay { upper: place.upper_dir(index), attributes: meta.space.into() }
        }
        WorkspaceKind::Reflink | WorkspaceKind::Copy => {
            Layout::Directory { root: place.copy_dir(meta, index) }
        }
    };
    // Files restored by root get the owner of the root directory: the repository's owner, or the user of the last
    // sandbox.
    let owner = match &layout {
        Layout::Directory { root } if *root == repo.record.path => Some((repo.stamp.uid, repo.stamp.gid)),
        Layout::Overlay { upper: root, .. } | Layout::Directory { root } => {
            std::fs::metadata(root).ok().map(|meta| (meta.uid(), meta.gid()))
        }
    };
    forge_snapshot::TrackerOptions {
        base: Arc::clone(base),
        lower: repo.root.clone(),
        ignored: secret_masks::mask_paths(&meta.masks, index),
        owner: owner.filter(|_| rustix::process::geteuid().is_root()),
        layout,
        objects: Arc::clone(objects),
    }
}

fn repo_mount(place: &WorkspaceLayout, meta: &WorkspaceMeta, index: usize, repo: &OpenRepo) -> RepoMount {
    let layers = match meta.kind {
        WorkspaceKind::Direct => RepoLayers::Direct,
        WorkspaceKind::Overlay => {
            RepoLayers::Overlay { upper: place.upper_dir(index), work: place.work_dir(index) }
        }
        WorkspaceKind::Reflink | WorkspaceKind::Copy => RepoLayers::Owned(place.copy_dir(meta, index)),
    };
    let identity = FileIdentity { dev: repo.stamp.dev, ino: repo.stamp.ino };
    RepoMount { name: repo.record.name.clone(), repo: repo.record.path.clone(), identity, layers }
}

/// Flushes object stores, which makes the snapshots in them durable.
pub fn flush_objects(objects: &[Arc<ObjectStore>]) -> Result<(), Error> {
    objects.iter().try_for_each(|objects| objects.flush().map_err(|error| workspace_error(&error)))
}
