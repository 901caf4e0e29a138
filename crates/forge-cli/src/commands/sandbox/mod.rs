//! `forge sandbox`: the boxes that runs work in.

mod build;
mod exec;
mod verify;

use crate::args::{Sandbox, SandboxAction};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::ui::Format;
use serde_json::json;
use std::path::Path;

/// Does what was asked for.
pub(crate) async fn sandbox(session: &Session, args: Sandbox) -> Result<Exit, CliError> {
    match args.action {
        SandboxAction::Exec(exec) => exec::exec(session, exec).await,
        SandboxAction::Verify(verify) => verify::verify(session, verify).await,
        SandboxAction::Build(build) => build::build(session, build).await,
        SandboxAction::Prune => prune(session).await,
    }
}

/// Removes what was left behind and names it.
async fn prune(session: &Session) -> Result<Exit, CliError> {
    let loaded = session.load_silently(Path::new("."), &crate::session::Overlay::default())?;
    let removed = forge_runtime::prune_sandboxes(&loaded).await;
    match session.ui.format {
        Format::Json => session.ui.json(&json!({ "removed": removed })),
        Format::Text if removed.is_empty() => session.ui.line("nothing was left behind"),
        Format::Text => removed.iter().for_each(|what| session.ui.line(&format!("removed {what}"))),
    }
    Ok(Exit::Done)
}
