//! The `native` backend: sandboxes each run with Linux's own mechanisms, through `forge-jail`.

use crate::BackendOptions;
use crate::egress::{self, EgressKey};
use crate::guard::GuardedWorkspace;
use crate::jailed_workspace::{DrainEgressFn, JailedWorkspace, SandboxParts, to_port_error, to_port_layer};
use crate::stale_temps;
use forge_jail::{HostBind, Jail, JailSpec, MissingSource, NetworkAccess, PrewarmedJail, RawBytes, RootMode};
use forge_ports::async_trait;
use forge_ports::sandbox::Error;
use forge_ports::{Sandbox, Workspace};
use forge_snapshot::WorkBounds;
use forge_types::{
    EgressRules, ErrorClass, NetworkPolicy, RunId, SandboxLayer, SandboxReport, SandboxSpec, SnapshotId,
    Timestamp,
};
use forge_workspace::paths::WorkspacePaths;
use forge_workspace::run_blocking;
use forge_workspace::{self as workspace, OpenError, RunWorkspace, WorkspaceKind};
use std::any::Any;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Port of the proxy in a sandbox's own network.
const PROXY_PORT: u16 = 3128;
/// Size of the writable caches of a sandbox with a network.
const CACHE_BYTES: u64 = 1 << 30;
/// Directories in which programs keep what they download, if they can download at all.
const CACHE_ENV_DIRS: &[(&str, &str)] = &[
    ("HOME", "/cache"),
    ("XDG_CACHE_HOME", "/cache/xdg"),
    ("PIP_CACHE_DIR", "/cache/pip"),
    ("NPM_CONFIG_CACHE", "/cache/npm"),
    ("YARN_CACHE_FOLDER", "/cache/yarn"),
    ("PNPM_HOME", "/cache/pnpm"),
    ("PNPM_STORE_DIR", "/cache/pnpm/store"),
];

/// Names at the top of a toolchain's directory that hold credentials: such a directory is bound entry by entry without
/// them.
const CREDENTIAL_NAMES: &[&str] =
    &["credentials", "credentials.toml", ".credentials", ".npmrc", ".netrc", ".pypirc", ".git-credentials"];

/// The `native` backend.
#[derive(Clone, Debug)]
pub(crate) struct NativeBackend {
    options: Arc<BackendOptions>,
    /// Sandbox that was prewarmed.
    prewarmed: Arc<PrewarmSlot>,
}

/// A slot for a prewarmed sandbox. An unused one ends with the slot.
#[derive(Debug, Default)]
struct PrewarmSlot(Mutex<Option<Prewarming>>);

impl Drop for PrewarmSlot {
    fn drop(&mut self) {
        drop(
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take().and_then(Prewarming::wait_ready),
        );
    }
}

/// A prewarmed sandbox.
#[derive(Debug)]
enum Prewarming {
    /// Being created by this thread.
    Making(JoinHandle<Option<PrewarmedJail>>),
    /// Complete except for the workspace.
    Ready(Box<PrewarmedJail>),
}

impl Prewarming {
    fn wait_ready(self) -> Option<PrewarmedJail> {
        match self {
            Self::Making(thread) => thread.join().ok().flatten(),
            Self::Ready(spare) => Some(*spare),
        }
    }
}

impl NativeBackend {
    pub(crate) fn new(options: Arc<BackendOptions>) -> Self {
        Self { options, prewarmed: Arc::default() }
    }

    /// Prewarms the sandbox that is likely to be opened next, on a separate thread: see [`PrewarmedJail`]. A sandbox
    /// that turns out to differ is created from scratch.
    pub(crate) fn prewarm(&self, spec: &SandboxSpec) {
        if spec.image.is_some() || matches!(spec.network, NetworkPolicy::Allow(_)) {
            return;
        }
        let mut ground = JailSpec::new("spare", &spec.repo);
        apply_spec(&self.options, &mut ground, spec, &mut native_report());
        let exe = self.helper_exe();
        // Prewarming is optional: errors are reported when the sandbox is opened.
        let begin = move || PrewarmedJail::start(&ground, &exe).ok();
        let thread = std::thread::Builder::new().name("forge-spare".to_owned()).spawn(begin);
        *self.lock_slot() = thread.ok().map(Prewarming::Making);
    }

