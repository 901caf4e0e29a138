//! The table of runs: the columns that lists show, and the end of each journal.

use forge_ports::journal::{RunQuery, RunRow};
use forge_types::{LimitKind, Money, RunId, RunStatus, Seq, Timestamp, WaitingFor};
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter, types::Value};
use std::str::FromStr;

/// A run's number, which the other tables use, and the last event of its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalHead {
    /// The run's number.
    pub(crate) no: i64,
    /// The position of the run's last event.
    pub(crate) last: Seq,
}

/// Converts an integer to SQLite's type. Values that do not fit are far above anything counted here.
pub(crate) fn to_sqlite_int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn read_count(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

/// Returns the number and the end of a run's journal, if the run exists.
pub(crate) fn journal_head(connection: &Connection, run: RunId) -> rusqlite::Result<Option<JournalHead>> {
    connection
        .prepare_cached("SELECT no, last_seq FROM runs WHERE id = ?1")?
        .query_row([run.to_string()], |row| {
            Ok(JournalHead { no: row.get(0)?, last: Seq(u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0)) })
        })
        .optional()
}

/// Writes the columns that lists show and the end of the run's journal; returns the run's number.
pub(crate) fn upsert_run(
    connection: &Connection,
    head: Option<JournalHead>,
    last: Seq,
    row: &RunRow,
) -> rusqlite::Result<i64> {
    match head {
        Some(head) => update(connection, head.no, last, row),
        None => insert(connection, last, row),
    }
}

/// Numbers the run above all others, the deleted ones included: their numbers may still be referred to.
fn insert(connection: &Connection, last: Seq, row: &RunRow) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO runs (no, id, last_seq, task, repo, pipeline, status, waiting_for, phase, provider, \
             model, iterations, tokens_in, tokens_out, cost_pico_usd, duration_ms, limit_kind, error_kind, \
             error_message, created_at, updated_at, completed_at) \
             VALUES (1 + max(ifnull((SELECT max(no) FROM runs), 0), ifnull((SELECT run FROM deleted_numbers), 0)), \
             ?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21)",
        )?
        .insert(params![
            row.run.to_string(),
            to_sqlite_int(last.0),
            row.task,
            row.repo,
            row.pipeline,
            row.status.name(),
            row.waiting_for.map(WaitingFor::name),
            row.phase,
            row.provider,
            row.model,
            row.iterations,
            to_sqlite_int(row.tokens_in),
            to_sqlite_int(row.tokens_out),
            row.cost.0,
            to_sqlite_int(row.duration_ms),
            row.limit.map(LimitKind::name),
            row.error_kind,
            row.error_message,
            row.created_at.as_micros(),
            row.updated_at.as_micros(),
            row.completed_at.map(Timestamp::as_micros),
        ])
}

/// Does not touch `created_at`, so that only the index on the status is updated.
fn update(connection: &Connection, no: i64, last: Seq, row: &RunRow) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "UPDATE runs SET last_seq = ?2, task = ?3, repo = ?4, pipeline = ?5, status = ?6, waiting_for = ?7, \
             phase = ?8, provider = ?9, model = ?10, iterations = ?11, tokens_in = ?12, tokens_out = ?13, \
             cost_pico_usd = ?14, duration_ms = ?15, limit_kind = ?16, error_kind = ?17, error_message = ?18, \
             updated_at = ?19, completed_at = ?20 WHERE no = ?1",
        )?
        .execute(params![
            no,
            to_sqlite_int(last.0),
            row.task,
            row.repo,
            row.pipeline,
            row.status.name(),
            row.waiting_for.map(WaitingFor::name),
            row.phase,
            row.provider,
            row.model,
            row.iterations,
            to_sqlite_int(row.tokens_in),
            to_sqlite_int(row.tokens_out),
            row.cost.0,
            to_sqlite_int(row.duration_ms),
            row.limit.map(LimitKind::name),
            row.error_kind,
            row.error_message,
            row.updated_at.as_micros(),
            row.completed_at.map(Timestamp::as_micros),
        ])?;
    Ok(no)
}

