//! What the workspaces of runs hold, seen from outside of any box: comparing, putting back, applying, removing.

use super::apply_history::ApplyHistory;
use super::git::GitIndex;
use super::layout::{MAX_RECORD_BYTES, WorkspaceLayout, WorkspaceMeta, write_durably};
use super::open::{POLL_INTERVAL, retry_while_busy};
use super::publish::{BranchPublisher, delete_branch};
use super::secret_masks::MaskIndex;
use super::{OpenError, RunWorkspace, WorkspaceStorage, lock, snapshot_id, workspace_error};
use crate::Backends;
use crate::active_work::{self, ActiveWork};
use crate::file_requests::run_blocking;
use forge_ports::sandbox::{ApplyConflict, Error};
use forge_ports::workspace_store::{ApplyReport, MergePolicy, PublishedBranch, SnapshotUsage};
use forge_ports::{Sandbox as _, SnapshotStorage, Workspace, WorkspaceStore, async_trait};
use forge_snapshot::apply::{self, Mergeable, RepoApply};
use forge_snapshot::compare::{
    self, ChangeType, ContentSources, DiffOptions, DiffText, RenameDetection, TreeChange, unified_diff,
};
use forge_snapshot::{BaseManifest, ObjectStore, RelPath, TreeDelta, WorkBounds};
use forge_types::{
    ChangeKind, NetworkPolicy, RunId, SandboxSpec, SnapshotId, Timestamp, WorkspaceChange, WorkspaceLimits,
};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time of one step of a commit, milliseconds.
const COMMIT_TIMEOUT_MS: u64 = 1_800_000;

/// How long what a box was writing when it ended may take to land.
const WRITE_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether contents are only read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ObjectAccess {
    Read,
    Write,
}

/// How a way back is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InversePolicy {
    /// What the last apply changed, if it was that way.
    AsRecorded,
    /// By what differs between the states.
    ByDiff,
}

/// A run's view without a box.
struct OfflineWorkspace {
    layout: WorkspaceLayout,
    meta: WorkspaceMeta,
    roots: Vec<OfflineRepo>,
    bounds: WorkBounds,
}

/// One repository of it.
struct OfflineRepo {
    repo: PathBuf,
    git: GitIndex,
    base: Arc<BaseManifest>,
    objects: ObjectStore,
}

impl OfflineRepo {
    fn content_sources<'a>(&'a self, bounds: &'a WorkBounds) -> ContentSources<'a> {
        ContentSources {
            repository: &self.repo,
            base: &self.base,
            objects: &self.objects,
            baseline: Some(&self.git),
            bounds,
        }
    }
}

impl OfflineWorkspace {
    fn open(
        store: &WorkspaceStorage,
        run: RunId,
        access: ObjectAccess,
        bounds: &WorkBounds,
    ) -> Result<Self, OpenError> {
        let place = WorkspaceLayout::for_run(&store.workspaces, run);
        let Some(meta) = place.load_meta()? else {
            let why = "the run has no steps that are kept: it has not begun, or they were removed".to_owned();
            return Err(Error::View { why }.into());
        };
        let mut roots = Vec::with_capacity(meta.repos.len());
        for (index, repo) in meta.repos.iter().enumerate() {
            let folder = place.objects_dir(index);
            let objects = match access {
                ObjectAccess::Read => ObjectStore::open_read_only(&folder)?,
                ObjectAccess::Write => ObjectStore::open(&folder)?,
            };
            let git = GitIndex::for_repo(&repo.path);
            roots.push(OfflineRepo { repo: repo.path.clone(), git, base: place.load_base(index)?, objects });
        }
        Ok(Self { layout: place, meta, roots, bounds: bounds.clone() })
    }

