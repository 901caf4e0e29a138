//! The `native` backend: a box of Linux's own means around each run, through `forge-jail`.

use crate::Options;
use crate::door::blocking;
use crate::egress::{self, Secret};
use crate::guard::Guard;
use crate::leftovers;
use crate::paths::Places;
use crate::room::{Parts, Reached, Room, layer, refusal};
use crate::view::{self, Kind, Unready, View};
use forge_jail::{Bind, Jail, JailSpec, Missing, Network, Raw, Show, Spare};
use forge_ports::async_trait;
use forge_ports::sandbox::Error;
use forge_ports::{Sandbox, Workspace};
use forge_snapshot::Bounds;
use forge_types::{
    Class, EgressRules, Layer, NetworkPolicy, RunId, SandboxReport, SandboxSpec, SnapshotId, Timestamp,
};
use std::any::Any;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where the proxy listens in a box's own network.
const PORT: u16 = 3128;
/// Size of the writable caches of a box with a network.
const CACHES: u64 = 1 << 30;
/// Where programs keep what they fetch, if they can fetch at all.
const CACHE_FOLDERS: &[(&str, &str)] = &[
    ("HOME", "/cache"),
    ("XDG_CACHE_HOME", "/cache/xdg"),
    ("PIP_CACHE_DIR", "/cache/pip"),
    ("NPM_CONFIG_CACHE", "/cache/npm"),
    ("YARN_CACHE_FOLDER", "/cache/yarn"),
    ("PNPM_HOME", "/cache/pnpm"),
    ("PNPM_STORE_DIR", "/cache/pnpm/store"),
];

/// Names at the top of a toolchain's folder that hold credentials: such a folder is bound piece by piece without them.
const SECRETS: &[&str] =
    &["credentials", "credentials.toml", ".credentials", ".npmrc", ".netrc", ".pypirc", ".git-credentials"];

/// The backend.
#[derive(Clone, Debug)]
pub(crate) struct Native {
    options: Arc<Options>,
    /// A box that was begun before it was asked for.
    begun: Arc<Ahead>,
}

/// The place of a box that was begun before it is asked for. One that nobody asks for ends with it.
#[derive(Debug, Default)]
struct Ahead(Mutex<Option<Begun>>);

impl Drop for Ahead {
    fn drop(&mut self) {
        drop(self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take().and_then(Begun::ready));
    }
}

/// A box that was begun.
#[derive(Debug)]
enum Begun {
    /// By this thread, which is at it.
    Making(JoinHandle<Option<Spare>>),
    /// As far as it goes.
    Ready(Box<Spare>),
}

impl Begun {
    fn ready(self) -> Option<Spare> {
        match self {
            Self::Making(thread) => thread.join().ok().flatten(),
            Self::Ready(spare) => Some(*spare),
        }
    }
}

impl Native {
    pub(crate) fn new(options: Arc<Options>) -> Self {
        Self { options, begun: Arc::default() }
    }

    /// Begins the box that is likely to be asked for next, on a thread of its own: see [`Spare`]. A box that turns out to
    /// be another one is made from nothing.
    pub(crate) fn begin(&self, spec: &SandboxSpec) {
        if spec.image.is_some() || matches!(spec.network, NetworkPolicy::Allow(_)) {
            return;
        }
        let mut ground = JailSpec::new("spare", &spec.repo);
        furnish(&self.options, &mut ground, spec, &mut report());
        let exe = self.exe();
        // Without it everything works as well, and later; what is wrong is said when the box is asked for.
        let begin = move || Spare::begin(&ground, &exe).ok();
        let thread = std::thread::Builder::new().name("forge-spare".to_owned()).spawn(begin);
        *self.slot() = thread.ok().map(Begun::Making);
    }

    /// Waits until the box that was begun stands as far as it goes.
    pub(crate) fn wait(&self) {
        let mut slot = self.slot();
        *slot = slot.take().and_then(Begun::ready).map(|spare| Begun::Ready(Box::new(spare)));
    }

