//! Files and folders on the host that belong to one process and would outlive it if it were killed: their names say
//! whose they are, so that they can be told from those of a process that lives.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How all such names begin; then the kind, the process's id, when it began, its process namespace, a number.
const PREFIX: &str = "forge-";

/// A name of this kind for something of this process; no two are the same. `kind` is one word.
#[must_use]
pub fn own_name(kind: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let pid = std::process::id();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{kind}-{pid}-{}-{}-{number}", start_time(pid).unwrap_or(0), namespace())
}

/// What is named like [`own_name`] of one of these kinds in `folder`, and whose process is gone.
#[must_use]
pub fn ownerless(folder: &Path, kinds: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let left = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| kinds.iter().any(|kind| is_ownerless(name, kind)))
    });
    left.map(|entry| entry.path()).collect()
}

fn is_ownerless(name: &str, kind: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).and_then(|name| name.strip_prefix(kind)?.strip_prefix('-'));
    let mut parts = rest.unwrap_or_default().split(['-', '.']);
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (Some(pid), Some(started), Some(home)) = (number(), number(), number()) else { return false };
    // A process of another namespace cannot be looked for from here.
    home == namespace() && u32::try_from(pid).is_ok_and(|pid| start_time(pid) != Some(started))
}

/// The name under which the init of a box is seen in `/proc/PID/stat`: the kernel keeps 15 bytes of it, and it stays
/// until every process of the box is dead.
fn init_name(label: &str) -> String {
    let tail: Vec<char> = label.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("box-{}", tail[tail.len().saturating_sub(11)..].iter().collect::<String>())
}

/// Names this process as the init of a box.
pub(crate) fn name_init(label: &str) {
    if let Ok(name) = std::ffi::CString::new(init_name(label)) {
        // Only for those who wait for the end of a box whose owner was killed.
        let _ = rustix::thread::set_name(&name);
    }
}

/// Whether a box with this label lives on this machine, whoever owns it.
#[must_use]
pub fn box_lives(label: &str) -> bool {
    let name = init_name(label);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut processes = entries.filter(|e| e.file_name().as_encoded_bytes()[0].is_ascii_digit());
    processes.any(|process| {
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let Some((before, after)) = stat.rsplit_once(')') else { return false };
        // A zombie is only waited for.
        before.split_once('(').is_some_and(|(_, found)| found == name)
            && !after.trim_start().starts_with(['Z', 'X'])
    })
}

/// The set of processes in which an id means something.
fn namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino())
}

/// When a process started, in clock ticks since boot: with its id it names a process for good.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_named_is_ownerless() {
        let (one, other) = (own_name("box"), own_name("box"));
        assert_ne!(one, other);
        assert!(!is_ownerless(&one, "box") && !is_ownerless(&format!("{one}.pem"), "box"));
        let dead = format!("forge-box-4194304-12-{}-0", namespace());
        assert!(is_ownerless(&dead, "box") && is_ownerless(&format!("{dead}.pem"), "box"));
        let elsewhere = "forge-box-4194304-12-1-0";
        for name in [elsewhere, "forge-box-12", "forge-box-a-b-c", "forge-boxes-0", "box", &dead[6..]] {
            assert!(!is_ownerless(name, "box"), "{name}");
        }
        assert!(!is_ownerless(&dead, "other"));
        let folder = tempfile::tempdir().unwrap();
        for name in [&one, &dead] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(init_name("01a1fec7-4eec-7667-90b6-463dca0a8e04"), "box-63dca0a8e04");
        assert!(!box_lives("no such box"));
        assert_eq!(ownerless(folder.path(), &["other", "box"]), [folder.path().join(&dead)]);
    }
}
