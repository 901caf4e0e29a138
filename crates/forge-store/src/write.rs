//! The changes that can be written, and the statements that write them.

use crate::feed;
use crate::queue::table;
use crate::read::{SEQ_BITS, event_id};
use crate::routing_tables::RoutingWrite;
use crate::runs::{self, to_sqlite_int};
use crate::watchers::RunChange;
use forge_ports::journal::{Batch, Blob, Checkpoint, Error, Posting, RunRow, SentCommand};
use forge_ports::queue::{ItemStatus, QueueEntry};
use forge_types::{CommandId, EffectId, EventKind, Money, RunId, Seq, Timestamp};
use rusqlite::{Connection, params};
use std::path::Path;

/// An atomic change.
#[derive(Debug)]
pub(crate) enum WriteOp {
    /// Appends a batch to the journal.
    Append(Box<PreparedBatch>),
    /// Adds a command, as JSON, to an inbox.
    Send { run: RunId, id: CommandId, command: String },
    /// Adds an item to the queue.
    Enqueue { entry: QueueEntry, at: Timestamp },
    /// Marks an item as being worked on.
    MarkProcessing { run: RunId, at: Timestamp },
    /// Sets an item's status.
    SetStatus { run: RunId, attempt: u32, status: ItemStatus },
    /// Updates the routing state that runs share.
    UpdateRouting(Box<RoutingWrite>),
    /// Releases the reservations of a run that no process works on.
    ReleaseRun { run: RunId, fence: u64 },
}

/// A batch with its events already encoded, so that the writer thread does not spend its time on that.
#[derive(Debug)]
pub(crate) struct PreparedBatch {
    run: RunId,
    expected: Seq,
    fence: Option<u64>,
    last: Seq,
    events: Vec<EncodedEvent>,
    blobs: Vec<Blob>,
    taken: Vec<CommandId>,
    postings: Vec<Posting>,
    row: RunRow,
    checkpoint: Option<Checkpoint>,
    enqueue: Option<QueueEntry>,
    children: Vec<Self>,
    /// Commands to other runs, each as JSON.
    sends: Vec<(RunId, CommandId, String)>,
    /// Whether the batch ends the run; disk space is reserved for that.
    ending: bool,
}

#[derive(Debug)]
struct EncodedEvent {
    at: Timestamp,
    kind: &'static str,
    data: String,
}

/// The reason that a change did not happen.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The change is not allowed; others in its group are not affected.
    Refused(Error),
    /// The database failed.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl WriteOp {
    /// Returns whether the reserved disk space may be used for this change.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self, Self::Append(batch) if batch.ending)
    }

    /// Estimates how many bytes the change adds to the log.
    pub(crate) fn log_bytes(&self) -> usize {
        match self {
            Self::Append(batch) => {
                let events: usize = batch.events.iter().map(|line| line.data.len()).sum();
                let blobs: usize = batch.blobs.iter().map(|blob| blob.bytes.len()).sum();
                events + blobs + batch.checkpoint.as_ref().map_or(0, |c| c.state.len())
            }
            Self::Send { command, .. } => command.len(),
            Self::Enqueue { .. }
            | Self::MarkProcessing { .. }
            | Self::SetStatus { .. }
            | Self::UpdateRouting(_)
            | Self::ReleaseRun { .. } => 0,
        }
    }

    /// Returns the changes of runs; none for what all runs share.
    pub(crate) fn run_changes(&self) -> Vec<RunChange> {
        let (run, command, queued) = match self {
            Self::Append(batch) => return batch.run_changes(),
            Self::Send { run, .. } => (*run, true, true),
            Self::Enqueue { entry, .. } => (entry.run, false, true),
            // A parked run may have a command, or a time.
            Self::SetStatus { run, status, .. } => {
                (*run, false, matches!(status, ItemStatus::Queued | ItemStatus::Parked { .. }))
            }
            Self::MarkProcessing { run, .. } | Self::ReleaseRun { run, .. } => (*run, false, false),
            Self::UpdateRouting(_) => return Vec::new(),
        };
        vec![RunChange { run, command, queued }]
    }

    /// Applies the change within the current transaction of `connection`. Returns the number of attempts or of
    /// rows where the change counts them, otherwise 0.
    pub(crate) fn apply(&self, connection: &Connection) -> Result<u32, WriteError> {
        match self {
            Self::Append(batch) => batch.apply(connection).map(|()| 0),
            Self::Send { run, id, command } => insert_command(connection, *run, *id, command).map(|()| 0),
            Self::Enqueue { entry, at } => {
                table::enqueue(connection, *entry, *at)?;
                Ok(0)
            }
            Self::MarkProcessing { run, at } => Ok(table::mark_processing(connection, *run, *at)?),
            Self::SetStatus { run, attempt, status } => {
                match table::set_status(connection, *run, *attempt, *status)? {
                    true => Ok(0),
                    false => Err(WriteError::Refused(Error::LeaseLost { run: *run })),
                }
            }
            Self::UpdateRouting(advice) => advice.apply(connection).map_err(WriteError::from),
            Self::ReleaseRun { run, fence } => release_run(connection, *run, *fence).map(|()| 0),
        }
    }
}