    /// How each repository differs from its beginning in a state, without what is masked.
    fn repo_deltas(&self, state: Option<SnapshotId>) -> Result<Vec<TreeDelta>, Error> {
        let parts = snapshot_id::split_digests(&self.layout, &self.meta, state)?;
        let record = ApplyHistory::load(&self.layout)?;
        let mut deltas = Vec::with_capacity(parts.len());
        for (index, (root, part)) in self.roots.iter().zip(parts).enumerate() {
            let masks = MaskIndex::new(&self.meta, index);
            let mut delta = match state {
                None => TreeDelta::new(),
                Some(_) => forge_snapshot::load_delta(&root.objects, part, &self.bounds)
                    .map_err(|error| workspace_error(&error))?,
            };
            delta.retain(|path, entry| !masks.is_masked(path, entry.after.as_ref()));
            record.fill_known_contents(index, &mut delta);
            deltas.push(delta);
        }
        Ok(deltas)
    }

    /// What differs in each repository between two states.
    fn repo_changes(
        &self,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<Vec<Vec<TreeChange>>, Error> {
        let (from, to) = (self.repo_deltas(from)?, self.repo_deltas(to)?);
        let mut all = Vec::with_capacity(self.roots.len());
        for (root, (from, to)) in self.roots.iter().zip(from.iter().zip(&to)) {
            let mut differences = compare::compare_deltas(from, to);
            differences.retain(|difference| !difference.path.as_bytes().is_empty());
            let learned = root.content_sources(&self.bounds).learn_contents(&mut differences);
            learned.map_err(|error| self.read_error(error))?;
            all.push(differences);
        }
        Ok(all)
    }

    /// Differences as they are told, with lines counted.
    fn file_changes(&self, index: usize, differences: &[TreeChange]) -> Result<Vec<WorkspaceChange>, Error> {
        let look = DiffOptions {
            context: 0,
            renames: RenameDetection::Split,
            text: DiffText::Counted,
            ..DiffOptions::default()
        };
        let diff = unified_diff(differences, &self.roots[index].content_sources(&self.bounds), look)
            .map_err(|error| self.read_error(error))?;
        let change = |file: &compare::CountedChange| {
            let lines = |count: usize| (!file.opaque).then(|| u64::try_from(count).unwrap_or(u64::MAX));
            WorkspaceChange {
                path: self.workspace_path(index, &file.path),
                kind: change_kind(file.change),
                added: lines(file.added),
                removed: lines(file.removed),
            }
        };
        Ok(diff.files.iter().map(change).collect())
    }

    /// A path as it reads in the workspace.
    fn workspace_path(&self, index: usize, path: &RelPath) -> String {
        match self.meta.repos[index].name.as_str() {
            "" => path.to_string(),
            name => format!("{name}/{path}"),
        }
    }

    fn read_error(&self, error: std::io::Error) -> Error {
        match error.downcast::<forge_snapshot::Error>() {
            Ok(own) => workspace_error(&own),
            Err(error) => self.layout.layout_error("reading contents in", &error),
        }
    }

    fn compare(
        &self,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<Vec<WorkspaceChange>, Error> {
        let mut changes = Vec::new();
        for (index, differences) in self.repo_changes(from, to)?.iter().enumerate() {
            changes.extend(self.file_changes(index, differences)?);
        }
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    fn diff(&self, from: Option<SnapshotId>, to: Option<SnapshotId>) -> Result<String, Error> {
        let mut text = Vec::new();
        for (index, differences) in self.repo_changes(from, to)?.iter().enumerate() {
            let name = &self.meta.repos[index].name;
            let below = RelPath::new(name.as_bytes()).unwrap_or_default();
            let look = DiffOptions::default();
            let diff = compare::unified_diff_below(
                &below,
                differences,
                &self.roots[index].content_sources(&self.bounds),
                look,
            );
            text.extend(diff.map_err(|error| self.read_error(error))?.text);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn apply(
        &self,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
        merge: MergePolicy,
        how: InversePolicy,
        locks: &Path,
    ) -> Result<ApplyReport, Error> {
        // In the order of their paths, so that two applies never wait for one another.
        let mut repos: Vec<&Path> = self.roots.iter().map(|root| root.repo.as_path()).collect();
        repos.sort_unstable();
        let _locks: Vec<_> =
            repos.into_iter().map(|repo| lock::lock_for_apply(repo, locks)).collect::<Result<_, _>>()?;
        let record = ApplyHistory::load(&self.layout)?;
        let (stood, wanted) = (self.repo_deltas(from)?, self.repo_deltas(to)?);
        // A state in which nothing differs is the beginning, which also has no name.
        let named = |state: Option<SnapshotId>, deltas: &[TreeDelta]| {
            state.filter(|_| deltas.iter().any(|delta| !delta.is_empty()))
        };
        let (from, to) = (named(from, &stood), named(to, &wanted));
        let way_back =
            Some(how).filter(|how| *how == InversePolicy::AsRecorded).and_then(|_| record.inverse(from, to));
        let nothing;
        let (before, after) = match &way_back {
            Some(changed) => {
                nothing = vec![TreeDelta::new(); changed.len()];
                (changed, &nothing)
            }
            None => (&stood, &wanted),
        };
        let part = |(root, (from, to)): (_, _)| {
            let root: &OfflineRepo = root;
            RepoApply { sources: root.content_sources(&self.bounds), from, to }
        };
        let parts: Vec<RepoApply<'_>> = self.roots.iter().zip(before.iter().zip(after)).map(part).collect();
        let merge = match merge {
            MergePolicy::No => apply::MergeMode::No,
            MergePolicy::Clean => apply::MergeMode::Clean,
        };
        let applied = apply::apply_all(&parts, merge).map_err(|failed| self.apply_error(failed))?;
        let base = |index: usize, path: &RelPath| self.roots[index].base.node_at(path);
        let kept = record.record_apply(&self.layout, (from, to), &base, &applied);
        let mut result = self.to_port(&applied)?;
        if let Err(error) = kept {
            // It is applied, and that is what counts.
            result.notes.push(format!("it can't be taken back exactly: {error}"));
        }
        result.notes.extend(self.nested_repos(&wanted));
        result.notes.extend(self.setid_warning(&wanted));
        Ok(result)
    }

    /// What was done, in the words of the port.
    fn to_port(&self, applied: &[apply::ApplyResult]) -> Result<ApplyReport, Error> {
        let mut result = ApplyReport::default();
        for (index, applied) in applied.iter().enumerate() {
            result.changed.extend(self.file_changes(index, &applied.changed)?);
            result.merged.extend(applied.merged.iter().map(|path| self.workspace_path(index, path)));
            result.notes.extend(applied.retained.iter().map(|kept| {
                let (path, holds) =
                    (self.workspace_path(index, &kept.path), self.workspace_path(index, &kept.holds));
                format!("the folder {path} was kept: it holds {holds}, which the run knows nothing of")
            }));
        }
        result.changed.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(result)
    }

    /// Repositories within the repositories whose git data a run changed: that is never applied.
    fn nested_repos(&self, deltas: &[TreeDelta]) -> Vec<String> {
        let mut directories: BTreeSet<String> = BTreeSet::new();
        for (index, delta) in deltas.iter().enumerate() {
            for path in delta.keys().filter(|path| path.is_git()) {
                let parts: Vec<&[u8]> = path.components().take_while(|part| *part != b".git").collect();
                let Some(directory) = RelPath::new(parts.join(&b'/')) else { continue };
                if !parts.is_empty() {
                    directories.insert(self.workspace_path(index, &directory));
                }
            }
        }
        let note =
            |directory| format!("{directory} is a git repository of its own: its git data was left out");
        directories.into_iter().map(note).collect()
    }

    /// Files that would have run with the rights of the repository's owner, or its group's.
    fn setid_warning(&self, deltas: &[TreeDelta]) -> Option<String> {
        let lending =
            |(index, delta)| apply::setid_paths(delta).map(move |path| self.workspace_path(index, path));
        let paths: Vec<String> = deltas.iter().enumerate().flat_map(lending).collect();
        (!paths.is_empty()).then(|| format!("setuid and setgid were left out of {}", paths.join(", ")))
    }

    fn apply_error(&self, failed: Vec<(usize, apply::Error)>) -> Error {
        let mut conflicts = Vec::new();
        let mut others = Vec::new();
        let (mut stopped, mut ceiling) = (false, None);
        for (index, error) in failed {
            match error {
                apply::Error::Conflicts(list) => {
                    conflicts.extend(list.into_iter().map(|conflict| ApplyConflict {
                        path: self.workspace_path(index, &conflict.path),
                        why: describe_conflict(&conflict),
                        merges: conflict.merge == Mergeable::Clean,
                    }))
                }
                apply::Error::Store(forge_snapshot::Error::Stopped) => stopped = true,
                apply::Error::Store(error @ forge_snapshot::Error::Ceiling { .. }) => {
                    ceiling = Some(error.to_string());
                }
                error => others.push(error.to_string()),
            }
        }
        if stopped {
            return Error::Stopped;
        }
        if let Some(why) = ceiling {
            return Error::Ceiling { why };
        }
        if !others.is_empty() {
            return Error::View { why: others.join("; ") };
        }
        conflicts.sort_by(|a, b| a.path.cmp(&b.path));
        Error::Conflicts { conflicts }
    }
}

fn describe_conflict(conflict: &apply::PathConflict) -> String {
    match conflict.merge {
        Mergeable::No => conflict.why.to_string(),
        Mergeable::Clean => format!("{} (both changes can be merged)", conflict.why),
        Mergeable::Conflicting { .. } => format!("{} (both changed the same lines)", conflict.why),
    }
}

const fn change_kind(change: ChangeType) -> ChangeKind {
    match change {
        ChangeType::Added => ChangeKind::Added,
        ChangeType::Modified => ChangeKind::Modified,
        ChangeType::Removed => ChangeKind::Removed,
        ChangeType::Mode => ChangeKind::Mode,
        ChangeType::Retyped => ChangeKind::Retyped,
    }
}

#[async_trait]
impl WorkspaceStore for Backends {
    async fn compare(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<Vec<WorkspaceChange>, Error> {
        if from == to {
            return Ok(Vec::new());
        }
        let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
            Ok(OfflineWorkspace::open(store, run, ObjectAccess::Read, bounds)?.compare(from, to)?)
        };
        retry_while_busy(&self.options.workspace_storage(), run, spec.workspace, work).await
    }

    async fn diff(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<String, Error> {
        if from == to {
            return Ok(String::new());
        }
        let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
            Ok(OfflineWorkspace::open(store, run, ObjectAccess::Read, bounds)?.diff(from, to)?)
        };
        retry_while_busy(&self.options.workspace_storage(), run, spec.workspace, work).await
    }

    async fn restore(&self, spec: &SandboxSpec, run: RunId, to: Option<SnapshotId>) -> Result<(), Error> {
        let (spec, limits) = (spec.clone(), spec.workspace);
        let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
            if to.is_none() && WorkspaceLayout::for_run(&store.workspaces, run).load_meta()?.is_none() {
                // It has not begun, so it stands at its beginning.
                return Ok(());
            }
            let _locks = lock::lock_direct_repos(store, &spec, run)?;
            Ok(RunWorkspace::prepare(store, &spec, run, None, bounds)?.restore(to, bounds)?)
        };
        retry_while_busy(&self.options.workspace_storage(), run, limits, work).await
    }

    async fn apply(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
        merge: MergePolicy,
    ) -> Result<ApplyReport, Error> {
        if from == to {
            return Ok(ApplyReport::default());
        }
        let (spec, limits) = (spec.clone(), spec.workspace);
        let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
            let closed = OfflineWorkspace::open(store, run, ObjectAccess::Write, bounds)?;
            super::check_same_repos(&closed.meta, &super::resolve_repos(&spec)?)?;
            let _begun = ApplyMarker::create_marker(&closed.layout, from, to)?;
            Ok(closed.apply(from, to, merge, InversePolicy::AsRecorded, &store.locks)?)
        };
        retry_while_busy(&self.options.workspace_storage(), run, limits, work).await
    }

    async fn publish(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        to: SnapshotId,
        message: &str,
    ) -> Result<Option<PublishedBranch>, Error> {
        let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
            let closed = OfflineWorkspace::open(store, run, ObjectAccess::Read, bounds)?;
            // A commit of the run's own counts as well, so git data is not left out.
            let changed: Vec<bool> =
                closed.repo_deltas(Some(to))?.iter().map(|delta| !delta.is_empty()).collect();
            Ok((closed.meta, changed))
        };
        let (meta, changed) =
            retry_while_busy(&self.options.workspace_storage(), run, spec.workspace, work).await?;
        if !changed.contains(&true) {
            return Ok(None);
        }
        let mut own = spec.clone();
        own.network = NetworkPolicy::Off;
        own.limits.command_ms = own.limits.command_ms.max(COMMIT_TIMEOUT_MS);
        let room = self.open(&own, run, Some(to)).await?;
        let wanted = ActiveWork::new(run);
        let published = publish_all(room.as_ref(), &wanted, &meta, &changed, run, message).await;
        drop(room);
        // Git touches objects that it finds there already. The workspace has to be what the snapshot says once more.
        let put_back = super::prepare_workspace(&self.options.workspace_storage(), spec, run, Some(to)).await;
        let published = published?;
        drop(put_back?);
        Ok(published)
    }

    async fn revert_partial_apply(&self, run: RunId) -> Result<bool, Error> {
        let work = move |store: &WorkspaceStorage, bounds: &WorkBounds| {
            let place = WorkspaceLayout::for_run(&store.workspaces, run);
            let Some((from, to)) = ApplyMarker::find_interrupted(&place) else { return Ok(false) };
            let closed = OfflineWorkspace::open(store, run, ObjectAccess::Write, bounds)?;
            // To the end first: what was held aside on the way tells what stood there. What that finds done is recorded
            // nowhere, so the way back is that of all that differs.
            closed.apply(from, to, MergePolicy::No, InversePolicy::ByDiff, &store.locks)?;
            closed.apply(to, from, MergePolicy::No, InversePolicy::ByDiff, &store.locks)?;
            drop(ApplyMarker { path: ApplyMarker::marker_path(&place) });
            Ok(true)
        };
        retry_while_busy(&self.options.workspace_storage(), run, WorkspaceLimits::NONE, work).await
    }

    fn stop_run_work(&self, run: RunId) {
        active_work::stop_run_work(run);
    }
}

#[async_trait]
impl SnapshotStorage for Backends {
    async fn usage(&self) -> Result<Vec<SnapshotUsage>, Error> {
        let store = self.options.workspace_storage();
        run_blocking(move || {
            let entries = match std::fs::read_dir(&store.workspaces) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => {
                    return Err(Error::View { why: format!("{}: {error}", store.workspaces.display()) });
                }
                Ok(entries) => entries,
            };
            let run = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<RunId>().ok();
            let mut usage: Vec<SnapshotUsage> =
                entries.flatten().filter_map(run).filter_map(|run| workspace_usage(&store, run)).collect();
            usage.sort_by_key(|usage| usage.run);
            Ok(usage)
        })
        .await
    }

    async fn remove_snapshots(&self, run: RunId) -> Result<u64, Error> {
        let work = move |store: &WorkspaceStorage, _: &WorkBounds| {
            let place = WorkspaceLayout::for_run(&store.workspaces, run);
            if place.objects_dir(0).exists() {
                // While a box is open on it this fails.
                drop(ObjectStore::open(&place.objects_dir(0))?);
            }
            // First what says that there is a view: whatever is left after a crash is nobody's.
            let _ = std::fs::remove_file(place.root_dir().join("meta.json"));
            let begun = Instant::now();
            let mut freed = forge_files::remove_tree(place.root_dir());
            // What a box that has just ended was still writing, its manifest say, may land after it was looked for.
            while place.root_dir().exists() && begun.elapsed() < WRITE_DRAIN_TIMEOUT {
                std::thread::park_timeout(POLL_INTERVAL);
                freed += forge_files::remove_tree(place.root_dir());
            }
            // The run's own folder goes too if nothing else is in it.
            let _ = place.root_dir().parent().map(std::fs::remove_dir);
            Ok(freed)
        };
        retry_while_busy(&self.options.workspace_storage(), run, WorkspaceLimits::NONE, work).await
    }
}

/// Gives each changed repository its branch: all of them or none.
async fn publish_all(
    room: &dyn Workspace,
    wanted: &ActiveWork,
    meta: &WorkspaceMeta,
    changed: &[bool],
    run: RunId,
    message: &str,
) -> Result<Option<PublishedBranch>, Error> {
    let mut first: Option<PublishedBranch> = None;
    let mut done: Vec<&Path> = Vec::new();
    for (index, repo) in meta.repos.iter().enumerate().filter(|(index, _)| changed[*index]) {
        let masked =
            meta.masks.iter().filter(|mask| mask.repo == index).filter_map(super::FileMask::rel_path);
        let publish = BranchPublisher {
            sandbox: room,
            work: wanted,
            directory: &repo.name,
            repo: &repo.path,
            run,
            message,
            masked: masked.map(|path| path.as_path().to_owned()).collect(),
        };
        match publish.publish().await {
            Ok(Some(published)) => {
                done.push(&repo.path);
                first.get_or_insert(published);
            }
            Ok(None) => {}
            Err(error) => {
                // All of them or none.
                done.iter().for_each(|repo| delete_branch(repo, &format!("forge/{run}")));
                return Err(error);
            }
        }
    }
    Ok(first)
}

/// The note that an apply has begun. It goes when the apply has ended, in whatever way: one that is found later is of
/// a process that was killed.
struct ApplyMarker {
    path: PathBuf,
}

impl ApplyMarker {
    fn marker_path(place: &WorkspaceLayout) -> PathBuf {
        place.root_dir().join("applying.json")
    }

