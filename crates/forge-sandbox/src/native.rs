//! The `native` backend: sandboxes each run with Linux's own mechanisms, through `forge-jail`.

use crate::BackendOptions;
use crate::guard::GuardedWorkspace;
use crate::jail_setup::{EgressSetup, apply_spec, set_env};
use crate::jailed_workspace::{JailedWorkspace, SandboxParts, to_port_error, to_port_layer};
use crate::stale_temps;
use forge_jail::{HostBind, Jail, JailSpec, PrewarmedJail, RootMode};
use forge_ports::async_trait;
use forge_ports::sandbox::Error;
use forge_ports::{Sandbox, Workspace};
use forge_snapshot::WorkBounds;
use forge_types::{NetworkPolicy, RunId, SandboxLayer, SandboxReport, SandboxSpec, SnapshotId};
use forge_workspace::paths::WorkspacePaths;
use forge_workspace::run_blocking;
use forge_workspace::{self as workspace, OpenError, RunWorkspace, WorkspaceKind};
use parking_lot::{Mutex, MutexGuard};
use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

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
        drop(self.0.get_mut().take().and_then(Prewarming::wait_ready));
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
        self.prewarmed.0.lock()
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

fn native_report() -> SandboxReport {
    SandboxReport { backend: "native".to_owned(), ..SandboxReport::default() }
}
