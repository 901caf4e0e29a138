//! Dumps of bytes as `xxd`, `hexdump -C` and `od -t x1z` write them: digits of hex on several lines, with offsets or anything
//! else before them and the text beside them.
//!
//! No form of a line is expected: a secret's digits follow one another in groups of whole bytes, on one line and then
//! anywhere on the next. So it does not matter what `cat -n`, `diff`, `ts` or a person put before them.

use std::ops::Range;

/// Characters between two groups of digits of one line at most.
const MAX_GAP_CHARS: usize = 3;
/// Characters of a line before its digits, or beside them, at most.
const MAX_ASIDE: usize = 512;
/// Ways that are tried from one place for each digit of a secret, so that no text makes the search long.
const MOST_STEPS_PER_DIGIT: usize = 8;

/// Groups of digits in a text.
pub(super) struct HexDump<'a> {
    text: &'a str,
    groups: Vec<Group>,
    lines: Vec<DumpLine>,
}

/// Digits of whole bytes that stand together.
struct Group {
    at: Range<usize>,
    line: usize,
}

struct DumpLine {
    /// Its groups, by number.
    groups: Range<usize>,
    /// Where it ends in the text.
    end: usize,
    ended: bool,
}

/// What was found where digits of a secret begin.
pub(super) enum Found {
    /// All of it: the places of its digits and of what stands beside them.
    Whole(Vec<Range<usize>>),
    /// Its beginning, as far as the text goes.
    Open,
}

/// A group on the way through the digits of a secret.
struct Step {
    group: usize,
    /// What of the group was taken.
    taken: Range<usize>,
    /// Digits of the secret so far.
    matched: usize,
    /// The next way to be tried from here.
    next: usize,
}

impl<'a> HexDump<'a> {
    /// The groups of a text. With `more`, its last line may go on.
    pub(super) fn find_dumps(text: &'a str, more: bool) -> Self {
        let (mut groups, mut lines, mut start) = (Vec::new(), Vec::new(), 0);
        for line in text.split_inclusive('\n') {
            let (first, ended) = (groups.len(), line.ends_with('\n') || !more);
            // Lines without any in a row count as one: most texts have nothing else.
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

    /// Where a secret with these digits, or with `more` its beginning, stands.
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
                return self.whole(&steps, more);
            }
            tries = tries.checked_sub(1)?;
            let (group, matched) = (last.group, last.matched);
            match self.way(group, last.next) {
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

    /// The step onto a group, if its digits from `at` on go on with those of the secret.
    fn step(&self, digits: &[u8], group: usize, at: usize, matched: usize) -> Option<Step> {
        let end = self.groups[group].at.end.min(at + digits.len() - matched);
        let taken = at..end;
        let wanted = &digits[matched..matched + taken.len()];
        let same = self.text.as_bytes()[taken.clone()].eq_ignore_ascii_case(wanted);
        same.then(|| Step { group, matched: matched + taken.len(), taken, next: 0 })
    }

    /// The group that may follow: the next one of the line, then each of the next line. The inner `None` is a way that does
    /// not exist, the outer one the end of all ways.
    fn way(&self, group: usize, number: usize) -> Option<Option<usize>> {
        let Group { at, line } = &self.groups[group];
        let Some(number) = number.checked_sub(1) else {
            let next = self.groups.get(group + 1).filter(|next| next.line == *line);
            return Some(next.filter(|next| next.at.start - at.end <= MAX_GAP_CHARS).map(|_| group + 1));
        };
        let next = self.lines.get(line + 1)?.groups.clone().nth(number)?;
        Some(Some(next))
    }

    /// Whether what follows a group may be still to come.
    fn may_go_on(&self, group: usize) -> bool {
        let Group { at, line } = &self.groups[group];
        let unread = |from: usize| self.text.len() - from <= MAX_ASIDE;
        match self.lines.get(line + 1..).unwrap_or_default() {
            [] => self.lines[*line].ended || unread(at.end),
            [last] => !last.ended && unread(self.lines[*line].end),
            _ => false,
        }
    }

    /// The places of a whole secret, if the last of its lines has ended: what stands beside its digits is known then.
    fn whole(&self, steps: &[Step], more: bool) -> Option<Found> {
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
            let beside: String = bytes.map(shown).collect();
            let from = last.taken.end;
            let rest = &self.text[from..self.lines[self.groups[last.group].line].end];
            // Digits of other bytes may follow; what stands beside all of them begins after a wider gap.
            let from = from + rest.find("  ").unwrap_or(0);
            let rest = &self.text[from..self.lines[self.groups[last.group].line].end];
            places.extend(rest.match_indices(&beside).map(|(at, _)| from + at..from + at + beside.len()));
        }
        Some(Found::Whole(places))
    }
}

/// The groups of a line.
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

/// How a byte is shown beside its digits.
fn shown(digits: &[u8]) -> char {
    let byte = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.map(char::from).filter(|c| (' '..='~').contains(c)).unwrap_or('.')
}
