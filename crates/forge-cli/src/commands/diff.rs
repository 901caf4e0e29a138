//! `forge diff`: what a run changed.

use crate::args::Diff;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::ui::Format;
use crate::ui::style::Style;
use crate::ui::table::{self, fixed, flexible};
use crate::ui::text::{clean, one_line, plural};
use forge_runtime::{Changes, Forge};
use forge_types::{ChangeKind, FileChange, History};
use serde_json::json;
use std::io::Write as _;

/// Shows a diff, the paths of it, or the steps that there are.
pub(crate) async fn diff(session: &Session, args: Diff) -> Result<Exit, CliError> {
    let forge = Forge::open(&session.load_to_read()?)?;
    let run = forge.find(&args.id).await?;
    if args.steps {
        let history = forge.show(run).await?.state.history;
        steps(session, &history);
        return Ok(Exit::Done);
    }
    let changes = forge.changes(run, args.step).await?;
    let ui = &session.ui;
    match (ui.format, args.stat) {
        (Format::Json, _) => ui.json(&json!({
            "run_id": run, "step": args.step, "files": changes.files, "diff": changes.diff
        })),
        (Format::Text, _) if changes.files.is_empty() => ui.note("nothing changed"),
        (Format::Text, true) => ui.lines(&stat(&changes.files)),
        (Format::Text, false) if ui.out_is_terminal => ui.lines(&coloured(&changes, ui.out)),
        // A file or a program gets exactly what `git apply` takes.
        (Format::Text, false) => std::io::stdout().lock().write_all(changes.diff.as_bytes())?,
    }
    Ok(Exit::Done)
}

fn steps(session: &Session, history: &History) {
    let ui = &session.ui;
    if ui.format == Format::Json {
        let steps: Vec<_> = history
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| {
                json!({
                    "step": index + 1, "tool": step.tool, "arguments": step.about, "snapshot": step.snapshot,
                    "at": step.at, "changed": changed(history, index)
                })
            })
            .collect();
        ui.json(&json!({ "steps": steps, "at_step": history.current_step() }));
        return;
    }
    if history.steps.is_empty() {
        ui.note("no step of this run may have written");
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
            let wrote = if changed(history, index) { "yes" } else { "no" };
            vec![format!("{mark}{n}"), one_line(&step.tool), wrote.to_owned(), one_line(&step.about)]
        })
        .collect();
    let head = [fixed("STEP"), fixed("TOOL"), fixed("CHANGED"), flexible("ARGUMENTS")];
    ui.lines(&table::lines(&head, &rows, ui.out_width()));
}

/// Whether a step left the workspace otherwise than it found it.
fn changed(history: &History, index: usize) -> bool {
    let before = match index.checked_sub(1) {
        Some(before) => history.steps.get(before).map(|step| step.snapshot),
        None => history.beginning,
    };
    before != history.steps.get(index).map(|step| step.snapshot)
}

/// One line per path, and a sum.
pub(crate) fn stat(files: &[FileChange]) -> Vec<String> {
    let mut lines: Vec<_> = files.iter().map(line).collect();
    let sum = |count: fn(&FileChange) -> Option<u64>| files.iter().filter_map(count).sum::<u64>();
    lines.push(format!(
        "{}, +{} -{}",
        plural(files.len(), "path", "paths"),
        sum(|file| file.added),
        sum(|file| file.removed)
    ));
    lines
}

fn line(file: &FileChange) -> String {
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

fn coloured(changes: &Changes, style: Style) -> Vec<String> {
    let paint = |line: &str| {
        let line = clean(line);
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
        let file = |path: &str, kind, added, removed| FileChange { path: path.into(), kind, added, removed };
        let files = [
            file("a\u{1b}[2J", ChangeKind::Modified, Some(2), Some(1)),
            file("b.png", ChangeKind::Added, None, None),
        ];
        assert_eq!(stat(&files), ["M a␛[2J  +2 -1", "A b.png", "2 paths, +2 -1"]);
    }
}
