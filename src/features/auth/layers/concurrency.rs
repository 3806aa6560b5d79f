//! How many requests of one key at once?

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use tower::{Layer, Service};

use crate::ctx::Ctx;
use crate::gate::{Code, KeyState};
use crate::web::problem::Problem;
use crate::web::request::RequestContext;

use super::{ApiKey, Refused, about_its_project, refuse_as};

/// Takes one of the key's places for as long as a request is worked on and its answer is sent; `429` if all are taken. The
/// place is free again also when the client goes away in the middle.
#[derive(Clone, Debug)]
pub struct Concurrency {
    ctx: Ctx,
}

impl Concurrency {
    /// For requests that [`Authenticate`](super::Authenticate) has let through.
    #[must_use]
    pub fn new(ctx: Ctx) -> Self {
        Self { ctx }
    }

    /// `Ok(None)` for a request without a key.
    fn enter(&self, request: &Request) -> Result<Option<Place>, Problem> {
        let Some(ApiKey(entry)) = request.extensions().get::<ApiKey>() else {
            return Ok(None);
        };
        let now = self.ctx.moment();
        // Counted also without a cap: one may be set while the request is worked on.
        if entry.state.enter(entry.rules.concurrency, now.wall) {
            return Ok(Some(Place(Arc::clone(&entry.state))));
        }
        self.ctx.metrics.verifications.inc(Code::ConcurrencyLimited.index());
        Err(Problem::concurrency_limited(entry.state.free_in(entry.rules.concurrency, now.wall)))
    }
}

/// One of a key's places, taken.
#[derive(Debug)]
struct Place(Arc<KeyState>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl<S> Layer<S> for Concurrency {
    type Service = ConcurrencyService<S>;

    fn layer(&self, inner: S) -> ConcurrencyService<S> {
        ConcurrencyService { layer: self.clone(), inner }
    }
}

/// See [`Concurrency`].
#[derive(Clone, Debug)]
pub struct ConcurrencyService<S> {
    layer: Concurrency,
    inner: S,
}

impl<S> Service<Request> for ConcurrencyService<S>
where
    S: Service<Request, Response = Response>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.layer.enter(&request) {
            Ok(None) => Box::pin(self.inner.call(request)),
            Ok(Some(place)) => {
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let answer = answer.await?;
                    Ok(answer.map(|body| Body::new(Held { body, _place: place })))
                })
            }
            Err(problem) => {
                about_its_project(&request);
                let origin = request.extensions().get::<RequestContext>();
                let refusal = refuse_as(Refused { code: Code::ConcurrencyLimited, windows: None }, problem, origin);
                Box::pin(std::future::ready(Ok(refusal)))
            }
        }
    }
}

/// An answer's body that holds the place until it is sent, or given up.
struct Held {
    body: Body,
    _place: Place,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
