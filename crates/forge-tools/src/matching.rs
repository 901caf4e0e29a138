//! Matching of an edit with its place in a text. Pure functions.
//!
//! Line ends never matter: both sides are compared with LF, and inserted text gets the line ends of its place. White
//! space at line ends and a uniformly different indentation are ignored too, but only if exactly one place matches; the
//! new text is then indented like the file.

use similar::TextDiff;
use std::collections::BTreeSet;

/// Maximum length of the nearest match shown, in characters.
const MAX_NEAREST_CHARS: usize = 500;
/// Maximum number of line comparisons in a search.
pub(crate) const MAX_COMPARISONS: usize = 5_000_000;

/// The number of places to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EditScope {
    /// Exactly one place.
    One,
    /// All places.
    All,
}

/// A text after its edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EditedText {
    /// The text.
    pub(crate) text: String,
    /// The lines at which the places begin, before the edit, from 1.
    pub(crate) lines: Vec<usize>,
    /// Whether differences in white space were ignored.
    pub(crate) tolerant: bool,
}

/// The part of a text that resembles the text searched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NearestMatch {
    /// The first line, from 1.
    pub(crate) first: usize,
    /// The last line.
    pub(crate) last: usize,
    /// The text, at most 500 characters.
    pub(crate) text: String,
}

/// The reason why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReplaceError {
    /// There are several matches, which begin at these lines, from 1.
    Several { lines: Vec<usize>, tolerant: bool },
    /// There is no match.
    Nowhere { nearest: Option<NearestMatch> },
    /// The result would exceed the limit.
    TooLarge,
}

/// Replaces `old` with `new` in `content`; the result has at most `limit` bytes.
pub(crate) fn replace_text(
    content: &str,
    old: &str,
    new: &str,
    scope: EditScope,
    limit: usize,
) -> Result<EditedText, ReplaceError> {
    let text = LfText::new(content);
    let (old, new) = (old.replace("\r\n", "\n"), new.replace("\r\n", "\n"));
    let exact = exact_matches(&text.lf, &old, scope);
    if exact.is_empty() {
        return replace_tolerant(&text, &old, &new, limit);
    }
    let lines: Vec<usize> = line_numbers(&text.lf, &exact);
    if scope == EditScope::One && exact.len() > 1 {
        return Err(ReplaceError::Several { lines, tolerant: false });
    }
    let places = exact.iter().map(|&at| (at, at + old.len())).collect::<Vec<_>>();
    Ok(EditedText { text: text.splice(&places, &new, limit)?, lines, tolerant: false })
}

/// Returns the positions of `old`. If one place is wanted, overlapping matches count too, since they are ambiguous.
fn exact_matches(text: &str, old: &str, scope: EditScope) -> Vec<usize> {
    if scope == EditScope::All || old.is_empty() {
        return text.match_indices(old).filter(|_| !old.is_empty()).map(|(at, _)| at).collect();
    }
    let step = old.chars().next().map_or(1, char::len_utf8);
    let mut found = Vec::new();
    let mut from = 0;
    // Each search is linear; in a text that overlaps itself everywhere some matches are enough.
    while found.len() < 1000 {
        let Some(at) = text[from..].find(old) else { break };
        found.push(from + at);
        from += at + step;
    }
    found
}

fn line_numbers(text: &str, places: &[usize]) -> Vec<usize> {
    let (mut line, mut from) = (1, 0);
    places
        .iter()
        .map(|&at| {
            line += text[from..at].bytes().filter(|&byte| byte == b'\n').count();
            from = at;
            line
        })
        .collect()
}

/// A text with LF line ends that records the positions of CRs.
struct LfText<'a> {
    raw: &'a str,
    lf: String,
    /// Positions in `lf` of the line ends that are CRLF in `raw`.
    crs: Vec<usize>,
}

impl<'a> LfText<'a> {
    fn new(raw: &'a str) -> Self {
        let mut lf = String::with_capacity(raw.len());
        let mut crs = Vec::new();
        for (i, part) in raw.split("\r\n").enumerate() {
            if i > 0 {
                crs.push(lf.len());
                lf.push('\n');
            }
            lf.push_str(part);
        }
        Self { raw, lf, crs }
    }

    fn raw_offset(&self, at: usize) -> usize {
        at + self.crs.partition_point(|&cr| cr < at)
    }

