//! All SQL for `mails` and `mail_days`.

use crate::base::clock::Timestamp;
use crate::base::id::{MailId, ProjectId};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::Message;

sql! {
    /// Refuses by changing nothing. Of two at once the second waits, and sees what the first has left.
    TAKE_ONE = Sql::same(
        "INSERT INTO mail_days (project_id, day, mails) VALUES ($1, $2, 1)
         ON CONFLICT (project_id, day) DO UPDATE SET mails = mail_days.mails + 1 WHERE mail_days.mails < $3",
    );
    INSERT = Sql::same(
        "INSERT INTO mails (id, project_id, created_at, recipient, subject, text, attempts, next_at)
         VALUES ($1, $2, $3, $4, $5, $6, 0, $3)",
    );
    /// One at a time: whoever comes second finds that it isn't due any more.
    CLAIM = Sql::same(
        "UPDATE mails SET attempts = attempts + 1, next_at = $2
         WHERE id = (SELECT id FROM mails WHERE done_at IS NULL AND next_at <= $1 ORDER BY next_at, id LIMIT 1)
           AND done_at IS NULL AND next_at <= $1
         RETURNING id, project_id, created_at, recipient, subject, text, attempts",
    );
    /// By whoever claimed it last; the text isn't needed any more.
    END = Sql::same(
        "UPDATE mails SET done_at = $3, outcome = $4, error = $5, text = ''
         WHERE id = $1 AND attempts = $2 AND done_at IS NULL",
    );
    AGAIN = Sql::same("UPDATE mails SET next_at = $3, error = $4 WHERE id = $1 AND attempts = $2 AND done_at IS NULL");
    WAITING = Sql::same("SELECT count(*), min(next_at) FROM mails WHERE done_at IS NULL");
    PRUNE = Sql::same("DELETE FROM mails WHERE created_at < $1");
    PRUNE_DAYS = Sql::same("DELETE FROM mail_days WHERE day < $1");
}

/// A mail that somebody has begun to send.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Claimed {
    pub(super) id: MailId,
    pub(super) project_id: ProjectId,
    pub(super) created_at: Timestamp,
    pub(super) recipient: String,
    pub(super) subject: String,
    pub(super) text: String,
    /// This one is counted.
    pub(super) attempts: i64,
}

/// Counts one more mail of a project's day; false where it has had `most`.
pub(super) async fn take_one(tx: &mut Tx, project: ProjectId, day: i64, most: i64) -> Result<bool, DbError> {
    let changed = on!(tx.conn(), TAKE_ONE, |c, sql| sqlx::query(sql)
        .bind(project)
        .bind(day)
        .bind(most)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Adds a mail that is due now.
pub(super) async fn insert(tx: &mut Tx, id: MailId, now: Timestamp, message: &Message) -> Result<(), DbError> {
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(id)
        .bind(message.project)
        .bind(now)
        .bind(&message.to)
        .bind(&message.subject)
        .bind(&message.text)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Takes a mail that is due, for nobody else to take until `until`.
pub(super) async fn claim(tx: &mut Tx, now: Timestamp, until: Timestamp) -> Result<Option<Claimed>, DbError> {
    on!(tx.conn(), CLAIM, |c, sql| sqlx::query_as(sql).bind(now).bind(until).fetch_optional(c).await)
}

/// Says how it ended.
pub(super) async fn end(
    tx: &mut Tx,
    mail: &Claimed,
    now: Timestamp,
    outcome: &str,
    error: Option<&str>,
) -> Result<(), DbError> {
    on!(tx.conn(), END, |c, sql| sqlx::query(sql)
        .bind(mail.id)
        .bind(mail.attempts)
        .bind(now)
        .bind(outcome)
        .bind(error)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Says when it is tried again, and why.
pub(super) async fn again(tx: &mut Tx, mail: &Claimed, at: Timestamp, error: &str) -> Result<(), DbError> {
    on!(tx.conn(), AGAIN, |c, sql| sqlx::query(sql)
        .bind(mail.id)
        .bind(mail.attempts)
        .bind(at)
        .bind(error)
        .execute(c)
        .await
        .map(|_| ()))
}

/// How many mails wait, and when the next one is due.
pub(super) async fn waiting(conn: Conn<'_>) -> Result<(i64, Option<Timestamp>), DbError> {
    on!(conn, WAITING, |c, sql| sqlx::query_as(sql).fetch_one(c).await)
}

/// Forgets mails that were made before a time, and counts of days before one.
pub(super) async fn prune(tx: &mut Tx, before: Timestamp, day: i64) -> Result<(), DbError> {
    on!(tx.conn(), PRUNE, |c, sql| sqlx::query(sql).bind(before).execute(c).await.map(|_| ()))?;
    on!(tx.conn(), PRUNE_DAYS, |c, sql| sqlx::query(sql).bind(day).execute(c).await.map(|_| ()))
}
