//! Patches as models write them. Pure: text in, changes or a fault in words out.
//!
//! Two forms are read: unified diffs as `diff -u` and git make them, and the `*** Begin Patch` form. Both become
//! [`FilePatch`]es; [`place`] says where in a text their hunks belong.

mod envelope;
pub(crate) mod locate;
mod unified;

#[cfg(test)]
mod tests;

use crate::terminal::escape_controls;

/// Files that one patch may name.
const MAX_FILES: usize = 200;
/// Hunks that one patch may have.
const MAX_HUNKS: usize = 5000;

/// What a patch does to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineSign {
    /// It stands there and stays.
    Context,
    /// It is new.
    Add,
    /// It goes.
    Remove,
}

/// How a line of a patch ends in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchLineEnd {
    /// With a line end.
    Newline,
    /// With the file: `\ No newline at end of file` follows.
    Nothing,
}

/// A line of a hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HunkLine {
    /// What happens to it.
    pub(crate) sign: LineSign,
    /// Its text without LF; a CR is part of it.
    pub(crate) text: String,
    /// How it ends.
    pub(crate) end: PatchLineEnd,
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
    pub(crate) lines: Vec<HunkLine>,
}

impl Hunk {
    /// The lines that must stand in the file.
    pub(crate) fn old_side(&self) -> impl Iterator<Item = &HunkLine> {
        self.lines.iter().filter(|line| line.sign != LineSign::Add)
    }

    /// The lines that stand there afterwards.
    pub(crate) fn new_side(&self) -> impl Iterator<Item = &HunkLine> {
        self.lines.iter().filter(|line| line.sign != LineSign::Remove)
    }

    /// How many lines have this sign.
    pub(crate) fn count_sign(&self, sign: LineSign) -> usize {
        self.lines.iter().filter(|line| line.sign == sign).count()
    }
}

/// What is done to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileAction {
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
    pub(crate) action: FileAction,
    /// The changes of its lines in the order of the patch.
    pub(crate) hunks: Vec<Hunk>,
    /// Permission bits that the patch asks for.
    pub(crate) mode: Option<u32>,
}

/// Why a text is no patch, in words for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PatchError(pub(crate) String);

impl PatchError {
    /// A fault at a line of the patch, counted from 0.
    fn at_line(line: usize, why: impl std::fmt::Display) -> Self {
        Self(format!("line {} of the patch: {why}", line + 1))
    }
}

/// Reads a patch in whichever form it has.
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

/// The lines of a patch. Where each of them ends with CR LF, these are the patch's line ends and not its text.
fn split_lines(patch: &str) -> Vec<&str> {
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
fn quote_line(line: &str) -> String {
    let short: String = line.chars().take(60).collect();
    let more = if short.len() < line.len() { "…" } else { "" };
    format!("`{}{more}`", escape_controls(&short))
}

/// A line of a hunk; an empty line is an empty line that stays, since editors strip its space.
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

/// What stands in `@@ … @@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HunkRanges {
    old_start: usize,
    old_count: usize,
    new_count: usize,
}

impl HunkRanges {
    /// Reads `@@ -1,2 +3,4 @@ whatever`; `None` if it has no numbers.
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

    /// Where the old lines begin, from 0. A range without lines names the line before it (POSIX `diff -u`).
    const fn at(self) -> usize {
        if self.old_count == 0 { self.old_start } else { self.old_start.saturating_sub(1) }
    }
}

/// What a line `@@ def name` says beside numbers: a line above the hunk. `@@` and `@@ ... @@` say nothing.
fn parse_anchor(line: &str) -> Option<String> {
    let text = line.strip_prefix("@@")?;
    let text = text.strip_prefix(' ').unwrap_or(text);
    let text = text.trim_end();
    let text = text.strip_suffix("@@").map_or(text, str::trim_end);
    let said = !matches!(text.trim(), "" | "..." | "…");
    said.then(|| text.to_owned())
}
