//! Permission as an argument: the only ways for a handler to learn of a project or a key.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

use crate::base::id::{KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::audit::witness::Witness;
use crate::features::{audit, keys, projects};
use crate::gate::Client;
use crate::web::extract::Path;
use crate::web::problem::Problem;
use crate::web::request::RequestContext;

use super::again::{self, Wanted};
use super::layers::ApiKey;
use super::{Caller, Machine, Permission, Person, Reach, authenticate};

pub(crate) fn forbidden() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", "The caller isn't allowed to do this.")
}

/// The problem of a key that isn't there, or not for this caller.
pub(crate) fn key_not_found() -> Problem {
    Problem::not_found("key_not_found", "There is no such key.")
}

fn own_client<'a>(origin: &RequestContext, parts: &'a Parts) -> Client<'a> {
    Client { ip: Some(origin.ip), method: Some(parts.method.as_str()), path: Some(parts.uri.path()) }
}

/// Who calls; what they want to do is asked with the same breath, and again when the body is there.
async fn admitted(parts: &mut Parts, ctx: &Ctx, wanted: Wanted) -> Result<(Caller, By), Problem> {
    let since = again::moment(ctx);
    let (caller, by) = authenticated(parts, ctx).await?;
    wanted.of(ctx, &caller).await?;
    again::note(parts, ctx, &by.origin, since, wanted);
    Ok((caller, by))
}

async fn authenticated(parts: &mut Parts, ctx: &Ctx) -> Result<(Caller, By), Problem> {
    let Ok(origin) = RequestContext::from_request_parts(parts, ctx).await;
    let caller = if let Some(ApiKey(entry)) = parts.extensions.get::<ApiKey>() {
        // Judged already, by the layer.
        Caller::Machine(Machine(Arc::clone(entry)))
    } else {
        let told = authenticate::Told::of(&origin, parts);
        authenticate::caller(ctx, &parts.headers, own_client(&origin, parts), ctx.arrival(), Some(&told)).await?
    };
    // Set once a request: a second time would be the same caller.
    let _ = origin.caller.set(caller.name());
    let by = caller.by(&origin);
    if let Some(witness) = Witness::of(&parts.extensions) {
        witness.called_by(|| by.actor.clone());
    }
    Ok((caller, by))
}

/// Asks whether the caller has what they need, and leaves what is found for the audit trail.
async fn judge(parts: &Parts, ctx: &Ctx, caller: &Caller, wanted: &Wanted) -> Result<(), Problem> {
    let result = wanted.of(ctx, caller).await;
    if let (Some(witness), Wanted::In { project, scope, .. }) = (Witness::of(&parts.extensions), wanted) {
        match &result {
            // Nothing is hidden from who may see everything.
            Err(problem) if problem.status() == StatusCode::NOT_FOUND => {
                if !caller.holds_everywhere(scope) {
                    witness.hid();
                }
            }
            _ => witness.about(*project),
        }
    }
    result
}

/// A person, for what only people have: sessions and passwords.
#[derive(Debug)]
pub struct PersonCaller {
    /// Who.
    pub person: Person,
    /// For the audit trail.
    pub by: By,
}

impl FromRequestParts<Ctx> for PersonCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Problem> {
        match admitted(parts, ctx, Wanted::Nothing).await? {
            (Caller::Person(person), by) => Ok(Self { person, by }),
            (Caller::Machine(_), _) => {
                Err(Problem::new(StatusCode::FORBIDDEN, "person_required", "Only a person can do this, not a key."))
            }
        }
    }
}

/// A key that asks about itself; needs no permission.
#[derive(Debug)]
pub struct KeyCaller(pub Machine);

impl FromRequestParts<Ctx> for KeyCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Problem> {
        match admitted(parts, ctx, Wanted::Nothing).await? {
            (Caller::Machine(machine), _) => Ok(Self(machine)),
            (Caller::Person(_), _) => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "key_required",
                "Send an API key: a person has no key of their own.",
            )),
        }
    }
}

