//! A file that does not keep still.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two changes: often enough to be met by a reader, and no burden to the machine.
const CHANGE_INTERVAL: Duration = Duration::from_micros(300);
/// Bytes that are added at once.
const APPEND_BYTES: usize = 64 << 10;
/// It is cut when it is longer, so that it does not fill the disk.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// A thread that appends to a file, cuts it, and puts other things into its place, until it is dropped.
#[derive(Debug)]
pub(super) struct ChangingFile {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ChangingFile {
    /// Begins with a plain file at `path`.
    pub(super) fn start(path: &Path) -> io::Result<Self> {
        fs::write(path, "first\n")?;
        let over = Arc::new(AtomicBool::new(false));
        let (seen, place) = (Arc::clone(&over), path.to_owned());
        let thread = std::thread::spawn(move || {
            let mut turn = 0_u32;
            while !seen.load(Ordering::Relaxed) {
                // A run may move or remove it at any moment; then there is nothing to change.
                let _ = change_file(&place, turn);
                turn = turn.wrapping_add(1);
                std::thread::park_timeout(CHANGE_INTERVAL);
            }
        });
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for ChangingFile {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It holds nothing that a panic could leave behind.
            let _ = thread.join();
        }
    }
}

fn change_file(path: &Path, turn: u32) -> io::Result<()> {
    let draft = sibling_path(path);
    match turn % 16 {
        5 => {
            symlink("/dev/zero", &draft)?;
            fs::rename(&draft, path)
        }
        9 => {
            File::create(&draft)?.set_len(1 << 40)?;
            fs::rename(&draft, path)
        }
        6 | 10 => {
            fs::write(&draft, "again\n")?;
            fs::rename(&draft, path)
        }
        15 => OpenOptions::new().write(true).open(path)?.set_len(0),
        _ => {
            let meta = path.symlink_metadata()?;
            if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
                return Ok(());
            }
            OpenOptions::new().append(true).open(path)?.write_all(&[b'#'; APPEND_BYTES])
        }
    }
}

fn sibling_path(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".restless-");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}
