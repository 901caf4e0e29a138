//! Search in messages that were compacted away, by the words of a query (TOOL-15 `recall`).

use super::text::{clip, pieces_of};
use forge_types::{Passage, TranscriptEntry};
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of passages returned.
const MAX_PASSAGES: usize = 5;
/// Approximate size of a passage in bytes.
const PASSAGE_BYTES: usize = 900;
/// Maximum size of all passages in bytes.
const MAX_TOTAL_BYTES: usize = 4_000;
/// Minimum length of a word that counts.
const MIN_WORD_CHARS: usize = 2;
/// Words too frequent to distinguish passages.
const STOP_WORDS: [&str; 22] = [
    "the", "and", "was", "were", "what", "which", "when", "where", "who", "how", "did", "does", "that",
    "this", "with", "for", "from", "about", "there", "have", "had", "you",
];

struct PassageCandidate {
    passage: Passage,
    words: BTreeSet<String>,
}

/// Returns the passages of compacted messages that match the query best, in chronological order. Words found in fewer
/// passages weigh more. The texts of the entries must be loaded.
pub fn find_passages(entries: &[TranscriptEntry], query: &str) -> Vec<Passage> {
    let asked: BTreeSet<String> =
        significant_words(query).into_iter().filter(|word| !STOP_WORDS.contains(&word.as_str())).collect();
    let candidates: Vec<_> =
        entries.iter().filter(|entry| entry.gone && !entry.summary).flat_map(split_passages).collect();
    let mut frequency: BTreeMap<&str, usize> = BTreeMap::new();
    for candidate in &candidates {
        for word in asked.intersection(&candidate.words) {
            *frequency.entry(word.as_str()).or_default() += 1;
        }
    }
    // In thousandths, so that equal queries give equal results on every machine.
    let score = |candidate: &PassageCandidate| -> usize {
        let found = asked.intersection(&candidate.words);
        found.map(|word| 1_000 + 100_000 / frequency.get(word.as_str()).copied().unwrap_or(1)).sum()
    };
    let mut best: Vec<(usize, PassageCandidate)> =
        candidates.iter().map(score).collect::<Vec<_>>().into_iter().zip(candidates).collect();
    best.retain(|(score, _)| *score > 0);
    best.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let mut left = MAX_TOTAL_BYTES;
    let mut found: Vec<Passage> = Vec::new();
    for (_, PassageCandidate { passage, .. }) in best {
        if found.len() == MAX_PASSAGES || passage.text.len() > left {
            break;
        }
        left -= passage.text.len();
        found.push(passage);
    }
    found.sort_by_key(|passage| passage.message);
    found
}

/// Splits a message into passages, at line ends where possible.
fn split_passages(entry: &TranscriptEntry) -> Vec<PassageCandidate> {
    let mut all = Vec::new();
    for piece in pieces_of(&entry.message) {
        let mut rest = piece.text.as_str();
        while !rest.trim().is_empty() {
            let mut head = clip(rest, PASSAGE_BYTES);
            if head.is_empty() {
                break;
            }
            if head.len() < rest.len()
                && let Some(end) = head.rfind('\n').filter(|end| *end > PASSAGE_BYTES / 2)
            {
                head = &head[..=end];
            }
            let (who, text) = (piece.who.clone(), head.trim().to_owned());
            let words = significant_words(&text).into_iter().chain(significant_words(&who)).collect();
            all.push(PassageCandidate {
                passage: Passage { message: entry.number, turn: entry.turn, who, text },
                words,
            });
            rest = &rest[head.len()..];
        }
    }
    all
}

fn significant_words(text: &str) -> BTreeSet<String> {
    let parts = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    parts.filter(|word| word.chars().count() >= MIN_WORD_CHARS).map(str::to_lowercase).collect()
}
