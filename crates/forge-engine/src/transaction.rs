//! The transaction in which events are appended to a run's journal: the only maker of a batch, and the only place where
//! what is journalled is redacted.

use crate::Error;
use crate::run_row::run_row;
use forge_policy::child::run_account;
use forge_policy::context::{self, Truncation};
use forge_ports::FlushHandle;
use forge_ports::journal::{Batch, Blob, Checkpoint, Posting, SentCommand};
use forge_ports::queue::QueueEntry;
use forge_redact::Redactor;
use forge_types::{
    CommandId, EffectId, Event, EventKind, Money, Outcome, Payload, Plan, RunState, Seq, SnapshotId,
    Timestamp,
};

/// The longest text, in bytes, that is stored in the journal itself; longer ones are stored by their hash.
const MAX_INLINE_BYTES: usize = 4096;

/// Events, blobs and postings that are appended together, with the resulting state.
pub struct JournalTransaction<'a> {
    state: RunState,
    /// The last event of the journal before this transaction.
    expected: Seq,
    fence: Option<u64>,
    events: Vec<Event>,
    blobs: Vec<Blob>,
    taken: Vec<CommandId>,
    postings: Vec<Posting>,
    enqueue: Option<QueueEntry>,
    children: Vec<Batch>,
    sends: Vec<SentCommand>,
    /// Data that the events refer to and that is still being flushed.
    after: Vec<FlushHandle>,
    now: Timestamp,
    plan: &'a Plan,
    redactor: &'a Redactor,
}

impl<'a> JournalTransaction<'a> {
    /// Creates an empty transaction on the journal that folds to `state`.
    pub fn new(state: RunState, now: Timestamp, plan: &'a Plan, redactor: &'a Redactor) -> Self {
        // A clock that jumps back must not make the journal's times decrease.
        let now = now.max(state.at);
        Self {
            expected: state.seq,
            fence: None,
            state,
            events: Vec::new(),
            blobs: Vec::new(),
            taken: Vec::new(),
            postings: Vec::new(),
            enqueue: None,
            children: Vec::new(),
            sends: Vec::new(),
            after: Vec::new(),
            now,
            plan,
            redactor,
        }
    }

    /// Sets the fencing number of the lease under which the transaction is written.
    #[must_use]
    pub fn with_fence(mut self, fence: u64) -> Self {
        self.fence = Some(fence);
        self
    }

    /// Returns the state after the events so far.
    pub const fn state(&self) -> &RunState {
        &self.state
    }

    /// Returns the events so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Adds a payload that an event will refer to. It must be redacted.
    pub(crate) fn add_blob(&mut self, blob: Blob) {
        self.blobs.push(blob);
    }

    /// Removes a command from the inbox with this transaction.
    pub(crate) fn take_command(&mut self, command: CommandId) {
        self.taken.push(command);
    }

    /// Adds the run to the queue with this transaction.
    pub(crate) fn enqueue(&mut self, entry: QueueEntry) {
        self.enqueue = Some(entry);
    }

    /// Creates a child run with this transaction, by its first batch.
    pub(crate) fn add_child(&mut self, batch: Batch) {
        self.children.push(batch);
    }

    /// Sends a command to another run with this transaction.
    pub(crate) fn send_command(&mut self, command: SentCommand) {
        self.sends.push(command);
    }

    /// Delays the transaction until data that its events refer to is on disk.
    pub(crate) fn wait_for(&mut self, durable: FlushHandle) {
        self.after.push(durable);
    }

    /// Adds an event: redacts it, stores its long texts by hash, and folds it into the state.
    ///
    /// # Errors
    /// If the event does not fit the state, which is a bug.
    pub fn push(&mut self, mut kind: EventKind) -> Result<(), Error> {
        self.redactor.redact_event(&mut kind);
        if let EventKind::Settled { outcome: Outcome::ToolDone { output }, .. } = &mut kind
            && let Payload::Inline(text) = &mut output.content
        {
            let (text_cut, cut) = context::cut_result(std::mem::take(text), self.plan.result_chars());
            *text = text_cut;
            output.truncated |= cut == Truncation::Truncated;
        }
        for payload in kind.payloads_mut() {
            if let Some(blob) = externalize_payload(payload) {
                self.blobs.push(blob);
            }
        }
        let event = Event { run: self.state.run, seq: self.state.seq.next(), at: self.now, kind };
        self.state.apply(&event).map_err(|error| Error::Damaged {
            run: self.state.run,
            damage: format!("{error} (a bug in forge)"),
        })?;
        self.events.push(event);
        Ok(())
    }

    /// Adds an outcome and settles its cost.
    pub(crate) fn settle_effect(
        &mut self,
        effect: EffectId,
        outcome: Outcome,
        snapshot: Option<SnapshotId>,
    ) -> Result<(), Error> {
        let open = self.state.open.get(&effect);
        let reserved = open.and_then(|open| open.reserved);
        if reserved.is_some() {
            let actual = match &outcome {
                Outcome::Replied { cost, .. } => cost.unwrap_or(Money::ZERO),
                Outcome::Summarised { summary } => {
                    summary.asked.as_ref().and_then(|asked| asked.cost).unwrap_or(Money::ZERO)
                }
                _ => Money::ZERO,
            };
            self.postings.push(Posting::Settle { effect, actual });
        }
        self.push(EventKind::Settled { effect, outcome, snapshot })
    }

    /// Reserves money for an effect on the run's account and on those above it.
    pub(crate) fn reserve(&mut self, effect: EffectId, amount: Money) {
        let run = self.state.run;
        let mut reserve = |account: String, ceiling: Option<Money>| {
            self.postings.push(Posting::Reserve { account, effect, amount, ceiling });
        };
        // The run's own ceiling was checked when the effect was decided.
        reserve(run_account(run), None);
        for above in &self.plan.shared.ceilings {
            reserve(above.account.clone(), Some(above.limit));
        }
        let limits = self.state.limits.unwrap_or(self.plan.shared.limits);
        reserve(format!("day:{}", self.now.utc_day()), limits.day_cost.or(self.plan.shared.day_ceiling));
    }

    /// Completes the transaction, with the row that lists the run at the time `now`.
    pub fn into_batch(self, now: Timestamp, checkpoint: Option<Checkpoint>) -> Batch {
        Batch {
            run: self.state.run,
            expected: self.expected,
            fence: self.fence,
            row: run_row(&self.state, self.plan, now),
            events: self.events,
            blobs: self.blobs,
            taken: self.taken,
            postings: self.postings,
            checkpoint,
            enqueue: self.enqueue,
            children: self.children,
            sends: self.sends,
            after: self.after,
        }
    }
}

/// Replaces a long text by its hash; returns the text as a blob.
fn externalize_payload(payload: &mut Payload) -> Option<Blob> {
    let Payload::Inline(text) = payload else { return None };
    if text.len() <= MAX_INLINE_BYTES {
        return None;
    }
    let chars = text.chars().count() as u64;
    let blob = Blob::new(std::mem::take(text).into_bytes());
    *payload = Payload::Stored { blob: blob.digest, bytes: blob.bytes.len() as u64, chars };
    Some(blob)
}
