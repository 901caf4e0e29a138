//! The user ids of sandboxes started by root, and whether this process can become such a user.

use crate::sys;

/// First of the user ids for sandboxes started by root: above those systemd gives to containers, below its reserved
/// end.
pub(crate) const FIRST_UID: u32 = 0x7000_0000;
/// Number of such ids.
pub(crate) const UID_COUNT: u32 = 0x0040_0000;

/// Returns whether a user id is one of those for sandboxes started by root.
pub(crate) fn is_run_user_id(uid: u32) -> bool {
    (FIRST_UID..FIRST_UID + UID_COUNT).contains(&uid)
}

/// Returns whether this process is root and can become other users.
pub(crate) fn can_change_user(map: &str) -> bool {
    sys::effective_ids().0 == 0 && map_contains(map, FIRST_UID)
}

/// Returns whether a `uid_map` contains `id`.
fn map_contains(map: &str, id: u32) -> bool {
    map_to_outer(map, id).is_some()
}

/// Returns the id in the parent namespace for `id` in this one.
pub(crate) fn map_to_outer(map: &str, id: u32) -> Option<u64> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (inside, outside, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        let offset = u64::from(id).checked_sub(inside)?;
        (offset < count).then_some(outside + offset)
    })
}

#[cfg(test)]
mod tests {
    use super::{map_contains, map_to_outer};

    #[test]
    fn a_mapping_says_which_ids_exist() {
        let full = "         0          0 4294967295\n";
        assert!(map_contains(full, 0x7000_0000));
        assert_eq!(map_to_outer(full, 0), Some(0));
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        assert!(!map_contains(rootless, 0x7000_0000));
        assert_eq!(map_to_outer(rootless, 0), Some(1000));
        assert_eq!(map_to_outer(rootless, 5), Some(100_004));
    }
}
