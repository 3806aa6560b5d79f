//! Stands around the management routes and writes an entry for each call that is refused: `401`, `403`, `429`, and `404` where
//! something is hidden from its caller.
//!
//! Known callers' refusals are written before the answer goes out, up to 60 a minute each; all others are collapsed.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use serde_json::json;

use crate::ctx::Ctx;
use crate::infra::db::DbError;
use crate::infra::refusals::{Sample, What, Who};
use crate::web::problem::Problem;
use crate::web::request::RequestContext;

use super::operations::{self, Operation};
use super::witness::Witness;
use super::{Actor, By, Entry, Outcome, append_alone};

/// The layer: inside of what notes the route, around everything that may refuse.
pub async fn watch(State(ctx): State<Ctx>, client: RequestContext, mut request: Request, next: Next) -> Response {
    let operation = client.route.get().and_then(|route| operations::find(request.method(), route));
    let Some(operation) = operation else { return next.run(request).await };
    let witness = Witness::default();
    request.extensions_mut().insert(witness.clone());
    let subject = operation.subject(request.uri().path());
    let response = next.run(request).await;
    let refusal = Refusal { operation, subject, witness, client };
    if let Some(code) = refusal.code(&response)
        && let Err(error) = refusal.note(&ctx, code, response.status()).await
    {
        // Nothing was changed and nothing was shown: the refusal stands, and the log says what the trail doesn't.
        tracing::warn!(cause = %error, action = operation.action, code, "a refusal isn't in the audit trail");
        ctx.metrics.audit_refusals_dropped.inc();
    }
    response
}

struct Refusal {
    operation: &'static Operation,
    subject: (&'static str, Option<String>),
    witness: Witness,
    client: RequestContext,
}

impl Refusal {
    /// The problem's code, if the answer is a refusal of which nothing is written yet.
    fn code(&self, response: &Response) -> Option<&'static str> {
        let is_refusal = match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::NOT_FOUND => self.witness.is_hidden(),
            _ => false,
        };
        let code = response.extensions().get::<Problem>().filter(|_| is_refusal)?.code();
        (!self.operation.writes(code)).then_some(code)
    }

    async fn note(&self, ctx: &Ctx, code: &'static str, status: StatusCode) -> Result<(), DbError> {
        let now = ctx.now();
        let who = match self.witness.actor() {
            Some(Actor::User(id, name)) => Who::User(*id, name.clone()),
            Some(Actor::Key(id, name)) => Who::Key(*id, name.clone()),
            Some(Actor::System(_) | Actor::Anonymous) | None => Who::at(self.client.ip),
        };
        let (resource_type, resource_id) = self.subject.clone();
        let status = status.as_u16();
        if ctx.refusals.at_once(&who, now)
            && let Some(actor) = self.witness.actor()
        {
            let entry = Entry {
                by: &By::new(actor.clone(), self.client.clone()),
                at: now,
                action: self.operation.action,
                resource_type,
                resource_id,
                project: self.witness.project(),
                outcome: Outcome::Denied,
                changes: Some(json!({ "code": code, "status": status })),
            };
            return append_alone(ctx, entry).await.map(drop);
        }
        let what = What { who, operation: self.operation.action, resource: self.operation.resource, code, status };
        let sample =
            || Sample { request: self.client.id.clone(), ip: self.client.ip, user_agent: self.client.user_agent() };
        if !ctx.refusals.add(what, sample, now) {
            ctx.metrics.audit_refusals_dropped.inc();
        }
        Ok(())
    }
}
