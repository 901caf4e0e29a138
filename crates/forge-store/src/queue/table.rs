//! The statements on the queue's table.

use forge_ports::queue::ItemStatus;
use forge_types::{RunId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

/// An item of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueItem {
    pub(crate) run: RunId,
    pub(crate) status: ItemStatus,
}

/// Inserts an item, or replaces its status and priority.
pub(crate) fn enqueue(
    connection: &Connection,
    run: RunId,
    priority: i32,
    at: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO queue_items (run, priority, created_at, status, attempts) VALUES (?1, ?2, ?3, ?4, 0) \
             ON CONFLICT (run) DO UPDATE SET priority = ?2, created_at = ?3, status = ?4",
        )?
        .execute(params![run.to_string(), priority, at.as_micros(), item_status_name(ItemStatus::Queued)])?;
    Ok(())
}

/// Marks an item as processing and returns the count of its attempts. Creates the item if there is none.
pub(crate) fn mark_processing(connection: &Connection, run: RunId, at: Timestamp) -> rusqlite::Result<u32> {
    let attempts = connection
        .prepare_cached(
            "INSERT INTO queue_items (run, priority, created_at, status, attempts) VALUES (?1, 0, ?2, ?3, 1) \
             ON CONFLICT (run) DO UPDATE SET status = ?3, attempts = attempts + 1 RETURNING attempts",
        )?
        .query_row(
            params![run.to_string(), at.as_micros(), item_status_name(ItemStatus::Processing)],
            |row| row.get(0),
        )
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
    let changed = connection
        .prepare_cached("UPDATE queue_items SET status = ?2 WHERE run = ?1 AND attempts = ?3")?
        .execute(params![run.to_string(), item_status_name(status), attempt])?;
    Ok(changed > 0)
}

/// Returns the number of attempts at an item, if there is one.
pub(crate) fn attempts(connection: &Connection, run: RunId) -> rusqlite::Result<Option<u32>> {
    connection
        .prepare_cached("SELECT attempts FROM queue_items WHERE run = ?1")?
        .query_row([run.to_string()], |row| row.get(0))
        .optional()
}

/// Returns the queued and processing items, highest priority first and, within a priority, oldest first.
pub(crate) fn open_items(connection: &Connection) -> rusqlite::Result<Vec<QueueItem>> {
    let mut statement = connection.prepare_cached(
        "SELECT run, status FROM queue_items \
         WHERE status IN ('queued', 'processing') ORDER BY priority DESC, created_at, run",
    )?;
    let mut rows = statement.query([])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let Ok(run) = name.parse() else {
            tracing::warn!(name, "a queue item does not name a run");
            continue;
        };
        let status = match row.get_ref(1)?.as_str() {
            Ok("processing") => ItemStatus::Processing,
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
        ItemStatus::Completed => "completed",
        ItemStatus::Failed => "failed",
    }
}
