//! The workspace of a run: what the box shows, snapshots of it, and what it looks like from outside.
//!
//! A [`View`] is prepared before the box opens: the manifest of each repository is taken, the way it is shown is chosen,
//! a snapshot is put back. While the box is open it keeps snapshots. `outside` compares, applies and removes what closed
//! boxes left.

mod beginning;
mod choose;
mod covers;
mod errors;
mod git;
mod gitdir;
mod lock;
mod many;
mod open;
mod outside;
mod place;
mod publish;
mod record;

use crate::masks;
use crate::paths::Places;
use beginning::{Beginning, Saver};
use choose::Chosen;
pub(crate) use covers::Covers;
use covers::Look;
pub(crate) use errors::{Unready, view_error};
use forge_jail::{Bind, OverlayAttributes, Raw, Root, Show, WORKSPACE};
use forge_ports::sandbox::Error;
use forge_snapshot::{Attributes, Base, Bounds, CopyStats, Layout, Objects, RelPath, Stop, Tracker};
use forge_types::{RunId, SandboxReport, SandboxSpec, SnapshotId, WorkspaceMode};
pub(crate) use open::{Slot, prepare, prepare_then};
pub(crate) use place::Kind;
pub(crate) use place::Space;
use place::{Mask, Meta, Place, Repo};
pub(crate) use publish::remove_stale_packs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Where views are kept, and how they are made.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// The folder with one folder per run.
    pub(crate) views: PathBuf,
    /// The folder for locks of repositories.
    pub(crate) locks: PathBuf,
    /// No overlay, if there is a reason.
    pub(crate) limit: Option<Limit>,
}

/// Why a view is a copy whatever the kernel can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The reason, for people.
    pub(crate) why: String,
}

/// How one repository is shown in a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Its folder in the workspace; empty: it is the workspace.
    pub(crate) name: String,
    /// The repository on the host.
    pub(crate) repo: PathBuf,
    /// What the box gets.
    pub(crate) layers: Layers,
}

impl Shown {
    /// Where it stands in the box.
    pub(crate) fn target(&self) -> PathBuf {
        if self.name.is_empty() { WORKSPACE.into() } else { Path::new(WORKSPACE).join(&self.name) }
    }
}

/// What a box gets of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layers {
    /// The repository itself, under the box's user.
    Direct,
    /// The repository, read-only, and what receives the changes.
    Overlay { upper: PathBuf, work: PathBuf },
    /// A folder that belongs to the box's user alone.
    Owned(PathBuf),
}

/// The view of a run, ready for a box or open in one.
#[derive(Debug)]
pub(crate) struct View {
    place: Place,
    meta: Meta,
    trackers: Mutex<Vec<Tracker>>,
    /// What makes the beginning durable, if it still works at it; then what went wrong with it, if anything did.
    beginning: Mutex<Beginning>,
    /// Ends that work with the view.
    saving: Stop,
    /// What work takes that lasts as long as the view.
    own: Bounds,
    safe: AtomicBool,
    is_new: bool,
    shown: Vec<Shown>,
    git: gitdir::GitDir,
    covers: Arc<Covers>,
    reveal: Vec<String>,
}

impl Drop for View {
    fn drop(&mut self) {
        self.covers.stop();
        self.saving.stop();
    }
}

impl View {
    /// Makes the view of a new run, or takes up that of one that goes on, and puts it to the snapshot `at`.
    pub(crate) fn prepare(
        store: &Store,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
        bounds: &Bounds,
    ) -> Result<Self, Unready> {
        let place = Place::of(&store.views, run);
        let repos = repos(spec)?;
        apart(store, &repos)?;
        repos.iter().try_for_each(|repo| masks::refuse_special_git_config(&repo.path))?;
        match place.load()? {
            Some(meta) => {
                same_repos(&meta, &repos)?;
                let view = Self::take_up(place, meta, &spec.reveal, bounds)?;
                if let Some(at) = at {
                    view.restore(Some(at), bounds)?;
                }
                Ok(view)
            }
            None if at.is_some() => {
                let why = format!("{} is gone, and with it the steps of this run", place.path().display());
                Err(Error::View { why }.into())
            }
            None => Self::begin(store, place, spec, repos, bounds),
        }
    }

