//! Events as they are shown: lists, newest first, and one.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::base::id::{EventId, ProjectId};
use crate::base::invalid::{Check, Invalid};
use crate::base::page::{Cursor, Limit, NotACursor, Page};
use crate::ctx::Ctx;
use crate::infra::db::DbError;

use super::catalogue;
use super::store::{self, Part, Stored};

/// An event, as lists and streams show it.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = Event, example = json!({
    "id": "evt_01K5ZV8QXW3M7C2R9T4B6D8F0G", "type": "project.created", "timestamp": "2026-11-20T12:00:00Z",
    "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "resource_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "data": {"id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "shop"}
}))]
pub struct EventView {
    /// Names it for good.
    pub id: EventId,
    /// What happened: see `GET /v1/event-types`.
    #[serde(rename = "type")]
    #[schema(example = "key.revoked")]
    pub kind: String,
    /// When.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub timestamp: Timestamp,
    /// In which project.
    pub project_id: ProjectId,
    /// To which thing.
    #[schema(example = "key_01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    pub resource_id: String,
    /// The thing as it was then, and what was done to it, by whom.
    #[schema(value_type = Object)]
    pub data: Value,
}

impl From<Stored> for EventView {
    fn from(stored: Stored) -> Self {
        let Stored { id, kind, at, project, resource_id, data, .. } = stored;
        Self { id, kind, timestamp: at, project_id: project, resource_id, data }
    }
}

/// The longest list of types in a question, in characters.
pub const MAX_TYPES: usize = 1000;
/// The longest id of a thing.
pub const MAX_RESOURCE: usize = 128;

/// Which events.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of these types, in no order, each once; `None` is all.
    types: Option<Vec<&'static str>>,
    resource: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Filter {
    /// Reads types separated by commas, `key.*` among them, the id of a thing, and a span.
    ///
    /// # Errors
    /// A type that isn't in the catalogue, or what can't be an id.
    pub fn read(
        types: Option<&str>,
        resource: Option<String>,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Self, Invalid> {
        let mut check = Check::default();
        let types = types.and_then(|text| {
            let mut found = Vec::new();
            if text.len() > MAX_TYPES {
                check.refuse("type", "too_long", "must be at most 1000 characters");
            }
            for pattern in text.split(',') {
                let matching = catalogue::matching(pattern);
                if matching.is_empty() {
                    check.refuse("type", "invalid_value", "must be types of events, or `key.*`, separated by commas");
                    return None;
                }
                found.extend(matching.iter().map(|kind| kind.name));
            }
            found.sort_unstable();
            found.dedup();
            (found.len() < catalogue::all().count()).then_some(found)
        });
        let is_id = |text: &String| {
            let is_sign = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
            (1..=MAX_RESOURCE).contains(&text.len()) && text.bytes().all(is_sign)
        };
        if resource.as_ref().is_some_and(|text| !is_id(text)) {
            check.refuse("resource", "invalid_value", "must be the id of a thing");
        }
        check.finish()?;
        Ok(Self { types, resource, since, until })
    }

    /// From when on.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Whether an event is among them.
    #[must_use]
    pub fn matches(&self, event: &Stored) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(&event.kind.as_str()))
            && self.resource.as_ref().is_none_or(|resource| *resource == event.resource_id)
            && self.since.is_none_or(|since| event.at >= since)
            && self.until.is_none_or(|until| event.at < until)
    }
}

/// An event's number, as a cursor has it: up to 18 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub i64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Number {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let is_number = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| is_number).map(Self).ok_or(NotACursor)
    }
}

/// A page of a project's events, newest first: by their time, and those of one moment by their order. An event is there as soon
/// as its change is answered.
///
/// # Errors
/// The storage.
pub async fn list(
    ctx: &Ctx,
    project: ProjectId,
    filter: &Filter,
    after: Option<Cursor<Number>>,
    limit: Limit,
) -> Result<Page<EventView>, DbError> {
    let newest = |at| (at, 0);
    let after = after.map_or((Timestamp::FAR, i64::MAX), |after| (after.at, after.id.0));
    let part = Part {
        project,
        // Before a time is behind all numbers of that time.
        after: filter.until.map_or(after, |until| after.min(newest(until))),
        since: filter.since.unwrap_or(Timestamp::EPOCH),
        limit,
    };
    let mut reader = ctx.db.reader().await?;
    let rows = match (&filter.resource, &filter.types) {
        (Some(resource), types) => {
            let kinds = types.as_ref().map_or_else(String::new, |types| format!(",{},", types.join(",")));
            store::of_resource(reader.conn(), part, resource, &kinds).await?
        }
        (None, None) => store::of_project(reader.conn(), part).await?,
        // Each has its own place in an index: a rare one is found without looking at all others.
        (None, Some(types)) => {
            let mut rows = Vec::new();
            for kind in types {
                rows.extend(store::of_type(reader.conn(), part, kind).await?);
            }
            rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.at, row.seq)));
            rows.truncate(limit.get() + 1);
            rows
        }
    };
    drop(reader);
    let page = Page::cut(rows, limit, |row| Cursor { at: row.at, id: Number(row.seq) });
    Ok(page.map(EventView::from))
}

/// One event of a project.
///
/// # Errors
/// The storage.
pub async fn get(ctx: &Ctx, project: ProjectId, id: EventId) -> Result<Option<EventView>, DbError> {
    Ok(store::one(ctx.db.reader().await?.conn(), project, id).await?.map(EventView::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_with_their_wildcards() {
        let types = |text| Filter::read(Some(text), None, None, None).map(|filter| filter.types);
        assert_eq!(types("*").unwrap(), None);
        assert_eq!(
            types("key.created,alert.*,alert.fired").unwrap().unwrap(),
            ["alert.fired", "alert.resolved", "key.created"]
        );
        for wrong in ["", ",", "key", "key.created,", "key.created, key.updated", "nothing.*", "KEY.CREATED"] {
            assert!(types(wrong).is_err(), "{wrong}");
        }
        assert!(types(&"*,".repeat(600)).is_err());
    }

    #[test]
    fn a_number_has_one_form() {
        assert_eq!("007".parse::<Number>().unwrap(), Number(7));
        for wrong in ["", "+7", "-7", "1000000000000000000", "7 ", "x"] {
            assert!(wrong.parse::<Number>().is_err(), "{wrong}");
        }
    }
}
