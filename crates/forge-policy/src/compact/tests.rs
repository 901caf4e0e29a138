//! Tests of summaries and extracts, and of searching the messages they replaced.

use super::lookup::find_passages;
use super::text::{extract, format_transcript, level_lengths, middle_out, summary_from_reply};
use forge_types::{
    CompactCause, Compaction, ConversationSummary, FinishReason, Message, MessagePart, ModelReply, SummaryBy,
    SummaryCost, ToolCall, ToolResultPart, TranscriptEntry, Usage,
};
use proptest::prelude::*;
use std::sync::Arc;

fn compaction() -> Compaction {
    let cause = CompactCause::Grown;
    Compaction { gone: Vec::new(), cause, attempt: 1, ask: None, room: 6_000, most: 10_000, note: None }
}

fn said() -> Vec<Arc<Message>> {
    let call =
        ToolCall { id: "1".into(), name: "read_file".into(), arguments: r#"{"path":"src/lib.rs"}"#.into() };
    let mut asked = Message::assistant("I look at the library.");
    asked.parts.push(MessagePart::call(call));
    let result = ToolResultPart {
        call_id: "1".into(),
        name: "read_file".into(),
        content: "fn main() {}\n".repeat(200).into(),
        ok: false,
    };
    vec![Arc::new(Message::user("Mend it")), Arc::new(asked), Arc::new(Message::tool(result))]
}

fn made(text: &str) -> ConversationSummary {
    let (usage, finish) = (Usage::default(), FinishReason::Stop);
    let reply =
        ModelReply { parts: vec![MessagePart::text(text)], usage, model: "m".into(), finish, latency_ms: 1 };
    let asked = SummaryCost { model: "m".into(), usage, latency_ms: 1, finish, cost: None };
    summary_from_reply(&reply, asked, &compaction(), &said())
}

#[test]
fn an_extract_tells_what_was_said_and_called() {
    let text = extract(&compaction(), &said()).text.inline_text().unwrap().to_owned();
    assert!(
        text.starts_with("- user: Mend it\n- assistant: I look at the library.\n- call of read_file: "),
        "{text}"
    );
    assert!(text.contains("- failure of read_file: fn main() {} fn main() {}"), "{text}");
}

#[test]
fn an_extract_of_a_summary_keeps_its_beginning() {
    let text = "The parser was mended.".into();
    let mut messages = vec![Arc::new(forge_types::summary_message(text, forge_types::RecallNotice::Recall))];
    messages.extend(said());
    let text = extract(&compaction(), &messages).text.inline_text().unwrap().to_owned();
    assert!(text.starts_with("The parser was mended.\n- user: Mend it\n"), "{text}");
}

#[test]
fn a_summary_that_says_nothing_is_not_taken() {
    let good = made("<think>what now</think>\nThe file src/lib.rs was read and is empty.");
    assert_eq!((good.by, good.note), (SummaryBy::Model, None));
    assert_eq!(good.text.inline_text(), Some("The file src/lib.rs was read and is empty."));
    for (text, why) in [
        ("", "was empty"),
        ("ok", "was garbage"),
        ("{}{}{}{}{}{}{}{}[][][][][][]", "was garbage"),
        ("no no no no no no no no no no no no never", "was garbage"),
    ] {
        let made = made(text);
        assert_eq!(made.by, SummaryBy::Extract, "{text}");
        assert!(made.note.as_deref().unwrap().contains(why), "{text}");
        assert!(made.asked.is_some(), "what was asked is paid for");
    }
}

fn entry(number: u32, text: &str, gone: bool) -> TranscriptEntry {
    TranscriptEntry { number, turn: number, message: Arc::new(Message::user(text)), gone, summary: false }
}

#[test]
fn passages_are_found_by_the_words_that_tell_them_apart() {
    let entries = [
        entry(1, "Use tabs. The license key of the test server is QX-77.", true),
        entry(2, "The parser fails in line 12 of the file.", true),
        entry(3, "The parser of the server works.", true),
        entry(4, "QX-77 is shown here, so nobody needs to look it up.", false),
    ];
    let found = find_passages(&entries, "what was the license key of the server?");
    assert_eq!(found[0].message, 1);
    assert!(found[0].text.contains("QX-77"));
    assert!(found.iter().all(|passage| passage.message != 4));
    assert_eq!(find_passages(&entries, "line 12").iter().map(|p| p.message).collect::<Vec<_>>(), [2]);
    assert!(find_passages(&entries, "weather").is_empty());
}

#[test]
fn a_passage_of_a_long_text_is_short() {
    let text = format!("{}\nthe needle lies here\n{}", "hay hay hay\n".repeat(500), "straw\n".repeat(500));
    let found = find_passages(&[entry(1, &text, true)], "needle");
    assert_eq!(found.len(), 1);
    assert!(found[0].text.len() <= 900 && found[0].text.contains("needle lies"), "{}", found[0].text);
}

proptest! {
    #[test]
    fn a_transcript_fits(texts in proptest::collection::vec("\\PC{0,400}", 0..30), most in 0_usize..4_000) {
        let messages: Vec<_> = texts.into_iter().map(|text| Arc::new(Message::user(text))).collect();
        prop_assert!(format_transcript(&messages, most).len() <= most);
    }

    #[test]
    fn a_level_is_as_high_as_can_be(lengths in proptest::collection::vec(0_usize..500, 1..20), total in 0_usize..6_000) {
        let level = level_lengths(&lengths, total);
        let sum: usize = lengths.iter().map(|length| (*length).min(level)).sum();
        prop_assert!(sum <= total);
        prop_assert!(level == usize::MAX || sum + lengths.len() >= total);
    }

    #[test]
    fn what_loses_its_middle_keeps_its_ends(text in "\\PC{0,300}", most in 0_usize..400) {
        let short = middle_out(&text, most);
        prop_assert!(short.len() <= most.max(text.len().min(most)));
        prop_assert!(text.len() > most || short == text);
    }
}
