//! `forge status`: shows the project and its latest runs, or one run.

use super::list;
use crate::args::StatusArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use forge_config::ResolvedConfig;
use forge_runtime::{Forge, RunDetails, RunQuery, RunRow};
use forge_terminal::{StdoutFormat, Ui, report, text};
use forge_types::{RunId, RunLimits, RunStatus, Timestamp};
use forge_wire::record::{RunRecord, RunSummary};
use serde::Serialize;
use std::path::Path;

/// Maximum number of runs in the project overview.
const MAX_RECENT_RUNS: usize = 5;

/// Prints the project, or a run.
pub(crate) async fn status(session: &Session, args: StatusArgs) -> Result<CliExit, CliError> {
    let loaded = session.load_read_only()?;
    let forge = Forge::open(&loaded.dirs.data)?;
    match args.id {
        Some(id) => {
            let run = forge.find_run(&id).await?;
            print_run(&session.ui, &forge.run_details(run).await?);
        }
        None => print_project(session, &loaded, &forge).await?,
    }
    Ok(CliExit::Done)
}

/// A run, as JSON.
#[derive(Debug, Serialize)]
struct OneRun<'a> {
    #[serde(flatten)]
    record: &'a RunRecord,
    limits: Option<RunLimits>,
    summary: &'a RunSummary,
    holder: Option<&'a str>,
    damage: Option<&'a str>,
    journal: &'a Path,
}

fn print_run(ui: &Ui, shown: &RunDetails) {
    let limits = shown.state.limits.or_else(|| shown.plan.as_ref().map(|plan| plan.shared.limits));
    if let Some(damage) = &shown.damage {
        let damage = text::sanitize_text(damage);
        ui.print_warning(&format!("the journal of this run is damaged: {damage}. Showing its readable part"));
    }
    if ui.format == StdoutFormat::Json {
        ui.print_json(&OneRun {
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
    let mut facts = report::run_facts(&shown.summary, limits.as_ref(), &journal, ui.hint_text);
    facts.extend(run_state_facts(shown));
    ui.print_lines(report::align_facts(&facts, ui.out_width(), ui.out));
    let answer = text::sanitize_text(shown.summary.answer.trim());
    if !answer.is_empty() && shown.state.status.is_terminal() {
        ui.print_line("");
        ui.print_line(&answer);
    }
}

/// Returns the isolation of a run, its worker, and the next command.
fn run_state_facts(shown: &RunDetails) -> Vec<(String, String)> {
    let (run, status) = (shown.state.run, shown.state.status);
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: String| facts.push((name.to_owned(), value));
    if let Some(sandbox) = &shown.summary.sandbox {
        let enforced = sandbox.layers.iter().filter(|l| l.state == forge_types::SandboxLayerState::Enforced);
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

/// A run in the project overview, as JSON (CLI-4).
#[derive(Debug, Serialize)]
struct RecentRun {
    run_id: RunId,
    pipeline: String,
    status: RunStatus,
    success: bool,
    duration_ms: u64,
    agent_count: u32,
    timestamp: Timestamp,
}

/// Totals in the project overview, as JSON (CLI-4).
#[derive(Debug, Serialize)]
struct ProjectStats {
    total_runs: usize,
    total_deployments: usize,
    success_rate: Option<f64>,
    total_feedback: usize,
}

/// The project overview, as JSON (CLI-4).
#[derive(Debug, Serialize)]
struct ProjectOverview {
    project_name: String,
    language: Option<&'static str>,
    deploy_target: Option<String>,
    recent_runs: Vec<RecentRun>,
    stats: ProjectStats,
}

async fn print_project(session: &Session, loaded: &ResolvedConfig, forge: &Forge) -> Result<(), CliError> {
    let folder = session.cwd.canonicalize().unwrap_or_else(|_| session.cwd.clone());
    let repo = Some(folder.display().to_string());
    let rows = forge.list_runs(RunQuery { repo, ..RunQuery::default() }).await?;
    let project = project_overview(loaded, &folder, &rows);
    let ui = &session.ui;
    if ui.format == StdoutFormat::Json {
        ui.print_json(&project);
        return Ok(());
    }
    let language = project.language.unwrap_or("unknown");
    let completed = rows.iter().filter(|row| row.status == RunStatus::Completed).count();
    let facts = [
        ("project", text::one_line(&project.project_name)),
        ("language", language.to_owned()),
        ("runs", format!("{}, {completed} completed", text::pluralize(rows.len(), "run", "runs"))),
    ];
    let facts: Vec<_> = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    ui.print_lines(report::align_facts(&facts, ui.out_width(), ui.out));
    if rows.is_empty() {
        ui.print_note("No runs here yet. Start one: forge run \"Fix the failing test\"");
        return Ok(());
    }
    ui.print_line("");
    let recent = &rows[..rows.len().min(MAX_RECENT_RUNS)];
    ui.print_lines(list::run_table(recent, ui.out_width()));
    Ok(())
}

fn project_overview(loaded: &ResolvedConfig, folder: &Path, rows: &[RunRow]) -> ProjectOverview {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let detected = super::init::detect_language(folder);
    let finished = rows.iter().filter(|row| row.status.is_terminal()).count();
    let completed = rows.iter().filter(|row| row.status == RunStatus::Completed).count();
    #[allow(clippy::cast_precision_loss, reason = "a ratio for display")]
    let success_rate = (finished > 0).then(|| completed as f64 / finished as f64);
    ProjectOverview {
        project_name: loaded.settings.name.clone().or(name).unwrap_or_default(),
        language: loaded.settings.language.or(detected).map(forge_config::ProjectLanguage::name),
        deploy_target: None,
        recent_runs: rows.iter().take(MAX_RECENT_RUNS).map(recent_run).collect(),
        stats: ProjectStats { total_runs: rows.len(), total_deployments: 0, success_rate, total_feedback: 0 },
    }
}

fn recent_run(row: &RunRow) -> RecentRun {
    RecentRun {
        run_id: row.run,
        pipeline: row.pipeline.clone(),
        status: row.status,
        success: row.status == RunStatus::Completed,
        duration_ms: row.duration_ms,
        agent_count: 1,
        timestamp: row.created_at,
    }
}
