//! Summary of a run: the frame at its end, and the same facts in `forge status`.

use crate::HintFormatter;
use crate::style::Style;
use crate::text::{
    error_with_hints, format_count, format_dollars, format_duration, limit_text, one_line, pad_right,
    pluralize, sanitize_text, text_columns, truncate_text, wrap_words,
};
use forge_types::{
    ApplyOutcome, EgressVerdict, NetworkPolicy, RunLimits, RunStatus, SandboxLayerState, WorkspaceMode,
};
use forge_wire::record::{RunSummary, SummarySandbox};

/// Maximum number of masked paths that a report names.
const MAX_MASKED_SHOWN: usize = 20;

/// Maximum width of the frame.
const MAX_FRAME_COLUMNS: usize = 100;
/// Maximum number of files named; the rest are counted.
const MAX_LISTED_FILES: usize = 8;

/// Returns the facts of a run as names and values, in display order.
pub fn run_facts(
    summary: &RunSummary,
    limits: Option<&RunLimits>,
    journal: &str,
    hint_text: HintFormatter,
) -> Vec<(String, String)> {
    let mut facts = vec![
        ("run", summary.run_id.to_string()),
        ("status", status_text(summary)),
        ("task", truncate_text(&one_line(&summary.task), 300)),
    ];
    if let Some(error) = &summary.error {
        facts.push(("error", sanitize_text(&error_with_hints(error, hint_text))));
    }
    let of = |max: String| if max.is_empty() { max } else { format!(" of {max}") };
    let max = |show: fn(&RunLimits) -> String| of(limits.map(show).unwrap_or_default());
    facts.push((
        "duration",
        format_duration(summary.duration_ms) + &max(|l| format_duration(l.max_duration_ms)),
    ));
    facts.push(("turns", summary.iterations.to_string() + &max(|l| l.max_iterations.to_string())));
    facts.push(("model", one_line(&format!("{}/{}", summary.provider, summary.model))));
    let estimated = if summary.tokens_known { "" } else { " (partly estimated)" };
    facts.push((
        "tokens",
        format!(
            "{} in, {} out{estimated}",
            format_count(summary.tokens.input),
            format_count(summary.tokens.output)
        ),
    ));
    facts.push(("cost", cost_text(summary, limits)));
    facts.extend(savings_fact(summary));
    facts.push(("tool calls", tool_call_counts(summary)));
    facts.push(("files", file_list(&summary.files_modified, summary.files_omitted)));
    facts.extend(workspace_facts(summary));
    if let Some(sandbox) = &summary.sandbox {
        facts.extend(sandbox_facts(sandbox));
    }
    facts.push(("journal", journal.to_owned()));
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn cost_text(summary: &RunSummary, limits: Option<&RunLimits>) -> String {
    let cost = format_dollars(summary.cost_usd);
    let limit = limits.map(|limits| format_dollars(limits.max_cost.as_usd()));
    if summary.cost_known {
        return cost + &limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
    }
    let known =
        if summary.cost_usd == 0.0 { "unknown".to_owned() } else { cost + " plus calls of unknown price" };
    known + &limit.map(|limit| format!(" (limit {limit})")).unwrap_or_default()
}

fn status_text(summary: &RunSummary) -> String {
    match (summary.status, summary.limit, summary.waiting_for) {
        (RunStatus::TimedOut, Some(limit), _) => format!("stopped: {}", limit_text(limit)),
        (RunStatus::Waiting, _, Some(what)) => format!("waiting ({})", what.name()),
        (status, ..) => status.name().to_owned(),
    }
}

/// Compares the cost with that of the reference model, unless the difference is negligible.
fn savings_fact(summary: &RunSummary) -> Option<(&'static str, String)> {
    let savings = summary.savings.as_ref().filter(|savings| savings.saved_usd.abs() >= 0.000_5)?;
    let (word, amount) =
        if savings.saved_usd < 0.0 { ("more", -savings.saved_usd) } else { ("less", savings.saved_usd) };
    let there = format_dollars(savings.reference_usd);
    Some((
        "compared",
        format!(
            "about {} {word} than the same tokens at {} ({there})",
            format_dollars(amount),
            savings.reference
        ),
    ))
}

fn tool_call_counts(summary: &RunSummary) -> String {
    match summary.tools.calls {
        0 => "none".to_owned(),
        calls => format!("{calls}, {} on average", format_duration(summary.tools.average_ms)),
    }
}

fn file_list(files: &[String], omitted: u64) -> String {
    let count = files.len() as u64 + omitted;
    if count == 0 {
        return "none changed".to_owned();
    }
    let named: Vec<_> = files.iter().take(MAX_LISTED_FILES).map(|path| one_line(path)).collect();
    let rest = match count - named.len() as u64 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{rest} ({} changed)", named.join(", "), pluralize(count, "file", "files"))
}

/// Returns whether the result is in the repository, and how to apply it.
fn workspace_facts(summary: &RunSummary) -> Vec<(&'static str, String)> {
    let workspace = &summary.workspace;
    let run = summary.run_id;
    let text = match &workspace.apply {
        Some(ApplyOutcome::Published { branch, commit }) => {
            format!("on branch {} ({})", one_line(branch), truncate_text(commit, 12))
        }
        Some(ApplyOutcome::Conflicts { conflicts, omitted }) => format!(
            "NOT applied: {} changed in the repository meanwhile; try: forge apply {run}",
            pluralize(conflicts.len() as u64 + omitted, "path", "paths")
        ),
        Some(ApplyOutcome::Failed { why }) => {
            format!("NOT applied: {}; try: forge apply {run}", one_line(why))
        }
        _ if workspace.mode == WorkspaceMode::Inplace => "the repository was edited directly".to_owned(),
        _ if workspace.pending => {
            format!("not in the repository: forge diff {run}, forge apply {run}")
        }
        Some(ApplyOutcome::Done { merged, .. }) if !merged.is_empty() => {
            format!("applied, {} merged", pluralize(merged.len(), "path", "paths"))
        }
        Some(ApplyOutcome::Done { .. }) => "applied to the repository".to_owned(),
        None => return Vec::new(),
    };
    let notes = match &workspace.apply {
        Some(ApplyOutcome::Done { notes, .. }) => notes.as_slice(),
        _ => &[],
    };
    [("result", text)].into_iter().chain(notes.iter().map(|note| ("", one_line(note)))).collect()
}

fn sandbox_facts(sandbox: &SummarySandbox) -> Vec<(&'static str, String)> {
    let image = sandbox.image.as_deref().map_or_else(String::new, |image| format!(", image {image}"));
    let view = match sandbox.view.as_str() {
        "" => String::new(),
        "direct" => " (in place)".to_owned(),
        view => format!(" ({view})"),
    };
    let mut facts = vec![("sandbox", one_line(&format!("{}{view}{image}", sandbox.backend)))];
    let network = match &sandbox.network {
        NetworkPolicy::Off => "none".to_owned(),
        NetworkPolicy::Host => "host".to_owned(),
        NetworkPolicy::Allow(rules) => format!("only {}", rules.allow.join(", ")),
    };
    facts.push(("network", one_line(&network)));
    facts.extend(sandbox.egress.iter().map(|record| {
        let verdict = match record.verdict {
            EgressVerdict::Allowed => "reached",
            EgressVerdict::Refused => "refused",
            EgressVerdict::Failed => "not reached",
        };
        let times = if record.count == 1 { String::new() } else { format!(" ({} times)", record.count) };
        ("", one_line(&format!("{verdict} {}:{}{times}", record.host, record.port)))
    }));
    for layer in &sandbox.layers {
        let text = match &layer.state {
            SandboxLayerState::Enforced => continue,
            SandboxLayerState::Degraded(how) => format!("{} is weaker: {}", layer.name, one_line(how)),
            SandboxLayerState::Absent(why) => format!("{} is not enforced: {}", layer.name, one_line(why)),
        };
        facts.push(("", text));
    }
    facts.extend(sandbox.warnings.iter().map(|warning| ("", one_line(warning))));
    if !sandbox.masked.is_empty() {
        let shown = sandbox.masked.iter().take(MAX_MASKED_SHOWN).map(|path| one_line(path));
        let mut names = shown.collect::<Vec<_>>().join(", ");
        let more = sandbox.masked.len().saturating_sub(MAX_MASKED_SHOWN);
        if more > 0 {
            names.push_str(&format!(" and {more} more; `forge status --json` lists them"));
        }
        facts.push(("masked", names));
    }
    facts
}

/// Formats facts as aligned lines of at most `width` columns.
pub fn align_facts(facts: &[(String, String)], width: usize, style: Style) -> Vec<String> {
    let names = facts.iter().map(|(name, _)| text_columns(name)).max().unwrap_or(0) + 2;
    let room = width.saturating_sub(names).max(20);
    let mut lines = Vec::new();
    for (name, value) in facts {
        let mut name = name.as_str();
        for line in wrap_words(value, room) {
            lines.push(format!("{}{line}", style.dim(&pad_right(name, names))));
            name = "";
        }
    }
    lines
}

/// Formats the frame at the end of a run.
pub fn summary_frame(
    summary: &RunSummary,
    limits: Option<&RunLimits>,
    journal: &str,
    width: usize,
    style: Style,
    hint_text: HintFormatter,
) -> Vec<String> {
    let width = width.clamp(40, MAX_FRAME_COLUMNS);
    let inner = width - 4;
    let title = status_text(summary);
    let painted = match summary.status {
        RunStatus::Completed => style.green(&title),
        RunStatus::Waiting => style.yellow(&title),
        _ => style.red(&title),
    };
    let rule = "─".repeat(width.saturating_sub(text_columns(&title) + 5));
    let mut lines = vec![format!("╭─ {painted} {rule}╮")];
    let facts = run_facts(summary, limits, journal, hint_text);
    // Align without colours: padding would count the escape codes.
    let plain = align_facts(&facts, inner, Style::new(crate::style::ColorMode::Off));
    lines.extend(plain.iter().map(|line| format!("│ {} │", pad_right(line, inner))));
    lines.push(format!("╰{}╯", "─".repeat(width - 2)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style::ColorMode;
    use forge_types::{RunId, RunState, SandboxLayer, Timestamp};
    use forge_wire::record::{ToolTotals, run_summary};

    fn sample() -> RunSummary {
        let mut sample = run_summary(&RunState::new(RunId::from_u128(1)), None, Timestamp::default());
        sample.status = RunStatus::Completed;
        sample.task = "Fix the \x1b[2Jtest".to_owned();
        sample.tools = ToolTotals { calls: 3, average_ms: 120, shell_commands: 1 };
        sample.files_modified = (0..10).map(|n| format!("f{n}")).collect();
        sample.sandbox = Some(SummarySandbox {
            backend: "native".to_owned(),
            layers: vec![
                SandboxLayer { name: "seccomp".into(), state: SandboxLayerState::Enforced, remedy: None },
                SandboxLayer {
                    name: "cgroup".into(),
                    state: SandboxLayerState::Absent("not delegated".into()),
                    remedy: None,
                },
            ],
            masked: (0..25).map(|n| format!("{n}/.env")).collect(),
            view: "overlay".to_owned(),
            ..SummarySandbox::default()
        });
        sample
    }

    #[test]
    fn the_box_is_closed_on_all_sides_and_names_what_matters() {
        let lines = summary_frame(
            &sample(),
            Some(&RunLimits::default()),
            "/data/runs/1",
            70,
            Style::new(ColorMode::Off),
            |_| String::new(),
        );
        assert!(lines.iter().all(|line| text_columns(line) == 70), "{lines:#?}");
        let text = lines.join("\n");
        for part in [
            "╭─ completed",
            "Fix the ␛[2Jtest",
            "3, 120 ms on average",
            "f7 and 2 more (10 files",
            "cgroup is not enforced: not delegated",
            "19/.env and 5 more;",
            "/data/runs/1",
            "0 of 25",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("seccomp"), "a layer in force is not worth a line");
    }
}