    /// Waits until prewarming has finished.
    pub(crate) fn wait_prewarmed(&self) {
        let mut slot = self.lock_slot();
        *slot = slot.take().and_then(Prewarming::wait_ready).map(|spare| Prewarming::Ready(Box::new(spare)));
    }

    /// Returns the directory for temporary files.
    pub(crate) fn temp_directory(&self) -> Result<forge_files::PrivateDir, Error> {
        stale_temps::temp_directory(&self.options)
    }

    fn helper_exe(&self) -> PathBuf {
        self.options.exe.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
    }

    fn lock_slot(&self) -> MutexGuard<'_, Option<Prewarming>> {
        self.prewarmed.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a sandbox around `spec.repo` itself, without snapshots: for a directory that is discarded with the
    /// sandbox. `binds` are mounted in addition to those of the specification, `keep` is dropped after the sandbox.
    pub(crate) async fn open_bare(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        binds: Vec<HostBind>,
        keep: Vec<Box<dyn Any + Send + Sync>>,
    ) -> Result<JailedWorkspace, Error> {
        let mut jail = JailSpec::new(run.to_string(), &spec.repo);
        if let Some(root) = jail.roots.first_mut() {
            root.mode = RootMode::Owned;
        }
        let mut report = native_report();
        apply_spec(&self.options, &mut jail, spec, &mut report);
        jail.image = image_root(&self.options, spec)?;
        jail.binds.extend(binds);
        let egress = EgressSetup::prepare(&self.options, spec, None, &mut jail)?;
        let exe = self.helper_exe();
        let jail = run_blocking(move || Jail::spawn(&jail, &exe).map_err(to_port_error)).await?;
        self.build_sandbox(spec, run, jail, egress, None, report, keep)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a sandbox, put together in one place")]
    fn build_sandbox(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        jail: Jail,
        egress: EgressSetup,
        view: Option<Arc<RunWorkspace>>,
        mut report: SandboxReport,
        keep: Vec<Box<dyn Any + Send + Sync>>,
    ) -> Result<JailedWorkspace, Error> {
        report.id = format!("{run}/{}", jail.init_pid());
        let reached = egress.start(&jail)?;
        Ok(JailedWorkspace::new(SandboxParts {
            run,
            limits: spec.workspace,
            paths: view
                .as_ref()
                .map_or_else(|| WorkspacePaths::for_root(&spec.repo), |view| view.workspace_paths()),
            jail,
            workspace: view,
            longest: Duration::from_millis(spec.limits.command_ms),
            report,
            reached,
            resources: keep,
        }))
    }
}

#[async_trait]
impl Sandbox for NativeBackend {
    async fn probe_layers(&self) -> Vec<SandboxLayer> {
        let exe = self.helper_exe();
        let probed = tokio::task::spawn_blocking(move || {
            // The directory determines whether root can map it to another owner, so it should be the user's own.
            let here = std::env::current_dir().ok().filter(|p| p != Path::new("/"));
            forge_jail::probe_layers(&exe, &here.unwrap_or_else(std::env::temp_dir))
        });
        probed.await.unwrap_or_default().iter().map(to_port_layer).collect()
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
            async move { own.open_sandbox(&spec, run, at).await }
        };
        GuardedWorkspace::open(at, held).await
    }
}

