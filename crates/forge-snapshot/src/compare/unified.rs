//! Unified diffs in git's format.
//!
//! The format is described in `git help diff-generate-patch`. Lines with a leading `#`, which `git apply` ignores,
//! report what it cannot express (directories, named pipes, permission bits except the executable bit, contents that
//! are too large).

use super::quote::quote_path;
use super::{ChangeType, ContentSources, TreeChange, find_renames};
use crate::{RelPath, TreeNode};
use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices_deadline, group_diff_ops};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

/// Time limit for the search for a file's smallest diff; after it, the diff is correct but may be longer.
const DIFF_TIMEOUT: Duration = Duration::from_secs(2);

/// Usual limit of a diff's text, after which files are only named.
const MAX_DIFF_BYTES: usize = 32 << 20;
/// Maximum size of the names of files that are only named.
const MAX_NAMES_BYTES: usize = 4 << 20;

/// Files with a NUL among their first bytes are binary, as in git.
const BINARY_SNIFF_BYTES: usize = 8000;

/// The display of moved files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameDetection {
    /// As `rename from` and `rename to`.
    Detected,
    /// As a removal and an addition.
    Split,
}

/// Options of a diff.
#[derive(Clone, Copy, Debug)]
pub struct DiffOptions {
    /// Number of unchanged lines around a change.
    pub context: usize,
    /// The display of moved files.
    pub renames: RenameDetection,
    /// Maximum size in bytes of files with contents that are shown; larger ones are only named.
    pub largest: u64,
    /// The handling of the text.
    pub text: DiffText,
    /// The handling of bytes that are not UTF-8.
    pub encoding: DiffEncoding,
}

/// The handling of bytes of a diff's lines that are not UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiffEncoding {
    /// They are kept, so that the diff can be applied.
    Exact,
    /// They are replaced by U+FFFD, so that the diff is a text.
    Utf8,
}

/// The handling of a diff's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiffText {
    /// The text is kept. Once it has this many bytes, further files are only named, and counted if there are too many
    /// for that.
    UpTo(usize),
    /// The lines are counted and the text is discarded.
    Counted,
}

impl Default for DiffOptions {
    fn default() -> Self {
        Self {
            context: 3,
            renames: RenameDetection::Detected,
            largest: 2 << 20,
            text: DiffText::UpTo(MAX_DIFF_BYTES),
            encoding: DiffEncoding::Exact,
        }
    }
}

/// A changed path with its line counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CountedChange {
    /// The path (the former path if removed).
    pub path: RelPath,
    /// The former path, if moved.
    pub from: Option<RelPath>,
    /// The kind of the change.
    pub change: ChangeType,
    /// Lines added.
    pub added: usize,
    /// Lines removed.
    pub removed: usize,
    /// Whether the lines are not shown: binary, too large, or content no longer available.
    pub opaque: bool,
}

