//! Logging in.

use std::time::Duration;

use serde_json::json;

use crate::base::clock::Timestamp;
use crate::base::id::{SessionId, UserId};
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::audit::{self, Actor, By, Entry, Outcome};
use crate::features::changes::{self, Change, Marking};
use crate::features::security;
use crate::features::users;
use crate::features::users::rules::{self, Username};
use crate::features::users::store::Credentials;
use crate::infra::db::{DbError, Tx};
use crate::infra::passwords::PasswordError;
use crate::web::request::RequestContext;

use super::throttle::Account;
use super::{store, throttle, token};

/// Why nobody was logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No such person, another password, or a disabled person: all the same to whoever asks.
    #[error("the username or the password is wrong")]
    Wrong,
    /// Too many failures lately.
    #[error("too many failures")]
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

/// A token, shown this once.
#[derive(Debug)]
pub struct LoggedIn {
    /// Sent as `Authorization: Bearer`.
    pub token: Secret,
    /// How long it lasts if nobody ends it.
    pub lasts: Duration,
    /// Whose older log-in had to end for it.
    ended: Option<UserId>,
}

/// Logs a person in. Takes the same steps, each as long, whether the name is known or not.
///
/// # Errors
/// See [`LoginError`].
pub async fn login(
    ctx: &Ctx,
    origin: &RequestContext,
    username: &str,
    password: &Secret,
) -> Result<LoggedIn, LoginError> {
    let result = attempt(ctx, origin, username, password).await;
    if let Err(LoginError::Wrong | LoginError::Blocked { .. }) = &result {
        security::notice::failed_login(ctx, origin.ip);
    }
    result
}

async fn attempt(
    ctx: &Ctx,
    origin: &RequestContext,
    username: &str,
    password: &Secret,
) -> Result<LoggedIn, LoginError> {
    let account = Account::of(username, origin.ip);
    if let Some(seconds) = throttle::blocked(ctx, &account).await? {
        return Err(LoginError::Blocked { seconds });
    }
    // A name that nobody can have is looked up as one that nobody has.
    let known = match Username::parse(username) {
        Ok(username) => users::store::credentials(ctx.db.reader().await?.conn(), &username).await?,
        Err(_) => None,
    };
    let password = rules::normalised(password).unwrap_or_else(|| Secret::new(String::new()));
    let hash = known.as_ref().filter(|c| c.disabled_at.is_none()).map(|c| c.password_hash.clone());
    let right = ctx.passwords.verify(password, hash).await?;

    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    // Guesses that were under way together must not slip past the delay that the first of them caused.
    if let Some(seconds) = throttle::blocked_in(&mut tx, &account, now).await? {
        return Err(LoginError::Blocked { seconds });
    }
    let tried = known.as_ref().map(|person| person.id);
    let result = match known.filter(|_| right) {
        Some(person) if store::lock_user(&mut tx, person.id, &person.password_hash).await? => {
            Ok(begin(&mut tx, ctx, origin, &account, &person, now).await?)
        }
        _ => {
            throttle::failed(&mut tx, &account, now).await?;
            let by = By::new(Actor::Anonymous, origin.clone());
            // Whose account it was is said only where there is one: people type passwords into the field for the name.
            let tried = tried.map(|user| user.to_string());
            let denied = entry(&by, now, None, Outcome::Denied);
            audit::append(&mut tx, ctx, Entry { resource_type: "user", resource_id: tried, ..denied }).await?;
            Err(LoginError::Wrong)
        }
    };
    let ended = result.as_ref().ok().and_then(|logged_in| logged_in.ended);
    let marking = ended.map(|user| Marking::new(ctx, Change::Session(user)));
    tx.commit().await?;
    drop(marking);
    result
}

async fn begin(
    tx: &mut Tx,
    ctx: &Ctx,
    origin: &RequestContext,
    account: &Account,
    person: &Credentials,
    now: Timestamp,
) -> Result<LoggedIn, DbError> {
    let token = token::generate(&*ctx.rng);
    let expires_at = now.saturating_add(ctx.config.auth.session_ttl).min(Timestamp::FAR);
    let session = store::NewSession {
        id: SessionId::generate(now, &*ctx.rng),
        user: person.id,
        token_hash: &token::hash(token.expose()),
        ip: origin.ip.to_string(),
        user_agent: origin.user_agent(),
        created_at: now,
        expires_at,
    };
    let ended = store::insert(tx, &session, ctx.config.auth.sessions_per_user).await?;
    if ended {
        changes::append(tx, ctx, Change::Session(person.id), now).await?;
    }
    store::succeeded(tx, account, now).await?;
    let by = By::new(Actor::User(person.id, person.username.clone()), origin.clone());
    let view = json!({
        "id": session.id, "ip": session.ip, "user_agent": session.user_agent,
        "created_at": session.created_at, "expires_at": session.expires_at,
    });
    let begun = entry(&by, now, Some(session.id), Outcome::Success);
    audit::append(tx, ctx, Entry { changes: Some(json!({ "after": view })), ..begun }).await?;
    Ok(LoggedIn { token, lasts: ctx.config.auth.session_ttl, ended: ended.then_some(person.id) })
}

fn entry(by: &By, at: Timestamp, session: Option<SessionId>, outcome: Outcome) -> Entry<'_> {
    Entry {
        by,
        at,
        action: "session.create",
        resource_type: "session",
        resource_id: session.map(|id| id.to_string()),
        project: None,
        outcome,
        changes: None,
    }
}

/// Ends the session that asks, or another of the same person.
///
/// # Errors
/// The storage. `Ok(false)`: there is no such session.
pub async fn end(
    ctx: &Ctx,
    by: &By,
    person: &crate::features::auth::Person,
    which: Option<SessionId>,
) -> Result<bool, DbError> {
    let mut tx = ctx.db.begin().await?;
    let ended = match which {
        Some(id) => store::end(&mut tx, id, person.user).await?,
        None => store::end_by_token(&mut tx, &person.token_hash, person.user).await?,
    };
    let Some(ended) = ended else { return Ok(which.is_none()) };
    let entry = Entry {
        action: "session.delete",
        changes: Some(json!({ "before": {
            "id": ended.id, "ip": ended.ip, "user_agent": ended.user_agent,
            "created_at": ended.created_at, "expires_at": ended.expires_at,
        } })),
        ..entry(by, ctx.now(), Some(ended.id), Outcome::Success)
    };
    audit::append(&mut tx, ctx, entry).await?;
    changes::append(&mut tx, ctx, Change::Session(person.user), ctx.now()).await?;
    let marking = Marking::new(ctx, Change::Session(person.user));
    tx.commit().await?;
    drop(marking);
    Ok(true)
}
