//! Work under a deadline that costs nothing where the work is done at once.

use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::error::Elapsed;

/// Runs `work` for at most this long. A timer is set only once the work has to wait for something. It is borrowed, because a
/// future that is moved is copied.
///
/// # Errors
/// It took longer.
pub async fn within<F: Future>(longest: Duration, mut work: Pin<&mut F>) -> Result<F::Output, Elapsed> {
    match work.as_mut().now_or_never() {
        Some(output) => Ok(output),
        None => tokio::time::timeout(longest, work).await,
    }
}
