//! Permission for as long as an answer lasts: a stream outlives the question whether its caller may have it, so it is asked again
//! and again, at least once a second.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, Uri, header};

use crate::ctx::Ctx;
use crate::gate::Client;
use crate::web::problem::Problem;
use crate::web::request::RequestContext;

use super::again::Wanted;
use super::extract::{InAnyProject, InProject, project_not_found};
use super::{Permission, authenticate};

/// The longest time for which the storage isn't asked, while nothing is known to have changed.
const GOOD: Duration = Duration::from_secs(10);

/// Asks whether a caller still holds what they were let in for.
#[derive(Debug)]
pub struct Lasting {
    headers: HeaderMap,
    method: Method,
    uri: Uri,
    ip: IpAddr,
    wanted: Wanted,
    /// Number of the latest change that was known when the storage was asked, and when that was.
    asked: Option<(u64, Duration)>,
}

impl Lasting {
    /// Who they are is asked of memory, which is told of each change; what they may do of the storage, after any change.
    ///
    /// # Errors
    /// What would be answered if they came now.
    pub async fn ask(&mut self, ctx: &Ctx) -> Result<(), Problem> {
        let (epoch, at) = (ctx.gate.epoch().now(), ctx.clock.monotonic());
        let client = Client { ip: Some(self.ip), method: Some(self.method.as_str()), path: Some(self.uri.path()) };
        let caller = authenticate::standing(ctx, &self.headers, client, ctx.moment(), None).await?;
        let is_good = self.asked.is_some_and(|(then, when)| then == epoch && at.saturating_sub(when) < GOOD);
        if !is_good || !ctx.gate.is_trusted(ctx.steady()) {
            self.wanted.of(ctx, &caller).await?;
            self.asked = Some((epoch, at));
        }
        Ok(())
    }
}

/// A permission in the project that the path names, be it deleted, to be asked for again.
#[derive(Debug)]
pub struct LastingInAnyProject<P> {
    /// As it stands now.
    pub now: InProject<P>,
    /// As it will.
    pub lasting: Lasting,
}

impl<P: Permission> FromRequestParts<Ctx> for LastingInAnyProject<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Problem> {
        let InAnyProject(now) = InAnyProject::<P>::from_request_parts(parts, ctx).await?;
        let Ok(origin) = RequestContext::from_request_parts(parts, ctx).await;
        let credentials = [header::AUTHORIZATION, HeaderName::from_static("x-api-key")];
        let mut headers = HeaderMap::new();
        for name in credentials {
            for value in parts.headers.get_all(&name) {
                let mut value = value.clone();
                // Shown nowhere.
                value.set_sensitive(true);
                headers.append(&name, value);
            }
        }
        let lasting = Lasting {
            headers,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            ip: origin.ip,
            wanted: Wanted::In { scope: P::SCOPE, project: now.project, deleted: true, hidden: project_not_found },
            asked: None,
        };
        Ok(Self { now, lasting })
    }
}
