//! `keyward webhooks …`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::base::id::{DeliveryId, ProjectId, WebhookId};
use crate::base::page::Limit;
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::auth::Reach;
use crate::features::events::publish;
use crate::features::events::store::{Stored, of_project_after};
use crate::features::webhooks::manage::{self, NewWebhook};
use crate::features::webhooks::{WebhookError, again, deliveries, rules, trial};

use super::args::{Format, Page, Webhooks, Whose};
use super::keys::{cursor, more, usage};
use super::{Failure, output};

/// How often is looked for new events.
const LOOK: Duration = Duration::from_millis(250);
/// Events that are read at once.
const BATCH: i64 = 200;

pub(super) async fn run(ctx: &Ctx, command: Webhooks, format: Format) -> Result<(), Failure> {
    let by = By::system("cli", ctx);
    match command {
        Webhooks::List { whose, page } => list(ctx, project(ctx, &whose).await?, &page, format).await?,
        Webhooks::Create { url, whose, events, description } => {
            let new = NewWebhook { url, events, description, filter: None, is_active: None };
            let made = manage::create(ctx, &by, project(ctx, &whose).await?, new, None).await?;
            match format {
                Format::Json => {
                    let mut view = json!(made.view);
                    view["secret"] = json!(made.secret.expose());
                    output::json(&view)?;
                }
                Format::Table => {
                    output::complain(&format!(
                        "made {}; this is its secret, which is never shown again:",
                        made.view.id
                    ));
                    output::say(made.secret.expose());
                }
            }
        }
        Webhooks::Delete { id, force } => {
            let (project, id) = found(ctx, &id).await?;
            let view = manage::get(ctx, project, id).await?;
            if !force {
                let url = rules::masked_url(&view.url);
                output::confirm(&format!("Delete {id} ({url})? What is on its way isn't sent any more."))?;
            }
            manage::delete(ctx, &by, project, id).await?;
            tell(format, &json!({ "id": id, "deleted": true }), || format!("deleted {id}"))?;
        }
        Webhooks::Test { id, kind } => {
            let (project, id) = found(ctx, &id).await?;
            let done = trial::trial(ctx, &by, project, id, kind.as_deref()).await?;
            tell(format, &json!(done), || {
                let status = done.status.map(|status| format!("status {status}, ")).unwrap_or_default();
                let took = format!("{status}{} ms", done.duration_ms);
                match &done.message {
                    None => format!("{} arrived ({took})", done.event_type),
                    Some(message) => format!("{} didn't arrive ({took}): {message}", done.event_type),
                }
            })?;
            if !done.delivered {
                super::finish(ctx).await;
                return Err(Failure::Refused("the test wasn't delivered".to_owned()));
            }
        }
        Webhooks::Deliveries { id, state, page } => sent(ctx, &id, state.as_deref(), &page, format).await?,
        Webhooks::Retry { id } => {
            let missing = || Failure::Refused("there is no such delivery".to_owned());
            let id: DeliveryId = id.parse().map_err(|_| missing())?;
            let view = again::retry(ctx, &by, &Reach::Everywhere, id).await?;
            tell(format, &json!(view), || format!("{id} is due now; the running service sends it"))?;
        }
        Webhooks::Listen { whose, kinds, count } => {
            let kinds = if kinds.is_empty() { vec!["*".to_owned()] } else { kinds };
            let kinds = rules::events(kinds).map_err(|invalid| usage(format!("--type: {invalid}")))?;
            listen(ctx, project(ctx, &whose).await?, &kinds, count, format).await?;
        }
    }
    super::finish(ctx).await;
    Ok(())
}

async fn project(ctx: &Ctx, whose: &Whose) -> Result<ProjectId, Failure> {
    if whose.user.is_none() && whose.project.is_none() && !whose.system {
        return Err(usage("say whose: --user USERNAME, --project ID, or --system"));
    }
    Ok(super::keys::project(ctx, whose).await?.0)
}

/// A webhook by its id alone: the command line sees every project.
async fn found(ctx: &Ctx, id: &str) -> Result<(ProjectId, WebhookId), Failure> {
    let id: WebhookId = id.parse().map_err(|_| WebhookError::NotFound)?;
    Ok((manage::project_of(ctx, id).await?.ok_or(WebhookError::NotFound)?, id))
}

