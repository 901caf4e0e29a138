//! The memory of a project's conversations: one JSON file that people read with `cat` (MEM-1, MEM-2).
//!
//! ```json
//! {"history": [{"role": "user", "content": "…"}], "facts": [{"key": "…", "value": "…"}]}
//! ```
//!
//! Each change is made under a lock on a file beside it and replaces the file in one piece, so that two conversations at
//! once lose nothing and a crash leaves the old or the new file. A file that can't be read as such is set aside as
//! `….corrupt-<time>` and the memory starts anew. Nothing here ends a turn: what does not work is said, and that is all.

mod file;

pub use file::{FileMemory, RepoMemoryGuard};
