//! One run's workspace: prepared before its sandbox opens, and the snapshots taken while it is open.

use crate::baseline::{BaselineState, BaselineWriter};
use crate::errors::{OpenError, workspace_error};
use crate::layout::{FileMask, RunRepo, WorkspaceKind, WorkspaceLayout, WorkspaceMeta, XattrNamespace};
use crate::paths::WorkspacePaths;
use crate::secret_masks::{self, InitialScan, SecretMasks};
use crate::strategy::MountStrategy;
use crate::{gitdir, masks, snapshot_id, strategy};
use forge_jail::{HostBind, OverlayAttributes, RawBytes, RootMode, WORKSPACE_PATH, WorkspaceRoot};
use forge_ports::sandbox::Error;
use forge_snapshot::{
    BaseManifest, CopyStats, Layout, ObjectStore, OverlayXattrs, RelPath, StopFlag, Tracker, WorkBounds,
};
use forge_types::{RunId, SandboxReport, SandboxSpec, SnapshotId, WorkspaceMode};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Where views are kept, and how they are made.
#[derive(Clone, Debug)]
pub struct WorkspaceStorage {
    /// The folder with one folder per run.
    pub workspaces: PathBuf,
    /// The folder for locks of repositories.
    pub locks: PathBuf,
    /// No overlay, if there is a reason.
    pub limit: Option<ForcedCopy>,
}

/// Why a view is a copy whatever the kernel can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedCopy {
    /// The reason, for people.
    pub why: String,
}

/// How one repository is shown in a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoMount {
    /// Its folder in the workspace; empty: it is the workspace.
    pub name: String,
    /// The repository on the host.
    pub repo: PathBuf,
    /// What the box gets.
    pub layers: RepoLayers,
}

impl RepoMount {
    /// Where it stands in the box.
    pub fn mount_target(&self) -> PathBuf {
        if self.name.is_empty() { WORKSPACE_PATH.into() } else { Path::new(WORKSPACE_PATH).join(&self.name) }
    }
}

/// What a box gets of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepoLayers {
    /// The repository itself, under the box's user.
    Direct,
    /// The repository, read-only, and what receives the changes.
    Overlay {
        /// The directory on the host that receives the changes.
        upper: PathBuf,
        /// The overlay's own directory beside it.
        work: PathBuf,
    },
    /// A folder that belongs to the box's user alone.
    Owned(PathBuf),
}

/// The view of a run, ready for a box or open in one.
#[derive(Debug)]
pub struct RunWorkspace {
    pub(crate) layout: WorkspaceLayout,
    pub(crate) meta: WorkspaceMeta,
    pub(crate) trackers: Mutex<Vec<Tracker>>,
    /// What makes the beginning durable, if it still works at it; then what went wrong with it, if anything did.
    pub(crate) baseline: Mutex<BaselineState>,
    /// Ends that work with the view.
    pub(crate) saving: StopFlag,
    /// What work takes that lasts as long as the view.
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
    /// Makes the view of a new run, or takes up that of one that goes on, and puts it to the snapshot `at`.
    pub fn prepare(
        store: &WorkspaceStorage,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
        bounds: &WorkBounds,
    ) -> Result<Self, OpenError> {
        let place = WorkspaceLayout::for_run(&store.workspaces, run);
        let repos = resolve_repos(spec)?;
        check_disjoint(store, &repos)?;
        repos.iter().try_for_each(|repo| masks::refuse_special_git_config(&repo.path))?;
        match place.load_meta()? {
            Some(meta) => {
                check_same_repos(&meta, &repos)?;
                let view = Self::resume_existing(place, meta, &spec.reveal, bounds)?;
                if let Some(at) = at {
                    view.restore(Some(at), bounds)?;
                }
                Ok(view)
            }
            None if at.is_some() => {
                let why =
                    format!("{} is gone, and with it the steps of this run", place.root_dir().display());
                Err(Error::View { why }.into())
            }
            None => Self::create_new(store, place, spec, repos, bounds),
        }
    }

