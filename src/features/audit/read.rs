//! Reading the trail: a page by filters, of what the caller may see.
//!
//! A page is put together from streams, each of which is the read of one index: one a project where the caller sees several,
//! one an action where a beginning of actions is asked for.

use std::cmp::Reverse;

use serde::Serialize;
use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::base::id::{AuditId, ProjectId, UserId};
use crate::base::invalid::{Check, Invalid};
use crate::base::page::{Cursor, Limit, Page};
use crate::ctx::Ctx;
use crate::features::auth::Reach;
use crate::infra::db::DbError;

use super::Outcome;
use super::store::{self, Row};

/// The most streams of one page.
const MAX_STREAMS: usize = 400;

/// Who did something, as they were called then.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct AuditActor {
    /// `user`, `key`, `system` or `anonymous`.
    #[serde(rename = "type")]
    #[schema(example = "user")]
    pub kind: String,
    /// Of a person or a key.
    #[schema(example = "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    pub id: Option<String>,
    /// What they were called.
    #[schema(example = "ada")]
    pub name: Option<String>,
}

/// What something was done to.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct AuditResource {
    /// What kind of thing.
    #[serde(rename = "type")]
    #[schema(example = "key")]
    pub kind: String,
    /// Which one; `null` where it is none, or isn't known.
    #[schema(example = "key_01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    pub id: Option<String>,
}

/// An entry of the audit trail.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "id": "aud_01K5ZV8QXW3M7C2R9T4B6D8F0G", "seq": 42, "at": "2026-11-20T12:00:00Z",
    "actor": {"type": "user", "id": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "ada"}, "action": "key.update",
    "resource": {"type": "key", "id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G"}, "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "outcome": "success", "request_id": "01K5ZV8QXW3M7C2R9T4B6D8F0G", "ip": "192.0.2.7", "user_agent": "curl/8.5",
    "changes": {"before": {"name": "old"}, "after": {"name": "new"}}, "previous_hash": null, "hash": null
}))]
pub struct AuditEntry {
    /// Names it for good.
    pub id: AuditId,
    /// Its place in the chain; `null` until it is sealed.
    pub seq: Option<i64>,
    /// When.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub at: Timestamp,
    /// Who.
    pub actor: AuditActor,
    /// What was done, or wanted: `noun.verb`.
    #[schema(example = "key.update")]
    pub action: String,
    /// To what.
    pub resource: AuditResource,
    /// In which project.
    pub project_id: Option<ProjectId>,
    /// How it ended: `success`, `denied` or `failure`.
    #[schema(value_type = Outcome)]
    pub outcome: String,
    /// Through which request.
    pub request_id: Option<String>,
    /// From where.
    pub ip: Option<String>,
    /// What the client called itself.
    pub user_agent: Option<String>,
    /// What is different now: `before` and `after`; or the code of a refusal.
    #[schema(value_type = Option<Object>)]
    pub changes: Option<Value>,
    /// The hash of the entry before it in the chain, in hexadecimal; `null` until it is sealed.
    pub previous_hash: Option<String>,
    /// Its own hash, in hexadecimal; `null` until it is sealed.
    pub hash: Option<String>,
}

impl From<Row> for AuditEntry {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            seq: row.seq,
            at: row.at,
            actor: AuditActor { kind: row.actor_type, id: row.actor_id, name: row.actor_name },
            action: row.action,
            resource: AuditResource { kind: row.resource_type, id: row.resource_id },
            project_id: row.project_id,
            outcome: row.outcome,
            request_id: row.request_id,
            ip: row.ip,
            user_agent: row.user_agent,
            changes: row.changes.map(|changes| changes.0),
            previous_hash: row.previous_hash.map(hex::encode),
            hash: row.hash.map(hex::encode),
        }
    }
}

/// What a reader may see.
#[derive(Clone, Debug)]
pub struct View {
    /// Entries of these projects; everywhere: also those of none.
    pub reach: Reach,
    /// Entries of no project that this person made, or that are about them.
    pub person: Option<UserId>,
}

