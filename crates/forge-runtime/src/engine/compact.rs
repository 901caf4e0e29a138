//! Making a summary of a part of the conversation, and looking up what summaries took the place of.

use super::perform::{Performer, resolve_message};
use crate::blobs::BlobCache;
use forge_policy::compact::{lookup, text};
use forge_ports::past::{Error, Found};
use forge_ports::{Journal, Past, async_trait};
use forge_types::{Compaction, ErrorInfo, ErrorKind, Message, Outcome, RunId, Seq, SummaryCost, Transcript};
use std::sync::Arc;

impl Performer {
    /// The summary of these messages. Of a model that can't be asked the outcome says so; what follows is decided
    /// elsewhere.
    pub(super) async fn compact(&self, compaction: &Compaction, mut messages: Vec<Arc<Message>>) -> Outcome {
        for message in &mut messages {
            if let Err(error) = resolve_message(&self.blobs, message).await {
                let error = ErrorInfo::fatal(ErrorKind::StoreUnavailable, error.to_string());
                return Outcome::ModelFailed { error };
            }
        }
        let Some(call) = &compaction.ask else {
            return Outcome::Summarised { summary: text::extract(compaction, &messages) };
        };
        let request = text::request(&self.plan, call, compaction, &messages);
        match self.parts.model.reply(request, &()).await {
            Ok(reply) => {
                let price = self.plan.target(call.target).facts.price;
                let asked = SummaryCost {
                    model: reply.model.clone(),
                    usage: reply.usage,
                    latency_ms: reply.latency_ms,
                    finish: reply.finish,
                    cost: price.map(|price| price.cost(&reply.usage)),
                };
                Outcome::Summarised { summary: text::summary(&reply, asked, compaction, &messages) }
            }
            Err(error) => Outcome::ModelFailed { error: error.info() },
        }
    }

    pub(super) fn past(&self) -> JournalPast {
        JournalPast { journal: self.parts.journal.clone(), blobs: self.blobs.clone(), run: self.run }
    }
}

/// What was said, as the run's journal has it.
pub(super) struct JournalPast {
    journal: Arc<dyn Journal>,
    blobs: Arc<BlobCache>,
    run: RunId,
}

#[async_trait]
impl Past for JournalPast {
    async fn look_up(&self, query: &str) -> Result<Found, Error> {
        let pages = self.journal.read(self.run, Seq(0), 0).await.map_err(unread)?;
        let mut entries = Transcript::of(self.run, &pages.events).map_err(unread)?;
        entries.retain(|entry| entry.gone && !entry.summary);
        for entry in &mut entries {
            resolve_message(&self.blobs, &mut entry.message).await.map_err(unread)?;
        }
        Ok(Found { passages: lookup::passages(&entries, query), searched: entries.len() })
    }
}

fn unread(error: impl std::fmt::Display) -> Error {
    Error { why: error.to_string() }
}
