//! `keyward audit list`.

use crate::base::clock::Timestamp;
use crate::base::page::Limit;
use crate::ctx::Ctx;
use crate::features::audit::Outcome;
use crate::features::audit::read::{self, Actions, Filter, View};
use crate::features::auth::Reach;

use super::args::{AuditFilter, Format};
use super::{Failure, output};

/// A page of entries.
pub(super) async fn list(ctx: &Ctx, wanted: AuditFilter, format: Format) -> Result<(), Failure> {
    let after = super::keys::cursor(wanted.page.cursor.as_deref())?;
    let limit = Limit::new(wanted.page.limit).unwrap_or_default();
    let filter = filter(wanted)?;
    // The operator sees everything.
    let view = View { reach: Reach::Everywhere, person: None };
    let page = read::list(ctx, &view, &filter, after, limit).await?;
    if format == Format::Json {
        return output::json(&page);
    }
    let rows = page.data.iter().map(|entry| {
        let resource = entry.resource.id.as_ref().unwrap_or(&entry.resource.kind);
        let actor = entry.actor.name.as_ref().unwrap_or(&entry.actor.kind);
        let request = entry.request_id.clone().unwrap_or_default();
        vec![
            entry.at.to_string(),
            actor.clone(),
            entry.action.clone(),
            entry.outcome.clone(),
            resource.clone(),
            entry.ip.clone().unwrap_or_default(),
            request,
        ]
    });
    output::table(&["AT", "ACTOR", "ACTION", "OUTCOME", "RESOURCE", "FROM", "REQUEST"], rows);
    super::keys::more(page.next_cursor.as_deref());
    Ok(())
}

fn filter(wanted: AuditFilter) -> Result<Filter, Failure> {
    let usage = |flag: &str, what: &str| Failure::Usage(format!("--{flag}: expected {what}"));
    let time = |flag: &str, text: Option<String>| {
        text.map(|text| Timestamp::parse(&text).map_err(|_| usage(flag, "a time such as 2027-01-31T12:00:00Z")))
            .transpose()
    };
    let outcome = match wanted.outcome.as_deref() {
        None => None,
        Some("success") => Some(Outcome::Success),
        Some("denied") => Some(Outcome::Denied),
        // The only other word that the parser lets through.
        Some(_) => Some(Outcome::Failure),
    };
    let project = wanted.project.map(|id| id.parse().map_err(|_| usage("project", "a project's id"))).transpose()?;
    let mut filter = Filter {
        actor: wanted.actor,
        action: wanted.action.as_deref().map(Actions::read),
        project,
        request: wanted.request_id,
        outcome,
        since: time("since", wanted.since)?,
        until: time("until", wanted.until)?,
        ..Filter::default()
    };
    if let Some(resource) = &wanted.resource {
        filter.set_resource(resource);
    }
    filter.check().map_err(|invalid| Failure::Usage(invalid.to_string()))?;
    Ok(filter)
}