impl View {
    /// Whether an entry is seen.
    #[must_use]
    pub fn shows(&self, entry: &AuditEntry) -> bool {
        match (&self.reach, entry.project_id) {
            (Reach::Everywhere, _) => true,
            (reach, Some(project)) => reach.contains(project),
            (_, None) => self.person.is_some_and(|person| {
                let person = Some(person.to_string());
                entry.actor.id == person || entry.resource.id == person
            }),
        }
    }
}

/// Which actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actions {
    /// This one.
    Exactly(String),
    /// Those that begin so.
    Beginning(String),
}

impl Actions {
    /// An action, or the beginning of some with a `*` at its end.
    #[must_use]
    pub fn read(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(beginning) => Self::Beginning(beginning.to_owned()),
            None => Self::Exactly(text.to_owned()),
        }
    }
}

/// Which entries are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// By this person or key.
    pub actor: Option<String>,
    /// Of these actions.
    pub action: Option<Actions>,
    /// About things of this kind.
    pub resource_type: Option<String>,
    /// About this thing.
    pub resource_id: Option<String>,
    /// In this project.
    pub project: Option<ProjectId>,
    /// Through this request.
    pub request: Option<String>,
    /// That ended so.
    pub outcome: Option<Outcome>,
    /// From then on.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Reads what `resource` may be: an id, a kind, or both with a colon between them.
    pub fn set_resource(&mut self, text: &str) {
        match text.split_once(':') {
            Some((kind, id)) => (self.resource_type, self.resource_id) = (Some(kind.to_owned()), Some(id.to_owned())),
            // Ids begin with three letters and an underscore, and are longer than any kind.
            None if text.len() > 24 => self.resource_id = Some(text.to_owned()),
            None => self.resource_type = Some(text.to_owned()),
        }
    }
}

impl Filter {
    /// Whether each filter can find anything: a typo never looks like an empty trail.
    ///
    /// # Errors
    /// The fields that can't.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let is_word = |text: &str, most: usize, more: &[u8]| {
            text.len() <= most && text.bytes().all(|b| b.is_ascii_lowercase() || more.contains(&b))
        };
        if self.actor.as_deref().is_some_and(|actor| !(is_id(actor) && (&actor[..3] == "usr" || &actor[..3] == "key")))
        {
            check.refuse("actor", "invalid_value", "must be the id of a person or a key");
        }
        let is_action = match &self.action {
            None => true,
            Some(Actions::Exactly(action)) => !action.is_empty() && is_word(action, 64, b"_."),
            Some(Actions::Beginning(beginning)) => is_word(beginning, 64, b"_."),
        };
        if !is_action {
            check.refuse("action", "invalid_value", "must be an action such as key.create, or its beginning and a *");
        }
        let is_kind = self.resource_type.as_ref().is_none_or(|kind| !kind.is_empty() && is_word(kind, 24, b"_"));
        if !is_kind || self.resource_id.as_deref().is_some_and(|id| !is_id(id)) {
            check.refuse("resource", "invalid_value", "must be an id, a kind such as key, or both as kind:id");
        }
        let is_request = |id: &String| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
        if self.request.as_ref().is_some_and(|id| !is_request(id)) {
            check.refuse("request_id", "invalid_value", "must be 1 to 128 visible ASCII characters");
        }
        check.finish()
    }
}

/// Whether a text is an id of some kind: three letters, an underscore and a ULID.
fn is_id(text: &str) -> bool {
    let Some((kind, digits)) = text.split_at_checked(AuditId::PREFIX.len()) else { return false };
    kind.ends_with('_')
        && kind.bytes().take(3).all(|b| b.is_ascii_lowercase())
        && format!("{}{digits}", AuditId::PREFIX).parse::<AuditId>().is_ok()
}

/// Which index is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    Age,
    Request,
    Resource,
    Actor,
    Action,
    Outcome,
    Type,
    Project,
    ProjectAction,
    ProjectOutcome,
}

/// One read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream<'a> {
    pub(super) project: Option<ProjectId>,
    /// Only entries of no project.
    pub(super) outside_projects: bool,
    pub(super) actor: Option<&'a str>,
    pub(super) action: Option<&'a str>,
    pub(super) outcome: Option<&'static str>,
    pub(super) resource_type: Option<&'a str>,
    pub(super) resource_id: Option<&'a str>,
    pub(super) request: Option<&'a str>,
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

