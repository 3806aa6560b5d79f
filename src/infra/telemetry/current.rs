//! The request that is worked on just now: whoever writes a line or leaves a span meanwhile need not be told of it.
//!
//! It goes with the request's future, not with a thread. What a request starts in a task of its own takes it along with
//! [`carried`]; a thread that computes for it, with [`carried_to_thread`].

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::clock::Timestamp;

use super::trace::Trace;

/// What is known of a request, for what is said about it.
pub trait InRequest: Send + Sync + 'static {
    /// Its id.
    fn request_id(&self) -> &str;
    /// The trace that it belongs to, as 32 lower-case hexadecimal digits.
    fn trace_id(&self) -> Option<&str>;
    /// Its place in that trace; only where traces are exported.
    fn trace(&self) -> Option<&Trace>;
    /// Who asks, if they have proved it by now.
    fn caller(&self) -> Option<String>;
    /// The template of the route that was taken, once that is known.
    fn route(&self) -> Option<&str>;
    /// The client's address.
    fn client(&self) -> IpAddr;
    /// What the client calls itself, bounded and without control characters.
    fn user_agent(&self) -> Option<String>;
    /// The code of a denied verification, or of a problem.
    fn code(&self) -> Option<&'static str>;
    /// When its head had come.
    fn arrived(&self) -> Timestamp;
}

tokio::task_local! {
    static CURRENT: Arc<dyn InRequest>;
}

/// Does the work of a request.
pub fn within<F: Future>(request: Arc<dyn InRequest>, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(request, work)
}

/// Does something for a request, without waiting.
pub fn during<T>(request: Arc<dyn InRequest>, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(request, work)
}

/// The present request.
#[must_use]
pub fn get() -> Option<Arc<dyn InRequest>> {
    with(Arc::clone)
}

/// Looks at the present request; `None` if there is none.
pub fn with<T>(look: impl FnOnce(&Arc<dyn InRequest>) -> T) -> Option<T> {
    CURRENT.try_with(look).ok()
}

/// The same work, to be done elsewhere for the present request.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let request = get();
    async move {
        match request {
            Some(request) => CURRENT.scope(request, work).await,
            None => work.await,
        }
    }
}

/// The same for a thread that computes or blocks.
pub fn carried_to_thread<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let request = get();
    move || match request {
        Some(request) => CURRENT.sync_scope(request, work),
        None => work(),
    }
}
