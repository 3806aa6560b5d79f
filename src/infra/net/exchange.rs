//! One request and its answer on one connection. Everything that a host says is bounded here: the head of its answer by
//! [`MAX_HEAD`], the body by the caller's number, the time by the caller's deadline around all of it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, Request, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::error::{Failure, OutboundError};

/// The largest head of an answer (status and headers), in bytes.
pub const MAX_HEAD: usize = 16 * 1024;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// How much of an answer's body is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// All of it, which may be this many bytes; nothing unless the status is one of success: nobody reads what an error page
    /// says.
    Whole(usize),
    /// This many bytes of its beginning, whatever the status, as far as they come within [`LINGER`]. Whatever becomes of the
    /// body, the head has said all that counts.
    Beginning(usize),
}

/// How long the beginning of a body is waited for once the head is there: who has said `200` and then says nothing more
/// mustn't keep the caller.
const LINGER: Duration = Duration::from_secs(2);

/// Asks, and hangs up. The answer is put into `heard` as soon as its head has come, and grows there: a caller who gives this up
/// finds what has come until then.
pub(super) async fn exchange<T>(
    io: T,
    request: Request<Full<Bytes>>,
    wanted: Wanted,
    heard: &mut Option<Answer>,
) -> Result<(), OutboundError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(io)).await.map_err(failed)?;
    let answer = Box::pin(async move {
        let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        let answer = heard.insert(Answer { status: head.status, headers: head.headers, body: Vec::new() });
        match wanted {
            Wanted::Whole(max_bytes) if answer.status.is_success() => {
                answer.body = read(&answer.headers, body, max_bytes).await?;
            }
            Wanted::Whole(_) => {}
            // The beginning of something compressed can't be read by anybody.
            Wanted::Beginning(_) if is_encoded(&answer.headers) => {}
            Wanted::Beginning(max_bytes) => {
                // What came until then is kept.
                drop(timeout(LINGER, begin(body, max_bytes, &mut answer.body)).await);
            }
        }
        Ok(())
    });
    // The connection only moves while it is polled; on this task, so that it ends with the caller.
    match select(answer, Box::pin(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, answer)) => answer.await,
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity")
}

async fn read(headers: &HeaderMap, mut body: Incoming, max_bytes: usize) -> Result<Vec<u8>, OutboundError> {
    if is_encoded(headers) {
        return Err(Failure::Encoding.into());
    }
    // What is announced as too large is refused unread; what isn't announced, as soon as it is too large.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(OutboundError::TooLarge(max_bytes));
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(failed)?.into_data() else { continue };
        if data.len() > max_bytes - bytes.len() {
            return Err(OutboundError::TooLarge(max_bytes));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Reads until there are enough bytes, or no more.
async fn begin(mut body: Incoming, max_bytes: usize, bytes: &mut Vec<u8>) {
    while bytes.len() < max_bytes
        && let Some(Ok(frame)) = body.frame().await
    {
        let Ok(data) = frame.into_data() else { continue };
        bytes.extend_from_slice(&data[..data.len().min(max_bytes - bytes.len())]);
    }
}

fn failed(error: hyper::Error) -> OutboundError {
    tracing::debug!(cause = ?error, "an outbound request got no complete answer");
    if error.is_parse_too_large() { Failure::Head } else { Failure::Http }.into()
}
