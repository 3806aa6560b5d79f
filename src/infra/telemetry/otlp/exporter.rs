//! The thread that exports: takes what waits, sends it, and tries again later where the collector can't be reached.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use tokio::time::{sleep, timeout};

use crate::base::clock::Clock as _;
use crate::base::rng::SystemRng;
use crate::infra::config::OtlpConfig;
use crate::infra::net::Endpoint;

use super::{BATCH, Counts, Ended, Inner, PATIENCE, Shared, Signal, layer, records};

/// How long entries gather.
const TICK: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a collector that failed is left alone at first; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// And at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the start of the process may take to say which one it is: longer than it waits for Postgres.
const IDENTITY: Duration = Duration::from_secs(90);

/// Starts the thread. It isn't one of those that serve requests, so turning a batch into bytes holds none up.
pub(super) fn spawn(shared: Arc<Shared>, config: &OtlpConfig) -> io::Result<()> {
    let endpoint = Endpoint::new(&config.endpoint).map_err(io::Error::other)?;
    let headers = config.headers.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("otlp".into()).spawn(move || {
        let end = End(Arc::clone(&shared));
        layer::this_thread_exports();
        runtime.block_on(Exporter { shared, endpoint, headers, failing: false, refused: [false; 2] }.run());
        // Look-ups of names that hang aren't waited for.
        runtime.shutdown_background();
        drop(end);
    })?;
    Ok(())
}

/// Says that the thread has ended, however.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        (queue.closed, queue.ended) = (true, true);
        drop(queue);
        self.0.end.notify_all();
    }
}

struct Exporter {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    headers: HeaderMap,
    /// The collector can't be reached: said once.
    failing: bool,
    /// The collector doesn't take this signal: said once.
    refused: [bool; 2],
}

/// What is sent at once.
struct Batch {
    signal: Signal,
    count: usize,
    body: Bytes,
}

/// How sending went.
enum Sent {
    /// The collector has it.
    Taken,
    /// It doesn't want it, and never will.
    Refused,
    /// It may take it later.
    Later,
}

impl Exporter {
    async fn run(mut self) {
        let resource = self.resource().await;
        while !self.is_closed() {
            tokio::select! {
                () = sleep(TICK) => {}
                () = self.shared.wake.notified() => {}
            }
            while let Some(batches) = self.next(&resource) {
                for batch in batches {
                    self.deliver(batch).await;
                }
                // Few gather for a while again: a request for each would cost more than it carries.
                if self.is_closed() || !self.shared.lock().is_much() {
                    break;
                }
            }
        }
        self.finish(&resource).await;
    }

