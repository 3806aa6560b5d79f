//! Background work without input: look at the state, do what is missing, be woken early or run anyway.
//!
//! A reconciler may fail or panic: that is logged, and the next run tries again. Any number of replicas may run the same.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Starts `work`, every `interval` and whenever `wake` is notified, until `stop` turns true; then once more, so that
/// nothing is left over.
pub fn spawn<F, E>(
    name: &'static str,
    interval: Duration,
    wake: Arc<Notify>,
    mut stop: watch::Receiver<bool>,
    work: impl Fn() -> F + Send + Sync + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = Result<(), E>> + Send,
    E: std::fmt::Display,
{
    tokio::spawn(async move {
        let mut failing = false;
        loop {
            let stopping = tokio::select! {
                () = tokio::time::sleep(interval) => false,
                () = wake.notified() => false,
                // A dropped sender means that the process is ending, too.
                _ = stop.wait_for(|stop| *stop) => true,
            };
            match AssertUnwindSafe(work()).catch_unwind().await {
                Ok(Ok(())) => failing = false,
                // Said once, not each second of an outage.
                Ok(Err(error)) if !failing => {
                    failing = true;
                    tracing::warn!(worker = name, error = %error, "background work failed; it will be tried again");
                }
                Ok(Err(_)) => {}
                Err(_) => tracing::error!(worker = name, "background work panicked; it will be tried again"),
            }
            if stopping {
                return;
            }
        }
    })
}
