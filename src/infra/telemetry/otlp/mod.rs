//! Export of traces and logs by OTLP, as protobuf over HTTP.
//!
//! Whoever has something to export leaves it in a bounded queue under a short lock, and goes on; a thread of its own
//! (`exporter`) takes it from there, once a second or when there is much. Where the queue is full its oldest entry is dropped
//! and counted. So a collector that hangs or is gone costs memory up to these bounds, and nothing else.
//!
//! What a request leaves is its facts; they are turned into a span and a log record by the exporter's thread (`records`).

mod exporter;
mod layer;
mod records;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use tokio::sync::Notify;

use crate::base::clock::{Clock as _, SystemClock, Timestamp};
use crate::base::rng::Rng;
use crate::infra::config::OtlpConfig;

use super::current::{self, InRequest};
use super::trace::{Parent, Share, SpanId, Trace, TraceId};

pub(super) use layer::Exported;
use records::text;

/// Requests that wait to be exported.
const REQUESTS: usize = 16_384;
/// Spans inside of requests that wait.
const SPANS: usize = 8192;
/// Lines of the log that wait; a line is 16 KiB at most.
const LINES: usize = 2048;

/// How many entries are exported at once, and that many are exported before their time.
const BATCH: usize = 2048;

/// How long the end waits for the collector.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is exported: the collector has an address for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
}

impl Signal {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Traces, Self::Logs];

    /// As a label and in addresses.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
        }
    }
}

/// How many spans or log records were handed over, and how many weren't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The collector took them.
    pub exported: u64,
    /// There was no room, the collector refused them, or the process ended first.
    pub dropped: u64,
}

/// A request that has ended.
struct Ended {
    request: Arc<dyn InRequest>,
    method: &'static str,
    status: u16,
    took: Duration,
    bytes: Option<u64>,
    /// Whether it is exported as a span.
    traced: bool,
    /// Whether it is exported as a log record.
    logged: bool,
}

/// A span inside of a request, which has ended.
struct Inner {
    trace: TraceId,
    parent: SpanId,
    id: SpanId,
    state: Option<String>,
    name: String,
    is_call: bool,
    began: Timestamp,
    took: Duration,
    failed: bool,
    attributes: Vec<KeyValue>,
}

/// What waits.
#[derive(Default)]
struct Queue {
    requests: VecDeque<Ended>,
    spans: VecDeque<Inner>,
    lines: VecDeque<LogRecord>,
    closed: bool,
    ended: bool,
}

impl Queue {
    /// Whether there is enough to be exported at once.
    fn is_much(&self) -> bool {
        self.requests.len() >= BATCH || self.spans.len() >= BATCH || self.lines.len() >= LINES / 2
    }
}

/// What the exporter's thread shares with all others.
struct Shared {
    queue: Mutex<Queue>,
    /// There is much, or the end has come.
    wake: Notify,
    /// The thread has ended.
    end: Condvar,
    counts: [(AtomicU64, AtomicU64); 2],
    /// Which process this is.
    instance: OnceLock<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self, signal: Signal) -> &(AtomicU64, AtomicU64) {
        &self.counts[signal as usize]
    }

    fn dropped(&self, signal: Signal, count: usize) {
        self.counts(signal).1.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn exported(&self, signal: Signal, count: usize) {
        self.counts(signal).0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Adds an entry, in place of the oldest if there are `bound` already, which is given back.
    fn push<T>(&self, bound: usize, entry: T, of: impl FnOnce(&mut Queue) -> &mut VecDeque<T>) -> Option<T> {
        let mut queue = self.lock();
        if queue.closed {
            return Some(entry);
        }
        let entries = of(&mut queue);
        let oldest = if entries.len() >= bound { entries.pop_front() } else { None };
        entries.push_back(entry);
        let is_much = entries.len() == BATCH.min(bound / 2);
        drop(queue);
        if is_much {
            self.wake.notify_one();
        }
        oldest
    }
}

/// The running export.
pub struct Otlp {
    shared: Arc<Shared>,
    share: Share,
    clock: SystemClock,
}

static ACTIVE: OnceLock<Otlp> = OnceLock::new();

/// The process's export, if it has one.
#[must_use]
pub fn active() -> Option<&'static Otlp> {
    ACTIVE.get()
}

/// Starts the export of this process; later calls change nothing.
///
/// # Errors
/// The address can't be read (the configuration has checked it), or the system gives no thread.
pub(super) fn start(config: &OtlpConfig) -> io::Result<()> {
    if ACTIVE.get().is_none() {
        let otlp = Otlp::new(config)?;
        // A second one would be the same process's.
        drop(ACTIVE.set(otlp));
    }
    Ok(())
}

