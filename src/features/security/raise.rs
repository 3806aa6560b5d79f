//! Makes events of what was noticed: the first at once, the next when as much time has passed as the window is long, with
//! everything that came meanwhile.

use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::base::id::KeyId;
use crate::ctx::Ctx;
use crate::features::events::{self, Event};
use crate::features::{keys, projects};
use crate::gate::noticed::Detail;
use crate::infra::db::{DbError, Tx};

use super::store::{self, Due, Told};
use super::{Reason, TYPES};

/// Events of one transaction.
const AT_ONCE: usize = 200;

/// Raises everything that is due. Any number of replicas may do this at once.
///
/// # Errors
/// The storage; the next call goes on.
pub async fn raise(ctx: &Ctx) -> Result<(), DbError> {
    loop {
        let now = ctx.now();
        let most = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
        let mut due = store::due(ctx.db.reader().await?.conn(), now, most).await?;
        if due.is_empty() {
            return Ok(());
        }
        let found = due.len();
        // Two who raise the same wait for each other instead of each for the other.
        due.sort_unstable();
        let mut raised = Vec::new();
        let mut tx = ctx.db.begin().await?;
        for row in &due {
            raised.extend(one(ctx, &mut tx, row, now).await?);
        }
        tx.commit().await?;
        for (kind, about) in raised {
            ctx.metrics.security_events.with_label_values(&[kind]).inc();
            if let Some(reason) = reason(kind, about) {
                ctx.metrics.suspicions.with_label_values(&[reason.word()]).inc();
            }
        }
        if found < AT_ONCE {
            return Ok(());
        }
    }
}

/// Raises one, unless somebody else just has.
async fn one<'a>(
    ctx: &Ctx,
    tx: &mut Tx,
    row: &'a Due,
    now: Timestamp,
) -> Result<Option<(&'static str, &'a str)>, DbError> {
    let Some(told) = store::take(tx, row, now).await? else { return Ok(None) };
    // No others are written.
    let Some(kind) = TYPES.into_iter().find(|kind| *kind == row.kind) else { return Ok(None) };
    let mut data = json!({});
    let resource_id = if let Ok(key) = row.subject.parse::<KeyId>() {
        // Removed meanwhile: nobody can do anything about it any more.
        let Some(key) = keys::store::find(tx.conn(), key, row.project).await? else { return Ok(None) };
        data = json!({ "id": key.id, "name": key.name, "owner": key.owner, "metadata": key.metadata });
        key.id.to_string()
    } else if projects::store::find(tx.conn(), row.project).await?.is_some() {
        row.project.to_string()
    } else {
        return Ok(None);
    };
    tell(&mut data, row, told);
    let event = Event { at: now, project: row.project, kind, resource_id, data };
    events::append(tx, ctx, event).await?;
    Ok(Some((kind, &row.about)))
}

/// Why, of suspicion; windows may be called anything.
fn reason(kind: &str, about: &str) -> Option<Reason> {
    Reason::ALL.into_iter().find(|reason| kind == "auth.suspicious" && reason.about() == about)
}

fn tell(data: &mut Value, row: &Due, told: Told) {
    let Told { count, first_at, last_at, detail } = told;
    let Detail {
        window,
        used,
        concurrency,
        window_seconds,
        habit,
        superseded,
        addresses,
        user_agents,
        scopes,
        asked_by,
    } = detail;
    let mut more = json!({ "count": count, "first_at": first_at, "last_at": last_at, "addresses": addresses });
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            more[name] = value;
        }
    };
    add("reason", reason(&row.kind, &row.about).map(|reason| json!(reason.word())));
    if let (Some(used), Some(window)) = (used, &window) {
        add("percent", Some(json!(percent(used, window.limit))));
    }
    add("window", window.map(|window| json!(window)));
    add("used", used.map(|used| json!(used)));
    add("concurrency", concurrency.map(|cap| json!(cap)));
    add("window_seconds", window_seconds.map(|seconds| json!(seconds)));
    add("habit", habit.map(|habit| json!(habit)));
    add("superseded", superseded.map(|superseded| json!(superseded)));
    let some = |list: Vec<String>| (!list.is_empty()).then(|| json!(list));
    add("user_agents", some(user_agents));
    add("scopes", some(scopes));
    add("asked_by", some(asked_by));
    if row.kind == "concurrency.reached" && more.get("concurrency").is_none() {
        more["concurrency"] = json!(0);
    }
    if let (Value::Object(data), Value::Object(more)) = (data, more) {
        data.extend(more);
    }
}

/// To a tenth.
fn percent(used: u32, limit: u32) -> f64 {
    (f64::from(used) * 1000.0 / f64::from(limit.max(1))).round() / 10.0
}
