//! The files of processes in `/proc`: which processes there are, their states and marks.

use std::fs;
use std::io;

/// Returns the process ids in the sandbox, except the init's own.
pub fn process_ids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != 1)
}

/// Returns the number at the beginning of a text, after white space.
pub fn first_number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().skip_while(|b| b.is_ascii_whitespace()).take_while(|b| b.is_ascii_digit());
    let mut number = None;
    for digit in digits {
        number = Some(number.unwrap_or(0_u64).checked_mul(10)?.checked_add(u64::from(digit - b'0'))?);
    }
    number
}

/// First mark of commands: far above any meaningful limit, in microseconds.
const FIRST_MARK: u64 = 1 << 40;

/// Returns the mark of the command with this request number.
pub fn mark_for(id: u64) -> u64 {
    FIRST_MARK.saturating_add(id)
}

/// Returns the mark of the command that a process belongs to. Every process of a command inherits the mark as its limit
/// of real-time processor time, which no process in the sandbox can use. Unlike the session and the parent, it stays
/// when a daemon detaches, and the system call filter lets only the init set it (`forge_seccomp::compile_marking`).
pub fn process_mark(pid: i32) -> Option<u64> {
    let limits = fs::read(format!("/proc/{pid}/limits")).ok()?;
    let mut lines = limits.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.strip_prefix(b"Max realtime timeout")).and_then(first_number)
}

/// Returns whether a process can still act; a dead one only waits for its parent. A process with a dead first thread
/// can have others, and one that cannot be read is not known to be dead.
pub fn is_alive(pid: i32) -> bool {
    if !matches!(read_state(format!("/proc/{pid}/stat")), Some(b'Z' | b'X')) {
        return fs::exists(format!("/proc/{pid}")).unwrap_or(true);
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .map(|thread| thread.path().join("stat"))
        .any(|stat| read_state(&stat).is_some_and(|state| !matches!(state, b'Z' | b'X')))
}

/// Returns the letter for the state of a process or thread, from its `stat`; `None` when it is gone.
pub fn read_state(stat: impl AsRef<std::path::Path>) -> Option<u8> {
    match fs::read(stat) {
        // The name is in parentheses and may contain some itself.
        Ok(text) => {
            let after = text.iter().rposition(|byte| *byte == b')')?;
            text.get(after + 1..)?.iter().copied().find(|byte| !byte.is_ascii_whitespace())
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => None,
        // Treated as running.
        Err(error) => (error.kind() != io::ErrorKind::NotFound).then_some(b'?'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_states_and_marks_are_read_from_bytes() {
        assert_eq!(first_number(b"  \t132 kB"), Some(132));
        assert_eq!(first_number(b"unlimited"), None);
        assert_eq!(first_number(b"99999999999999999999"), None);
        let own = i32::try_from(std::process::id()).unwrap();
        assert_ne!(process_mark(own), Some(mark_for(1)));
        assert!(is_alive(own) && !is_alive(i32::MAX));
        let file = std::env::temp_dir().join(format!("forge-stat-{own}"));
        fs::write(&file, b"12 (\xff\xfe) Z) S 1 2").unwrap();
        assert_eq!(read_state(&file), Some(b'S'));
        fs::remove_file(&file).unwrap();
        assert_eq!(read_state(&file), None);
    }
}