/// A permission in the project that the path names.
#[derive(Debug)]
pub struct InProject<P> {
    /// Who.
    pub caller: Caller,
    /// For the audit trail.
    pub by: By,
    /// Where.
    pub project: ProjectId,
    permission: PhantomData<P>,
}

fn within(scope: &'static str, project: ProjectId, hidden: fn() -> Problem) -> Wanted {
    Wanted::In { scope, project, deleted: false, hidden }
}

pub(super) fn project_not_found() -> Problem {
    Problem::not_found("project_not_found", "There is no such project.")
}

impl<P: Permission> InProject<P> {
    /// Asks for another permission in the same project.
    ///
    /// # Errors
    /// It isn't held, or the storage.
    pub async fn also<Q: Permission>(&self, ctx: &Ctx) -> Result<(), Problem> {
        within(Q::SCOPE, self.project, project_not_found).of(ctx, &self.caller).await
    }
}

impl<P: Permission> FromRequestParts<Ctx> for InProject<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Problem> {
        let since = again::moment(ctx);
        let (caller, by) = authenticated(parts, ctx).await?;
        let Path(project) = Path::from_request_parts(parts, ctx).await.map_err(|_| project_not_found())?;
        let wanted = within(P::SCOPE, project, project_not_found);
        judge(parts, ctx, &caller, &wanted).await?;
        again::note(parts, ctx, &by.origin, since, wanted);
        Ok(Self { caller, by, project, permission: PhantomData })
    }
}

/// A permission in the project that the path names, be it deleted: to look at it and to restore it.
#[derive(Debug)]
pub struct InAnyProject<P>(pub InProject<P>);

impl<P: Permission> FromRequestParts<Ctx> for InAnyProject<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Problem> {
        let since = again::moment(ctx);
        let (caller, by) = authenticated(parts, ctx).await?;
        let Path(project) = Path::from_request_parts(parts, ctx).await.map_err(|_| project_not_found())?;
        let wanted = Wanted::In { scope: P::SCOPE, project, deleted: true, hidden: project_not_found };
        judge(parts, ctx, &caller, &wanted).await?;
        again::note(parts, ctx, &by.origin, since, wanted);
        Ok(Self(InProject { caller, by, project, permission: PhantomData }))
    }
}

/// A permission that concerns the whole service: an administrator's, or that of a key of the system project.
#[derive(Debug)]
pub struct Instance<P> {
    /// Who.
    pub caller: Caller,
    /// For the audit trail.
    pub by: By,
    permission: PhantomData<P>,
}

impl<P: Permission> FromRequestParts<Ctx> for Instance<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Problem> {
        let (caller, by) = admitted(parts, ctx, Wanted::Instance(P::SCOPE)).await?;
        Ok(Self { caller, by, permission: PhantomData })
    }
}

/// Anybody who proved who they are; the handler decides what they may see of what.
#[derive(Debug)]
pub struct Anybody {
    /// Who.
    pub caller: Caller,
    /// For the audit trail.
    pub by: By,
}

impl FromRequestParts<Ctx> for Anybody {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Problem> {
        let (caller, by) = admitted(parts, ctx, Wanted::Nothing).await?;
        Ok(Self { caller, by })
    }
}

/// A permission in the caller's own project: a person's personal one, a key's only one.
#[derive(Debug)]
pub struct AtHome<P> {
    /// Who.
    pub caller: Caller,
    /// For the audit trail.
    pub by: By,
    /// Where.
    pub project: ProjectId,
    permission: PhantomData<P>,
}

