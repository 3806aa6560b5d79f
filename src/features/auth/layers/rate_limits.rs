//! How often may a key call?

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use tower::{Layer, Service};

use crate::ctx::Ctx;
use crate::features::security;
use crate::gate::{Code, Decision, Rules, Standings};
use crate::web::problem::Problem;
use crate::web::rate;
use crate::web::request::RequestContext;

use super::{ApiKey, Refused, about_its_project, refuse_as};

/// Spends one of each of the key's windows, or of none and answers `429`; tells in every answer how they stand.
#[derive(Clone, Debug)]
pub struct RateLimits {
    ctx: Ctx,
}

/// How the windows stand, and the rules that these are of.
struct Spent {
    rules: Arc<Rules>,
    standings: Standings,
}

impl RateLimits {
    /// For requests that [`Authenticate`](super::Authenticate) has let through.
    #[must_use]
    pub fn new(ctx: Ctx) -> Self {
        Self { ctx }
    }

    /// `Ok(None)` for a request without a key.
    fn spend(&self, request: &Request) -> Result<Option<Spent>, (Refused, Problem)> {
        let Some(ApiKey(entry)) = request.extensions().get::<ApiKey>() else {
            return Ok(None);
        };
        let now = self.ctx.moment();
        let Decision { code, standings, rules, to_write } = entry.state.spend(entry, 1, now);
        self.ctx.metrics.verifications.inc(code.index());
        if to_write {
            self.ctx.gate.write_later(&entry.state);
        }
        match standings {
            Some(standings) if code == Code::Valid => {
                let key = (entry.project(), entry.key());
                security::notice::spent(&self.ctx, key, &standings, &rules, 1, now.wall);
                Ok(Some(Spent { rules, standings }))
            }
            Some(standings) => {
                let problem = Problem::limited(code, &rules, &standings);
                Err((Refused { code, windows: Some((standings, rules)) }, problem))
            }
            None => Ok(None),
        }
    }
}

impl<S> Layer<S> for RateLimits {
    type Service = RateLimitsService<S>;

    fn layer(&self, inner: S) -> RateLimitsService<S> {
        RateLimitsService { layer: self.clone(), inner }
    }
}

/// See [`RateLimits`].
#[derive(Clone, Debug)]
pub struct RateLimitsService<S> {
    layer: RateLimits,
    inner: S,
}

impl<S> Service<Request> for RateLimitsService<S>
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
        match self.layer.spend(&request) {
            Ok(None) => Box::pin(self.inner.call(request)),
            Ok(Some(Spent { rules, standings })) => {
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let mut answer = answer.await?;
                    // A route's own limit says more than the key's.
                    if !answer.headers().contains_key("ratelimit") {
                        rate::tell(&rules, &standings, answer.headers_mut());
                    }
                    Ok(answer)
                })
            }
            Err((refused, problem)) => {
                about_its_project(&request);
                let refusal = refuse_as(refused, problem, request.extensions().get::<RequestContext>());
                Box::pin(std::future::ready(Ok(refusal)))
            }
        }
    }
}
