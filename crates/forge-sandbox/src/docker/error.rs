//! What can go wrong between Forge and a container engine, in words a person can act on.

use super::EngineKind;
use forge_ports::sandbox;
use std::path::PathBuf;

/// A failure of the engine, or of a container in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody answers at the socket.
    #[error("{engine} is not running: nothing answers at {} ({why}); {}", socket.display(), engine.how_to_start())]
    NotRunning { engine: EngineKind, socket: PathBuf, why: String },
    /// The socket is there, but not for this user.
    #[error(
        "this user may not use {engine}: permission denied on {}; {}",
        socket.display(), engine.how_to_permit()
    )]
    NotPermitted { engine: EngineKind, socket: PathBuf },
    /// The engine is not on this machine.
    #[error(
        "the engine at {host} is not on this machine: a box needs to pass open files to its container, which only \
         works over a Unix socket on one kernel; use unix:///path/to/the.sock, or the native backend"
    )]
    Remote { host: String },
    /// The engine is there but the connection is not.
    #[error("{engine} at {} is too old: version {version} speaks API {api}, 1.41 (Docker Engine 20.10) is needed",
        socket.display())]
    TooOld { engine: EngineKind, socket: PathBuf, version: String, api: String },
    /// The image is not there.
    #[error("{engine} has no image `{image}`; {}", how_to_get_image(*.engine, .image))]
    NoImage { engine: EngineKind, image: String },
    /// The image is for another processor.
    #[error("the image `{image}` is for {has}, this machine is {needs}; get the {needs} variant of it")]
    Architecture { image: String, has: String, needs: String },
    /// No space is left.
    #[error(
        "{engine} has no space left on its disk while {doing}: {why}; free some (`{engine} system df` shows what)"
    )]
    Full { engine: EngineKind, doing: &'static str, why: String },
    /// The engine refused.
    #[error("{engine} failed while {doing}: {why}")]
    Refused { engine: EngineKind, doing: &'static str, why: String },
    /// The container ended before its init spoke.
    #[error("the container of the image `{image}` ended at once: {why}")]
    Ended { image: String, why: String },
    /// Something of this machine.
    #[error("{doing}: {source}")]
    Host { doing: String, source: std::io::Error },
    /// The box itself.
    #[error(transparent)]
    Jail(#[from] forge_jail::Error),
}

/// How to come by an image.
fn how_to_get_image(engine: EngineKind, image: &str) -> String {
    match image.strip_prefix("forge-sandbox:") {
        Some("python" | "node" | "full") => {
            format!("`forge sandbox build {}` makes it", image.trim_start_matches("forge-sandbox:"))
        }
        Some(_) => "`forge sandbox build` makes it".to_owned(),
        None => format!("`{engine} pull {image}` may get it (Forge pulls nothing by itself)"),
    }
}

impl Error {
    /// A failure of this machine.
    pub(crate) fn host_failure(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Host { doing, source }
    }

    /// What an engine said, sorted by what can be done about it.
    pub(crate) fn from_engine(
        engine: EngineKind,
        doing: &'static str,
        error: &bollard::errors::Error,
    ) -> Self {
        let why = match error {
            bollard::errors::Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
            other => other.to_string(),
        };
        let lower = why.to_lowercase();
        if lower.contains("no space left") || lower.contains("disk quota exceeded") {
            return Self::Full { engine, doing, why };
        }
        Self::Refused { engine, doing, why }
    }
}

impl From<Error> for sandbox::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Jail(error) => crate::jailed_workspace::to_port_error(error),
            Error::NotRunning { .. }
            | Error::NotPermitted { .. }
            | Error::Remote { .. }
            | Error::TooOld { .. }
            | Error::NoImage { .. }
            | Error::Architecture { .. } => Self::Missing { missing: vec![error.to_string()] },
            Error::Full { .. } | Error::Refused { .. } | Error::Ended { .. } | Error::Host { .. } => {
                Self::Startup { why: error.to_string() }
            }
        }
    }
}
