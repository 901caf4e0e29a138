//! A run's workspace without a sandbox: comparing two states of it, and applying one to its repositories.

use super::apply_history::ApplyHistory;
use super::apply_index::IndexEntry;
use super::apply_marker::ApplyMarker;
use super::git::GitIndex;
use super::layout::{WorkspaceLayout, WorkspaceMeta};
use super::learned_contents::LearnedContents;
use super::repos::{self, OpenRepo};
use super::secret_masks::MaskIndex;
use super::{OpenError, WorkspaceStorage, lock, snapshot_id, workspace_error};
use forge_ports::sandbox::{ApplyConflict, Error};
use forge_ports::workspace_store::{ApplyReport, MergePolicy};
use forge_snapshot::apply::{self, Mergeable, PathConflict, RepoApply};
use forge_snapshot::compare::{
    self, ChangeType, ContentSources, DiffEncoding, DiffOptions, DiffText, RenameDetection, TreeChange,
    unified_diff,
};
use forge_snapshot::{BaseManifest, ObjectStore, RelPath, TreeDelta, WorkBounds};
use forge_types::{ChangeKind, RunId, SandboxSpec, SnapshotId, WorkspaceChange, truncate_listing};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// The access to a workspace.
#[derive(Clone, Copy)]
pub(crate) enum OfflineAccess<'a> {
    /// Reading its states. A repository that is gone or replaced is not needed for what is stored.
    Read,
    /// Changing the repositories that a specification names, which must be those of the run's record.
    ChangeNamed(&'a SandboxSpec),
    /// Changing the repositories of the run's record.
    ChangeRecorded,
}

impl OfflineAccess<'_> {
    /// Opens the repositories; `None` for one that is only read and is not available.
    fn open_repos(self, meta: &WorkspaceMeta) -> Result<Vec<Option<OpenRepo>>, Error> {
        let repos = match self {
            Self::Read => {
                let open = |record| OpenRepo::open_recorded(record, meta.kind).ok();
                return Ok(meta.repos.iter().map(open).collect());
            }
            Self::ChangeNamed(spec) => repos::open_same_repos(meta, spec)?,
            Self::ChangeRecorded => repos::open_recorded_repos(meta)?,
        };
        Ok(repos.into_iter().map(Some).collect())
    }
}

/// The source of the changes that an apply makes.
#[derive(Clone, Copy)]
pub(crate) enum InversePolicy<'a> {
    /// Those that the last apply recorded, if this apply undoes it.
    AsRecorded,
    /// The differences between the two states, except at some paths; the marker of a killed apply stays as it is.
    ByDiff(&'a SkippedPaths),
}

/// Paths of each repository that an apply leaves as they are.
#[derive(Debug, Default)]
pub(crate) struct SkippedPaths(BTreeSet<(usize, RelPath)>);

impl SkippedPaths {
    /// Adds the paths of conflicts. Returns whether conflicts are the only errors, with a path that was not known.
    pub(crate) fn add_conflicts(&mut self, failed: &[(usize, apply::Error)]) -> bool {
        let mut is_new = false;
        for (index, error) in failed {
            let apply::Error::Conflicts(conflicts) = error else { return false };
            for conflict in conflicts {
                is_new |= self.0.insert((*index, conflict.path.clone()));
            }
        }
        is_new
    }

    fn remove_from(&self, deltas: &mut [TreeDelta]) {
        for (index, path) in &self.0 {
            deltas[*index].remove(path);
        }
    }
}

/// The reason why an apply failed.
pub(crate) enum ApplyFailure {
    /// Errors of repositories, by their indices.
    Repositories(Vec<(usize, apply::Error)>),
    /// Another error.
    Other(Error),
}

impl From<Error> for ApplyFailure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl ApplyFailure {
    /// Returns the reason as an error.
    pub(crate) fn into_error(self, closed: &OfflineWorkspace) -> Error {
        match self {
            Self::Repositories(failed) => closed.apply_error(failed),
            Self::Other(error) => error,
        }
    }
}

/// A run's workspace without a sandbox.
pub(crate) struct OfflineWorkspace {
    pub(crate) layout: WorkspaceLayout,
    pub(crate) meta: WorkspaceMeta,
    pub(crate) roots: Vec<OfflineRepo>,
    pub(crate) bounds: WorkBounds,
    /// Entry in the index of applies.
    entry: IndexEntry,
}

/// A repository of an [`OfflineWorkspace`].
pub(crate) struct OfflineRepo {
    repo: PathBuf,
    open: Option<OpenRepo>,
    git: GitIndex,
    base: Arc<BaseManifest>,
    objects: ObjectStore,
}

