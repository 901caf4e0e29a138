//! Passages of what was compacted away, found by the words of a question (TOOL-15 `recall`).

use super::text::{clip, pieces_of};
use forge_types::{Entry, Passage};
use std::collections::{BTreeMap, BTreeSet};

/// Passages that are given back at most.
const MOST: usize = 5;
/// Bytes of one passage, about.
const PASSAGE: usize = 900;
/// Bytes of all of them together.
const TOTAL: usize = 4_000;
/// Shortest word that counts.
const SHORTEST: usize = 2;
/// Words too frequent to tell one passage from another.
const COMMON: [&str; 22] = [
    "the", "and", "was", "were", "what", "which", "when", "where", "who", "how", "did", "does", "that",
    "this", "with", "for", "from", "about", "there", "have", "had", "you",
];

struct Candidate {
    passage: Passage,
    words: BTreeSet<String>,
}

/// The passages of messages that a summary took the place of which fit the question best, in the order in which they were
/// said. A word counts the more the fewer passages hold it. The texts of the entries are in place.
pub fn passages(entries: &[Entry], query: &str) -> Vec<Passage> {
    let asked: BTreeSet<String> =
        words(query).into_iter().filter(|word| !COMMON.contains(&word.as_str())).collect();
    let candidates: Vec<_> =
        entries.iter().filter(|entry| entry.gone && !entry.summary).flat_map(cut).collect();
    let mut frequency: BTreeMap<&str, usize> = BTreeMap::new();
    for candidate in &candidates {
        for word in asked.intersection(&candidate.words) {
            *frequency.entry(word.as_str()).or_default() += 1;
        }
    }
    // In thousandths, so that equal questions give equal answers on every machine.
    let score = |candidate: &Candidate| -> usize {
        let found = asked.intersection(&candidate.words);
        found.map(|word| 1_000 + 100_000 / frequency.get(word.as_str()).copied().unwrap_or(1)).sum()
    };
    let mut best: Vec<(usize, Candidate)> =
        candidates.iter().map(score).collect::<Vec<_>>().into_iter().zip(candidates).collect();
    best.retain(|(score, _)| *score > 0);
    best.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let mut left = TOTAL;
    let mut found: Vec<Passage> = Vec::new();
    for (_, Candidate { passage, .. }) in best {
        if found.len() == MOST || passage.text.len() > left {
            break;
        }
        left -= passage.text.len();
        found.push(passage);
    }
    found.sort_by_key(|passage| passage.message);
    found
}

/// The passages of one message, cut between lines where that is possible.
fn cut(entry: &Entry) -> Vec<Candidate> {
    let mut all = Vec::new();
    for piece in pieces_of(&entry.message) {
        let mut rest = piece.text.as_str();
        while !rest.trim().is_empty() {
            let mut head = clip(rest, PASSAGE);
            if head.is_empty() {
                break;
            }
            if head.len() < rest.len()
                && let Some(end) = head.rfind('\n').filter(|end| *end > PASSAGE / 2)
            {
                head = &head[..=end];
            }
            let (who, text) = (piece.who.clone(), head.trim().to_owned());
            let words = words(&text).into_iter().chain(words(&who)).collect();
            all.push(Candidate {
                passage: Passage { message: entry.number, turn: entry.turn, who, text },
                words,
            });
            rest = &rest[head.len()..];
        }
    }
    all
}

fn words(text: &str) -> BTreeSet<String> {
    let parts = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    parts.filter(|word| word.chars().count() >= SHORTEST).map(str::to_lowercase).collect()
}
