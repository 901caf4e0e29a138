//! Unified diffs as git writes and reads them.
//!
//! The format is git's own (`git help diff-generate-patch`). What it can't say (folders, named pipes, permission bits
//! besides the executable one, contents too large to show) stands in lines that begin with `#`, which `git apply`
//! passes over.

use super::quote::quoted;
use super::{Change, Difference, Sources, renames};
use crate::{Node, RelPath};
use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices_deadline, group_diff_ops};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

/// After this long the search for the smallest diff of a file ends; what it gives is right, if longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Files with a NUL among their first bytes are binary, as git judges.
const SNIFF: usize = 8000;

/// Whether files that moved are shown as such.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renames {
    /// `rename from`, `rename to`.
    Shown,
    /// A removal and an addition.
    Split,
}

/// How a diff is to look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Unchanged lines around a change.
    pub context: usize,
    /// Files that moved.
    pub renames: Renames,
    /// Files larger than this, in bytes, are named and not shown.
    pub largest: u64,
    /// What becomes of the text.
    pub text: Text,
}

/// What becomes of the text of a diff.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Text {
    /// It is kept. Once it has so many bytes, further files are named and not shown.
    UpTo(usize),
    /// Its lines are counted, and it is thrown away.
    Counted,
}

impl Default for Look {
    fn default() -> Self {
        Self { context: 3, renames: Renames::Shown, largest: 2 << 20, text: Text::UpTo(64 << 20) }
    }
}

/// One changed path, counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileChange {
    /// Where it stands (or stood, if it was removed).
    pub path: RelPath,
    /// Where it stood before, if it moved.
    pub from: Option<RelPath>,
    /// What happened.
    pub change: Change,
    /// Lines added.
    pub added: usize,
    /// Lines removed.
    pub removed: usize,
    /// Whether its lines are not shown: binary, too large, or its content is no longer to be had.
    pub opaque: bool,
}

impl FileChange {
    /// `modified src/main.rs (+3 -1)`; control characters of the path are left to who prints it.
    pub fn line(&self) -> String {
        let mut line = format!("{} {}", self.change.word(), self.path);
        if let Some(from) = &self.from {
            line = format!("moved {from} => {}", self.path);
        }
        if self.opaque {
            line.push_str(" (binary)");
        } else if self.added + self.removed > 0 {
            line.push_str(&format!(" (+{} -{})", self.added, self.removed));
        }
        line
    }
}

/// A diff.
#[derive(Clone, Debug, Default)]
pub struct Unified {
    /// The text. Bytes, because files need not be UTF-8; control characters stand in it as in the files.
    pub text: Vec<u8>,
    /// Each path of it, counted, in the order of the text.
    pub files: Vec<FileChange>,
}

/// The unified diff of `differences`, with contents from `sources`.
pub fn unified(differences: &[Difference], sources: &Sources<'_>, look: Look) -> io::Result<Unified> {
    unified_below(&RelPath::default(), differences, sources, look)
}

/// [`unified`] of a tree that stands in the folder `below` of the tree that the diff is of. The counted paths of
/// [`Unified::files`] stay as they are in their own tree.
pub fn unified_below(
    below: &RelPath,
    differences: &[Difference],
    sources: &Sources<'_>,
    look: Look,
) -> io::Result<Unified> {
    let moved = if look.renames == Renames::Shown { renames(differences) } else { Vec::new() };
    let sources_of: HashMap<usize, usize> = moved.iter().map(|(from, to)| (*to, *from)).collect();
    let left: HashSet<usize> = moved.iter().map(|(from, _)| *from).collect();
    let mut out = Writer { below, sources, look, diff: Unified::default() };
    for (at, difference) in differences.iter().enumerate() {
        sources.bounds.check()?;
        match look.text {
            Text::UpTo(most) if out.diff.text.len() >= most => out.look.largest = 0,
            Text::UpTo(_) => {}
            Text::Counted => out.diff.text.clear(),
        }
        if let Some(from) = sources_of.get(&at) {
            out.renamed(&differences[*from], difference);
        } else if !left.contains(&at) {
            out.difference(difference, holds_others(differences, at))?;
        }
    }
    if look.text == Text::Counted {
        out.diff.text = Vec::new();
    }
    Ok(out.diff)
}

/// Whether a later difference lies below this one.
fn holds_others(differences: &[Difference], at: usize) -> bool {
    let mut prefix = differences[at].path.as_bytes().to_vec();
    prefix.push(b'/');
    let next = differences.partition_point(|d| d.path.as_bytes() < prefix.as_slice());
    differences.get(next).is_some_and(|d| d.path.as_bytes().starts_with(&prefix))
}

/// One side of a file in a diff.
struct Side {
    /// git's mode, `None` for nothing.
    mode: Option<u32>,
    content: Content,
    size: u64,
}