/// Lists the rows that match a query, newest first.
///
/// A row that is only partly readable is shown as failed, with its readable columns and an error message. If
/// the file itself is corrupt, the error comes with the rows read before it.
pub(crate) fn list(
    connection: &Connection,
    query: &RunQuery,
) -> Result<Vec<RunRow>, (Vec<RunRow>, rusqlite::Error)> {
    let mut sql = "SELECT * FROM runs WHERE 1".to_owned();
    let mut values: Vec<Value> = Vec::new();
    if let Some(status) = query.status {
        sql += " AND status = ?";
        values.push(status.name().to_owned().into());
    }
    if let Some(repo) = &query.repo {
        sql += " AND repo = ?";
        values.push(repo.clone().into());
    }
    if let Some(prefix) = query.prefix.as_ref().map(|prefix| prefix.to_ascii_lowercase()) {
        // `~` sorts after every character of an id.
        sql += " AND id >= ? AND id < ?";
        values.push(prefix.clone().into());
        values.push(format!("{prefix}~").into());
    }
    if let Some(after) = query.after {
        sql += " AND (created_at, id) < (?, ?)";
        values.push(after.created_at.as_micros().into());
        values.push(after.run.to_string().into());
    }
    sql += " ORDER BY created_at DESC, id DESC";
    if query.limit > 0 {
        sql += " LIMIT ?";
        values.push(to_sqlite_int(query.limit as u64).into());
    }
    let mut found = Vec::new();
    let outcome = (|| {
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            found.extend(read_row(row));
        }
        Ok(())
    })();
    match outcome {
        Ok(()) => Ok(found),
        Err(error) => Err((found, error)),
    }
}

/// Reads the row, or its readable columns; `None` if not even the run's id is readable.
fn read_row(row: &Row<'_>) -> Option<RunRow> {
    let run = row.get::<_, String>("id").ok()?.parse().ok()?;
    Some(parse_row(row, run).unwrap_or_else(|fault| damaged_row(row, run, &fault)))
}

fn parse_row(row: &Row<'_>, run: RunId) -> Result<RunRow, String> {
    let text = |column: &str| row.get::<_, String>(column).map_err(|error| error.to_string());
    let maybe = |column: &str| row.get::<_, Option<String>>(column).map_err(|error| error.to_string());
    let number = |column: &str| read_count(row, column).map_err(|error| error.to_string());
    let time = |column: &str| row.get::<_, Option<i64>>(column).map_err(|error| error.to_string());
    let named = |column: &str| maybe(column).map(|name| name.map(serde_json::Value::String));
    let waiting_for: Option<WaitingFor> = parse_name(named("waiting_for")?)?;
    let limit: Option<LimitKind> = parse_name(named("limit_kind")?)?;
    Ok(RunRow {
        run,
        task: text("task")?,
        repo: text("repo")?,
        pipeline: text("pipeline")?,
        status: RunStatus::from_str(&text("status")?).map_err(|error| error.to_string())?,
        waiting_for,
        phase: text("phase")?,
        provider: text("provider")?,
        model: text("model")?,
        iterations: u32::try_from(number("iterations")?).unwrap_or(u32::MAX),
        tokens_in: number("tokens_in")?,
        tokens_out: number("tokens_out")?,
        cost: Money(row.get("cost_pico_usd").map_err(|error| error.to_string())?),
        duration_ms: number("duration_ms")?,
        limit,
        error_kind: maybe("error_kind")?,
        error_message: maybe("error_message")?,
        created_at: Timestamp::from_micros(time("created_at")?.unwrap_or_default()),
        updated_at: Timestamp::from_micros(time("updated_at")?.unwrap_or_default()),
        completed_at: time("completed_at")?.map(Timestamp::from_micros),
    })
}

fn parse_name<T: serde::de::DeserializeOwned>(name: Option<serde_json::Value>) -> Result<Option<T>, String> {
    name.map(serde_json::from_value).transpose().map_err(|error| error.to_string())
}

fn damaged_row(row: &Row<'_>, run: RunId, fault: &str) -> RunRow {
    let text = |column: &str| row.get::<_, String>(column).unwrap_or_default();
    let number = |column: &str| read_count(row, column).unwrap_or_default();
    let time = |column: &str| Timestamp::from_micros(row.get::<_, i64>(column).unwrap_or_default());
    RunRow {
        run,
        task: text("task"),
        repo: text("repo"),
        pipeline: text("pipeline"),
        status: text("status").parse().unwrap_or(RunStatus::Failed),
        waiting_for: None,
        phase: text("phase"),
        provider: text("provider"),
        model: text("model"),
        iterations: u32::try_from(number("iterations")).unwrap_or(u32::MAX),
        tokens_in: number("tokens_in"),
        tokens_out: number("tokens_out"),
        cost: Money(row.get("cost_pico_usd").unwrap_or_default()),
        duration_ms: number("duration_ms"),
        limit: None,
        error_kind: Some("damaged".to_owned()),
        error_message: Some(format!(
            "this run's entry in the list is damaged ({fault}); its journal may still be readable"
        )),
        created_at: time("created_at"),
        updated_at: time("updated_at"),
        completed_at: None,
    }
}