    /// Which process this is: known soon after the start.
    async fn resource(&self) -> Resource {
        let waited = async {
            while self.shared.instance.get().is_none() && !self.is_closed() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        // Without one, the lines of a start that hangs would never be seen.
        drop(timeout(IDENTITY, waited).await);
        let unknown = || {
            let clock = crate::base::clock::SystemClock::new();
            let mut random = [0; 16];
            crate::base::rng::Rng::fill(&SystemRng, &mut random);
            ulid::Ulid::from_parts(clock.now().as_millis(), u128::from_le_bytes(random)).to_string()
        };
        records::resource(self.shared.instance.get_or_init(unknown))
    }

    fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// What waits, a batch's worth of each kind; `None` if that is nothing.
    fn next(&self, resource: &Resource) -> Option<Vec<Batch>> {
        let mut queue = self.shared.lock();
        let take = |length: usize| length.min(BATCH);
        let (requests, spans, lines) = (take(queue.requests.len()), take(queue.spans.len()), take(queue.lines.len()));
        let requests: Vec<Ended> = queue.requests.drain(..requests).collect();
        let inner: Vec<Inner> = queue.spans.drain(..spans).collect();
        let lines: Vec<LogRecord> = queue.lines.drain(..lines).collect();
        drop(queue);
        if requests.is_empty() && inner.is_empty() && lines.is_empty() {
            return None;
        }
        let traced = requests.iter().filter(|ended| ended.traced).filter_map(records::server_span);
        let spans: Vec<Span> = traced.chain(inner.into_iter().map(records::inner_span)).collect();
        let logged = requests.iter().filter(|ended| ended.logged).map(records::access_line);
        let lines: Vec<LogRecord> = lines.into_iter().chain(logged).collect();
        Some([traces(resource, spans), logs(resource, lines)].into_iter().flatten().collect())
    }

    /// Sends a batch, however long that takes; gives up where the end comes before.
    async fn deliver(&mut self, batch: Batch) {
        let mut pause = FIRST_PAUSE;
        loop {
            if self.is_closed() {
                // Whatever is left has one attempt.
                return self.last(batch).await;
            }
            match self.send(&batch).await {
                Sent::Taken => return,
                Sent::Refused => return self.shared.dropped(batch.signal, batch.count),
                Sent::Later => {}
            }
            let waited = sleep(pause);
            tokio::pin!(waited);
            // Woken also because there is much; then it waits on.
            loop {
                tokio::select! {
                    () = &mut waited => break,
                    () = self.shared.wake.notified() => {}
                }
                if self.is_closed() {
                    break;
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn last(&mut self, batch: Batch) {
        if !matches!(timeout(PATIENCE / 3, self.send(&batch)).await, Ok(Sent::Taken)) {
            self.shared.dropped(batch.signal, batch.count);
        }
    }

    /// Sends what is left, once.
    async fn finish(&mut self, resource: &Resource) {
        let shared = Arc::clone(&self.shared);
        let all = async {
            while let Some(batches) = self.next(resource) {
                for batch in batches {
                    if !matches!(self.send(&batch).await, Sent::Taken) {
                        self.shared.dropped(batch.signal, batch.count);
                    }
                }
            }
        };
        // What is in hand when the time is over isn't counted any more: nobody could read the count.
        drop(timeout(PATIENCE / 2, all).await);
        let lost = Signal::ALL.map(|signal| shared.counts(signal).1.load(std::sync::atomic::Ordering::Relaxed));
        if lost.iter().any(|count| *count > 0) {
            tracing::warn!(spans = lost[0], log_records = lost[1], "telemetry that never reached the collector");
        }
    }

    async fn send(&mut self, batch: &Batch) -> Sent {
        let path = match batch.signal {
            Signal::Traces => "/v1/traces",
            Signal::Logs => "/v1/logs",
        };
        let sent = self.endpoint.post(path, &self.headers, "application/x-protobuf", batch.body.clone());
        match timeout(ANSWER, sent).await {
            Ok(Ok((status, body))) if status.is_success() => {
                self.recovered();
                self.refused[batch.signal as usize] = false;
                let rejected = rejected(batch.signal, &body).min(batch.count);
                self.shared.dropped(batch.signal, rejected);
                self.shared.exported(batch.signal, batch.count - rejected);
                Sent::Taken
            }
            Ok(Ok((status, _))) if is_temporary(status) => self.failed(&format!("it answered {status}")),
            Ok(Ok((status, _))) => {
                self.recovered();
                if !std::mem::replace(&mut self.refused[batch.signal as usize], true) {
                    tracing::warn!(
                        signal = batch.signal.word(),
                        status = status.as_u16(),
                        "the collector refuses telemetry"
                    );
                }
                Sent::Refused
            }
            Ok(Err(error)) => self.failed(&error),
            Err(_) => self.failed(&"it took too long"),
        }
    }

    fn failed(&mut self, cause: &dyn std::fmt::Display) -> Sent {
        // Said once, not with each attempt of an outage.
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(%cause, "the collector can't be reached; telemetry waits, and what finds no room is dropped");
        }
        Sent::Later
    }

    fn recovered(&mut self) {
        if std::mem::replace(&mut self.failing, false) {
            let [spans, log_records] = Signal::ALL.map(|signal| {
                let (_, dropped) = self.shared.counts(signal);
                Counts { exported: 0, dropped: dropped.load(std::sync::atomic::Ordering::Relaxed) }.dropped
            });
            tracing::info!(dropped_spans = spans, dropped_log_records = log_records, "the collector is reached again");
        }
    }
}

/// Whether the protocol wants the same batch to be sent again (OTLP, "Failures" of HTTP), and a time-out of a proxy.
fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504)
}

/// How many of a batch that was taken weren't.
fn rejected(signal: Signal, body: &[u8]) -> usize {
    let rejected = match signal {
        Signal::Traces => ExportTraceServiceResponse::decode(body)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| partial.rejected_spans),
        Signal::Logs => ExportLogsServiceResponse::decode(body)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| partial.rejected_log_records),
    };
    rejected.and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}

fn traces(resource: &Resource, spans: Vec<Span>) -> Option<Batch> {
    let count = spans.len();
    let scope_spans = vec![ScopeSpans { scope: Some(records::scope()), spans, ..ScopeSpans::default() }];
    let spans = ResourceSpans { resource: Some(resource.clone()), scope_spans, ..ResourceSpans::default() };
    let request = ExportTraceServiceRequest { resource_spans: vec![spans] };
    (count > 0).then(|| Batch { signal: Signal::Traces, count, body: request.encode_to_vec().into() })
}

fn logs(resource: &Resource, log_records: Vec<LogRecord>) -> Option<Batch> {
    let count = log_records.len();
    let scope_logs = vec![ScopeLogs { scope: Some(records::scope()), log_records, ..ScopeLogs::default() }];
    let logs = ResourceLogs { resource: Some(resource.clone()), scope_logs, ..ResourceLogs::default() };
    let request = ExportLogsServiceRequest { resource_logs: vec![logs] };
    (count > 0).then(|| Batch { signal: Signal::Logs, count, body: request.encode_to_vec().into() })
}
