//! The feed of changes that caches follow: a row a change, in the change's own transaction.
//!
//! The process that makes a change marks its cache itself, before it answers. The feed is for the others: the command line,
//! another replica, and a request whose client went away between the commit and the mark.

pub mod follow;
pub mod store;

use std::fmt;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, UserId};
use crate::ctx::Ctx;
use crate::infra::db::{DbError, Tx};

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key, or its secrets.
    Key(KeyId),
    /// Something that holds for every key of a project.
    Project(ProjectId),
    /// Keys that were issued elsewhere have come into a project; the ids of their secrets are of the same moment as this.
    Imported(ProjectId),
    /// The counts of a key's limits were set back.
    Limits(KeyId),
    /// Somebody's sessions, or what they may do.
    Session(UserId),
    /// The rules for sensitive fields, of a project or of the server.
    SensitiveFields(Option<ProjectId>),
}

/// Stands behind a project's id where keys were imported: what it has already isn't touched.
const IMPORTED: &str = "/imported";

/// Stands behind a project's id where its rules for sensitive fields changed.
const SENSITIVE: &str = "/sensitive_fields";

/// Stands where a project's id would, for what holds in all of them.
const SERVER: &str = "server";

impl Change {
    fn topic(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::Project(_) | Self::Imported(_) | Self::SensitiveFields(_) => "project",
            Self::Limits(_) => "limits",
            Self::Session(_) => "session",
        }
    }

    fn read(topic: &str, id: &str) -> Option<Self> {
        match topic {
            "key" => id.parse().ok().map(Self::Key),
            "project" => match (id.strip_suffix(IMPORTED), id.strip_suffix(SENSITIVE)) {
                (Some(id), _) => id.parse().ok().map(Self::Imported),
                (None, Some(SERVER)) => Some(Self::SensitiveFields(None)),
                (None, Some(id)) => id.parse().ok().map(|project| Self::SensitiveFields(Some(project))),
                (None, None) => id.parse().ok().map(Self::Project),
            },
            "limits" => id.parse().ok().map(Self::Limits),
            "session" => id.parse().ok().map(Self::Session),
            _ => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) | Self::Limits(id) => id.fmt(f),
            Self::Project(id) => id.fmt(f),
            Self::Imported(id) => write!(f, "{id}{IMPORTED}"),
            Self::Session(id) => id.fmt(f),
            Self::SensitiveFields(Some(id)) => write!(f, "{id}{SENSITIVE}"),
            Self::SensitiveFields(None) => write!(f, "{SERVER}{SENSITIVE}"),
        }
    }
}

/// Tells of a change, as part of it.
///
/// # Errors
/// The storage.
pub async fn append(tx: &mut Tx, ctx: &Ctx, change: Change, at: Timestamp) -> Result<(), DbError> {
    store::insert(tx, change, at, &ctx.origin).await
}

/// Marks a change in this process's memory when dropped: after the commit, whatever came of it, and also where the request
/// is given up in the middle.
#[derive(Debug)]
pub struct Marking<'a> {
    ctx: &'a Ctx,
    change: Change,
}

impl<'a> Marking<'a> {
    /// To be held over the commit.
    #[must_use]
    pub fn new(ctx: &'a Ctx, change: Change) -> Self {
        Self { ctx, change }
    }
}

impl Drop for Marking<'_> {
    fn drop(&mut self) {
        let gate = &self.ctx.gate;
        match self.change {
            Change::Key(key) => gate.changed(key),
            Change::Project(project) => gate.project_changed(project),
            // Whoever imports knows the secrets, and tells the gate of them; whoever changes rules reads them in.
            Change::Imported(_) | Change::SensitiveFields(_) => {}
            Change::Limits(key) => gate.reset(key),
            Change::Session(_) => gate.people.changed(gate.epoch()),
        }
    }
}