impl NativeBackend {
    async fn open_sandbox(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<JailedWorkspace>, Error> {
        let (options, asked, exe) = (Arc::clone(&self.options), spec.clone(), self.helper_exe());
        let begun = self.lock_slot().take();
        let make = move |view: RunWorkspace, keep, bounds: &WorkBounds| {
            let mut jail = JailSpec::new(run.to_string(), &asked.repo);
            let mut report = native_report();
            apply_spec(&options, &mut jail, &asked, &mut report);
            jail.image = image_root(&options, &asked)?;
            let egress = EgressSetup::prepare(&options, &asked, Some(&view), &mut jail)?;
            let (jail, view) = start_jail(jail, &exe, begun, view, bounds)?;
            view.start_saving_baseline();
            view.describe(&mut report);
            Ok((jail, view, egress, report, keep))
        };
        let store = self.options.workspace_storage();
        let (jail, view, egress, report, keep) =
            workspace::prepare_workspace_then(&store, spec, run, at, make).await?;
        let room = self.build_sandbox(spec, run, jail, egress, Some(Arc::new(view)), report, keep)?;
        Ok(Arc::new(room))
    }
}

/// Starts a sandbox around a workspace. Falls back to a copy if the kernel refuses an overlay.
fn start_jail(
    mut jail: JailSpec,
    exe: &Path,
    begun: Option<Prewarming>,
    mut view: RunWorkspace,
    bounds: &WorkBounds,
) -> Result<(Jail, RunWorkspace), Error> {
    jail.binds.extend(view.git_binds());
    jail.masked = view.masked_paths();
    for (name, value) in view.git_env() {
        set_env(&mut jail, name, value);
    }
    let mut spare = begun.and_then(Prewarming::wait_ready);
    loop {
        jail.roots = view.jail_roots();
        let started = match spare.take().filter(|spare| spare.can_become(&jail)) {
            Some(spare) => spare.finish(&jail),
            None => Jail::spawn(&jail, exe),
        };
        match started {
            Ok(started) => {
                view.record_mount(started.overlay_attributes())?;
                return Ok((started, view));
            }
            Err(forge_jail::Error::Overlay { why }) if view.workspace_kind() == WorkspaceKind::Overlay => {
                view = view.fall_back_to_copy(&why, bounds).map_err(OpenError::into_error)?;
            }
            Err(error) => return Err(to_port_error(error)),
        }
    }
}

/// Returns the root directory that replaces the host's, if the specification names an image.
fn image_root(options: &BackendOptions, spec: &SandboxSpec) -> Result<Option<PathBuf>, Error> {
    spec.image.as_deref().map(|name| crate::images::find_image(&options.images, name)).transpose()
}

/// Applies everything in the specification except the workspace and the egress.
pub(crate) fn apply_spec(
    options: &BackendOptions,
    jail: &mut JailSpec,
    spec: &SandboxSpec,
    report: &mut SandboxReport,
) {
    jail.binds.extend(spec.read_only.iter().flat_map(|folder| toolchain_binds(folder)));
    let bind = |path: &PathBuf| HostBind {
        source: path.clone(),
        target: path.clone(),
        missing: MissingSource::Fail,
    };
    jail.writable = spec.writable.iter().map(bind).collect();
    for path in &spec.writable {
        report.warnings.push(format!("commands write directly to {}, outside of snapshots", path.display()));
    }
    jail.network = match &spec.network {
        NetworkPolicy::Off | NetworkPolicy::Allow(_) => NetworkAccess::Off,
        NetworkPolicy::Host => NetworkAccess::Host,
    };
    jail.limits.memory_bytes = spec.limits.memory_bytes;
    jail.limits.pids = spec.limits.pids;
    jail.without.clone_from(&options.without);
    jail.programs.clone_from(&spec.programs);
    jail.limits.cpus = spec.limits.cpus;
    jail.limits.tmp_bytes = spec.limits.tmp_bytes;
    if spec.network != NetworkPolicy::Off && options.caches {
        jail.caches = Some(CACHE_BYTES);
        for (name, folder) in CACHE_ENV_DIRS {
            set_env(jail, name, folder);
        }
    }
    for (name, value) in &spec.env {
        set_env(jail, name, value);
    }
}

fn set_env(jail: &mut JailSpec, name: &str, value: &str) {
    let (name, value) = (RawBytes::from(name), RawBytes::from(value));
    jail.env.retain(|(known, _)| *known != name);
    jail.env.push((name, value));
}

fn native_report() -> SandboxReport {
    SandboxReport { backend: "native".to_owned(), ..SandboxReport::default() }
}

/// The egress of a sandbox.
pub(crate) enum EgressSetup {
    /// None, or the machine's own network.
    Direct,
    /// A proxy that enforces an allow-list.
    Proxy { rules: EgressRules, keys: BTreeMap<String, EgressKey>, certificates: Option<CaBundleFile> },
}

impl EgressSetup {
    /// Chooses the egress and configures `jail` for it. Files that the sandbox needs for it are kept with its `view`,
    /// if it has one.
    pub(crate) fn prepare(
        options: &BackendOptions,
        spec: &SandboxSpec,
        view: Option<&RunWorkspace>,
        jail: &mut JailSpec,
    ) -> Result<Self, Error> {
        let NetworkPolicy::Allow(rules) = &spec.network else { return Ok(Self::Direct) };
        jail.listen = Some(PROXY_PORT);
        for (name, value) in egress::proxy_environment(rules, PROXY_PORT) {
            set_env(jail, &name, &value);
        }
        let keys =
            options.keys.iter().map(|(name, key)| (name.clone(), EgressKey::new(key.as_str()))).collect();
        let certificates = match rules.keys.is_empty() {
            true => None,
            false => Some(CaBundleFile::new(options, view)?),
        };
        jail.binds.extend(certificates.iter().map(|certificates| HostBind {
            source: certificates.0.clone(),
            target: PathBuf::from(egress::CA_BUNDLE_PATH),
            missing: MissingSource::Fail,
        }));
        Ok(Self::Proxy { rules: rules.clone(), keys, certificates })
    }

