//! Token counts of requests, for models with a public vocabulary.
//!
//! A vocabulary has several megabytes and is loaded on first use, which takes some tenths of a second in a release
//! build. The overhead of messages and tools follows the counting guide that OpenAI publishes. Providers change it
//! without notice, so a count is a close estimate.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use forge_catalog::Catalog;
use forge_catalog::models::Vocabulary;
use forge_types::{Message, ModelRequest, PartKind, ReplyFormat};
use tiktoken_rs::CoreBPE;

use crate::reply_builder::inline_text;

/// Overhead of each message, and of the beginning of the reply.
const MESSAGE_OVERHEAD_TOKENS: u64 = 3;
const REPLY_PRIMER_TOKENS: u64 = 3;
/// Overhead of each tool, and of the list of tools.
const TOOL_OVERHEAD_TOKENS: u64 = 8;
const TOOL_LIST_OVERHEAD_TOKENS: u64 = 12;
/// Bytes that are counted at a time. The library's regular expression backtracks on long runs of white space and fails
/// after a million steps; a split costs at most one token.
const MAX_ENCODE_BYTES: usize = 16 << 10;
/// Length from which the count of a text is cached, because a conversation is sent again with every turn.
const MIN_CACHED_BYTES: usize = 256;
/// Largest number of cached counts.
const MAX_CACHED_COUNTS: usize = 8192;

/// A token counter for models with a public vocabulary.
#[derive(Clone, Copy)]
pub struct VocabularyCounter {
    vocabulary: Vocabulary,
}

impl std::fmt::Debug for VocabularyCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Counter({})", self.vocabulary.name())
    }
}

impl VocabularyCounter {
    /// Returns the counter for a model; `None` if its vocabulary is not public. Loads nothing yet.
    pub fn in_catalog(catalog: &Catalog, provider: &str, model: &str) -> Option<Self> {
        catalog.vocabulary(provider, model).map(|vocabulary| Self { vocabulary })
    }

    /// Counts the tokens of a text, at most as many as it has bytes.
    pub fn count_text(self, text: &str) -> u64 {
        if text.len() < MIN_CACHED_BYTES {
            return self.count_uncached(text);
        }
        static COUNT_CACHE: Mutex<Option<TokenCountCache>> = Mutex::new(None);
        let mut known = COUNT_CACHE.lock();
        let memory = known.get_or_insert_default();
        let key = (self.vocabulary, text.len(), memory.hasher.hash_one(text));
        if let Some(count) = memory.counts.get(&key) {
            return *count;
        }
        drop(known);
        let count = self.count_uncached(text);
        let mut known = COUNT_CACHE.lock();
        let memory = known.get_or_insert_default();
        if memory.counts.len() >= MAX_CACHED_COUNTS {
            memory.counts.clear();
        }
        memory.counts.insert(key, count);
        count
    }

    /// Counts the tokens of a message, with its overhead.
    fn count_message(self, message: &Message) -> u64 {
        let parts = message.parts.iter().map(|part| match &part.kind {
            PartKind::Text { text } => self.count_text(inline_text(text)),
            PartKind::Call(call) => {
                MESSAGE_OVERHEAD_TOKENS + self.count_text(&call.name) + self.count_text(&call.arguments)
            }
            PartKind::Result(result) => self.count_text(inline_text(&result.content)),
            // Returned reasoning is opaque and not counted as text.
            PartKind::Reasoning { .. } => 0,
        });
        MESSAGE_OVERHEAD_TOKENS + 1 + parts.sum::<u64>()
    }

    /// Counts the tokens of a whole request, with the overhead of messages and tools.
    pub fn count_request(self, request: &ModelRequest) -> u64 {
        let mut count = REPLY_PRIMER_TOKENS;
        if !request.system.is_empty() {
            count += MESSAGE_OVERHEAD_TOKENS + 1 + self.count_text(&request.system);
        }
        count += request.messages.iter().map(|message| self.count_message(message)).sum::<u64>();
        if !request.tools.is_empty() {
            count += TOOL_LIST_OVERHEAD_TOKENS;
        }
        for tool in &request.tools {
            count += TOOL_OVERHEAD_TOKENS
                + self.count_text(&tool.name)
                + self.count_text(&tool.description)
                + self.count_text(&tool.json_schema().to_string());
        }
        if let ReplyFormat::Json(format) = &request.format {
            count += TOOL_OVERHEAD_TOKENS + self.count_text(&format.schema.to_string());
        }
        count
    }

    fn count_uncached(self, text: &str) -> u64 {
        let encoder = self.encoder();
        let mut rest = text;
        let mut count = 0;
        while !rest.is_empty() {
            let mut end = rest.len().min(MAX_ENCODE_BYTES);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (piece, after) = rest.split_at(end);
            count += encoder.count_ordinary(piece) as u64;
            rest = after;
        }
        count
    }

    fn encoder(self) -> &'static CoreBPE {
        match self.vocabulary {
            Vocabulary::O200kBase => tiktoken_rs::o200k_base_singleton(),
            Vocabulary::Cl100kBase => tiktoken_rs::cl100k_base_singleton(),
        }
    }
}

/// A cache of token counts, keyed by a hash for which outsiders can't construct collisions.
#[derive(Default)]
struct TokenCountCache {
    hasher: RandomState,
    counts: HashMap<(Vocabulary, usize, u64), u64>,
}
