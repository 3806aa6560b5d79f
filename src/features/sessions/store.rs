//! All SQL for `sessions` and `login_failures`.

use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::id::{SessionId, UserId};
use crate::base::page::{Cursor, Limit};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::throttle::Account;

sql! {
    INSERT = Sql::same(
        "INSERT INTO sessions (id, user_id, token_hash, ip, user_agent, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    );
    /// Ends the oldest beyond the newest `$2`, not counting `$3`, which is never ended.
    END_OLDEST = Sql::same(
        "DELETE FROM sessions WHERE user_id = $1 AND id <> $3 AND id NOT IN
             (SELECT id FROM sessions WHERE user_id = $1 AND id <> $3 ORDER BY created_at DESC, id DESC LIMIT $2)",
    );
    LIVE = Sql::same(
        "SELECT s.id, s.user_id, u.username, u.is_admin, s.expires_at FROM sessions s JOIN users u ON u.id = s.user_id
         WHERE s.token_hash = $1 AND s.expires_at > $2 AND u.disabled_at IS NULL",
    );
    LIST = Sql::same(
        "SELECT id, ip, user_agent, created_at, expires_at, token_hash FROM sessions
         WHERE user_id = $1 AND expires_at > $2 AND (created_at, id) < ($3, $4)
         ORDER BY created_at DESC, id DESC LIMIT $5",
    );
    END = Sql::same(
        "DELETE FROM sessions WHERE id = $1 AND user_id = $2
         RETURNING id, ip, user_agent, created_at, expires_at, token_hash",
    );
    END_BY_TOKEN = Sql::same(
        "DELETE FROM sessions WHERE token_hash = $1 AND user_id = $2
         RETURNING id, ip, user_agent, created_at, expires_at, token_hash",
    );
    END_OTHERS = Sql::same("DELETE FROM sessions WHERE user_id = $1 AND token_hash <> $2");
    END_ALL = Sql::same("DELETE FROM sessions WHERE user_id = $1");
    PRUNE = Sql::same("DELETE FROM sessions WHERE expires_at <= $1");
    LOCK_USER = Sql::same("UPDATE users SET updated_at = updated_at WHERE id = $1 AND disabled_at IS NULL AND password_hash = $2");
    /// Makes attempts on one account wait for each other.
    HOLD = Sql::same(
        "INSERT INTO login_failures (account, address, failures, updated_at) VALUES ($1, '', 0, $2)
         ON CONFLICT (account, address) DO UPDATE SET failures = login_failures.failures",
    );
    FAILURES = Sql::same(
        "SELECT address, blocked_until, succeeded_at FROM login_failures
         WHERE account = $1 AND (address = '' OR address = $2)",
    );
    COUNT_FAILURE = Sql::same(
        "INSERT INTO login_failures (account, address, failures, updated_at) VALUES ($1, $2, 1, $3)
         ON CONFLICT (account, address) DO UPDATE SET updated_at = $3,
             failures = CASE WHEN login_failures.updated_at < $4 THEN 1 ELSE login_failures.failures + 1 END
         RETURNING failures",
    );
    BLOCK = Sql::same("UPDATE login_failures SET blocked_until = $3 WHERE account = $1 AND address = $2");
    SUCCEEDED = Sql::same(
        "INSERT INTO login_failures (account, address, failures, succeeded_at, updated_at) VALUES ($1, $2, 0, $3, $3)
         ON CONFLICT (account, address) DO UPDATE SET failures = 0, blocked_until = NULL, succeeded_at = $3, updated_at = $3",
    );
    /// Rows of whole accounts (`$3`), or those of addresses: never both at once, since log-ins hold first the one, then the other.
    PRUNE_FAILURES = Sql::same(
        "DELETE FROM login_failures WHERE updated_at < $1 AND (succeeded_at IS NULL OR succeeded_at < $2)
           AND (address = '') = $3",
    );
}

/// A log-in to add.
#[derive(Debug)]
pub(super) struct NewSession<'a> {
    pub id: SessionId,
    pub user: UserId,
    pub token_hash: &'a [u8],
    pub ip: String,
    pub user_agent: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// The person behind a token.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct LiveSession {
    /// Which log-in.
    pub id: SessionId,
    /// Who.
    pub user_id: UserId,
    /// Their name.
    pub username: String,
    /// Whether they may act in every project.
    pub is_admin: bool,
    /// When the log-in ends.
    pub expires_at: Timestamp,
}

/// A log-in, as its owner sees it.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, utoipa::ToSchema)]
#[schema(as = Session)]
pub struct Session {
    /// Names it.
    pub id: SessionId,
    /// The address that logged in.
    #[schema(example = "192.0.2.7")]
    pub ip: Option<String>,
    /// The program that logged in, by its own word.
    pub user_agent: Option<String>,
    /// When it began.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub created_at: Timestamp,
    /// When it ends by itself.
    #[schema(value_type = String, format = DateTime, example = "2026-11-21T00:00:00Z")]
    pub expires_at: Timestamp,
    #[serde(skip)]
    #[schema(ignore)]
    pub(super) token_hash: Vec<u8>,
    /// Whether it is the one that asks.
    #[sqlx(skip)]
    pub current: bool,
}

/// One count of failures.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Failures {
    pub address: String,
    pub blocked_until: Option<Timestamp>,
    pub succeeded_at: Option<Timestamp>,
}

