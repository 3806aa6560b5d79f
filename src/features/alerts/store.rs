//! All SQL for `alert_rules` and `alert_states`.

use serde::Serialize;
use sqlx::types::Json;

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::{AlertId, KeyId, ProjectId};
use crate::base::page::{Cursor, Limit};
use crate::infra::db::{Conn, DbError, Sql, Tx};
use crate::{on, sql};

use super::{Metric, Operator, Rule, Standing, State, Terms};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.project_id, r.name, r.description, r.metric, r.operator, r.threshold, r.window_seconds,
                 r.cooldown_seconds, r.key_id, r.emails, r.reminds, r.is_active, r.created_at, r.updated_at,
                 s.state, s.last_value, s.evaluated_at, s.fired_at, s.resolved_at, s.told_at, s.suppressed_at, s.claim
             FROM alert_rules r JOIN alert_states s ON s.alert_id = r.id ",
            $rest
        )
    };
}

sql! {
    INSERT = Sql::same(
        "INSERT INTO alert_rules (id, project_id, name, description, metric, operator, threshold, window_seconds,
             cooldown_seconds, key_id, emails, reminds, is_active, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    );
    INSERT_STATE = Sql::same("INSERT INTO alert_states (alert_id, state, next_at, claim) VALUES ($1, $2, $3, 0)");
    SAVE = Sql::same(
        "UPDATE alert_rules SET name = $3, description = $4, metric = $5, operator = $6, threshold = $7, window_seconds = $8,
             cooldown_seconds = $9, key_id = $10, emails = $11, reminds = $12, is_active = $13, updated_at = $14
         WHERE id = $1 AND project_id = $2",
    );
    DELETE = Sql::same("DELETE FROM alert_rules WHERE id = $1 AND project_id = $2");
    FIND = Sql::same(select!("WHERE r.id = $1 AND r.project_id = $2"));
    LIST = Sql::same(select!(
        "WHERE r.project_id = $1 AND (r.created_at, r.id) < ($2, $3) AND (CAST($4 AS text) IS NULL OR s.state = $4)
           AND (CAST($5 AS text) IS NULL OR r.key_id = $5)
         ORDER BY r.created_at DESC, r.id DESC LIMIT $6"
    ));
    COUNT = Sql::same("SELECT count(*) FROM alert_rules WHERE project_id = $1");
    /// Of two who want the same, the second waits, and then finds that they aren't due any more.
    CLAIM = Sql::same(
        "UPDATE alert_states SET claim = claim + 1, next_at = $2
         WHERE next_at <= $1 AND alert_id IN
             (SELECT alert_id FROM alert_states WHERE next_at <= $1 ORDER BY next_at, alert_id LIMIT $3)
         RETURNING alert_id",
    );
    /// Rules of projects that are there. A rule about a key that isn't has nothing to look at.
    CLAIMED = Sql::same(select!(
        "JOIN projects p ON p.id = r.project_id AND p.deleted_at IS NULL
         JOIN json_each(CAST($1 AS text)) e ON s.alert_id = e.value ->> 0
         WHERE r.is_active"
    ));
    KEYS = Sql::same(
        "SELECT k.id, k.project_id FROM json_each(CAST($1 AS text)) e JOIN api_keys k ON k.id = e.value ->> 0",
    );
    /// Holds how a rule stands until the transaction ends, unless somebody else has had it meanwhile.
    HOLD = Sql::same("UPDATE alert_states SET claim = claim WHERE alert_id = $1 AND claim = $2");
    /// The same, for whoever changes the rule: what was found out about the former one isn't written.
    TAKE = Sql::same("UPDATE alert_states SET claim = claim + 1, next_at = $2 WHERE alert_id = $1");
    STAND = Sql::same(
        "UPDATE alert_states SET state = $2, last_value = $3, evaluated_at = $4, fired_at = $5, resolved_at = $6, told_at = $7,
             suppressed_at = $8 WHERE alert_id = $1",
    );
    /// Of many at once: those to which nothing happened.
    NOTE = Sql::same(
        "UPDATE alert_states SET state = u.state, last_value = u.value, evaluated_at = $2
         FROM (SELECT e.value ->> 0 AS id, CAST(e.value ->> 1 AS BIGINT) AS claim, e.value ->> 2 AS state,
                   CAST(e.value ->> 3 AS DOUBLE PRECISION) AS value FROM json_each(CAST($1 AS text)) e) u
         WHERE alert_states.alert_id = u.id AND alert_states.claim = u.claim",
    );
    /// Of each project those that have fired for the longest, and each project's first before anyone's second: one with very
    /// many hides nobody else's.
    FIRING = Sql::same(
        "SELECT f.project_id, f.id, f.name, f.metric
         FROM (SELECT r.project_id, r.id, r.name, r.metric, s.fired_at,
                   row_number() OVER (PARTITION BY r.project_id ORDER BY s.fired_at, r.id) AS place
               FROM alert_states s JOIN alert_rules r ON r.id = s.alert_id
                   JOIN projects p ON p.id = r.project_id AND p.deleted_at IS NULL
               WHERE s.state = 'firing') f
         WHERE f.place <= $1 ORDER BY f.place, f.fired_at, f.id LIMIT $2",
    );
    COUNT_FIRING = Sql::same(
        "SELECT count(*) FROM alert_states s JOIN alert_rules r ON r.id = s.alert_id
             JOIN projects p ON p.id = r.project_id AND p.deleted_at IS NULL
         WHERE s.state = 'firing'",
    );
    COUNT_ACTIVE = Sql::same("SELECT count(*) FROM alert_states WHERE next_at IS NOT NULL");
    TRIED = Sql::same("UPDATE alert_states SET tested_at = $2 WHERE alert_id = $1");
    /// When this one was tried last, and how many of the project's lately.
    TRIALS = Sql::same(
        "SELECT max(CASE WHEN r.id = $2 THEN s.tested_at END), count(*)
         FROM alert_rules r JOIN alert_states s ON s.alert_id = r.id WHERE r.project_id = $1 AND s.tested_at > $3",
    );
}

