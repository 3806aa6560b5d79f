//! The row of an entry as it stands there, be it readable or not.

use serde_json::Value;
use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Type};

use crate::base::clock::Timestamp;

use super::rules::{Record, RecordActor, RecordResource};

/// What stands in a column; `None` for what can't be read as what should: one bad value must not hide the others.
#[derive(Debug)]
pub(super) struct Lenient<T>(pub(super) Option<T>);

impl<D: Database, T: Type<D>> Type<D> for Lenient<T> {
    fn type_info() -> D::TypeInfo {
        T::type_info()
    }

    fn compatible(_: &D::TypeInfo) -> bool {
        true
    }
}

impl<'r, D: Database, T: Decode<'r, D>> Decode<'r, D> for Lenient<T> {
    fn decode(value: D::ValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(T::decode(value).ok()))
    }
}

/// The row of an entry, as it stands there.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct RawRow {
    id: Lenient<String>,
    seq: Lenient<Option<i64>>,
    at: Lenient<Timestamp>,
    actor_type: Lenient<String>,
    actor_id: Lenient<Option<String>>,
    actor_name: Lenient<Option<String>>,
    action: Lenient<String>,
    resource_type: Lenient<String>,
    resource_id: Lenient<Option<String>>,
    project_id: Lenient<Option<String>>,
    outcome: Lenient<String>,
    request_id: Lenient<Option<String>>,
    ip: Lenient<Option<String>>,
    user_agent: Lenient<Option<String>>,
    changes: Lenient<Option<String>>,
    previous_hash: Lenient<Option<Vec<u8>>>,
    hash: Lenient<Option<Vec<u8>>>,
}

/// An entry, as it stands there.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) seq: Option<i64>,
    /// `None` where it can't be read.
    pub(super) at: Option<Timestamp>,
    /// Whether all of it can be read.
    pub(super) is_readable: bool,
    /// Whether `changes` stands there letter by letter as it is written: elsewhere than on SQLite the engine sees to it.
    pub(super) is_as_written: bool,
    record: Record,
}

impl Row {
    fn new(raw: RawRow, is_text: bool) -> Self {
        let mut is_readable = true;
        let (id, at) = (text(raw.id.0, &mut is_readable), raw.at.0);
        let seq = raw.seq.0.flatten();
        let stored = optional(raw.changes.0, &mut is_readable);
        // What isn't JSON any more is text: never what was sealed.
        let changes: Option<Value> =
            stored.as_ref().map(|text| serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()));
        let is_as_written = !is_text
            || match (&changes, &stored) {
                (Some(changes), Some(stored)) => serde_json::to_string(changes).is_ok_and(|text| text == *stored),
                _ => true,
            };
        let record = Record {
            id: id.clone(),
            seq: seq.unwrap_or(0),
            at: at.map(|at| at.to_string()).unwrap_or_default(),
            actor: RecordActor {
                kind: text(raw.actor_type.0, &mut is_readable),
                id: optional(raw.actor_id.0, &mut is_readable),
                name: optional(raw.actor_name.0, &mut is_readable),
            },
            action: text(raw.action.0, &mut is_readable),
            resource: RecordResource {
                kind: text(raw.resource_type.0, &mut is_readable),
                id: optional(raw.resource_id.0, &mut is_readable),
            },
            project_id: optional(raw.project_id.0, &mut is_readable),
            outcome: text(raw.outcome.0, &mut is_readable),
            request_id: optional(raw.request_id.0, &mut is_readable),
            ip: optional(raw.ip.0, &mut is_readable),
            user_agent: optional(raw.user_agent.0, &mut is_readable),
            changes,
            previous_hash: raw.previous_hash.0.flatten().map(hex::encode).unwrap_or_default(),
            hash: raw.hash.0.flatten().map(hex::encode),
        };
        Self { id, seq, at, is_readable: is_readable && at.is_some(), is_as_written, record }
    }

    /// For sealing: what it says, without regard to how that is written.
    pub(super) fn into_unsealed(self) -> Record {
        self.record
    }
}

fn text(value: Option<String>, is_readable: &mut bool) -> String {
    *is_readable &= value.is_some();
    value.unwrap_or_default()
}

#[expect(clippy::option_option, reason = "the outer one says whether it can be read, the inner one is the column's")]
fn optional(value: Option<Option<String>>, is_readable: &mut bool) -> Option<String> {
    *is_readable &= value.is_some();
    value.flatten()
}

impl From<Row> for Record {
    fn from(row: Row) -> Self {
        let mut record = row.record;
        // Nothing that was sealed names no time.
        if !row.is_readable || !row.is_as_written {
            record.at = String::new();
        }
        record
    }
}

pub(super) fn rows(raw: Vec<RawRow>, is_text: bool) -> Vec<Row> {
    raw.into_iter().map(|raw| Row::new(raw, is_text)).collect()
}
