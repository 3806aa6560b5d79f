//! One request and its answer on one connection. Everything that a host says is bounded here: the head of its answer by
//! [`MAX_HEAD`], the body by the caller's number, the time by the caller's deadline around all of it.

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, Request, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::{Failure, OutboundError};

/// The largest head of an answer (status and headers), in bytes.
pub const MAX_HEAD: usize = 16 * 1024;

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Empty unless the status is one of success: nobody reads what an error page says.
    pub(super) body: Vec<u8>,
}

/// Asks, and hangs up.
pub(super) async fn exchange<T>(io: T, request: Request<Full<Bytes>>, max_bytes: usize) -> Result<Answer, OutboundError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(io)).await.map_err(failed)?;
    let answer = Box::pin(async move {
        let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        let body = if head.status.is_success() { read(&head.headers, body, max_bytes).await? } else { Vec::new() };
        Ok(Answer { status: head.status, headers: head.headers, body })
    });
    // The connection only moves while it is polled; on this task, so that it ends with the caller.
    match select(answer, Box::pin(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, answer)) => answer.await,
    }
}

async fn read(headers: &HeaderMap, mut body: Incoming, max_bytes: usize) -> Result<Vec<u8>, OutboundError> {
    if headers.get(http::header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
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

fn failed(error: hyper::Error) -> OutboundError {
    tracing::debug!(cause = ?error, "an outbound request got no complete answer");
    if error.is_parse_too_large() { Failure::Head } else { Failure::Http }.into()
}