    /// Returns whether text inserted here gets CRLF.
    fn uses_crlf(&self, from: usize, to: usize) -> bool {
        let inside = self.lf[from..to].bytes().filter(|&byte| byte == b'\n').count();
        let crs =
            |from, to| self.crs.partition_point(|&cr| cr < to) - self.crs.partition_point(|&cr| cr < from);
        if inside > 0 {
            return crs(from, to) * 2 > inside;
        }
        !self.crs.is_empty() && self.crs.len() * 2 > self.lf.bytes().filter(|&byte| byte == b'\n').count()
    }

    fn splice(&self, places: &[(usize, usize)], new: &str, limit: usize) -> Result<String, ReplaceError> {
        let grown = new.len().saturating_mul(places.len()).saturating_add(self.raw.len());
        if grown > limit.saturating_add(places.iter().map(|(from, to)| to - from).sum()) {
            return Err(ReplaceError::TooLarge);
        }
        let mut out = String::with_capacity(grown);
        let mut done = 0;
        let first = places.first().copied().unwrap_or_default();
        let ends = if self.uses_crlf(first.0, first.1) { new.replace('\n', "\r\n") } else { new.to_owned() };
        for &(from, to) in places {
            out.push_str(&self.raw[done..self.raw_offset(from)]);
            out.push_str(&ends);
            done = self.raw_offset(to);
        }
        out.push_str(&self.raw[done..]);
        Ok(out)
    }
}

/// The conversion of one indentation step between the file and the text searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IndentUnit {
    /// The same in both.
    Same,
    /// A tab in the file for this number of spaces.
    Tab(usize),
    /// This number of spaces in the file for a tab.
    Spaces(usize),
}

impl IndentUnit {
    const ALL: [Self; 7] = [
        Self::Same,
        Self::Tab(2),
        Self::Tab(4),
        Self::Tab(8),
        Self::Spaces(2),
        Self::Spaces(4),
        Self::Spaces(8),
    ];

    fn convert_indent(self, indent: &str) -> Option<String> {
        let count = indent.len();
        match self {
            Self::Same => Some(indent.to_owned()),
            Self::Tab(width) => {
                let whole = count.is_multiple_of(width) && indent.bytes().all(|byte| byte == b' ');
                whole.then(|| "\t".repeat(count / width))
            }
            Self::Spaces(width) => {
                indent.bytes().all(|byte| byte == b'\t').then(|| " ".repeat(count * width))
            }
        }
    }
}

/// The difference in indentation between the file and the text searched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndentShift {
    unit: IndentUnit,
    /// Indentation that the file lacks.
    lacks: String,
    /// Indentation that the file has in addition.
    more: String,
}

impl IndentShift {
    fn apply(&self, indent: &str) -> Option<String> {
        let converted = self.unit.convert_indent(indent)?;
        Some(format!("{}{}", self.more, converted.strip_prefix(self.lacks.as_str())?))
    }

    /// Returns a line with the indentation of the file.
    pub(crate) fn shift_line(&self, line: &str) -> String {
        if line.trim().is_empty() {
            return line.to_owned();
        }
        let old = leading_indent(line);
        // A line with an unrelated indentation begins where the place does.
        let made = self.apply(old).unwrap_or_else(|| self.more.clone());
        made + &line[old.len()..]
    }

    /// Returns every shift that turns `old` into `file`, the simplest first.
    fn candidates(old: &str, file: &str) -> impl Iterator<Item = Self> {
        IndentUnit::ALL.into_iter().filter_map(move |unit| {
            let converted = unit.convert_indent(old)?;
            let (lacks, more) = match (file.strip_suffix(converted.as_str()), converted.strip_suffix(file)) {
                (Some(more), _) => (String::new(), more.to_owned()),
                (None, Some(lacks)) => (lacks.to_owned(), String::new()),
                (None, None) => return None,
            };
            Some(Self { unit, lacks, more })
        })
    }
}

