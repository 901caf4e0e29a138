//! Wire events of a compaction. The public vocabulary has no kind for it: it is a `run.changed` from `running` to
//! `running`, with the phase `compacting` at its beginning and the reason at its end. The summary's model call is
//! reported like any other, but without the summary's text.

use super::project::Projector;
use super::{ModelCompleted, ModelFailed, ModelRequested, RunChanged, WireData};
use forge_types::{
    CompactCause, Compaction, EventKind, MessageSpan, Money, Outcome, RunStatus, SummaryBy, SummaryCall,
    Timestamp,
};

const COMPACTING_PHASE: &str = "compacting";

/// Returns the events for the start of a compaction or of a further attempt.
pub(super) fn compaction_started(
    of: &Projector,
    compaction: &Compaction,
    before: &str,
    at: Timestamp,
) -> Vec<WireData> {
    let why = match compaction.cause {
        CompactCause::Grown => "it fills most of the model's context window",
        CompactCause::Overflow => "the provider refused it as too long",
    };
    let reason = format!("summarising the oldest part of the conversation: {why}");
    let mut told = Vec::new();
    if compaction.attempt == 1 {
        told.push(phase_changed(before, COMPACTING_PHASE, reason));
    }
    if let Some(ask) = &compaction.ask {
        told.push(WireData::ModelRequested(ModelRequested {
            provider: of.provider_of(ask.target),
            model: of.model_of(ask.target),
            attempt: compaction.attempt,
            messages: 1,
            tools: 0,
            delay_ms: ask.not_before.map(|time| time.millis_since(at)).filter(|ms| *ms > 0),
        }));
    }
    told
}

/// Returns the event for the outcome of a summary request.
pub(super) fn summary_settled(
    of: &Projector,
    compaction: &Compaction,
    outcome: &Outcome,
) -> Option<WireData> {
    let ask = compaction.ask.as_ref()?;
    let told = match outcome {
        Outcome::Summarised { summary } => {
            let asked = summary.asked.as_ref()?;
            return Some(WireData::ModelCompleted(ModelCompleted {
                provider: of.provider_of(ask.target),
                model: asked.model.clone(),
                usage: asked.usage,
                cost_usd: asked.cost.map(Money::as_usd),
                latency_ms: asked.latency_ms,
                finish: asked.finish,
                text: String::new(),
            }));
        }
        Outcome::ModelFailed { error } => {
            let message = format!("the conversation could not be summarised: {}", error.message);
            summary_failed(of, ask, error.kind.name(), &message, error.retryable)
        }
        Outcome::Interrupted => summary_failed(
            of,
            ask,
            "interrupted",
            "the process that requested the summary died; the request is repeated",
            true,
        ),
        _ => summary_failed(of, ask, "cancelled", "the call was cancelled before it ended", false),
    };
    Some(WireData::ModelFailed(told))
}

fn summary_failed(
    of: &Projector,
    ask: &SummaryCall,
    reason: &str,
    message: &str,
    retryable: bool,
) -> ModelFailed {
    ModelFailed {
        provider: of.provider_of(ask.target),
        model: of.model_of(ask.target),
        reason: reason.to_owned(),
        message: message.to_owned(),
        retryable,
        retry_in_ms: None,
        next: None,
    }
}

/// Returns the event for a summary that replaced messages.
pub(super) fn compaction_done(
    event: &EventKind,
    bytes_before: u64,
    bytes_after: u64,
    phase: &str,
) -> Option<WireData> {
    let EventKind::Compacted { gone, by, note, .. } = event else { return None };
    let messages: u32 = gone.iter().copied().map(MessageSpan::len).sum();
    let made = match by {
        SummaryBy::Model => "a summary by the model",
        SummaryBy::Extract => "a plain extract",
    };
    let note = note.as_deref().map_or_else(String::new, |note| format!(" ({note})"));
    let (before, after) = (format_kilobytes(bytes_before), format_kilobytes(bytes_after));
    let reason = format!(
        "compacted: {messages} messages were replaced by {made}{note}; the conversation has {after} instead of {before}"
    );
    Some(phase_changed(COMPACTING_PHASE, phase, reason))
}

fn format_kilobytes(bytes: u64) -> String {
    format!("{}.{} kB", bytes / 1000, bytes % 1000 / 100)
}

fn phase_changed(previous_phase: &str, phase: &str, reason: String) -> WireData {
    WireData::RunChanged(RunChanged {
        from: RunStatus::Running,
        to: RunStatus::Running,
        phase: phase.to_owned(),
        previous_phase: previous_phase.to_owned(),
        waiting_for: None,
        reason: Some(reason),
    })
}