fn tell(format: Format, value: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(value),
        Format::Table => {
            output::say(&text());
            Ok(())
        }
    }
}

async fn list(ctx: &Ctx, project: ProjectId, page: &Page, format: Format) -> Result<(), Failure> {
    let after = cursor(page.cursor.as_deref())?;
    let webhooks = manage::list(ctx, project, after, Limit::new(page.limit).unwrap_or_default()).await?;
    match format {
        Format::Json => output::json(&webhooks)?,
        Format::Table => {
            let rows = webhooks.data.iter().map(|webhook| {
                let state = match (webhook.disabled_reason, webhook.failing_since) {
                    (Some(reason), _) => format!("off: {}", reason.word()),
                    (None, Some(since)) => format!("failing since {since}"),
                    (None, None) => "active".to_owned(),
                };
                vec![webhook.id.to_string(), webhook.url.clone(), webhook.events.join(", "), state]
            });
            output::table(&["ID", "URL", "EVENTS", "STATE"], rows);
            more(webhooks.next_cursor.as_deref());
        }
    }
    Ok(())
}

async fn sent(ctx: &Ctx, id: &str, state: Option<&str>, page: &Page, format: Format) -> Result<(), Failure> {
    let (project, id) = found(ctx, id).await?;
    let state = state.map(|word| serde_json::from_value(json!(word)).map_err(usage)).transpose()?;
    let after = cursor(page.cursor.as_deref())?;
    let limit = Limit::new(page.limit).unwrap_or_default();
    let deliveries = deliveries::list(ctx, project, id, state, after, limit).await?;
    match format {
        Format::Json => output::json(&deliveries)?,
        Format::Table => {
            let rows = deliveries.data.iter().map(|delivery| {
                let last = delivery.last_status.map(|status| status.to_string()).or(delivery.last_error.clone());
                vec![
                    delivery.id.to_string(),
                    delivery.event_type.clone(),
                    delivery.state.word().to_owned(),
                    delivery.attempt_count.to_string(),
                    last.unwrap_or_default(),
                    delivery.next_attempt_at.map(|at| at.to_string()).unwrap_or_default(),
                    delivery.created_at.to_string(),
                ]
            });
            output::table(&["ID", "EVENT", "STATE", "ATTEMPTS", "LAST", "NEXT", "CREATED"], rows);
            more(deliveries.next_cursor.as_deref());
        }
    }
    Ok(())
}

async fn listen(
    ctx: &Ctx,
    project: ProjectId,
    kinds: &[String],
    count: Option<u64>,
    format: Format,
) -> Result<(), Failure> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    // Gives places itself, too: no service may be running.
    publish::publish(ctx).await?;
    let mut place = *ctx.wakers.newest().borrow();
    output::complain("listening; Ctrl-C ends it");
    let mut left = count;
    loop {
        let events = of_project_after(ctx.db.reader().await?.conn(), project, (place, i64::MAX), BATCH).await?;
        let is_all = events.len() < usize::try_from(BATCH).unwrap_or(usize::MAX);
        for event in events {
            place = event.place.unwrap_or(place);
            if !rules::names(kinds, &event.kind) {
                continue;
            }
            output::say(&line(&event, format));
            left = left.map(|left| left.saturating_sub(1));
            if left == Some(0) {
                return Ok(());
            }
        }
        if is_all {
            tokio::select! {
                _ = &mut interrupted => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
            publish::publish(ctx).await?;
        }
    }
}

fn line(event: &Stored, format: Format) -> String {
    match format {
        Format::Json => {
            let shown = json!({ "id": event.id, "type": event.kind, "timestamp": event.at, "data": event.data });
            output::escaped(&shown.to_string())
        }
        Format::Table => {
            let name =
                event.data.get("name").and_then(Value::as_str).map(|name| format!("  {name}")).unwrap_or_default();
            format!("{}  {}  {}{name}", event.at, event.kind, event.resource_id)
        }
    }
}