    fn create_new(
        store: &WorkspaceStorage,
        place: WorkspaceLayout,
        spec: &SandboxSpec,
        repos: Vec<RunRepo>,
        bounds: &WorkBounds,
    ) -> Result<Self, OpenError> {
        // An earlier box of the run that has not ended yet would lose its ground.
        if place.objects_dir(0).exists() {
            drop(ObjectStore::open(&place.objects_dir(0))?);
        }
        place.reset_dirs(repos.len())?;
        if spec.mode == WorkspaceMode::Branch {
            check_branch_targets(&repos)?;
        }
        let mut bases = Vec::with_capacity(repos.len());
        for repo in &repos {
            bases.push(Arc::new(BaseManifest::scan_tree_within(&repo.path, bounds)?));
        }
        let MountStrategy { kind, reason, warnings } =
            strategy::choose_strategy(spec.mode, &repos, &bases, store.limit.as_ref());
        let mut meta = WorkspaceMeta::new(kind, reason, XattrNamespace::expected_namespace(), repos);
        meta.warnings = warnings;
        if meta.kind != WorkspaceKind::Overlay {
            // All contents are read, or copied.
            for (repo, base) in meta.repos.iter().zip(&bases) {
                base.check_readable(&repo.path, bounds)?;
            }
        }
        let look = secret_masks::scan_repos(store, &mut meta, &bases, &spec.reveal);
        let copies = strategy::create_layers(&place, &mut meta, &bases, bounds)?;
        Self::from_layout(place, meta, bases, WorkspaceOrigin::New(copies, look), &spec.reveal, bounds)
    }

    fn resume_existing(
        place: WorkspaceLayout,
        meta: WorkspaceMeta,
        reveal: &[String],
        bounds: &WorkBounds,
    ) -> Result<Self, OpenError> {
        let bases: Result<Vec<_>, Error> =
            (0..meta.repos.len()).map(|index| place.load_base(index)).collect();
        Self::from_layout(place, meta, bases?, WorkspaceOrigin::Existing, reveal, bounds)
    }