/// A rule, how it stands, and under which claim that was read.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The rule.
    pub rule: Rule,
    /// How it stands.
    pub standing: Standing,
    /// See [`hold`].
    pub claim: i64,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: AlertId,
    project_id: ProjectId,
    name: String,
    description: Option<String>,
    metric: String,
    operator: String,
    threshold: f64,
    window_seconds: i64,
    cooldown_seconds: i64,
    key_id: Option<KeyId>,
    emails: Json<Vec<String>>,
    reminds: bool,
    is_active: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    state: String,
    last_value: Option<f64>,
    evaluated_at: Option<Timestamp>,
    fired_at: Option<Timestamp>,
    resolved_at: Option<Timestamp>,
    told_at: Option<Timestamp>,
    suppressed_at: Option<Timestamp>,
    claim: i64,
}

/// Seconds as they are stored.
pub(super) fn seconds(stored: i64) -> Option<Seconds> {
    Seconds::new(u64::try_from(stored).ok()?).ok()
}

/// Seconds as they will be stored.
pub(super) fn stored(seconds: Seconds) -> i64 {
    i64::try_from(seconds.get()).unwrap_or(i64::MAX)
}

impl Row {
    /// `None` for what another version wrote that this one doesn't know.
    fn read(self) -> Option<Kept> {
        Some(Kept {
            rule: Rule {
                id: self.id,
                project: self.project_id,
                terms: Terms {
                    name: self.name,
                    description: self.description,
                    metric: Metric::from_word(&self.metric)?,
                    operator: Operator::from_word(&self.operator)?,
                    threshold: self.threshold,
                    window: seconds(self.window_seconds)?,
                    cooldown: seconds(self.cooldown_seconds)?,
                    key_id: self.key_id,
                    emails: self.emails.0,
                    remind: self.reminds,
                    is_active: self.is_active,
                },
                created_at: self.created_at,
                updated_at: self.updated_at,
            },
            standing: Standing {
                state: State::from_word(&self.state)?,
                value: self.last_value,
                evaluated_at: self.evaluated_at,
                fired_at: self.fired_at,
                resolved_at: self.resolved_at,
                told_at: self.told_at,
                suppressed_at: self.suppressed_at,
            },
            claim: self.claim,
        })
    }
}

