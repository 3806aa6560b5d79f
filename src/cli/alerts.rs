//! `keyward alerts …`.

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::{AlertId, ProjectId};
use crate::base::page::Limit;
use crate::ctx::Ctx;
use crate::features::alerts::store::Filter;
use crate::features::alerts::{AlertError, Metric, Operator, State, Terms, history, manage};
use crate::features::audit::By;

use super::args::{Alerts, Format, NewAlert, Whose};
use super::keys::{cursor, more, usage};
use super::{Failure, output};

pub(super) async fn run(ctx: &Ctx, command: Alerts, format: Format) -> Result<(), Failure> {
    match command {
        Alerts::List { whose, state, page } => {
            let project = project(ctx, &whose).await?;
            let filter = Filter { state: state.as_deref().and_then(State::from_word), ..Filter::default() };
            let after = cursor(page.cursor.as_deref())?;
            let rules = manage::list(ctx, project, filter, after, Limit::new(page.limit).unwrap_or_default()).await?;
            if format == Format::Json {
                output::json(&rules)?;
            } else {
                let rows = rules.data.iter().map(|rule| {
                    let state = if rule.is_active { rule.state.word() } else { "inactive" };
                    vec![
                        rule.id.to_string(),
                        rule.name.clone(),
                        comparison(rule.metric, rule.operator, rule.threshold),
                        rule.window.to_string(),
                        state.to_owned(),
                        number(rule.last_value),
                        time(rule.fired_at),
                    ]
                });
                output::table(&["ID", "NAME", "RULE", "WINDOW", "STATE", "VALUE", "FIRED"], rows);
                more(rules.next_cursor.as_deref());
            }
        }
        Alerts::Create(wish) => create(ctx, wish, format).await?,
        Alerts::Delete { id, whose, force } => {
            let project = project(ctx, &whose).await?;
            let id: AlertId = id.parse().map_err(|_| AlertError::NotFound)?;
            let rule = manage::get(ctx, project, id).await?;
            if !force {
                output::confirm(&format!("Remove the alert rule {:?}?", rule.name))?;
            }
            manage::delete(ctx, &By::system("cli", ctx), project, id).await?;
            output::complain(&format!("removed {id}"));
        }
        Alerts::History { whose, alert, since, until, page } => {
            let project = project(ctx, &whose).await?;
            let moment = |name: &str, text: Option<String>| {
                let refused = || usage(format!("--{name}: expected a time such as 2027-01-31T12:00:00Z"));
                text.map(|text| Timestamp::parse(&text).map_err(|_| refused())).transpose()
            };
            let alert = alert.map(|id| id.parse().map_err(|_| AlertError::NotFound)).transpose()?;
            let (since, until) = (moment("since", since)?, moment("until", until)?);
            let filter = history::Filter { alert, since, until, ..history::Filter::default() };
            let after = cursor(page.cursor.as_deref())?;
            let limit = Limit::new(page.limit).unwrap_or_default();
            let entries = history::list(ctx, project, filter, after, limit).await?;
            if format == Format::Json {
                output::json(&entries)?;
            } else {
                let rows = entries.data.iter().map(|entry| {
                    let long = entry.duration_seconds.and_then(|seconds| Seconds::new(seconds).ok());
                    vec![
                        entry.at.to_string(),
                        entry.name.clone(),
                        entry.state.word().to_owned(),
                        comparison(entry.metric, entry.operator, entry.threshold),
                        number(entry.value),
                        entry.reason.clone(),
                        long.map(|long| long.to_string()).unwrap_or_default(),
                    ]
                });
                output::table(&["AT", "NAME", "STATE", "RULE", "VALUE", "REASON", "FIRED FOR"], rows);
                more(entries.next_cursor.as_deref());
            }
        }
    }
    super::finish(ctx).await;
    Ok(())
}

async fn create(ctx: &Ctx, wish: NewAlert, format: Format) -> Result<(), Failure> {
    let project = project(ctx, &wish.whose).await?;
    let span = |name: &str, text: &str| text.parse().map_err(|error| usage(format!("--{name}: {error}")));
    let unknown = |name: &str| usage(format!("--{name}: not known"));
    let key_id = wish.key.map(|id| id.parse().map_err(|_| usage("--key: expected a key's id"))).transpose()?;
    let terms = Terms {
        name: wish.name,
        description: wish.description,
        metric: Metric::from_word(&wish.metric).ok_or_else(|| unknown("metric"))?,
        operator: Operator::from_word(&wish.operator).ok_or_else(|| unknown("operator"))?,
        threshold: wish.threshold,
        window: span("window", &wish.window)?,
        cooldown: span("cooldown", &wish.cooldown)?,
        key_id,
        emails: wish.emails,
        remind: wish.remind,
        is_active: !wish.inactive,
    };
    let created = manage::create(ctx, &By::system("cli", ctx), project, terms, None).await?;
    let rule: serde_json::Value =
        serde_json::from_str(&created.body).map_err(|error| Failure::Refused(error.to_string()))?;
    match format {
        Format::Json => output::json(&rule),
        Format::Table => {
            output::say(rule["id"].as_str().unwrap_or_default());
            Ok(())
        }
    }
}

async fn project(ctx: &Ctx, whose: &Whose) -> Result<ProjectId, Failure> {
    if whose.user.is_none() && whose.project.is_none() && !whose.system {
        return Err(usage("say whose alert rules: --user USERNAME, --project ID, or --system"));
    }
    Ok(super::keys::project(ctx, whose).await?.0)
}

fn comparison(metric: Metric, operator: Operator, threshold: f64) -> String {
    format!("{} {} {threshold}", metric.word(), operator.word())
}

fn number(value: Option<f64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn time(at: Option<Timestamp>) -> String {
    at.map(|at| at.to_string()).unwrap_or_default()
}
