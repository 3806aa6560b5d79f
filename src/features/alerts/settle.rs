//! Writes what becomes of rules: how they stand from now on, their history, their event and their mails, all in one
//! transaction.

use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::ctx::Ctx;
use crate::features::events::{self, Event};
use crate::features::mail::{self, Appended, Message};
use crate::infra::db::{DbError, Tx};

use super::history::{self, Happened};
use super::rules::{Reason, Step, sentence};
use super::{Rule, Standing, State, maybe_number, number, store};

/// Rules in one transaction: others wait for it for a moment only.
const BATCH: usize = 50;

/// A rule to which something happens.
#[derive(Debug)]
pub struct Settling {
    /// The rule.
    pub rule: Rule,
    /// How it stood.
    pub standing: Standing,
    /// Under which claim that was read.
    pub claim: i64,
    /// Its number.
    pub value: Option<f64>,
    /// What happens.
    pub step: Step,
}

/// Does it. Rules that somebody took or changed meanwhile are left out.
///
/// # Errors
/// The storage.
pub async fn settle(ctx: &Ctx, mut settling: Vec<Settling>, now: Timestamp) -> Result<(), DbError> {
    // In one order, so that two who settle the same wait for each other, and not in a circle.
    settling.sort_by_key(|one| (one.rule.project, one.rule.id));
    for batch in settling.chunks(BATCH) {
        let mut tx = ctx.db.begin().await?;
        // All of them before anything is written: mails count for their project, and whoever changes a rule of it meanwhile
        // holds that rule first, too.
        let mut held = Vec::with_capacity(batch.len());
        for one in batch {
            if store::hold(&mut tx, one.rule.id, one.claim).await? {
                held.push(one);
            }
        }
        let (mut fired, mut resolved) = (0, 0);
        for one in held {
            take(&mut tx, ctx, one, now).await?;
            fired += u64::from(one.step == Step::Fire);
            resolved += u64::from(matches!(one.step, Step::Resolve(_)));
        }
        tx.commit().await?;
        ctx.metrics.alerts.told(fired, resolved);
    }
    Ok(())
}

/// Takes one step in a transaction that holds how the rule stands.
pub(super) async fn take(tx: &mut Tx, ctx: &Ctx, one: &Settling, now: Timestamp) -> Result<(), DbError> {
    let Settling { rule, standing, value, step, .. } = one;
    let value = *value;
    let now = standing.after(now);
    let seen = Standing { value, evaluated_at: Some(now), ..*standing };
    let (stands, happened, reason) = match *step {
        Step::Stay(state) => return store::stand(tx, rule.id, &Standing { state, ..seen }).await,
        Step::Fire => {
            let stands = Standing {
                state: State::Firing,
                fired_at: Some(now),
                resolved_at: None,
                told_at: Some(now),
                suppressed_at: None,
                ..seen
            };
            (stands, Happened::Fired, Reason::Condition)
        }
        Step::Remind => (Standing { told_at: Some(now), ..seen }, Happened::Reminded, Reason::Condition),
        Step::Suppress => {
            let stands = Standing { state: State::Muted, suppressed_at: Some(now), ..seen };
            (stands, Happened::Suppressed, Reason::Condition)
        }
        Step::Resolve(reason) => {
            let state = if reason == Reason::Condition { State::Ok } else { State::NoData };
            (Standing { state, resolved_at: Some(now), ..seen }, Happened::Resolved, reason)
        }
    };
    store::stand(tx, rule.id, &stands).await?;
    let fired_at = if happened == Happened::Suppressed { None } else { stands.fired_at };
    history::append(tx, ctx, rule, (happened, reason), fired_at, value, now).await?;
    if happened == Happened::Suppressed {
        return Ok(());
    }
    let news = News { happened, reason, fired_at, value, test: false };
    tell(tx, ctx, rule, &news, now).await.map(|_| ())
}

/// What is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct News {
    /// What happened.
    pub(super) happened: Happened,
    /// Why.
    pub(super) reason: Reason,
    /// When it fired.
    pub(super) fired_at: Option<Timestamp>,
    /// The number.
    pub(super) value: Option<f64>,
    /// Whether somebody only tries whether they would hear of it.
    pub(super) test: bool,
}

