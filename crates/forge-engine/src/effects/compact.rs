//! Summaries of parts of the conversation, and search in the messages that they replaced.

use super::{EffectExecutor, resolve_message};
use crate::payload_cache::PayloadCache;
use forge_policy::compact::{lookup, text};
use forge_ports::transcript::{Error, TranscriptMatches};
use forge_ports::{Journal, TranscriptSearch, async_trait};
use forge_types::{
    AgentPlanRef, Compaction, ErrorInfo, ErrorKind, Message, Outcome, RunId, Seq, SummaryCost, Transcript,
};
use std::sync::Arc;

impl EffectExecutor {
    /// Summarizes these messages. If the model fails, the outcome holds its error; the policy decides what
    /// follows.
    pub(super) async fn summarize(
        &self,
        plan: AgentPlanRef<'_>,
        compaction: &Compaction,
        mut messages: Vec<Arc<Message>>,
    ) -> Outcome {
        for message in &mut messages {
            if let Err(error) = resolve_message(&self.blobs, message).await {
                let error = ErrorInfo::fatal(ErrorKind::StoreUnavailable, error.to_string());
                return Outcome::ModelFailed { error };
            }
        }
        let Some(call) = &compaction.ask else {
            return Outcome::Summarised { summary: text::extract(compaction, &messages) };
        };
        let request = text::summary_request(plan, call, compaction, &messages);
        match self.parts.model.request_reply(request, &()).await {
            Ok(reply) => {
                let price = plan.agent.target_at(call.target).facts.price;
                let asked = SummaryCost {
                    model: reply.model.clone(),
                    usage: reply.usage,
                    latency_ms: reply.latency_ms,
                    finish: reply.finish,
                    cost: price.map(|price| price.cost(&reply.usage)),
                };
                Outcome::Summarised {
                    summary: text::summary_from_reply(&reply, asked, compaction, &messages),
                }
            }
            Err(error) => Outcome::ModelFailed { error: error.to_info() },
        }
    }

    pub(super) fn transcript(&self) -> JournalTranscript {
        JournalTranscript { journal: self.parts.journal.clone(), blobs: self.blobs.clone(), run: self.run }
    }
}

/// The transcript of a run, read from its journal.
pub(super) struct JournalTranscript {
    journal: Arc<dyn Journal>,
    blobs: Arc<PayloadCache>,
    run: RunId,
}

#[async_trait]
impl TranscriptSearch for JournalTranscript {
    async fn search(&self, query: &str) -> Result<TranscriptMatches, Error> {
        let pages = self.journal.read_events(self.run, Seq(0), 0).await.map_err(search_error)?;
        let mut entries = Transcript::from_events(self.run, &pages.events).map_err(search_error)?;
        entries.retain(|entry| entry.gone && !entry.summary);
        for entry in &mut entries {
            resolve_message(&self.blobs, &mut entry.message).await.map_err(search_error)?;
        }
        Ok(TranscriptMatches { passages: lookup::find_passages(&entries, query), searched: entries.len() })
    }
}

fn search_error(error: impl std::fmt::Display) -> Error {
    Error { why: error.to_string() }
}