impl<P: Permission> FromRequestParts<Ctx> for AtHome<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Problem> {
        let since = again::moment(ctx);
        let (caller, by) = authenticated(parts, ctx).await?;
        let project = match &caller {
            Caller::Machine(machine) => machine.project(),
            Caller::Person(person) => projects::store::personal(ctx.db.reader().await?.conn(), person.user)
                .await?
                .ok_or_else(|| Problem::not_found("project_not_found", "You have no project of your own."))?,
        };
        let wanted = within(P::SCOPE, project, forbidden);
        judge(parts, ctx, &caller, &wanted).await?;
        again::note(parts, ctx, &by.origin, since, wanted);
        Ok(Self { caller, by, project, permission: PhantomData })
    }
}

/// A key that isn't there leaves the same in the audit trail as one that is hidden, and takes as long.
fn missing_key<P: Permission>(parts: &Parts, caller: &Caller) -> Problem {
    if let Some(witness) = Witness::of(&parts.extensions)
        && !caller.holds_everywhere(P::SCOPE)
    {
        witness.hid();
    }
    key_not_found()
}

/// A permission on the key that the path names.
#[derive(Debug)]
pub struct OnKey<P> {
    /// Who.
    pub caller: Caller,
    /// For the audit trail.
    pub by: By,
    /// The key's project: an argument of every query.
    pub project: ProjectId,
    /// Which key.
    pub key: KeyId,
    permission: PhantomData<P>,
}

impl<P: Permission> FromRequestParts<Ctx> for OnKey<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Problem> {
        let since = again::moment(ctx);
        let (caller, by) = authenticated(parts, ctx).await?;
        let Path(key) = Path::from_request_parts(parts, ctx).await.map_err(|_| key_not_found())?;
        let project = keys::store::project_of(ctx.db.reader().await?.conn(), key).await?;
        let project = project.ok_or_else(|| missing_key::<P>(parts, &caller))?;
        let wanted = within(P::SCOPE, project, key_not_found);
        judge(parts, ctx, &caller, &wanted).await?;
        again::note(parts, ctx, &by.origin, since, wanted);
        Ok(Self { caller, by, project, key, permission: PhantomData })
    }
}

/// A permission wherever the caller holds it; the handler compares what it finds with the reach.
#[derive(Debug)]
pub struct Anywhere<P> {
    /// Who.
    pub caller: Caller,
    /// For the audit trail.
    pub by: By,
    /// The projects in which the permission is held: at least one.
    pub reach: Reach,
    permission: PhantomData<P>,
}

impl<P: Permission> FromRequestParts<Ctx> for Anywhere<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Problem> {
        let since = again::moment(ctx);
        let (caller, by) = authenticated(parts, ctx).await?;
        let reach = caller.reach(P::SCOPE);
        if reach.is_empty() {
            return Err(forbidden());
        }
        again::note(parts, ctx, &by.origin, since, Wanted::Within(P::SCOPE, reach.clone()));
        Ok(Self { caller, by, reach, permission: PhantomData })
    }
}

/// The same, also of a key that was deleted, where the request asks for a time (`as_of`).
#[derive(Debug)]
pub struct OnKeyOfThen<P>(pub OnKey<P>);

impl<P: Permission> FromRequestParts<Ctx> for OnKeyOfThen<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Problem> {
        let asks_back =
            form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).any(|(name, _)| name == "as_of");
        if !asks_back {
            return OnKey::from_request_parts(parts, ctx).await.map(Self);
        }
        let (caller, by) = authenticated(parts, ctx).await?;
        let Path(key) = Path::from_request_parts(parts, ctx).await.map_err(|_| key_not_found())?;
        let mut reader = ctx.db.reader().await?;
        let project = match keys::store::project_of(reader.conn(), key).await? {
            Some(project) => Some(project),
            None => audit::store::project_of_deleted(reader.conn(), key).await?,
        };
        drop(reader);
        let project = project.ok_or_else(|| missing_key::<P>(parts, &caller))?;
        let wanted = within(P::SCOPE, project, key_not_found);
        judge(parts, ctx, &caller, &wanted).await?;
        Ok(Self(OnKey { caller, by, project, key, permission: PhantomData }))
    }
}
