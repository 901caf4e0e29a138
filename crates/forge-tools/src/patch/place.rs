//! Where the hunks of a patch belong in a text, and the text afterwards.
//!
//! A hunk stands where its header says, or else at the only other place where its old lines stand. Line ends are
//! overlooked if nothing fits exactly, then white space, as in `edit_file`. Hunks never overlap.

use super::{End, Hunk, Line, Sign};
use crate::matching::{MAX_COMPARISONS, Nearest, Shift, nearest, windows};
use std::cell::Cell;
use std::ops::Range;

/// A text after its patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The text.
    pub(crate) text: String,
    /// Lines that came.
    pub(crate) added: usize,
    /// Lines that went.
    pub(crate) removed: usize,
    /// Hunks that were found elsewhere than their header says.
    pub(crate) moved: usize,
    /// Hunks whose white space was overlooked.
    pub(crate) tolerant: usize,
}

/// Why a hunk has no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Its old lines stand at several places; their first lines, from 1.
    Several(Vec<usize>),
    /// Its old lines stand nowhere.
    Nowhere(Option<Nearest>),
    /// Its new lines stand there already, from this line on, from 1.
    Already(usize),
    /// It has no old lines and the line that its header names is not there.
    NoAnchor(String),
    /// It puts lines behind the end of the text, which has so many lines.
    BehindEnd(usize),
    /// The text repeats itself so much that the search was given up.
    Repetitive,
}

/// A hunk without a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Miss {
    /// Which hunk, from 0.
    pub(crate) hunk: usize,
    /// Why.
    pub(crate) trouble: Trouble,
}

/// Applies the hunks to a text: all of them or none.
pub(crate) fn apply(before: &str, hunks: &[Hunk]) -> Result<Applied, Miss> {
    let file = File::new(before);
    let mut placed: Vec<Placed> = Vec::new();
    let mut result = Applied::default();
    let mut drift = 0;
    for (number, hunk) in hunks.iter().enumerate() {
        let found = Search { file: &file, hunk, placed: &placed, left: &file.left }.find(drift);
        let found = found.map_err(|trouble| Miss { hunk: number, trouble })?;
        if let Some(at) = hunk.at {
            let now = i64::try_from(found.at).unwrap_or(i64::MAX) - i64::try_from(at).unwrap_or_default();
            result.moved += usize::from(now != drift);
            drift = now;
        }
        result.tolerant += usize::from(matches!(found.fit, Fit::Shifted(_)));
        result.added += hunk.count(Sign::Add);
        result.removed += hunk.count(Sign::Remove);
        placed.push(file.place(hunk, &found));
    }
    placed.sort_by_key(|placed| (placed.core.start, placed.core.end));
    result.text = file.assemble(&placed);
    Ok(result)
}

/// How well the lines of a hunk fit.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fit {
    /// Byte for byte.
    Exact,
    /// But for line ends.
    Ends,
    /// But for white space, indented in another way.
    Shifted(Shift),
}

struct Found {
    at: usize,
    fit: Fit,
}

struct Placed {
    /// The lines of the text between its first and its last change.
    core: Range<usize>,
    /// What stands there afterwards.
    lines: Vec<String>,
}

struct File<'a> {
    /// Lines with their ends.
    lines: Vec<&'a str>,
    /// Lines without.
    bare: Vec<&'a str>,
    /// Whether most lines end with CR LF.
    crlf: bool,
    /// Comparisons that may still be made.
    left: Cell<usize>,
}

