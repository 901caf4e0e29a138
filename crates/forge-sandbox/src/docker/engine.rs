//! Communication with an engine: finding its socket, agreeing on a version, and querying the limits it can enforce.

use super::EngineKind;
use super::error::Error;
use bollard::{ClientVersion, Docker};
use forge_jail::{IsolationLayer, JailLayerState, LayerReport};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Docker Engine 20.10, the oldest that gives containers their own control group namespace.
const MIN_API_VERSION: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };
/// Newest version that this code was written for.
const MAX_API_VERSION: ClientVersion = ClientVersion { major_version: 1, minor_version: 47 };
/// Longest time to wait for a reply of the engine, in seconds.
const REQUEST_TIMEOUT_SECS: u64 = 120;

/// A client of a running engine.
#[derive(Clone, Debug)]
pub(crate) struct EngineClient {
    pub(crate) api: Docker,
    pub(crate) kind: EngineKind,
    pub(crate) socket: PathBuf,
    /// Versions of the engine and its components.
    pub(crate) version: String,
    /// Processor architecture of the engine, as images name it (`amd64`).
    pub(crate) architecture: String,
    /// Limits that the engine can or cannot enforce.
    pub(crate) ceilings: Vec<LayerReport>,
    /// Whether the engine runs without root, in its own user namespace.
    pub(crate) rootless: bool,
}

impl EngineClient {
    /// Connects to the engine at `host` (`unix:///path`, or a plain path), or at the usual places of its kind.
    pub(crate) async fn connect(kind: EngineKind, host: Option<&str>) -> Result<Self, Error> {
        let socket = socket_path(kind, host)?;
        check_reachable(kind, &socket)?;
        let path = socket.to_string_lossy();
        let refused =
            |error: bollard::errors::Error| Error::from_engine(kind, "reporting its version", &error);
        let api =
            Docker::connect_with_unix(&path, REQUEST_TIMEOUT_SECS, &MAX_API_VERSION).map_err(refused)?;
        let said = api.version().await.map_err(refused)?;
        let api_version = said.api_version.unwrap_or_default();
        let version = said.version.unwrap_or_default();
        if parse_version(&api_version)
            .is_none_or(|v| v < (MIN_API_VERSION.major_version, MIN_API_VERSION.minor_version))
        {
            return Err(Error::TooOld { engine: kind, socket, version, api: api_version });
        }
        let api = api.negotiate_version().await.map_err(refused)?;
        let info = api.info().await.map_err(|e| Error::from_engine(kind, "reporting its limits", &e))?;
        // A podman behind Docker's socket is still podman.
        let podman = said.components.iter().flatten().any(|c| c.name.to_lowercase().contains("podman"));
        let options = info.security_options.clone().unwrap_or_default();
        let parts = said.components.iter().flatten().map(|c| format!("; {} {}", c.name, c.version));
        let version = parts.fold(version, |all, part| all + &part);
        Ok(Self {
            api,
            kind: if podman { EngineKind::Podman } else { kind },
            socket,
            version,
            architecture: image_architecture(&said.arch.unwrap_or_default()),
            ceilings: limit_reports(&info),
            rootless: options.iter().any(|o| o.contains("rootless")),
        })
    }
}

/// Removes a container and waits for it, without a runtime: for drops. Uses the API as Docker documents it (`DELETE
/// /containers/{id}`); a container that is already gone is not an error.
pub(crate) fn remove_container_blocking(socket: &Path, id: &str) -> std::io::Result<()> {
    const REPLY_TIMEOUT: Duration = Duration::from_secs(20);
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    let path = format!(
        "/v{}.{}/containers/{id}?force=1&v=1",
        MIN_API_VERSION.major_version, MIN_API_VERSION.minor_version
    );
    write!(stream, "DELETE {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(())
}

/// Returns the socket of an engine.
fn socket_path(kind: EngineKind, host: Option<&str>) -> Result<PathBuf, Error> {
    let Some(host) = host.map(str::trim).filter(|host| !host.is_empty()) else {
        let places = kind.socket_paths();
        let first = places.first().cloned().unwrap_or_default();
        return Ok(places.into_iter().find(|place| place.exists()).unwrap_or(first));
    };
    let path = host.strip_prefix("unix://").unwrap_or(host);
    if path.starts_with('/') { Ok(path.into()) } else { Err(Error::Remote { host: host.to_owned() }) }
}

/// Checks that a process listens on the socket, before anything else is tried.
fn check_reachable(engine: EngineKind, socket: &Path) -> Result<(), Error> {
    let socket = socket.to_owned();
    match UnixStream::connect(&socket) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(Error::NotPermitted { engine, socket })
        }
        Err(error) => Err(Error::NotRunning { engine, socket, why: error.to_string() }),
    }
}