/// Adds a rule, due at once if it is active; [`DbError::Unique`] if the project has one of the name.
pub(super) async fn insert(tx: &mut Tx, rule: &Rule) -> Result<(), DbError> {
    let terms = &rule.terms;
    on!(tx.conn(), INSERT, |c, sql| sqlx::query(sql)
        .bind(rule.id)
        .bind(rule.project)
        .bind(&terms.name)
        .bind(terms.description.as_deref())
        .bind(terms.metric.word())
        .bind(terms.operator.word())
        .bind(terms.threshold)
        .bind(stored(terms.window))
        .bind(stored(terms.cooldown))
        .bind(terms.key_id)
        .bind(Json(&terms.emails))
        .bind(terms.remind)
        .bind(terms.is_active)
        .bind(rule.created_at)
        .bind(rule.updated_at)
        .execute(c)
        .await
        .map(|_| ()))?;
    let due = terms.is_active.then_some(rule.created_at);
    on!(tx.conn(), INSERT_STATE, |c, sql| {
        sqlx::query(sql).bind(rule.id).bind(State::NoData.word()).bind(due).execute(c).await.map(|_| ())
    })
}

/// Writes what a rule says; [`DbError::Unique`] if the project has another one of the name.
pub(super) async fn save(tx: &mut Tx, rule: &Rule) -> Result<(), DbError> {
    let terms = &rule.terms;
    on!(tx.conn(), SAVE, |c, sql| sqlx::query(sql)
        .bind(rule.id)
        .bind(rule.project)
        .bind(&terms.name)
        .bind(terms.description.as_deref())
        .bind(terms.metric.word())
        .bind(terms.operator.word())
        .bind(terms.threshold)
        .bind(stored(terms.window))
        .bind(stored(terms.cooldown))
        .bind(terms.key_id)
        .bind(Json(&terms.emails))
        .bind(terms.remind)
        .bind(terms.is_active)
        .bind(rule.updated_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// Removes a rule; its history stays.
pub(super) async fn delete(tx: &mut Tx, rule: AlertId, project: ProjectId) -> Result<(), DbError> {
    on!(tx.conn(), DELETE, |c, sql| sqlx::query(sql).bind(rule).bind(project).execute(c).await.map(|_| ()))
}

/// A rule of a project.
pub(super) async fn find(conn: Conn<'_>, rule: AlertId, project: ProjectId) -> Result<Option<Kept>, DbError> {
    let row: Option<Row> =
        on!(conn, FIND, |c, sql| sqlx::query_as(sql).bind(rule).bind(project).fetch_optional(c).await)?;
    Ok(row.and_then(Row::read))
}

/// Which rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Those that stand so.
    pub state: Option<State>,
    /// Those about this key.
    pub key: Option<KeyId>,
}

/// Rules of a project, newest first.
pub(super) async fn list(
    conn: Conn<'_>,
    project: ProjectId,
    filter: Filter,
    after: &Cursor<AlertId>,
    limit: Limit,
) -> Result<Vec<Kept>, DbError> {
    let rows: Vec<Row> = on!(conn, LIST, |c, sql| sqlx::query_as(sql)
        .bind(project)
        .bind(after.at)
        .bind(after.id)
        .bind(filter.state.map(State::word))
        .bind(filter.key)
        .bind(limit.fetch())
        .fetch_all(c)
        .await)?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// How many rules a project has.
pub(super) async fn count(tx: &mut Tx, project: ProjectId) -> Result<i64, DbError> {
    on!(tx.conn(), COUNT, |c, sql| sqlx::query_scalar(sql).bind(project).fetch_one(c).await)
}

fn listed(ids: &[impl ToString]) -> Result<String, DbError> {
    rows(&ids.iter().map(|id| [id.to_string()]).collect::<Vec<_>>())
}

/// Rows as the text that a statement takes them from.
fn rows(rows: &impl Serialize) -> Result<String, DbError> {
    // Plain data: always serialises.
    serde_json::to_string(rows).map_err(|error| DbError::from(sqlx::Error::Encode(Box::new(error))))
}

/// Takes rules that are due, those that have waited longest first; they are due again at `next`.
pub(super) async fn claim(tx: &mut Tx, now: Timestamp, next: Timestamp, most: i64) -> Result<Vec<AlertId>, DbError> {
    on!(tx.conn(), CLAIM, |c, sql| sqlx::query_scalar(sql).bind(now).bind(next).bind(most).fetch_all(c).await)
}

/// Rules that were claimed, of projects that are there.
pub(super) async fn claimed(conn: Conn<'_>, ids: &[AlertId]) -> Result<Vec<Kept>, DbError> {
    let ids = listed(ids)?;
    let rows: Vec<Row> = on!(conn, CLAIMED, |c, sql| sqlx::query_as(sql).bind(&ids).fetch_all(c).await)?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// Those keys that there are, each with its project.
pub(super) async fn keys(conn: Conn<'_>, ids: &[KeyId]) -> Result<Vec<(KeyId, ProjectId)>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids = listed(ids)?;
    on!(conn, KEYS, |c, sql| sqlx::query_as(sql).bind(&ids).fetch_all(c).await)
}

/// Holds how a rule stands until the transaction ends; `false` if somebody has taken or changed the rule since it was claimed.
pub(super) async fn hold(tx: &mut Tx, rule: AlertId, claim: i64) -> Result<bool, DbError> {
    on!(tx.conn(), HOLD, |c, sql| {
        sqlx::query(sql).bind(rule).bind(claim).execute(c).await.map(|done| done.rows_affected() > 0)
    })
}

/// Holds how a rule stands, so that nobody writes what they found out before; when it is due from now on.
pub(super) async fn take(tx: &mut Tx, rule: AlertId, due: Option<Timestamp>) -> Result<(), DbError> {
    on!(tx.conn(), TAKE, |c, sql| sqlx::query(sql).bind(rule).bind(due).execute(c).await.map(|_| ()))
}

/// Writes how a rule stands.
pub(super) async fn stand(tx: &mut Tx, rule: AlertId, standing: &Standing) -> Result<(), DbError> {
    on!(tx.conn(), STAND, |c, sql| sqlx::query(sql)
        .bind(rule)
        .bind(standing.state.word())
        .bind(standing.value)
        .bind(standing.evaluated_at)
        .bind(standing.fired_at)
        .bind(standing.resolved_at)
        .bind(standing.told_at)
        .bind(standing.suppressed_at)
        .execute(c)
        .await
        .map(|_| ()))
}

/// A rule to which nothing happened: its claim, how it stands, its number.
pub(super) type Noted = (AlertId, i64, State, Option<f64>);

/// Writes of many at once what was found.
pub(super) async fn note(tx: &mut Tx, noted: &[Noted], now: Timestamp) -> Result<(), DbError> {
    if noted.is_empty() {
        return Ok(());
    }
    let rows = rows(&noted)?;
    on!(tx.conn(), NOTE, |c, sql| sqlx::query(sql).bind(&rows).bind(now).execute(c).await.map(|_| ()))
}

/// Who fires, so many of each project and so many altogether: the project, the rule, its name, its metric; and how many there
/// are in all.
pub(super) async fn firing(
    mut conn: Conn<'_>,
    of_a_project: i64,
    most: i64,
) -> Result<(Vec<(ProjectId, AlertId, String, String)>, i64), DbError> {
    let rows = on!(conn.lend(), FIRING, |c, sql| sqlx::query_as(sql).bind(of_a_project).bind(most).fetch_all(c).await)?;
    let all = on!(conn, COUNT_FIRING, |c, sql| sqlx::query_scalar(sql).fetch_one(c).await)?;
    Ok((rows, all))
}

/// How many rules are evaluated.
pub(super) async fn count_active(conn: Conn<'_>) -> Result<i64, DbError> {
    on!(conn, COUNT_ACTIVE, |c, sql| sqlx::query_scalar(sql).fetch_one(c).await)
}

/// Notes that a rule was tried.
pub(super) async fn tried(tx: &mut Tx, rule: AlertId, at: Timestamp) -> Result<(), DbError> {
    on!(tx.conn(), TRIED, |c, sql| sqlx::query(sql).bind(rule).bind(at).execute(c).await.map(|_| ()))
}

/// When a rule was tried last, and how many of its project's were, since a moment.
pub(super) async fn trials(
    tx: &mut Tx,
    project: ProjectId,
    rule: AlertId,
    since: Timestamp,
) -> Result<(Option<Timestamp>, i64), DbError> {
    on!(tx.conn(), TRIALS, |c, sql| sqlx::query_as(sql).bind(project).bind(rule).bind(since).fetch_one(c).await)
}
