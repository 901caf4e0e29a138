//! `forge diff`: shows the changes of a run.

use crate::args::DiffArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use forge_runtime::{Project, RunChanges};
use forge_terminal::StdoutFormat;
use forge_terminal::style::Style;
use forge_terminal::table::{self, fixed_column, flexible_column};
use forge_terminal::text::{one_line, pluralize, sanitize_text};
use forge_types::{ChangeKind, WorkspaceChange, WorkspaceHistory};
use serde_json::json;
use std::io::Write as _;

/// Prints a diff, its paths, or the list of steps.
pub(crate) async fn diff(session: &Session, args: DiffArgs) -> Result<CliExit, CliError> {
    let project = Project::open(session.load_read_only()?)?;
    let run = project.forge().find_run(&args.id).await?;
    if args.steps {
        let history = project.forge().run_details(run).await?.state.history;
        print_steps(session, &history);
        return Ok(CliExit::Done);
    }
    let changes = project.changes(run, args.step).await?;
    let ui = &session.ui;
    match (ui.format, args.stat) {
        (StdoutFormat::Json, _) => ui.print_json(&json!({
            "run_id": run, "step": args.step, "files": changes.files, "diff": changes.diff
        })),
        (StdoutFormat::Text, _) if changes.files.is_empty() => ui.print_note("No changes"),
        (StdoutFormat::Text, true) => ui.print_lines(&diffstat_lines(&changes.files)),
        (StdoutFormat::Text, false) if ui.out_is_terminal => ui.print_lines(&colored_diff(&changes, ui.out)),
        // A file or a pipe gets the exact input for `git apply`.
        (StdoutFormat::Text, false) => std::io::stdout().lock().write_all(changes.diff.as_bytes())?,
    }
    Ok(CliExit::Done)
}

fn print_steps(session: &Session, history: &WorkspaceHistory) {
    let ui = &session.ui;
    if ui.format == StdoutFormat::Json {
        let steps: Vec<_> = history
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| {
                json!({
                    "step": index + 1, "tool": step.tool, "arguments": step.about, "snapshot": step.snapshot,
                    "at": step.at, "changed": step_changed(history, index)
                })
            })
            .collect();
        ui.print_json(&json!({ "steps": steps, "at_step": history.current_step() }));
        return;
    }
    if history.steps.is_empty() {
        ui.print_note("No step of this run could write");
        return;
    }
    let here = history.current_step();
    let rows: Vec<_> = history
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let n = index + 1;
            let mark = if here.and_then(|n| usize::try_from(n).ok()) == Some(n) { "*" } else { " " };
            let wrote = if step_changed(history, index) { "yes" } else { "no" };
            vec![format!("{mark}{n}"), one_line(&step.tool), wrote.to_owned(), one_line(&step.about)]
        })
        .collect();
    let head =
        [fixed_column("STEP"), fixed_column("TOOL"), fixed_column("CHANGED"), flexible_column("ARGUMENTS")];
    ui.print_lines(&table::render_table(&head, &rows, ui.out_width()));
}

/// Returns whether a step changed the workspace.
fn step_changed(history: &WorkspaceHistory, index: usize) -> bool {
    let before = match index.checked_sub(1) {
        Some(before) => history.steps.get(before).map(|step| step.snapshot),
        None => history.beginning,
    };
    before != history.steps.get(index).map(|step| step.snapshot)
}

/// Formats one line per path, and a total.
pub(crate) fn diffstat_lines(files: &[WorkspaceChange]) -> Vec<String> {
    let mut lines: Vec<_> = files.iter().map(diffstat_line).collect();
    let sum = |count: fn(&WorkspaceChange) -> Option<u64>| files.iter().filter_map(count).sum::<u64>();
    lines.push(format!(
        "{}, +{} -{}",
        pluralize(files.len(), "path", "paths"),
        sum(|file| file.added),
        sum(|file| file.removed)
    ));
    lines
}

fn diffstat_line(file: &WorkspaceChange) -> String {
    let kind = match file.kind {
        ChangeKind::Added => "A",
        ChangeKind::Modified => "M",
        ChangeKind::Mode => "m",
        ChangeKind::Retyped => "T",
        ChangeKind::Removed => "D",
    };
    let lines = match (file.added, file.removed) {
        (None, None) => String::new(),
        (added, removed) => format!("  +{} -{}", added.unwrap_or(0), removed.unwrap_or(0)),
    };
    format!("{kind} {}{lines}", one_line(&file.path))
}

fn colored_diff(changes: &RunChanges, style: Style) -> Vec<String> {
    let paint = |line: &str| {
        let line = sanitize_text(line);
        match line.as_bytes() {
            [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] | [b'd', b'i', b'f', b'f', ..] => {
                style.bold(&line)
            }
            [b'+', ..] => style.green(&line),
            [b'-', ..] => style.red(&line),
            [b'@', ..] => style.cyan(&line),
            _ => line,
        }
    };
    changes.diff.lines().map(paint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_listed_with_their_lines() {
        let file =
            |path: &str, kind, added, removed| WorkspaceChange { path: path.into(), kind, added, removed };
        let files = [
            file("a\u{1b}[2J", ChangeKind::Modified, Some(2), Some(1)),
            file("b.png", ChangeKind::Added, None, None),
        ];
        assert_eq!(diffstat_lines(&files), ["M a␛[2J  +2 -1", "A b.png", "2 paths, +2 -1"]);
    }
}
