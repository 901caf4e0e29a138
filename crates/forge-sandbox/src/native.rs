//! The `native` backend: a box of Linux's own means around each run, through `forge-jail`.

use crate::door::blocking;
use crate::masks;
use crate::paths::Places;
use crate::room::{Parts, Room, layer, refusal};
use forge_jail::{Bind, Jail, JailSpec, Missing, Network, Raw};
use forge_ports::async_trait;
use forge_ports::sandbox::Error;
use forge_ports::{Sandbox, Workspace};
use forge_types::{Layer, NetworkPolicy, RunId, SandboxReport, SandboxSpec, SnapshotId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Names at the top of a toolchain's folder that hold credentials: such a folder is bound piece by piece without them.
const SECRETS: &[&str] =
    &["credentials", "credentials.toml", ".credentials", ".npmrc", ".netrc", ".pypirc", ".git-credentials"];

/// The backend.
#[derive(Clone, Debug)]
pub struct Native {
    exe: PathBuf,
}

impl Default for Native {
    fn default() -> Self {
        Self { exe: PathBuf::from("/proc/self/exe") }
    }
}

impl Native {
    /// Uses `exe` as the box's init and walker: a binary whose `main` begins with [`crate::helper_main`]. By default
    /// that is the running binary itself.
    #[must_use]
    pub fn with_exe(exe: impl Into<PathBuf>) -> Self {
        Self { exe: exe.into() }
    }
}

#[async_trait]
impl Sandbox for Native {
    async fn probe(&self) -> Vec<Layer> {
        let exe = self.exe.clone();
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
        let (exe, spec) = (self.exe.clone(), spec.clone());
        let room = blocking(move || open_room(&exe, &spec, run)).await?;
        let _ = at;
        Ok(Arc::new(room))
    }
}

/// Builds the box.
fn open_room(exe: &Path, spec: &SandboxSpec, run: RunId) -> Result<Room, Error> {
    let startup = |why: String| Error::Startup { why };
    let root = std::fs::canonicalize(&spec.repo)
        .map_err(|error| startup(format!("the workspace {}: {error}", spec.repo.display())))?;
    let masks = masks::scan(&root, &spec.reveal);
    let mut jail = JailSpec::new(run.to_string(), &root);
    jail.masked = masks.paths.iter().map(|p| Raw::from(p.as_path())).collect();
    jail.binds = spec.read_only.iter().flat_map(|folder| binds(folder)).collect();
    jail.network = match &spec.network {
        NetworkPolicy::Off | NetworkPolicy::Allow(_) => Network::Off,
        NetworkPolicy::Host => Network::Host,
    };
    jail.limits.memory_bytes = spec.limits.memory_bytes;
    jail.limits.pids = spec.limits.pids;
    jail.limits.cpus = spec.limits.cpus;
    jail.limits.tmp_bytes = spec.limits.tmp_bytes;
    for (name, value) in &spec.env {
        let (name, value) = (Raw::from(name.as_str()), Raw::from(value.as_str()));
        jail.env.retain(|(known, _)| *known != name);
        jail.env.push((name, value));
    }
    let jail = Jail::spawn(&jail, exe).map_err(refusal)?;
    let report = SandboxReport {
        backend: "native".to_owned(),
        id: format!("{run}/{}", jail.init_pid()),
        layers: Vec::new(),
        view: "direct".to_owned(),
        masked: masks.paths.iter().map(|p| p.to_string_lossy().into_owned()).collect(),
        warnings: masks.warnings,
    };
    Ok(Room::new(Parts {
        jail,
        view: None,
        places: Places::one(root),
        longest: Duration::from_millis(spec.limits.command_ms),
        report,
        reached: None,
        keep: Vec::new(),
    }))
}

/// A toolchain's folder at its own place. One with credentials at its top is bound piece by piece without them.
fn binds(folder: &Path) -> Vec<Bind> {
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
