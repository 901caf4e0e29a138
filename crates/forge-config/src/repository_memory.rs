//! The memory of conversations that came with a repository.

use std::path::Path;

/// Path of the memory in a repository, where earlier versions stored it.
pub const REPOSITORY_MEMORY_PATH: &str = ".forge/memory/memory.json";
/// Size in bytes of the largest memory that is read.
pub(crate) const MAX_MEMORY_BYTES: u64 = 8 << 20;

/// Reads the memory that came with a repository without following links on the way to it.
pub(crate) fn read_repository_memory(repo: &Path) -> Result<Vec<u8>, forge_files::Error> {
    forge_files::read_within(repo, Path::new(REPOSITORY_MEMORY_PATH), MAX_MEMORY_BYTES)
}
