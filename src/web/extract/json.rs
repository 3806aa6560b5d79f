//! JSON bodies.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::base::invalid::Invalid;
use crate::base::masking::mask_secrets;
use crate::ctx::Ctx;
use crate::infra::bodies::{NoRoom, Room};
use crate::infra::config::MAX_BODY_BYTES;
use crate::infra::deadline::within;
use crate::infra::telemetry::current;
use crate::web::problem::Problem;
use crate::web::request::RequestContext;

use crate::base::object::Object;

use super::{again, secrets};

/// How deep arrays and objects may nest.
const MAX_DEPTH: usize = 64;

/// A body that must be there. Refused if one of Keyward's own secrets is in it, like those below.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// A body that must be there and in which a secret may stand: of a route that takes one, or that keeps nothing.
#[derive(Debug)]
pub struct SecretJson<T>(pub T);

/// A body that may be left out, with its content type, or `null`; then the default stands for it.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

/// A body of a bulk route: up to 16 MiB; and the room that it takes, to be kept until the work is done.
#[derive(Debug)]
pub struct BulkJson<T>(pub T, pub Room);

/// The same, in which a secret may stand: of a route that masks what it keeps.
#[derive(Debug)]
pub struct SecretBulkJson<T>(pub T, pub Room);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, inner) = request.into_parts();
        let bytes = body(&parts.headers, inner).await?;
        again::ask(&parts.extensions).await?;
        parse_clean(&bytes).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for SecretJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, inner) = request.into_parts();
        let bytes = body(&parts.headers, inner).await?;
        again::ask(&parts.extensions).await?;
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Ctx> for BulkJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, ctx: &Ctx) -> Result<Self, Problem> {
        let (body, room) = in_bulk(request, ctx, parse_clean).await?;
        Ok(Self(body, room))
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Ctx> for SecretBulkJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, ctx: &Ctx) -> Result<Self, Problem> {
        let (body, room) = in_bulk(request, ctx, |bytes| parse(bytes)).await?;
        Ok(Self(body, room))
    }
}

async fn in_bulk<T: Send + 'static>(
    request: Request,
    ctx: &Ctx,
    parse: fn(&[u8]) -> Result<T, Problem>,
) -> Result<(T, Room), Problem> {
    let (parts, inner) = request.into_parts();
    let (bytes, room) = bulk(ctx, &parts, inner).await?;
    again::ask(&parts.extensions).await?;
    if !has_json_type(&parts.headers) {
        return Err(unsupported());
    }
    // It takes a while, in which others mustn't wait.
    let parsed = tokio::task::spawn_blocking(current::carried_to_thread(move || parse(&bytes))).await;
    Ok((parsed.map_err(|error| Problem::internal(&error))??, room))
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, inner) = request.into_parts();
        let bytes = read(&parts.headers, inner, ORDINARY).await?;
        again::ask(&parts.extensions).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        if !has_json_type(&parts.headers) {
            return Err(unsupported());
        }
        if bytes.trim_ascii() == b"null" {
            return Ok(Self(T::default()));
        }
        parse_clean(&bytes).map(Self)
    }
}

const MIB: usize = 1024 * 1024;

/// How large a body may be.
#[derive(Clone, Copy)]
struct Bound {
    /// The most bytes.
    most: usize,
    /// How much of a body that is too large is read all the same, and thrown away: most clients look for an answer only once
    /// they have sent everything, and a connection that is closed before takes the answer with it. Clients that ask before
    /// they send (`Expect: 100-continue`) are told at once.
    drained: usize,
}

const ORDINARY: Bound = Bound { most: MIB, drained: 8 * MIB };
const BULK: Bound = Bound { most: MAX_BODY_BYTES, drained: 24 * MIB };

/// The slowest that a body may come: so many bytes in so much time. Whoever sends less holds a place that others wait for.
const SLOWEST: (Duration, usize) = (Duration::from_secs(10), 5_000);

/// The body of a route that takes none: nothing, or an object without fields.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A body that must be there, still as text.
///
/// # Errors
/// It isn't declared as JSON, is too large, comes too slowly or ends early.
pub async fn body<B>(headers: &HeaderMap, body: B) -> Result<Vec<u8>, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let bytes = read(headers, body, ORDINARY).await?;
    if has_json_type(headers) { Ok(bytes) } else { Err(unsupported()) }
}

