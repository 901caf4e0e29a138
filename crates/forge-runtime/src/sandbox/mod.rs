//! Sandboxes of runs, from the settings: the backends with their options, and the specification of a sandbox.

pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod one_shot;
pub(crate) mod toolchains;

use crate::workspace::own_places;
use crate::{Error, Project};
use forge_config::{EgressMode, ResolvedConfig, SandboxBackend};
use forge_files::TemporaryTree;
use forge_ports::sandbox::MissingPart;
use forge_sandbox::probes::{ProbeScope, ProbeVerdict, run_probes};
use forge_sandbox::{BackendOptions, Backends};
use forge_types::{NetworkPolicy, NextStep, SandboxLimits, SandboxSpec, WorkspaceLimits};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The kinds of per-process directories in a data directory: for probes, and for sandboxes without a run.
pub(crate) const VERIFY_DIR_KIND: &str = "verify";
pub(crate) const EXEC_DIR_KIND: &str = "exec";

/// Creates a directory that belongs to no run and is removed with this process.
pub(crate) fn create_temp_dir(data: &Path, kind: &str) -> Result<TemporaryTree, Error> {
    let name = format!("{}-", forge_files::owned_temp_name(kind));
    let made = tempfile::Builder::new().prefix(&name).tempdir_in(data);
    made.map(|made| TemporaryTree::new(made.keep()))
        .map_err(|error| Error::Output { path: data.display().to_string(), why: error.to_string() })
}

/// Returns the private directory for temporary files of a data directory.
fn temp_root(data: &Path) -> PathBuf {
    data.join("tmp")
}

/// Removes the remnants of sandboxes of dead processes: all that the backends know of, and their directories.
pub(crate) async fn prune(loaded: &ResolvedConfig) -> Vec<String> {
    let data = loaded.dirs.data.clone();
    let mut removed = match open_backends(loaded, &data) {
        Ok(boxes) => boxes.remove_stale().await,
        Err(_) => forge_sandbox::remove_stale_resources(&temp_root(&data))
            .into_iter()
            .map(|path| path.display().to_string())
            .collect(),
    };
    let folders = tokio::task::spawn_blocking(move || {
        let mut left = forge_files::remove_stale(&data, &[VERIFY_DIR_KIND, EXEC_DIR_KIND]);
        left.extend(crate::workspace::ephemeral_data_dir::remove_stale(&data));
        left
    });
    removed.extend(folders.await.unwrap_or_default().iter().map(|path| path.display().to_string()));
    removed
}

/// Opens the backends for a data directory.
pub(crate) fn open_backends(loaded: &ResolvedConfig, data: &Path) -> Result<Backends, Error> {
    open_backends_in(loaded, &data.join("runs"), data)
}

/// Opens the backends for a data directory with workspaces at another path.
pub(crate) fn open_backends_in(
    loaded: &ResolvedConfig,
    views: &Path,
    data: &Path,
) -> Result<Backends, Error> {
    let swaps = egress_rules(loaded)?.keys;
    let keys = swaps.iter().filter_map(|swap| {
        let key = loaded.secrets.egress_key(&swap.variable)?;
        Some((swap.variable.clone(), key.expose().to_owned()))
    });
    Ok(Backends::new(BackendOptions {
        workspaces: views.to_owned(),
        temporary: temp_root(data),
        runtime: loaded.dirs.runtime.clone(),
        locks: locks_dir(&loaded.dirs.data, data),
        // All data directories of a user, those in memory included, share the images.
        images: loaded.dirs.data.join("images"),
        protected: own_places::list_own_places(loaded, data),
        docker_host: loaded.settings.sandbox.docker_host.clone(),
        keys: keys.collect(),
        caches: loaded.settings.sandbox.writable_cache_mounts,
        ..BackendOptions::default()
    }))
}

/// Returns the directory of repository locks. Runs that are not kept share it with all others, because they change the
/// same repositories; if it can't be created, they have their own.
fn locks_dir(shared: &Path, data: &Path) -> PathBuf {
    let locks = shared.join("locks");
    let create = || std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&locks);
    if data == shared || create().is_ok() { locks } else { data.join("locks") }
}

fn egress_rules(loaded: &ResolvedConfig) -> Result<forge_types::EgressRules, Error> {
    loaded.settings.egress.parse_rules().map_err(|error| Error::Invalid { what: error.to_string() })
}