    /// Starts the egress once the sandbox is open.
    pub(crate) fn start(self, jail: &Jail) -> Result<Option<DrainEgressFn>, Error> {
        let Self::Proxy { rules, keys, certificates } = self else { return Ok(None) };
        let startup = |why: String| Error::Startup { why };
        let listener =
            jail.claim_listener().ok_or_else(|| startup("the sandbox has no egress socket".to_owned()))?;
        let proxy =
            egress::EgressProxy::new(listener.into(), rules, keys, Arc::new(current_timestamp)).start();
        let proxy = proxy.map_err(|error| match error.class() {
            ErrorClass::Invalid => Error::Invalid { why: error.to_string() },
            _ => startup(error.to_string()),
        })?;
        if let Some(certificates) = &certificates {
            for (_, content) in proxy.files() {
                std::fs::write(&certificates.0, content).map_err(|error| startup(error.to_string()))?;
            }
        }
        Ok(Some(Box::new(move || {
            // The certificates last as long as the proxy.
            let _ = &certificates;
            proxy.drain()
        })))
    }
}

/// A file that is mounted in a sandbox before its content is known; removed when dropped.
pub(crate) struct CaBundleFile(PathBuf);

impl CaBundleFile {
    fn new(options: &BackendOptions, view: Option<&RunWorkspace>) -> Result<Self, Error> {
        let folder = match view {
            Some(view) => {
                // Earlier sandboxes of the run have ended; one with a killed owner could not clean up.
                forge_files::remove_stale(view.workspace_dir(), &[stale_temps::CA_BUNDLE_KIND]);
                view.workspace_dir().to_owned()
            }
            None => stale_temps::temp_directory(options)?.path().to_owned(),
        };
        let path = folder.join(format!("{}.pem", forge_files::owned_temp_name(stale_temps::CA_BUNDLE_KIND)));
        let failed = |error: std::io::Error| Error::Startup { why: format!("{}: {error}", path.display()) };
        let file = std::fs::File::create_new(&path).map_err(failed)?;
        let certificates = Self(path.clone());
        file.set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
        Ok(certificates)
    }
}

impl Drop for CaBundleFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Returns the time of day, for the egress log.
#[allow(
    clippy::disallowed_methods,
    reason = "the log of the proxy records the time of day; no decision depends on it"
)]
pub(crate) fn current_timestamp() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Binds a toolchain's directory at its own path. One with credentials at its top is bound entry by entry without them.
pub(crate) fn toolchain_binds(folder: &Path) -> Vec<HostBind> {
    let bind = |path: &Path| HostBind {
        source: path.to_owned(),
        target: path.to_owned(),
        missing: MissingSource::Skip,
    };
    let secret = |name: &str| CREDENTIAL_NAMES.contains(&name);
    if !CREDENTIAL_NAMES.iter().any(|name| folder.join(name).exists()) {
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
        let sources = || toolchain_binds(&cargo).into_iter().map(|b| b.source).collect::<Vec<_>>();
        assert_eq!(sources(), std::slice::from_ref(&cargo));
        std::fs::write(cargo.join("credentials.toml"), "token").unwrap();
        assert_eq!(sources(), [cargo.join("bin")]);
    }
}
