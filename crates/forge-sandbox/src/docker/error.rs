//! Errors between Forge and a container engine, in terms that a user can act on.

use super::EngineKind;
use forge_ports::sandbox::{self, MissingPart};
use forge_types::NextStep;
use std::path::PathBuf;

/// A failure of the engine, or of a container in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No process answers at the socket.
    #[error("{engine} is not running: nothing answers at {} ({why}); {}", socket.display(), engine.how_to_start())]
    NotRunning { engine: EngineKind, socket: PathBuf, why: String },
    /// The socket exists, but this user may not use it.
    #[error(
        "this user may not use {engine}: permission denied on {}; {}",
        socket.display(), engine.how_to_permit()
    )]
    NotPermitted { engine: EngineKind, socket: PathBuf },
    /// The engine is not on this machine.
    #[error(
        "the engine at {host} is not on this machine: a sandbox needs to pass open files to its container, which only \
         works over a Unix socket on one kernel; use unix:///path/to/the.sock, or the native backend"
    )]
    Remote { host: String },
    /// The engine is too old.
    #[error("{engine} at {} is too old: version {version} speaks API {api}, 1.41 (Docker Engine 20.10) is needed",
        socket.display())]
    TooOld { engine: EngineKind, socket: PathBuf, version: String, api: String },
    /// The image was not found.
    #[error("{engine} has no image `{image}`{}", image_hint(*.engine, .image))]
    NoImage { engine: EngineKind, image: String },
    /// The image is for another processor.
    #[error("the image `{image}` is for {has}, this machine is {needs}; get the {needs} variant of it")]
    Architecture { image: String, has: String, needs: String },
    /// The engine's disk is full.
    #[error(
        "{engine} has no space left on its disk while {doing}: {why}; free some (`{engine} system df` shows what)"
    )]
    Full { engine: EngineKind, doing: &'static str, why: String },
    /// The engine refused a request.
    #[error("{engine} failed while {doing}: {why}")]
    Refused { engine: EngineKind, doing: &'static str, why: String },
    /// The container ended before its init connected.
    #[error("the container of the image `{image}` exited immediately: {why}")]
    Ended { image: String, why: String },
    /// An operation on this machine failed.
    #[error("{doing}: {source}")]
    Host { doing: String, source: std::io::Error },
    /// The sandbox itself failed.
    #[error(transparent)]
    Jail(#[from] forge_jail::Error),
}

fn image_hint(engine: EngineKind, image: &str) -> String {
    match built_image(image) {
        Some(_) => String::new(),
        None => format!("; try `{engine} pull {image}` (Forge never pulls images itself)"),
    }
}

/// Returns the name under which Forge builds an image, if it is one of those.
fn built_image(image: &str) -> Option<&str> {
    image.strip_prefix("forge-sandbox:")
}

impl Error {
    /// Returns the error as a missing part, with the step that provides it.
    pub(crate) fn into_missing_part(self) -> MissingPart {
        let built = match &self {
            Self::NoImage { image, .. } => built_image(image),
            _ => None,
        };
        let step = built.map(|name| NextStep::BuildImage {
            image: matches!(name, "python" | "node" | "full").then(|| name.to_owned()),
        });
        MissingPart { what: self.to_string(), next_steps: step.into_iter().collect() }
    }

    /// Returns the conversion of a failure of this machine.
    pub(crate) fn host_failure(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Host { doing, source }
    }

    /// Classifies an engine's error by its remedy.
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
            | Error::Architecture { .. } => Self::missing(error.into_missing_part()),
            Error::Full { .. } | Error::Refused { .. } | Error::Ended { .. } | Error::Host { .. } => {
                Self::Startup { why: error.to_string() }
            }
        }
    }
}