    fn begin(
        store: &Store,
        place: Place,
        spec: &SandboxSpec,
        repos: Vec<Repo>,
        bounds: &Bounds,
    ) -> Result<Self, Unready> {
        // An earlier box of the run that has not ended yet would lose its ground.
        if place.objects(0).exists() {
            drop(Objects::open(&place.objects(0))?);
        }
        place.clear(repos.len())?;
        if spec.mode == WorkspaceMode::Branch {
            can_take_a_branch(&repos)?;
        }
        let mut bases = Vec::with_capacity(repos.len());
        for repo in &repos {
            bases.push(Arc::new(Base::take_within(&repo.path, bounds)?));
        }
        let Chosen { kind, reason, warnings } = choose::kind(spec.mode, &repos, &bases, store.limit.as_ref());
        let mut meta = Meta::new(kind, reason, Space::expected(), repos);
        meta.warnings = warnings;
        if meta.kind != Kind::Overlay {
            // All contents are read, or copied.
            for (repo, base) in meta.repos.iter().zip(&bases) {
                base.check_files(&repo.path, bounds)?;
            }
        }
        let look = covers::look(store, &mut meta, &bases, &spec.reveal);
        let copies = choose::make(&place, &mut meta, &bases, bounds)?;
        Self::opened(place, meta, bases, Begun::Now(copies, look), &spec.reveal, bounds)
    }

    fn take_up(place: Place, meta: Meta, reveal: &[String], bounds: &Bounds) -> Result<Self, Unready> {
        let bases: Result<Vec<_>, Error> =
            (0..meta.repos.len()).map(|index| place.load_base(index)).collect();
        Self::opened(place, meta, bases?, Begun::Before, reveal, bounds)
    }

    fn opened(
        place: Place,
        meta: Meta,
        bases: Vec<Arc<Base>>,
        begun: Begun,
        reveal: &[String],
        bounds: &Bounds,
    ) -> Result<Self, Unready> {
        let objects: Result<Vec<_>, _> =
            (0..bases.len()).map(|index| Objects::open(&place.objects(index))).collect();
        let objects: Vec<_> = objects?.into_iter().map(Arc::new).collect();
        if matches!(begun, Begun::Before) {
            // Only now: whoever holds the objects has the view to itself.
            choose::ready(&place, &meta)?;
        }
        let mut trackers = Vec::with_capacity(bases.len());
        for (index, base) in bases.iter().enumerate() {
            let mut tracker = Tracker::open(tracker_options(&place, &meta, index, base, &objects[index]))?;
            tracker.set_bounds(bounds);
            trackers.push(tracker);
        }
        let (copies, look) = match begun {
            Begun::Now(copies, look) => (Some(copies), Some(look)),
            Begun::Before => (None, None),
        };
        let is_new = copies.is_some();
        let saving = Stop::default();
        let own = bounds.with(saving.clone());
        if let Some(copies) = copies {
            choose::adopt(&mut trackers, copies)?;
        }
        let shown: Vec<Shown> = (0..meta.repos.len()).map(|index| shown(&place, &meta, index)).collect();
        let mut git = gitdir::GitDir::default();
        for shown in &shown {
            let found = gitdir::outside(&shown.repo, &shown.target());
            git.binds.extend(found.binds);
            git.warnings.extend(found.warnings);
        }
        let covers = Covers::new(&place, &meta, &bases, reveal, look);
        let beginning = match is_new {
            false => Beginning::Safe,
            true => {
                let saver = Saver::new(&place, &meta, bases, &trackers, &covers);
                Beginning::Kept(Box::new(saver.within(&own)))
            }
        };
        Ok(Self {
            safe: AtomicBool::new(!is_new),
            is_new,
            place,
            meta,
            trackers: Mutex::new(trackers),
            beginning: Mutex::new(beginning),
            saving,
            own,
            shown,
            git,
            covers,
            reveal: reveal.to_vec(),
        })
    }

