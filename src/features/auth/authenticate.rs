//! Finds out who calls, from the request's headers alone: a key in a URL is never looked at.

use axum::http::{HeaderMap, header};

use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::keys::{self, KeyState, format::PresentedKey};
use crate::features::sessions;
use crate::infra::sink::LastUse;
use crate::web::problem::Problem;

use super::{Caller, Machine, Person};

/// What the headers hold.
enum Credential {
    Bearer(Secret),
    ApiKey(Secret),
}

/// The caller.
///
/// # Errors
/// `401` for no or no good credentials or two of them, `503` if the storage is gone.
pub(super) async fn caller(ctx: &Ctx, headers: &HeaderMap) -> Result<Caller, Problem> {
    match credential(headers)? {
        Credential::Bearer(token) if sessions::token::is_token(token.expose()) => person(ctx, &token).await,
        Credential::Bearer(key) | Credential::ApiKey(key) => machine(ctx, &key).await,
    }
}

fn credential(headers: &HeaderMap) -> Result<Credential, Problem> {
    let ambiguous =
        || Problem::unauthorized("ambiguous_credentials", "Send one credential: Authorization or X-API-Key.");
    let mut keys = headers.get_all("x-api-key").iter();
    let mut bearers = headers.get_all(header::AUTHORIZATION).iter();
    let found = match (keys.next(), bearers.next()) {
        (Some(_), Some(_)) => return Err(ambiguous()),
        (Some(value), None) => value.to_str().ok().map(|text| Credential::ApiKey(Secret::new(text.trim().to_owned()))),
        (None, Some(value)) => {
            let token = value
                .to_str()
                .ok()
                .and_then(|text| text.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            token.map(|(_, token)| Credential::Bearer(Secret::new(token.trim().to_owned())))
        }
        (None, None) => {
            return Err(Problem::unauthorized(
                "unauthenticated",
                "Log in and send Authorization: Bearer <token>, or send X-API-Key: <key>.",
            ));
        }
    };
    if keys.next().is_some() || bearers.next().is_some() {
        return Err(ambiguous());
    }
    found.ok_or_else(refused)
}

fn refused() -> Problem {
    Problem::unauthorized("invalid_credentials", "The token or key isn't valid, or not any more.")
}

async fn person(ctx: &Ctx, token: &Secret) -> Result<Caller, Problem> {
    let hash = sessions::token::hash(token.expose());
    let session = sessions::store::live(ctx.db.reader().await?.conn(), &hash, ctx.now()).await?.ok_or_else(refused)?;
    Ok(Caller::Person(Person {
        user: session.user_id,
        username: session.username,
        is_admin: session.is_admin,
        token_hash: hash,
    }))
}

async fn machine(ctx: &Ctx, key: &Secret) -> Result<Caller, Problem> {
    let presented = PresentedKey::parse(key.expose()).map_err(|_| refused())?;
    let found = keys::store::by_hash(ctx.db.reader().await?.conn(), &presented.hash()).await?.ok_or_else(refused)?;
    let now = ctx.now();
    if keys::rules::state(&found.key, found.secret_expires_at, now) != KeyState::Active {
        return Err(refused());
    }
    ctx.usage.record(LastUse { key: found.key.id, secret: found.secret_id, at: now });
    Ok(Caller::Machine(Machine {
        key: found.key.id,
        name: found.key.name,
        project: found.key.project_id,
        is_system: found.project_kind == "system",
        scopes: found.key.scopes,
        user: found.key.user_id,
    }))
}