    fn create_marker(
        place: &WorkspaceLayout,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<Self, Error> {
        let begun = Self { path: Self::marker_path(place) };
        let bytes =
            serde_json::to_vec(&(from, to)).map_err(|error| Error::View { why: error.to_string() })?;
        write_durably(&begun.path, &bytes).map_err(|error| place.layout_error("writing", &error))?;
        Ok(begun)
    }

    /// From where to where an apply went that was cut off.
    fn find_interrupted(place: &WorkspaceLayout) -> Option<(Option<SnapshotId>, Option<SnapshotId>)> {
        serde_json::from_slice(&forge_files::read(&Self::marker_path(place), MAX_RECORD_BYTES).ok()?).ok()
    }
}

impl Drop for ApplyMarker {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a run keeps, if it keeps anything.
fn workspace_usage(store: &WorkspaceStorage, run: RunId) -> Option<SnapshotUsage> {
    let place = WorkspaceLayout::for_run(&store.workspaces, run);
    place.root_dir().is_dir().then(|| {
        let written = [
            place.root_dir().to_owned(),
            place.objects_dir(0),
            place.objects_dir(0).join("pack"),
            place.upper_dir(0),
        ];
        let at = written.iter().filter_map(|path| std::fs::metadata(path).ok());
        let at = at.map(|meta| meta.mtime() * 1_000_000 + meta.mtime_nsec() / 1000).max().unwrap_or(0);
        SnapshotUsage {
            run,
            bytes: forge_files::count_tree_bytes(place.root_dir()),
            at: Timestamp::from_micros(at),
        }
    })
}
