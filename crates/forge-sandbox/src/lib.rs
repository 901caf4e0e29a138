//! Sandbox backends: the boxes in which everything happens that a model asks for.
//!
//! `native` isolates through `forge-jail`; `process` isolates nothing and must be allowed by name. Walks of the
//! workspace run in the box by the same binary ([`helper_main`]).

mod capture;
mod folder;
mod process;
mod walk;

use forge_ports::sandbox::Error;
use forge_ports::{Sandbox, Workspace, async_trait};
use forge_types::{Layer, RunId, SandboxSpec};
pub use process::Process;
use std::sync::Arc;
pub use walk::WALKER;

/// All backends; the specification names the one that is used.
#[derive(Clone, Debug, Default)]
pub struct Backends {
    process: Process,
}

impl Backends {
    /// The backends of this machine.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Sandbox for Backends {
    async fn probe(&self) -> Vec<Layer> {
        self.process.probe().await
    }

    async fn open(&self, spec: &SandboxSpec, run: RunId) -> Result<Arc<dyn Workspace>, Error> {
        match spec.backend.as_str() {
            "process" => self.process.open(spec, run).await,
            other => {
                let missing = format!("there is no sandbox backend `{other}` in this build");
                Err(Error::Missing { missing: vec![missing] })
            }
        }
    }
}

/// Answers as one of the programs that run inside a box, if the binary was started under such a name.
///
/// Must be the first thing that `main` does. Gives the exit code to end with, or `None` for an ordinary start.
pub fn helper_main(arguments: &[String]) -> Option<i32> {
    let (name, rest) = arguments.split_first()?;
    (name == WALKER).then(|| walk::answer(rest.first().map(String::as_str)))
}