#[derive(serde::Serialize)]
struct Numbers {
    #[serde(serialize_with = "number")]
    threshold: f64,
    #[serde(serialize_with = "maybe_number")]
    value: Option<f64>,
}

/// The event's data.
fn data(rule: &Rule, news: &News, now: Timestamp) -> Value {
    let terms = &rule.terms;
    let numbers = json!(Numbers { threshold: terms.threshold, value: news.value });
    let is_over = news.happened == Happened::Resolved;
    json!({
        "id": rule.id,
        "name": terms.name,
        "metric": terms.metric,
        "operator": terms.operator,
        "threshold": numbers["threshold"],
        "value": numbers["value"],
        "window_seconds": terms.window.get(),
        "key_id": terms.key_id,
        "fired_at": news.fired_at,
        "resolved_at": is_over.then_some(now),
        "reason": news.reason.word(),
        "reminder": news.happened == Happened::Reminded,
        "test": news.test,
    })
}

/// Writes the event and the mails; gives the addresses to which one goes. The others aren't allowed any more, or the project has
/// caused as many mails today as it may: that is counted and logged where mail is written.
pub(super) async fn tell(
    tx: &mut Tx,
    ctx: &Ctx,
    rule: &Rule,
    news: &News,
    now: Timestamp,
) -> Result<Vec<String>, DbError> {
    let kind = if news.happened == Happened::Resolved { "alert.resolved" } else { "alert.fired" };
    let event =
        Event { at: now, project: rule.project, kind, resource_id: rule.id.to_string(), data: data(rule, news, now) };
    events::append(tx, ctx, event).await?;
    let mut written = Vec::new();
    let (subject, text) = letter(rule, news, now);
    for address in &rule.terms.emails {
        let (subject, text) = (subject.clone(), text.clone());
        let message = Message { project: rule.project, to: address.clone(), subject, text };
        if let Appended::Waiting(_) = mail::append(tx, ctx, message).await? {
            written.push(address.clone());
        }
    }
    Ok(written)
}

/// The subject and the text of a mail.
fn letter(rule: &Rule, news: &News, now: Timestamp) -> (String, String) {
    let terms = &rule.terms;
    let word = match (news.test, news.happened) {
        (true, _) => "TEST",
        (_, Happened::Resolved) => "RESOLVED",
        (_, Happened::Reminded) => "STILL FIRING",
        (_, Happened::Fired | Happened::Suppressed) => "FIRING",
    };
    let subject = format!("[{word}] {}", terms.name);
    let mut lines = Vec::new();
    if news.test {
        lines.push("Somebody tries whether this alert reaches you. Nothing has happened.".to_owned());
        lines.push(String::new());
    }
    lines.push(format!("Alert: {}", terms.name));
    lines.push(format!("Rule: {}", sentence(terms.metric, terms.operator, terms.threshold, terms.window)));
    if !news.test {
        let value = news.value.map_or("none".to_owned(), |value| format!("{value}{}", terms.metric.unit()));
        lines.push(format!("Value: {value}"));
    }
    lines.push(format!("Project: {}", rule.project));
    lines.extend(terms.key_id.map(|key| format!("Key: {key}")));
    lines.extend(news.fired_at.map(|fired| format!("Fired: {fired}")));
    if news.happened == Happened::Resolved {
        lines.push(format!("Resolved: {now} ({})", news.reason.word()));
    }
    lines.push(format!("Id: {}", rule.id));
    lines.extend(terms.description.as_deref().map(quoted).unwrap_or_default());
    (subject, lines.join("\n") + "\n")
}

/// A description, so that none of its lines is taken for one of the service's own.
fn quoted(description: &str) -> Vec<String> {
    if description.trim().is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new(), "The rule's description, in the words of who made it:".to_owned()];
    // The other ends of lines are taken out where mail is sent.
    lines.extend(description.lines().map(|line| format!("> {line}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_imitate_no_line_of_ours() {
        let head = "\nThe rule's description, in the words of who made it:\n";
        for (description, expected) in
            [("who is it?", "> who is it?"), ("a\nValue: 0\r\n\n> b", "> a\n> Value: 0\n> \n> > b")]
        {
            assert_eq!(quoted(description).join("\n"), format!("{head}{expected}"));
        }
        assert_eq!(quoted(""), Vec::<String>::new());
        assert_eq!(quoted(" \n"), Vec::<String>::new());
    }
}