impl Stream<'_> {
    /// The index that leaves least to look at: a request has few entries, a thing and a person some; what was refused is rare.
    pub(super) fn lead(&self) -> Lead {
        let rare = self.outcome.is_some_and(|outcome| outcome != Outcome::Success.word());
        let in_project = self.project.is_some();
        match () {
            () if self.request.is_some() => Lead::Request,
            () if self.resource_id.is_some() => Lead::Resource,
            () if self.actor.is_some() => Lead::Actor,
            () if rare && in_project => Lead::ProjectOutcome,
            () if rare => Lead::Outcome,
            () if self.action.is_some() && in_project => Lead::ProjectAction,
            () if self.action.is_some() => Lead::Action,
            () if in_project && self.outcome.is_some() => Lead::ProjectOutcome,
            () if in_project => Lead::Project,
            () if self.resource_type.is_some() => Lead::Type,
            () if self.outcome.is_some() => Lead::Outcome,
            () => Lead::Age,
        }
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The caller sees too many projects to look at all of them at once.
    #[error("too many projects at once: name one")]
    TooWide,
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

/// The streams whose entries together are what is asked for.
fn streams<'a>(
    view: &View,
    person: Option<&'a str>,
    filter: &'a Filter,
    actions: Option<&'a [String]>,
) -> Vec<Stream<'a>> {
    let base = Stream {
        project: None,
        outside_projects: false,
        actor: filter.actor.as_deref(),
        action: None,
        outcome: filter.outcome.map(Outcome::word),
        resource_type: filter.resource_type.as_deref(),
        resource_id: filter.resource_id.as_deref(),
        request: filter.request.as_deref(),
        since: filter.since.unwrap_or(Timestamp::EPOCH),
        until: filter.until.unwrap_or(Timestamp::FAR),
    };
    let within = |project: ProjectId| Stream { project: Some(project), ..base };
    let mut streams = match (filter.project, &view.reach) {
        (Some(project), reach) if reach.contains(project) => vec![within(project)],
        (Some(_), _) | (None, Reach::Nowhere) => Vec::new(),
        (None, Reach::Everywhere) => vec![base],
        (None, Reach::Project(project)) => vec![within(*project)],
        (None, Reach::Projects(projects)) => projects.iter().copied().map(within).collect(),
    };
    if let Some(person) = person
        && filter.project.is_none()
        && view.reach != Reach::Everywhere
    {
        let own = Stream { outside_projects: true, ..base };
        if own.actor.is_none_or(|actor| actor == person) {
            streams.push(Stream { actor: Some(person), ..own });
        }
        if own.resource_id.is_none_or(|resource| resource == person) {
            streams.push(Stream { resource_id: Some(person), ..own });
        }
    }
    match actions {
        None => streams,
        Some(actions) => {
            let of = |stream: Stream<'a>| actions.iter().map(move |action| Stream { action: Some(action), ..stream });
            streams.into_iter().flat_map(of).collect()
        }
    }
}

/// A page of entries, newest first.
///
/// # Errors
/// See [`ReadError`].
pub async fn list(
    ctx: &Ctx,
    view: &View,
    filter: &Filter,
    after: Option<Cursor<AuditId>>,
    limit: Limit,
) -> Result<Page<AuditEntry>, ReadError> {
    let after = after.unwrap_or(Cursor { at: Timestamp::FAR, id: AuditId::from_bits(u128::MAX) });
    // Where the period ends is a place in the index, too: what is newer isn't looked at.
    let after = match filter.until {
        Some(until) if until <= after.at => Cursor { at: until, id: AuditId::from_bits(0) },
        _ => after,
    };
    let mut reader = ctx.db.reader().await?;
    let actions = match &filter.action {
        None => None,
        Some(Actions::Exactly(action)) => Some(vec![action.clone()]),
        Some(Actions::Beginning(beginning)) => {
            let mut all = store::actions(reader.conn()).await?;
            all.retain(|action| action.starts_with(beginning.as_str()));
            Some(all)
        }
    };
    let person = view.person.map(|person| person.to_string());
    let streams = streams(view, person.as_deref(), filter, actions.as_deref());
    if streams.len() > MAX_STREAMS {
        return Err(ReadError::TooWide);
    }
    let fetch = limit.fetch();
    let mut rows: Vec<Row> = Vec::new();
    for stream in &streams {
        rows.extend(store::page(reader.conn(), stream, &after, fetch).await?);
        // Never more than two pages in memory. What somebody did to themselves is in two streams.
        rows.sort_unstable_by_key(|row| Reverse((row.at, row.id)));
        rows.dedup_by_key(|row| row.id);
        rows.truncate(limit.get() + 1);
    }
    let page = Page::cut(rows, limit, |row| Cursor { at: row.at, id: row.id });
    Ok(page.map(AuditEntry::from))
}

