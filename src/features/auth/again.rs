//! Permission is asked for when a request's head has come; its body may take half a minute longer. What was revoked
//! meanwhile must not act: where anything has changed in between, it is asked for again before the body is looked at.

use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::gate::Client;
use crate::web::extract::Again;
use crate::web::problem::Problem;
use crate::web::request::RequestContext;

use super::{Access, Caller, Reach, authenticate, extract};

/// How long an answer is good that nothing is known to have changed.
const GOOD: Duration = Duration::from_secs(1);

/// What a request was let in for.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// To be somebody.
    Nothing,
    /// A permission in a project, or in one that may be deleted.
    In { scope: &'static str, project: ProjectId, deleted: bool, hidden: fn() -> Problem },
    /// A permission in all of these projects.
    Within(&'static str, Reach),
    /// A permission in the whole service.
    Instance(&'static str),
}

impl Wanted {
    /// Whether the caller has it.
    pub(super) async fn of(&self, ctx: &Ctx, caller: &Caller) -> Result<(), Problem> {
        let held = |yes: bool| if yes { Ok(()) } else { Err(extract::forbidden()) };
        match self {
            Self::Nothing => Ok(()),
            Self::Within(scope, projects) => held(projects.is_within(&caller.reach(scope))),
            Self::Instance(scope) => held(caller.holds_everywhere(scope)),
            Self::In { scope, project, deleted, hidden } => {
                let access = if *deleted {
                    caller.access_to_deleted(ctx, scope, *project).await?
                } else {
                    caller.access(ctx, scope, *project).await?
                };
                match access {
                    Access::Granted => Ok(()),
                    Access::Forbidden => Err(extract::forbidden()),
                    Access::Hidden => Err(hidden()),
                }
            }
        }
    }
}

/// Number of the latest change that is known, and the time: to be taken before a caller is looked up.
pub(super) fn moment(ctx: &Ctx) -> (u64, Duration) {
    (ctx.gate.epoch().now(), ctx.clock.monotonic())
}

/// Leaves with the request what to ask again when its body is there.
pub(super) fn note(parts: &mut Parts, ctx: &Ctx, origin: &RequestContext, since: (u64, Duration), wanted: Wanted) {
    if parts.method.is_safe() {
        return;
    }
    let (ctx, ip) = (ctx.clone(), origin.ip);
    let (headers, method, uri) = (Arc::new(parts.headers.clone()), parts.method.clone(), parts.uri.clone());
    let again = Again::new(move || {
        let (ctx, headers, method, uri) = (ctx.clone(), Arc::clone(&headers), method.clone(), uri.clone());
        let wanted = wanted.clone();
        Box::pin(async move {
            let (epoch, at) = since;
            let is_recent = ctx.clock.monotonic().saturating_sub(at) < GOOD;
            if is_recent && ctx.gate.epoch().now() == epoch && ctx.gate.is_trusted(ctx.steady()) {
                return Ok(());
            }
            let client = Client { ip: Some(ip), method: Some(method.as_str()), path: Some(uri.path()) };
            let caller = authenticate::caller(&ctx, &headers, client, ctx.arrival(), None).await?;
            wanted.of(&ctx, &caller).await
        })
    });
    parts.extensions.insert(again);
}