    /// The folder of the host that is the workspace, if there is one.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        match self.shown.as_slice() {
            [Shown { layers: Layers::Direct, repo, .. }] => Some(repo.clone()),
            [Shown { layers: Layers::Owned(copy), .. }] => Some(copy.clone()),
            [Shown { layers: Layers::Owned(_), .. }, ..] => Some(self.place.copies()),
            _ => None,
        }
    }

    /// How each repository is shown, in the words of a box.
    pub(crate) fn roots(&self) -> Vec<Root> {
        let root = |shown: &Shown| {
            let (source, show) = match &shown.layers {
                Layers::Direct => (shown.repo.clone(), Show::Direct),
                Layers::Overlay { upper, work } => {
                    (shown.repo.clone(), Show::Overlay { upper: upper.clone(), work: work.clone() })
                }
                Layers::Owned(copy) => (copy.clone(), Show::Owned),
            };
            Root { source, target: shown.target(), show }
        };
        self.shown.iter().map(root).collect()
    }

    /// Which kind it is.
    pub(crate) fn kind(&self) -> Kind {
        self.meta.kind
    }

    /// Git data that lies elsewhere and must be seen.
    pub(crate) fn git_binds(&self) -> Vec<Bind> {
        self.git.binds.clone()
    }

    /// Variables that git needs for data that lies elsewhere: as root's box sees it, it belongs to nobody.
    pub(crate) fn git_env(&self) -> &'static [(&'static str, &'static str)] {
        const TRUST: &[(&str, &str)] =
            &[("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")];
        if self.git.binds.is_empty() { &[] } else { TRUST }
    }

    /// Paths of the workspace that are covered.
    pub(crate) fn masked(&self) -> Vec<Raw> {
        let meta = &self.meta;
        meta.masks.iter().map(|mask| Raw(mask.inside(meta).as_os_str().as_bytes().to_vec())).collect()
    }

    /// By which folders of the host the workspace may be named.
    pub(crate) fn places(&self) -> Places {
        let mut places = Places::default();
        for shown in &self.shown {
            if let Layers::Owned(copy) = &shown.layers {
                places = places.with(copy, &shown.name);
            }
            places = places.with(&shown.repo, &shown.name);
        }
        places
    }

    /// Says in a report what the workspace is.
    pub(crate) fn describe(&self, report: &mut SandboxReport) {
        let meta = &self.meta;
        let word = meta.kind.word();
        report.view =
            if meta.reason.is_empty() { word.to_owned() } else { format!("{word} ({})", meta.reason) };
        let masked = meta.masks.iter().map(|mask| mask.inside(meta).to_string_lossy().into_owned());
        report.masked.extend(masked);
        report.warnings.extend(meta.warnings.iter().cloned());
        report.warnings.extend(self.git.warnings.iter().cloned());
    }

    /// Takes note of where the kernel keeps an overlay's attributes.
    pub(crate) fn mounted(&self, attributes: Option<OverlayAttributes>) -> Result<(), Error> {
        let space = match attributes {
            None => return Ok(()),
            Some(OverlayAttributes::Trusted) => Space::Trusted,
            Some(OverlayAttributes::User) => Space::User,
        };
        if self.meta.space == space {
            return Ok(());
        }
        let why = "the view was made by another kind of user; use the same one for all of a run".to_owned();
        Err(Error::View { why })
    }

    /// Whether the state before the first change is kept, so that changes may begin. Only where the workspace is the
    /// repository itself this takes more than a look.
    pub(crate) fn is_safe(&self) -> bool {
        self.safe.load(Ordering::Acquire)
            || !matches!(self.shown.first(), Some(Shown { layers: Layers::Direct, .. }))
    }

    /// Keeps the workspace as it stands now.
    pub(crate) fn snapshot(&self, bounds: &Bounds) -> Result<SnapshotId, Error> {
        let (id, objects) = self.take(bounds)?;
        flush(&objects)?;
        Ok(id)
    }

    /// As [`View::snapshot`], with what must be [flushed](flush) before it is durable.
    pub(crate) fn take(&self, bounds: &Bounds) -> Result<(SnapshotId, Vec<Arc<Objects>>), Error> {
        self.make_safe(bounds)?;
        let mut trackers = self.trackers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut parts = Vec::with_capacity(trackers.len());
        for tracker in trackers.iter_mut() {
            tracker.set_bounds(bounds);
            parts.push(tracker.take().map_err(|error| view_error(&error))?);
        }
        let objects = trackers.iter().map(Tracker::objects).collect();
        Ok((many::name(&self.place, &self.meta, &parts)?, objects))
    }

    /// Puts the workspace to a snapshot; `None`: the beginning. No box is open on it.
    pub(crate) fn restore(&self, to: Option<SnapshotId>, bounds: &Bounds) -> Result<(), Error> {
        self.make_safe(bounds)?;
        let parts = many::parts(&self.place, &self.meta, to)?;
        let mut trackers = self.trackers.lock().unwrap_or_else(PoisonError::into_inner);
        for (tracker, part) in trackers.iter_mut().zip(parts) {
            tracker.set_bounds(bounds);
            tracker.restore(part).map_err(|error| view_error(&error))?;
        }
        Ok(())
    }

    /// Makes a copy of the repositories in place of an overlay that can't be had, for this reason. What was done in the
    /// overlay before is put into the copy.
    pub(crate) fn fall_back(self, why: &str, bounds: &Bounds) -> Result<Self, Unready> {
        // Waits for what writes into the same folder.
        let done = match self.is_new {
            true => self.make_safe(bounds).map(|()| None),
            false => self.snapshot(bounds).map(Some),
        }?;
        let mut meta = self.meta.clone();
        covers::add(&mut meta, self.covers.more());
        let (place, reveal) = (self.place.clone(), self.reveal.clone());
        drop(self);
        let bases: Result<Vec<_>, Error> =
            (0..meta.repos.len()).map(|index| place.load_base(index)).collect();
        let bases = bases?;
        meta.kind = Kind::Copy;
        why.clone_into(&mut meta.reason);
        for (repo, base) in meta.repos.iter().zip(&bases) {
            base.check_files(&repo.path, bounds)?;
        }
        let copies = choose::make(&place, &mut meta, &bases, bounds)?;
        for index in 0..meta.repos.len() {
            forge_files::remove_tree(&place.upper(index));
            forge_files::remove_tree(&place.work(index));
        }
        let view = Self::opened(place, meta, bases, Begun::Now(copies, Look::default()), &reveal, bounds)?;
        if done.is_some() {
            view.restore(done, bounds)?;
        }
        Ok(view)
    }
}

