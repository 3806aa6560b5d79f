//! What administrators do with people: making them administrators or not, switching them off and on, new passwords, and
//! removing them.
//!
//! Whoever changes somebody holds first the service's row, so that of two such changes the second sees what the first did:
//! an administrator stays, whatever is done at once. Then come teams in the order of their ids, then the person.

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::base::clock::Timestamp;
use crate::base::id::{AuditId, ProjectId, UserId};
use crate::base::invalid::Invalid;
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::features::auth::Caller;
use crate::features::changes::{self, Change, Marking};
use crate::features::{keys, members, projects, sessions};
use crate::infra::db::{DbError, Tx};
use crate::infra::passwords::PasswordError;
use crate::infra::telemetry::current;

use super::register::{RegisterError, refuse_common, register};
use super::store::{self, ListedUser};
use super::{Account, rules};

/// What one must hold to make, change or remove an administrator, who holds everything.
const EVERYTHING: &str = "keyward:*";

/// How often removing somebody begins again who is being made a member of other teams at the same time.
const ATTEMPTS: usize = 10;

/// Who administers.
#[derive(Clone, Copy, Debug)]
pub struct Acting<'a> {
    /// Who; `None` is the command line.
    pub caller: Option<&'a Caller>,
    /// For the audit trail.
    pub by: &'a By,
}

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is no such person.
    #[error("there is no such person")]
    NotFound,
    /// The caller isn't an administrator any more.
    #[error("the caller isn't an administrator")]
    Forbidden,
    /// The person is an administrator, or shall be one, which the caller may not decide.
    #[error("administrators are changed by administrators alone")]
    NotHeld,
    /// Nobody would be left to administer the service.
    #[error("they are the last administrator who can log in")]
    LastAdministrator,
    /// Teams would be left without an owner.
    #[error("they are the only owner of {}", list(.0))]
    LastOwner(Vec<ProjectId>),
    /// They are being made a member of one team after another.
    #[error("they are joining teams just now; try again")]
    Busy,
    /// The password breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Nobody was made.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// Too many passwords are being hashed, or hashing failed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