/// A body of JSON values, one a line, still as text: at most 16 MiB. It gives its room back when the last part of it is dropped.
#[derive(Debug)]
pub struct JsonLines(pub Bytes);

/// A text with the room that it takes.
struct Roomed(Vec<u8>, #[expect(dead_code, reason = "held until the text is dropped")] Room);

impl AsRef<[u8]> for Roomed {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FromRequest<Ctx> for JsonLines {
    type Rejection = Problem;

    async fn from_request(request: Request, ctx: &Ctx) -> Result<Self, Problem> {
        let (parts, inner) = request.into_parts();
        let (bytes, room) = bulk(ctx, &parts, inner).await?;
        again::ask(&parts.extensions).await?;
        if is_type(&parts.headers, |essence| LINES.contains(&essence)) {
            Ok(Self(Bytes::from_owner(Roomed(bytes, room))))
        } else {
            Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Send a JSON object a line, with Content-Type: application/x-ndjson.",
            ))
        }
    }
}

/// What JSON lines are declared as: there is no registered type.
const LINES: [&str; 4] = ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"];

/// Reads a body of a bulk route into the memory that all of them share.
async fn bulk<B>(ctx: &Ctx, parts: &Parts, body: B) -> Result<(Vec<u8>, Room), Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    // Missing only where a router is used without its layers.
    let client = parts.extensions.get::<RequestContext>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.ip);
    let mut room = ctx.bodies.begin(client, ctx.config.server.is_proxy(client));
    let mut no_room = None;
    let take = |bytes: usize| room.resize(bytes).map_err(|reason| no_room = Some(reason)).is_ok();
    let read = read_into(&parts.headers, body, BULK, take).await;
    match no_room {
        None => Ok((read?, room)),
        Some(reason) => {
            ctx.metrics.http_shed.inc();
            Err(Problem::unavailable(
                "overloaded",
                match reason {
                    NoRoom::Client => "Too many large bodies of this client are being worked on. Try again later.",
                    NoRoom::All => "Too many large bodies are being worked on. Try again later.",
                },
            ))
        }
    }
}

async fn read<B>(headers: &HeaderMap, body: B, bound: Bound) -> Result<Vec<u8>, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    read_into(headers, body, bound, |_| true).await
}

/// Memory is taken in steps of this many bytes at least.
const STEP: usize = 64 * 1024;

/// Reads a body. `take` is asked for so many bytes in all before they are used; where it refuses, what came is dropped, and the
/// rest is read and thrown away like that of a body that is too large.
async fn read_into<B>(
    headers: &HeaderMap,
    mut body: B,
    bound: Bound,
    mut take: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let too_large = || Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE);
    let asks = headers.contains_key(header::EXPECT);
    let bearable = if asks { bound.most } else { bound.drained };
    if body.size_hint().lower() > bearable as u64 {
        return Err(too_large());
    }
    let (mut bytes, mut length) = (Vec::new(), 0);
    let (mut ended, mut wanted) = (false, true);
    while !ended && length <= bearable {
        let enough = length + SLOWEST.1;
        let gather = async {
            while length < enough {
                let Some(frame) = body.frame().await else {
                    ended = true;
                    break;
                };
                let Ok(data) = frame?.into_data() else { continue };
                length += data.len();
                if !wanted || length > bound.most {
                    continue;
                }
                if length > bytes.capacity() {
                    let capacity = length.next_power_of_two().clamp(STEP, bound.most);
                    wanted = take(capacity);
                    if !wanted {
                        (bytes, _) = (Vec::new(), take(0));
                        continue;
                    }
                    bytes.reserve_exact(capacity - bytes.len());
                }
                bytes.extend_from_slice(&data);
            }
            Ok::<(), B::Error>(())
        };
        within(SLOWEST.0, pin!(gather))
            .await
            .map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))?
            .map_err(|_| Problem::bad_request("bad_request", "The request's body ended early."))?;
    }
    if length > bound.most { Err(too_large()) } else { Ok(bytes) }
}

