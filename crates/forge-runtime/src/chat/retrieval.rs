//! Recall of earlier messages that are no longer sent with every turn, when the user refers to them.

use forge_types::{ChatMessage, Role};
use std::collections::BTreeSet;

/// Words with which a user refers to earlier messages.
const RECALL_PHRASES: [&str; 10] =
    ["remember", "recall", "remind", "earlier", "before", "previously", "beginning", "first", "said", "told"];
/// Words too frequent to distinguish turns.
const STOP_WORDS: [&str; 24] = [
    "that", "this", "what", "when", "where", "which", "about", "have", "with", "your", "from", "were",
    "does", "they", "them", "then", "there", "would", "could", "should", "still", "tell", "just", "like",
];
/// The shortest word that counts, in characters.
const MIN_WORD_CHARS: usize = 3;
/// The most turns that are recalled.
const MAX_TURNS: usize = 2;
/// The most characters of a recalled message.
const MAX_TURN_CHARS: usize = 2_000;

/// Returns a text with the turns of `older` that match the question best, if it refers to earlier messages. A
/// word counts more the fewer turns contain it; if nothing matches, the very first turn is used.
pub(crate) fn relevant_turns(older: &[ChatMessage], question: &str) -> Option<String> {
    let asked = significant_words(question);
    if older.is_empty() || !RECALL_PHRASES.iter().any(|word| asked.contains(*word)) {
        return None;
    }
    let telling: BTreeSet<_> = asked
        .iter()
        .filter(|word| !RECALL_PHRASES.contains(&word.as_str()) && !STOP_WORDS.contains(&word.as_str()))
        .collect();
    let turns: Vec<(&[ChatMessage], BTreeSet<String>)> = split_turns(older)
        .into_iter()
        .map(|turn| (turn, turn.iter().flat_map(|said| significant_words(&said.content)).collect()))
        .collect();
    #[allow(clippy::cast_precision_loss, reason = "counts of turns")]
    let score = |own: &BTreeSet<String>| -> f64 {
        let weight =
            |word: &&&String| 1.0 / turns.iter().filter(|(_, all)| all.contains(**word)).count() as f64;
        telling.iter().filter(|word| own.contains(**word)).map(|word| weight(&word)).sum()
    };
    let mut best: Vec<(usize, f64)> = turns
        .iter()
        .enumerate()
        .map(|(at, (_, own))| (at, score(own)))
        .filter(|(_, score)| *score > 0.0)
        .collect();
    best.sort_by(|a, b| b.1.total_cmp(&a.1));
    best.truncate(MAX_TURNS);
    if best.is_empty() {
        best.push((0, 0.0));
    }
    best.sort_by_key(|(at, _)| *at);
    let mut text = String::from("For reference, said earlier in this conversation:");
    for said in best.iter().flat_map(|(at, _)| turns[*at].0) {
        let who = if said.role == Role::User { "User" } else { "You" };
        text += &format!("\n{who}: {}", said.content.chars().take(MAX_TURN_CHARS).collect::<String>());
    }
    Some(text)
}

/// Splits messages into turns that each begin with the user.
fn split_turns(said: &[ChatMessage]) -> Vec<&[ChatMessage]> {
    let begins: Vec<usize> = said
        .iter()
        .enumerate()
        .filter(|(at, one)| *at == 0 || one.role == Role::User)
        .map(|(at, _)| at)
        .collect();
    let ends = begins.iter().skip(1).copied().chain([said.len()]);
    begins.iter().zip(ends).map(|(begin, end)| &said[*begin..end]).collect()
}

fn significant_words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.chars().count() >= MIN_WORD_CHARS)
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn older() -> Vec<ChatMessage> {
        let said = |role, content: &str| ChatMessage { role, content: content.to_owned() };
        let mut all = vec![said(Role::User, "My cat is called Minka"), said(Role::Assistant, "A nice name.")];
        for n in 0..50 {
            all.extend([said(Role::User, &format!("Count {n} please")), said(Role::Assistant, "Done.")]);
        }
        all.extend([said(Role::User, "I live in Bern"), said(Role::Assistant, "Noted.")]);
        all
    }

    #[test]
    fn what_is_asked_for_is_brought_back() {
        let text = relevant_turns(&older(), "Do you remember the name of my cat?").expect("a turn");
        assert!(text.contains("Minka") && !text.contains("Bern"), "{text}");
        let text = relevant_turns(&older(), "What did I say in the beginning?").expect("a turn");
        assert!(text.contains("Minka"), "{text}");
        assert_eq!(
            relevant_turns(&older(), "Write a poem about my cat"),
            None,
            "the question does not refer to earlier messages"
        );
        assert_eq!(relevant_turns(&[], "Do you remember?"), None);
    }
}