impl PreparedBatch {
    /// Checks a batch and encodes its events. `path` is used only in errors.
    pub(crate) fn new(batch: Batch, path: &Path) -> Result<Self, Error> {
        let wrong = |why: String| Error::Unavailable { path: path.display().to_string(), why };
        let mut last = batch.expected;
        let mut events = Vec::with_capacity(batch.events.len());
        let mut ending = false;
        for event in &batch.events {
            if event.run != batch.run || event.seq != last.next() || event.seq.0 >> SEQ_BITS != 0 {
                let (run, found, wanted) = (batch.run, event.seq, last.next());
                return Err(wrong(format!(
                    "event {found} of run {} is in a batch for run {run} that expects event {wanted}; \
                     this is a bug in forge",
                    event.run
                )));
            }
            last = event.seq;
            ending |= matches!(event.kind, EventKind::Finished { .. });
            let data = serde_json::to_string(&event.kind)
                .map_err(|error| wrong(format!("event {last} has no JSON form: {error}")))?;
            events.push(EncodedEvent { at: event.at, kind: event.kind.name(), data });
        }
        let mut sends = Vec::with_capacity(batch.sends.len());
        for SentCommand { to, id, command } in batch.sends {
            let json = serde_json::to_string(&command)
                .map_err(|error| wrong(format!("a command has no JSON form: {error}")))?;
            sends.push((to, id, json));
        }
        let children =
            batch.children.into_iter().map(|child| Self::new(child, path)).collect::<Result<_, _>>()?;
        Ok(Self {
            enqueue: batch.enqueue,
            children,
            sends,
            run: batch.run,
            expected: batch.expected,
            fence: batch.fence,
            last,
            events,
            blobs: batch.blobs,
            taken: batch.taken,
            postings: batch.postings,
            row: batch.row,
            checkpoint: batch.checkpoint,
            ending,
        })
    }

