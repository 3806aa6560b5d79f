//! Finds out who calls, from the request's headers alone: a key in a URL is never looked at.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};

use crate::ctx::{Arrival, Ctx};
use crate::features::keys;
use crate::features::scopes::ScopeQuery;
use crate::features::security;
use crate::features::usage::{self, More, Outcome, Seen};
use crate::features::{members, sessions};
use crate::gate::noted::Source;
use crate::gate::people::LoggedIn;
use crate::gate::{self, Client, Code, Entry, Found, Moment, Question};
use crate::web::problem::Problem;
use crate::web::request::RequestContext;

use super::{Caller, Machine, Person};

/// Where a key stands. As text, the name would be read anew with every look.
static API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A request as it is told to usage, if its key is refused.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Its method.
    pub method: &'a str,
    /// The template of its route, or its path where there is none.
    pub route: &'a str,
    /// When it came.
    pub arrival: Arrival,
    /// From where.
    pub ip: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: Option<&'a str>,
    /// Names it in logs.
    pub request_id: Option<&'a str>,
}

impl<'a> Told<'a> {
    /// One to Keyward itself.
    #[must_use]
    pub fn of(origin: &'a RequestContext, parts: &'a Parts) -> Self {
        Self {
            method: parts.method.as_str(),
            route: origin.route.get().map_or(parts.uri.path(), |route| route),
            arrival: origin.arrival,
            ip: Some(origin.ip),
            user_agent: user_agent(&parts.headers),
            request_id: Some(&origin.id),
        }
    }

    /// A key's request came out like this.
    pub(super) fn seen(&self, ctx: &Ctx, entry: &Entry, status: u16, code: Option<Code>, more: &More<'_>) {
        let seen = Seen {
            key: entry.key(),
            project: entry.project(),
            sample: entry.sample(),
            source: Source::Own,
            at: self.arrival.wall,
            method: self.method,
            endpoint: self.route,
            status: Some(status),
            outcome: Outcome::of_status(status),
            code,
            duration: Some(ctx.clock.monotonic().saturating_sub(self.arrival.monotonic)),
            ip: self.ip,
            user_agent: self.user_agent,
            request_id: self.request_id,
        };
        let rules = more.rules.or(Some(&*entry.rules));
        let more = More { rules, superseded: entry.is_superseded(), ..*more };
        usage::seen(ctx, &seen, &more);
    }

    /// A key may be used, but not for what it asked of Keyward, and nobody else counts its request.
    pub fn forbidden(&self, ctx: &Ctx, entry: &Entry) {
        let more = More { forbidden: true, ..More::default() };
        self.seen(ctx, entry, StatusCode::FORBIDDEN.as_u16(), Some(Code::Valid), &more);
    }

    /// A key was refused, before anybody else could count it.
    fn refused(told: Option<&Self>, ctx: &Ctx, entry: &Entry, code: Code, problem: Problem) -> Problem {
        ctx.metrics.verifications.inc(code.index());
        if let Some(told) = told {
            told.seen(ctx, entry, problem.status().as_u16(), Some(code), &More::default());
        }
        problem
    }
}

/// What a client calls itself, if it is plain text.
pub(super) fn user_agent(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok())
}

