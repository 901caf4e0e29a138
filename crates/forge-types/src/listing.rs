//! Limits of the lists of paths in events and reports: what lists every path of a large change costs memory in every
//! reader and helps none.

use crate::WorkspaceChange;

/// Maximum number of paths that an event or a report lists.
pub const MAX_LISTED_PATHS: usize = 10_000;
/// Maximum number of bytes of the paths and texts that an event or a report lists.
pub const MAX_LISTED_BYTES: usize = 1 << 20;

/// Truncates a list of paths to what an event or a report may list, given the bytes of an item; returns the number of
/// omitted items.
pub fn truncate_listing<T>(list: &mut Vec<T>, item_bytes: impl Fn(&T) -> usize) -> u64 {
    let mut bytes = 0_usize;
    let fits = |item: &T| {
        bytes = bytes.saturating_add(item_bytes(item));
        bytes <= MAX_LISTED_BYTES
    };
    let kept = list.iter().take(MAX_LISTED_PATHS).map(fits).take_while(|fits| *fits).count();
    let omitted = list.len() - kept;
    if omitted > 0 {
        list.truncate(kept);
        list.shrink_to_fit();
    }
    omitted as u64
}

/// A list of changed paths for a report: the first ones, the number of the others, and the lines of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeList {
    /// The listed paths.
    pub files: Vec<WorkspaceChange>,
    /// The number of paths that are not listed.
    pub omitted: u64,
    /// Lines added in all paths.
    pub added: u64,
    /// Lines removed in all paths.
    pub removed: u64,
}

impl ChangeList {
    /// Returns a list of all these paths, whatever their number.
    pub fn complete(files: Vec<WorkspaceChange>) -> Self {
        let sum = |count: fn(&WorkspaceChange) -> Option<u64>| files.iter().filter_map(count).sum();
        let (added, removed) = (sum(|file| file.added), sum(|file| file.removed));
        Self { files, omitted: 0, added, removed }
    }

    /// Returns whether nothing changed.
    pub const fn is_empty(&self) -> bool {
        self.files.is_empty() && self.omitted == 0
    }

    /// Returns the number of changed paths, listed or not.
    pub const fn count(&self) -> u64 {
        self.files.len() as u64 + self.omitted
    }
}

impl From<Vec<WorkspaceChange>> for ChangeList {
    /// Lists the first of these paths.
    fn from(files: Vec<WorkspaceChange>) -> Self {
        let mut list = Self::complete(files);
        list.omitted = truncate_listing(&mut list.files, |file| file.path.len());
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChangeKind;

    fn change(path: String) -> WorkspaceChange {
        WorkspaceChange { path, kind: ChangeKind::Modified, added: Some(2), removed: None }
    }

    #[test]
    fn a_list_ends_at_its_number_of_paths_and_at_their_bytes() {
        let list =
            ChangeList::from((0..MAX_LISTED_PATHS + 5).map(|n| change(n.to_string())).collect::<Vec<_>>());
        assert_eq!((list.files.len(), list.omitted), (MAX_LISTED_PATHS, 5));
        assert_eq!((list.count(), list.added, list.removed), (10_005, 20_010, 0));
        let long = "d".repeat(MAX_LISTED_BYTES / 4);
        let list = ChangeList::from(vec![change(long); 6]);
        assert_eq!((list.files.len(), list.omitted, list.is_empty()), (4, 2, false));
        let list = ChangeList::from(vec![change("d".repeat(MAX_LISTED_BYTES + 1))]);
        assert_eq!((list.files.len(), list.omitted, list.is_empty()), (0, 1, false));
    }
}
