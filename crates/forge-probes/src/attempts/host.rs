//! Canaries on the host: objects that no sandbox may reach, created before the attempts and checked afterwards.

use forge_sys as sys;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Size of a shared memory canary in bytes.
const SEGMENT_BYTES: usize = 4096;
/// Mode that lets every user read and write, so that only a namespace protects the object.
const OPEN_MODE: i32 = 0o666;

fn check_result(result: libc::c_long) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}

/// A System V shared memory segment, removed when dropped.
#[derive(Debug)]
pub struct SharedMemoryCanary {
    id: i32,
}

/// A System V message queue with one message, removed when dropped.
#[derive(Debug)]
pub struct MessageQueueCanary {
    id: i32,
}

/// A POSIX message queue, removed when dropped.
#[derive(Debug)]
pub struct PosixQueueCanary {
    name: CString,
    _queue: OwnedFd,
}

impl SharedMemoryCanary {
    /// Creates a segment.
    ///
    /// # Errors
    /// The kernel refuses, or the key is taken.
    pub fn create(key: i32) -> io::Result<Self> {
        // SAFETY: takes integers only.
        let id = check_result(unsafe {
            libc::syscall(libc::SYS_shmget, key, SEGMENT_BYTES, libc::IPC_CREAT | libc::IPC_EXCL | OPEN_MODE)
        })?;
        Ok(Self { id })
    }

    /// Opens the segment with this key in order to remove it.
    #[must_use]
    pub fn open_existing(key: i32) -> Option<Self> {
        // SAFETY: takes integers only.
        check_result(unsafe { libc::syscall(libc::SYS_shmget, key, 0, 0) }).ok().map(|id| Self { id })
    }

    /// Returns how many processes have attached the segment since its creation.
    #[must_use]
    pub fn attach_count(&self) -> u64 {
        // SAFETY: all zeroes is a value of this plain structure.
        let mut state: libc::shmid_ds = unsafe { std::mem::zeroed() };
        // SAFETY: IPC_STAT writes one structure of this type to the pointer, which is to a live local.
        let got = unsafe { libc::shmctl(self.id, libc::IPC_STAT, &raw mut state) };
        if got < 0 { 1 } else { u64::from(state.shm_atime != 0) }
    }
}

impl Drop for SharedMemoryCanary {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID takes no pointer.
        unsafe { libc::shmctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

impl MessageQueueCanary {
    /// Creates a queue and adds a message.
    ///
    /// # Errors
    /// The kernel refuses, or the key is taken.
    pub fn create(key: i32) -> io::Result<Self> {
        // SAFETY: takes integers only.
        let id = check_result(unsafe {
            libc::syscall(libc::SYS_msgget, key, libc::IPC_CREAT | libc::IPC_EXCL | OPEN_MODE)
        })?;
        let queue = Self { id };
        // The type of the message, then its eight bytes.
        let message: [libc::c_long; 2] = [1, 42];
        // SAFETY: the message has a type word and eight bytes, as the size says, and lives across the call.
        check_result(unsafe {
            libc::syscall(libc::SYS_msgsnd, id, message.as_ptr(), 8usize, libc::IPC_NOWAIT)
        })?;
        Ok(queue)
    }

    /// Opens the queue with this key in order to remove it.
    #[must_use]
    pub fn open_existing(key: i32) -> Option<Self> {
        // SAFETY: takes integers only.
        check_result(unsafe { libc::syscall(libc::SYS_msgget, key, 0) }).ok().map(|id| Self { id })
    }

    /// Returns the number of messages; 1 if the queue was not touched.
    #[must_use]
    pub fn message_count(&self) -> u64 {
        // SAFETY: all zeroes is a value of this plain structure.
        let mut state: libc::msqid_ds = unsafe { std::mem::zeroed() };
        // SAFETY: IPC_STAT writes one structure of this type to the pointer, which is to a live local.
        let got = unsafe { libc::msgctl(self.id, libc::IPC_STAT, &raw mut state) };
        if got < 0 { 0 } else { state.msg_qnum }
    }
}

impl Drop for MessageQueueCanary {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID takes no pointer.
        unsafe { libc::msgctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

impl PosixQueueCanary {
    /// Creates a queue; the name contains no slash.
    ///
    /// # Errors
    /// The kernel refuses, or the name is taken.
    pub fn create(name: &str) -> io::Result<Self> {
        let name = CString::new(name)?;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: the name is a C string that lives across the call; without attributes the pointer is null.
        let fd = check_result(unsafe {
            libc::syscall(
                libc::SYS_mq_open,
                name.as_ptr(),
                flags,
                OPEN_MODE,
                std::ptr::null::<libc::c_void>(),
            )
        })?;
        Ok(Self { name, _queue: sys::adopt_fd(fd)? })
    }

    /// Opens the queue with this name in order to remove it.
    #[must_use]
    pub fn open_existing(name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: the name is a C string that lives across the call; without attributes the pointer is null.
        let opened = unsafe {
            libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0, std::ptr::null::<libc::c_void>())
        };
        let fd = check_result(opened).ok()?;
        Some(Self { name, _queue: sys::adopt_fd(fd).ok()? })
    }

    /// Returns the descriptor's number, for messages about it.
    #[must_use]
    pub fn raw_descriptor(&self) -> i32 {
        self._queue.as_raw_fd()
    }
}

impl Drop for PosixQueueCanary {
    fn drop(&mut self) {
        // SAFETY: takes a C string that lives across the call.
        unsafe { libc::syscall(libc::SYS_mq_unlink, self.name.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempts::{AttemptOutcome, EscapeAttempt, make_attempt};

    #[test]
    fn without_a_box_the_canaries_are_found_and_gone_with_their_handles() {
        let key = 0x0F00_0000 | i32::try_from(std::process::id() & 0xFF_FFFF).unwrap();
        let (memory, queue) =
            (SharedMemoryCanary::create(key).unwrap(), MessageQueueCanary::create(key).unwrap());
        let name = format!("forge-test-{key}");
        let posix = PosixQueueCanary::create(&name).unwrap();
        assert_eq!((memory.attach_count(), queue.message_count()), (0, 1));
        let all = [
            EscapeAttempt::SharedMemory(key),
            EscapeAttempt::MessageQueue(key),
            EscapeAttempt::PosixQueue(name),
        ];
        assert!(all.iter().all(|a| matches!(make_attempt(a), AttemptOutcome::Failed(_))));
        let names = ["another", &format!("forge-test-{key}")].map(PosixQueueCanary::open_existing);
        assert!(names[0].is_none() && names[1].is_some());
        let same = (
            SharedMemoryCanary::open_existing(key).unwrap(),
            MessageQueueCanary::open_existing(key).unwrap(),
        );
        assert_eq!((same.0.id, same.1.id), (memory.id, queue.id));
        drop((names, same));
        assert!(
            all.iter().all(|a| matches!(make_attempt(a), AttemptOutcome::Passed(_))),
            "removed without the first handles"
        );
        drop((memory, queue, posix));
        assert!(all.iter().all(|a| matches!(make_attempt(a), AttemptOutcome::Passed(_))));
    }
}