/// What the headers hold.
pub(super) enum Credential<'a> {
    /// After `Authorization: Bearer`.
    Bearer(&'a str),
    /// After `X-API-Key`.
    ApiKey(&'a str),
}

/// The caller. A key that is refused is counted as `told`.
///
/// # Errors
/// `401` for no or no good credentials or two of them, `403` for a key that may not be used from here or now, `503` if the
/// storage is gone.
pub async fn caller(
    ctx: &Ctx,
    headers: &HeaderMap,
    client: Client<'_>,
    arrival: Arrival,
    told: Option<&Told<'_>>,
) -> Result<Caller, Problem> {
    let now = ctx.moment_at(arrival);
    let caller = standing(ctx, headers, client, now, told).await?;
    if let Caller::Machine(Machine(entry)) = &caller
        && entry.state.called(entry.secret, now.wall)
    {
        ctx.gate.write_later(&entry.state);
    }
    Ok(caller)
}

/// The caller, whose question isn't a call of its own.
///
/// # Errors
/// As [`caller`].
pub(super) async fn standing(
    ctx: &Ctx,
    headers: &HeaderMap,
    client: Client<'_>,
    now: Moment,
    told: Option<&Told<'_>>,
) -> Result<Caller, Problem> {
    match credential(headers)? {
        Credential::Bearer(token) if sessions::token::is_token(token) => Box::pin(person(ctx, token, told)).await,
        Credential::Bearer(key) | Credential::ApiKey(key) => {
            let entry = machine(ctx, key, now, told).await?;
            permitted(ctx, &entry, client, &ScopeQuery::default(), now, told)?;
            Ok(Caller::Machine(Machine(entry)))
        }
    }
}

/// The key in the headers, if they hold one and nothing else.
///
/// # Errors
/// `401` for one that isn't good, or for two credentials; `503` if the storage is gone.
pub(super) async fn key(ctx: &Ctx, headers: &HeaderMap, told: &Told<'_>) -> Result<Option<Arc<Entry>>, Problem> {
    if !headers.contains_key(&API_KEY) && !headers.contains_key(header::AUTHORIZATION) {
        return Ok(None);
    }
    match credential(headers)? {
        Credential::Bearer(token) if sessions::token::is_token(token) => Ok(None),
        Credential::Bearer(key) | Credential::ApiKey(key) => {
            machine(ctx, key, ctx.moment(), Some(told)).await.map(Some)
        }
    }
}

pub(super) fn credential(headers: &HeaderMap) -> Result<Credential<'_>, Problem> {
    let ambiguous =
        || Problem::unauthorized("ambiguous_credentials", "Send one credential: Authorization or X-API-Key.");
    let mut keys = headers.get_all(&API_KEY).iter();
    let mut bearers = headers.get_all(header::AUTHORIZATION).iter();
    let found = match (keys.next(), bearers.next()) {
        (Some(_), Some(_)) => return Err(ambiguous()),
        (Some(value), None) => value.to_str().ok().map(|text| Credential::ApiKey(text.trim())),
        (None, Some(value)) => {
            let token = value
                .to_str()
                .ok()
                .and_then(|text| text.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            token.map(|(_, token)| Credential::Bearer(token.trim()))
        }
        (None, None) => {
            return Err(missing());
        }
    };
    if keys.next().is_some() || bearers.next().is_some() {
        return Err(ambiguous());
    }
    found.ok_or_else(refused)
}

/// No credentials at all.
pub(super) fn missing() -> Problem {
    Problem::unauthorized("unauthenticated", "Log in and send Authorization: Bearer <token>, or send X-API-Key: <key>.")
}

fn refused() -> Problem {
    Problem::unauthorized("invalid_credentials", "The token or key isn't valid, or not any more.")
}

/// What was shown is no good; nobody knows whose it is.
fn wrong(ctx: &Ctx, told: Option<&Told<'_>>, is_token: bool) -> Problem {
    if let Some(told) = told {
        security::notice::wrong_credentials(ctx, told.ip, is_token);
    }
    refused()
}

async fn person(ctx: &Ctx, token: &str, told: Option<&Told<'_>>) -> Result<Caller, Problem> {
    let hash = sessions::token::hash(token);
    let now = ctx.now();
    let known = if ctx.gate.is_trusted(ctx.steady()) { ctx.gate.people.get(&hash, now) } else { None };
    if let Some(logged_in) = known {
        return Ok(Caller::Person(Person { logged_in, token_hash: hash }));
    }
    let epoch = ctx.gate.epoch().now();
    let mut reader = ctx.db.reader().await?;
    let session = sessions::store::live(reader.conn(), &hash, now).await?.ok_or_else(|| wrong(ctx, told, true))?;
    let roles = members::store::roles(reader.conn(), session.user_id).await?;
    let logged_in = Arc::new(LoggedIn {
        user: session.user_id,
        username: session.username,
        is_admin: session.is_admin,
        expires_at: session.expires_at,
        roles: roles.into_iter().map(|(project, role)| (project, role.word().to_owned())).collect(),
    });
    ctx.gate.people.insert(hash.clone(), epoch, Arc::clone(&logged_in));
    Ok(Caller::Person(Person { logged_in, token_hash: hash }))
}

/// A key that is good; where it may be used from isn't asked yet.
async fn machine(ctx: &Ctx, key: &str, now: Moment, told: Option<&Told<'_>>) -> Result<Arc<Entry>, Problem> {
    let digest = keys::secrets::shown(ctx, key, now.steady).ok_or_else(|| wrong(ctx, told, false))?.digest;
    let entry = match ctx.gate.cached(&digest, now.steady) {
        Some(entry) => entry,
        None => match Box::pin(keys::secrets::find(ctx, &digest)).await? {
            Found::Entry(entry) => entry,
            Found::Unknown => return Err(wrong(ctx, told, false)),
        },
    };
    if entry.gone {
        return Err(wrong(ctx, told, false));
    }
    match gate::state(&entry, now.wall) {
        None => Ok(entry),
        Some(code) => Err(Told::refused(told, ctx, &entry, code, refused())),
    }
}

/// Whether a good key may be used by this client, now.
pub(super) fn permitted(
    ctx: &Ctx,
    entry: &Arc<Entry>,
    client: Client<'_>,
    scopes: &ScopeQuery,
    now: Moment,
    told: Option<&Told<'_>>,
) -> Result<(), Problem> {
    let question = Question { scopes, cost: 1, client, hit: None };
    if let Some(code) = gate::refusal(entry, &question, now.wall) {
        return Err(Told::refused(told, ctx, entry, code, refusal(code)));
    }
    Ok(())
}

/// The problem of a good key that may not do this.
pub(super) fn refusal(code: Code) -> Problem {
    let (word, detail) = match code {
        Code::IpNotAllowed => ("ip_not_allowed", "The key may not be used from this address."),
        Code::OutsideSchedule => ("outside_schedule", "The key may not be used at this time."),
        Code::InsufficientScope => ("insufficient_scope", "The key may not be used for this."),
        _ => return refused(),
    };
    Problem::new(StatusCode::FORBIDDEN, word, detail)
}