/// One entry, if it is seen.
///
/// # Errors
/// The storage.
pub async fn find(ctx: &Ctx, view: &View, id: AuditId) -> Result<Option<AuditEntry>, DbError> {
    let row = store::find(ctx.db.reader().await?.conn(), id).await?;
    Ok(row.map(AuditEntry::from).filter(|entry| view.shows(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(reach: Reach, filter: &Filter, actions: Option<&[String]>) -> Vec<Lead> {
        let view = View { reach, person: None };
        streams(&view, Some("usr_x"), filter, actions).iter().map(Stream::lead).collect()
    }

    #[test]
    fn streams_stay_within_what_is_seen() {
        let project = ProjectId::from_bits;
        let some = Reach::Projects(vec![project(1), project(2)]);
        let none = Filter::default();
        assert_eq!(all(Reach::Everywhere, &none, None), [Lead::Age]);
        assert_eq!(all(some.clone(), &none, None), [Lead::Project, Lead::Project, Lead::Actor, Lead::Resource]);
        let in_one = Filter { project: Some(project(2)), ..Filter::default() };
        assert_eq!(all(some.clone(), &in_one, None), [Lead::Project]);
        let foreign = Filter { project: Some(project(3)), ..Filter::default() };
        assert!(all(some.clone(), &foreign, None).is_empty());
        assert_eq!(all(Reach::Everywhere, &foreign, None), [Lead::Project]);
        // Of what is in no project, somebody else's isn't theirs.
        let other = Filter { actor: Some("usr_y".to_owned()), ..Filter::default() };
        assert_eq!(all(Reach::Nowhere, &other, None), [Lead::Resource]);
        let actions = ["key.create".to_owned(), "key.update".to_owned()];
        assert_eq!(all(Reach::Everywhere, &in_one, Some(&actions)), [Lead::ProjectAction, Lead::ProjectAction]);
        let many = Reach::Projects((0..500).map(project).collect());
        assert!(all(many, &none, None).len() > MAX_STREAMS);
    }

    #[test]
    fn the_rarest_leads() {
        let denied = Filter { outcome: Some(Outcome::Denied), ..Filter::default() };
        let action = ["key.create".to_owned()];
        assert_eq!(all(Reach::Everywhere, &denied, Some(&action)), [Lead::Outcome]);
        let done = Filter { outcome: Some(Outcome::Success), ..Filter::default() };
        assert_eq!(all(Reach::Everywhere, &done, Some(&action)), [Lead::Action]);
        let request = Filter { request: Some("r".to_owned()), ..denied };
        assert_eq!(all(Reach::Everywhere, &request, None), [Lead::Request]);
    }

    #[test]
    fn ids_are_told_from_kinds() {
        let read = |text: &str| {
            let mut filter = Filter::default();
            filter.set_resource(text);
            (filter.check().is_ok(), filter.resource_type.is_some(), filter.resource_id.is_some())
        };
        assert_eq!(read("key"), (true, true, false));
        assert_eq!(read("key_01K5ZV8QXW3M7C2R9T4B6D8F0G"), (true, false, true));
        assert_eq!(read("key:key_01K5ZV8QXW3M7C2R9T4B6D8F0G"), (true, true, true));
        for bad in
            ["", ":", "key:", "Key", "key:x", "key_01k5zv8qxw3m7c2r9t4b6d8f0g", "ä", "kéy_01K5ZV8QXW3M7C2R9T4B6D8F0G"]
        {
            assert!(!read(bad).0, "{bad}");
        }
    }
}
