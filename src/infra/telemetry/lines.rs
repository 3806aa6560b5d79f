//! How a line of the log is written: as `tracing_subscriber` does, with the request that it was written in; and without
//! keys.

use std::fmt::{self, Write as _};

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::current::{self, InRequest};
use super::masked;

/// Adds the present request's id, its trace and its caller to each line.
pub(super) struct Lines<F> {
    pub(super) inner: F,
    pub(super) style: Style,
}

/// What the inner format writes.
#[derive(Clone, Copy)]
pub(super) enum Style {
    /// A JSON object.
    Json,
    /// For people; with colours or without.
    Pretty(bool),
}

impl<S, N, F> FormatEvent<S, N> for Lines<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.inner.format_event(ctx, Writer::new(&mut line), event)?;
        current::with(|request| self.style.add(&mut line, &**request)).transpose()?;
        writer.write_str(&masked(&line))
    }
}

impl Style {
    fn add(self, line: &mut String, request: &dyn InRequest) -> fmt::Result {
        let end = if matches!(self, Self::Json) { "}\n" } else { "\n" };
        // Whatever else the inner format may write one day is left as it is.
        let Some(length) = line.strip_suffix(end).map(str::len) else { return Ok(()) };
        line.truncate(length);
        let caller = request.caller();
        let fields = [
            ("request_id", Some(request.request_id())),
            ("trace_id", request.trace_id()),
            ("caller", caller.as_deref()),
        ];
        for (name, value) in fields.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            match self {
                Self::Json => {
                    let value = serde_json::to_string(value).map_err(|_| fmt::Error)?;
                    write!(line, ",\"{name}\":{value}")?;
                }
                Self::Pretty(false) => write!(line, " {name}={value:?}")?,
                Self::Pretty(true) => write!(line, " \u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value:?}")?,
            }
        }
        line.push_str(end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::{Arc, Mutex};

    use serde_json::json;
    use tracing_subscriber::Layer as _;
    use tracing_subscriber::fmt::format;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::base::clock::Timestamp;
    use crate::infra::telemetry::trace::Trace;

    const KEY: &str = "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg";

    struct Asked;

    impl InRequest for Asked {
        fn request_id(&self) -> &'static str {
            "a\"b\\c"
        }

        fn trace_id(&self) -> Option<&str> {
            Some("4bf9")
        }

        fn trace(&self) -> Option<&Trace> {
            None
        }

        fn caller(&self) -> Option<String> {
            Some("usr_1".to_owned())
        }

        fn route(&self) -> Option<&str> {
            None
        }

        fn client(&self) -> IpAddr {
            Ipv4Addr::LOCALHOST.into()
        }

        fn user_agent(&self) -> Option<String> {
            None
        }

        fn code(&self) -> Option<&'static str> {
            None
        }

        fn arrived(&self) -> Timestamp {
            Timestamp::EPOCH
        }
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(style: Style, request: Option<Arc<dyn InRequest>>) -> String {
        let kept = Kept::default();
        let output = kept.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || output.clone());
        let layer = match style {
            Style::Json => {
                let layer = layer.json().flatten_event(true).with_span_list(false).with_current_span(false);
                layer.map_event_format(|inner| Lines { inner, style }).boxed()
            }
            Style::Pretty(colours) => {
                let inner = format().with_ansi(colours).with_target(false).without_time();
                layer.with_ansi(colours).event_format(Lines { inner, style }).boxed()
            }
        };
        let say = || tracing::warn!(cause = format!("no {KEY}"), "failed");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || match request {
            Some(request) => current::during(request, say),
            None => say(),
        });
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_names_the_request_that_it_was_written_in_and_no_key() {
        let mut line: serde_json::Value = serde_json::from_str(&written(Style::Json, Some(Arc::new(Asked)))).unwrap();
        line.as_object_mut().unwrap().remove("timestamp");
        let expected = json!({
            "level": "WARN", "message": "failed", "cause": "no sk_…_cIg", "target": "keyward::infra::telemetry::lines::tests",
            "request_id": "a\"b\\c", "trace_id": "4bf9", "caller": "usr_1",
        });
        assert_eq!(line, expected);
        assert_eq!(
            written(Style::Pretty(false), Some(Arc::new(Asked))),
            " WARN failed cause=\"no sk_…_cIg\" request_id=\"a\\\"b\\\\c\" trace_id=\"4bf9\" caller=\"usr_1\"\n"
        );
        let coloured = written(Style::Pretty(true), Some(Arc::new(Asked)));
        assert!(coloured.ends_with("\u{1b}[3mcaller\u{1b}[0m\u{1b}[2m=\u{1b}[0m\"usr_1\"\n"), "{coloured:?}");
        assert_eq!(written(Style::Pretty(false), None), " WARN failed cause=\"no sk_…_cIg\"\n");
    }
}
