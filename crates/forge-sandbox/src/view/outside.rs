//! What the workspaces of runs hold, seen from outside of any box: comparing, putting back, applying, removing.

use super::covers::MaskIndex;
use super::git::Index;
use super::open::{LOOK, patiently};
use super::place::{MAX_RECORD_BYTES, Meta, Place, write_durably};
use super::publish::{Publish, unpublish};
use super::record::Record;
use super::{Store, Unready, View, lock, many, view_error};
use crate::Backends;
use crate::door::blocking;
use crate::wanted::{self, Wanted};
use forge_ports::sandbox::{Conflict, Error};
use forge_ports::views::{Applied, Merge, Published, ViewUsage};
use forge_ports::{Sandbox as _, ViewStorage, Views, Workspace, async_trait};
use forge_snapshot::apply::{self, Mergeable, Part};
use forge_snapshot::compare::{self, Change, Difference, Look, Renames, Sources, Text, unified};
use forge_snapshot::{Base, Bounds, Delta, Objects, RelPath};
use forge_types::{
    ChangeKind, FileChange, NetworkPolicy, RunId, SandboxSpec, SnapshotId, Timestamp, WorkspaceLimits,
};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time of one step of a commit, milliseconds.
const COMMIT_MS: u64 = 1_800_000;

/// How long what a box was writing when it ended may take to land.
const SETTLING: Duration = Duration::from_secs(2);

/// Whether contents are only read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// How a way back is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// What the last apply changed, if it was that way.
    AsRecorded,
    /// By what differs between the states.
    Whole,
}

/// A run's view without a box.
struct Closed {
    place: Place,
    meta: Meta,
    roots: Vec<Root>,
    bounds: Bounds,
}

/// One repository of it.
struct Root {
    repo: PathBuf,
    git: Index,
    base: Arc<Base>,
    objects: Objects,
}

impl Root {
    fn sources<'a>(&'a self, bounds: &'a Bounds) -> Sources<'a> {
        Sources {
            repository: &self.repo,
            base: &self.base,
            objects: &self.objects,
            beginning: Some(&self.git),
            bounds,
        }
    }
}

impl Closed {
    fn open(store: &Store, run: RunId, access: Access, bounds: &Bounds) -> Result<Self, Unready> {
        let place = Place::of(&store.views, run);
        let Some(meta) = place.load()? else {
            let why = "the run has no steps that are kept: it has not begun, or they were removed".to_owned();
            return Err(Error::View { why }.into());
        };
        let mut roots = Vec::with_capacity(meta.repos.len());
        for (index, repo) in meta.repos.iter().enumerate() {
            let folder = place.objects(index);
            let objects = match access {
                Access::Read => Objects::open_read_only(&folder)?,
                Access::Write => Objects::open(&folder)?,
            };
            let git = Index::of(&repo.path);
            roots.push(Root { repo: repo.path.clone(), git, base: place.load_base(index)?, objects });
        }
        Ok(Self { place, meta, roots, bounds: bounds.clone() })
    }

    /// How each repository differs from its beginning in a state, without what is masked.
    fn deltas(&self, state: Option<SnapshotId>) -> Result<Vec<Delta>, Error> {
        let parts = many::parts(&self.place, &self.meta, state)?;
        let record = Record::load(&self.place)?;
        let mut deltas = Vec::with_capacity(parts.len());
        for (index, (root, part)) in self.roots.iter().zip(parts).enumerate() {
            let masks = MaskIndex::new(&self.meta, index);
            let mut delta = match state {
                None => Delta::new(),
                Some(_) => forge_snapshot::delta(&root.objects, part, &self.bounds)
                    .map_err(|error| view_error(&error))?,
            };
            delta.retain(|path, entry| !masks.covers(path, entry.now.as_ref()));
            record.complete(index, &mut delta);
            deltas.push(delta);
        }
        Ok(deltas)
    }

