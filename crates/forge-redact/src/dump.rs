//! Dumps of bytes as `xxd`, `hexdump -C` and `od -t x1` write them: an offset, digits of hex, and the text beside them.

use super::views::View;
use std::ops::Range;

/// Digits of an offset.
const OFFSET_DIGITS: std::ops::RangeInclusive<usize> = 6..=16;
/// Bytes on one line at most.
const MAX_BYTES: usize = 256;

/// Characters between two bytes of a line.
const MAX_GAP: usize = 2;

/// Lines of a dump that follow one another.
pub(super) struct Dump {
    /// All digits of the block, and where in the text they stand.
    pub(super) digits: View,
    /// For each byte the character that stands for it beside the digits.
    beside: Vec<Option<Range<usize>>>,
    /// Digits before this one stand on lines that have ended.
    pub(super) ended: usize,
    /// Whether the text ends within the block.
    pub(super) open: bool,
}

impl Dump {
    /// The places in the text that a part of the digits stands for, those beside them included.
    pub(super) fn places(&self, part: &Range<usize>) -> Vec<Range<usize>> {
        let bytes = part.start / 2..part.end.div_ceil(2);
        let mut places: Vec<_> = bytes
            .clone()
            .map(|byte| self.digits.original(byte * 2..byte * 2 + 2))
            .chain(bytes.filter_map(|byte| self.beside[byte].clone()))
            .collect();
        places.sort_by_key(|place| place.start);
        // What stands beside one another becomes one place: a line is taken out once for its digits and once beside them.
        places.dedup_by(|next, before| {
            let joins = next.start <= before.end + MAX_GAP;
            if joins {
                before.end = before.end.max(next.end);
            }
            joins
        });
        places
    }
}

/// A line of a dump.
struct Line {
    /// The digits of each byte, and its place in the line.
    bytes: Vec<(String, Range<usize>)>,
    beside: Vec<Range<usize>>,
}

/// The dumps in a text. With `more`, its last line may go on.
pub(super) fn of(text: &str, more: bool) -> Vec<Dump> {
    let (mut dumps, mut block) = (Vec::new(), Block::default());
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let whole = line.ends_with('\n') || !more;
        let body = line.trim_end_matches(['\n', '\r']);
        match read(body, whole) {
            Some(read) => block.push(&read, at, whole),
            // It may become one.
            None if !whole && body.bytes().all(|b| b.is_ascii_hexdigit() || b == b' ' || b == b':') => {}
            None => dumps.extend(std::mem::take(&mut block).finish(false)),
        }
        at += line.len();
    }
    dumps.extend(block.finish(true));
    dumps
}

/// Where the last line of a text begins, if it has not ended and may be one of a dump.
pub(super) fn begun(text: &str) -> Option<usize> {
    let start = text.rfind('\n').map_or(0, |at| at + 1);
    let line = &text[start..];
    let offset = |b: u8| b.is_ascii_hexdigit() || b == b' ' || b == b':';
    let may_be = !line.is_empty() && (line.bytes().all(offset) || read(line, false).is_some());
    may_be.then_some(start)
}

#[derive(Default)]
struct Block {
    text: String,
    places: Vec<Range<usize>>,
    beside: Vec<Option<Range<usize>>>,
    ended: usize,
}

impl Block {
    fn push(&mut self, line: &Line, at: usize, whole: bool) {
        let moved = |place: &Range<usize>| at + place.start..at + place.end;
        for (number, (digits, place)) in line.bytes.iter().enumerate() {
            self.text.push_str(&digits.to_ascii_lowercase());
            self.places.extend([moved(place), moved(place)]);
            self.beside.push(line.beside.get(number).map(moved));
        }
        if whole {
            self.ended = self.text.len();
        }
    }

    fn finish(self, open: bool) -> Option<Dump> {
        let Self { text, places, beside, ended } = self;
        (!text.is_empty()).then(|| Dump { digits: View::from_parts(text, places), beside, ended, open })
    }
}

/// Reads a line, if it is one of a dump. What stands beside the digits of a line that is not whole is not known.
fn read(line: &str, whole: bool) -> Option<Line> {
    let indent = line.len() - line.trim_start().len();
    let offset = line[indent..].bytes().take_while(u8::is_ascii_hexdigit).count();
    if !OFFSET_DIGITS.contains(&offset) || !line.is_ascii() {
        return None;
    }
    let mut at = indent + offset;
    at += usize::from(line[at..].starts_with(':'));
    if !line[at..].starts_with([' ', '\t']) {
        return None;
    }
    let mut bytes: Vec<(String, Range<usize>)> = Vec::new();
    loop {
        let gap = line[at..].bytes().take_while(|b| *b == b' ' || *b == b'\t').count();
        if gap >= 2 && whole && !bytes.is_empty() {
            // From here on it may be the text beside the digits, which has one character for each byte.
            if let Some(beside) = beside(line, at, gap, bytes.len()) {
                return Some(Line { bytes, beside });
            }
        }
        if gap >= 2 && !whole && !bytes.is_empty() {
            // What follows may be the beginning of that text, which can look like digits. The line waits in any case.
            break;
        }
        at += gap;
        let group = line[at..].bytes().take_while(u8::is_ascii_hexdigit).count();
        let ends = line[at + group..].is_empty() || line[at + group..].starts_with([' ', '\t']);
        if group == 0 || !ends || bytes.len() > MAX_BYTES || (group % 2 == 1 && whole) {
            break;
        }
        bytes.extend(
            (at..at + group - group % 2).step_by(2).map(|at| (line[at..at + 2].to_owned(), at..at + 2)),
        );
        at += group;
    }
    // Without a text beside the digits, they are all there is.
    let is_dump = !bytes.is_empty() && (!whole || line[at..].trim().is_empty());
    is_dump.then_some(Line { bytes, beside: Vec::new() })
}

/// The characters beside the digits, if they begin within the gap at `at`.
fn beside(line: &str, at: usize, gap: usize, count: usize) -> Option<Vec<Range<usize>>> {
    let rest = line[at + gap..].strip_prefix('|').and_then(|rest| rest.strip_suffix('|'));
    let start = match rest {
        Some(rest) if rest.len() == count => at + gap + 1,
        _ => (at + 2..=at + gap).find(|start| line.len() - start == count)?,
    };
    Some((start..start + count).map(|at| at..at + 1).collect())
}
