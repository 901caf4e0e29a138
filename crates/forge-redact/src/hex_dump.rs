//! Hex dumps of `xxd`, `hexdump -C` and `od -t x1z`: hex digits on several lines, with offsets or other text before
//! them and the characters next to them.
//!
//! No line format is assumed: a secret's digits follow one another in groups of whole bytes, on one line and then
//! anywhere on the next. So prefixes added by `cat -n`, `diff`, `ts` or a user do not matter.

use std::ops::Range;

/// Maximum number of characters between two groups of digits on a line.
const MAX_GAP_CHARS: usize = 3;
/// Maximum number of digits of a group that is held back until it is complete.
const MAX_GROUP_DIGITS: usize = 16;
/// Maximum number of characters on a line before its digits, or next to them.
const MAX_ASIDE: usize = 512;
/// Maximum number of steps tried from one position per digit of a secret, which bounds the search in any text.
const MOST_STEPS_PER_DIGIT: usize = 8;

/// The groups of digits in a text.
pub(super) struct HexDump<'a> {
    text: &'a str,
    groups: Vec<Group>,
    lines: Vec<DumpLine>,
}

/// Adjacent digits of whole bytes.
struct Group {
    at: Range<usize>,
    line: usize,
}

struct DumpLine {
    /// Range of its groups in the list of all groups.
    groups: Range<usize>,
    /// End position in the text.
    end: usize,
    ended: bool,
}

/// A match at the digits of a secret.
pub(super) enum Found {
    /// The whole secret: the ranges of its digits and of the characters next to them.
    Whole(Vec<Range<usize>>),
    /// The beginning of the secret, up to the end of the text.
    Open,
}

/// A group matched by the digits of a secret.
struct Step {
    group: usize,
    /// The matched part of the group.
    taken: Range<usize>,
    /// Number of digits matched so far.
    matched: usize,
    /// Number of the next successor to try.
    next: usize,
}

impl<'a> HexDump<'a> {
    /// Finds the groups of a text. `more` means that its last line may continue.
    pub(super) fn find_dumps(text: &'a str, more: bool) -> Self {
        let (mut groups, mut lines, mut start) = (Vec::new(), Vec::new(), 0);
        for line in text.split_inclusive('\n') {
            let (first, ended) = (groups.len(), line.ends_with('\n') || !more);
            // Consecutive lines without groups count as one, because most texts consist of them.
            let plain = lines.last().is_some_and(|last: &DumpLine| last.groups.is_empty());
            let number = lines.len();
            groups.extend(
                groups_of(line).map(|at| Group { at: start + at.start..start + at.end, line: number }),
            );
            start += line.len();
            if plain && ended && first == groups.len() {
                continue;
            }
            lines.push(DumpLine { groups: first..groups.len(), end: start, ended });
        }
        Self { text, groups, lines }
    }

    /// Returns where a secret with these digits is, or with `more` its beginning.
    pub(super) fn find(&self, digits: &str, more: bool) -> Vec<(usize, Found)> {
        let digits = digits.as_bytes();
        let bytes = self.text.as_bytes();
        let mut all = Vec::new();
        for (number, group) in self.groups.iter().enumerate() {
            for at in group.at.clone().step_by(2) {
                let begins = bytes[at].eq_ignore_ascii_case(&digits[0])
                    && bytes[at + 1].eq_ignore_ascii_case(&digits[1]);
                if begins && let Some(found) = self.follow(digits, number, at, more) {
                    all.push((at, found));
                }
            }
        }
        all
    }

    fn follow(&self, digits: &[u8], group: usize, at: usize, more: bool) -> Option<Found> {
        let mut steps = vec![self.step(digits, group, at, 0)?];
        let mut tries = digits.len() * MOST_STEPS_PER_DIGIT;
        while let Some(last) = steps.last_mut() {
            if last.matched == digits.len() {
                return self.complete_secret(&steps, more);
            }
            tries = tries.checked_sub(1)?;
            let (group, matched) = (last.group, last.matched);
            match self.next_group(group, last.next) {
                Some(next) => {
                    last.next += 1;
                    steps.extend(
                        next.and_then(|next| self.step(digits, next, self.groups[next].at.start, matched)),
                    );
                }
                None if more && self.may_go_on(group) => return Some(Found::Open),
                None => drop(steps.pop()),
            }
        }
        None
    }