    /// What differs in each repository between two states.
    fn differences(
        &self,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<Vec<Vec<Difference>>, Error> {
        let (from, to) = (self.deltas(from)?, self.deltas(to)?);
        let mut all = Vec::with_capacity(self.roots.len());
        for (root, (from, to)) in self.roots.iter().zip(from.iter().zip(&to)) {
            let mut differences = compare::compare(from, to);
            differences.retain(|difference| !difference.path.as_bytes().is_empty());
            let learned = root.sources(&self.bounds).learn(&mut differences);
            learned.map_err(|error| self.unread(error))?;
            all.push(differences);
        }
        Ok(all)
    }

    /// Differences as they are told, with lines counted.
    fn changes(&self, index: usize, differences: &[Difference]) -> Result<Vec<FileChange>, Error> {
        let look = Look { context: 0, renames: Renames::Split, text: Text::Counted, ..Look::default() };
        let diff = unified(differences, &self.roots[index].sources(&self.bounds), look)
            .map_err(|error| self.unread(error))?;
        let change = |file: &compare::FileChange| {
            let lines = |count: usize| (!file.opaque).then(|| u64::try_from(count).unwrap_or(u64::MAX));
            FileChange {
                path: self.inside(index, &file.path),
                kind: kind(file.change),
                added: lines(file.added),
                removed: lines(file.removed),
            }
        };
        Ok(diff.files.iter().map(change).collect())
    }

    /// A path as it reads in the workspace.
    fn inside(&self, index: usize, path: &RelPath) -> String {
        match self.meta.repos[index].name.as_str() {
            "" => path.to_string(),
            name => format!("{name}/{path}"),
        }
    }

    fn unread(&self, error: std::io::Error) -> Error {
        match error.downcast::<forge_snapshot::Error>() {
            Ok(own) => view_error(&own),
            Err(error) => self.place.failed("reading contents in", &error),
        }
    }

    fn compare(&self, from: Option<SnapshotId>, to: Option<SnapshotId>) -> Result<Vec<FileChange>, Error> {
        let mut changes = Vec::new();
        for (index, differences) in self.differences(from, to)?.iter().enumerate() {
            changes.extend(self.changes(index, differences)?);
        }
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    fn diff(&self, from: Option<SnapshotId>, to: Option<SnapshotId>) -> Result<String, Error> {
        let mut text = Vec::new();
        for (index, differences) in self.differences(from, to)?.iter().enumerate() {
            let name = &self.meta.repos[index].name;
            let below = RelPath::new(name.as_bytes()).unwrap_or_default();
            let look = Look::default();
            let diff =
                compare::unified_below(&below, differences, &self.roots[index].sources(&self.bounds), look);
            text.extend(diff.map_err(|error| self.unread(error))?.text);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn apply(
        &self,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
        merge: Merge,
        how: How,
        locks: &Path,
    ) -> Result<Applied, Error> {
        // In the order of their paths, so that two applies never wait for one another.
        let mut repos: Vec<&Path> = self.roots.iter().map(|root| root.repo.as_path()).collect();
        repos.sort_unstable();
        let _locks: Vec<_> =
            repos.into_iter().map(|repo| lock::for_apply(repo, locks)).collect::<Result<_, _>>()?;
        let record = Record::load(&self.place)?;
        let (stood, wanted) = (self.deltas(from)?, self.deltas(to)?);
        // A state in which nothing differs is the beginning, which also has no name.
        let named = |state: Option<SnapshotId>, deltas: &[Delta]| {
            state.filter(|_| deltas.iter().any(|delta| !delta.is_empty()))
        };
        let (from, to) = (named(from, &stood), named(to, &wanted));
        let way_back =
            Some(how).filter(|how| *how == How::AsRecorded).and_then(|_| record.way_back(from, to));
        let nothing;
        let (before, after) = match &way_back {
            Some(changed) => {
                nothing = vec![Delta::new(); changed.len()];
                (changed, &nothing)
            }
            None => (&stood, &wanted),
        };
        let part = |(root, (from, to)): (_, _)| {
            let root: &Root = root;
            Part { place: root.sources(&self.bounds), from, to }
        };
        let parts: Vec<Part<'_>> = self.roots.iter().zip(before.iter().zip(after)).map(part).collect();
        let merge = match merge {
            Merge::No => apply::Merge::No,
            Merge::Clean => apply::Merge::Clean,
        };
        let applied = apply::apply_all(&parts, merge).map_err(|failed| self.refused(failed))?;
        let base = |index: usize, path: &RelPath| self.roots[index].base.node(path);
        let kept = record.add(&self.place, (from, to), &base, &applied);
        let mut result = self.told(&applied)?;
        if let Err(error) = kept {
            // It is applied, and that is what counts.
            result.notes.push(format!("it can't be taken back exactly: {error}"));
        }
        result.notes.extend(self.nested(&wanted));
        result.notes.extend(self.lending(&wanted));
        Ok(result)
    }

    /// What was done, in the words of the port.
    fn told(&self, applied: &[apply::Applied]) -> Result<Applied, Error> {
        let mut result = Applied::default();
        for (index, applied) in applied.iter().enumerate() {
            result.changed.extend(self.changes(index, &applied.changed)?);
            result.merged.extend(applied.merged.iter().map(|path| self.inside(index, path)));
            result.notes.extend(applied.kept.iter().map(|kept| {
                let (path, holds) = (self.inside(index, &kept.path), self.inside(index, &kept.holds));
                format!("the folder {path} was kept: it holds {holds}, which the run knows nothing of")
            }));
        }
        result.changed.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(result)
    }

    /// Repositories within the repositories whose git data a run changed: that is never applied.
    fn nested(&self, deltas: &[Delta]) -> Vec<String> {
        let mut directories: BTreeSet<String> = BTreeSet::new();
        for (index, delta) in deltas.iter().enumerate() {
            for path in delta.keys().filter(|path| path.is_git()) {
                let parts: Vec<&[u8]> = path.parts().take_while(|part| *part != b".git").collect();
                let Some(directory) = RelPath::new(parts.join(&b'/')) else { continue };
                if !parts.is_empty() {
                    directories.insert(self.inside(index, &directory));
                }
            }
        }
        let note =
            |directory| format!("{directory} is a git repository of its own: its git data was left out");
        directories.into_iter().map(note).collect()
    }

    /// Files that would have run with the rights of the repository's owner, or its group's.
    fn lending(&self, deltas: &[Delta]) -> Option<String> {
        let lending = |(index, delta)| apply::lending(delta).map(move |path| self.inside(index, path));
        let paths: Vec<String> = deltas.iter().enumerate().flat_map(lending).collect();
        (!paths.is_empty()).then(|| format!("setuid and setgid were left out of {}", paths.join(", ")))
    }

    fn refused(&self, failed: Vec<(usize, apply::Error)>) -> Error {
        let mut conflicts = Vec::new();
        let mut others = Vec::new();
        let (mut stopped, mut ceiling) = (false, None);
        for (index, error) in failed {
            match error {
                apply::Error::Conflicts(list) => {
                    conflicts.extend(list.into_iter().map(|conflict| Conflict {
                        path: self.inside(index, &conflict.path),
                        why: in_words(&conflict),
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

fn in_words(conflict: &apply::Conflict) -> String {
    match conflict.merge {
        Mergeable::No => conflict.why.to_string(),
        Mergeable::Clean => format!("{} (both changes can be merged)", conflict.why),
        Mergeable::Conflicting { .. } => format!("{} (both changed the same lines)", conflict.why),
    }
}

const fn kind(change: Change) -> ChangeKind {
    match change {
        Change::Added => ChangeKind::Added,
        Change::Modified => ChangeKind::Modified,
        Change::Removed => ChangeKind::Removed,
        Change::Mode => ChangeKind::Mode,
        Change::Retyped => ChangeKind::Retyped,
    }
}

#[async_trait]
impl Views for Backends {
    async fn compare(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
    ) -> Result<Vec<FileChange>, Error> {
        if from == to {
            return Ok(Vec::new());
        }
        let work = move |store: &Store, bounds: &Bounds| {
            Ok(Closed::open(store, run, Access::Read, bounds)?.compare(from, to)?)
        };
        patiently(&self.options.store(), run, spec.workspace, work).await
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
        let work = move |store: &Store, bounds: &Bounds| {
            Ok(Closed::open(store, run, Access::Read, bounds)?.diff(from, to)?)
        };
        patiently(&self.options.store(), run, spec.workspace, work).await
    }

    async fn restore(&self, spec: &SandboxSpec, run: RunId, to: Option<SnapshotId>) -> Result<(), Error> {
        let (spec, limits) = (spec.clone(), spec.workspace);
        let work = move |store: &Store, bounds: &Bounds| {
            if to.is_none() && Place::of(&store.views, run).load()?.is_none() {
                // It has not begun, so it stands at its beginning.
                return Ok(());
            }
            let _locks = lock::direct(store, &spec, run)?;
            Ok(View::prepare(store, &spec, run, None, bounds)?.restore(to, bounds)?)
        };
        patiently(&self.options.store(), run, limits, work).await
    }

    async fn apply(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        from: Option<SnapshotId>,
        to: Option<SnapshotId>,
        merge: Merge,
    ) -> Result<Applied, Error> {
        if from == to {
            return Ok(Applied::default());
        }
        let (spec, limits) = (spec.clone(), spec.workspace);
        let work = move |store: &Store, bounds: &Bounds| {
            let closed = Closed::open(store, run, Access::Write, bounds)?;
            super::same_repos(&closed.meta, &super::repos(&spec)?)?;
            let _begun = Begun::note(&closed.place, from, to)?;
            Ok(closed.apply(from, to, merge, How::AsRecorded, &store.locks)?)
        };
        patiently(&self.options.store(), run, limits, work).await
    }

    async fn publish(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        to: SnapshotId,
        message: &str,
    ) -> Result<Option<Published>, Error> {
        let work = move |store: &Store, bounds: &Bounds| {
            let closed = Closed::open(store, run, Access::Read, bounds)?;
            // A commit of the run's own counts as well, so git data is not left out.
            let changed: Vec<bool> = closed.deltas(Some(to))?.iter().map(|delta| !delta.is_empty()).collect();
            Ok((closed.meta, changed))
        };
        let (meta, changed) = patiently(&self.options.store(), run, spec.workspace, work).await?;
        if !changed.contains(&true) {
            return Ok(None);
        }
        let mut own = spec.clone();
        own.network = NetworkPolicy::Off;
        own.limits.command_ms = own.limits.command_ms.max(COMMIT_MS);
        let room = self.open(&own, run, Some(to)).await?;
        let wanted = Wanted::new(run);
        let published = publish_all(room.as_ref(), &wanted, &meta, &changed, run, message).await;
        drop(room);
        // Git touches objects that it finds there already. The workspace has to be what the snapshot says once more.
        let put_back = super::prepare(&self.options.store(), spec, run, Some(to)).await;
        let published = published?;
        drop(put_back?);
        Ok(published)
    }

    async fn take_back(&self, run: RunId) -> Result<bool, Error> {
        let work = move |store: &Store, bounds: &Bounds| {
            let place = Place::of(&store.views, run);
            let Some((from, to)) = Begun::found(&place) else { return Ok(false) };
            let closed = Closed::open(store, run, Access::Write, bounds)?;
            // To the end first: what was held aside on the way tells what stood there. What that finds done is recorded
            // nowhere, so the way back is that of all that differs.
            closed.apply(from, to, Merge::No, How::Whole, &store.locks)?;
            closed.apply(to, from, Merge::No, How::Whole, &store.locks)?;
            drop(Begun { path: Begun::path(&place) });
            Ok(true)
        };
        patiently(&self.options.store(), run, WorkspaceLimits::NONE, work).await
    }

    fn stop(&self, run: RunId) {
        wanted::stop(run);
    }
}

#[async_trait]
impl ViewStorage for Backends {
    async fn usage(&self) -> Result<Vec<ViewUsage>, Error> {
        let store = self.options.store();
        blocking(move || {
            let entries = match std::fs::read_dir(&store.views) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(Error::View { why: format!("{}: {error}", store.views.display()) }),
                Ok(entries) => entries,
            };
            let run = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<RunId>().ok();
            let mut usage: Vec<ViewUsage> =
                entries.flatten().filter_map(run).filter_map(|run| used(&store, run)).collect();
            usage.sort_by_key(|usage| usage.run);
            Ok(usage)
        })
        .await
    }

    async fn remove(&self, run: RunId) -> Result<u64, Error> {
        let work = move |store: &Store, _: &Bounds| {
            let place = Place::of(&store.views, run);
            if place.objects(0).exists() {
                // While a box is open on it this fails.
                drop(Objects::open(&place.objects(0))?);
            }
            // First what says that there is a view: whatever is left after a crash is nobody's.
            let _ = std::fs::remove_file(place.path().join("meta.json"));
            let begun = Instant::now();
            let mut freed = forge_files::remove_tree(place.path());
            // What a box that has just ended was still writing, its manifest say, may land after it was looked for.
            while place.path().exists() && begun.elapsed() < SETTLING {
                std::thread::park_timeout(LOOK);
                freed += forge_files::remove_tree(place.path());
            }
            // The run's own folder goes too if nothing else is in it.
            let _ = place.path().parent().map(std::fs::remove_dir);
            Ok(freed)
        };
        patiently(&self.options.store(), run, WorkspaceLimits::NONE, work).await
    }
}

/// Gives each changed repository its branch: all of them or none.
async fn publish_all(
    room: &dyn Workspace,
    wanted: &Wanted,
    meta: &Meta,
    changed: &[bool],
    run: RunId,
    message: &str,
) -> Result<Option<Published>, Error> {
    let mut first: Option<Published> = None;
    let mut done: Vec<&Path> = Vec::new();
    for (index, repo) in meta.repos.iter().enumerate().filter(|(index, _)| changed[*index]) {
        let masked = meta.masks.iter().filter(|mask| mask.repo == index).filter_map(super::Mask::rel);
        let publish = Publish {
            room,
            wanted,
            folder: &repo.name,
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
                done.iter().for_each(|repo| unpublish(repo, &format!("forge/{run}")));
                return Err(error);
            }
        }
    }
    Ok(first)
}

/// The note that an apply has begun. It goes when the apply has ended, in whatever way: one that is found later is of
/// a process that was killed.
struct Begun {
    path: PathBuf,
}

impl Begun {
    fn path(place: &Place) -> PathBuf {
        place.path().join("applying.json")
    }

    fn note(place: &Place, from: Option<SnapshotId>, to: Option<SnapshotId>) -> Result<Self, Error> {
        let begun = Self { path: Self::path(place) };
        let bytes =
            serde_json::to_vec(&(from, to)).map_err(|error| Error::View { why: error.to_string() })?;
        write_durably(&begun.path, &bytes).map_err(|error| place.failed("writing", &error))?;
        Ok(begun)
    }

    /// From where to where an apply went that was cut off.
    fn found(place: &Place) -> Option<(Option<SnapshotId>, Option<SnapshotId>)> {
        serde_json::from_slice(&forge_files::read(&Self::path(place), MAX_RECORD_BYTES).ok()?).ok()
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a run keeps, if it keeps anything.
fn used(store: &Store, run: RunId) -> Option<ViewUsage> {
    let place = Place::of(&store.views, run);
    place.path().is_dir().then(|| {
        let written =
            [place.path().to_owned(), place.objects(0), place.objects(0).join("pack"), place.upper(0)];
        let at = written.iter().filter_map(|path| std::fs::metadata(path).ok());
        let at = at.map(|meta| meta.mtime() * 1_000_000 + meta.mtime_nsec() / 1000).max().unwrap_or(0);
        ViewUsage { run, bytes: forge_files::bytes_of(place.path()), at: Timestamp::from_micros(at) }
    })
}
