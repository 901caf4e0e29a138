//! The memory of a project's conversations: one JSON file that people read with `cat` (MEM-1, MEM-2).
//!
//! ```json
//! {"history": [{"role": "user", "content": "…"}], "facts": [{"key": "…", "value": "…"}]}
//! ```
//!
//! Each change is made under a lock on a file next to it and replaces the file atomically, so that concurrent
//! conversations lose nothing and a crash leaves either the old or the new file. A damaged file is renamed to
//! `….corrupt-<time>` and a new memory is started. No error here ends a turn: it is only reported.

mod file;

pub use file::{FileMemory, RepoMemoryGuard};
