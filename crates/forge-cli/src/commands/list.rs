//! `forge list`: lists runs, newest first.

use crate::args::ListArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use forge_runtime::{Forge, RunQuery, RunRow};
use forge_terminal::StdoutFormat;
use forge_terminal::table::{self, fixed_column, flexible_column};
use forge_terminal::text::{format_count, format_dollars, format_duration, one_line};
use forge_types::{LimitKind, RunStatus, Timestamp, WaitingFor};
use serde::Serialize;

/// A run in a list, as JSON.
#[derive(Debug, Serialize)]
struct RunListEntry<'a> {
    run_id: forge_types::RunId,
    task: &'a str,
    repo: &'a str,
    pipeline: &'a str,
    status: RunStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<WaitingFor>,
    phase: &'a str,
    provider: &'a str,
    model: &'a str,
    iterations: u32,
    tokens_in: u64,
    tokens_out: u64,
    cost_usd: f64,
    duration_ms: u64,
    limit: Option<LimitKind>,
    error_kind: Option<&'a str>,
    error_message: Option<&'a str>,
    created_at: Timestamp,
    updated_at: Timestamp,
    completed_at: Option<Timestamp>,
}

impl<'a> From<&'a RunRow> for RunListEntry<'a> {
    fn from(row: &'a RunRow) -> Self {
        Self {
            run_id: row.run,
            task: &row.task,
            repo: &row.repo,
            pipeline: &row.pipeline,
            status: row.status,
            waiting_for: row.waiting_for,
            phase: &row.phase,
            provider: &row.provider,
            model: &row.model,
            iterations: row.iterations,
            tokens_in: row.tokens_in,
            tokens_out: row.tokens_out,
            cost_usd: row.cost.as_usd(),
            duration_ms: row.duration_ms,
            limit: row.limit,
            error_kind: row.error_kind.as_deref(),
            error_message: row.error_message.as_deref(),
            created_at: row.created_at,
            updated_at: row.updated_at,
            completed_at: row.completed_at,
        }
    }
}

/// Prints the list.
pub(crate) async fn list(session: &Session, args: ListArgs) -> Result<CliExit, CliError> {
    let loaded = session.load_read_only()?;
    let repo = args.repo.map(|repo| {
        let path = session.cwd.join(repo);
        path.canonicalize().unwrap_or(path).display().to_string()
    });
    let status = args.status.as_deref().and_then(|status| status.parse().ok());
    let query = RunQuery { status, repo, limit: args.limit, ..RunQuery::default() };
    let rows = Forge::open(&loaded.dirs.data)?.list_runs(query).await?;
    let ui = &session.ui;
    if ui.format == StdoutFormat::Json {
        ui.print_json(&rows.iter().map(RunListEntry::from).collect::<Vec<_>>());
        return Ok(CliExit::Done);
    }
    if rows.is_empty() {
        ui.print_note("There are no runs yet. Start one: forge run \"Fix the failing test\"");
        return Ok(CliExit::Done);
    }
    ui.print_lines(run_table(&rows, ui.out_width()));
    Ok(CliExit::Done)
}

/// Formats rows as lines of at most `width` columns.
pub(crate) fn run_table(rows: &[RunRow], width: usize) -> Vec<String> {
    let head = [
        fixed_column("RUN"),
        fixed_column("STATUS"),
        fixed_column("CREATED"),
        fixed_column("TURNS"),
        fixed_column("TOKENS"),
        fixed_column("COST"),
        fixed_column("TIME"),
        flexible_column("MODEL"),
        flexible_column("TASK"),
    ];
    let cells: Vec<_> = rows.iter().map(run_cells).collect();
    table::render_table(&head, &cells, width)
}

fn run_cells(row: &RunRow) -> Vec<String> {
    let created = row.created_at.to_string();
    vec![
        short_run_id(row),
        row.waiting_for.map_or_else(|| row.status.to_string(), |what| format!("waiting ({})", what.name())),
        created.chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect(),
        row.iterations.to_string(),
        format_count(row.tokens_in + row.tokens_out),
        format_dollars(row.cost.as_usd()),
        format_duration(row.duration_ms),
        one_line(&row.model),
        one_line(&row.task),
    ]
}

/// Returns the prefix of the id that tells runs apart: its time in milliseconds and a few random digits.
fn short_run_id(row: &RunRow) -> String {
    row.run.to_string().chars().take(18).collect()
}