impl Project {
    /// Returns the sandbox specification of a new run, fixed for the run's lifetime.
    ///
    /// # Errors
    /// If the requested isolation is not available.
    pub async fn sandbox_spec(&self, repo: &Path, more_repos: &[PathBuf]) -> Result<SandboxSpec, Error> {
        let loaded = self.config();
        let mut spec = base_spec(loaded, repo, more_repos)?;
        self.refuse_own_places_of(&spec)?;
        spec.backend = self.choose_backend(&spec).await?;
        let backend = spec.backend.clone();
        Ok(fit_to_backend(loaded, spec, &backend))
    }

    /// Chooses the backend. `auto` is resolved when the run is created, so that a resumed run gets the same
    /// sandbox: native if this machine passes its probes, otherwise docker, otherwise podman. It never means
    /// less isolation than a named backend.
    async fn choose_backend(&self, spec: &SandboxSpec) -> Result<String, Error> {
        let loaded = self.config();
        let named = loaded.settings.sandbox.backend;
        if named == SandboxBackend::Process {
            return Ok(named.name().to_owned());
        }
        if named != SandboxBackend::Auto {
            self.require_trusted(spec, named.name()).await?;
            return Ok(named.name().to_owned());
        }
        let mut missing = Vec::new();
        for name in ["native", "docker", "podman"] {
            match self.require_trusted(spec, name).await {
                Ok(()) => return Ok(name.to_owned()),
                Err(Error::Sandbox(error)) => missing
                    .push(MissingPart { what: format!("{name}: {error}"), next_steps: error.next_steps() }),
                Err(error) => return Err(error),
            }
        }
        Err(forge_ports::sandbox::Error::Missing { missing }.into())
    }

    /// Requires that a backend isolates on this machine, by an earlier verdict or by probing now.
    async fn require_trusted(&self, spec: &SandboxSpec, backend: &str) -> Result<(), Error> {
        let loaded = self.config();
        let folder = verdicts_path(loaded);
        let version = self.backends().engine_version(backend).await?;
        let known = [ProbeScope::Required, ProbeScope::All].into_iter().find_map(|scope| {
            ProbeVerdict::load(&folder, &ProbeVerdict::cache_key(backend, &version, scope))
        });
        let verdict = match known {
            Some(verdict) => verdict,
            None => self.find_verdict(spec, backend, ProbeScope::Required).await?,
        };
        if verdict.required_passed {
            return Ok(());
        }
        let step = NextStep::ShowProbes { backend: backend.to_owned() };
        let missing = MissingPart::with_next_step(verdict.summary(), step);
        Err(forge_ports::sandbox::Error::missing(missing).into())
    }
}

impl Project {
    /// Probes a backend and stores the verdict.
    pub(crate) async fn find_verdict(
        &self,
        template: &SandboxSpec,
        backend: &str,
        scope: ProbeScope,
    ) -> Result<ProbeVerdict, Error> {
        let loaded = self.config();
        // The workspaces of the probes' sandboxes belong to no run.
        let scratch = create_temp_dir(self.forge().data_dir(), VERIFY_DIR_KIND)?;
        let boxes = open_backends(loaded, scratch.path())?;
        let template = fit_to_backend(loaded, template.clone(), backend);
        let verdict = run_probes(&boxes, backend, scope, &template).await?;
        let key = ProbeVerdict::cache_key(backend, &boxes.engine_version(backend).await?, scope);
        if let Err(error) = verdict.store(&verdicts_path(loaded), &key) {
            tracing::warn!(%error, "can't save the verdict on the sandbox; the next run probes again");
        }
        Ok(verdict)
    }
}

/// Adapts a specification to a backend. A container's image brings its own tools: the host's toolchains, built
/// for the host's libraries, are not offered there. Directories named in the settings are.
fn fit_to_backend(loaded: &ResolvedConfig, mut spec: SandboxSpec, backend: &str) -> SandboxSpec {
    if matches!(backend, "docker" | "podman") {
        let found = toolchains::find_toolchains(loaded.dirs.home.as_deref(), loaded.path.as_deref());
        spec.read_only.clone_from(&loaded.settings.sandbox.read_only_paths);
        spec.env.retain(|(name, _)| {
            name != "PATH" && !found.variables.iter().any(|(variable, _)| variable == name)
        });
    }
    spec
}

