//! `forge apply`: applies a run's result to its repository.

use super::diff::diffstat_lines;
use super::stop_on_signal::stop_on_signal;
use crate::args::ApplyArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use forge_runtime::{MergePolicy, Project};
use forge_terminal::StdoutFormat;
use forge_terminal::text::{one_line, pluralize};
use forge_types::{ApplyConflict, ApplyOutcome, ChangeList, RunId};
use serde_json::json;

/// Applies a result and prints the outcome.
pub(crate) async fn apply(session: &Session, args: ApplyArgs) -> Result<CliExit, CliError> {
    let project = Project::open(session.load_read_only()?)?;
    let run = project.forge().find_run(&args.id).await?;
    let merge = if args.merge { MergePolicy::Clean } else { MergePolicy::No };
    let outcome = stop_on_signal(&project, run, &session.ui, project.apply(run, args.step, merge)).await?;
    if session.ui.format == StdoutFormat::Json {
        session.ui.print_json(&json!({ "run_id": run, "outcome": outcome }));
        return Ok(if is_done(&outcome) { CliExit::Done } else { CliExit::Failed });
    }
    print_outcome(session, run, &outcome, merge)
}

const fn is_done(outcome: &ApplyOutcome) -> bool {
    matches!(outcome, ApplyOutcome::Done { .. } | ApplyOutcome::Published { .. })
}

fn print_outcome(
    session: &Session,
    run: RunId,
    outcome: &ApplyOutcome,
    merge: MergePolicy,
) -> Result<CliExit, CliError> {
    let ui = &session.ui;
    match outcome {
        ApplyOutcome::Done { changed, omitted, merged, notes } => {
            let changed = ChangeList { omitted: *omitted, ..ChangeList::complete(changed.clone()) };
            if changed.is_empty() {
                ui.print_note("Nothing to apply: already in the repository");
            } else {
                ui.print_lines(diffstat_lines(&changed));
            }
            merged.iter().for_each(|path| ui.print_line(&format!("merged {}", one_line(path))));
            notes.iter().for_each(|note| ui.print_note(&one_line(note)));
            Ok(CliExit::Done)
        }
        ApplyOutcome::Published { branch, commit } => {
            ui.print_line(&format!("branch {branch} is at {commit}"));
            Ok(CliExit::Done)
        }
        ApplyOutcome::Conflicts { conflicts, omitted } => {
            let count = pluralize(conflicts.len() as u64 + omitted, "path", "paths");
            let error = CliError::failed(format!(
                "nothing was applied: {count} changed in the repository since the run began"
            ));
            Err(conflict_hints(run, conflicts, *omitted, merge).into_iter().fold(error, CliError::with_hint))
        }
        ApplyOutcome::Failed { why } => {
            Err(CliError::failed(format!("nothing was applied: {}", one_line(why))))
        }
    }
}

/// Returns hints that name the conflicts and the ways to resolve them.
fn conflict_hints(run: RunId, conflicts: &[ApplyConflict], omitted: u64, merge: MergePolicy) -> Vec<String> {
    /// Maximum number of paths named.
    const MAX_LISTED_CONFLICTS: usize = 20;
    let mut hints: Vec<String> = conflicts
        .iter()
        .take(MAX_LISTED_CONFLICTS)
        .map(|conflict| {
            let merges = if conflict.merges { " (merges without a conflict)" } else { "" };
            one_line(&format!("{conflict}{merges}"))
        })
        .collect();
    let more = (conflicts.len() - hints.len()) as u64 + omitted;
    if more > 0 {
        hints.push(format!("and {more} more"));
    }
    let mergeable = conflicts.iter().filter(|conflict| conflict.merges).count();
    if mergeable == conflicts.len() && merge == MergePolicy::No {
        hints.push(format!("all of them can be merged: forge apply {run} --merge"));
    } else {
        hints.push(format!(
            "restore those paths and apply again, or apply the changes by hand: forge diff {run} | git apply --3way"
        ));
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_is_offered_only_if_all_paths_merge() {
        let conflict =
            |path: &str, merges| ApplyConflict { path: path.into(), why: "changed".into(), merges };
        let run = RunId::from_u128(1);
        let hints = |all: &[ApplyConflict]| conflict_hints(run, all, 0, MergePolicy::No).join("\n");
        assert!(hints(&[conflict("a", true)]).contains("--merge"));
        let mixed = hints(&[conflict("a", true), conflict("b", false)]);
        assert!(!mixed.contains("--merge") && mixed.contains("git apply --3way"), "{mixed}");
    }
}
