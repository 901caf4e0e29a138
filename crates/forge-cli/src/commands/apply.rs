//! `forge apply`: a run's result goes into its repository.

use super::diff::stat;
use super::stoppable::stoppable;
use crate::args::Apply;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::ui::Format;
use crate::ui::text::{one_line, plural};
use forge_runtime::{Forge, Merge};
use forge_types::{ApplyOutcome, Conflict, RunId};
use serde_json::json;

/// Applies, and says what came of it.
pub(crate) async fn apply(session: &Session, args: Apply) -> Result<Exit, CliError> {
    let forge = Forge::open(&session.load_to_read()?)?;
    let run = forge.find(&args.id).await?;
    let merge = if args.merge { Merge::Clean } else { Merge::No };
    let outcome = stoppable(&forge, run, &session.ui, forge.apply(run, args.step, merge)).await?;
    if session.ui.format == Format::Json {
        session.ui.json(&json!({ "run_id": run, "outcome": outcome }));
        return Ok(if is_done(&outcome) { Exit::Done } else { Exit::Failed });
    }
    say(session, run, &outcome, merge)
}

const fn is_done(outcome: &ApplyOutcome) -> bool {
    matches!(outcome, ApplyOutcome::Done { .. } | ApplyOutcome::Published { .. })
}

fn say(session: &Session, run: RunId, outcome: &ApplyOutcome, merge: Merge) -> Result<Exit, CliError> {
    let ui = &session.ui;
    match outcome {
        ApplyOutcome::Done { changed, merged, notes } => {
            if changed.is_empty() {
                ui.note("the repository holds it already");
            } else {
                ui.lines(&stat(changed));
            }
            merged.iter().for_each(|path| ui.line(&format!("merged {}", one_line(path))));
            notes.iter().for_each(|note| ui.note(&one_line(note)));
            Ok(Exit::Done)
        }
        ApplyOutcome::Published { branch, commit } => {
            ui.line(&format!("branch {branch} is at {commit}"));
            Ok(Exit::Done)
        }
        ApplyOutcome::Conflicts { conflicts } => {
            let count = plural(conflicts.len(), "path", "paths");
            let error = CliError::failed(format!(
                "nothing was applied: {count} changed in the repository since the run began"
            ));
            Err(conflict_hints(run, conflicts, merge).into_iter().fold(error, CliError::hint))
        }
        ApplyOutcome::Failed { why } => {
            Err(CliError::failed(format!("nothing was applied: {}", one_line(why))))
        }
    }
}

/// What is in the way, and the ways out.
pub(crate) fn conflict_hints(run: RunId, conflicts: &[Conflict], merge: Merge) -> Vec<String> {
    /// Paths named before the rest is counted.
    const NAMED: usize = 20;
    let mut hints: Vec<String> = conflicts
        .iter()
        .take(NAMED)
        .map(|conflict| {
            let merges = if conflict.merges { " (merges without a conflict)" } else { "" };
            one_line(&format!("{conflict}{merges}"))
        })
        .collect();
    if conflicts.len() > NAMED {
        hints.push(format!("and {} more", conflicts.len() - NAMED));
    }
    let mergeable = conflicts.iter().filter(|conflict| conflict.merges).count();
    if mergeable == conflicts.len() && merge == Merge::No {
        hints.push(format!("all of them merge: forge apply {run} --merge"));
    } else {
        hints.push(format!(
            "put those paths back and apply again, or take the changes by hand: forge diff {run} | git apply --3way"
        ));
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_is_offered_only_if_all_paths_merge() {
        let conflict = |path: &str, merges| Conflict { path: path.into(), why: "changed".into(), merges };
        let run = RunId::from_u128(1);
        let hints = |all: &[Conflict]| conflict_hints(run, all, Merge::No).join("\n");
        assert!(hints(&[conflict("a", true)]).contains("--merge"));
        let mixed = hints(&[conflict("a", true), conflict("b", false)]);
        assert!(!mixed.contains("--merge") && mixed.contains("git apply --3way"), "{mixed}");
    }
}