/// Returns the directory of verdicts on backends.
fn verdicts_path(loaded: &ResolvedConfig) -> PathBuf {
    loaded.dirs.data.join("verdicts")
}

/// Builds the specification from the settings; the backend is chosen later.
pub(crate) fn base_spec(
    loaded: &ResolvedConfig,
    repo: &Path,
    more_repos: &[PathBuf],
) -> Result<SandboxSpec, Error> {
    let settings = &loaded.settings.sandbox;
    let found = toolchains::find_toolchains(loaded.dirs.home.as_deref(), loaded.path.as_deref());
    let mut read_only = found.folders;
    read_only.extend(settings.read_only_paths.iter().cloned());
    let mut env = vec![("PATH".to_owned(), found.path)];
    env.extend(found.variables);
    // Compiled Python files would litter the repository and be reported as changed files.
    env.push(("PYTHONPYCACHEPREFIX".to_owned(), "/tmp/pycache".to_owned()));
    env.extend(loaded.passthrough.iter().cloned());
    Ok(SandboxSpec {
        backend: settings.backend.name().to_owned(),
        repo: repo.to_owned(),
        more_repos: check_distinct_repos(repo, more_repos)?,
        mode: loaded.settings.workspace.mode,
        apply: loaded.settings.workspace.apply,
        image: settings.image.clone(),
        network: network_policy(loaded)?,
        limits: SandboxLimits {
            memory_bytes: settings.memory_limit,
            pids: settings.pids,
            cpus: settings.cpu_limit,
            tmp_bytes: settings.tmp_size,
            command_ms: settings.timeout_seconds.min(600).saturating_mul(1000),
        },
        workspace: workspace_limits(loaded),
        reveal: loaded.settings.workspace.reveal.clone(),
        env,
        read_only,
        writable: settings.writable_paths.clone(),
        programs: allowed_programs(&loaded.settings.runtime.allowed_shell_commands),
        allow_unisolated: settings.allow_unisolated,
    })
}

/// Returns the allowed programs; an empty list means any program.
fn allowed_programs(allowed: &[String]) -> Option<Vec<String>> {
    (!allowed.is_empty()).then(|| allowed.to_vec())
}

/// Returns the workspace ceilings from the settings.
fn workspace_limits(loaded: &ResolvedConfig) -> WorkspaceLimits {
    let settings = &loaded.settings.workspace;
    WorkspaceLimits {
        paths: settings.max_paths,
        changed_paths: settings.max_changed_paths,
        path_bytes: settings.max_path_bytes,
        depth: settings.max_depth,
        file_bytes: settings.max_file_size,
    }
}

fn network_policy(loaded: &ResolvedConfig) -> Result<NetworkPolicy, Error> {
    let open = loaded.settings.sandbox.network_enabled || loaded.settings.egress.mode == EgressMode::DevOpen;
    if open {
        return Ok(NetworkPolicy::Host);
    }
    let rules = egress_rules(loaded)?;
    if loaded.settings.egress.mode == EgressMode::DenyAll || rules.allow.is_empty() {
        return Ok(NetworkPolicy::Off);
    }
    Ok(NetworkPolicy::Allow(rules))
}

/// Rejects nested repositories, which would be changed twice.
fn check_distinct_repos(repo: &Path, more: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut all = vec![repo.to_owned()];
    for path in more {
        if all.contains(path) {
            continue;
        }
        if let Some(other) = all.iter().find(|other| other.starts_with(path) || path.starts_with(other)) {
            let what = format!(
                "the repositories {} and {} are nested: name only the outer one",
                other.display(),
                path.display()
            );
            return Err(Error::Invalid { what });
        }
        all.push(path.clone());
    }
    all.remove(0);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_that_overlap_are_refused() {
        let path = |text: &str| PathBuf::from(text);
        let more = check_distinct_repos(&path("/a"), &[path("/b"), path("/a"), path("/b")]).unwrap();
        assert_eq!(more, [path("/b")]);
        let error = check_distinct_repos(&path("/a"), &[path("/a/b")]).unwrap_err();
        assert!(error.to_string().contains("are nested"), "{error}");
        assert!(check_distinct_repos(&path("/a/b"), &[path("/a")]).is_err());
        assert!(check_distinct_repos(&path("/a"), &[path("/ab")]).is_ok());
    }
}
