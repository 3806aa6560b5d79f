//! What connections do, and the end of those that do nothing.
//!
//! Hyper could bound the time for a head, but only once it knows the protocol, and not between the requests of HTTP/2; nor
//! does it end a peer that takes none of its answers. One task looks at all connections in turn: a timer in each would be set
//! anew with every request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::web::long::LongAnswer;

/// Bytes within the idle time that count as doing something: more than the answers to pings.
const PROGRESS_BYTES: u64 = 4 * 1024;
/// How long a connection may do nothing once the server stops.
const QUIET_WHILE_STOPPING: Duration = Duration::from_millis(500);
/// The longest time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// What a connection does.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests whose answer isn't known yet.
    working: AtomicUsize,
    /// Answers that aren't sent yet.
    sending: AtomicUsize,
    /// Beginnings and ends of both.
    steps: AtomicU64,
    /// Bytes that were written.
    written: AtomicU64,
    /// Answers that say little, for as long as they go on; and whether there was ever one.
    long: Mutex<Vec<LongAnswer>>,
    any_long: AtomicBool,
}

impl Activity {
    fn reading(&self) -> (u64, u64) {
        (self.steps.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }

    fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes an answer that may say nothing for as long as it likes.
    pub(super) fn goes_on(&self, answer: LongAnswer) {
        self.long.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        self.any_long.store(true, Ordering::Relaxed);
    }

    fn is_long(&self) -> bool {
        if !self.any_long.load(Ordering::Relaxed) {
            return false;
        }
        let mut long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        long.retain(LongAnswer::goes_on);
        !long.is_empty()
    }

    /// Notes bytes that were written.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A request whose answer isn't known yet.
pub(super) struct Working(Arc<Activity>);

impl Working {
    pub(super) fn begin(activity: Arc<Activity>) -> Self {
        activity.step();
        activity.working.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }

    /// The answer is known: from here on the connection is busy with its body.
    pub(super) fn answered(self) -> Sending {
        self.0.sending.fetch_add(1, Ordering::Relaxed);
        Sending(Arc::clone(&self.0))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.step();
        self.0.working.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that isn't sent yet.
pub(super) struct Sending(Arc<Activity>);

impl Sending {
    /// It may say nothing for as long as it likes.
    pub(super) fn goes_on(&self, answer: LongAnswer) {
        self.0.goes_on(answer);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.step();
        self.0.sending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of one listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Mutex<Watched>>);

#[derive(Debug, Default)]
struct Watched {
    next: u64,
    open: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    activity: Arc<Activity>,
    task: AbortHandle,
    /// When it last did something, as far as was seen, and what it had done by then.
    since: Instant,
    reading: (u64, u64),
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a connection that begins.
    pub(super) fn number(&self) -> u64 {
        let mut watched = self.lock();
        watched.next += 1;
        watched.next
    }

    /// Watches a connection, unless it has ended already.
    pub(super) fn watch(&self, number: u64, activity: Arc<Activity>, task: AbortHandle) {
        let mut watched = self.lock();
        if !task.is_finished() {
            let reading = activity.reading();
            watched.open.insert(number, Connection { activity, task, since: real_now(), reading });
        }
    }

    /// A connection has ended.
    pub(super) fn ended(&self, number: u64) {
        self.lock().open.remove(&number);
    }

    /// Ends connections that have done nothing for `idle`: no request was worked on, none began or ended, no long answer goes
    /// on, and hardly a byte of an answer was taken. Once the server stops, sooner, unless an answer is still on its way. Never returns.
    pub(super) async fn reap(self, idle: Duration, mut stopping: watch::Receiver<bool>) {
        loop {
            let hurry = *stopping.borrow();
            let patience = if hurry { QUIET_WHILE_STOPPING } else { idle };
            tokio::select! {
                () = tokio::time::sleep((patience / 5).min(LOOK)) => {}
                Ok(()) = stopping.changed() => continue,
            }
            let now = real_now();
            self.lock().open.retain(|_, connection| {
                let quiet = is_quiet(connection, now, patience, idle);
                if quiet {
                    connection.task.abort();
                }
                !quiet && !connection.task.is_finished()
            });
        }
    }
}

/// Whether a connection has done nothing for `patience`, or for `idle` while an answer is on its way.
fn is_quiet(connection: &mut Connection, now: Instant, patience: Duration, idle: Duration) -> bool {
    let activity = &connection.activity;
    let reading = activity.reading();
    let progress = reading.0 != connection.reading.0 || reading.1 - connection.reading.1 >= PROGRESS_BYTES;
    if progress || activity.working.load(Ordering::Relaxed) > 0 || activity.is_long() {
        connection.since = now;
        connection.reading = reading;
        return false;
    }
    let patience = if activity.sending.load(Ordering::Relaxed) > 0 { idle } else { patience };
    now.duration_since(connection.since) >= patience
}

/// Sockets keep no test's time.
#[expect(clippy::disallowed_methods, reason = "how long a peer is silent is measured on the runtime's own clock")]
fn real_now() -> Instant {
    Instant::now()
}
