//! Members: who takes part in a project, and in which role. The project's row is held while one is added, changed or
//! removed, so that of two changes at once the second sees what the first did.

pub mod http;
pub mod store;

use serde::Serialize;
use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::base::id::{AuditId, ProjectId, UserId};
use crate::base::page::{Cursor, Limit, Page};
use crate::ctx::Ctx;
use crate::infra::db::{DbError, Tx};

use super::audit::{self, By, Entry, Outcome};
use super::auth::permission::{MembersCreate, MembersDelete, MembersUpdate};
use super::auth::{Caller, Grants, Permission, Role};
use super::changes::{self, Change, Marking};
use super::events::{self, Event};
use super::idempotency::{self, Claimed, Created};
use super::keys::giver::Giver;
use super::users::rules::Username;
use super::{keys, projects, users};

/// Somebody who takes part in a project.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Member {
    /// Who.
    pub user_id: UserId,
    /// Their name.
    #[schema(example = "ada")]
    pub username: String,
    /// What they may do.
    pub role: Role,
    /// Whether they can't log in at present.
    pub is_disabled: bool,
    /// Since when.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub created_at: Timestamp,
}

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// There is no such project.
    #[error("there is no such project")]
    NoProject,
    /// Nobody has the name.
    #[error("nobody has that name")]
    NoUser,
    /// They aren't a member.
    #[error("they aren't a member")]
    NoMember,
    /// They are a member already.
    #[error("they are a member already")]
    Already,
    /// The caller may not do this any more.
    #[error("the caller may not do this here")]
    Forbidden,
    /// A role that the caller doesn't hold.
    #[error("a role that the caller doesn't hold")]
    NotHeld,
    /// The key that acts ends or is restricted; a role isn't.
    #[error("a restricted key gives no roles")]
    Restricted,
    /// The project would have no owner.
    #[error("the last owner")]
    LastOwner,
    /// A personal project is its person's alone, and the system's is nobody's.
    #[error("the project has no members of its own")]
    NotATeam,
    /// The `Idempotency-Key` was used for another request.
    #[error(transparent)]
    Claimed(#[from] Claimed),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

/// Who changes members of which project.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Who.
    pub caller: &'a Caller,
    /// For the audit trail.
    pub by: &'a By,
    /// Where.
    pub project: ProjectId,
}

/// A page of a project's members, newest first.
///
/// # Errors
/// The storage.
pub async fn list(
    ctx: &Ctx,
    project: ProjectId,
    after: Option<Cursor<UserId>>,
    limit: Limit,
) -> Result<Page<Member>, DbError> {
    let after = after.unwrap_or(Cursor { at: Timestamp::FAR, id: UserId::from_bits(u128::MAX) });
    let rows = store::list(ctx.db.reader().await?.conn(), project, &after, limit).await?;
    Ok(Page::cut(rows, limit, |member| Cursor { at: member.created_at, id: member.user_id }))
}

/// Adds a person.
///
/// # Errors
/// See [`MemberError`].
pub async fn add(
    ctx: &Ctx,
    target: Target<'_>,
    username: &Username,
    role: Role,
    request: Option<idempotency::Request<'_>>,
) -> Result<Created, MemberError> {
    let mut tx = ctx.db.begin().await?;
    let now = ctx.now();
    hold(&mut tx, target.project).await?;
    let request = request.as_ref();
    if let Some(created) = idempotency::before(&mut tx, request, username.as_str(), now).await? {
        return Ok(created);
    }
    let grants = target.caller.grants_on(tx.conn(), target.project).await?;
    may::<MembersCreate>(&grants, &[role])?;
    unrestricted::<MembersCreate>(&mut tx, target, ctx.now()).await?;
    let user = users::store::credentials(tx.conn(), username).await?.ok_or(MemberError::NoUser)?;
    store::add(&mut tx, target.project, user.id, role, now)
        .await
        .map_err(|error| if error.is_unique() { MemberError::Already } else { error.into() })?;
    let member = Member {
        user_id: user.id,
        username: user.username,
        role,
        is_disabled: user.disabled_at.is_some(),
        created_at: now,
    };
    note(&mut tx, ctx, (target.by, target.project), "member.add", &member, now, json!({ "after": member })).await?;
    let created = Created::new(format!("/v1/projects/{}/members/{}", target.project, user.id), &member);
    idempotency::keep(&mut tx, request, &created).await?;
    commit(tx, ctx, user.id).await?;
    Ok(created)
}

/// Gives a member another role. Nobody gives a role that they don't hold, nor takes one away that they don't hold. Where it
/// grants less than before, keys that the member answers for are switched off if they may do more.
///
/// # Errors
/// See [`MemberError`].
pub async fn set_role(ctx: &Ctx, target: Target<'_>, user: UserId, role: Role) -> Result<Member, MemberError> {
    let mut tx = ctx.db.begin().await?;
    hold(&mut tx, target.project).await?;
    hold_person(&mut tx, user).await?;
    let before = store::find(tx.conn(), target.project, user).await?.ok_or(MemberError::NoMember)?;
    let grants = target.caller.grants_on(tx.conn(), target.project).await?;
    may::<MembersUpdate>(&grants, &[role, before.role])?;
    unrestricted::<MembersUpdate>(&mut tx, target, ctx.now()).await?;
    if before.role == role {
        return Ok(before);
    }
    if before.role == Role::Owner {
        keep_an_owner(&mut tx, target.project, user).await?;
    }
    let now = ctx.now();
    store::set_role(&mut tx, target.project, user, role).await?;
    let member = Member { role, ..before.clone() };
    let difference = json!({ "before": { "role": before.role }, "after": { "role": role } });
    let place = (target.by, target.project);
    let cause = note(&mut tx, ctx, place, "member.update", &member, now, difference).await?;
    let by = By::because_of(cause, "demotion", ctx);
    let settled = keys::demotion::settle(&mut tx, ctx, (&by, target.project), user, (before.role, role), now).await?;
    let marking = (settled > 0).then(|| Marking::new(ctx, Change::Project(target.project)));
    commit(tx, ctx, user).await?;
    drop(marking);
    Ok(member)
}

