//! The feed: a table with one row per batch, in the order in which the batches were committed.
//!
//! A row's key is the position of the batch's last event; the events before it have the numbers below. SQLite commits
//! one transaction after the other, so a position that is assigned within the transaction is never committed after a
//! greater one. Rows are only added at the end of the table, which costs one page per transaction.

use crate::read::{MISSING, decode_event, split_event_id};
use crate::runs::to_sqlite_int;
use forge_ports::feed::{FeedEvent, FeedPage, Position};
use forge_types::RunId;
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::HashMap;

/// The tables; the migration from version 2 to version 3.
///
/// The order in which the events of earlier versions were committed is unknown: the feed has them run by run. The
/// highest number of a run and of a position that were ever deleted are kept, so that neither is used again.
pub(crate) const TABLES_SQL: &str = r"
CREATE TABLE feed (
  position INTEGER PRIMARY KEY,
  first_event INTEGER NOT NULL,
  events INTEGER NOT NULL
);
INSERT INTO feed (position, first_event, events)
  SELECT sum(last_seq) OVER (ORDER BY no), no << 32 | 1, last_seq FROM runs WHERE last_seq > 0;
CREATE TABLE deleted_numbers (
  run INTEGER NOT NULL,
  position INTEGER NOT NULL
);
INSERT INTO deleted_numbers (run, position) VALUES (0, 0);
CREATE TRIGGER run_deleted AFTER DELETE ON runs BEGIN
  UPDATE deleted_numbers SET run = max(run, old.no);
END;
CREATE TRIGGER feed_deleted AFTER DELETE ON feed BEGIN
  UPDATE deleted_numbers SET position = max(position, old.position);
END;
";

/// Adds a batch of `count` events, which begins with the event `first`, to the end of the feed.
pub(crate) fn add_batch(connection: &Connection, first: i64, count: usize) -> rusqlite::Result<()> {
    if count == 0 {
        return Ok(());
    }
    let sql = "INSERT INTO feed (position, first_event, events) VALUES (?2 + \
               max(ifnull((SELECT max(position) FROM feed), 0), \
               ifnull((SELECT position FROM deleted_numbers), 0)), ?1, ?2)";
    connection.prepare_cached(sql)?.execute([first, to_sqlite_int(count as u64)])?;
    Ok(())
}

/// Reads the events after `after`, at most `limit` of them (0: all).
pub(crate) fn read(connection: &Connection, after: Position, limit: usize) -> rusqlite::Result<FeedPage> {
    let page = FeedPage { events: Vec::new(), end: after, damage: Vec::new() };
    let left = if limit == 0 { usize::MAX } else { limit };
    let mut reader = FeedReader { connection, run_ids: HashMap::new(), page, left };
    match reader.read_batches() {
        // What was read so far is returned; the error comes with the next page.
        Err(error) if reader.page.end == after => Err(error),
        _ => Ok(reader.page),
    }
}

/// A part of the feed while it is read.
struct FeedReader<'a> {
    connection: &'a Connection,
    /// The ids of runs by their numbers; `None` for a deleted run.
    run_ids: HashMap<i64, Option<RunId>>,
    page: FeedPage,
    /// The number of events that the page may still have.
    left: usize,
}

impl FeedReader<'_> {
    fn read_batches(&mut self) -> rusqlite::Result<()> {
        let connection = self.connection;
        let mut statement = connection.prepare_cached(
            "SELECT position, first_event, events FROM feed WHERE position > ?1 ORDER BY position",
        )?;
        // While this query is open, all queries see the database in one state.
        let mut batches = statement.query([to_sqlite_int(self.page.end.as_u64())])?;
        while self.left > 0
            && let Some(batch) = batches.next()?
        {
            self.read_batch(batch.get(0)?, batch.get(1)?, batch.get(2)?)?;
        }
        Ok(())
    }

    /// Reads the batch of `count` events from `first_event` on that ends at `position`.
    fn read_batch(&mut self, position: i64, first_event: i64, count: i64) -> rusqlite::Result<()> {
        let last_event = first_event.saturating_add(count - 1);
        let to_event = last_event - position;
        let (no, _) = split_event_id(first_event);
        let Some(run) = self.run_id(no)? else {
            self.page.end = to_position(position);
            return Ok(());
        };
        let mut next = first_event.max(to_sqlite_int(self.page.end.as_u64()) + 1 + to_event);
        let connection = self.connection;
        let mut statement = connection.prepare_cached(
            "SELECT id, at, data FROM events WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
        )?;
        let mut rows = statement.query([next, last_event, to_sqlite_int(self.left as u64)])?;
        while self.left > 0
            && let Some(row) = rows.next()?
        {
            let id: i64 = row.get(0)?;
            self.skip_missing(run, next..id, to_event);
            if self.left > 0 {
                let position = to_position(id - to_event);
                match decode_event(row, run, split_event_id(id).1) {
                    Ok(event) => self.page.events.push(FeedEvent { position, event }),
                    Err(why) => self.page.damage.push(damage(run, id, &why)),
                }
                self.page.end = position;
                self.left -= 1;
            }
            next = id + 1;
        }
        self.skip_missing(run, next..last_event + 1, to_event);
        Ok(())
    }

    /// Passes over events that are not in the table, as far as the page reaches.
    fn skip_missing(&mut self, run: RunId, ids: std::ops::Range<i64>, to_event: i64) {
        for id in ids.take(self.left) {
            self.page.damage.push(damage(run, id, MISSING));
            self.page.end = to_position(id - to_event);
            self.left -= 1;
        }
    }

    /// Returns the id of the run with this number; `None` if it was deleted.
    fn run_id(&mut self, no: i64) -> rusqlite::Result<Option<RunId>> {
        if let Some(known) = self.run_ids.get(&no) {
            return Ok(*known);
        }
        let id: Option<String> = self
            .connection
            .prepare_cached("SELECT id FROM runs WHERE no = ?1")?
            .query_row([no], |row| row.get(0))
            .optional()?;
        let id = id.and_then(|id| id.parse().ok());
        self.run_ids.insert(no, id);
        Ok(id)
    }
}

fn to_position(number: i64) -> Position {
    Position::from_u64(u64::try_from(number).unwrap_or(0))
}

fn damage(run: RunId, id: i64, why: &str) -> String {
    let (_, seq) = split_event_id(id);
    format!("event {seq} of run {run} can't be read: {why}")
}