impl OfflineRepo {
    fn content_sources<'a>(&'a self, bounds: &'a WorkBounds) -> ContentSources<'a> {
        ContentSources {
            repository: &self.repo,
            root: self.open.as_ref().map(|open| &open.root),
            base: &self.base,
            objects: &self.objects,
            baseline: Some(&self.git),
            bounds,
        }
    }
}

impl OfflineWorkspace {
    pub(crate) fn open(
        store: &WorkspaceStorage,
        run: RunId,
        access: OfflineAccess<'_>,
        bounds: &WorkBounds,
    ) -> Result<Self, OpenError> {
        let place = WorkspaceLayout::for_run(&store.workspaces, run);
        let Some(meta) = place.load_meta()? else {
            let why = "the run has no steps on disk: it has not begun, or they were removed".to_owned();
            return Err(Error::View { why }.into());
        };
        let mut roots = Vec::with_capacity(meta.repos.len());
        let opened = access.open_repos(&meta)?;
        if !matches!(access, OfflineAccess::Read) {
            repos::check_disjoint(store, opened.iter().flatten())?;
        }
        for (index, open) in opened.into_iter().enumerate() {
            let folder = place.objects_dir(index);
            let objects = match access {
                OfflineAccess::Read => ObjectStore::open_read_only(&folder)?,
                _ => ObjectStore::open(&folder)?,
            };
            let repo = meta.repos[index].path.clone();
            let (git, base) =
                (GitIndex::for_repo(open.clone(), &store.temporary, bounds), place.load_base(index)?);
            roots.push(OfflineRepo { repo, open, git, base, objects });
        }
        let entry = IndexEntry::for_run(store, run);
        Ok(Self { layout: place, meta, roots, bounds: bounds.clone(), entry })
    }

    /// Returns how each repository differs from the baseline in a state, without masked files.
    pub(crate) fn repo_deltas(&self, state: Option<SnapshotId>) -> Result<Vec<TreeDelta>, Error> {
        self.repo_deltas_with(state, &LearnedContents::load(&self.layout)?)
    }

    /// Returns the same, given the baseline contents that applies learned.
    fn repo_deltas_with(
        &self,
        state: Option<SnapshotId>,
        learned: &LearnedContents,
    ) -> Result<Vec<TreeDelta>, Error> {
        let parts = snapshot_id::split_digests(&self.layout, &self.meta, state)?;
        let mut deltas = Vec::with_capacity(parts.len());
        for (index, (root, part)) in self.roots.iter().zip(parts).enumerate() {
            let masks = MaskIndex::new(&self.meta, index);
            let mut delta = match state {
                None => TreeDelta::new(),
                Some(_) => forge_snapshot::load_delta(&root.objects, part, &self.bounds)
                    .map_err(|error| workspace_error(&error))?,
            };
            delta.retain(|path, entry| !masks.is_masked(path, entry.after.as_ref()));
            learned.fill_in(index, &mut delta);
            deltas.push(delta);
        }
        Ok(deltas)
    }