    /// The directory for temporary things.
    pub(crate) fn temporary(&self) -> Result<forge_files::PrivateDir, Error> {
        leftovers::directory(&self.options)
    }

    fn exe(&self) -> PathBuf {
        self.options.exe.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
    }

    fn slot(&self) -> MutexGuard<'_, Option<Begun>> {
        self.begun.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A box around `spec.repo` as it stands, without snapshots: for what is thrown away with it. `binds` are shown
    /// beside those of the specification, `keep` ends after the box.
    pub(crate) async fn bare(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        binds: Vec<Bind>,
        keep: Vec<Box<dyn Any + Send + Sync>>,
    ) -> Result<Room, Error> {
        let mut jail = JailSpec::new(run.to_string(), &spec.repo);
        if let Some(root) = jail.roots.first_mut() {
            root.show = Show::Owned;
        }
        let mut report = report();
        furnish(&self.options, &mut jail, spec, &mut report);
        jail.image = image(&self.options, spec)?;
        jail.binds.extend(binds);
        let egress = Way::out(&self.options, spec, None, &mut jail)?;
        let exe = self.exe();
        let jail = blocking(move || Jail::spawn(&jail, &exe).map_err(refusal)).await?;
        self.room(spec, run, jail, egress, None, report, keep)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a box, put together in one place")]
    fn room(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        jail: Jail,
        egress: Way,
        view: Option<Arc<View>>,
        mut report: SandboxReport,
        keep: Vec<Box<dyn Any + Send + Sync>>,
    ) -> Result<Room, Error> {
        report.id = format!("{run}/{}", jail.init_pid());
        let reached = egress.open(&jail)?;
        Ok(Room::new(Parts {
            run,
            limits: spec.workspace,
            places: view.as_ref().map_or_else(|| Places::one(&spec.repo), |view| view.places()),
            jail,
            view,
            longest: Duration::from_millis(spec.limits.command_ms),
            report,
            reached,
            keep,
        }))
    }
}

#[async_trait]
impl Sandbox for Native {
    async fn probe(&self) -> Vec<Layer> {
        let exe = self.exe();
        let probed = tokio::task::spawn_blocking(move || {
            // The folder decides whether root can show it under another owner, so it should be the user's own.
            let here = std::env::current_dir().ok().filter(|p| p != Path::new("/"));
            forge_jail::probe(&exe, &here.unwrap_or_else(std::env::temp_dir))
        });
        probed.await.unwrap_or_default().iter().map(layer).collect()
    }

