//! `forge diff`: shows the changes of a run.

use crate::args::DiffArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use forge_runtime::Project;
use forge_terminal::StdoutFormat;
use forge_terminal::Ui;
use forge_terminal::style::Style;
use forge_terminal::table::{self, fixed_column, flexible_column};
use forge_terminal::text::{one_line, pluralize, sanitize_text};
use forge_types::{ChangeKind, ChangeList, RunId, WorkspaceChange, WorkspaceHistory};
use serde::Serialize;
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
    let ui = &session.ui;
    match (ui.format, args.stat) {
        (StdoutFormat::Json, _) => {
            let files = project.changed_paths(run, args.step).await?;
            let diff = project.diff(run, args.step).await?;
            ui.print_json(&DiffReport { diff: &diff, files: &files, run_id: run, step: args.step });
        }
        (StdoutFormat::Text, true) => {
            let files = ChangeList::complete(project.changed_paths(run, args.step).await?);
            if files.is_empty() { print_no_changes(ui) } else { ui.print_lines(diffstat_lines(&files)) }
        }
        (StdoutFormat::Text, false) => print_diff(ui, &project.diff(run, args.step).await?)?,
    }
    Ok(CliExit::Done)
}

/// The changes of a run as JSON.
#[derive(Serialize)]
struct DiffReport<'a> {
    diff: &'a str,
    files: &'a [WorkspaceChange],
    run_id: RunId,
    step: Option<u32>,
}

fn print_no_changes(ui: &Ui) {
    ui.print_note("No changes");
}

fn print_diff(ui: &Ui, diff: &str) -> std::io::Result<()> {
    if diff.is_empty() {
        print_no_changes(ui);
    } else if ui.out_is_terminal {
        ui.print_lines(colored_lines(diff, ui.out));
    } else {
        // A file or a pipe gets the exact input for `git apply`.
        std::io::stdout().lock().write_all(diff.as_bytes())?;
    }
    Ok(())
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
    ui.print_lines(table::render_table(&head, &rows, ui.out_width()));
}

/// Returns whether a step changed the workspace.
fn step_changed(history: &WorkspaceHistory, index: usize) -> bool {
    let before = match index.checked_sub(1) {
        Some(before) => history.steps.get(before).map(|step| step.snapshot),
        None => history.beginning,
    };
    before != history.steps.get(index).map(|step| step.snapshot)
}

/// Formats one line per listed path, the number of the others, and a total.
pub(crate) fn diffstat_lines(list: &ChangeList) -> impl Iterator<Item = String> {
    let others =
        (list.omitted > 0).then(|| format!("… and {} more", pluralize(list.omitted, "path", "paths")));
    let total = format!("{}, +{} -{}", pluralize(list.count(), "path", "paths"), list.added, list.removed);
    list.files.iter().map(diffstat_line).chain(others).chain([total])
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

fn colored_lines(diff: &str, style: Style) -> impl Iterator<Item = String> {
    let paint = move |line: &str| {
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
    diff.lines().map(paint)
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
        let mut list = ChangeList::complete(files.to_vec());
        let lines: Vec<String> = diffstat_lines(&list).collect();
        assert_eq!(lines, ["M a␛[2J  +2 -1", "A b.png", "2 paths, +2 -1"]);
        list.files.pop();
        list.omitted = 1;
        let lines: Vec<String> = diffstat_lines(&list).collect();
        assert_eq!(lines, ["M a␛[2J  +2 -1", "… and 1 path more", "2 paths, +2 -1"]);
    }
}