fn list(projects: &[ProjectId]) -> String {
    projects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether administrators are theirs to decide about, as it stands in the transaction.
async fn decides_about_administrators(tx: &mut Tx, acting: Acting<'_>) -> Result<bool, AdminError> {
    match acting.caller {
        None => Ok(true),
        Some(Caller::Machine(machine)) => Ok(machine.is_system() && machine.covers(EVERYTHING)),
        Some(Caller::Person(person)) => {
            let caller = store::find(tx.conn(), person.user).await?;
            // Somebody may have taken it from them since they asked.
            caller.filter(|c| c.is_admin && c.disabled_at.is_none()).map(|_| true).ok_or(AdminError::Forbidden)
        }
    }
}

/// Holds a person, reads them, and makes sure that the caller may change them.
async fn hold(tx: &mut Tx, acting: Acting<'_>, user: UserId) -> Result<ListedUser, AdminError> {
    store::lock(tx, user).await?;
    let decides = decides_about_administrators(tx, acting).await?;
    let person = store::find(tx.conn(), user).await?.ok_or(AdminError::NotFound)?;
    if person.is_admin && !decides { Err(AdminError::NotHeld) } else { Ok(person) }
}

/// Whether another administrator can log in when this one can't any more.
async fn keep_an_administrator(tx: &mut Tx, person: &ListedUser) -> Result<(), AdminError> {
    let counts = person.is_admin && person.disabled_at.is_none();
    if counts && store::count_other_admins(tx.conn(), person.id).await? == 0 {
        return Err(AdminError::LastAdministrator);
    }
    Ok(())
}

async fn note(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    user: UserId,
    action: &'static str,
    now: Timestamp,
    changes: Option<Value>,
) -> Result<AuditId, DbError> {
    let entry = Entry {
        by,
        at: now,
        action,
        resource_type: "user",
        resource_id: Some(user.to_string()),
        project: None,
        outcome: Outcome::Success,
        changes,
    };
    let id = audit::append(tx, ctx, entry).await?;
    changes::append(tx, ctx, Change::Session(user), now).await?;
    Ok(id)
}

/// Writes what is different now.
async fn save(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    before: &ListedUser,
    after: &ListedUser,
    action: &'static str,
) -> Result<AuditId, DbError> {
    let now = ctx.now();
    store::save(tx, after, now).await?;
    let difference = audit::difference(&json!(Account::from(before.clone())), &json!(Account::from(after.clone())));
    note(tx, ctx, by, before.id, action, now, Some(difference)).await
}

/// Makes a person. An administrator is made only by who holds everything themselves.
///
/// # Errors
/// See [`AdminError`].
pub async fn create(
    ctx: &Ctx,
    acting: Acting<'_>,
    username: &str,
    password: &Secret,
    is_admin: bool,
    idempotency_key: Option<&str>,
) -> Result<Account, AdminError> {
    if is_admin && !decides_about_administrators(&mut ctx.db.begin().await?, acting).await? {
        return Err(AdminError::NotHeld);
    }
    let user = register(ctx, acting.by, username, password, is_admin, idempotency_key).await?;
    // As they were made, also where the request came a second time.
    let made =
        ListedUser { id: user.id, username: user.username, is_admin, disabled_at: None, created_at: user.created_at };
    Ok(made.into())
}

/// Makes somebody an administrator, or not any more. What becomes then of keys that they made where they have no role is
/// those projects' choice, as when they had left.
///
/// # Errors
/// See [`AdminError`].
pub async fn set_admin(
    ctx: &Ctx,
    acting: Acting<'_>,
    user: UserId,
    is_admin: Option<bool>,
) -> Result<Account, AdminError> {
    let mut tx = ctx.db.begin().await?;
    projects::store::lock_service(&mut tx).await?;
    let before = hold(&mut tx, acting, user).await?;
    let is_admin = is_admin.unwrap_or(before.is_admin);
    if before.is_admin == is_admin {
        return Ok(before.into());
    }
    if is_admin && !decides_about_administrators(&mut tx, acting).await? {
        return Err(AdminError::NotHeld);
    }
    keep_an_administrator(&mut tx, &before).await?;
    let after = ListedUser { is_admin, ..before.clone() };
    let cause = save(&mut tx, ctx, acting.by, &before, &after, "user.update").await?;
    let by = By::because_of(cause, "departure", ctx);
    let mut markings = vec![Marking::new(ctx, Change::Session(user))];
    for project in keys::store::projects_of(tx.conn(), user).await? {
        // Who administers no more leaves the projects in which they have no role, the system's among them.
        let is_member = members::store::find(tx.conn(), project, user).await?.is_some();
        if !after.is_admin && !is_member {
            keys::departure::settle(&mut tx, ctx, &by, project, user, ctx.now()).await?;
            markings.push(Marking::new(ctx, Change::Project(project)));
        }
    }
    tx.commit().await?;
    drop(markings);
    Ok(after.into())
}

/// Keeps somebody out until they are enabled: their sessions end at once. What becomes of the keys that they answer for is
/// each project's choice: those that it doesn't keep are refused from the commit on, and then written a part at a time. The
/// first of them are written when this returns; for the command line all of them.
///
/// # Errors
/// See [`AdminError`].
pub async fn disable(ctx: &Ctx, acting: Acting<'_>, user: UserId) -> Result<Account, AdminError> {
    let mut tx = ctx.db.begin().await?;
    projects::store::lock_service(&mut tx).await?;
    let before = hold(&mut tx, acting, user).await?;
    if before.disabled_at.is_some() {
        return Ok(before.into());
    }
    keep_an_administrator(&mut tx, &before).await?;
    let now = ctx.now();
    let after = ListedUser { disabled_at: Some(now), ..before.clone() };
    sessions::store::end_all(&mut tx, user).await?;
    let cause = save(&mut tx, ctx, acting.by, &before, &after, "user.disable").await?;
    let projects = keys::store::projects_of(tx.conn(), user).await?;
    let markings = announce(&mut tx, ctx, user, &projects, now).await?;
    tx.commit().await?;
    drop(markings);
    settle(ctx, acting, By::because_of(cause, "departure", ctx), user, projects).await;
    Ok(after.into())
}

/// Tells that what holds for somebody's keys in these projects is different now.
async fn announce<'a>(
    tx: &mut Tx,
    ctx: &'a Ctx,
    user: UserId,
    projects: &[ProjectId],
    now: Timestamp,
) -> Result<Vec<Marking<'a>>, DbError> {
    let mut markings = vec![Marking::new(ctx, Change::Session(user))];
    for project in projects {
        changes::append(tx, ctx, Change::Project(*project), now).await?;
        markings.push(Marking::new(ctx, Change::Project(*project)));
    }
    Ok(markings)
}

/// Settles the keys of somebody who is disabled in a task of its own, which nobody's going away ends. A request waits for
/// the first of them; the command line, whose process ends with it, for all.
async fn settle(ctx: &Ctx, acting: Acting<'_>, by: By, user: UserId, projects: Vec<ProjectId>) {
    let (begun, waiting) = oneshot::channel();
    let ctx = ctx.clone();
    let task = async move {
        if let Err(error) = keys::departure::settle_disabled(&ctx, &by, user, &projects, begun).await {
            // They are refused already, and the reconciler goes on.
            tracing::warn!(cause = %error, "the keys of a disabled person will be settled later");
        }
    };
    let task = tokio::spawn(current::carried(task));
    // Both fail only where the task has panicked, which has been told already.
    if acting.caller.is_some() {
        drop(waiting.await);
    } else {
        drop(task.await);
    }
}