    /// Returns the step to a group if its digits from `at` on continue those of the secret.
    fn step(&self, digits: &[u8], group: usize, at: usize, matched: usize) -> Option<Step> {
        let end = self.groups[group].at.end.min(at + digits.len() - matched);
        let taken = at..end;
        let wanted = &digits[matched..matched + taken.len()];
        let same = self.text.as_bytes()[taken.clone()].eq_ignore_ascii_case(wanted);
        same.then(|| Step { group, matched: matched + taken.len(), taken, next: 0 })
    }

    /// Returns the next group to try: the following one on the line, then each of the next line. An inner `None` is a
    /// missing successor, the outer `None` the end of the list.
    fn next_group(&self, group: usize, number: usize) -> Option<Option<usize>> {
        let Group { at, line } = &self.groups[group];
        let Some(number) = number.checked_sub(1) else {
            let next = self.groups.get(group + 1).filter(|next| next.line == *line);
            return Some(next.filter(|next| next.at.start - at.end <= MAX_GAP_CHARS).map(|_| group + 1));
        };
        let next = self.lines.get(line + 1)?.groups.clone().nth(number)?;
        Some(Some(next))
    }

    /// Returns whether the successor of a group may still arrive.
    fn may_go_on(&self, group: usize) -> bool {
        let Group { at, line } = &self.groups[group];
        let unread = |from: usize| self.text.len() - from <= MAX_ASIDE;
        match self.lines.get(line + 1..).unwrap_or_default() {
            [] => self.lines[*line].ended || unread(at.end),
            [last] => !last.ended && unread(self.lines[*line].end),
            _ => false,
        }
    }

    /// Returns the ranges of a whole secret, if the last of its lines has ended, so that the characters next to its
    /// digits are known.
    fn complete_secret(&self, steps: &[Step], more: bool) -> Option<Found> {
        let last = steps.last()?;
        let unread = self.text.len() - last.taken.end <= MAX_ASIDE;
        if !self.lines[self.groups[last.group].line].ended && unread {
            return more.then_some(Found::Open);
        }
        let mut places: Vec<Range<usize>> = Vec::new();
        for steps in steps.chunk_by(|a, b| self.groups[a.group].line == self.groups[b.group].line) {
            let (Some(first), Some(last)) = (steps.first(), steps.last()) else { continue };
            places.push(first.taken.start..last.taken.end);
            let bytes = steps.iter().flat_map(|step| self.text.as_bytes()[step.taken.clone()].chunks(2));
            let beside: String = bytes.map(printed_char).collect();
            let from = last.taken.end;
            let rest = &self.text[from..self.lines[self.groups[last.group].line].end];
            // Digits of other bytes may follow; the characters start after a wider gap.
            let from = from + rest.find("  ").unwrap_or(0);
            let rest = &self.text[from..self.lines[self.groups[last.group].line].end];
            places.extend(rest.match_indices(&beside).map(|(at, _)| from + at..from + at + beside.len()));
        }
        Some(Found::Whole(places))
    }
}

/// Returns the start of a group at the end of a text that may lack its last digits, or the length of the text if there is
/// none. Shown in part, it could not be read as whole bytes.
pub(super) fn open_group_start(text: &str) -> usize {
    let word = text.trim_end_matches(|c: char| c.is_ascii_alphanumeric()).len();
    let digits = text[word..].trim_start_matches("0x").trim_start_matches("0X");
    let is_group = digits.len() <= MAX_GROUP_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_group { word } else { text.len() }
}

/// Returns the groups of a line.
fn groups_of(line: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let bytes = line.as_bytes();
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at;
            at += bytes[at..].iter().take_while(|byte| word(byte)).count().max(1);
            let marked = bytes[start..at].starts_with(b"0x") || bytes[start..at].starts_with(b"0X");
            let start = if marked { start + 2 } else { start };
            let digits = &bytes[start..at];
            let whole = !digits.is_empty() && digits.len().is_multiple_of(2);
            if whole && digits.iter().all(u8::is_ascii_hexdigit) {
                return Some(start..at);
            }
        }
        None
    })
}

/// Returns the character shown for a byte next to its digits.
fn printed_char(digits: &[u8]) -> char {
    let byte = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.map(char::from).filter(|c| (' '..='~').contains(c)).unwrap_or('.')
}