/// Adds a log-in and ends the oldest of those past `keep`; says whether there were any.
pub(super) async fn insert(tx: &mut Tx, session: &NewSession<'_>, keep: i64) -> Result<bool, DbError> {
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(session.id)
        .bind(session.user)
        .bind(session.token_hash)
        .bind(&session.ip)
        .bind(session.user_agent.as_deref())
        .bind(session.created_at)
        .bind(session.expires_at)
        .execute(c)
        .await
        .map(|_| ()))?;
    on!(tx.conn(), END_OLDEST, |c, sql| sqlx::query(sql)
        .bind(session.user)
        .bind(keep - 1)
        .bind(session.id)
        .execute(c)
        .await
        .map(|done| done.rows_affected() > 0))
}

/// The person behind a token that hasn't run out, if they aren't disabled.
///
/// # Errors
/// The storage.
pub async fn live(conn: Conn<'_>, token_hash: &[u8], now: Timestamp) -> Result<Option<LiveSession>, DbError> {
    on!(conn, LIVE, |c, sql| sqlx::query_as(sql).bind(token_hash).bind(now).fetch_optional(c).await)
}

/// A person's log-ins, newest first.
pub(super) async fn list(
    conn: Conn<'_>,
    user: UserId,
    now: Timestamp,
    after: &Cursor<SessionId>,
    limit: Limit,
) -> Result<Vec<Session>, DbError> {
    on!(conn, LIST, |c, sql| sqlx::query_as(sql)
        .bind(user)
        .bind(now)
        .bind(after.at)
        .bind(after.id)
        .bind(limit.fetch())
        .fetch_all(c)
        .await)
}

/// Ends a log-in, and gives what it was.
pub(super) async fn end(tx: &mut Tx, id: SessionId, user: UserId) -> Result<Option<Session>, DbError> {
    on!(tx.conn(), END, |c, sql| sqlx::query_as(sql).bind(id).bind(user).fetch_optional(c).await)
}

/// Ends the log-in of a token, and gives what it was.
pub(super) async fn end_by_token(tx: &mut Tx, token_hash: &[u8], user: UserId) -> Result<Option<Session>, DbError> {
    on!(tx.conn(), END_BY_TOKEN, |c, sql| sqlx::query_as(sql).bind(token_hash).bind(user).fetch_optional(c).await)
}

/// Ends all log-ins of a person but one.
///
/// # Errors
/// The storage.
pub async fn end_others(tx: &mut Tx, user: UserId, kept: &[u8]) -> Result<(), DbError> {
    on!(tx.conn(), END_OTHERS, |c, sql| sqlx::query(sql).bind(user).bind(kept).execute(c).await.map(|_| ()))
}

/// Ends all log-ins of a person.
///
/// # Errors
/// The storage.
pub async fn end_all(tx: &mut Tx, user: UserId) -> Result<(), DbError> {
    on!(tx.conn(), END_ALL, |c, sql| sqlx::query(sql).bind(user).execute(c).await.map(|_| ()))
}

/// Holds a person's row until the transaction ends; `false` if they were disabled, or their password changed, since it was
/// checked.
pub(super) async fn lock_user(tx: &mut Tx, user: UserId, password_hash: &str) -> Result<bool, DbError> {
    let rows = on!(tx.conn(), LOCK_USER, |c, sql| sqlx::query(sql)
        .bind(user)
        .bind(password_hash)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// Forgets log-ins that have run out.
///
/// # Errors
/// The storage.
pub async fn prune(tx: &mut Tx, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), PRUNE, |c, sql| sqlx::query(sql).bind(now).execute(c).await.map(|_| ()))
}

/// Forgets old counts of failures: of accounts, or of addresses.
///
/// # Errors
/// The storage.
pub async fn prune_failures(tx: &mut Tx, now: Timestamp, accounts: bool) -> Result<(), DbError> {
    use super::throttle::{MEMORY, USUAL};
    let (forgotten, unusual) = (now.saturating_sub(MEMORY), now.saturating_sub(USUAL));
    on!(tx.conn(), PRUNE_FAILURES, |c, sql| sqlx::query(sql)
        .bind(forgotten)
        .bind(unusual)
        .bind(accounts)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Keeps other attempts on the account out until the transaction ends.
pub(super) async fn hold(tx: &mut Tx, account: &Account, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), HOLD, |c, sql| sqlx::query(sql).bind(&account.hash).bind(now).execute(c).await.map(|_| ()))
}

pub(super) async fn failures(conn: Conn<'_>, account: &Account) -> Result<Vec<Failures>, DbError> {
    on!(conn, FAILURES, |c, sql| sqlx::query_as(sql).bind(&account.hash).bind(&account.address).fetch_all(c).await)
}

/// The count with this failure; it begins anew if the last one was before `forgotten`.
pub(super) async fn count_failure(
    tx: &mut Tx,
    account: &[u8],
    address: &str,
    now: Timestamp,
    forgotten: Timestamp,
) -> Result<i64, DbError> {
    on!(tx.conn(), COUNT_FAILURE, |c, sql| sqlx::query_scalar(sql)
        .bind(account)
        .bind(address)
        .bind(now)
        .bind(forgotten)
        .fetch_one(c)
        .await)
}

pub(super) async fn block(tx: &mut Tx, account: &[u8], address: &str, until: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), BLOCK, |c, sql| sqlx::query(sql)
        .bind(account)
        .bind(address)
        .bind(until)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Forgets the failures from this address, and remembers it as a usual one.
pub(super) async fn succeeded(tx: &mut Tx, account: &Account, now: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), SUCCEEDED, |c, sql| sqlx::query(sql)
        .bind(&account.hash)
        .bind(&account.address)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))
}
