//! The name of a sandbox's init, by which every process of the machine can tell whether the sandbox is still alive.

use std::fs;

/// Returns the name of a sandbox's init in `/proc/PID/stat`: the kernel keeps 15 bytes of it, and it stays until every
/// process of the sandbox is dead.
fn init_process_name(label: &str) -> String {
    let tail: Vec<char> = label.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("box-{}", tail[tail.len().saturating_sub(11)..].iter().collect::<String>())
}

/// Names this process as the init of a sandbox.
pub fn set_init_name(label: &str) {
    if let Ok(name) = std::ffi::CString::new(init_process_name(label)) {
        // Only used by processes that wait for the end of a sandbox after its owner was killed.
        let _ = rustix::thread::set_name(&name);
    }
}

/// Returns whether a sandbox with this label is alive on this machine, under any owner.
#[must_use]
pub fn is_jail_alive(label: &str) -> bool {
    let name = init_process_name(label);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut processes = entries.filter(|e| e.file_name().as_encoded_bytes()[0].is_ascii_digit());
    processes.any(|process| {
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let Some((before, after)) = stat.rsplit_once(')') else { return false };
        // A zombie is already dead.
        before.split_once('(').is_some_and(|(_, found)| found == name)
            && !after.trim_start().starts_with(['Z', 'X'])
    })
}

/// Returns the start time of a process, in clock ticks since boot: with the process id it identifies a process
/// permanently.
pub fn process_start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_known_by_the_end_of_its_label() {
        assert_eq!(init_process_name("01a1fec7-4eec-7667-90b6-463dca0a8e04"), "box-63dca0a8e04");
        assert!(!is_jail_alive("no such box"));
    }
}
