//! Blocking work, off the runtime's threads.

use forge_ports::sandbox::Error;

/// Runs work that may wait for a disk on a thread that may block.
///
/// # Errors
/// Returns the error of the work, or [`Error::Died`] if it panics.
pub async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Died { why: error.to_string() })?
}
