//! `forge undo` and `forge redo`: a run's workspace goes back to an earlier step, and forth again.

use super::diff::diffstat_lines;
use super::stop_on_signal::stop_on_signal;
use crate::args::{RunIdArg, UndoArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use crate::ui::StdoutFormat;
use forge_runtime::{Forge, UndoOutcome};
use serde_json::json;

/// Back to a step.
pub(crate) async fn undo(session: &Session, args: UndoArgs) -> Result<CliExit, CliError> {
    let forge = Forge::open(&session.load_read_only()?)?;
    let run = forge.find_run(&args.id).await?;
    let moved = stop_on_signal(&forge, run, &session.ui, forge.undo(run, args.to)).await?;
    print_undo_outcome(session, run, &moved);
    Ok(CliExit::Done)
}

/// What the last undo took away comes back.
pub(crate) async fn redo(session: &Session, args: RunIdArg) -> Result<CliExit, CliError> {
    let forge = Forge::open(&session.load_read_only()?)?;
    let run = forge.find_run(&args.id).await?;
    let moved = stop_on_signal(&forge, run, &session.ui, forge.redo(run)).await?;
    print_undo_outcome(session, run, &moved);
    Ok(CliExit::Done)
}

fn print_undo_outcome(session: &Session, run: forge_types::RunId, moved: &UndoOutcome) {
    let ui = &session.ui;
    if ui.format == StdoutFormat::Json {
        ui.print_json(&json!({
            "run_id": run, "step": moved.step, "files": moved.files, "repository": moved.repository
        }));
        return;
    }
    let place = match moved.step {
        Some(0) => "its beginning".to_owned(),
        Some(step) => format!("step {step}"),
        None => "its last state".to_owned(),
    };
    ui.print_line(&format!("the workspace of run {run} stands at {place}"));
    if moved.repository {
        ui.print_line("the repository, which held a result of the run, went along");
    } else {
        ui.print_note(&format!("the repository is as it was; `forge apply {run}` brings this state into it"));
    }
    if moved.files.is_empty() {
        ui.print_note("nothing differs from where it stood before");
    } else {
        ui.print_lines(&diffstat_lines(&moved.files));
    }
}