fn leading_indent(line: &str) -> &str {
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

fn replace_tolerant(
    text: &LfText<'_>,
    old: &str,
    new: &str,
    limit: usize,
) -> Result<EditedText, ReplaceError> {
    let lines: Vec<&str> = text.lf.split('\n').collect();
    let whole = old.ends_with('\n');
    let wanted: Vec<&str> = old.strip_suffix('\n').unwrap_or(old).split('\n').collect();
    let nowhere = || ReplaceError::Nowhere { nearest: find_nearest(&lines, &wanted) };
    if old.trim().is_empty() {
        return Err(nowhere());
    }
    let places = matching_windows(&lines, &wanted);
    let (at, shift) = match places.as_slice() {
        [] => return Err(nowhere()),
        [place] => place.clone(),
        several => {
            let lines = several.iter().map(|(at, _)| at + 1).collect();
            return Err(ReplaceError::Several { lines, tolerant: true });
        }
    };
    let start = lines[..at].iter().map(|line| line.len() + 1).sum::<usize>();
    let end = start + lines[at..at + wanted.len()].iter().map(|line| line.len() + 1).sum::<usize>();
    // Each line was counted with its line end, but the last line of the file may have none.
    let end = if whole { end.min(text.lf.len()) } else { end - 1 };
    let text = text.splice(&[(start, end)], &indent_lines(new, &shift), limit)?;
    Ok(EditedText { text, lines: vec![at + 1], tolerant: true })
}

fn indent_lines(new: &str, shift: &IndentShift) -> String {
    new.split('\n').map(|line| shift.shift_line(line)).collect::<Vec<_>>().join("\n")
}

/// Returns every place where the lines match except for white space, with the shift that explains the difference.
pub(crate) fn matching_windows(lines: &[&str], wanted: &[&str]) -> Vec<(usize, IndentShift)> {
    let mut comparisons = 0;
    let mut found = Vec::new();
    for at in 0..(lines.len() + 1).saturating_sub(wanted.len()) {
        let window = &lines[at..at + wanted.len()];
        let same = window.iter().zip(wanted).take_while(|(file, old)| {
            comparisons += 1;
            file.trim() == old.trim()
        });
        if same.count() == wanted.len()
            && let Some(shift) = common_shift(window, wanted)
        {
            found.push((at, shift));
        }
        if comparisons > MAX_COMPARISONS {
            return Vec::new();
        }
    }
    found
}

fn common_shift(window: &[&str], wanted: &[&str]) -> Option<IndentShift> {
    let pairs: Vec<(&str, &str)> = window
        .iter()
        .zip(wanted)
        .filter(|(file, _)| !file.trim().is_empty())
        .map(|(file, old)| (leading_indent(old), leading_indent(file)))
        .collect();
    // The line with the deepest indentation determines the shift.
    let telling = pairs.iter().max_by_key(|(old, file)| (old.len(), file.len()))?;
    IndentShift::candidates(telling.0, telling.1)
        .find(|shift| pairs.iter().all(|(old, file)| shift.apply(old).as_deref() == Some(*file)))
}

/// Returns the part of a text that resembles the lines searched for most, if any does.
pub(crate) fn find_nearest(lines: &[&str], wanted: &[&str]) -> Option<NearestMatch> {
    let sample: Vec<BTreeSet<&str>> =
        wanted.iter().filter(|line| !line.trim().is_empty()).take(12).map(|line| word_set(line)).collect();
    let skipped = wanted.iter().take_while(|line| line.trim().is_empty()).count();
    let most = (MAX_COMPARISONS / 50 / sample.len().max(1)).min(lines.len());
    let bags: Vec<BTreeSet<&str>> = lines[..most].iter().map(|line| word_set(line)).collect();
    let score = |at: usize| -> usize {
        sample
            .iter()
            .zip(&bags[at..])
            .map(|(a, b)| 100 * 2 * a.intersection(b).count() / (a.len() + b.len()).max(1))
            .sum()
    };
    let mut ranked: Vec<(usize, usize)> =
        (0..most).map(|at| (score(at), at)).filter(|(score, _)| *score > 0).collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let height = (wanted.len() - skipped).max(1);
    let goal = truncate_lines(&wanted[skipped..].join("\n")).0;
    let best = ranked
        .iter()
        .take(8)
        .map(|&(_, at)| {
            let part = lines[at..(at + height).min(lines.len())].join("\n");
            (TextDiff::from_chars(goal.as_str(), truncate_lines(&part).0.as_str()).ratio(), at, part)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))
        .filter(|(ratio, ..)| *ratio >= 0.4)?;
    let (text, shown) = truncate_lines(&best.2);
    Some(NearestMatch { first: best.1 + 1, last: best.1 + shown.max(1), text })
}

/// Returns the first characters of a text, in whole lines where possible, and the number of these lines.
fn truncate_lines(text: &str) -> (String, usize) {
    let short: String = text.chars().take(MAX_NEAREST_CHARS).collect();
    let short = match short.rfind('\n') {
        Some(at) if short.len() < text.len() => &short[..at],
        _ => &short,
    };
    (short.to_owned(), short.split('\n').count())
}

fn word_set(line: &str) -> BTreeSet<&str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).take(40).collect()
}
