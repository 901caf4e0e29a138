//! The parts of a jail's specification that native sandboxes and containers share: binds, limits, network and egress.

use crate::BackendOptions;
use crate::egress::{self, EgressKey};
use crate::jailed_workspace::DrainEgressFn;
use crate::stale_temps;
use forge_jail::{HostBind, Jail, JailSpec, MissingSource, NetworkAccess, RawBytes};
use forge_ports::sandbox::Error;
use forge_types::{EgressRules, ErrorClass, NetworkPolicy, SandboxReport, SandboxSpec, Timestamp};
use forge_workspace::RunWorkspace;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// Applies everything in the specification except the workspace and the egress.
pub(crate) fn apply_spec(
    options: &BackendOptions,
    jail: &mut JailSpec,
    spec: &SandboxSpec,
    report: &mut SandboxReport,
) {
    jail.binds.extend(spec.read_only.iter().flat_map(|folder| toolchain_binds(folder)));
    let bind = |path: &PathBuf| HostBind {
        examined: None,
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

pub(crate) fn set_env(jail: &mut JailSpec, name: &str, value: &str) {
    let (name, value) = (RawBytes::from(name), RawBytes::from(value));
    jail.env.retain(|(known, _)| *known != name);
    jail.env.push((name, value));
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
            examined: None,
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
        examined: None,
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