    async fn open(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<dyn Workspace>, Error> {
        let (own, spec) = (self.clone(), spec.clone());
        let held = move |at| {
            let (own, spec) = (own.clone(), spec.clone());
            async move { own.held(&spec, run, at).await }
        };
        Guard::open(at, held).await
    }
}

impl Native {
    async fn held(&self, spec: &SandboxSpec, run: RunId, at: Option<SnapshotId>) -> Result<Arc<Room>, Error> {
        let (options, asked, exe) = (Arc::clone(&self.options), spec.clone(), self.exe());
        let begun = self.slot().take();
        let make = move |view: View, keep, bounds: &Bounds| {
            let mut jail = JailSpec::new(run.to_string(), &asked.repo);
            let mut report = report();
            furnish(&options, &mut jail, &asked, &mut report);
            jail.image = image(&options, &asked)?;
            let egress = Way::out(&options, &asked, Some(&view), &mut jail)?;
            let (jail, view) = start(jail, &exe, begun, view, bounds)?;
            view.begin_saving();
            view.describe(&mut report);
            Ok((jail, view, egress, report, keep))
        };
        let store = self.options.store();
        let (jail, view, egress, report, keep) = view::prepare_then(&store, spec, run, at, make).await?;
        let room = self.room(spec, run, jail, egress, Some(Arc::new(view)), report, keep)?;
        Ok(Arc::new(room))
    }
}

/// Starts a box around a view. Where the kernel refuses an overlay, a copy takes its place.
fn start(
    mut jail: JailSpec,
    exe: &Path,
    begun: Option<Begun>,
    mut view: View,
    bounds: &Bounds,
) -> Result<(Jail, View), Error> {
    jail.binds.extend(view.git_binds());
    jail.masked = view.masked();
    for (name, value) in view.git_env() {
        set(&mut jail, name, value);
    }
    let mut spare = begun.and_then(Begun::ready);
    loop {
        jail.roots = view.roots();
        let started = match spare.take().filter(|spare| spare.fits(&jail)) {
            Some(spare) => spare.finish(&jail),
            None => Jail::spawn(&jail, exe),
        };
        match started {
            Ok(started) => {
                view.mounted(started.overlay_attributes())?;
                return Ok((started, view));
            }
            Err(forge_jail::Error::Overlay { why }) if view.kind() == Kind::Overlay => {
                view = view.fall_back(&why, bounds).map_err(Unready::error)?;
            }
            Err(error) => return Err(refusal(error)),
        }
    }
}

/// The root folder that takes the place of the host's, if one is named.
fn image(options: &Options, spec: &SandboxSpec) -> Result<Option<PathBuf>, Error> {
    spec.image.as_deref().map(|name| crate::images::find(&options.images, name)).transpose()
}

/// What a specification asks for beside the workspace and the way out.
pub(crate) fn furnish(
    options: &Options,
    jail: &mut JailSpec,
    spec: &SandboxSpec,
    report: &mut SandboxReport,
) {
    jail.binds.extend(spec.read_only.iter().flat_map(|folder| binds(folder)));
    let bind = |path: &PathBuf| Bind { source: path.clone(), target: path.clone(), missing: Missing::Fail };
    jail.writable = spec.writable.iter().map(bind).collect();
    for path in &spec.writable {
        report
            .warnings
            .push(format!("{} is written by commands directly, outside of snapshots", path.display()));
    }
    jail.network = match &spec.network {
        NetworkPolicy::Off | NetworkPolicy::Allow(_) => Network::Off,
        NetworkPolicy::Host => Network::Host,
    };
    jail.limits.memory_bytes = spec.limits.memory_bytes;
    jail.limits.pids = spec.limits.pids;
    jail.without.clone_from(&options.without);
    jail.programs.clone_from(&spec.programs);
    jail.limits.cpus = spec.limits.cpus;
    jail.limits.tmp_bytes = spec.limits.tmp_bytes;
    if spec.network != NetworkPolicy::Off && options.caches {
        jail.caches = Some(CACHES);
        for (name, folder) in CACHE_FOLDERS {
            set(jail, name, folder);
        }
    }
    for (name, value) in &spec.env {
        set(jail, name, value);
    }
}

fn set(jail: &mut JailSpec, name: &str, value: &str) {
    let (name, value) = (Raw::from(name), Raw::from(value));
    jail.env.retain(|(known, _)| *known != name);
    jail.env.push((name, value));
}

fn report() -> SandboxReport {
    SandboxReport { backend: "native".to_owned(), ..SandboxReport::default() }
}

/// The way out of a box whose network is an allow-list.
pub(crate) enum Way {
    /// There is none, or it is the machine's own.
    Plain,
    /// A proxy.
    Proxy { rules: EgressRules, keys: BTreeMap<String, Secret>, certificates: Option<Certificates> },
}

impl Way {
    /// Decides how the box gets out, and tells it. What the box is shown for it lies beside its `view`, if it has one.
    pub(crate) fn out(
        options: &Options,
        spec: &SandboxSpec,
        view: Option<&View>,
        jail: &mut JailSpec,
    ) -> Result<Self, Error> {
        let NetworkPolicy::Allow(rules) = &spec.network else { return Ok(Self::Plain) };
        jail.listen = Some(PORT);
        for (name, value) in egress::environment(rules, PORT) {
            set(jail, &name, &value);
        }
        let keys = options.keys.iter().map(|(name, key)| (name.clone(), Secret::new(key.as_str()))).collect();
        let certificates = match rules.keys.is_empty() {
            true => None,
            false => Some(Certificates::new(options, view)?),
        };
        jail.binds.extend(certificates.iter().map(|certificates| Bind {
            source: certificates.0.clone(),
            target: PathBuf::from(egress::BUNDLE),
            missing: Missing::Fail,
        }));
        Ok(Self::Proxy { rules: rules.clone(), keys, certificates })
    }