impl CountedChange {
    /// Returns a line such as `modified src/main.rs (+3 -1)`; the caller must escape control characters of the path.
    pub fn summary_line(&self) -> String {
        let mut line = format!("{} {}", self.change.display_name(), self.path);
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

/// A unified diff.
#[derive(Clone, Debug, Default)]
pub struct UnifiedDiff {
    /// The text. Bytes, because files need not be UTF-8; contains control characters unescaped.
    pub text: Vec<u8>,
    /// The changed paths with their line counts, in the order of the text.
    pub files: Vec<CountedChange>,
}

/// Returns the unified diff of `differences`, with contents from `sources`.
pub fn unified_diff(
    differences: &[TreeChange],
    sources: &ContentSources<'_>,
    look: DiffOptions,
) -> io::Result<UnifiedDiff> {
    unified_diff_below(&RelPath::default(), differences, sources, look)
}

/// Returns a diff like [`unified_diff`], of a tree in the subdirectory `below` of the diff's tree. The paths of
/// [`UnifiedDiff::files`] are relative to the former.
pub fn unified_diff_below(
    below: &RelPath,
    differences: &[TreeChange],
    sources: &ContentSources<'_>,
    look: DiffOptions,
) -> io::Result<UnifiedDiff> {
    let moved =
        if look.renames == RenameDetection::Detected { find_renames(differences) } else { Vec::new() };
    let sources_of: HashMap<usize, usize> = moved.iter().map(|(from, to)| (*to, *from)).collect();
    let left: HashSet<usize> = moved.iter().map(|(from, _)| *from).collect();
    let mut out = DiffWriter {
        below,
        sources,
        options: look,
        diff: UnifiedDiff::default(),
        omission: Omission::default(),
    };
    for (at, difference) in differences.iter().enumerate() {
        sources.bounds.check_stopped()?;
        if look.text == DiffText::Counted {
            out.diff.text.clear();
        }
        if matches!(look.text, DiffText::UpTo(most) if out.diff.text.len() >= most) {
            out.name_change(difference);
        } else if let Some(from) = sources_of.get(&at) {
            out.write_rename(&differences[*from], difference);
        } else if !left.contains(&at) {
            out.write_change(difference, has_nested_change(differences, at))?;
        }
    }
    if out.omission.unnamed > 0 {
        out.write_line(&format!("# not shown: {} more paths", out.omission.unnamed));
    }
    if look.text == DiffText::Counted {
        out.diff.text = Vec::new();
    }
    Ok(out.diff)
}

fn is_file(change: &TreeChange) -> bool {
    [&change.before, &change.after].into_iter().flatten().any(|node| matches!(node, TreeNode::File { .. }))
}

/// The paths at the end of a diff that has reached its limit.
#[derive(Default)]
struct Omission {
    /// Whether there are any.
    has_begun: bool,
    /// Bytes of their names.
    names: usize,
    /// Paths for which the limit of names left no room.
    unnamed: u64,
}

/// Returns whether a later difference is below this one.
fn has_nested_change(differences: &[TreeChange], at: usize) -> bool {
    let mut prefix = differences[at].path.as_bytes().to_vec();
    prefix.push(b'/');
    let next = differences.partition_point(|d| d.path.as_bytes() < prefix.as_slice());
    differences.get(next).is_some_and(|d| d.path.as_bytes().starts_with(&prefix))
}

/// One side of a file's diff.
struct DiffSide {
    /// The git mode; `None` if absent.
    mode: Option<u32>,
    content: SideContent,
    size: u64,
}

enum SideContent {
    Text(Vec<u8>),
    Binary,
    TooLarge,
    Gone,
}

struct DiffWriter<'a> {
    below: &'a RelPath,
    sources: &'a ContentSources<'a>,
    options: DiffOptions,
    diff: UnifiedDiff,
    omission: Omission,
}

/// Returns the git mode of a node; git has no other modes.
fn git_mode(node: Option<&TreeNode>) -> Option<u32> {
    match node? {
        TreeNode::File { mode, .. } if mode & 0o100 != 0 => Some(0o100_755),
        TreeNode::File { .. } => Some(0o100_644),
        TreeNode::Symlink { .. } => Some(0o120_000),
        TreeNode::Dir { .. } | TreeNode::Fifo { .. } => None,
    }
}

fn permission_bits(node: Option<&TreeNode>) -> Option<u32> {
    match node? {
        TreeNode::File { mode, .. } | TreeNode::Dir { mode } | TreeNode::Fifo { mode } => Some(*mode),
        TreeNode::Symlink { .. } => None,
    }
}

impl DiffWriter<'_> {
    fn write_line(&mut self, text: &str) {
        self.diff.text.extend_from_slice(text.as_bytes());
        self.diff.text.push(b'\n');
    }

    fn write_path_line(&mut self, text: &str, prefix: &str, path: &RelPath) {
        self.diff.text.extend_from_slice(text.as_bytes());
        let name = self.diff_path(prefix, path);
        self.diff.text.extend_from_slice(&name);
        self.diff.text.push(b'\n');
    }

    /// Returns a path in the form of the diff.
    fn diff_path(&self, prefix: &str, path: &RelPath) -> Vec<u8> {
        quote_path(prefix, self.below.join(path.as_bytes()).as_bytes())
    }

    fn write_header(&mut self, from: &RelPath, to: &RelPath) {
        self.diff.text.extend_from_slice(b"diff --git ");
        let (from, to) = (self.diff_path("a/", from), self.diff_path("b/", to));
        self.diff.text.extend_from_slice(&from);
        self.diff.text.push(b' ');
        self.diff.text.extend_from_slice(&to);
        self.diff.text.push(b'\n');
    }

    fn write_rename(&mut self, from: &TreeChange, to: &TreeChange) {
        self.write_header(&from.path, &to.path);
        self.write_modes(git_mode(from.before.as_ref()), git_mode(to.after.as_ref()));
        self.write_line("similarity index 100%");
        self.write_path_line("rename from ", "", &from.path);
        self.write_path_line("rename to ", "", &to.path);
        let from = Some(from.path.clone());
        let path = to.path.clone();
        let change = ChangeType::Added;
        self.diff.files.push(CountedChange { path, from, change, added: 0, removed: 0, opaque: false });
    }

