//! The queue, without a collector.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::*;
use crate::base::rng::SystemRng;

const KEY: &str = "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg";

/// A request with a key in every place that a client fills.
struct Asked {
    id: String,
    trace: Option<Trace>,
}

impl InRequest for Asked {
    fn request_id(&self) -> &str {
        &self.id
    }

    fn trace_id(&self) -> Option<&str> {
        None
    }

    fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    fn caller(&self) -> Option<String> {
        Some("usr_1".to_owned())
    }

    fn route(&self) -> Option<&str> {
        Some("/key/{length}")
    }

    fn client(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn user_agent(&self) -> Option<String> {
        Some(format!("agent {KEY}"))
    }

    fn code(&self) -> Option<&'static str> {
        Some("REVOKED")
    }

    fn arrived(&self) -> Timestamp {
        Timestamp::from_micros(1_000_000).unwrap()
    }
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared {
        queue: Mutex::default(),
        wake: Notify::new(),
        end: Condvar::new(),
        counts: Default::default(),
        instance: OnceLock::new(),
    })
}

fn otlp(share: f64) -> Otlp {
    Otlp { shared: shared(), share: Share::new(share), clock: SystemClock::new() }
}

fn asked(otlp: &Otlp, parent: &str, id: &str) -> Arc<dyn InRequest> {
    let parent = HeaderValue::from_str(parent).unwrap();
    let state = HeaderValue::from_static("a=b");
    let trace = otlp.begin(Parent::parse(&parent).as_ref(), Some(&state), &SystemRng);
    Arc::new(Asked { id: id.to_owned(), trace: Some(trace) })
}

fn end(otlp: &Otlp, request: Arc<dyn InRequest>, status: u16, logged: bool) {
    otlp.ended(request, ("GET", status), Duration::from_millis(5), Some(7), logged);
}

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

#[test]
fn a_request_is_a_span_where_it_is_sampled_or_failed_unless_its_caller_says_no() {
    for (parent, status, share, traced) in [
        ("", 200, 0.0, false),
        ("", 500, 0.0, true),
        ("", 200, 1.0, true),
        (SAMPLED, 200, 0.0, true),
        (UNSAMPLED, 500, 1.0, false),
    ] {
        let otlp = otlp(share);
        end(&otlp, asked(&otlp, parent, "x"), status, false);
        assert_eq!(otlp.shared.lock().requests.len(), usize::from(traced), "{parent} {status} {share}");
        end(&otlp, asked(&otlp, parent, "x"), status, true);
        let queue = otlp.shared.lock();
        let last = queue.requests.back().unwrap();
        assert_eq!((last.traced, last.logged), (traced, true));
    }
}

#[test]
fn a_full_queue_loses_its_oldest_entries_and_counts_them() {
    let otlp = otlp(1.0);
    let request = asked(&otlp, "", "x");
    for status in 0..u16::try_from(REQUESTS).unwrap() + 3 {
        end(&otlp, Arc::clone(&request), status, true);
    }
    assert_eq!(otlp.shared.lock().requests.front().unwrap().status, 3);
    for _ in 0..LINES + 2 {
        otlp.line(LogRecord::default());
    }
    let queue = otlp.shared.lock();
    assert_eq!((queue.requests.len(), queue.lines.len()), (REQUESTS, LINES));
    drop(queue);
    assert_eq!(otlp.counts(Signal::Traces), Counts { exported: 0, dropped: 3 });
    assert_eq!(otlp.counts(Signal::Logs), Counts { exported: 0, dropped: 5 });
    otlp.shared.lock().closed = true;
    otlp.line(LogRecord::default());
    assert_eq!(otlp.counts(Signal::Logs).dropped, 6);
}

#[test]
fn a_span_follows_the_conventions_and_holds_no_key() {
    let otlp = otlp(0.0);
    end(&otlp, asked(&otlp, SAMPLED, KEY), 503, true);
    let ended = otlp.shared.lock().requests.pop_front().unwrap();
    let span = records::server_span(&ended).unwrap();
    assert_eq!(hex::encode(&span.trace_id), &SAMPLED[3..35]);
    assert_eq!(hex::encode(&span.parent_span_id), &SAMPLED[36..52]);
    assert_eq!((span.name.as_str(), span.kind, span.trace_state.as_str()), ("GET /key/{length}", 2, "a=b"));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_000_000_000, 1_005_000_000));
    assert_eq!((span.flags, span.status.as_ref().unwrap().code), (0x301, 2));
    let value = |name: &str| {
        let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
        Some(match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => text.clone(),
            Value::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        })
    };
    for (name, expected) in [
        ("http.request.method", "GET"),
        ("http.route", "/key/{length}"),
        ("http.response.status_code", "503"),
        ("client.address", "127.0.0.1"),
        ("enduser.id", "usr_1"),
        ("keyward.code", "REVOKED"),
        ("error.type", "503"),
    ] {
        assert_eq!(value(name).as_deref(), Some(expected), "{name}");
    }
    let line = records::access_line(&ended);
    assert_eq!((&line.trace_id, &line.span_id), (&span.trace_id, &span.span_id));
    for text in [format!("{span:?}"), format!("{line:?}")] {
        assert!(!text.contains(&KEY[10..40]), "{text}");
    }
}
