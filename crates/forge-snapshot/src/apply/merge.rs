//! Three-way merge of text.

use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices_deadline};
use std::time::{Duration, Instant};

/// Maximum size in bytes of files that are merged.
pub(super) const MAX_MERGE_BYTES: u64 = 2 << 20;
/// Maximum number of changed lines of files that are merged, because the search for common lines would take too
/// long.
const MAX_CHANGED_LINES: usize = 10_000;
const MERGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Too long to occur as a line of a file.
const CONFLICT_MARKER_CHARS: usize = 120;

/// The result of merging two changes of a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MergeResult {
    /// The merged text.
    Clean(Vec<u8>),
    /// Both sides changed the same lines.
    Conflicting {
        /// Number of conflicting places.
        hunks: usize,
    },
    /// The files are not text or are too large.
    No,
}

/// Merges the changes of the repository (`ours`) and of the run (`theirs`) to `base`.
pub fn merge_texts(base: &[u8], ours: &[u8], theirs: &[u8]) -> MergeResult {
    if ours == theirs || theirs == base {
        return MergeResult::Clean(ours.to_vec());
    }
    if ours == base {
        return MergeResult::Clean(theirs.to_vec());
    }
    let unfit = |bytes: &[u8]| bytes.len() as u64 > MAX_MERGE_BYTES || bytes.contains(&0);
    if unfit(base)
        || unfit(ours)
        || unfit(theirs)
        || exceeds_change_limit(base, ours)
        || exceeds_change_limit(base, theirs)
    {
        return MergeResult::No;
    }
    let mut options = diffy::MergeOptions::new();
    options.set_conflict_marker_length(CONFLICT_MARKER_CHARS);
    match options.merge_bytes(base, ours, theirs) {
        Ok(merged) => MergeResult::Clean(merged),
        Err(marked) => {
            let begin = [b'<'; CONFLICT_MARKER_CHARS];
            let hunks = marked.split(|byte| *byte == b'\n').filter(|line| line.starts_with(&begin)).count();
            MergeResult::Conflicting { hunks: hunks.max(1) }
        }
    }
}

fn exceeds_change_limit(base: &[u8], other: &[u8]) -> bool {
    let lines = |bytes| <[u8]>::split_inclusive(bytes, |byte| *byte == b'\n').collect::<Vec<_>>();
    let deadline = Some(Instant::now() + MERGE_TIMEOUT);
    let ops = capture_diff_slices_deadline(Algorithm::Myers, &lines(base), &lines(other), deadline);
    let changed = |op: &DiffOp| match op.tag() {
        DiffTag::Equal => 0,
        _ => op.old_range().len() + op.new_range().len(),
    };
    ops.iter().map(changed).sum::<usize>() > MAX_CHANGED_LINES
}

#[cfg(test)]
mod tests {
    use super::{MergeResult, merge_texts};

    #[test]
    fn changes_of_different_lines_are_both_there() {
        let base = b"one\ntwo\nthree\nfour\nfive\n";
        let ours = b"ONE\ntwo\nthree\nfour\nfive\n";
        let theirs = b"one\ntwo\nthree\nfour\nfive\nsix";
        assert_eq!(
            merge_texts(base, ours, theirs),
            MergeResult::Clean(b"ONE\ntwo\nthree\nfour\nfive\nsix".to_vec())
        );
    }

    #[test]
    fn changes_of_the_same_line_conflict_and_binary_is_never_merged() {
        assert_eq!(merge_texts(b"a\n", b"b\n", b"c\n"), MergeResult::Conflicting { hunks: 1 });
        assert_eq!(merge_texts(b"a\n", b"b\n", b"c\0\n"), MergeResult::No);
        assert_eq!(merge_texts(b"a\n", b"b\n", b"b\n"), MergeResult::Clean(b"b\n".to_vec()));
    }
}
