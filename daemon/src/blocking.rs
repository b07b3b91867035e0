//! Work on files, off the threads that serve.

use crate::error::{Error, Result};

/// Runs what works on files, or walks a tree of them, where it blocks nobody.
///
/// # Errors
///
/// Those of `work`, and [`Error::Stopping`] when the daemon ends before `work` does.
pub async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Error::Stopping))
}
