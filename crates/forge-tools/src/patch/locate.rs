//! Location of the hunks of a patch in a text, and their application.
//!
//! A hunk belongs at the place in its header, or else at the only other place that matches its old lines. Line ends are
//! ignored if nothing matches exactly, then white space, as in `edit_file`. Hunks never overlap.

use super::{Hunk, HunkLine, LineSign, PatchLineEnd};
use crate::matching::{IndentShift, MAX_COMPARISONS, NearestMatch, find_nearest, matching_windows};
use std::cell::Cell;
use std::ops::Range;

/// A patched text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PatchedText {
    /// The text.
    pub(crate) text: String,
    /// Number of added lines.
    pub(crate) added: usize,
    /// Number of removed lines.
    pub(crate) removed: usize,
    /// Number of hunks found elsewhere than in their header.
    pub(crate) relocated: usize,
    /// Number of hunks matched with white space ignored.
    pub(crate) tolerant: usize,
}

/// The reason why a hunk has no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LocateError {
    /// The old lines match at several places, which begin at these lines, from 1.
    Several(Vec<usize>),
    /// The old lines match nowhere.
    Nowhere(Option<NearestMatch>),
    /// The new lines are already present from this line on, from 1.
    Already(usize),
    /// The hunk has no old lines, and the line in its header is not found.
    NoAnchor(String),
    /// The hunk adds lines after the end of the text, which has this many lines.
    BehindEnd(usize),
    /// The text is so repetitive that the search was given up.
    Repetitive,
}

/// A hunk without a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoMatch {
    /// The index of the hunk.
    pub(crate) hunk: usize,
    /// The reason.
    pub(crate) trouble: LocateError,
}

/// Applies all hunks to a text, or none.
pub(crate) fn apply_hunks(before: &str, hunks: &[Hunk]) -> Result<PatchedText, NoMatch> {
    let file = PatchTarget::new(before);
    let mut placed: Vec<LocatedHunk> = Vec::new();
    let mut result = PatchedText::default();
    let mut drift = 0;
    for (number, hunk) in hunks.iter().enumerate() {
        let found = HunkSearch { file: &file, hunk, located: &placed, left: &file.left }.find(drift);
        let found = found.map_err(|trouble| NoMatch { hunk: number, trouble })?;
        if let Some(at) = hunk.at {
            let now = i64::try_from(found.at).unwrap_or(i64::MAX) - i64::try_from(at).unwrap_or_default();
            result.relocated += usize::from(now != drift);
            drift = now;
        }
        result.tolerant += usize::from(matches!(found.fit, MatchQuality::Shifted(_)));
        result.added += hunk.count_sign(LineSign::Add);
        result.removed += hunk.count_sign(LineSign::Remove);
        placed.push(file.resolve_hunk(hunk, &found));
    }
    placed.sort_by_key(|placed| (placed.core.start, placed.core.end));
    result.text = file.assemble_text(&placed);
    Ok(result)
}

/// The quality of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
enum MatchQuality {
    /// Byte for byte.
    Exact,
    /// Equal except for line ends.
    Ends,
    /// Equal except for white space, with another indentation.
    Shifted(IndentShift),
}

struct HunkCandidate {
    at: usize,
    fit: MatchQuality,
}

struct LocatedHunk {
    /// The lines of the text from the first to the last change.
    core: Range<usize>,
    /// The new lines in their place.
    lines: Vec<String>,
}

struct PatchTarget<'a> {
    /// Lines with their ends.
    lines: Vec<&'a str>,
    /// Lines without their ends.
    bare: Vec<&'a str>,
    /// Whether most lines end with CR LF.
    crlf: bool,
    /// Remaining comparisons.
    left: Cell<usize>,
}

fn strip_line_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// Returns the numbers of unchanged lines at the start and end of a hunk.
fn context_margins(hunk: &Hunk) -> (usize, usize) {
    let lead = hunk.lines.iter().take_while(|line| line.sign == LineSign::Context).count();
    let trail = hunk.lines.iter().rev().take_while(|line| line.sign == LineSign::Context).count();
    (lead, trail)
}

impl<'a> PatchTarget<'a> {
    fn new(text: &'a str) -> Self {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let bare = lines.iter().map(|line| strip_line_end(line)).collect();
        let crs = lines.iter().filter(|line| line.ends_with("\r\n")).count();
        Self { crlf: crs * 2 > lines.len(), bare, lines, left: Cell::new(4 * MAX_COMPARISONS) }
    }

    /// Returns whether the text ends without a line end.
    fn lacks_final_newline(&self) -> bool {
        self.lines.last().is_some_and(|line| !line.ends_with('\n'))
    }

