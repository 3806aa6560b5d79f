//! Making a person, with their own project.

use serde_json::json;

use crate::base::id::UserId;
use crate::base::invalid::{Check, Invalid};
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::audit::{self, Actor, By, Entry, Outcome};
use crate::features::idempotency::{self, Claimed};
use crate::features::projects;
use crate::features::sessions::throttle::{self, Account};
use crate::infra::address_limit::household;
use crate::infra::db::DbError;
use crate::infra::passwords::PasswordError;

use super::rules::{self, Username};
use super::store::ListedUser;
use super::{Account as Person, User, store};

/// Why nobody was made.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The name or the password breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Whoever makes them is no administrator any more.
    #[error("only an administrator makes other people")]
    Forbidden,
    /// Somebody has the name, perhaps in other capitals.
    #[error("the username is taken")]
    Taken,
    /// The `Idempotency-Key` was used for another registration.
    #[error(transparent)]
    Claimed(#[from] Claimed),
    /// The request was sent before with other passwords, too often.
    #[error("too many wrong passwords")]
    Blocked {
        /// Seconds to wait.
        seconds: u64,
    },
    /// Too many passwords are being hashed, or hashing failed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

/// Makes a person. Where nobody acts yet (`Actor::Anonymous`), the trail names the new person. With an `Idempotency-Key` that
/// the same caller, or the same address, has used for the same name and password, it gives the person who was made then.
///
/// # Errors
/// See [`RegisterError`].
pub async fn register(
    ctx: &Ctx,
    by: &By,
    username: &str,
    password: &Secret,
    is_admin: bool,
    idempotency_key: Option<&str>,
) -> Result<User, RegisterError> {
    let mut check = Check::default();
    let username = check.part(Username::parse(username));
    let password = check.part(rules::new_password("password", password));
    check.finish()?;
    // Both are there once the check has passed.
    let (Some(username), Some(password)) = (username, password) else {
        return Err(Invalid(Vec::new()).into());
    };

    // Only administrators make other people.
    let maker = match &by.actor {
        Actor::User(user, _) => Some(*user),
        Actor::Key(..) | Actor::System(_) | Actor::Anonymous => None,
    };
    let caller = by.actor.id().unwrap_or_else(|| format!("address:{}", household(by.origin.ip)));
    // The password isn't in the fingerprint: a hash of it could be searched. It is compared with the person's.
    let request = idempotency_key.map(|key| idempotency::Request {
        caller: &caller,
        operation: "user.create",
        key,
        fingerprint: idempotency::fingerprint(&(username.as_str(), is_admin)),
    });
    if let Some(request) = &request
        && let Some(user) = replay(ctx, by, request, &username, &password).await?
    {
        return Ok(user);
    }

    refuse_common(ctx, "password", &password, username.as_str()).await?;
    let hash = ctx.passwords.hash(password.clone()).await?;

    let now = ctx.now();
    let user = User { id: UserId::generate(now, &*ctx.rng), username: username.as_str().to_owned(), created_at: now };
    let by = match by.actor {
        Actor::Anonymous => &By::new(Actor::User(user.id, user.username.clone()), by.origin.clone()),
        _ => by,
    };
    let mut tx = ctx.db.begin().await?;
    if let Some(maker) = maker {
        // Hashing took a while, in which they may have lost what they need for this.
        store::lock(&mut tx, maker).await?;
        if !store::is_admin(tx.conn(), maker).await? {
            return Err(RegisterError::Forbidden);
        }
    }
    if let Some(request) = &request
        && !idempotency::is_first(&mut tx, request, &user.id.to_string(), now).await?
    {
        drop(tx);
        return replay(ctx, by, request, &username, &password).await?.ok_or(RegisterError::Taken);
    }
    store::insert(&mut tx, &user, &username, &hash, is_admin)
        .await
        .map_err(|error| if error.is_unique() { RegisterError::Taken } else { error.into() })?;
    let project = projects::create_personal(&mut tx, ctx, user.id, &user.username, now).await?;
    let made = ListedUser {
        id: user.id,
        username: user.username.clone(),
        is_admin,
        disabled_at: None,
        created_at: user.created_at,
    };
    let entry = Entry {
        by,
        at: now,
        action: "user.create",
        resource_type: "user",
        resource_id: Some(user.id.to_string()),
        project: Some(project.id),
        outcome: Outcome::Success,
        changes: Some(json!({ "after": Person::from(made) })),
    };
    let cause = audit::append(&mut tx, ctx, entry).await?;
    projects::announce(&mut tx, ctx, &By::because_of(cause, "registration", ctx), &project).await?;
    tx.commit().await?;
    Ok(user)
}

/// Whom an earlier request with this key made, if the password is still theirs; `None` if there was no such request. A wrong
/// password counts like a failed log-in: this mustn't be a way to guess it.
async fn replay(
    ctx: &Ctx,
    by: &By,
    request: &idempotency::Request<'_>,
    username: &Username,
    password: &Secret,
) -> Result<Option<User>, RegisterError> {
    let run_out = ctx.now().saturating_sub(idempotency::KEPT);
    let found = idempotency::store::find(ctx.db.reader().await?.conn(), request, run_out).await?;
    let Some(earlier) = found else { return Ok(None) };
    if earlier.fingerprint != request.fingerprint {
        return Err(Claimed::Mismatch.into());
    }
    let account = Account::of(username.as_str(), by.origin.ip);
    if let Some(seconds) = throttle::blocked(ctx, &account).await? {
        return Err(RegisterError::Blocked { seconds });
    }
    let known = store::credentials(ctx.db.reader().await?.conn(), username).await?;
    let known = known.filter(|person| person.disabled_at.is_none() && person.id.to_string() == earlier.resource_id);
    let right = ctx.passwords.verify(password.clone(), known.as_ref().map(|p| p.password_hash.clone())).await?;

    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    if let Some(seconds) = throttle::blocked_in(&mut tx, &account, now).await? {
        return Err(RegisterError::Blocked { seconds });
    }
    let person = known.filter(|_| right);
    if person.is_none() {
        throttle::failed(&mut tx, &account, now).await?;
        let entry = Entry {
            by,
            at: now,
            action: "user.create",
            resource_type: "user",
            resource_id: None,
            project: None,
            outcome: Outcome::Denied,
            changes: None,
        };
        audit::append(&mut tx, ctx, entry).await?;
    }
    tx.commit().await?;
    let person = person.ok_or(Claimed::Mismatch)?;
    Ok(store::by_id(ctx.db.reader().await?.conn(), person.id).await?)
}

/// Checks against common passwords, off the async threads.
pub(super) async fn refuse_common(
    ctx: &Ctx,
    field: &'static str,
    password: &Secret,
    username: &str,
) -> Result<(), RegisterError> {
    let (password, username) = (password.clone(), username.to_owned());
    let is_common = ctx.passwords.judge(move || rules::is_common(&password, &username)).await?;
    if is_common { Err(rules::common_password(field).into()) } else { Ok(()) }
}