    /// Names a change after the limit of the text.
    fn name_change(&mut self, difference: &TreeChange) {
        let path = &difference.path;
        if !self.omission.has_begun {
            // Git refuses a new binary file without its content, and so a diff that is not complete.
            self.write_header(path, path);
            self.write_line("new file mode 100644");
            let name = self.diff_path("b/", path);
            self.diff.text.extend([b"Binary files /dev/null and ", &name[..], b" differ\n"].concat());
            self.omission.has_begun = true;
        }
        let start = self.diff.text.len();
        if self.omission.names < MAX_NAMES_BYTES {
            self.write_path_line("# not shown: ", "", path);
            self.omission.names += self.diff.text.len() - start;
        } else {
            self.omission.unnamed += 1;
        }
        let (change, opaque) = (difference.change_type(), is_file(difference));
        self.diff.files.push(CountedChange {
            path: path.clone(),
            from: None,
            change,
            added: 0,
            removed: 0,
            opaque,
        });
    }

    fn write_modes(&mut self, before: Option<u32>, after: Option<u32>) {
        match (before, after) {
            (Some(before), Some(after)) if before != after => {
                self.write_line(&format!("old mode {before:o}"));
                self.write_line(&format!("new mode {after:o}"));
            }
            (None, Some(after)) => self.write_line(&format!("new file mode {after:o}")),
            (Some(before), None) => self.write_line(&format!("deleted file mode {before:o}")),
            _ => {}
        }
    }

    fn write_change(&mut self, difference: &TreeChange, holds_others: bool) -> io::Result<()> {
        let TreeChange { path, before, after } = difference;
        let change = difference.change_type();
        let start = self.diff.files.len();
        self.write_notes(path, before.as_ref(), after.as_ref(), holds_others);
        let nothing = DiffSide { mode: None, content: SideContent::Text(Vec::new()), size: 0 };
        let old = self.load_side(path, before.as_ref())?;
        let new = self.load_side(path, after.as_ref())?;
        let mut file =
            CountedChange { path: path.clone(), from: None, change, added: 0, removed: 0, opaque: false };
        match (old, new) {
            // git represents a change of type only as a removal and an addition.
            (Some(old), Some(new)) if change == ChangeType::Retyped => {
                self.write_body(path, &old, &nothing, &mut file);
                self.write_body(path, &nothing, &new, &mut file);
            }
            (old, new) => {
                let (old, new) = (old.as_ref().unwrap_or(&nothing), new.as_ref().unwrap_or(&nothing));
                self.write_body(path, old, new, &mut file);
            }
        }
        self.diff.files.insert(start, file);
        Ok(())
    }

    /// Writes lines for changes that git's format cannot express.
    fn write_notes(
        &mut self,
        path: &RelPath,
        before: Option<&TreeNode>,
        after: Option<&TreeNode>,
        holds_others: bool,
    ) {
        let kind = |node: Option<&TreeNode>| match node {
            Some(TreeNode::Dir { .. }) if !holds_others => Some("empty directory"),
            Some(TreeNode::Fifo { .. }) => Some("named pipe"),
            _ => None,
        };
        let retyped = before.map(std::mem::discriminant) != after.map(std::mem::discriminant);
        if retyped {
            if let Some(kind) = kind(before) {
                self.write_path_line(&format!("# {kind} removed: "), "", path);
            }
            if let Some(kind) = kind(after) {
                self.write_path_line(&format!("# {kind} added: "), "", path);
            }
        } else if let (Some(old), Some(new)) = (permission_bits(before), permission_bits(after))
            && old != new
            && git_mode(before) == git_mode(after)
        {
            self.write_path_line(&format!("# permissions {old:o} => {new:o}: "), "", path);
        }
    }

    fn load_side(&self, path: &RelPath, node: Option<&TreeNode>) -> io::Result<Option<DiffSide>> {
        let Some(node) = node else { return Ok(None) };
        let mode = git_mode(Some(node));
        Ok(match node {
            TreeNode::Dir { .. } | TreeNode::Fifo { .. } => None,
            TreeNode::Symlink { target } => {
                Some(DiffSide { mode, content: SideContent::Text(target.clone()), size: target.len() as u64 })
            }
            TreeNode::File { size, .. } if *size > self.options.largest => {
                Some(DiffSide { mode, content: SideContent::TooLarge, size: *size })
            }
            TreeNode::File { size, .. } => {
                let content = match self.sources.read_content(path, node, self.options.largest)? {
                    None => SideContent::Gone,
                    Some(bytes) if bytes[..bytes.len().min(BINARY_SNIFF_BYTES)].contains(&0) => {
                        SideContent::Binary
                    }
                    Some(bytes) => SideContent::Text(bytes),
                };
                Some(DiffSide { mode, content, size: *size })
            }
        })
    }