    fn resolve_hunk(&self, hunk: &Hunk, found: &HunkCandidate) -> LocatedHunk {
        let (lead, trail) = context_margins(hunk);
        let old = hunk.old_side().count();
        let core = found.at + lead..found.at + old - trail;
        let around = &self.lines[found.at..found.at + old];
        let crs = around.iter().filter(|line| line.ends_with("\r\n")).count();
        let crlf = if around.is_empty() { self.crlf } else { crs * 2 > around.len() };
        // Lines without any context get the text's line ends.
        let verbatim = found.fit == MatchQuality::Exact && !(around.is_empty() && self.crlf);
        let mut at = core.start;
        let mut lines = Vec::new();
        let body = &hunk.lines[lead..hunk.lines.len() - trail];
        for line in body {
            match line.sign {
                LineSign::Context => lines.push(self.lines[at].to_owned()),
                LineSign::Remove => {}
                LineSign::Add => lines.push(added_line(line, &found.fit, verbatim, crlf)),
            }
            at += usize::from(line.sign != LineSign::Add);
        }
        // A text without a final line end is kept that way, unless the patch states otherwise.
        let at_end = core.end == self.lines.len() && self.lacks_final_newline();
        if at_end
            && found.fit != MatchQuality::Exact
            && body.last().is_some_and(|line| line.sign == LineSign::Add)
            && let Some(last) = lines.last_mut()
        {
            last.truncate(strip_line_end(last).len());
        }
        LocatedHunk { core, lines }
    }

    /// Builds the text from the located hunks, which are sorted.
    fn assemble_text(&self, placed: &[LocatedHunk]) -> String {
        let mut out = String::new();
        let end = if self.crlf { "\r\n" } else { "\n" };
        let mut put = |line: &str| {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push_str(end);
            }
            out.push_str(line);
        };
        let mut done = 0;
        for part in placed {
            self.lines[done..part.core.start].iter().for_each(|line| put(line));
            part.lines.iter().for_each(|line| put(line));
            done = part.core.end;
        }
        self.lines[done..].iter().for_each(|line| put(line));
        out
    }
}

fn added_line(line: &HunkLine, fit: &MatchQuality, verbatim: bool, crlf: bool) -> String {
    if verbatim {
        let end = if line.end == PatchLineEnd::Newline { "\n" } else { "" };
        return format!("{}{end}", line.text);
    }
    let text = strip_line_end(&line.text);
    let text = match fit {
        MatchQuality::Shifted(shift) => shift.shift_line(text),
        _ => text.to_owned(),
    };
    let end = match line.end {
        PatchLineEnd::Nothing => "",
        PatchLineEnd::Newline if crlf => "\r\n",
        PatchLineEnd::Newline => "\n",
    };
    format!("{text}{end}")
}

struct HunkSearch<'a> {
    file: &'a PatchTarget<'a>,
    hunk: &'a Hunk,
    located: &'a [LocatedHunk],
    left: &'a Cell<usize>,
}