fn has_json_type(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    if text == "application/json" {
        return true;
    }
    is_type(headers, |essence| {
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
    })
}

fn is_type(headers: &HeaderMap, fits: impl Fn(&str) -> bool) -> bool {
    let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    fits(&text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn unsupported() -> Problem {
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "Send the body as JSON, with Content-Type: application/json (curl: --json).",
    )
}

/// Parses strictly.
///
/// # Errors
/// The text isn't JSON, nests too deep, holds what can't be stored, or doesn't have the wanted form.
pub fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Problem> {
    check_shape(bytes)?;
    // Nearly everything is right; only what isn't needs to be told where.
    if let Ok(Object(value)) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        problem(path, error.inner())
    })?;
    deserializer.end().map_err(|error| problem(".".to_owned(), &error))?;
    Ok(value)
}

/// Parses what is sent to be kept.
fn parse_clean<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let value = parse(bytes)?;
    secrets::refuse(bytes)?;
    Ok(value)
}

fn problem(path: String, error: &serde_json::Error) -> Problem {
    let place = format!("line {} column {}", error.line(), error.column());
    if !error.is_data() {
        return Problem::bad_request("invalid_json", format!("The body isn't valid JSON ({place})."));
    }
    let message = error.to_string();
    refusal(path, &message)
}

/// Makes a problem of serde's message, which may quote a value, without the value.
pub(super) fn refusal(path: String, message: &str) -> Problem {
    let quoted = |message: &str| message.split('`').nth(1).map(str::to_owned);
    if message.starts_with("unknown field") {
        let name = quoted(message).unwrap_or_default();
        // Before it is cut: a part of a secret isn't recognised any more.
        let name: String = mask_secrets(&name).chars().take(64).collect();
        let path = mask_secrets(&path).into_owned();
        let expected = message.rsplit_once(", expected ").map_or("", |(_, rest)| rest);
        let expected = expected.split(" at line ").next().unwrap_or_default();
        let place = match path.as_str() {
            "." => name.clone(),
            path if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
            path => format!("{path}.{name}"),
        };
        let mut problem = Problem::from(Invalid::field(
            place,
            "unknown_field",
            if expected.is_empty() {
                "is not known here".to_owned()
            } else {
                format!("is not known here; expected {expected}")
            },
        ));
        problem.set_code("unknown_field");
        return problem;
    }
    if message.starts_with("missing field") {
        let place = match (quoted(message), path.as_str()) {
            (Some(name), ".") => name,
            (Some(name), _) => format!("{path}.{name}"),
            (None, _) => path,
        };
        return Invalid::field(place, "required", "is required").into();
    }
    if message.starts_with("duplicate field") {
        return Invalid::field(quoted(message).unwrap_or(path), "duplicate", "is given more than once").into();
    }
    let expected = message
        // The last one: what stands before it may be the client's.
        .rsplit_once("expected ")
        .map(|(_, rest)| rest.split(" at line ").next().unwrap_or_default())
        .map(|rest| match rest {
            "a sequence" => "a list",
            "a map" => "an object",
            "f64" | "u32" | "u64" | "i64" => "a number",
            rest => rest,
        })
        .map_or_else(
            || if message.contains("digit") { "expected a whole number".to_owned() } else { "has the wrong form".to_owned() },
            |rest| format!("expected {rest}"),
        );
    Invalid::field(if path == "." { "body".to_owned() } else { path }, "invalid_value", expected).into()
}

