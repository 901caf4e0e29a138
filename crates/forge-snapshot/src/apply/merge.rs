//! Three-way merge of text.

use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices_deadline};
use std::time::{Duration, Instant};

/// Files larger than this, in bytes, are not merged.
pub(super) const LARGEST: u64 = 2 << 20;
/// Nor are files of which more lines than this were changed: the search for common lines would take too long.
const CHANGED_AT_MOST: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(2);
/// Long enough to be no line of a file.
const MARKER: usize = 120;

/// What became of two changes of one text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Merged {
    /// Both are in it.
    Clean(Vec<u8>),
    /// Both changed the same lines.
    Conflicting {
        /// In so many places.
        hunks: usize,
    },
    /// Not text, or too much of it.
    No,
}

/// Merges what the repository (`ours`) and the run (`theirs`) made of `base`.
pub fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> Merged {
    if ours == theirs || theirs == base {
        return Merged::Clean(ours.to_vec());
    }
    if ours == base {
        return Merged::Clean(theirs.to_vec());
    }
    let unfit = |bytes: &[u8]| bytes.len() as u64 > LARGEST || bytes.contains(&0);
    if unfit(base) || unfit(ours) || unfit(theirs) || far(base, ours) || far(base, theirs) {
        return Merged::No;
    }
    let mut options = diffy::MergeOptions::new();
    options.set_conflict_marker_length(MARKER);
    match options.merge_bytes(base, ours, theirs) {
        Ok(merged) => Merged::Clean(merged),
        Err(marked) => {
            let begin = [b'<'; MARKER];
            let hunks = marked.split(|byte| *byte == b'\n').filter(|line| line.starts_with(&begin)).count();
            Merged::Conflicting { hunks: hunks.max(1) }
        }
    }
}

fn far(base: &[u8], other: &[u8]) -> bool {
    let lines = |bytes| <[u8]>::split_inclusive(bytes, |byte| *byte == b'\n').collect::<Vec<_>>();
    let deadline = Some(Instant::now() + PATIENCE);
    let ops = capture_diff_slices_deadline(Algorithm::Myers, &lines(base), &lines(other), deadline);
    let changed = |op: &DiffOp| match op.tag() {
        DiffTag::Equal => 0,
        _ => op.old_range().len() + op.new_range().len(),
    };
    ops.iter().map(changed).sum::<usize>() > CHANGED_AT_MOST
}

#[cfg(test)]
mod tests {
    use super::{Merged, merge};

    #[test]
    fn changes_of_different_lines_are_both_there() {
        let base = b"one\ntwo\nthree\nfour\nfive\n";
        let ours = b"ONE\ntwo\nthree\nfour\nfive\n";
        let theirs = b"one\ntwo\nthree\nfour\nfive\nsix";
        assert_eq!(merge(base, ours, theirs), Merged::Clean(b"ONE\ntwo\nthree\nfour\nfive\nsix".to_vec()));
    }

    #[test]
    fn changes_of_the_same_line_conflict_and_binary_is_never_merged() {
        assert_eq!(merge(b"a\n", b"b\n", b"c\n"), Merged::Conflicting { hunks: 1 });
        assert_eq!(merge(b"a\n", b"b\n", b"c\0\n"), Merged::No);
        assert_eq!(merge(b"a\n", b"b\n", b"b\n"), Merged::Clean(b"b\n".to_vec()));
    }
}