    /// Returns the differences between two states in each repository.
    fn repo_changes(
        &self,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<Vec<Vec<TreeChange>>, Error> {
        let learned = LearnedContents::load(&self.layout)?;
        let (from, to) = (self.repo_deltas_with(from, &learned)?, self.repo_deltas_with(to, &learned)?);
        drop(learned);
        let mut all = Vec::with_capacity(self.roots.len());
        for (root, (from, to)) in self.roots.iter().zip(from.into_iter().zip(to)) {
            let mut differences = compare::into_changes(from, to);
            differences.retain(|difference| !difference.path.as_bytes().is_empty());
            let learned = root.content_sources(&self.bounds).learn_contents(&mut differences);
            learned.map_err(|error| self.read_error(error))?;
            all.push(differences);
        }
        Ok(all)
    }

    /// Returns the changes as the port reports them, with counted lines.
    fn file_changes(&self, index: usize, differences: &[TreeChange]) -> Result<Vec<WorkspaceChange>, Error> {
        let look = DiffOptions {
            context: 0,
            renames: RenameDetection::Split,
            text: DiffText::Counted,
            ..DiffOptions::default()
        };
        let diff = unified_diff(differences, &self.roots[index].content_sources(&self.bounds), look)
            .map_err(|error| self.read_error(error))?;
        let change = |file: compare::CountedChange| {
            let lines = |count: usize| (!file.opaque).then(|| u64::try_from(count).unwrap_or(u64::MAX));
            WorkspaceChange {
                path: self.workspace_path(index, &file.path),
                kind: change_kind(file.change),
                added: lines(file.added),
                removed: lines(file.removed),
            }
        };
        Ok(diff.files.into_iter().map(change).collect())
    }

    /// Returns a path as it appears in the workspace.
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

    pub(crate) fn compare(
        &self,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<Vec<WorkspaceChange>, Error> {
        let mut changes = Vec::new();
        for (index, differences) in self.repo_changes(from, to)?.into_iter().enumerate() {
            changes.extend(self.file_changes(index, &differences)?);
        }
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    pub(crate) fn diff(&self, from: Option<SnapshotId>, to: Option<SnapshotId>) -> Result<String, Error> {
        let mut text = Vec::new();
        for (index, differences) in self.repo_changes(from, to)?.into_iter().enumerate() {
            let name = &self.meta.repos[index].name;
            let below = RelPath::new(name.as_bytes()).unwrap_or_default();
            let sources = self.roots[index].content_sources(&self.bounds);
            let mut look = DiffOptions { encoding: DiffEncoding::Utf8, ..DiffOptions::default() };
            if let DiffText::UpTo(most) = &mut look.text {
                *most = most.saturating_sub(text.len());
            }
            let diff = compare::unified_diff_below(&below, &differences, &sources, look);
            let diff = diff.map_err(|error| self.read_error(error))?.text;
            // Not copied if there is only one repository, because a diff is large.
            if text.is_empty() { text = diff } else { text.extend(diff) }
        }
        Ok(String::from_utf8(text)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// Moves the repositories from one state to another, as a whole or not at all.
    pub(crate) fn apply(
        &self,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
        merge: MergePolicy,
        store: &WorkspaceStorage,
    ) -> Result<ApplyReport, Error> {
        self.try_apply((from, to), merge, InversePolicy::AsRecorded, store)
            .map_err(|failure| failure.into_error(self))
    }

    /// Does the same as [`OfflineWorkspace::apply`], with a choice of the changes, and returns errors by repository.
    pub(crate) fn try_apply(
        &self,
        (from, to): (Option<SnapshotId>, Option<SnapshotId>),
        merge: MergePolicy,
        how: InversePolicy<'_>,
        store: &WorkspaceStorage,
    ) -> Result<ApplyReport, ApplyFailure> {
        let repos = self.roots.iter().filter_map(|root| root.open.as_ref());
        let _locks = lock::lock_for_apply(repos, &store.locks)?;
        let mut record = ApplyHistory::load(&self.layout)?;
        let is_recorded = matches!(how, InversePolicy::AsRecorded);
        let mut marker = is_recorded.then(|| ApplyMarker::new(&self.layout, self.entry.clone(), (from, to)));
        let (mut stood, mut wanted) =
            (self.repo_deltas_with(from, record.learned())?, self.repo_deltas_with(to, record.learned())?);
        // A state without differences is the baseline, which has no id.
        let named = |state: Option<SnapshotId>, deltas: &[TreeDelta]| {
            state.filter(|_| deltas.iter().any(|delta| !delta.is_empty()))
        };
        let (from, to) = (named(from, &stood), named(to, &wanted));
        let inverse = record.take_inverse(from, to);
        let is_new = inverse.is_none();
        let way_back = inverse.filter(|_| is_recorded);
        if let InversePolicy::ByDiff(skipped) = how {
            skipped.remove_from(&mut stood);
            skipped.remove_from(&mut wanted);
        }
        let notes: Vec<String> =
            self.nested_repos(&wanted).into_iter().chain(self.setid_warning(&wanted)).collect();
        let (before, after) = match way_back {
            Some(changed) => {
                let nothing = vec![TreeDelta::new(); changed.len()];
                (changed, nothing)
            }
            None => (stood, wanted),
        };
        let mut parts = Vec::with_capacity(self.roots.len());
        for (root, (from, to)) in self.roots.iter().zip(before.into_iter().zip(after)) {
            parts.push(RepoApply { sources: root.content_sources(&self.bounds), from, to });
        }
        let merge = match merge {
            MergePolicy::No => apply::MergeMode::No,
            MergePolicy::Clean => apply::MergeMode::Clean,
        };
        let base = |index: usize, path: &RelPath| self.roots[index].base.node_at(path);
        let applied = apply::apply_all(parts, merge, &mut |index, originals| {
            record.learn(index, originals, &base);
            marker.as_mut().map_or(Ok(()), |marker| marker.write(record.learned()))
        });
        let applied = match applied {
            Ok(applied) => applied,
            Err(failed) => {
                let is_partial =
                    |(_, error): &(usize, apply::Error)| matches!(error, apply::Error::Unfinished { .. });
                if let Some(marker) = marker.filter(|_| failed.iter().any(is_partial)) {
                    marker.keep();
                }
                return Err(ApplyFailure::Repositories(failed));
            }
        };
        let step = is_new.then_some((from, to));
        let kept = record.record_apply(&self.layout, step, &base, &applied);
        marker.into_iter().for_each(ApplyMarker::remove);
        let mut result = self.to_port(&applied)?;
        if let Err(error) = kept {
            // The apply has succeeded, and that is what counts.
            result.notes.push(format!("it cannot be undone exactly: {error}"));
        }
        result.notes.extend(notes);
        truncate_with_note(&mut result.notes, "notes");
        Ok(result)
    }

    /// Returns skipped paths as a text.
    pub(crate) fn describe_paths(&self, skipped: &SkippedPaths) -> String {
        let mut paths: Vec<String> =
            skipped.0.iter().map(|(index, path)| self.workspace_path(*index, path)).collect();
        truncate_with_note(&mut paths, "paths");
        paths.join(", ")
    }

    /// Converts the results to the port's report.
    fn to_port(&self, applied: &[apply::ApplyResult]) -> Result<ApplyReport, Error> {
        let mut result = ApplyReport::default();
        for (index, applied) in applied.iter().enumerate() {
            result.changed.extend(self.file_changes(index, &applied.changed)?);
            result.merged.extend(applied.merged.iter().map(|path| self.workspace_path(index, path)));
            result.notes.extend(applied.retained.iter().map(|kept| {
                let (path, holds) =
                    (self.workspace_path(index, &kept.path), self.workspace_path(index, &kept.holds));
                format!("the directory {path} was kept: it contains {holds}, which is unknown to the run")
            }));
        }
        result.changed.sort_by(|a, b| a.path.cmp(&b.path));
        result.omitted = truncate_listing(&mut result.changed, |change| change.path.len());
        truncate_with_note(&mut result.merged, "merged paths");
        Ok(result)
    }

    /// Returns notes on nested repositories in which the run changed git data: such changes are never applied.
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
        let note = |directory| format!("{directory} is a separate git repository: its git data was left out");
        directories.into_iter().map(note).collect()
    }

    /// Returns a warning about files that would have run with the rights of the repository's owner or group.
    fn setid_warning(&self, deltas: &[TreeDelta]) -> Option<String> {
        let lending =
            |(index, delta)| apply::setid_paths(delta).map(move |path| self.workspace_path(index, path));
        let mut paths: Vec<String> = deltas.iter().enumerate().flat_map(lending).collect();
        truncate_with_note(&mut paths, "paths");
        (!paths.is_empty()).then(|| format!("setuid and setgid were left out of {}", paths.join(", ")))
    }

    /// Returns the error that lists the conflicts of the repositories with these indices.
    fn list_conflicts(&self, mut all: Vec<(usize, PathConflict)>) -> Error {
        let is_clean = |conflict: &PathConflict| conflict.merge == Mergeable::Clean;
        // Those that prevent a merge come first, so that a list of mergeable conflicts means that all are mergeable.
        all.sort_by_key(|(_, conflict)| is_clean(conflict));
        let bytes =
            |conflict: &PathConflict| conflict.path.as_bytes().len() + describe_conflict(conflict).len();
        let omitted = truncate_listing(&mut all, |(_, conflict)| bytes(conflict));
        let describe = |(index, conflict): (usize, PathConflict)| ApplyConflict {
            path: self.workspace_path(index, &conflict.path),
            why: describe_conflict(&conflict),
            merges: is_clean(&conflict),
        };
        let mut conflicts: Vec<_> = all.into_iter().map(describe).collect();
        if omitted == 0 {
            conflicts.sort_by(|a, b| a.path.cmp(&b.path));
        }
        Error::Conflicts { conflicts, omitted }
    }

    pub(crate) fn apply_error(&self, failed: Vec<(usize, apply::Error)>) -> Error {
        let mut conflicts = Vec::new();
        let mut others = Vec::new();
        let (mut stopped, mut ceiling) = (false, None);
        for (index, error) in failed {
            match error {
                apply::Error::Conflicts(list) => {
                    conflicts.extend(list.into_iter().map(|conflict| (index, conflict)));
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
        self.list_conflicts(conflicts)
    }
}

/// Truncates a list of texts, which then ends with the number of the others.
fn truncate_with_note(texts: &mut Vec<String>, what: &str) {
    let omitted = truncate_listing(texts, String::len);
    if omitted > 0 {
        texts.push(format!("{omitted} more {what}"));
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