    fn from_layout(
        place: WorkspaceLayout,
        meta: WorkspaceMeta,
        bases: Vec<Arc<BaseManifest>>,
        begun: WorkspaceOrigin,
        reveal: &[String],
        bounds: &WorkBounds,
    ) -> Result<Self, OpenError> {
        let objects: Result<Vec<_>, _> =
            (0..bases.len()).map(|index| ObjectStore::open(&place.objects_dir(index))).collect();
        let objects: Vec<_> = objects?.into_iter().map(Arc::new).collect();
        if matches!(begun, WorkspaceOrigin::Existing) {
            // Only now: whoever holds the objects has the view to itself.
            strategy::check_layers(&place, &meta)?;
        }
        let mut trackers = Vec::with_capacity(bases.len());
        for (index, base) in bases.iter().enumerate() {
            let mut tracker = Tracker::open(tracker_options(&place, &meta, index, base, &objects[index]))?;
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
            (0..meta.repos.len()).map(|index| repo_mount(&place, &meta, index)).collect();
        let mut git = gitdir::GitDir::default();
        for shown in &shown {
            let found = gitdir::find_external_git(&shown.repo, &shown.mount_target());
            git.binds.extend(found.binds);
            git.warnings.extend(found.warnings);
        }
        let covers = SecretMasks::new(&place, &meta, &bases, reveal, look);
        let beginning = match is_new {
            false => BaselineState::Safe,
            true => {
                let saver = BaselineWriter::new(&place, &meta, bases, &trackers, &covers);
                BaselineState::Pending(Box::new(saver.with_bounds(&own)))
            }
        };
        Ok(Self {
            safe: AtomicBool::new(!is_new),
            is_new,
            layout: place,
            meta,
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

    /// The folder of the host that is the workspace, if there is one.
    pub fn host_directory(&self) -> Option<PathBuf> {
        match self.mounts.as_slice() {
            [RepoMount { layers: RepoLayers::Direct, repo, .. }] => Some(repo.clone()),
            [RepoMount { layers: RepoLayers::Owned(copy), .. }] => Some(copy.clone()),
            [RepoMount { layers: RepoLayers::Owned(_), .. }, ..] => Some(self.layout.copies_dir()),
            _ => None,
        }
    }

    /// How each repository is shown, in the words of a box.
    pub fn jail_roots(&self) -> Vec<WorkspaceRoot> {
        let root = |shown: &RepoMount| {
            let (source, show) = match &shown.layers {
                RepoLayers::Direct => (shown.repo.clone(), RootMode::Bind),
                RepoLayers::Overlay { upper, work } => {
                    (shown.repo.clone(), RootMode::Overlay { upper: upper.clone(), work: work.clone() })
                }
                RepoLayers::Owned(copy) => (copy.clone(), RootMode::Owned),
            };
            WorkspaceRoot { source, target: shown.mount_target(), mode: show }
        };
        self.mounts.iter().map(root).collect()
    }

    /// Which kind it is.
    pub fn workspace_kind(&self) -> WorkspaceKind {
        self.meta.kind
    }

    /// Git data that lies elsewhere and must be seen.
    pub fn git_binds(&self) -> Vec<HostBind> {
        self.git.binds.clone()
    }

    /// Variables that git needs for data that lies elsewhere: as root's box sees it, it belongs to nobody.
    pub fn git_env(&self) -> &'static [(&'static str, &'static str)] {
        const SAFE_DIRECTORY_ENV: &[(&str, &str)] =
            &[("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")];
        if self.git.binds.is_empty() { &[] } else { SAFE_DIRECTORY_ENV }
    }

    /// Paths of the workspace that are covered.
    pub fn masked_paths(&self) -> Vec<RawBytes> {
        let meta = &self.meta;
        meta.masks
            .iter()
            .map(|mask| RawBytes(mask.workspace_path(meta).as_os_str().as_bytes().to_vec()))
            .collect()
    }

    /// By which folders of the host the workspace may be named.
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

    /// Says in a report what the workspace is.
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

    /// Takes note of where the kernel keeps an overlay's attributes.
    pub fn record_mount(&self, attributes: Option<OverlayAttributes>) -> Result<(), Error> {
        let space = match attributes {
            None => return Ok(()),
            Some(OverlayAttributes::Trusted) => XattrNamespace::Trusted,
            Some(OverlayAttributes::User) => XattrNamespace::User,
        };
        if self.meta.space == space {
            return Ok(());
        }
        let why = "the view was made by another kind of user; use the same one for all of a run".to_owned();
        Err(Error::View { why })
    }

    /// Whether the state before the first change is kept, so that changes may begin. Only where the workspace is the
    /// repository itself this takes more than a look.
    pub fn is_baseline_saved(&self) -> bool {
        self.safe.load(Ordering::Acquire)
            || !matches!(self.mounts.first(), Some(RepoMount { layers: RepoLayers::Direct, .. }))
    }

    /// Keeps the workspace as it stands now.
    pub fn snapshot(&self, bounds: &WorkBounds) -> Result<SnapshotId, Error> {
        let (id, objects) = self.snapshot_unflushed(bounds)?;
        flush_objects(&objects)?;
        Ok(id)
    }

    /// As [`View::snapshot`], with what must be [flushed](flush) before it is durable.
    pub fn snapshot_unflushed(
        &self,
        bounds: &WorkBounds,
    ) -> Result<(SnapshotId, Vec<Arc<ObjectStore>>), Error> {
        self.wait_baseline_saved(bounds)?;
        let mut trackers = self.trackers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut parts = Vec::with_capacity(trackers.len());
        for tracker in trackers.iter_mut() {
            tracker.set_bounds(bounds);
            parts.push(tracker.snapshot_unflushed().map_err(|error| workspace_error(&error))?);
        }
        let objects = trackers.iter().map(Tracker::objects).collect();
        Ok((snapshot_id::combine_digests(&self.layout, &self.meta, &parts)?, objects))
    }

    /// Puts the workspace to a snapshot; `None`: the beginning. No box is open on it.
    pub fn restore(&self, to: Option<SnapshotId>, bounds: &WorkBounds) -> Result<(), Error> {
        self.wait_baseline_saved(bounds)?;
        let parts = snapshot_id::split_digests(&self.layout, &self.meta, to)?;
        let mut trackers = self.trackers.lock().unwrap_or_else(PoisonError::into_inner);
        for (tracker, part) in trackers.iter_mut().zip(parts) {
            tracker.set_bounds(bounds);
            tracker.restore(part).map_err(|error| workspace_error(&error))?;
        }
        Ok(())
    }

    /// Makes a copy of the repositories in place of an overlay that can't be had, for this reason. What was done in the
    /// overlay before is put into the copy.
    pub fn fall_back_to_copy(self, why: &str, bounds: &WorkBounds) -> Result<Self, OpenError> {
        // Waits for what writes into the same folder.
        let done = match self.is_new {
            true => self.wait_baseline_saved(bounds).map(|()| None),
            false => self.snapshot(bounds).map(Some),
        }?;
        let mut meta = self.meta.clone();
        secret_masks::add_masks(&mut meta, self.secret_masks.pending_masks());
        let (place, reveal) = (self.layout.clone(), self.reveal.clone());
        drop(self);
        let bases: Result<Vec<_>, Error> =
            (0..meta.repos.len()).map(|index| place.load_base(index)).collect();
        let bases = bases?;
        meta.kind = WorkspaceKind::Copy;
        why.clone_into(&mut meta.reason);
        for (repo, base) in meta.repos.iter().zip(&bases) {
            base.check_readable(&repo.path, bounds)?;
        }
        let copies = strategy::create_layers(&place, &mut meta, &bases, bounds)?;
        for index in 0..meta.repos.len() {
            forge_files::remove_tree(&place.upper_dir(index));
            forge_files::remove_tree(&place.work_dir(index));
        }
        let view = Self::from_layout(
            place,
            meta,
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

/// Whether a view is new.
enum WorkspaceOrigin {
    /// It is, with these copies, and this was seen of it.
    New(Vec<CopyStats>, InitialScan),
    /// It was there.
    Existing,
}

impl XattrNamespace {
    /// Where the kernel keeps an overlay's attributes if this user mounts it.
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
    /// Whether it is one whatever its name: what else holds the same is one as well.
    pub(crate) fn matches_by_content(&self) -> bool {
        self.content.is_some_and(|content| content != forge_types::Digest::of_bytes(b""))
            && !masks::can_be_credential(Path::new(std::ffi::OsStr::from_bytes(&self.path)))
    }

    pub(crate) fn rel_path(&self) -> Option<RelPath> {
        RelPath::new(self.path.clone())
    }

    /// The path in the workspace.
    fn workspace_path(&self, meta: &WorkspaceMeta) -> PathBuf {
        let below = Path::new(std::ffi::OsStr::from_bytes(&self.path));
        meta.repos.get(self.repo).map_or_else(|| below.to_owned(), |repo| Path::new(&repo.name).join(below))
    }
}

impl WorkspaceLayout {
    pub(crate) fn load_base(&self, index: usize) -> Result<Arc<BaseManifest>, Error> {
        let path = self.base_path(index);
        BaseManifest::load(&path).map(Arc::new).map_err(|error| Error::View {
            why: format!("{}: {error}; the run's steps can't be used any more", path.display()),
        })
    }
}

/// The repositories of a run: where they are, and how they are called in the workspace.
pub(crate) fn resolve_repos(spec: &SandboxSpec) -> Result<Vec<RunRepo>, Error> {
    let mut repos: Vec<RunRepo> = Vec::with_capacity(1 + spec.more_repos.len());
    let paths = std::iter::once(&spec.repo).chain(&spec.more_repos);
    for (path, name) in paths.zip(spec.repo_directories()) {
        let failed = |error: &std::io::Error| Error::Startup {
            why: format!("the workspace {}: {error}", path.display()),
        };
        let real = std::fs::canonicalize(path).map_err(|error| failed(&error))?;
        let meta = std::fs::metadata(&real).map_err(|error| failed(&error))?;
        if !meta.is_dir() {
            return Err(failed(&std::io::ErrorKind::NotADirectory.into()));
        }
        if let Some(other) =
            repos.iter().find(|other| other.path.starts_with(&real) || real.starts_with(&other.path))
        {
            let (one, two) = (real.display(), other.path.display());
            return Err(Error::Startup {
                why: format!("the repositories {two} and {one} lie in one another"),
            });
        }
        repos.push(RunRepo { name, path: real, ino: meta.ino() });
    }
    Ok(repos)
}

/// A run goes on with the repositories that it began with.
pub(crate) fn check_same_repos(meta: &WorkspaceMeta, repos: &[RunRepo]) -> Result<(), Error> {
    for (was, is) in meta.repos.iter().zip(repos) {
        if was.path != is.path || (was.ino != is.ino && meta.kind == WorkspaceKind::Overlay) {
            let path = was.path.display();
            let why = format!("{path} is not the folder any more that the run began with: put that one back");
            return Err(Error::View { why });
        }
    }
    if meta.repos.len() == repos.len() {
        return Ok(());
    }
    Err(Error::View { why: "the run began with other repositories".to_owned() })
}

/// What forge keeps must not be part of what it keeps.
fn check_disjoint(store: &WorkspaceStorage, repos: &[RunRepo]) -> Result<(), Error> {
    let views = std::fs::canonicalize(&store.workspaces).unwrap_or_else(|_| store.workspaces.clone());
    match repos.iter().find(|repo| views.starts_with(&repo.path)) {
        None => Ok(()),
        Some(repo) => Err(Error::View {
            why: format!(
                "the folder of forge's data, {}, lies in the repository {}: choose another one (XDG_DATA_HOME), or a \
                 smaller repository (--repo)",
                views.display(),
                repo.path.display()
            ),
        }),
    }
}

/// Refuses repositories whose git data can't take a branch, before anything is spent on a run that would end with one.
/// That there is no git data at all is said at its end: by then a person may have made some.
fn check_branch_targets(repos: &[RunRepo]) -> Result<(), Error> {
    for repo in repos {
        match forge_git::Repository::find(&repo.path) {
            Ok(_) | Err(forge_git::Error::NoRepository { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What the tracker of one repository works on.
fn tracker_options(
    place: &WorkspaceLayout,
    meta: &WorkspaceMeta,
    index: usize,
    base: &Arc<BaseManifest>,
    objects: &Arc<ObjectStore>,
) -> forge_snapshot::TrackerOptions {
    let repo = &meta.repos[index];
    let layout = match meta.kind {
        WorkspaceKind::Direct => Layout::Directory { root: repo.path.clone() },
        WorkspaceKind::Overlay => {
            Layout::Overlay { upper: place.upper_dir(index), attributes: meta.space.into() }
        }
        WorkspaceKind::Reflink | WorkspaceKind::Copy => {
            Layout::Directory { root: place.copy_dir(meta, index) }
        }
    };
    let root = match &layout {
        Layout::Overlay { upper: root, .. } | Layout::Directory { root } => root,
    };
    // What root puts back belongs to whom the rest belongs: the repository's owner, or the user of the last box.
    let owner = std::fs::metadata(root).ok().map(|meta| (meta.uid(), meta.gid()));
    forge_snapshot::TrackerOptions {
        base: Arc::clone(base),
        lower: repo.path.clone(),
        ignored: secret_masks::mask_paths(&meta.masks, index),
        owner: owner.filter(|_| rustix::process::geteuid().is_root()),
        layout,
        objects: Arc::clone(objects),
    }
}

fn repo_mount(place: &WorkspaceLayout, meta: &WorkspaceMeta, index: usize) -> RepoMount {
    let repo = &meta.repos[index];
    let layers = match meta.kind {
        WorkspaceKind::Direct => RepoLayers::Direct,
        WorkspaceKind::Overlay => {
            RepoLayers::Overlay { upper: place.upper_dir(index), work: place.work_dir(index) }
        }
        WorkspaceKind::Reflink | WorkspaceKind::Copy => RepoLayers::Owned(place.copy_dir(meta, index)),
    };
    RepoMount { name: repo.name.clone(), repo: repo.path.clone(), layers }
}

/// Makes the contents of snapshots durable.
pub fn flush_objects(objects: &[Arc<ObjectStore>]) -> Result<(), Error> {
    objects.iter().try_for_each(|objects| objects.flush().map_err(|error| workspace_error(&error)))
}
