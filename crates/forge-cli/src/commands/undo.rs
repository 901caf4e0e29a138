//! `forge undo` and `forge redo`: restore a run's workspace to an earlier step, and reverse that.

use super::diff::diffstat_lines;
use super::stop_on_signal::stop_on_signal;
use crate::args::{RunIdArg, UndoArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use forge_runtime::{Project, UndoOutcome};
use forge_terminal::StdoutFormat;
use serde_json::json;

/// Restores the workspace to a step.
pub(crate) async fn undo(session: &Session, args: UndoArgs) -> Result<CliExit, CliError> {
    let project = Project::open(session.load_read_only()?)?;
    let run = project.forge().find_run(&args.id).await?;
    let moved = stop_on_signal(&project, run, &session.ui, project.undo(run, args.to)).await?;
    print_undo_outcome(session, run, &moved);
    Ok(CliExit::Done)
}

/// Reverses the last undo.
pub(crate) async fn redo(session: &Session, args: RunIdArg) -> Result<CliExit, CliError> {
    let project = Project::open(session.load_read_only()?)?;
    let run = project.forge().find_run(&args.id).await?;
    let moved = stop_on_signal(&project, run, &session.ui, project.redo(run)).await?;
    print_undo_outcome(session, run, &moved);
    Ok(CliExit::Done)
}

fn print_undo_outcome(session: &Session, run: forge_types::RunId, moved: &UndoOutcome) {
    let ui = &session.ui;
    if ui.format == StdoutFormat::Json {
        let mut report = json!({
            "run_id": run, "step": moved.step, "files": moved.files.files, "repository": moved.repository
        });
        if moved.files.omitted > 0 {
            report["files_omitted"] = moved.files.omitted.into();
        }
        ui.print_json(&report);
        return;
    }
    let place = match moved.step {
        Some(0) => "its beginning".to_owned(),
        Some(step) => format!("step {step}"),
        None => "its last state".to_owned(),
    };
    ui.print_line(&format!("Restored the workspace of run {run} to {place}"));
    if moved.repository {
        ui.print_line("Updated the repository, which held a result of the run");
    } else {
        ui.print_note(&format!("The repository is unchanged; apply this state with `forge apply {run}`"));
    }
    if moved.files.is_empty() {
        ui.print_note("No files changed");
    } else {
        ui.print_lines(diffstat_lines(&moved.files));
    }
}
