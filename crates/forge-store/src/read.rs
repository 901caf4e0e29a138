//! Queries on journals, checkpoints, inboxes and the ledger.

use crate::runs::{self, to_sqlite_int};
use forge_ports::journal::{Checkpoint, EventPage};
use forge_ports::ledger::Balance;
use forge_types::{CommandId, Digest, EffectId, Event, EventKind, Money, RunCommand, RunId, Seq, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row};

/// Low bits of an event's id that hold its position; the run's number is above them.
pub(crate) const SEQ_BITS: u32 = 32;

/// The description of an event that is not in the table.
pub(crate) const MISSING: &str = "it is missing";

/// Returns the id of the event at `seq` in the journal of run number `no`.
pub(crate) const fn event_id(no: i64, seq: u64) -> i64 {
    (no << SEQ_BITS) | (seq as i64 & 0xffff_ffff)
}

/// Splits an event's id into the number of the run and the place in its journal.
pub(crate) const fn split_event_id(id: i64) -> (i64, Seq) {
    (id >> SEQ_BITS, Seq((id & 0xffff_ffff) as u64))
}

/// Reads the events of a run after `after`, as far as they are readable.
///
/// Reading ends at an event that can't be parsed and at a gap: folding the events after it would produce a
/// wrong state.
pub(crate) fn read_events(
    connection: &Connection,
    run: RunId,
    after: Seq,
    limit: usize,
) -> rusqlite::Result<EventPage> {
    let mut pages = EventPage::default();
    let Some(head) = runs::journal_head(connection, run)? else { return Ok(pages) };
    if after >= head.last {
        return Ok(pages);
    }
    let wanted = match limit {
        0 => head.last.0 - after.0,
        limit => (limit as u64).min(head.last.0 - after.0),
    };
    let mut next = after;
    let outcome = (|| {
        let mut statement = connection.prepare_cached(
            "SELECT id, at, data FROM events WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
        )?;
        let mut rows = statement.query([
            event_id(head.no, after.0),
            event_id(head.no, head.last.0),
            to_sqlite_int(wanted),
        ])?;
        while let Some(row) = rows.next()? {
            match parse_event(row, run, head.no, next.next()) {
                Ok(event) => {
                    next = event.seq;
                    pages.events.push(event);
                }
                Err(why) => return Ok(Some(why)),
            }
        }
        Ok(None)
    })();
    let why = match outcome {
        Ok(why) => why,
        Err(error) if pages.events.is_empty() && !crate::fault::is_corrupt(&error) => return Err(error),
        Err(error) => Some(error.to_string()),
    };
    let why = why.or_else(|| (next.0 < after.0 + wanted).then(|| MISSING.to_owned()));
    pages.damage = why.map(|why| {
        let (next, last) = (next.next(), head.last);
        format!("event {next} of run {run}, whose journal ends at {last}, can't be read: {why}")
    });
    Ok(pages)
}

fn parse_event(row: &Row<'_>, run: RunId, no: i64, expected: Seq) -> Result<Event, String> {
    let id: i64 = row.get(0).map_err(|error| error.to_string())?;
    if id != event_id(no, expected.0) {
        return Err(MISSING.to_owned());
    }
    decode_event(row, run, expected)
}

/// Decodes the event at `seq` of a run from a row of its id, time and JSON form.
pub(crate) fn decode_event(row: &Row<'_>, run: RunId, seq: Seq) -> Result<Event, String> {
    let at: i64 = row.get(1).map_err(|error| error.to_string())?;
    let data = row.get_ref(2).map_err(|error| error.to_string())?;
    let data = data.as_bytes().map_err(|error| error.to_string())?;
    let kind: EventKind = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    Ok(Event { run, seq, at: Timestamp::from_micros(at), kind })
}

/// Returns the newest checkpoint of a run.
pub(crate) fn latest_checkpoint(connection: &Connection, run: RunId) -> rusqlite::Result<Option<Checkpoint>> {
    let sql =
        "SELECT seq, version, state FROM checkpoints JOIN runs ON runs.no = checkpoints.run WHERE id = ?1";
    connection
        .prepare_cached(sql)?
        .query_row([run.to_string()], |row| {
            Ok(Checkpoint {
                seq: Seq(u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0)),
                version: row.get(1)?,
                state: row.get(2)?,
            })
        })
        .optional()
}

/// Returns the bytes stored under a digest in the table; larger payloads are files.
pub(crate) fn read_blob(connection: &Connection, digest: Digest) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT bytes FROM blobs WHERE digest = ?1")?
        .query_row([digest.as_bytes()], |row| row.get(0))
        .optional()
}

/// Returns the commands that no process has taken yet. One that can't be parsed stays in the inbox.
pub(crate) fn inbox(connection: &Connection, run: RunId) -> rusqlite::Result<Vec<(CommandId, RunCommand)>> {
    let Some(head) = runs::journal_head(connection, run)? else { return Ok(Vec::new()) };
    let mut statement = connection
        .prepare_cached("SELECT id, command FROM inbox WHERE run = ?1 AND taken = 0 ORDER BY no")?;
    let rows = statement.query_map([head.no], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut commands = Vec::new();
    for row in rows {
        let (id, command): (String, String) = row?;
        match (id.parse(), serde_json::from_str(&command)) {
            (Ok(id), Ok(command)) => commands.push((id, command)),
            (_, Err(error)) => tracing::warn!(%run, id, %error, "a command in the inbox can't be read"),
            (Err(error), _) => tracing::warn!(%run, id, %error, "a command in the inbox has no valid id"),
        }
    }
    Ok(commands)
}

/// Returns the balance of an account.
pub(crate) fn balance(connection: &Connection, account: &str) -> rusqlite::Result<Balance> {
    let found = connection
        .prepare_cached("SELECT spent, reserved FROM accounts WHERE name = ?1")?
        .query_row([account], |row| Ok(Balance { spent: Money(row.get(0)?), reserved: Money(row.get(1)?) }))
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Returns the reservations that a run still holds, in the order of its effects.
pub(crate) fn reservations(
    connection: &Connection,
    run: RunId,
) -> rusqlite::Result<Vec<(EffectId, String, Money)>> {
    let Some(head) = runs::journal_head(connection, run)? else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT effect, account, amount FROM reservations WHERE run = ?1 ORDER BY effect, account",
    )?;
    let rows = statement.query_map([head.no], |row| {
        let effect = EffectId(u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0));
        Ok((effect, row.get(1)?, Money(row.get(2)?)))
    })?;
    rows.collect()
}

/// Returns the runs that hold reservations on an account.
pub(crate) fn holders(connection: &Connection, account: &str) -> rusqlite::Result<Vec<(RunId, Money)>> {
    let mut statement = connection.prepare_cached(
        "SELECT runs.id, sum(amount) FROM reservations JOIN runs ON runs.no = reservations.run \
         WHERE account = ?1 GROUP BY runs.no ORDER BY runs.no",
    )?;
    let rows = statement.query_map([account], |row| {
        Ok((row.get::<_, String>(0)?.parse::<RunId>().ok(), Money(row.get(1)?)))
    })?;
    rows.filter_map(|row| row.map(|(run, held)| Some((run?, held))).transpose()).collect()
}

/// Returns the accounts with this name prefix.
pub(crate) fn accounts(connection: &Connection, prefix: &str) -> rusqlite::Result<Vec<(String, Balance)>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, spent, reserved FROM accounts WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name",
    )?;
    let rows = statement.query_map([prefix], |row| {
        Ok((row.get(0)?, Balance { spent: Money(row.get(1)?), reserved: Money(row.get(2)?) }))
    })?;
    rows.collect()
}