/// Lets somebody in again. Their keys stay as they are: whoever answers for a project enables those that are still wanted.
/// Those that weren't settled yet work again.
///
/// # Errors
/// See [`AdminError`].
pub async fn enable(ctx: &Ctx, acting: Acting<'_>, user: UserId) -> Result<Account, AdminError> {
    let mut tx = ctx.db.begin().await?;
    projects::store::lock_service(&mut tx).await?;
    let before = hold(&mut tx, acting, user).await?;
    if before.disabled_at.is_none() {
        return Ok(before.into());
    }
    let after = ListedUser { disabled_at: None, ..before.clone() };
    save(&mut tx, ctx, acting.by, &before, &after, "user.enable").await?;
    let projects = keys::store::projects_of(tx.conn(), user).await?;
    let markings = announce(&mut tx, ctx, user, &projects, ctx.now()).await?;
    tx.commit().await?;
    drop(markings);
    Ok(after.into())
}

/// Gives somebody another password, and ends all their sessions.
///
/// # Errors
/// See [`AdminError`].
pub async fn reset_password(ctx: &Ctx, acting: Acting<'_>, user: UserId, password: &Secret) -> Result<(), AdminError> {
    let person = store::find(ctx.db.reader().await?.conn(), user).await?.ok_or(AdminError::NotFound)?;
    let password = rules::new_password("password", password)?;
    refuse_common(ctx, "password", &password, &person.username).await?;
    let hash = ctx.passwords.hash(password).await?;
    let mut tx = ctx.db.begin().await?;
    projects::store::lock_service(&mut tx).await?;
    hold(&mut tx, acting, user).await?;
    let now = ctx.now();
    store::reset_password_hash(&mut tx, user, &hash, now).await?;
    sessions::store::end_all(&mut tx, user).await?;
    note(&mut tx, ctx, acting.by, user, "user.reset_password", now, None).await?;
    let marking = Marking::new(ctx, Change::Session(user));
    tx.commit().await?;
    drop(marking);
    Ok(())
}

/// Removes somebody for good, with their sessions and their own project. The keys that they answer for in teams are settled
/// as when they leave; then nobody answers for them.
///
/// # Errors
/// See [`AdminError`].
pub async fn delete(ctx: &Ctx, acting: Acting<'_>, user: UserId) -> Result<(), AdminError> {
    for _ in 0..ATTEMPTS {
        let mut tx = ctx.db.begin().await?;
        projects::store::lock_service(&mut tx).await?;
        let teams = members::store::teams(tx.conn(), user).await?;
        for team in &teams {
            projects::store::lock(&mut tx, *team).await?;
        }
        let person = hold(&mut tx, acting, user).await?;
        // Held in an order, so that nobody waits in a circle: a team that they joined meanwhile comes too late.
        if members::store::teams(tx.conn(), user).await?.iter().all(|team| teams.contains(team)) {
            return remove(ctx, tx, acting.by, &person).await;
        }
    }
    Err(AdminError::Busy)
}

async fn remove(ctx: &Ctx, mut tx: Tx, by: &By, person: &ListedUser) -> Result<(), AdminError> {
    let (user, now) = (person.id, ctx.now());
    keep_an_administrator(&mut tx, person).await?;
    let owned = members::store::only_owned(tx.conn(), user).await?;
    if !owned.is_empty() {
        return Err(AdminError::LastOwner(owned));
    }
    let mut markings = vec![Marking::new(ctx, Change::Session(user))];
    let before = json!({ "before": Account::from(person.clone()) });
    // First, because all that follows names it as its cause.
    let cause = note(&mut tx, ctx, by, user, "user.delete", now, Some(before)).await?;
    let by = &By::because_of(cause, "departure", ctx);
    let personal = projects::end_personal(&mut tx, ctx, by, user, now).await?;
    for project in keys::store::projects_of(tx.conn(), user).await? {
        if Some(project) != personal {
            keys::departure::settle(&mut tx, ctx, by, project, user, now).await?;
        }
    }
    members::leave_all(&mut tx, ctx, by, user, now).await?;
    let changed = keys::store::projects_of(tx.conn(), user).await?;
    for project in changed.into_iter().chain(personal) {
        // Whose keys they are changes with every choice, and those of their own project are gone.
        changes::append(&mut tx, ctx, Change::Project(project), now).await?;
        markings.push(Marking::new(ctx, Change::Project(project)));
    }
    store::delete(&mut tx, user).await?;
    tx.commit().await?;
    drop(markings);
    Ok(())
}
