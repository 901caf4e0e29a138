//! Patches as models write them. Pure: text in, changes or a fault in words out.
//!
//! Two forms are read: unified diffs as `diff -u` and git make them, and the `*** Begin Patch` form. Both become
//! [`FilePatch`]es; [`place`] says where in a text their hunks belong.

mod envelope;
pub(crate) mod place;
mod unified;

#[cfg(test)]
mod tests;

use crate::terminal::escape;

/// Files that one patch may name.
const MAX_FILES: usize = 200;
/// Hunks that one patch may have.
const MAX_HUNKS: usize = 5000;

/// What a patch does to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It stands there and stays.
    Keep,
    /// It is new.
    Add,
    /// It goes.
    Remove,
}

/// How a line of a patch ends in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a line end.
    Newline,
    /// With the file: `\ No newline at end of file` follows.
    Nothing,
}

/// A line of a hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// What happens to it.
    pub(crate) sign: Sign,
    /// Its text without LF; a CR is part of it.
    pub(crate) text: String,
    /// How it ends.
    pub(crate) end: End,
}

/// Lines that change together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hunk {
    /// Where its old lines begin, from 0; without old lines: before which line it puts the new ones.
    pub(crate) at: Option<usize>,
    /// Lines that stand somewhere above it, outermost first.
    pub(crate) anchors: Vec<String>,
    /// Whether it stands at the end of the file.
    pub(crate) at_end: bool,
    /// Whether the counts of its header were wrong.
    pub(crate) miscounted: bool,
    /// Its lines.
    pub(crate) lines: Vec<Line>,
}

impl Hunk {
    /// The lines that must stand in the file.
    pub(crate) fn old(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.sign != Sign::Add)
    }

    /// The lines that stand there afterwards.
    pub(crate) fn new_side(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.sign != Sign::Remove)
    }

    /// How many lines have this sign.
    pub(crate) fn count(&self, sign: Sign) -> usize {
        self.lines.iter().filter(|line| line.sign == sign).count()
    }
}

/// What is done to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is made.
    Add {
        /// Its path.
        path: String,
    },
    /// It changes; `to` differs from `from` if it moves.
    Update {
        /// Its path before.
        from: String,
        /// Its path afterwards.
        to: String,
    },
    /// A changed copy is made.
    Copy {
        /// The path of what is copied.
        from: String,
        /// The path of the copy.
        to: String,
    },
    /// It is removed.
    Delete {
        /// Its path.
        path: String,
    },
}

/// All that a patch does to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePatch {
    /// What is done to it.
    pub(crate) action: Action,
    /// The changes of its lines in the order of the patch.
    pub(crate) hunks: Vec<Hunk>,
    /// Permission bits that the patch asks for.
    pub(crate) mode: Option<u32>,
}

/// Why a text is no patch, in words for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) String);

impl Fault {
    /// A fault at a line of the patch, counted from 0.
    fn at(line: usize, why: impl std::fmt::Display) -> Self {
        Self(format!("line {} of the patch: {why}", line + 1))
    }
}

/// Reads a patch in whichever form it has.
pub(crate) fn parse(patch: &str) -> Result<Vec<FilePatch>, Fault> {
    let lines = split(patch);
    let enveloped = lines.iter().any(|line| envelope::opens(line));
    let files = if enveloped { envelope::parse(&lines)? } else { unified::parse(&lines)? };
    if files.is_empty() {
        return Err(Fault(
            "no change was found in the patch. Give a unified diff (`--- a/path`, `+++ b/path`, `@@ … @@`) or the \
             `*** Begin Patch` form"
                .to_owned(),
        ));
    }
    if files.len() > MAX_FILES {
        return Err(Fault(format!("the patch names {} files; {MAX_FILES} at most", files.len())));
    }
    let hunks: usize = files.iter().map(|file| file.hunks.len()).sum();
    if hunks > MAX_HUNKS {
        return Err(Fault(format!("the patch has {hunks} hunks; {MAX_HUNKS} at most")));
    }
    Ok(files)
}

/// The lines of a patch. Where each of them ends with CR LF, these are the patch's line ends and not its text.
fn split(patch: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = patch.strip_suffix('\n').unwrap_or(patch).split('\n').collect();
    if lines.iter().all(|line| line.ends_with('\r')) {
        for line in &mut lines {
            *line = &line[..line.len() - 1];
        }
    }
    lines
}

/// For each line the next one from it on that is not blank, or the number of lines.
fn next_texts(lines: &[&str]) -> Vec<usize> {
    let mut next = vec![lines.len(); lines.len() + 1];
    for at in (0..lines.len()).rev() {
        next[at] = if lines[at].trim().is_empty() { next[at + 1] } else { at };
    }
    next
}

/// The beginning of a line of a patch, as a message shows it.
fn quoted(line: &str) -> String {
    let short: String = line.chars().take(60).collect();
    let more = if short.len() < line.len() { "…" } else { "" };
    format!("`{}{more}`", escape(&short))
}

/// A line of a hunk; an empty line is an empty line that stays, since editors strip its space.
fn hunk_line(line: &str) -> Option<Line> {
    let (sign, text) = match line.as_bytes().first() {
        None => (Sign::Keep, ""),
        Some(b'\r') if line.len() == 1 => (Sign::Keep, line),
        Some(b' ') => (Sign::Keep, &line[1..]),
        Some(b'+') => (Sign::Add, &line[1..]),
        Some(b'-') => (Sign::Remove, &line[1..]),
        _ => return None,
    };
    Some(Line { sign, text: text.to_owned(), end: End::Newline })
}

/// What stands in `@@ … @@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ranges {
    old_start: usize,
    old_count: usize,
    new_count: usize,
}

impl Ranges {
    /// Reads `@@ -1,2 +3,4 @@ whatever`; `None` if it has no numbers.
    fn read(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("@@")?.trim_start().strip_prefix('-')?;
        let (old, rest) = rest.split_once(char::is_whitespace)?;
        let rest = rest.trim_start().strip_prefix('+')?;
        let new = rest.split(|c: char| c.is_whitespace() || c == '@').next()?;
        let range = |text: &str| -> Option<(usize, usize)> {
            match text.split_once(',') {
                Some((start, count)) => Some((start.parse().ok()?, count.parse().ok()?)),
                None => Some((text.parse().ok()?, 1)),
            }
        };
        let ((old_start, old_count), (_, new_count)) = (range(old)?, range(new)?);
        Some(Self { old_start, old_count, new_count })
    }

    /// Where the old lines begin, from 0. A range without lines names the line before it (POSIX `diff -u`).
    const fn at(self) -> usize {
        if self.old_count == 0 { self.old_start } else { self.old_start.saturating_sub(1) }
    }
}

/// What a line `@@ def name` says beside numbers: a line above the hunk. `@@` and `@@ ... @@` say nothing.
fn anchor(line: &str) -> Option<String> {
    let text = line.strip_prefix("@@")?;
    let text = text.strip_prefix(' ').unwrap_or(text);
    let text = text.trim_end();
    let text = text.strip_suffix("@@").map_or(text, str::trim_end);
    let said = !matches!(text.trim(), "" | "..." | "…");
    said.then(|| text.to_owned())
}