/// Takes a member out, or lets one leave; what becomes of the keys that they answer for is the project's choice.
///
/// # Errors
/// See [`MemberError`].
pub async fn remove(ctx: &Ctx, target: Target<'_>, user: UserId) -> Result<(), MemberError> {
    let mut tx = ctx.db.begin().await?;
    hold(&mut tx, target.project).await?;
    hold_person(&mut tx, user).await?;
    let member = store::find(tx.conn(), target.project, user).await?.ok_or(MemberError::NoMember)?;
    let is_own = matches!(target.caller, Caller::Person(person) if person.user == user);
    if !is_own {
        let grants = target.caller.grants_on(tx.conn(), target.project).await?;
        may::<MembersDelete>(&grants, &[member.role])?;
    }
    if member.role == Role::Owner {
        keep_an_owner(&mut tx, target.project, user).await?;
    }
    let now = ctx.now();
    store::remove(&mut tx, target.project, user).await?;
    let place = (target.by, target.project);
    let cause = note(&mut tx, ctx, place, "member.remove", &member, now, json!({ "before": member })).await?;
    let by = By::because_of(cause, "departure", ctx);
    keys::departure::settle(&mut tx, ctx, &by, target.project, user, now).await?;
    let marking = Marking::new(ctx, Change::Project(target.project));
    commit(tx, ctx, user).await?;
    drop(marking);
    Ok(())
}

/// Takes somebody who is about to be removed out of all teams.
///
/// # Errors
/// The storage.
pub async fn leave_all(tx: &mut Tx, ctx: &Ctx, by: &By, user: UserId, now: Timestamp) -> Result<(), DbError> {
    for project in store::teams(tx.conn(), user).await? {
        if let Some(member) = store::find(tx.conn(), project, user).await? {
            store::remove(tx, project, user).await?;
            note(tx, ctx, (by, project), "member.remove", &member, now, json!({ "before": member })).await?;
        }
    }
    Ok(())
}

/// Holds the project's row, and makes sure that members are for it to have.
async fn hold(tx: &mut Tx, project: ProjectId) -> Result<(), MemberError> {
    let project = projects::store::lock(tx, project).await?.ok_or(MemberError::NoProject)?;
    if project.kind == projects::Kind::Team { Ok(()) } else { Err(MemberError::NotATeam) }
}

/// Keeps a person from making keys until the transaction ends: one that they are just making is settled with the others,
/// or isn't made any more.
async fn hold_person(tx: &mut Tx, user: UserId) -> Result<(), DbError> {
    users::store::lock(tx, user).await
}

/// Whether the caller may do this, as it stands now, and to these roles.
fn may<P: Permission>(grants: &Grants, roles: &[Role]) -> Result<(), MemberError> {
    if !grants.hold(P::SCOPE) {
        Err(MemberError::Forbidden)
    } else if roles.iter().all(|role| grants.allow_role(*role)) {
        Ok(())
    } else {
        Err(MemberError::NotHeld)
    }
}

/// Refuses a key that ends, or that is restricted itself: whoever gets a role from it would be neither.
async fn unrestricted<P: Permission>(tx: &mut Tx, target: Target<'_>, now: Timestamp) -> Result<(), MemberError> {
    let giver = Giver::look(tx.conn(), Some(target.caller), target.project, P::SCOPE, now).await?;
    let giver = giver.ok_or(MemberError::Forbidden)?;
    let is_restricted = giver.own().is_some_and(|own| {
        let set = &own.settings;
        own.expires_at.is_some()
            || set.ip_allow.is_some()
            || set.schedule.is_some()
            || set.method_allow.is_some()
            || set.path_allow.is_some()
    });
    if is_restricted { Err(MemberError::Restricted) } else { Ok(()) }
}

/// Whether another owner, who can log in, stays when one goes.
async fn keep_an_owner(tx: &mut Tx, project: ProjectId, user: UserId) -> Result<(), MemberError> {
    if store::count_other_owners(tx.conn(), project, user).await? > 0 { Ok(()) } else { Err(MemberError::LastOwner) }
}

async fn commit(mut tx: Tx, ctx: &Ctx, user: UserId) -> Result<(), DbError> {
    changes::append(&mut tx, ctx, Change::Session(user), ctx.now()).await?;
    let marking = Marking::new(ctx, Change::Session(user));
    tx.commit().await?;
    drop(marking);
    Ok(())
}

async fn note(
    tx: &mut Tx,
    ctx: &Ctx,
    (by, project): (&By, ProjectId),
    action: &'static str,
    member: &Member,
    now: Timestamp,
    difference: Value,
) -> Result<AuditId, DbError> {
    let entry = Entry {
        by,
        at: now,
        action,
        resource_type: "member",
        resource_id: Some(member.user_id.to_string()),
        project: Some(project),
        outcome: Outcome::Success,
        changes: Some(difference.clone()),
    };
    let id = audit::append(tx, ctx, entry).await?;
    let data = json!({ "id": member.user_id, "project_id": project, "member": member });
    let data = events::told(by, action, data, Some(&difference));
    let event = Event { at: now, project, kind: "member.changed", resource_id: member.user_id.to_string(), data };
    events::append(tx, ctx, event).await?;
    Ok(id)
}