impl HunkSearch<'_> {
    fn find(&self, drift: i64) -> Result<HunkCandidate, LocateError> {
        let wanted: Vec<&HunkLine> = self.hunk.old_side().collect();
        let expected =
            self.hunk.at.and_then(|at| usize::try_from(i64::try_from(at).ok()?.checked_add(drift)?).ok());
        if wanted.is_empty() {
            return self.find_insertion(expected);
        }
        for fit in [MatchQuality::Exact, MatchQuality::Ends] {
            if let Some(at) = expected.filter(|&at| self.lines_fit(at, &wanted, &fit) && self.is_free(at)) {
                return Ok(HunkCandidate { at, fit });
            }
        }
        let starts = self.anchor_starts();
        for fit in [MatchQuality::Exact, MatchQuality::Ends] {
            let found = self.find_all(&wanted, &fit)?;
            match self.filter_candidates(found, &starts).as_slice() {
                [] => {}
                [at] => return Ok(HunkCandidate { at: *at, fit }),
                several => return Err(LocateError::Several(several.iter().map(|at| at + 1).collect())),
            }
        }
        self.find_tolerant(&wanted, &starts)
    }

    /// Finds the place of a hunk that only adds lines.
    fn find_insertion(&self, expected: Option<usize>) -> Result<HunkCandidate, LocateError> {
        let end = self.file.lines.len();
        let found = |at| Ok(HunkCandidate { at, fit: MatchQuality::Exact });
        if let Some(at) = expected {
            return if at <= end { found(at) } else { Err(LocateError::BehindEnd(end)) };
        }
        match (self.anchor_starts(), self.hunk.anchors.last()) {
            (Some(starts), _) => match starts.as_slice() {
                [at] => found(at + 1),
                several => Err(LocateError::Several(several.iter().map(|at| at + 1).collect())),
            },
            (None, Some(anchor)) => Err(LocateError::NoAnchor(anchor.clone())),
            (None, None) => Ok(HunkCandidate {
                at: end,
                fit: if self.file.lacks_final_newline() { MatchQuality::Ends } else { MatchQuality::Exact },
            }),
        }
    }

    /// Spends comparisons; returns `false` when none remain.
    fn spend_comparisons(&self, count: usize) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(count));
        left > count
    }

    fn lines_fit(&self, at: usize, wanted: &[&HunkLine], fit: &MatchQuality) -> bool {
        let Some(end) = at.checked_add(wanted.len()).filter(|&end| end <= self.file.lines.len()) else {
            return false;
        };
        let mut compared = 1;
        let fits = (at..end).zip(wanted).all(|(at, line)| {
            compared += 1;
            match fit {
                MatchQuality::Exact => {
                    let stands = self.file.lines[at];
                    match line.end {
                        PatchLineEnd::Newline => stands.strip_suffix('\n') == Some(&line.text),
                        PatchLineEnd::Nothing => stands == line.text,
                    }
                }
                _ => self.file.bare[at] == strip_line_end(&line.text),
            }
        });
        self.spend_comparisons(compared);
        fits
    }

    /// Returns whether the hunk, placed at a line, overlaps no change of another hunk.
    fn is_free(&self, at: usize) -> bool {
        let (lead, trail) = context_margins(self.hunk);
        let core = at + lead..at + self.hunk.old_side().count() - trail;
        self.located.iter().all(|other| other.core.start >= core.end || core.start >= other.core.end)
    }

    /// Returns every place where the lines match.
    fn find_all(&self, wanted: &[&HunkLine], fit: &MatchQuality) -> Result<Vec<usize>, LocateError> {
        let mut found = Vec::new();
        for at in 0..(self.file.lines.len() + 1).saturating_sub(wanted.len()) {
            if self.lines_fit(at, wanted, fit) && self.is_free(at) {
                found.push(at);
            }
            if self.left.get() == 0 {
                return Err(LocateError::Repetitive);
            }
        }
        Ok(found)
    }

    /// Returns the positions of the innermost anchor; `None` if the anchors are absent or not found.
    fn anchor_starts(&self) -> Option<Vec<usize>> {
        let behind = self.located.last().map_or(0, |placed| placed.core.end);
        let stands = |anchor: &str, from: usize| -> Vec<usize> {
            let all = |same: &dyn Fn(&str) -> bool| -> Vec<usize> {
                if !self.spend_comparisons(self.file.bare.len()) {
                    return Vec::new();
                }
                (from..self.file.bare.len()).filter(|&at| same(self.file.bare[at])).collect()
            };
            let exact = all(&|line| line.trim_end() == anchor.trim_end());
            if exact.is_empty() { all(&|line| line.trim() == anchor.trim()) } else { exact }
        };
        let (first, inner) = self.hunk.anchors.split_first()?;
        let mut starts = stands(first, behind);
        if starts.is_empty() {
            starts = stands(first, 0);
        }
        for anchor in inner {
            let all = stands(anchor, 0);
            starts = starts.iter().filter_map(|&start| all.iter().copied().find(|&at| at > start)).collect();
            starts.dedup();
        }
        (!starts.is_empty()).then_some(starts)
    }

    /// Selects the places that may be meant: those after an anchor, at the end, or after the previous hunk.
    fn filter_candidates(&self, found: Vec<usize>, starts: &Option<Vec<usize>>) -> Vec<usize> {
        let lines = self.hunk.old_side().count();
        if self.hunk.at_end
            && let Some(&at) = found.iter().find(|&&at| at + lines == self.file.lines.len())
        {
            return vec![at];
        }
        if let Some(starts) = starts {
            let mut near: Vec<usize> =
                starts.iter().filter_map(|&start| found.iter().copied().find(|&at| at >= start)).collect();
            near.dedup();
            if !near.is_empty() {
                return near;
            }
        }
        let (lead, _) = context_margins(self.hunk);
        let behind = self.located.last().map_or(0, |placed| placed.core.end);
        let later: Vec<usize> = found.iter().copied().filter(|at| at + lead >= behind).collect();
        if later.is_empty() { found } else { later }
    }

    fn find_tolerant(
        &self,
        wanted: &[&HunkLine],
        starts: &Option<Vec<usize>>,
    ) -> Result<HunkCandidate, LocateError> {
        let texts: Vec<&str> = wanted.iter().map(|line| strip_line_end(&line.text)).collect();
        if !self.spend_comparisons(self.file.lines.len()) {
            return Err(LocateError::Repetitive);
        }
        let places: Vec<(usize, IndentShift)> = matching_windows(&self.file.bare, &texts)
            .into_iter()
            .filter(|(at, _)| self.is_free(*at))
            .collect();
        let chosen = self.filter_candidates(places.iter().map(|(at, _)| *at).collect(), starts);
        match chosen.as_slice() {
            [] => Err(self.no_match_error(&texts)),
            [at] => {
                let shift = places.into_iter().find(|place| place.0 == *at).map(|place| place.1);
                let fit = shift.map_or(MatchQuality::Ends, MatchQuality::Shifted);
                Ok(HunkCandidate { at: *at, fit })
            }
            several => Err(LocateError::Several(several.iter().map(|at| at + 1).collect())),
        }
    }

    fn no_match_error(&self, texts: &[&str]) -> LocateError {
        let new: Vec<&HunkLine> = self.hunk.new_side().collect();
        if !new.is_empty()
            && let Ok([at]) = self.find_all(&new, &MatchQuality::Ends).as_deref()
        {
            return LocateError::Already(at + 1);
        }
        LocateError::Nowhere(find_nearest(&self.file.bare, texts))
    }
}
