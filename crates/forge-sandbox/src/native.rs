//! The `native` backend: a box of Linux's own means around each run, through `forge-jail`.

use crate::Options;
use crate::door::blocking;
use crate::paths::Places;
use crate::room::{Parts, Reached, Room, layer, refusal};
use crate::view::{self, Kind, Layers, Shown, Unready, View};
use forge_jail::{Bind, Jail, JailSpec, Missing, Network, Raw, Root, Show};
use forge_ports::async_trait;
use forge_ports::sandbox::Error;
use forge_ports::{Sandbox, Workspace};
use forge_types::{Layer, NetworkPolicy, RunId, SandboxReport, SandboxSpec, SnapshotId};
use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Size of the writable caches of a box with a network.
const CACHES: u64 = 1 << 30;
/// Where programs keep what they fetch, if they can fetch at all.
const CACHE_FOLDERS: &[(&str, &str)] = &[
    ("HOME", "/cache/home"),
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
}

impl Native {
    pub(crate) const fn new(options: Arc<Options>) -> Self {
        Self { options }
    }

    fn exe(&self) -> PathBuf {
        self.options.exe.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
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
        furnish(&mut jail, spec, &mut report);
        jail.binds.extend(binds);
        let egress = Way::out(&self.options, spec, &mut jail)?;
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
        let (view, keep) = view::prepare(&self.options.store(), spec, run, at).await?;
        let mut jail = JailSpec::new(run.to_string(), &spec.repo);
        let mut report = report();
        furnish(&mut jail, spec, &mut report);
        let egress = Way::out(&self.options, spec, &mut jail)?;
        let exe = self.exe();
        let started = blocking(move || start(jail, &exe, view)).await?;
        let (jail, view) = started;
        view.describe(&mut report);
        let room = self.room(spec, run, jail, egress, Some(Arc::new(view)), report, keep)?;
        Ok(Arc::new(room))
    }
}

/// Starts a box around a view. Where the kernel refuses an overlay, a copy takes its place.
fn start(mut jail: JailSpec, exe: &Path, mut view: View) -> Result<(Jail, View), Error> {
    jail.binds.extend(view.git_binds());
    jail.masked = view.masked();
    loop {
        jail.roots = roots(&view);
        match Jail::spawn(&jail, exe) {
            Ok(started) => {
                view.mounted(started.overlay_attributes())?;
                return Ok((started, view));
            }
            Err(forge_jail::Error::Overlay { why }) if view.kind() == Kind::Overlay => {
                view = view.fall_back(&why).map_err(Unready::error)?;
            }
            Err(error) => return Err(refusal(error)),
        }
    }
}

fn roots(view: &View) -> Vec<Root> {
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
    view.shown().iter().map(root).collect()
}

/// What a specification asks for beside the workspace and the way out.
fn furnish(jail: &mut JailSpec, spec: &SandboxSpec, report: &mut SandboxReport) {
    jail.binds.extend(spec.read_only.iter().flat_map(|folder| binds(folder)));
    let bind =
        |path: &PathBuf| Bind { source: path.clone(), target: path.clone(), missing: Missing::Fail };
    jail.writable = spec.writable.iter().map(bind).collect();
    for path in &spec.writable {
        report.warnings.push(format!("{} is written by commands directly, outside of snapshots", path.display()));
    }
    jail.network = match &spec.network {
        NetworkPolicy::Off | NetworkPolicy::Allow(_) => Network::Off,
        NetworkPolicy::Host => Network::Host,
    };
    jail.limits.memory_bytes = spec.limits.memory_bytes;
    jail.limits.pids = spec.limits.pids;
    jail.limits.cpus = spec.limits.cpus;
    jail.limits.tmp_bytes = spec.limits.tmp_bytes;
    if spec.network != NetworkPolicy::Off {
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
struct Way;

impl Way {
    /// Decides how the box gets out, and tells it.
    fn out(_options: &Options, _spec: &SandboxSpec, _jail: &mut JailSpec) -> Result<Self, Error> {
        Ok(Self)
    }

    /// Opens it, when the box stands.
    fn open(self, _jail: &Jail) -> Result<Option<Reached>, Error> {
        Ok(None)
    }
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