    fn apply(&self, connection: &Connection) -> Result<(), WriteError> {
        let head = runs::journal_head(connection, self.run)?;
        let actual = head.map_or(Seq(0), |head| head.last);
        let conflict =
            || WriteError::Refused(Error::Conflict { run: self.run, expected: self.expected, actual });
        if actual != self.expected {
            return Err(conflict());
        }
        if let Some(fence) = self.fence
            && table::attempts(connection, self.run)?.map(u64::from) != Some(fence)
        {
            return Err(WriteError::Refused(Error::LeaseLost { run: self.run }));
        }
        let no = runs::upsert_run(connection, head, self.last, &self.row)?;
        for id in &self.taken {
            if !consume_command(connection, no, *id)? {
                return Err(conflict());
            }
        }
        for posting in &self.postings {
            apply_posting(connection, no, posting)?;
        }
        self.insert_rows(connection, no)?;
        if let Some(entry) = self.enqueue {
            table::enqueue(connection, entry, self.row.updated_at)?;
        }
        for child in &self.children {
            child.apply(connection)?;
        }
        for (to, id, command) in &self.sends {
            match insert_command(connection, *to, *id, command) {
                Err(WriteError::Refused(Error::NotFound { .. })) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn run_changes(&self) -> Vec<RunChange> {
        let own = RunChange { run: self.run, command: false, queued: self.enqueue.is_some() };
        let sends = self.sends.iter().map(|(to, ..)| RunChange { run: *to, command: true, queued: true });
        let children = self.children.iter().flat_map(Self::run_changes);
        std::iter::once(own).chain(sends).chain(children).collect()
    }

    fn insert_rows(&self, connection: &Connection, no: i64) -> rusqlite::Result<()> {
        let mut insert =
            connection.prepare_cached("INSERT INTO events (id, at, kind, data) VALUES (?1, ?2, ?3, ?4)")?;
        let mut seq = self.expected;
        for line in &self.events {
            seq = seq.next();
            insert.execute(params![event_id(no, seq.0), line.at.as_micros(), line.kind, line.data])?;
        }
        feed::add_batch(connection, event_id(no, self.expected.next().0), self.events.len())?;
        if !self.blobs.is_empty() {
            // A blob that has changed since it was written is repaired; otherwise one damaged plan would break
            // every later run with the same settings.
            let mut insert = connection.prepare_cached(
                "INSERT INTO blobs (digest, bytes) VALUES (?1, ?2)
                 ON CONFLICT (digest) DO UPDATE SET bytes = excluded.bytes WHERE bytes IS NOT excluded.bytes",
            )?;
            for blob in &self.blobs {
                insert.execute(params![blob.digest.as_bytes(), blob.bytes])?;
            }
        }
        if let Some(checkpoint) = &self.checkpoint {
            let sql = "REPLACE INTO checkpoints (run, seq, version, state) VALUES (?1, ?2, ?3, ?4)";
            connection.prepare_cached(sql)?.execute(params![
                no,
                to_sqlite_int(checkpoint.seq.0),
                checkpoint.version,
                checkpoint.state
            ])?;
        }
        Ok(())
    }
}

/// Takes a command out of the inbox. Its row stays, without the text, so that the same command sent again is
/// not accepted twice.
fn consume_command(connection: &Connection, no: i64, id: CommandId) -> rusqlite::Result<bool> {
    let sql = "UPDATE inbox SET taken = 1, command = NULL WHERE id = ?1 AND run = ?2 AND taken = 0";
    connection.prepare_cached(sql)?.execute(params![id.to_string(), no]).map(|changed| changed == 1)
}

fn apply_posting(connection: &Connection, run: i64, posting: &Posting) -> Result<(), WriteError> {
    match posting {
        Posting::Reserve { account, effect, amount, ceiling } => {
            reserve_money(connection, run, account, *effect, *amount, *ceiling)
        }
        Posting::Settle { effect, actual } => settle_effect(connection, run, *effect, *actual),
    }
}

fn reserve_money(
    connection: &Connection,
    run: i64,
    account: &str,
    effect: EffectId,
    amount: Money,
    ceiling: Option<Money>,
) -> Result<(), WriteError> {
    // Repeating a reservation replaces the earlier one.
    release_reservations(connection, run, effect, Some(account), None)?;
    let used = crate::read::balance(connection, account)?;
    let used = used.spent.plus(used.reserved);
    if let Some(ceiling) = ceiling.filter(|ceiling| used.plus(amount) > *ceiling) {
        let account = account.to_owned();
        return Err(WriteError::Refused(Error::Ceiling { account, ceiling, used, wanted: amount }));
    }
    connection
        .prepare_cached("INSERT INTO reservations (run, effect, account, amount) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![run, to_sqlite_int(effect.0), account, amount.0])?;
    connection
        .prepare_cached(
            "INSERT INTO accounts (name, spent, reserved) VALUES (?1, 0, ?2) \
             ON CONFLICT (name) DO UPDATE SET reserved = reserved + ?2",
        )?
        .execute(params![account, amount.0])?;
    Ok(())
}

fn settle_effect(
    connection: &Connection,
    run: i64,
    effect: EffectId,
    actual: Money,
) -> Result<(), WriteError> {
    release_reservations(connection, run, effect, None, Some(actual))?;
    Ok(())
}

/// Drops the reservations of an effect, on one account or on all, and books the amount spent on each.
fn release_reservations(
    connection: &Connection,
    run: i64,
    effect: EffectId,
    account: Option<&str>,
    spent: Option<Money>,
) -> rusqlite::Result<()> {
    let held: Vec<(String, i64)> = connection
        .prepare_cached(
            "DELETE FROM reservations WHERE run = ?1 AND effect = ?2 AND account = ifnull(?3, account) \
             RETURNING account, amount",
        )?
        .query_map(params![run, to_sqlite_int(effect.0), account], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (account, amount) in held {
        connection
            .prepare_cached(
                "UPDATE accounts SET reserved = reserved - ?2, spent = spent + ?3 WHERE name = ?1",
            )?
            .execute(params![account, amount, spent.unwrap_or_default().0])?;
    }
    Ok(())
}

/// Drops all reservations of a run, if `fence` is its last claim.
fn release_run(connection: &Connection, run: RunId, fence: u64) -> Result<(), WriteError> {
    if table::attempts(connection, run)?.map_or(0, u64::from) > fence {
        return Err(WriteError::Refused(Error::LeaseLost { run }));
    }
    let Some(head) = runs::journal_head(connection, run)? else { return Ok(()) };
    let effects: Vec<i64> = connection
        .prepare_cached("SELECT DISTINCT effect FROM reservations WHERE run = ?1")?
        .query_map([head.no], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for effect in effects {
        release_reservations(connection, head.no, EffectId(u64::try_from(effect).unwrap_or(0)), None, None)?;
    }
    Ok(())
}

fn insert_command(
    connection: &Connection,
    run: RunId,
    id: CommandId,
    command: &str,
) -> Result<(), WriteError> {
    let Some(head) = runs::journal_head(connection, run)? else {
        return Err(WriteError::Refused(Error::NotFound { what: format!("run {run}") }));
    };
    connection
        .prepare_cached(
            "INSERT INTO inbox (id, run, command) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![id.to_string(), head.no, command])?;
    table::unpark(connection, run)?;
    Ok(())
}
