//! `forge sandbox`: looking after boxes.

use crate::args::{Sandbox, SandboxAction};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::ui::Format;
use serde_json::json;

/// Removes what was left behind and names it.
pub(crate) fn sandbox(session: &Session, args: &Sandbox) -> Result<Exit, CliError> {
    let SandboxAction::Prune = args.action;
    let removed = forge_runtime::prune_sandboxes();
    match session.ui.format {
        Format::Json => session.ui.json(&json!({ "removed": removed })),
        Format::Text if removed.is_empty() => session.ui.line("nothing was left behind"),
        Format::Text => {
            removed.iter().for_each(|path| session.ui.line(&format!("removed {}", path.display())))
        }
    }
    Ok(Exit::Done)
}
