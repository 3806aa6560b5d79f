//! Which key calls?

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::Method;
use axum::response::Response;
use tower::{Layer, Service};

use crate::ctx::{Arrival, Ctx};
use crate::features::audit::Actor;
use crate::features::audit::witness::Witness;
use crate::features::auth::authenticate::{self, Told};
use crate::features::scopes::ScopeQuery;
use crate::features::usage::More;
use crate::gate::{Client, Code, Entry};
use crate::web::problem::Problem;
use crate::web::request::{CallerId, RequestContext, client_address};

use super::{ApiKey, Refused, refuse};

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

    /// Lets a request in, or doesn't. With a key, it must be counted when it ends.
    async fn judge(&self, request: &mut Request) -> Result<Option<InProgress>, Problem> {
        let origin = request.extensions().get::<RequestContext>();
        let ip = origin.map_or_else(|| self.peer(request), |origin| Some(origin.ip));
        let route = request.extensions().get::<MatchedPath>();
        let told = Told {
            method: request.method().as_str(),
            route: route.map_or(request.uri().path(), MatchedPath::as_str),
            arrival: origin.map_or_else(|| self.ctx.arrival(), |origin| origin.arrival),
            ip,
            user_agent: authenticate::user_agent(request.headers()),
            request_id: origin.map(|origin| origin.id.as_str()),
        };
        let Some(entry) = authenticate::key(&self.ctx, request.headers(), &told).await? else {
            return if self.required { Err(authenticate::missing()) } else { Ok(None) };
        };
        if let Some(witness) = Witness::of(request.extensions()) {
            witness.called_by(|| Actor::Key(entry.key(), entry.name()));
        }
        let client = Client { ip, method: Some(request.method().as_str()), path: Some(request.uri().path()) };
        authenticate::permitted(&self.ctx, &entry, client, &self.scopes, self.ctx.moment(), Some(&told))?;
        if let Some(origin) = origin {
            // Set once a request: a second time would be the same caller.
            let _ = origin.caller.set(CallerId::Key(entry.key()));
        }
        let in_progress = InProgress {
            ctx: self.ctx.clone(),
            entry: Arc::clone(&entry),
            method: request.method().clone(),
            route: told.route.to_owned(),
            arrival: told.arrival,
            ip,
            user_agent: told.user_agent.map(ToOwned::to_owned),
            origin: origin.cloned(),
            status: CLIENT_CLOSED_REQUEST,
            refused: Refused { code: Code::Valid, windows: None },
            forbidden: false,
        };
        request.extensions_mut().insert(ApiKey(entry));
        Ok(Some(in_progress))
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
                Ok(None) => ready.call(request).await,
                Ok(Some(mut in_progress)) => {
                    let response = ready.call(request).await?;
                    in_progress.status = response.status().as_u16();
                    if let Some(refused) = response.extensions().get::<Refused>() {
                        in_progress.refused = refused.clone();
                    } else if in_progress.status == 403
                        && response.extensions().get::<Problem>().is_some_and(|problem| problem.code() == FORBIDDEN)
                    {
                        in_progress.forbidden = true;
                    }
                    Ok(response)
                }
                Err(problem) => Ok(refuse(problem, request.extensions().get::<RequestContext>())),
            }
        })
    }
}

/// The code of a caller that lacks a permission.
const FORBIDDEN: &str = "forbidden";

/// What a request is counted as whose client went away before its answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A key's request until it has been answered: counted at its end, however it ends.
struct InProgress {
    ctx: Ctx,
    entry: Arc<Entry>,
    method: Method,
    route: String,
    arrival: Arrival,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    origin: Option<RequestContext>,
    status: u16,
    /// What the gate said: that it is good, unless a limit refuses it further in.
    refused: Refused,
    /// Whether it is good and lacks a permission.
    forbidden: bool,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let told = Told {
            method: self.method.as_str(),
            route: &self.route,
            arrival: self.arrival,
            ip: self.ip,
            user_agent: self.user_agent.as_deref(),
            request_id: self.origin.as_ref().map(|origin| origin.id.as_str()),
        };
        let Refused { code, windows } = &self.refused;
        let more = More {
            standings: windows.as_ref().map(|(standings, _)| standings),
            rules: windows.as_ref().map(|(_, rules)| &**rules),
            forbidden: self.forbidden,
            ..More::default()
        };
        told.seen(&self.ctx, &self.entry, self.status, Some(*code), &more);
    }
}