    /// Opens it, when the box stands.
    pub(crate) fn open(self, jail: &Jail) -> Result<Option<Reached>, Error> {
        let Self::Proxy { rules, keys, certificates } = self else { return Ok(None) };
        let startup = |why: String| Error::Startup { why };
        let listener = jail.take_listener().ok_or_else(|| startup("the box has no way out".to_owned()))?;
        let proxy = egress::Proxy::new(listener.into(), rules, keys, Arc::new(now)).start();
        let proxy = proxy.map_err(|error| match error.class() {
            Class::Invalid => Error::Invalid { why: error.to_string() },
            _ => startup(error.to_string()),
        })?;
        if let Some(certificates) = &certificates {
            for (_, content) in proxy.files() {
                std::fs::write(&certificates.0, content).map_err(|error| startup(error.to_string()))?;
            }
        }
        Ok(Some(Box::new(move || {
            // They last as long as the proxy.
            let _ = &certificates;
            proxy.drain()
        })))
    }
}

/// A file that is shown to a box before what stands in it is known; removed when dropped.
pub(crate) struct Certificates(PathBuf);

impl Certificates {
    fn new(options: &Options, view: Option<&View>) -> Result<Self, Error> {
        let folder = match view {
            Some(view) => {
                // The run's earlier boxes are over; one whose owner was killed could not clear up.
                forge_files::sweep(view.place(), &[leftovers::CERTIFICATES]);
                view.place().to_owned()
            }
            None => leftovers::directory(options)?.path().to_owned(),
        };
        let path = folder.join(format!("{}.pem", forge_files::own_name(leftovers::CERTIFICATES)));
        let failed = |error: std::io::Error| Error::Startup { why: format!("{}: {error}", path.display()) };
        let file = std::fs::File::create_new(&path).map_err(failed)?;
        let certificates = Self(path.clone());
        file.set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
        Ok(certificates)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The time of day, for the log of what was reached.
#[allow(
    clippy::disallowed_methods,
    reason = "the log of the proxy tells the time of day; nothing is decided by it"
)]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// A toolchain's folder at its own place. One with credentials at its top is bound piece by piece without them.
pub(crate) fn binds(folder: &Path) -> Vec<Bind> {
    let bind =
        |path: &Path| Bind { source: path.to_owned(), target: path.to_owned(), missing: Missing::Skip };
    let secret = |name: &str| SECRETS.contains(&name);
    if !SECRETS.iter().any(|name| folder.join(name).exists()) {
        return vec![bind(folder)];
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|e| !e.file_name().to_str().is_some_and(secret)).map(|e| bind(&e.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_credentials_is_bound_without_them() {
        let home = tempfile::tempdir().unwrap();
        let cargo = home.path().join(".cargo");
        std::fs::create_dir_all(cargo.join("bin")).unwrap();
        let sources = || binds(&cargo).into_iter().map(|b| b.source).collect::<Vec<_>>();
        assert_eq!(sources(), std::slice::from_ref(&cargo));
        std::fs::write(cargo.join("credentials.toml"), "token").unwrap();
        assert_eq!(sources(), [cargo.join("bin")]);
    }
}