fn bare(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// How many unchanged lines a hunk begins and ends with.
fn margins(hunk: &Hunk) -> (usize, usize) {
    let lead = hunk.lines.iter().take_while(|line| line.sign == Sign::Keep).count();
    let trail = hunk.lines.iter().rev().take_while(|line| line.sign == Sign::Keep).count();
    (lead, trail)
}

impl<'a> File<'a> {
    fn new(text: &'a str) -> Self {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let bare = lines.iter().map(|line| bare(line)).collect();
        let crs = lines.iter().filter(|line| line.ends_with("\r\n")).count();
        Self { crlf: crs * 2 > lines.len(), bare, lines, left: Cell::new(4 * MAX_COMPARISONS) }
    }

    /// Whether the text ends without a line end.
    fn open_end(&self) -> bool {
        self.lines.last().is_some_and(|line| !line.ends_with('\n'))
    }

    fn place(&self, hunk: &Hunk, found: &Found) -> Placed {
        let (lead, trail) = margins(hunk);
        let old = hunk.old().count();
        let core = found.at + lead..found.at + old - trail;
        let around = &self.lines[found.at..found.at + old];
        let crs = around.iter().filter(|line| line.ends_with("\r\n")).count();
        let crlf = if around.is_empty() { self.crlf } else { crs * 2 > around.len() };
        // Lines without any context take the ends that the text has.
        let verbatim = found.fit == Fit::Exact && !(around.is_empty() && self.crlf);
        let mut at = core.start;
        let mut lines = Vec::new();
        let body = &hunk.lines[lead..hunk.lines.len() - trail];
        for line in body {
            match line.sign {
                Sign::Keep => lines.push(self.lines[at].to_owned()),
                Sign::Remove => {}
                Sign::Add => lines.push(added(line, &found.fit, verbatim, crlf)),
            }
            at += usize::from(line.sign != Sign::Add);
        }
        // A text without a last line end stays so, unless the patch speaks of it.
        let at_end = core.end == self.lines.len() && self.open_end();
        if at_end
            && found.fit != Fit::Exact
            && body.last().is_some_and(|line| line.sign == Sign::Add)
            && let Some(last) = lines.last_mut()
        {
            last.truncate(bare(last).len());
        }
        Placed { core, lines }
    }

    /// The text with what was placed, which is sorted.
    fn assemble(&self, placed: &[Placed]) -> String {
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

fn added(line: &Line, fit: &Fit, verbatim: bool, crlf: bool) -> String {
    if verbatim {
        let end = if line.end == End::Newline { "\n" } else { "" };
        return format!("{}{end}", line.text);
    }
    let text = bare(&line.text);
    let text = match fit {
        Fit::Shifted(shift) => shift.line(text),
        _ => text.to_owned(),
    };
    let end = match line.end {
        End::Nothing => "",
        End::Newline if crlf => "\r\n",
        End::Newline => "\n",
    };
    format!("{text}{end}")
}

struct Search<'a> {
    file: &'a File<'a>,
    hunk: &'a Hunk,
    placed: &'a [Placed],
    left: &'a Cell<usize>,
}

impl Search<'_> {
    fn find(&self, drift: i64) -> Result<Found, Trouble> {
        let wanted: Vec<&Line> = self.hunk.old().collect();
        let expected =
            self.hunk.at.and_then(|at| usize::try_from(i64::try_from(at).ok()?.checked_add(drift)?).ok());
        if wanted.is_empty() {
            return self.insertion(expected);
        }
        for fit in [Fit::Exact, Fit::Ends] {
            if let Some(at) = expected.filter(|&at| self.fits(at, &wanted, &fit) && self.free(at)) {
                return Ok(Found { at, fit });
            }
        }
        let starts = self.starts();
        for fit in [Fit::Exact, Fit::Ends] {
            let found = self.all(&wanted, &fit)?;
            match self.chosen(found, &starts).as_slice() {
                [] => {}
                [at] => return Ok(Found { at: *at, fit }),
                several => return Err(Trouble::Several(several.iter().map(|at| at + 1).collect())),
            }
        }
        self.tolerant(&wanted, &starts)
    }

    /// The place of lines that come without any that stay or go.
    fn insertion(&self, expected: Option<usize>) -> Result<Found, Trouble> {
        let end = self.file.lines.len();
        let found = |at| Ok(Found { at, fit: Fit::Exact });
        if let Some(at) = expected {
            return if at <= end { found(at) } else { Err(Trouble::BehindEnd(end)) };
        }
        match (self.starts(), self.hunk.anchors.last()) {
            (Some(starts), _) => match starts.as_slice() {
                [at] => found(at + 1),
                several => Err(Trouble::Several(several.iter().map(|at| at + 1).collect())),
            },
            (None, Some(anchor)) => Err(Trouble::NoAnchor(anchor.clone())),
            (None, None) => {
                Ok(Found { at: end, fit: if self.file.open_end() { Fit::Ends } else { Fit::Exact } })
            }
        }
    }

    /// Spends comparisons; `false` when none are left.
    fn spend(&self, count: usize) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(count));
        left > count
    }

    fn fits(&self, at: usize, wanted: &[&Line], fit: &Fit) -> bool {
        let Some(end) = at.checked_add(wanted.len()).filter(|&end| end <= self.file.lines.len()) else {
            return false;
        };
        let mut compared = 1;
        let fits = (at..end).zip(wanted).all(|(at, line)| {
            compared += 1;
            match fit {
                Fit::Exact => {
                    let stands = self.file.lines[at];
                    match line.end {
                        End::Newline => stands.strip_suffix('\n') == Some(&line.text),
                        End::Nothing => stands == line.text,
                    }
                }
                _ => self.file.bare[at] == bare(&line.text),
            }
        });
        self.spend(compared);
        fits
    }

    /// Whether the hunk, beginning at a line, changes nothing that another one changes.
    fn free(&self, at: usize) -> bool {
        let (lead, trail) = margins(self.hunk);
        let core = at + lead..at + self.hunk.old().count() - trail;
        self.placed.iter().all(|other| other.core.start >= core.end || core.start >= other.core.end)
    }

    /// Every place where the lines stand.
    fn all(&self, wanted: &[&Line], fit: &Fit) -> Result<Vec<usize>, Trouble> {
        let mut found = Vec::new();
        for at in 0..(self.file.lines.len() + 1).saturating_sub(wanted.len()) {
            if self.fits(at, wanted, fit) && self.free(at) {
                found.push(at);
            }
            if self.left.get() == 0 {
                return Err(Trouble::Repetitive);
            }
        }
        Ok(found)
    }

    /// The lines of the innermost anchor: all that the hunk could mean. `None` without anchors that stand there.
    fn starts(&self) -> Option<Vec<usize>> {
        let behind = self.placed.last().map_or(0, |placed| placed.core.end);
        let stands = |anchor: &str, from: usize| -> Vec<usize> {
            let all = |same: &dyn Fn(&str) -> bool| -> Vec<usize> {
                if !self.spend(self.file.bare.len()) {
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

    /// Which of all places are meant: those behind an anchor, at the end, or behind the hunk before.
    fn chosen(&self, found: Vec<usize>, starts: &Option<Vec<usize>>) -> Vec<usize> {
        let lines = self.hunk.old().count();
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
        let (lead, _) = margins(self.hunk);
        let behind = self.placed.last().map_or(0, |placed| placed.core.end);
        let later: Vec<usize> = found.iter().copied().filter(|at| at + lead >= behind).collect();
        if later.is_empty() { found } else { later }
    }

    fn tolerant(&self, wanted: &[&Line], starts: &Option<Vec<usize>>) -> Result<Found, Trouble> {
        let texts: Vec<&str> = wanted.iter().map(|line| bare(&line.text)).collect();
        if !self.spend(self.file.lines.len()) {
            return Err(Trouble::Repetitive);
        }
        let places: Vec<(usize, Shift)> =
            windows(&self.file.bare, &texts).into_iter().filter(|(at, _)| self.free(*at)).collect();
        let chosen = self.chosen(places.iter().map(|(at, _)| *at).collect(), starts);
        match chosen.as_slice() {
            [] => Err(self.nowhere(&texts)),
            [at] => {
                let shift = places.into_iter().find(|place| place.0 == *at).map(|place| place.1);
                let fit = shift.map_or(Fit::Ends, Fit::Shifted);
                Ok(Found { at: *at, fit })
            }
            several => Err(Trouble::Several(several.iter().map(|at| at + 1).collect())),
        }
    }

    fn nowhere(&self, texts: &[&str]) -> Trouble {
        let new: Vec<&Line> = self.hunk.new_side().collect();
        if !new.is_empty()
            && let Ok([at]) = self.all(&new, &Fit::Ends).as_deref()
        {
            return Trouble::Already(at + 1);
        }
        Trouble::Nowhere(nearest(&self.file.bare, texts))
    }
}
