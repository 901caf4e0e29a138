//! `forge sandbox`: commands for the sandboxes of runs.

mod build;
mod exec;
mod verify;

use crate::args::{SandboxAction, SandboxArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use forge_terminal::StdoutFormat;
use serde_json::json;
use std::path::Path;

/// Runs the action.
pub(crate) async fn sandbox(session: &Session, args: SandboxArgs) -> Result<CliExit, CliError> {
    match args.action {
        SandboxAction::Exec(exec) => exec::exec(session, exec).await,
        SandboxAction::Verify(verify) => verify::verify(session, verify).await,
        SandboxAction::Build(build) => build::build(session, build).await,
        SandboxAction::Prune => prune_stale(session).await,
    }
}

/// Removes stale resources and names them.
async fn prune_stale(session: &Session) -> Result<CliExit, CliError> {
    let loaded = session.load_silently(Path::new("."), &crate::session::ConfigOverrides::default())?;
    let removed = forge_runtime::prune_sandboxes(&loaded).await;
    match session.ui.format {
        StdoutFormat::Json => session.ui.print_json(&json!({ "removed": removed })),
        StdoutFormat::Text if removed.is_empty() => session.ui.print_line("Nothing to remove"),
        StdoutFormat::Text => {
            removed.iter().for_each(|what| session.ui.print_line(&format!("removed {what}")))
        }
    }
    Ok(CliExit::Done)
}
