//! The statements on the queue's table.

use forge_ports::queue::{ItemStatus, QueueEntry, QueueScope};
use forge_types::{RunId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

/// The migration that adds the tree of an item and the time until which it is parked. Until then every run that ended its
/// work early was marked as queued, for no worker.
pub(crate) const TREES_SQL: &str = r"
ALTER TABLE queue_items ADD COLUMN root TEXT;
ALTER TABLE queue_items ADD COLUMN until INTEGER;
DROP INDEX queue_open;
UPDATE queue_items SET status = 'parked' WHERE status = 'queued';
CREATE INDEX queue_open ON queue_items (priority DESC, created_at)
  WHERE status IN ('queued', 'processing') OR (status = 'parked' AND until IS NOT NULL);
";

/// The condition of [`TREES_SQL`]'s index: the items that a worker may claim, now or later.
const OPEN_SQL: &str = "(status IN ('queued', 'processing') OR (status = 'parked' AND until IS NOT NULL))";

/// An item of the queue that a worker may claim, now or at a later time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueItem {
    pub(crate) run: RunId,
    pub(crate) status: ItemStatus,
}

/// Inserts an item, or queues it again.
pub(crate) fn enqueue(connection: &Connection, entry: QueueEntry, at: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO queue_items (run, root, priority, created_at, status, attempts) \
             VALUES (?1, ?2, ?3, ?4, 'queued', 0) \
             ON CONFLICT (run) DO UPDATE SET root = ?2, priority = ?3, created_at = ?4, status = 'queued', until = NULL",
        )?
        .execute(params![entry.run.to_string(), entry.root.to_string(), entry.priority, at.as_micros()])?;
    Ok(())
}

/// Queues the item of a run again if it is parked.
pub(crate) fn unpark(connection: &Connection, run: RunId) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE queue_items SET status = 'queued', until = NULL WHERE run = ?1 AND status = 'parked'",
        )?
        .execute([run.to_string()])?;
    Ok(())
}

/// Marks an item as processing and returns the count of its attempts. Creates the item if there is none.
pub(crate) fn mark_processing(connection: &Connection, run: RunId, at: Timestamp) -> rusqlite::Result<u32> {
    let attempts = connection
        .prepare_cached(
            "INSERT INTO queue_items (run, root, priority, created_at, status, attempts) \
             VALUES (?1, ?1, 0, ?2, 'processing', 1) \
             ON CONFLICT (run) DO UPDATE SET status = 'processing', until = NULL, attempts = attempts + 1 \
             RETURNING attempts",
        )?
        .query_row(params![run.to_string(), at.as_micros()], |row| row.get(0))
        .optional()?;
    Ok(attempts.unwrap_or(1))
}

/// Sets the status of an item if this was the last attempt at it; returns whether it was.
pub(crate) fn set_status(
    connection: &Connection,
    run: RunId,
    attempt: u32,
    status: ItemStatus,
) -> rusqlite::Result<bool> {
    let until = match status {
        ItemStatus::Parked { until } => until.map(Timestamp::as_micros),
        _ => None,
    };
    let changed = connection
        .prepare_cached("UPDATE queue_items SET status = ?2, until = ?4 WHERE run = ?1 AND attempts = ?3")?
        .execute(params![run.to_string(), item_status_name(status), attempt, until])?;
    if changed > 0 && matches!(status, ItemStatus::Parked { .. }) && has_commands(connection, run)? {
        unpark(connection, run)?;
    }
    Ok(changed > 0)
}

/// Returns the number of attempts at an item, if there is one.
pub(crate) fn attempts(connection: &Connection, run: RunId) -> rusqlite::Result<Option<u32>> {
    connection
        .prepare_cached("SELECT attempts FROM queue_items WHERE run = ?1")?
        .query_row([run.to_string()], |row| row.get(0))
        .optional()
}

/// Returns whether commands wait in the inbox of a run.
fn has_commands(connection: &Connection, run: RunId) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM inbox JOIN runs ON inbox.run = runs.no WHERE runs.id = ?1 AND taken = 0)";
    connection.prepare_cached(sql)?.query_row([run.to_string()], |row| row.get(0))
}

/// Returns the items of the scope that are queued, processing, or parked until a time, highest priority first and, within
/// a priority, oldest first.
pub(crate) fn open_items(connection: &Connection, scope: QueueScope) -> rusqlite::Result<Vec<QueueItem>> {
    let root = match scope {
        QueueScope::All => None,
        QueueScope::Tree(root) => Some(root.to_string()),
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT run, status, until FROM queue_items WHERE {OPEN_SQL} AND ifnull(root, run) = ifnull(?1, ifnull(root, run)) \
         ORDER BY priority DESC, created_at, run"
    ))?;
    let mut rows = statement.query([root])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let Ok(run) = name.parse() else {
            tracing::warn!(name, "a queue item does not name a run");
            continue;
        };
        let status = match row.get_ref(1)?.as_str() {
            Ok("processing") => ItemStatus::Processing,
            Ok("parked") => {
                let until: Option<i64> = row.get(2)?;
                ItemStatus::Parked { until: until.map(Timestamp::from_micros) }
            }
            _ => ItemStatus::Queued,
        };
        items.push(QueueItem { run, status });
    }
    Ok(items)
}

/// Returns the name of an item's status in the table.
const fn item_status_name(status: ItemStatus) -> &'static str {
    match status {
        ItemStatus::Queued => "queued",
        ItemStatus::Processing => "processing",
        ItemStatus::Parked { .. } => "parked",
        ItemStatus::Completed => "completed",
        ItemStatus::Failed => "failed",
    }
}
