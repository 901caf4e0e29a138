//! Parsing of patches as models write them. Pure functions: text in, changes or a fault in words out.
//!
//! Two formats are read: unified diffs as written by `diff -u` and git, and the `*** Begin Patch` format. Both become
//! [`FilePatch`]es; [`locate`] finds the places of their hunks in a text.

mod envelope;
pub(crate) mod locate;
mod unified;

#[cfg(test)]
mod tests;

use crate::terminal::escape_controls;

/// Maximum number of files in a patch.
const MAX_FILES: usize = 200;
/// Maximum number of hunks in a patch.
const MAX_HUNKS: usize = 5000;

/// The effect of a patch on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineSign {
    /// The line is kept.
    Context,
    /// The line is added.
    Add,
    /// The line is removed.
    Remove,
}

/// The end of a line of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchLineEnd {
    /// A line end.
    Newline,
    /// The end of the file: `\ No newline at end of file` follows.
    Nothing,
}

/// A line of a hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HunkLine {
    /// The effect on the line.
    pub(crate) sign: LineSign,
    /// The text without LF; a CR is part of it.
    pub(crate) text: String,
    /// The end of the line.
    pub(crate) end: PatchLineEnd,
}

/// A group of lines that change together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hunk {
    /// The first old line, from 0; without old lines, the line before which new ones are inserted.
    pub(crate) at: Option<usize>,
    /// Lines that occur above the hunk, outermost first.
    pub(crate) anchors: Vec<String>,
    /// Whether the hunk belongs at the end of the file.
    pub(crate) at_end: bool,
    /// Whether the counts of the header were wrong.
    pub(crate) miscounted: bool,
    /// The lines.
    pub(crate) lines: Vec<HunkLine>,
}

impl Hunk {
    /// Returns the lines that must be in the file.
    pub(crate) fn old_side(&self) -> impl Iterator<Item = &HunkLine> {
        self.lines.iter().filter(|line| line.sign != LineSign::Add)
    }

    /// Returns the lines that replace them.
    pub(crate) fn new_side(&self) -> impl Iterator<Item = &HunkLine> {
        self.lines.iter().filter(|line| line.sign != LineSign::Remove)
    }

    /// Returns the number of lines with this sign.
    pub(crate) fn count_sign(&self, sign: LineSign) -> usize {
        self.lines.iter().filter(|line| line.sign == sign).count()
    }
}

/// The action on a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileAction {
    /// The file is created.
    Add {
        /// The path.
        path: String,
    },
    /// The file changes; `to` differs from `from` if it moves.
    Update {
        /// The old path.
        from: String,
        /// The new path.
        to: String,
    },
    /// A changed copy is created.
    Copy {
        /// The path of the original.
        from: String,
        /// The path of the copy.
        to: String,
    },
    /// The file is removed.
    Delete {
        /// The path.
        path: String,
    },
}

/// All changes of a patch to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePatch {
    /// The action.
    pub(crate) action: FileAction,
    /// The hunks in the order of the patch.
    pub(crate) hunks: Vec<Hunk>,
    /// Permission bits requested by the patch.
    pub(crate) mode: Option<u32>,
}

/// The reason why a text is no patch, worded for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PatchError(pub(crate) String);

impl PatchError {
    /// Returns a fault at a line of the patch, counted from 0.
    fn at_line(line: usize, why: impl std::fmt::Display) -> Self {
        Self(format!("line {} of the patch: {why}", line + 1))
    }
}

/// Parses a patch of either format.
pub(crate) fn parse_patch(patch: &str) -> Result<Vec<FilePatch>, PatchError> {
    let lines = split_lines(patch);
    let enveloped = lines.iter().any(|line| envelope::is_envelope_line(line));
    let files = if enveloped { envelope::parse_envelope(&lines)? } else { unified::parse_unified(&lines)? };
    if files.is_empty() {
        return Err(PatchError(
            "no change was found in the patch. Give a unified diff (`--- a/path`, `+++ b/path`, `@@ … @@`) or the \
             `*** Begin Patch` form"
                .to_owned(),
        ));
    }
    if files.len() > MAX_FILES {
        return Err(PatchError(format!("the patch names {} files; {MAX_FILES} at most", files.len())));
    }
    let hunks: usize = files.iter().map(|file| file.hunks.len()).sum();
    if hunks > MAX_HUNKS {
        return Err(PatchError(format!("the patch has {hunks} hunks; {MAX_HUNKS} at most")));
    }
    Ok(files)
}

/// Splits a patch into lines. If all of them end with CR LF, the CRs are not part of the text.
fn split_lines(patch: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = patch.strip_suffix('\n').unwrap_or(patch).split('\n').collect();
    if lines.iter().all(|line| line.ends_with('\r')) {
        for line in &mut lines {
            *line = &line[..line.len() - 1];
        }
    }
    lines
}

/// Returns for each line the index of the next line, itself included, that is not blank, or the number of lines.
fn next_texts(lines: &[&str]) -> Vec<usize> {
    let mut next = vec![lines.len(); lines.len() + 1];
    for at in (0..lines.len()).rev() {
        next[at] = if lines[at].trim().is_empty() { next[at + 1] } else { at };
    }
    next
}

/// Quotes the start of a line of a patch for a message.
fn quote_line(line: &str) -> String {
    let short: String = line.chars().take(60).collect();
    let more = if short.len() < line.len() { "…" } else { "" };
    format!("`{}{more}`", escape_controls(&short))
}

/// Parses a line of a hunk; an empty line is an empty context line, since editors strip its space.
fn hunk_line(line: &str) -> Option<HunkLine> {
    let (sign, text) = match line.as_bytes().first() {
        None => (LineSign::Context, ""),
        Some(b'\r') if line.len() == 1 => (LineSign::Context, line),
        Some(b' ') => (LineSign::Context, &line[1..]),
        Some(b'+') => (LineSign::Add, &line[1..]),
        Some(b'-') => (LineSign::Remove, &line[1..]),
        _ => return None,
    };
    Some(HunkLine { sign, text: text.to_owned(), end: PatchLineEnd::Newline })
}

/// The numbers in `@@ … @@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HunkRanges {
    old_start: usize,
    old_count: usize,
    new_count: usize,
}

impl HunkRanges {
    /// Parses `@@ -1,2 +3,4 @@ whatever`; `None` if it has no numbers.
    fn parse(line: &str) -> Option<Self> {
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

    /// Returns the first old line, from 0. A range without lines names the line before it (POSIX `diff -u`).
    const fn at(self) -> usize {
        if self.old_count == 0 { self.old_start } else { self.old_start.saturating_sub(1) }
    }
}

/// Parses the text of a line `@@ def name`, which names a line above the hunk. `@@` and `@@ ... @@` have none.
fn parse_anchor(line: &str) -> Option<String> {
    let text = line.strip_prefix("@@")?;
    let text = text.strip_prefix(' ').unwrap_or(text);
    let text = text.trim_end();
    let text = text.strip_suffix("@@").map_or(text, str::trim_end);
    let said = !matches!(text.trim(), "" | "..." | "…");
    said.then(|| text.to_owned())
}
