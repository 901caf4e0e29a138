//! Program output as plain text, without terminal escapes and invisible characters.

use forge_ports::sandbox::omission_marker;
use std::fmt::Write as _;

/// Escapes everything that is not a visible part of a single line.
pub(crate) fn escape_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        push_escaped(&mut out, c, |c| c == '\n' || c == '\t');
    }
    out
}

/// Escapes a line of a file like [`escape_controls`], but keeps its tabs.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        push_escaped(&mut out, c, |c| c == '\n');
    }
    out
}

/// Renders a program's output as a terminal would: escape sequences and overwritten progress lines are removed; other
/// control characters appear as `\xNN`, bytes that are not UTF-8 as U+FFFD.
pub(crate) fn render_output(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let line = line.trim_end_matches('\r');
        // A carriage return restarts the line: the text written last counts.
        let last = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default();
        render_line(last, &mut out);
    }
    out
}

fn render_line(line: &str, out: &mut String) {
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => match chars.next() {
                Some('[') => {
                    // CSI: parameters and intermediates, then one final byte (ECMA-48, 5.4).
                    for c in chars.by_ref() {
                        if ('\x40'..='\x7e').contains(&c) {
                            break;
                        }
                    }
                }
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    // A string, up to BEL or ESC \.
                    while let Some(c) = chars.next() {
                        if c == '\x07' || c == '\u{9c}' {
                            break;
                        }
                        if c == '\x1b' {
                            chars.next_if_eq(&'\\');
                            break;
                        }
                    }
                }
                Some('(' | ')' | '*' | '+' | '#' | '%' | ' ') => {
                    chars.next();
                }
                _ => {}
            },
            '\x08' => {
                if !out.ends_with('\n') {
                    out.pop();
                }
            }
            c => push_escaped(out, c, |_| false),
        }
    }
}

fn push_escaped(out: &mut String, c: char, also: impl Fn(char) -> bool) {
    let tab = c == '\t' && !also(c);
    // Bidirectional control characters make text appear different from what it is.
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if tab || !(c.is_control() || turns || also(c)) {
        out.push(c);
    } else {
        // Writing to a String can't fail.
        let _ = match c {
            '\n' => out.write_str("\\n"),
            '\t' => out.write_str("\\t"),
            c if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
            c => write!(out, "\\u{{{:x}}}", u32::from(c)),
        };
    }
}

/// Cuts a text in the middle to about `limit` bytes, at line ends where possible.
pub(crate) fn cut_middle(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let head = floor_boundary(text, limit / 2);
    let head = text[..head].rfind('\n').filter(|&at| at > limit / 4).map_or(head, |at| at + 1);
    let tail = ceil_boundary(text, text.len() - limit / 2);
    let tail = text[tail..].find('\n').filter(|&at| at < limit / 4).map_or(tail, |at| tail + at + 1);
    let left_out = tail - head;
    [text[..head].trim_end_matches('\n'), &omission_marker(left_out as u64), &text[tail..]].concat()
}

/// Returns the last character boundary at or before `at`.
pub(crate) fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

fn ceil_boundary(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|&i| text.is_char_boundary(i)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn output_is_what_a_terminal_would_show() {
        for (raw, wanted) in [
            (&b"plain\ttext\n"[..], "plain\ttext\n"),
            (b"\x1b[1;31mred\x1b[0m\n", "red\n"),
            (b"\x1b]0;title\x07text", "text"),
            (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"\x1bP1$r\x1b\\x", "x"),
            (b"10%\r50%\r100%\ndone\r\n", "100%\ndone\n"),
            (b"abx\x08c", "abc"),
            (b"a\x00b\x07c", "a\\x00b\\x07c"),
            (b"\xff\xfe ok", "\u{fffd}\u{fffd} ok"),
            ("\u{202e}evil".as_bytes(), "\\u{202e}evil"),
            ("\u{9b}31mx".as_bytes(), "\\x9b31mx"),
            (b"\x1b", ""),
        ] {
            assert_eq!(render_output(raw), wanted, "{raw:?}");
        }
        assert_eq!(escape_controls("a\nb\u{1b}[c"), "a\\nb\\x1b[c");
    }

    proptest! {
        #[test]
        fn plain_text_holds_nothing_that_a_terminal_obeys(bytes: Vec<u8>) {
            let text = render_output(&bytes);
            prop_assert!(text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
        }

        #[test]
        fn cutting_keeps_both_ends(text in "(\\PC|\n){0,400}", limit in 40_usize..200) {
            let cut = cut_middle(&text, limit);
            prop_assert!(cut.len() <= limit + 80);
            if text.len() > limit {
                prop_assert!(cut.contains("bytes left out"));
                let (head, tail) = (cut.chars().next(), cut.chars().last());
                prop_assert!(text.starts_with('\n') || head == text.chars().next());
                prop_assert_eq!(tail, text.chars().last());
            }
        }
    }
}
