//! An answer to a verification, written from parts that were rendered when the key was read.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use crate::base::id::TEXT_LENGTH;
use crate::features::keys::verify::Answer;
use crate::gate::{Code, Rules, Standings};
use crate::web::rate;

/// Bytes of an ordinary answer without its metadata.
const USUAL: usize = 512;

/// Headers of an answer, those included that are added outside of here.
const HEADERS: usize = 16;

/// The whole answer, with the headers of the key's limits.
pub(super) fn response(answer: &Answer, request_id: &str) -> Response {
    let mut text = Vec::with_capacity(USUAL + answer.entry.as_ref().map_or(0, |entry| entry.fields_length()));
    write(&mut text, answer, request_id);
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    // At once, instead of growing step by step.
    headers.reserve(HEADERS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    tell(answer, headers);
    response
}

fn tell(answer: &Answer, headers: &mut HeaderMap) {
    if let Some((standings, rules)) = &answer.windows {
        rate::tell(rules, standings, headers);
    }
    if let Some(seconds) = answer.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}

/// One answer as a JSON object.
pub(super) fn write(text: &mut Vec<u8>, answer: &Answer, request_id: &str) {
    let valid = answer.code == Code::Valid;
    text.extend_from_slice(if valid { b"{\"valid\":true,\"code\":\"" } else { b"{\"valid\":false,\"code\":\"" });
    text.extend_from_slice(answer.code.word().as_bytes());
    text.push(b'"');
    if let Some(entry) = &answer.entry {
        let mut id = [0; TEXT_LENGTH];
        text.extend_from_slice(b",\"key_id\":\"");
        text.extend_from_slice(entry.key().text(&mut id).as_bytes());
        text.extend_from_slice(b"\",\"project_id\":\"");
        text.extend_from_slice(entry.project().text(&mut id).as_bytes());
        text.extend_from_slice(b"\",");
        if valid {
            entry.write_fields(text);
        } else {
            entry.write_name(text);
        }
        if let Some((standings, rules)) = &answer.windows {
            limits(text, rules, standings);
        }
    }
    if let Some(seconds) = answer.retry_after {
        text.extend_from_slice(b",\"retry_after_seconds\":");
        rate::number(text, seconds);
    }
    if let Some(trace) = &answer.trace {
        text.extend_from_slice(b",\"trace\":");
        // Words alone: can't fail.
        text.extend_from_slice(&serde_json::to_vec(trace).unwrap_or_default());
    }
    text.extend_from_slice(b",\"request_id\":");
    string(text, request_id);
    text.push(b'}');
}

fn limits(text: &mut Vec<u8>, rules: &Rules, standings: &Standings) {
    text.extend_from_slice(b",\"limits\":[");
    for (i, (head, window)) in rules.heads.iter().zip(standings.iter()).enumerate() {
        if i > 0 {
            text.push(b',');
        }
        text.extend_from_slice(head.json.as_bytes());
        rate::number(text, u64::from(window.remaining));
        text.extend_from_slice(b",\"reset_seconds\":");
        rate::number(text, rate::seconds(window.reset_micros));
        text.push(b'}');
    }
    text.push(b']');
    let mut refusing = rules.limits.iter().zip(standings.iter()).filter(|(_, window)| window.refused).peekable();
    if refusing.peek().is_some() {
        text.extend_from_slice(b",\"violated\":[");
        for (i, (limit, _)) in refusing.enumerate() {
            text.extend_from_slice(if i == 0 { b"\"" } else { b",\"" });
            // A plain word.
            text.extend_from_slice(limit.name.as_bytes());
            text.push(b'"');
        }
        text.push(b']');
    }
}

/// A client's request id is visible ASCII, of which JSON escapes two.
fn string(text: &mut Vec<u8>, visible: &str) {
    text.push(b'"');
    for byte in visible.bytes() {
        if matches!(byte, b'"' | b'\\') {
            text.push(b'\\');
        }
        text.push(byte);
    }
    text.push(b'"');
}