/// Whether a view is new.
enum Begun {
    /// It is, with these copies, and this was seen of it.
    Now(Vec<CopyStats>, Look),
    /// It was there.
    Before,
}

impl Space {
    /// Where the kernel keeps an overlay's attributes if this user mounts it.
    fn expected() -> Self {
        if rustix::process::geteuid().is_root() { Self::Trusted } else { Self::User }
    }
}

impl From<Space> for Attributes {
    fn from(space: Space) -> Self {
        match space {
            Space::Trusted => Self::Trusted,
            Space::User => Self::User,
        }
    }
}

impl Mask {
    /// Whether it is one whatever its name: what else holds the same is one as well.
    fn is_told_by_content(&self) -> bool {
        self.content.is_some_and(|content| content != forge_types::Digest::of(b""))
            && !masks::can_be_credential(Path::new(std::ffi::OsStr::from_bytes(&self.path)))
    }

    fn rel(&self) -> Option<RelPath> {
        RelPath::new(self.path.clone())
    }

    /// The path in the workspace.
    fn inside(&self, meta: &Meta) -> PathBuf {
        let below = Path::new(std::ffi::OsStr::from_bytes(&self.path));
        meta.repos.get(self.repo).map_or_else(|| below.to_owned(), |repo| Path::new(&repo.name).join(below))
    }
}

