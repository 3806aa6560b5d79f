//! `GET /v1/projects/{project}/events` with `Accept: text/event-stream`.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;

use crate::base::id::{EventId, NotAnId};
use crate::ctx::Ctx;
use crate::features::auth::permission::EventsRead;
use crate::features::auth::{Caller, InProject, Lasting};
use crate::features::events::read::Filter;
use crate::features::events::stream::{self as events, Opened, StreamError, Wanted};
use crate::infra::wakers::Full;
use crate::web::problem::Problem;

/// Says that nothing in between shall hold back what is sent: nginx reads it.
const NO_BUFFER: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Seconds after which somebody may try again who has too many streams.
const AGAIN: HeaderValue = HeaderValue::from_static("10");

/// Whether a client asks for a stream, and not for JSON as well.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = || {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).filter_map(|part| {
            let (kind, parameters) = part.split_once(';').unwrap_or((part, ""));
            // A weight of nothing is a refusal.
            let is_refused = parameters.split(';').any(|parameter| {
                let weight = parameter.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
                weight.is_some_and(|weight| weight <= 0.0)
            });
            (!is_refused).then(|| kind.trim())
        })
    };
    accepted().any(|kind| kind.eq_ignore_ascii_case("text/event-stream"))
        && !accepted().any(|kind| kind.eq_ignore_ascii_case("application/json"))
}

/// The last event that a listener has seen: in the header, which a browser sends when it comes back, or else in the query.
pub(super) fn last_seen(headers: &HeaderMap, query: Option<&str>) -> Result<Option<EventId>, NotAnId> {
    let header = headers.get("last-event-id").map(|value| value.to_str().map_err(|_| NotAnId)).transpose()?;
    // A browser that has seen none may send an empty one.
    header.filter(|text| !text.is_empty()).or(query).map(str::parse).transpose()
}

fn problem(error: StreamError) -> Problem {
    match error {
        StreamError::Gone => Problem::new(
            StatusCode::GONE,
            "event_gone",
            "The event to go on behind isn't kept any more, or never was there. List what there is, and begin anew.",
        ),
        StreamError::Full(Full::Process) => {
            Problem::unavailable("too_many_streams", "Too many streams are open. Try again later.")
        }
        StreamError::Full(Full::Project | Full::Caller | Full::Address) => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_streams",
            "The caller, their address or the project has as many streams open as they may.",
        )
        .with_header(header::RETRY_AFTER, AGAIN),
        StreamError::Storage(error) => error.into(),
    }
}

/// Under whom a caller's streams count: further keys are no further callers.
fn answerable(caller: &Caller) -> String {
    match caller {
        Caller::Person(person) => person.user.to_string(),
        Caller::Machine(machine) => {
            machine.user().map_or_else(|| machine.project().to_string(), |user| user.to_string())
        }
    }
}

/// Answers with a stream.
pub(super) async fn begin(
    ctx: &Ctx,
    now: &InProject<EventsRead>,
    lasting: Lasting,
    filter: Filter,
    after: Option<EventId>,
) -> Result<Response, Problem> {
    let (caller, address) = (answerable(&now.caller), now.by.origin.ip);
    let wanted = Wanted { project: now.project, caller, address, filter, after, lasting };
    let Opened { mut parts, long } = events::open(ctx, wanted).await.map_err(problem)?;
    let parts = stream::poll_fn(move |cx| parts.poll_recv(cx).map(|part| part.map(Ok::<_, Infallible>)));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (NO_BUFFER, HeaderValue::from_static("no")),
    ];
    let mut response = (headers, Body::from_stream(parts)).into_response();
    response.extensions_mut().insert(long);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_asked_for() {
        let wanted = |accept: &'static str| {
            is_wanted(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        for yes in
            ["text/event-stream", "Text/Event-Stream", "text/event-stream;q=0.5, */*", "text/html, text/event-stream"]
        {
            assert!(wanted(yes), "{yes}");
        }
        for no in
            ["", "*/*", "application/json", "text/event-stream, application/json", "text/event-stream;q=0", "text/*"]
        {
            assert!(!wanted(no), "{no}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }
}