    fn write_body(&mut self, path: &RelPath, old: &DiffSide, new: &DiffSide, file: &mut CountedChange) {
        if old.mode.is_none() && new.mode.is_none() {
            return;
        }
        if file.change == ChangeType::Mode {
            if old.mode != new.mode {
                self.write_header(path, path);
                self.write_modes(old.mode, new.mode);
            }
            return;
        }
        self.write_header(path, path);
        self.write_modes(old.mode, new.mode);
        let (SideContent::Text(before), SideContent::Text(after)) = (&old.content, &new.content) else {
            return self.write_binary(path, old, new, file);
        };
        let (before, after) = (split_lines(before), split_lines(after));
        let deadline = Some(Instant::now() + DIFF_TIMEOUT);
        let ops = capture_diff_slices_deadline(Algorithm::Myers, &before, &after, deadline);
        let hunks = group_diff_ops(ops, self.options.context);
        if hunks.is_empty() {
            return;
        }
        self.write_file_names(path, old, new, ["--- ", "+++ ", "\n"]);
        for hunk in hunks {
            self.write_hunk(&hunk, &before, &after, file);
        }
    }

    /// Writes `--- a/x` and `+++ b/x`, with `/dev/null` for an absent side.
    fn write_file_names(&mut self, path: &RelPath, old: &DiffSide, new: &DiffSide, around: [&str; 3]) {
        for (begin, prefix, side) in [(around[0], "a/", old), (around[1], "b/", new)] {
            let name: Cow<'_, [u8]> = match side.mode {
                None => Cow::Borrowed(b"/dev/null"),
                Some(_) => Cow::Owned(self.diff_path(prefix, path)),
            };
            self.diff.text.extend_from_slice(begin.as_bytes());
            self.diff.text.extend_from_slice(&name);
            // A tab after a name with spaces marks its end for readers.
            if around[2] == "\n" && name.contains(&b' ') && !name.starts_with(b"\"") {
                self.diff.text.push(b'\t');
            }
            self.diff.text.extend_from_slice(around[2].as_bytes());
        }
    }

    fn write_binary(&mut self, path: &RelPath, old: &DiffSide, new: &DiffSide, file: &mut CountedChange) {
        file.opaque = true;
        self.write_file_names(path, old, new, ["Binary files ", " and ", ""]);
        self.write_line(" differ");
        let is = |wanted: fn(&SideContent) -> bool| wanted(&old.content) || wanted(&new.content);
        if is(|content| matches!(content, SideContent::TooLarge)) {
            self.write_path_line(
                &format!("# too large to show ({} => {} bytes): ", old.size, new.size),
                "",
                path,
            );
        }
        if is(|content| matches!(content, SideContent::Gone)) {
            self.write_path_line("# content no longer available: ", "", path);
        }
    }

    fn write_hunk(&mut self, ops: &[DiffOp], before: &[&[u8]], after: &[&[u8]], file: &mut CountedChange) {
        let (Some(first), Some(last)) = (ops.first(), ops.last()) else { return };
        let old = first.old_range().start..last.old_range().end;
        let new = first.new_range().start..last.new_range().end;
        self.write_line(&format!(
            "@@ -{} +{} @@",
            hunk_range(old.start, old.len()),
            hunk_range(new.start, new.len())
        ));
        for op in ops {
            if op.tag() == DiffTag::Equal {
                self.write_lines(b' ', &before[op.old_range()]);
                continue;
            }
            file.removed += op.old_range().len();
            file.added += op.new_range().len();
            self.write_lines(b'-', &before[op.old_range()]);
            self.write_lines(b'+', &after[op.new_range()]);
        }
    }

    fn write_as_utf8(&mut self, line: &[u8]) {
        for part in line.utf8_chunks() {
            self.diff.text.extend_from_slice(part.valid().as_bytes());
            if !part.invalid().is_empty() {
                self.diff.text.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }

    fn write_lines(&mut self, sign: u8, lines: &[&[u8]]) {
        for line in lines {
            self.diff.text.push(sign);
            match self.options.encoding {
                DiffEncoding::Exact => self.diff.text.extend_from_slice(line),
                DiffEncoding::Utf8 => self.write_as_utf8(line),
            }
            if !line.ends_with(b"\n") {
                self.diff.text.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
    }
}

/// Splits a text into lines, including their line endings.
fn split_lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

/// Returns `start,count` of a hunk's header: counted from 1; an empty span names the line before it.
fn hunk_range(start: usize, count: usize) -> String {
    match count {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        _ => format!("{},{count}", start + 1),
    }
}
