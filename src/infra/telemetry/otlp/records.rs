//! What was noted, as the messages of OTLP. Whatever came from a client goes through [`masked`]; names and words of ours don't
//! need to.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tracing::Level;

use crate::base::clock::Timestamp;
use crate::infra::telemetry::current::InRequest;
use crate::infra::telemetry::{logs, masked};

use super::{Ended, Inner};

/// The flags of a span and of a log record: sampled, and for spans whether the parent is in another process
/// (`SpanFlags` of the protocol).
const SAMPLED: u32 = 1;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// An attribute.
pub(super) fn attribute(name: &str, value: Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// An attribute with text in it, which may be anybody's.
pub(super) fn text(name: &str, value: &str) -> KeyValue {
    attribute(name, Value::StringValue(masked(value).into_owned()))
}

/// An attribute with a number in it.
pub(super) fn number(name: &str, value: impl TryInto<i64>) -> KeyValue {
    attribute(name, Value::IntValue(value.try_into().unwrap_or(i64::MAX)))
}

/// Which program this is, and which process of it.
pub(super) fn resource(instance: &str) -> Resource {
    let attributes = vec![
        text("service.name", "keyward"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", instance),
        number("process.pid", std::process::id()),
    ];
    Resource { attributes, ..Resource::default() }
}

/// Who notes all this.
pub(super) fn scope() -> InstrumentationScope {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    InstrumentationScope { name: "keyward".to_owned(), version, ..InstrumentationScope::default() }
}

pub(super) fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(0).saturating_mul(1000)
}

fn ends(began: Timestamp, took: std::time::Duration) -> u64 {
    nanos(began).saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
}

const UNMATCHED: &str = "unmatched";

/// The span of a request, by the conventions for HTTP servers.
pub(super) fn server_span(ended: &Ended) -> Option<Span> {
    let request = &*ended.request;
    let trace = request.trace()?;
    let route = request.route().unwrap_or(UNMATCHED);
    let mut attributes = vec![
        text("http.request.method", if ended.method == "OTHER" { "_OTHER" } else { ended.method }),
        number("http.response.status_code", ended.status),
        text("url.scheme", "http"),
        text("client.address", &request.client().to_string()),
        text("keyward.request_id", request.request_id()),
    ];
    if route != UNMATCHED {
        attributes.push(text("http.route", route));
    }
    attributes.extend(ended.bytes.map(|bytes| number("http.response.body.size", bytes)));
    attributes.extend(request.user_agent().map(|agent| text("user_agent.original", &agent)));
    attributes.extend(request.caller().map(|caller| text("enduser.id", &caller)));
    attributes.extend(request.code().map(|code| text("keyward.code", code)));
    let failed = ended.status >= 500;
    if failed {
        attributes.push(text("error.type", &ended.status.to_string()));
    }
    let method = if ended.method == "OTHER" { "HTTP" } else { ended.method };
    let remote = if trace.parent.is_some() { IS_REMOTE } else { 0 };
    Some(Span {
        trace_id: trace.trace_id.to_vec(),
        span_id: trace.span_id.to_vec(),
        trace_state: trace.state.clone().unwrap_or_default(),
        parent_span_id: trace.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        flags: SAMPLED | HAS_IS_REMOTE | remote,
        name: if route == UNMATCHED { method.to_owned() } else { format!("{method} {route}") },
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(request.arrived()),
        end_time_unix_nano: ends(request.arrived(), ended.took),
        attributes,
        // Those that were too many: as events that were dropped they are seen.
        dropped_events_count: trace.lost_children(),
        status: Some(status(failed)),
        ..Span::default()
    })
}

fn status(failed: bool) -> opentelemetry_proto::tonic::trace::v1::Status {
    let code = if failed { StatusCode::Error } else { StatusCode::Unset };
    opentelemetry_proto::tonic::trace::v1::Status { code: code.into(), ..Default::default() }
}

/// A span inside of a request.
pub(super) fn inner_span(inner: Inner) -> Span {
    Span {
        trace_id: inner.trace.to_vec(),
        span_id: inner.id.to_vec(),
        trace_state: inner.state.unwrap_or_default(),
        parent_span_id: inner.parent.to_vec(),
        flags: SAMPLED | HAS_IS_REMOTE,
        name: inner.name,
        kind: if inner.is_call { SpanKind::Client } else { SpanKind::Internal }.into(),
        start_time_unix_nano: nanos(inner.began),
        end_time_unix_nano: ends(inner.began, inner.took),
        attributes: inner.attributes,
        status: Some(status(inner.failed)),
        ..Span::default()
    }
}

/// The access line of a request, with the names that it has in the log.
pub(super) fn access_line(ended: &Ended) -> LogRecord {
    let request = &*ended.request;
    let mut attributes = vec![
        text("target", logs::ACCESS),
        text("method", ended.method),
        text("route", request.route().unwrap_or(UNMATCHED)),
        number("status", ended.status),
        number("duration_us", ended.took.as_micros()),
        text("client", &request.client().to_string()),
    ];
    attributes.extend(ended.bytes.map(|bytes| number("bytes", bytes)));
    attributes.extend(request.code().map(|code| text("code", code)));
    let at = nanos(request.arrived().saturating_add(ended.took));
    let mut record = line(at, Level::INFO, "request", attributes);
    of_request(&mut record, request);
    record
}

/// A line of the log.
pub(super) fn line(at: u64, level: Level, body: &str, attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        time_unix_nano: at,
        observed_time_unix_nano: at,
        severity_number: severity(level).into(),
        severity_text: level.as_str().to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(masked(body).into_owned())) }),
        attributes,
        ..LogRecord::default()
    }
}

/// Says in which request a line was written.
pub(super) fn of_request(record: &mut LogRecord, request: &dyn InRequest) {
    record.attributes.push(text("request_id", request.request_id()));
    record.attributes.extend(request.caller().map(|caller| text("caller", &caller)));
    if let Some(trace) = request.trace() {
        record.trace_id = trace.trace_id.to_vec();
        record.span_id = trace.span_id.to_vec();
        record.flags = if trace.is_sampled { SAMPLED } else { 0 };
    }
}

fn severity(level: Level) -> SeverityNumber {
    match level {
        Level::ERROR => SeverityNumber::Error,
        Level::WARN => SeverityNumber::Warn,
        Level::INFO => SeverityNumber::Info,
        Level::DEBUG => SeverityNumber::Debug,
        Level::TRACE => SeverityNumber::Trace,
    }
}