/// One pass over the text before it is parsed: its depth, and the character that Postgres can't keep.
fn check_shape(bytes: &[u8]) -> Result<(), Problem> {
    let opening = bytes.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if opening <= MAX_DEPTH && !bytes.contains(&b'\\') {
        return Ok(());
    }
    let (mut depth, mut in_string) = (0_usize, false);
    let mut i = 0;
    while let Some(byte) = bytes.get(i) {
        match (in_string, byte) {
            (true, b'\\') => {
                if bytes.get(i + 1..i + 6) == Some(b"u0000") {
                    return Err(Problem::bad_request(
                        "invalid_json",
                        "The body holds a NUL character, which can't be stored.",
                    ));
                }
                i += 1;
            }
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Problem::bad_request("invalid_json", "The body nests deeper than 64 levels."));
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        i += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[serde(default)]
        name: String,
        #[serde(default, deserialize_with = "crate::web::extract::object::optional")]
        inner: Option<Box<Body>>,
        #[serde(default)]
        any: Option<serde_json::Value>,
    }

    fn answer(text: &str) -> serde_json::Value {
        let problem = parse::<Body>(text.as_bytes()).unwrap_err();
        serde_json::from_slice(&problem.render("r")).unwrap()
    }

    #[test]
    fn each_refusal_names_the_field_and_not_the_value() {
        let unknown = answer(r#"{"nmae": "hunter2"}"#);
        assert_eq!((&unknown["code"], &unknown["errors"][0]["field"]), (&"unknown_field".into(), &"nmae".into()));
        assert!(unknown["detail"].as_str().unwrap().contains("`name`"), "{unknown}");
        let wrong = answer(r#"{"inner": {"name": 42}}"#);
        assert_eq!((&wrong["code"], &wrong["errors"][0]["field"]), (&"invalid_request".into(), &"inner.name".into()));
        let wrong = answer(r#"{"inner": "hunter2"}"#);
        assert!(!wrong.to_string().contains("hunter2"), "{wrong}");
        assert_eq!(answer(r#"{"name": "a", "name": "b"}"#)["errors"][0]["code"], "duplicate");
        for text in ["", "{", "{}x", "\u{feff}{}", "{\"name\": NaN}", "{'name': 1}"] {
            assert_eq!(answer(text)["code"], "invalid_json", "{text}");
        }
        let body = parse::<Body>(br#"{"name": "a", "inner": {"any": [1]}}"#).unwrap();
        assert_eq!((body.name.as_str(), body.any), ("a", None));
        assert_eq!(body.inner.unwrap().any, Some(serde_json::json!([1])));
        assert_eq!(answer("[]")["errors"][0]["field"], "body");
        assert_eq!(answer(r#"{"inner": ["x"]}"#)["errors"][0]["field"], "inner");
    }

    #[test]
    fn depth_and_nul_are_bounded() {
        let nested = |n: usize| format!("{{\"any\": {}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(parse::<Body>(nested(63).as_bytes()).is_ok());
        assert_eq!(answer(&nested(64))["code"], "invalid_json");
        assert_eq!(answer(&"[".repeat(1_000_000))["code"], "invalid_json");
        assert!(parse::<Body>(br#"{"name": "[[[[{{{{ \\u0000 \" "}"#).is_ok());
        assert_eq!(answer("{\"name\": \"a\\u0000b\"}")["code"], "invalid_json");
    }

    /// A body of so many pieces of so many bytes, each after so many seconds; then nothing more, for ever, unless it ends.
    fn slow(pieces: usize, bytes: usize, seconds: u64, ends: bool) -> Request {
        let stream = futures_util::stream::unfold(0, move |sent| async move {
            if sent == pieces && !ends {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            (sent < pieces).then(|| (Ok::<_, std::io::Error>(vec![b' '; bytes]), sent + 1))
        });
        Request::new(axum::body::Body::from_stream(stream))
    }

    async fn drained(request: Request) -> Result<Vec<u8>, Problem> {
        let (parts, body) = request.into_parts();
        read(&parts.headers, body, ORDINARY).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_must_come_at_some_speed() {
        assert_eq!(drained(slow(1, 10, 9, true)).await.map(|bytes| bytes.len()).ok(), None, "ends after 18 s");
        assert_eq!(drained(slow(1, 10, 4, true)).await.map(|bytes| bytes.len()).ok(), Some(10));
        assert_eq!(drained(slow(20, 6_000, 9, true)).await.map(|bytes| bytes.len()).ok(), Some(120_000));
        for stalled in [slow(0, 0, 0, false), slow(1, 1, 0, false), slow(3, 6_000, 1, false), slow(1_000, 1, 1, true)] {
            assert_eq!(drained(stalled).await.unwrap_err().status(), StatusCode::REQUEST_TIMEOUT);
        }
    }
}