fn parse_version(text: &str) -> Option<(usize, usize)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

/// Converts the kernel's name of an architecture to that of images.
pub(crate) fn image_architecture(name: &str) -> String {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .to_owned()
}

/// Returns the limits that the engine reports. Those that it does not mention are assumed to be supported.
fn limit_reports(info: &bollard::models::SystemInfo) -> Vec<LayerReport> {
    let has = |claim: Option<bool>| claim != Some(false);
    let how = "the engine's control group".to_owned();
    let remedy = "let the engine use the memory, pids and cpu controllers".to_owned();
    let report = |layer, state| LayerReport { layer, state, remedy: None };
    let absent = |layer, why: &str| LayerReport {
        layer,
        state: JailLayerState::Missing { why: why.to_owned() },
        remedy: Some(remedy.clone()),
    };
    let memory = if !has(info.memory_limit) {
        LayerReport {
            layer: IsolationLayer::Memory,
            state: JailLayerState::Degraded {
                why: "the engine cannot limit memory: no hard ceiling, only limits per process and a supervisor that adds them up"
                    .to_owned(),
            },
            remedy: Some(remedy.clone()),
        }
    } else if !has(info.swap_limit) {
        let why = "the engine cannot limit swap: swapped-out memory does not count".to_owned();
        report(IsolationLayer::Memory, JailLayerState::Degraded { why })
    } else {
        report(IsolationLayer::Memory, JailLayerState::Enforced { how: how.clone() })
    };
    let pids = if has(info.pids_limit) {
        report(IsolationLayer::Pids, JailLayerState::Enforced { how: how.clone() })
    } else {
        absent(IsolationLayer::Pids, "the engine cannot limit processes")
    };
    let cpu = if has(info.cpu_cfs_quota) {
        report(IsolationLayer::Cpu, JailLayerState::Enforced { how })
    } else {
        absent(IsolationLayer::Cpu, "the engine cannot limit processor time")
    };
    vec![memory, pids, cpu]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_of_this_machine_are_taken() {
        let at = |host: &str| socket_path(EngineKind::Docker, Some(host)).map_err(|e| e.to_string());
        assert_eq!(at("unix:///run/x.sock"), Ok(PathBuf::from("/run/x.sock")));
        assert_eq!(at("/run/x.sock"), Ok(PathBuf::from("/run/x.sock")));
        for remote in ["tcp://10.0.0.1:2375", "ssh://me@host", "http://x", "npipe:////./pipe/docker"] {
            assert!(at(remote).is_err_and(|e| e.contains("not on this machine")), "{remote}");
        }
        assert!(socket_path(EngineKind::Docker, Some(" ")).is_ok());
    }

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(parse_version("1.41"), Some((1, 41)));
        assert!(parse_version("1.9") < parse_version("1.41"));
        assert_eq!(parse_version("x"), None);
    }

    #[test]
    fn what_an_engine_cannot_enforce_is_said() {
        let info = bollard::models::SystemInfo {
            memory_limit: Some(true),
            swap_limit: Some(false),
            pids_limit: Some(false),
            cpu_cfs_quota: None,
            ..Default::default()
        };
        let states: Vec<_> = limit_reports(&info).into_iter().map(|l| l.state).collect();
        assert!(matches!(states[0], JailLayerState::Degraded { .. }));
        assert!(matches!(states[1], JailLayerState::Missing { .. }));
        assert!(matches!(states[2], JailLayerState::Enforced { .. }));
    }
}
