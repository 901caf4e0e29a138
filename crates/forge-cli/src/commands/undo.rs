//! `forge undo` and `forge redo`: a run's workspace goes back to an earlier step, and forth again.

use super::diff::stat;
use super::stoppable::stoppable;
use crate::args::{RunId, Undo};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::ui::Format;
use forge_runtime::{Forge, Moved};
use serde_json::json;

/// Back to a step.
pub(crate) async fn undo(session: &Session, args: Undo) -> Result<Exit, CliError> {
    let forge = Forge::open(&session.load_to_read()?)?;
    let run = forge.find(&args.id).await?;
    let moved = stoppable(&forge, run, &session.ui, forge.undo(run, args.to)).await?;
    say(session, run, &moved);
    Ok(Exit::Done)
}

/// What the last undo took away comes back.
pub(crate) async fn redo(session: &Session, args: RunId) -> Result<Exit, CliError> {
    let forge = Forge::open(&session.load_to_read()?)?;
    let run = forge.find(&args.id).await?;
    let moved = stoppable(&forge, run, &session.ui, forge.redo(run)).await?;
    say(session, run, &moved);
    Ok(Exit::Done)
}

fn say(session: &Session, run: forge_types::RunId, moved: &Moved) {
    let ui = &session.ui;
    if ui.format == Format::Json {
        ui.json(&json!({
            "run_id": run, "step": moved.step, "files": moved.files, "repository": moved.repository
        }));
        return;
    }
    let place = match moved.step {
        Some(0) => "its beginning".to_owned(),
        Some(step) => format!("step {step}"),
        None => "its last state".to_owned(),
    };
    ui.line(&format!("the workspace of run {run} stands at {place}"));
    if moved.repository {
        ui.line("the repository, which held a result of the run, went along");
    } else {
        ui.note(&format!("the repository is as it was; `forge apply {run}` brings this state into it"));
    }
    if moved.files.is_empty() {
        ui.note("nothing differs from where it stood before");
    } else {
        ui.lines(&stat(&moved.files));
    }
}
