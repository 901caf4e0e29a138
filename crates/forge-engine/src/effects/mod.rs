//! Execution of effects: one effect, one outcome. Decides nothing.

mod call_model;
mod compact;
mod executor_replies;
mod run_tool;

use crate::Error;
use crate::live::{CutText, LiveSink};
use crate::parts::EngineParts;
use crate::payload_cache::PayloadCache;
use crate::sandbox_session::SandboxSession;
use forge_policy::context;
use forge_ports::FlushHandle;
use forge_types::{
    Effect, ErrorInfo, MAX_MESSAGE_CHARS, Message, ModelRequest, Outcome, Plan, RunId, SnapshotId,
};
use std::sync::Arc;

/// The outcome of an effect, with a snapshot of the workspace after it.
#[derive(Clone)]
pub(crate) struct EffectResult {
    pub(crate) outcome: Outcome,
    pub(crate) snapshot: Option<SnapshotId>,
    /// The handle that waits until the snapshot is on disk.
    pub(crate) durable: FlushHandle,
    /// The error that ends the run, if the snapshot exceeds a ceiling.
    pub(crate) too_large: Option<ErrorInfo>,
}

impl EffectResult {
    pub(crate) const fn from_outcome(outcome: Outcome) -> Self {
        Self { outcome, snapshot: None, durable: FlushHandle::done(), too_large: None }
    }
}

/// The messages that an effect needs.
pub(crate) enum EffectInput {
    /// All messages, as a request.
    Request(Box<ModelRequest>),
    /// The messages to summarize.
    Messages(Vec<Arc<Message>>),
    /// No messages.
    Nothing,
}

/// The executor of one run's effects.
pub(crate) struct EffectExecutor {
    pub(crate) parts: EngineParts,
    pub(crate) plan: Arc<Plan>,
    pub(crate) blobs: Arc<PayloadCache>,
    pub(crate) session: Arc<SandboxSession>,
    pub(crate) live: Arc<dyn LiveSink>,
    pub(crate) run: RunId,
    /// The number of consecutive replies before this effect that the token limit cut off.
    pub(crate) cuts: u32,
    /// Withheld text of these replies.
    pub(crate) cut_text: CutText,
}

impl EffectExecutor {
    pub(crate) async fn execute(&self, what: Effect, said: EffectInput) -> EffectResult {
        if let Some(time) = what.not_before() {
            self.parts.clock.sleep_until(time).await;
        }
        let Some(plan) = self.plan.agent() else {
            return EffectResult::from_outcome(Outcome::Interrupted);
        };
        match (what, said) {
            (Effect::CallModel(call), EffectInput::Request(request)) => {
                EffectResult::from_outcome(self.call_model(plan, &call, *request).await)
            }
            (Effect::Compact(compaction), EffectInput::Messages(messages)) => {
                EffectResult::from_outcome(self.summarize(plan, &compaction, messages).await)
            }
            (Effect::CallModel(_) | Effect::Compact(_) | Effect::StartRun(_), _) => {
                EffectResult::from_outcome(Outcome::Interrupted)
            }
            (Effect::RunTool(run), _) => {
                let outcome = self.run_tool(plan, &run).await;
                self.snapshot_after(&run, outcome).await
            }
        }
    }
}

/// Loads the texts of a request that are stored separately.
pub(crate) async fn resolve_request(blobs: &PayloadCache, request: &mut ModelRequest) -> Result<(), Error> {
    for message in &mut request.messages {
        resolve_message(blobs, message).await?;
        if message.approx_bytes() > MAX_MESSAGE_CHARS {
            context::cut_message(Arc::make_mut(message));
        }
    }
    Ok(())
}

/// Loads the texts of a message that are stored separately.
pub(crate) async fn resolve_message(blobs: &PayloadCache, message: &mut Arc<Message>) -> Result<(), Error> {
    // Only a message that lacks a text is copied.
    if message.is_inline() {
        return Ok(());
    }
    for payload in Arc::make_mut(message).payloads_mut() {
        blobs.resolve(payload).await?;
    }
    Ok(())
}
