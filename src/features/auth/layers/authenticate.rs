//! Which key calls?

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use tower::{Layer, Service};

use crate::ctx::Ctx;
use crate::features::audit::Actor;
use crate::features::audit::witness::Witness;
use crate::features::auth::authenticate;
use crate::features::scopes::ScopeQuery;
use crate::gate::Client;
use crate::web::problem::Problem;
use crate::web::request::{CallerId, RequestContext, client_address};

use super::{ApiKey, refuse};

/// Answers `401` to requests without a good key, `403` to those whose key may not be used from here, now or for this, and
/// puts the key as an [`ApiKey`] into the extensions of the others.
#[derive(Clone, Debug)]
pub struct Authenticate {
    ctx: Ctx,
    scopes: Arc<ScopeQuery>,
    required: bool,
}

impl Authenticate {
    /// Every request needs a key.
    #[must_use]
    pub fn required(ctx: Ctx) -> Self {
        Self { ctx, scopes: Arc::default(), required: true }
    }

    /// Requests without a key, or with a person's token, pass; a key that is shown must be good.
    #[must_use]
    pub fn optional(ctx: Ctx) -> Self {
        Self { ctx, scopes: Arc::default(), required: false }
    }

    /// Scopes that a key must hold: a list, which is needed whole, or a query.
    #[must_use]
    pub fn with_scopes(self, scopes: impl Into<ScopeQuery>) -> Self {
        Self { scopes: Arc::new(scopes.into()), ..self }
    }

    async fn judge(&self, request: &mut Request) -> Result<(), Problem> {
        let origin = request.extensions().get::<RequestContext>();
        let ip = origin.map_or_else(|| self.peer(request), |origin| Some(origin.ip));
        let Some(entry) = authenticate::key(&self.ctx, request.headers()).await? else {
            return if self.required { Err(authenticate::missing()) } else { Ok(()) };
        };
        if let Some(witness) = Witness::of(request.extensions()) {
            witness.called_by(|| Actor::Key(entry.key(), entry.name()));
        }
        let client = Client { ip, method: Some(request.method().as_str()), path: Some(request.uri().path()) };
        authenticate::permitted(&self.ctx, &entry, client, &self.scopes, self.ctx.moment())?;
        if let Some(origin) = request.extensions().get::<RequestContext>() {
            // Set once a request: a second time would be the same caller.
            let _ = origin.caller.set(CallerId::Key(entry.key()));
        }
        request.extensions_mut().insert(ApiKey(entry));
        Ok(())
    }

    /// Where a request to a foreign application comes from, if it was told of its connections' peers.
    fn peer(&self, request: &Request) -> Option<IpAddr> {
        let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
        Some(client_address(peer.ip().to_canonical(), request.headers(), &self.ctx.config.server.trusted_proxies))
    }
}

impl<S> Layer<S> for Authenticate {
    type Service = AuthenticateService<S>;

    fn layer(&self, inner: S) -> AuthenticateService<S> {
        AuthenticateService { layer: self.clone(), inner }
    }
}

/// See [`Authenticate`].
#[derive(Clone, Debug)]
pub struct AuthenticateService<S> {
    layer: Authenticate,
    inner: S,
}

impl<S> Service<Request> for AuthenticateService<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let layer = self.layer.clone();
        // The one that was found ready is the one to call.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            match layer.judge(&mut request).await {
                Ok(()) => ready.call(request).await,
                Err(problem) => Ok(refuse(problem, request.extensions().get::<RequestContext>())),
            }
        })
    }
}