enum Content {
    Text(Vec<u8>),
    Binary,
    TooLarge,
    Gone,
}

struct Writer<'a> {
    below: &'a RelPath,
    sources: &'a Sources<'a>,
    look: Look,
    diff: Unified,
}

/// What git calls the mode of a node; it knows no others.
fn git_mode(node: Option<&Node>) -> Option<u32> {
    match node? {
        Node::File { mode, .. } if mode & 0o100 != 0 => Some(0o100_755),
        Node::File { .. } => Some(0o100_644),
        Node::Symlink { .. } => Some(0o120_000),
        Node::Dir { .. } | Node::Fifo { .. } => None,
    }
}

fn permissions(node: Option<&Node>) -> Option<u32> {
    match node? {
        Node::File { mode, .. } | Node::Dir { mode } | Node::Fifo { mode } => Some(*mode),
        Node::Symlink { .. } => None,
    }
}

impl Writer<'_> {
    fn line(&mut self, text: &str) {
        self.diff.text.extend_from_slice(text.as_bytes());
        self.diff.text.push(b'\n');
    }

    fn line_path(&mut self, text: &str, prefix: &str, path: &RelPath) {
        self.diff.text.extend_from_slice(text.as_bytes());
        let name = self.name(prefix, path);
        self.diff.text.extend_from_slice(&name);
        self.diff.text.push(b'\n');
    }

    /// A path as it reads in the diff.
    fn name(&self, prefix: &str, path: &RelPath) -> Vec<u8> {
        quoted(prefix, self.below.join(path.as_bytes()).as_bytes())
    }

    fn header(&mut self, from: &RelPath, to: &RelPath) {
        self.diff.text.extend_from_slice(b"diff --git ");
        let (from, to) = (self.name("a/", from), self.name("b/", to));
        self.diff.text.extend_from_slice(&from);
        self.diff.text.push(b' ');
        self.diff.text.extend_from_slice(&to);
        self.diff.text.push(b'\n');
    }

    fn renamed(&mut self, from: &Difference, to: &Difference) {
        self.header(&from.path, &to.path);
        self.modes(git_mode(from.before.as_ref()), git_mode(to.after.as_ref()));
        self.line("similarity index 100%");
        self.line_path("rename from ", "", &from.path);
        self.line_path("rename to ", "", &to.path);
        let from = Some(from.path.clone());
        let path = to.path.clone();
        let change = Change::Added;
        self.diff.files.push(FileChange { path, from, change, added: 0, removed: 0, opaque: false });
    }

    fn modes(&mut self, before: Option<u32>, after: Option<u32>) {
        match (before, after) {
            (Some(before), Some(after)) if before != after => {
                self.line(&format!("old mode {before:o}"));
                self.line(&format!("new mode {after:o}"));
            }
            (None, Some(after)) => self.line(&format!("new file mode {after:o}")),
            (Some(before), None) => self.line(&format!("deleted file mode {before:o}")),
            _ => {}
        }
    }

    fn difference(&mut self, difference: &Difference, holds_others: bool) -> io::Result<()> {
        let Difference { path, before, after } = difference;
        let change = difference.change();
        let start = self.diff.files.len();
        self.notes(path, before.as_ref(), after.as_ref(), holds_others);
        let nothing = Side { mode: None, content: Content::Text(Vec::new()), size: 0 };
        let old = self.side(path, before.as_ref())?;
        let new = self.side(path, after.as_ref())?;
        let mut file =
            FileChange { path: path.clone(), from: None, change, added: 0, removed: 0, opaque: false };
        match (old, new) {
            // git knows a change of kind only as a removal and an addition.
            (Some(old), Some(new)) if change == Change::Retyped => {
                self.body(path, &old, &nothing, &mut file);
                self.body(path, &nothing, &new, &mut file);
            }
            (old, new) => {
                let (old, new) = (old.as_ref().unwrap_or(&nothing), new.as_ref().unwrap_or(&nothing));
                self.body(path, old, new, &mut file);
            }
        }
        self.diff.files.insert(start, file);
        Ok(())
    }

    /// What git's format has no words for.
    fn notes(&mut self, path: &RelPath, before: Option<&Node>, after: Option<&Node>, holds_others: bool) {
        let kind = |node: Option<&Node>| match node {
            Some(Node::Dir { .. }) if !holds_others => Some("empty folder"),
            Some(Node::Fifo { .. }) => Some("named pipe"),
            _ => None,
        };
        let retyped = before.map(std::mem::discriminant) != after.map(std::mem::discriminant);
        if retyped {
            if let Some(kind) = kind(before) {
                self.line_path(&format!("# {kind} removed: "), "", path);
            }
            if let Some(kind) = kind(after) {
                self.line_path(&format!("# {kind} added: "), "", path);
            }
        } else if let (Some(old), Some(new)) = (permissions(before), permissions(after))
            && old != new
            && git_mode(before) == git_mode(after)
        {
            self.line_path(&format!("# permissions {old:o} => {new:o}: "), "", path);
        }
    }

    fn side(&self, path: &RelPath, node: Option<&Node>) -> io::Result<Option<Side>> {
        let Some(node) = node else { return Ok(None) };
        let mode = git_mode(Some(node));
        Ok(match node {
            Node::Dir { .. } | Node::Fifo { .. } => None,
            Node::Symlink { target } => {
                Some(Side { mode, content: Content::Text(target.clone()), size: target.len() as u64 })
            }
            Node::File { size, .. } if *size > self.look.largest => {
                Some(Side { mode, content: Content::TooLarge, size: *size })
            }
            Node::File { size, .. } => {
                let content = match self.sources.read(path, node, self.look.largest)? {
                    None => Content::Gone,
                    Some(bytes) if bytes[..bytes.len().min(SNIFF)].contains(&0) => Content::Binary,
                    Some(bytes) => Content::Text(bytes),
                };
                Some(Side { mode, content, size: *size })
            }
        })
    }

    fn body(&mut self, path: &RelPath, old: &Side, new: &Side, file: &mut FileChange) {
        if old.mode.is_none() && new.mode.is_none() {
            return;
        }
        if file.change == Change::Mode {
            if old.mode != new.mode {
                self.header(path, path);
                self.modes(old.mode, new.mode);
            }
            return;
        }
        self.header(path, path);
        self.modes(old.mode, new.mode);
        let (Content::Text(before), Content::Text(after)) = (&old.content, &new.content) else {
            return self.opaque(path, old, new, file);
        };
        let (before, after) = (lines(before), lines(after));
        let deadline = Some(Instant::now() + PATIENCE);
        let ops = capture_diff_slices_deadline(Algorithm::Myers, &before, &after, deadline);
        let hunks = group_diff_ops(ops, self.look.context);
        if hunks.is_empty() {
            return;
        }
        self.names(path, old, new, ["--- ", "+++ ", "\n"]);
        for hunk in hunks {
            self.hunk(&hunk, &before, &after, file);
        }
    }

    /// `--- a/x`, `+++ b/x`, with `/dev/null` for a side that is not there.
    fn names(&mut self, path: &RelPath, old: &Side, new: &Side, around: [&str; 3]) {
        for (begin, prefix, side) in [(around[0], "a/", old), (around[1], "b/", new)] {
            let name: Cow<'_, [u8]> = match side.mode {
                None => Cow::Borrowed(b"/dev/null"),
                Some(_) => Cow::Owned(self.name(prefix, path)),
            };
            self.diff.text.extend_from_slice(begin.as_bytes());
            self.diff.text.extend_from_slice(&name);
            // A name with a space is ended by a tab, so that readers know where it ends.
            if around[2] == "\n" && name.contains(&b' ') && !name.starts_with(b"\"") {
                self.diff.text.push(b'\t');
            }
            self.diff.text.extend_from_slice(around[2].as_bytes());
        }
    }

    fn opaque(&mut self, path: &RelPath, old: &Side, new: &Side, file: &mut FileChange) {
        file.opaque = true;
        self.names(path, old, new, ["Binary files ", " and ", ""]);
        self.line(" differ");
        let is = |wanted: fn(&Content) -> bool| wanted(&old.content) || wanted(&new.content);
        if is(|content| matches!(content, Content::TooLarge)) {
            self.line_path(&format!("# too large to show ({} => {} bytes): ", old.size, new.size), "", path);
        }
        if is(|content| matches!(content, Content::Gone)) {
            self.line_path("# its content is no longer to be had: ", "", path);
        }
    }

    fn hunk(&mut self, ops: &[DiffOp], before: &[&[u8]], after: &[&[u8]], file: &mut FileChange) {
        let (Some(first), Some(last)) = (ops.first(), ops.last()) else { return };
        let old = first.old_range().start..last.old_range().end;
        let new = first.new_range().start..last.new_range().end;
        self.line(&format!("@@ -{} +{} @@", span(old.start, old.len()), span(new.start, new.len())));
        for op in ops {
            if op.tag() == DiffTag::Equal {
                self.lines(b' ', &before[op.old_range()]);
                continue;
            }
            file.removed += op.old_range().len();
            file.added += op.new_range().len();
            self.lines(b'-', &before[op.old_range()]);
            self.lines(b'+', &after[op.new_range()]);
        }
    }

    fn lines(&mut self, sign: u8, lines: &[&[u8]]) {
        for line in lines {
            self.diff.text.push(sign);
            self.diff.text.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                self.diff.text.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
    }
}

/// Lines with their ends.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

/// `start,count` as a hunk's header counts: from 1, and an empty span names the line before it.
fn span(start: usize, count: usize) -> String {
    match count {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        _ => format!("{},{count}", start + 1),
    }
}
