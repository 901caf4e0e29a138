//! Text for terminals: sanitizing, measuring, truncating and wrapping; formats of times and amounts.

use crate::HintFormatter;
use forge_types::{ErrorInfo, LimitKind};
use std::time::Duration;
use unicode_width::UnicodeWidthChar as _;

/// Makes text from a model, a tool or a repository safe for a terminal.
///
/// Control characters other than newline and tab, and characters that reorder text, become visible symbols: text must
/// not move the cursor, set the title, or disguise its content.
pub fn sanitize_text(text: &str) -> String {
    text.chars().filter(|c| *c != '\r').map(sanitize_char).collect()
}

/// Sanitizes text as [`sanitize_text`] does, and joins it to one line with single spaces.
pub fn one_line(text: &str) -> String {
    let spaced = text.trim().chars().map(|c| if c.is_whitespace() { ' ' } else { sanitize_char(c) });
    let mut line = String::with_capacity(text.len());
    for c in spaced {
        if c != ' ' || !line.ends_with(' ') {
            line.push(c);
        }
    }
    line
}

fn sanitize_char(c: char) -> char {
    match c {
        '\n' | '\t' => c,
        // The block Control Pictures follows the order of ASCII.
        '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        c if crate::json::is_terminal_active(c) => '\u{fffd}',
        c => c,
    }
}

/// Returns the width of a character in columns: 0 for combining marks, 2 for East Asian wide characters and emoji.
pub fn char_columns(c: char) -> usize {
    // A control character is shown as a symbol.
    c.width().unwrap_or(1)
}

/// Returns the width of a text in columns.
pub fn text_columns(text: &str) -> usize {
    text.chars().map(char_columns).sum()
}

/// Truncates text to `width` columns; `…` marks the cut.
pub fn truncate_text(text: &str, width: usize) -> String {
    if text_columns(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += char_columns(c);
        if used > width {
            break;
        }
        kept.push(c);
    }
    kept + if width > 0 { "…" } else { "" }
}

/// Returns the end of the text that fits into `width` columns.
pub fn truncate_text_start(text: &str, width: usize) -> String {
    let mut used = 0;
    let mut kept: Vec<char> = Vec::new();
    for c in text.chars().rev() {
        used += char_columns(c);
        if used > width {
            break;
        }
        kept.push(c);
    }
    kept.into_iter().rev().collect()
}

/// Pads text with spaces to `width` columns.
pub fn pad_right(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text_columns(text));
    format!("{text}{}", " ".repeat(missing))
}

/// Wraps text to lines of at most `width` columns, between words where possible.
pub fn wrap_words(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut current = String::new();
        for word in line.split(' ') {
            let fits = text_columns(&current) + 1 + text_columns(word) <= width;
            if !current.is_empty() && fits {
                current.push(' ');
            } else if !current.is_empty() {
                lines.push(std::mem::take(&mut current));
            }
            for c in word.chars() {
                if text_columns(&current) + char_columns(c) > width {
                    lines.push(std::mem::take(&mut current));
                }
                current.push(c);
            }
        }
        lines.push(current);
    }
    lines
}

/// Formats an error with the steps that the user can take.
pub fn error_with_hints(error: &ErrorInfo, hint_text: HintFormatter) -> String {
    match hint_sentence(error, hint_text) {
        hints if hints.is_empty() => error.message.clone(),
        hints => format!("{}. {hints}", error.message),
    }
}

/// Formats the steps that the user can take after an error; empty if there are none.
pub fn hint_sentence(error: &ErrorInfo, hint_text: HintFormatter) -> String {
    let hints: Vec<String> = error.next_steps.iter().map(hint_text).collect();
    let hints = hints.join("; ");
    let mut chars = hints.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}", first.to_uppercase(), chars.as_str()))
}

/// Formats a duration: `12 ms`, `1.2 s`, `3 min 4 s`, `2 h 5 min`.
pub fn format_duration(ms: u64) -> String {
    let time = Duration::from_millis(ms);
    match time.as_secs() {
        0 => format!("{ms} ms"),
        1..=9 => format!("{:.1} s", time.as_secs_f64()),
        s @ 10..=59 => format!("{s} s"),
        s @ 60..=3599 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// Formats a count with separators: `12,345`.
pub fn format_count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats dollars with four decimals, since a turn often costs less than a cent.
pub fn format_dollars(usd: f64) -> String {
    format!("${usd:.4}")
}

/// Formats a count with its noun: `1 file`, `2 files`.
pub fn pluralize(n: impl TryInto<u64>, one: &str, many: &str) -> String {
    match n.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    }
}

/// Names the limit that stopped a run.
pub const fn limit_text(limit: LimitKind) -> &'static str {
    match limit {
        LimitKind::Iterations => "turn limit",
        LimitKind::Tokens => "token limit",
        LimitKind::WallClock => "time limit",
        LimitKind::Cost => "cost limit",
        LimitKind::Steps => "step limit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_moves_the_cursor_or_turns_the_line_around() {
        assert_eq!(sanitize_text("a\x1b[31mb\x07\r\n\tc\u{9b}\u{202e}d"), "a␛[31mb␇\n\tc\u{fffd}\u{fffd}d");
        assert_eq!(one_line("  a\n\n b\t\x1bc "), "a b ␛c");
    }

    #[test]
    fn cutting_and_padding_count_columns() {
        assert_eq!(truncate_text("hello", 5), "hello");
        assert_eq!(truncate_text("hello", 4), "hel…");
        assert_eq!(truncate_text("日本語", 5), "日本…");
        assert_eq!(truncate_text_start("日本語", 4), "本語");
        assert_eq!(pad_right("日", 4), "日  ");
        assert_eq!(truncate_text("x", 0), "");
    }

    #[test]
    fn lines_break_between_words_and_inside_those_that_are_too_long() {
        assert_eq!(wrap_words("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap_words("abcdefgh i", 3), ["abc", "def", "gh", "i"]);
        assert_eq!(wrap_words("a\n\nb", 9), ["a", "", "b"]);
    }

    #[test]
    fn hints_follow_the_error_as_a_sentence() {
        let error = ErrorInfo::fatal(forge_types::ErrorKind::Died, "it died");
        assert_eq!(error_with_hints(&error, |_| String::new()), "it died");
        let error =
            error.with_next_steps([forge_types::NextStep::CheckSetup, forge_types::NextStep::ListRuns]);
        assert_eq!(error_with_hints(&error, |_| "look there".to_owned()), "it died. Look there; look there");
    }

    #[test]
    fn times_and_counts_read_well() {
        let all: Vec<_> = [7, 1_234, 59_999, 184_000, 7_500_000].map(format_duration).into();
        assert_eq!(all, ["7 ms", "1.2 s", "59 s", "3 min 4 s", "2 h 5 min"]);
        assert_eq!(["1", "1,234", "1,234,567"], [1, 1_234, 1_234_567].map(format_count)[..]);
    }
}
