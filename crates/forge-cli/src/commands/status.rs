//! `forge status`: the project and its latest runs, or everything about one run.

use super::list;
use crate::args::Status;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::ui::{Format, Ui, report, text};
use forge_config::Loaded;
use forge_runtime::{Forge, RunQuery, RunRow, Shown};
use forge_types::record::{RunRecord, Summary};
use forge_types::{Limits, RunId, RunStatus, Timestamp};
use serde::Serialize;
use std::path::Path;

/// Runs of the project view.
const RECENT: usize = 5;

/// Prints the project, or a run.
pub(crate) async fn status(session: &Session, args: Status) -> Result<Exit, CliError> {
    let loaded = session.load_to_read()?;
    let forge = Forge::open(&loaded)?;
    match args.id {
        Some(id) => {
            let run = forge.find(&id).await?;
            one(&session.ui, &forge.show(run).await?);
        }
        None => project(session, &loaded, &forge).await?,
    }
    Ok(Exit::Done)
}

/// A run, as JSON.
#[derive(Debug, Serialize)]
struct OneRun<'a> {
    #[serde(flatten)]
    record: &'a RunRecord,
    limits: Option<Limits>,
    summary: &'a Summary,
    holder: Option<&'a str>,
    damage: Option<&'a str>,
    journal: &'a Path,
}

fn one(ui: &Ui, shown: &Shown) {
    let limits = shown.state.limits.or_else(|| shown.plan.as_ref().map(|plan| plan.limits));
    if let Some(damage) = &shown.damage {
        let damage = text::clean(damage);
        ui.warn(&format!("the journal of this run is damaged: {damage}. What can be read is shown"));
    }
    if ui.format == Format::Json {
        ui.json(&OneRun {
            record: &shown.record,
            limits,
            summary: &shown.summary,
            holder: shown.holder.as_deref(),
            damage: shown.damage.as_deref(),
            journal: &shown.folder,
        });
        return;
    }
    let journal = shown.folder.display().to_string();
    let mut facts = report::facts(&shown.summary, limits.as_ref(), &journal);
    facts.extend(standing(shown));
    ui.lines(&report::aligned(&facts, ui.out_width(), ui.out));
    let answer = text::clean(shown.summary.answer.trim());
    if !answer.is_empty() && shown.state.status.is_terminal() {
        ui.line("");
        ui.line(&answer);
    }
}

/// Who works on it, how it is isolated, and what can be done next.
fn standing(shown: &Shown) -> Vec<(String, String)> {
    let (run, status) = (shown.state.run, shown.state.status);
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: String| facts.push((name.to_owned(), value));
    if let Some(sandbox) = &shown.summary.sandbox {
        let enforced = sandbox.layers.iter().filter(|l| l.state == forge_types::LayerState::Enforced);
        let names: Vec<_> = enforced.map(|layer| text::one_line(&layer.name)).collect();
        if !names.is_empty() {
            fact("isolation", names.join(", "));
        }
    }
    match (&shown.holder, status) {
        (Some(holder), _) => fact("worker", text::one_line(holder)),
        (None, RunStatus::Running | RunStatus::Pending) => {
            fact("worker", "none: its process ended".to_owned());
            if shown.damage.is_none() {
                fact("next", format!("forge resume {run}"));
            }
        }
        (None, RunStatus::Waiting) if shown.damage.is_none() => fact("next", format!("forge resume {run}")),
        (None, _) => {}
    }
    facts
}

/// A run of the project view, as JSON (CLI-4).
#[derive(Debug, Serialize)]
struct Recent {
    run_id: RunId,
    pipeline: String,
    status: RunStatus,
    success: bool,
    duration_ms: u64,
    agent_count: u32,
    timestamp: Timestamp,
}

/// Totals of the project view, as JSON (CLI-4).
#[derive(Debug, Serialize)]
struct Stats {
    total_runs: usize,
    total_deployments: usize,
    success_rate: Option<f64>,
    total_feedback: usize,
}

/// The project view, as JSON (CLI-4).
#[derive(Debug, Serialize)]
struct Project {
    project_name: String,
    language: Option<&'static str>,
    deploy_target: Option<String>,
    recent_runs: Vec<Recent>,
    stats: Stats,
}

async fn project(session: &Session, loaded: &Loaded, forge: &Forge) -> Result<(), CliError> {
    let folder = session.cwd.canonicalize().unwrap_or_else(|_| session.cwd.clone());
    let repo = Some(folder.display().to_string());
    let rows = forge.list(RunQuery { repo, ..RunQuery::default() }).await?;
    let project = view(loaded, &folder, &rows);
    let ui = &session.ui;
    if ui.format == Format::Json {
        ui.json(&project);
        return Ok(());
    }
    let language = project.language.unwrap_or("unknown");
    let rate =
        project.stats.success_rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.0} %", rate * 100.0));
    let facts = [
        ("project", text::one_line(&project.project_name)),
        ("language", language.to_owned()),
        ("runs", format!("{} ({rate} of the finished ones completed)", project.stats.total_runs)),
    ];
    let facts: Vec<_> = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    ui.lines(&report::aligned(&facts, ui.out_width(), ui.out));
    if rows.is_empty() {
        ui.note("No runs here yet. Make one: forge run \"what is to be done\"");
        return Ok(());
    }
    ui.line("");
    let recent = &rows[..rows.len().min(RECENT)];
    ui.lines(&list::table(recent, ui.out_width()));
    Ok(())
}

fn view(loaded: &Loaded, folder: &Path, rows: &[RunRow]) -> Project {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let detected = forge_config::init::detect_language(folder);
    let finished = rows.iter().filter(|row| row.status.is_terminal()).count();
    let completed = rows.iter().filter(|row| row.status == RunStatus::Completed).count();
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    let success_rate = (finished > 0).then(|| completed as f64 / finished as f64);
    Project {
        project_name: loaded.settings.name.clone().or(name).unwrap_or_default(),
        language: loaded.settings.language.or(detected).map(forge_config::Language::name),
        deploy_target: None,
        recent_runs: rows.iter().take(RECENT).map(recent).collect(),
        stats: Stats { total_runs: rows.len(), total_deployments: 0, success_rate, total_feedback: 0 },
    }
}

fn recent(row: &RunRow) -> Recent {
    Recent {
        run_id: row.run,
        pipeline: row.pipeline.clone(),
        status: row.status,
        success: row.status == RunStatus::Completed,
        duration_ms: row.duration_ms,
        agent_count: 1,
        timestamp: row.created_at,
    }
}