impl Place {
    fn load_base(&self, index: usize) -> Result<Arc<Base>, Error> {
        let path = self.base(index);
        Base::load(&path).map(Arc::new).map_err(|error| Error::View {
            why: format!("{}: {error}; the run's steps can't be used any more", path.display()),
        })
    }
}

/// The repositories of a run: where they are, and how they are called in the workspace.
pub(crate) fn repos(spec: &SandboxSpec) -> Result<Vec<Repo>, Error> {
    let mut repos: Vec<Repo> = Vec::with_capacity(1 + spec.more_repos.len());
    let paths = std::iter::once(&spec.repo).chain(&spec.more_repos);
    for (path, name) in paths.zip(spec.repo_folders()) {
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
        repos.push(Repo { name, path: real, ino: meta.ino() });
    }
    Ok(repos)
}

/// A run goes on with the repositories that it began with.
fn same_repos(meta: &Meta, repos: &[Repo]) -> Result<(), Error> {
    for (was, is) in meta.repos.iter().zip(repos) {
        if was.path != is.path || (was.ino != is.ino && meta.kind == Kind::Overlay) {
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
fn apart(store: &Store, repos: &[Repo]) -> Result<(), Error> {
    let views = std::fs::canonicalize(&store.views).unwrap_or_else(|_| store.views.clone());
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
fn can_take_a_branch(repos: &[Repo]) -> Result<(), Error> {
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
    place: &Place,
    meta: &Meta,
    index: usize,
    base: &Arc<Base>,
    objects: &Arc<Objects>,
) -> forge_snapshot::Options {
    let repo = &meta.repos[index];
    let layout = match meta.kind {
        Kind::Direct => Layout::Whole { root: repo.path.clone() },
        Kind::Overlay => Layout::Overlay { upper: place.upper(index), attributes: meta.space.into() },
        Kind::Reflink | Kind::Copy => Layout::Whole { root: place.copy(meta, index) },
    };
    let root = match &layout {
        Layout::Overlay { upper: root, .. } | Layout::Whole { root } => root,
    };
    // What root puts back belongs to whom the rest belongs: the repository's owner, or the user of the last box.
    let owner = std::fs::metadata(root).ok().map(|meta| (meta.uid(), meta.gid()));
    forge_snapshot::Options {
        base: Arc::clone(base),
        lower: repo.path.clone(),
        ignored: covers::paths(&meta.masks, index),
        owner: owner.filter(|_| rustix::process::geteuid().is_root()),
        layout,
        objects: Arc::clone(objects),
    }
}

fn shown(place: &Place, meta: &Meta, index: usize) -> Shown {
    let repo = &meta.repos[index];
    let layers = match meta.kind {
        Kind::Direct => Layers::Direct,
        Kind::Overlay => Layers::Overlay { upper: place.upper(index), work: place.work(index) },
        Kind::Reflink | Kind::Copy => Layers::Owned(place.copy(meta, index)),
    };
    Shown { name: repo.name.clone(), repo: repo.path.clone(), layers }
}

/// Makes the contents of snapshots durable.
pub(crate) fn flush(objects: &[Arc<Objects>]) -> Result<(), Error> {
    objects.iter().try_for_each(|objects| objects.flush().map_err(|error| view_error(&error)))
}