/// How many spans or log records were handed over, and how many weren't; nothing where nothing is exported.
#[must_use]
pub fn counts(signal: Signal) -> Counts {
    active().map(|otlp| otlp.counts(signal)).unwrap_or_default()
}

/// Exports what is left, and waits for it, some seconds at most.
pub(super) fn close() {
    if let Some(otlp) = active() {
        otlp.close();
    }
}

/// Whether the present request is traced.
#[must_use]
pub fn is_recorded() -> bool {
    let is_sampled = |request: &Arc<dyn InRequest>| request.trace().is_some_and(|trace| trace.is_sampled);
    active().is_some() && current::with(is_sampled).unwrap_or(false)
}

/// Begins a span inside of the present request, which ends when it is dropped; `None` where none is recorded. `name` says what
/// is done, never with what.
#[must_use]
pub fn span(name: &str, attributes: &[(&'static str, &str)]) -> Option<Span> {
    let otlp = active()?;
    let request = current::get()?;
    let id = request.trace()?.child()?;
    let attributes = attributes.iter().map(|(name, value)| text(name, value)).collect();
    Some(Span { otlp, request, id, name: name.to_owned(), began: otlp.clock.monotonic(), failed: false, attributes })
}

/// See [`span`].
#[must_use = "it ends when it is dropped"]
pub struct Span {
    otlp: &'static Otlp,
    request: Arc<dyn InRequest>,
    id: SpanId,
    name: String,
    began: Duration,
    failed: bool,
    attributes: Vec<KeyValue>,
}

impl Span {
    /// What it stands for went wrong.
    pub fn fail(&mut self) {
        self.failed = true;
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(trace) = self.request.trace() else { return };
        let took = self.otlp.clock.monotonic().saturating_sub(self.began);
        let inner = Inner {
            trace: trace.trace_id,
            parent: trace.span_id,
            id: self.id,
            state: trace.state.clone(),
            name: std::mem::take(&mut self.name),
            is_call: true,
            began: self.otlp.clock.now().saturating_sub(took),
            took,
            failed: self.failed,
            attributes: std::mem::take(&mut self.attributes),
        };
        let shared = &self.otlp.shared;
        if shared.push(SPANS, inner, |queue| &mut queue.spans).is_some() {
            shared.dropped(Signal::Traces, 1);
        }
    }
}

/// Follows a piece of work with a span, if one is recorded.
pub async fn spanned<T, E>(span: Option<Span>, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let result = work.await;
    if let Some(mut span) = span
        && result.is_err()
    {
        span.fail();
    }
    result
}

impl Otlp {
    fn new(config: &OtlpConfig) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Notify::new(),
            end: Condvar::new(),
            counts: Default::default(),
            instance: OnceLock::new(),
        });
        exporter::spawn(Arc::clone(&shared), config)?;
        Ok(Self { shared, share: Share::new(config.sample), clock: SystemClock::new() })
    }

    /// A request begins.
    #[must_use]
    pub fn begin(&self, parent: Option<&Parent<'_>>, state: Option<&HeaderValue>, rng: &dyn Rng) -> Trace {
        Trace::begin(parent, state, self.share, rng)
    }

    /// A request has ended. One that failed is recorded also where the share passes it over, if no caller has decided.
    pub fn ended(
        &self,
        request: Arc<dyn InRequest>,
        (method, status): (&'static str, u16),
        took: Duration,
        bytes: Option<u64>,
        logged: bool,
    ) {
        let traced = request.trace().is_some_and(|trace| trace.is_sampled || (status >= 500 && !trace.is_decided()));
        if !(traced || logged) {
            return;
        }
        let ended = Ended { request, method, status, took, bytes, traced, logged };
        if let Some(lost) = self.shared.push(REQUESTS, ended, |queue| &mut queue.requests) {
            self.shared.dropped(Signal::Traces, lost.traced.into());
            self.shared.dropped(Signal::Logs, lost.logged.into());
        }
    }

    fn line(&self, record: LogRecord) {
        if self.shared.push(LINES, record, |queue| &mut queue.lines).is_some() {
            self.shared.dropped(Signal::Logs, 1);
        }
    }

    /// Says which process this is. Nothing is exported before that, for a minute and a half.
    pub fn identify(&self, instance: &str) {
        // The first word counts.
        drop(self.shared.instance.set(instance.to_owned()));
    }

    fn counts(&self, signal: Signal) -> Counts {
        let (exported, dropped) = self.shared.counts(signal);
        Counts { exported: exported.load(Ordering::Relaxed), dropped: dropped.load(Ordering::Relaxed) }
    }

    fn close(&self) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        self.shared.wake.notify_one();
        while !queue.ended {
            // The thread bounds its own end; half a second more, in case that it hangs.
            let waited = self.shared.end.wait_timeout(queue, PATIENCE + Duration::from_millis(500));
            let (still, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return;
            }
            queue = still;
        }
    }
}
