//! Payloads of a run: recent ones are cached in memory, others are read on demand.

use forge_ports::Journal;
use forge_ports::journal::{Blob, Error};
use forge_types::{Digest, Payload};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The most bytes kept in memory per run.
const MAX_CACHE_BYTES: usize = 4 << 20;

#[derive(Default)]
struct CachedTexts {
    texts: HashMap<Digest, Arc<str>>,
    order: VecDeque<Digest>,
    bytes: usize,
}

/// A bounded cache of the journal's blobs; the oldest are evicted first.
pub struct PayloadCache {
    journal: Arc<dyn Journal>,
    cached: Mutex<CachedTexts>,
}

impl PayloadCache {
    /// Creates an empty cache.
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self { journal, cached: Mutex::default() }
    }

    /// Caches a blob that is about to be stored.
    pub fn insert_blob(&self, blob: &Blob) {
        if let Ok(text) = std::str::from_utf8(&blob.bytes) {
            self.insert_text(blob.digest, text.into());
        }
    }

    /// Replaces a payload's hash by its text.
    ///
    /// # Errors
    /// If the blob is missing or damaged.
    pub async fn resolve(&self, payload: &mut Payload) -> Result<(), Error> {
        let Payload::Stored { blob, .. } = payload else { return Ok(()) };
        let digest = *blob;
        let known = self.cached.lock().texts.get(&digest).cloned();
        let text = match known {
            Some(text) => text,
            None => {
                let bytes = self.journal.read_blob(digest).await?;
                let text: Arc<str> = String::from_utf8_lossy(&bytes).into();
                self.insert_text(digest, text.clone());
                text
            }
        };
        *payload = Payload::Inline(text.as_ref().to_owned());
        Ok(())
    }

    fn insert_text(&self, digest: Digest, text: Arc<str>) {
        let mut kept = self.cached.lock();
        if text.len() > MAX_CACHE_BYTES || kept.texts.contains_key(&digest) {
            return;
        }
        kept.bytes += text.len();
        kept.texts.insert(digest, text);
        kept.order.push_back(digest);
        while kept.bytes > MAX_CACHE_BYTES {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some(text) = kept.texts.remove(&oldest) {
                kept.bytes -= text.len();
            }
        }
    }
}
