//! Carrying the trail elsewhere: lines of canonical JSON, read as they are taken, with what is needed to verify them there.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::infra::db::DbError;

use super::rules::{Kind, Record, START, canonical};
use super::{CheckpointView, Signed, SignedView, store};

/// Entries that are read at once: all that an export holds in memory.
const PAGE: i64 = 500;
/// How far apart the order of time and the order of the chain may be.
const APART: Duration = Duration::from_hours(1);

/// Which entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
}

/// What an export holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A part of the chain without a gap, up to a signed place.
    Trail,
    /// The entries of some projects: each can be checked, their links can't.
    Projects,
}

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// `header`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The form of this file: 1.
    pub version: u32,
    /// What follows.
    pub scope: Scope,
    /// When it was begun.
    pub exported_at: Timestamp,
    /// The number of the first entry.
    pub first_seq: Option<i64>,
    /// The hash before it.
    pub previous_hash: Option<String>,
    /// What stands for the entries before it that were pruned.
    pub pruned: Option<SignedView>,
}

/// The last line: without it, the file isn't whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trailer {
    /// `trailer`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many entries there are.
    pub entries: u64,
    /// The signed statement about the last of them.
    pub head: Option<SignedView>,
    /// The name of the key with which this service signs.
    pub key_id: Option<String>,
    /// Its public key in base64, for comparison alone: a verifier must have it from elsewhere.
    pub public_key: Option<String>,
}

/// Whose entries.
#[derive(Clone, Debug)]
pub enum Whose {
    /// Everybody's: the chain.
    Everybodys,
    /// These projects' alone.
    Projects(Vec<ProjectId>),
}

/// Begins an export: says so in the audit trail, before the first line leaves.
///
/// # Errors
/// The storage.
pub async fn begin(ctx: &Ctx, by: &By, whose: &Whose, span: Span) -> Result<(), DbError> {
    let (project, projects) = match whose {
        Whose::Everybodys => (None, None),
        Whose::Projects(projects) => (projects.first().copied().filter(|_| projects.len() == 1), Some(projects)),
    };
    let entry = Entry {
        by,
        at: ctx.now(),
        action: "audit.export",
        resource_type: "audit",
        resource_id: None,
        project,
        outcome: Outcome::Success,
        changes: Some(serde_json::json!({ "since": span.since, "until": span.until, "projects": projects })),
    };
    let mut tx = ctx.db.begin().await?;
    audit::append(&mut tx, ctx, entry).await?;
    tx.commit().await?;
    super::seal::seal_now(ctx).await;
    Ok(())
}

/// Where a stream of lines is.
enum State {
    Begin(Whose, Span),
    Chain { after: i64, last: i64, head: Option<Signed>, entries: u64 },
    Projects { left: Vec<ProjectId>, after: (Timestamp, String), until: Timestamp, since: Timestamp, entries: u64 },
    End,
}

/// The lines. Reads a page when the one before has been taken, and holds neither a connection nor a transaction between them:
/// who reads slowly keeps nobody waiting. Ends with an error where the storage fails in the middle; the last line is missing
/// then.
pub fn lines(ctx: Ctx, whose: Whose, span: Span) -> impl Stream<Item = Result<Bytes, DbError>> + Send + 'static {
    stream::try_unfold((ctx, State::Begin(whose, span)), |(ctx, state)| async move {
        let (text, state) = match state {
            State::Begin(Whose::Everybodys, span) => begin_chain(&ctx, span).await?,
            State::Begin(Whose::Projects(left), span) => begin_projects(&ctx, left, span),
            State::Chain { after, last, head, entries } if after < last => {
                chain_page(&ctx, after, last, head, entries).await?
            }
            State::Chain { head, entries, .. } => (line(&trailer(&ctx, entries, head.as_ref())), State::End),
            State::Projects { left, after, until, since, entries } if !left.is_empty() => {
                project_page(&ctx, left, after, until, since, entries).await?
            }
            State::Projects { entries, .. } => (line(&trailer(&ctx, entries, None)), State::End),
            State::End => return Ok(None),
        };
        Ok(Some((Bytes::from(text), (ctx, state))))
    })
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut text = canonical(value);
    text.push(b'\n');
    text
}

fn header(ctx: &Ctx, scope: Scope) -> Header {
    Header {
        kind: "header".to_owned(),
        version: 1,
        scope,
        exported_at: ctx.now(),
        first_seq: None,
        previous_hash: None,
        pruned: None,
    }
}

fn trailer(ctx: &Ctx, entries: u64, head: Option<&Signed>) -> Trailer {
    let public = ctx.keyring().signer().map(crate::infra::audit_key::Signer::public);
    Trailer {
        kind: "trailer".to_owned(),
        entries,
        head: head.map(Signed::view),
        key_id: public.map(|key| key.id()),
        public_key: public.map(|key| key.base64()),
    }
}

/// The run of the chain that holds everything of the span, up to the next signed place.
async fn begin_chain(ctx: &Ctx, span: Span) -> Result<(Vec<u8>, State), DbError> {
    let mut reader = ctx.db.reader().await?;
    let pruned = store::newest_checkpoint(reader.conn(), Kind::Pruned).await?;
    let head = store::head(reader.conn()).await?;
    let pruned_through = pruned.as_ref().map_or(0, |pruned| pruned.signed.seq);
    let newest = head.as_ref().map_or(0, |head| head.seq);
    let first = match span.since {
        None => Some(pruned_through + 1),
        Some(since) => store::first_since(reader.conn(), since, since.saturating_add(APART)).await?,
    };
    let last = match span.until {
        None => Some(newest),
        Some(until) => store::last_until(reader.conn(), until.saturating_sub(APART), until).await?,
    };
    let (first, last) = match (first, last) {
        (Some(first), Some(last)) if first <= last => (first.max(pruned_through + 1), last.min(newest)),
        // Nothing; its proof is the head itself.
        _ => (newest + 1, newest),
    };
    let signed = if last == newest {
        head
    } else {
        store::checkpoints_from(reader.conn(), last, 1).await?.into_iter().next().map(|kept| kept.signed).or(head)
    };
    let last = signed.as_ref().map_or(newest, |signed| signed.seq);
    let previous = match &pruned {
        Some(pruned) if first == pruned_through + 1 => Some(pruned.signed.hash),
        _ if first == 1 => Some(START),
        _ => store::hash_at(reader.conn(), first - 1).await?,
    };
    let header = Header {
        first_seq: Some(first),
        previous_hash: previous.map(hex::encode),
        pruned: pruned.filter(|_| first == pruned_through + 1).map(|pruned| CheckpointView::from(pruned).signed),
        ..header(ctx, Scope::Trail)
    };
    Ok((line(&header), State::Chain { after: first - 1, last, head: signed, entries: 0 }))
}

async fn chain_page(
    ctx: &Ctx,
    after: i64,
    last: i64,
    head: Option<Signed>,
    entries: u64,
) -> Result<(Vec<u8>, State), DbError> {
    let rows = store::page(ctx.db.reader().await?.conn(), after, last, PAGE).await?;
    let after = rows.last().and_then(|row| row.seq).unwrap_or(last);
    let entries = entries + rows.len() as u64;
    Ok((text(rows), State::Chain { after, last, head, entries }))
}

fn begin_projects(ctx: &Ctx, left: Vec<ProjectId>, span: Span) -> (Vec<u8>, State) {
    let since = span.since.unwrap_or(Timestamp::EPOCH);
    let until = span.until.unwrap_or(Timestamp::FAR);
    let state = State::Projects { left, after: (since, String::new()), until, since, entries: 0 };
    (line(&header(ctx, Scope::Projects)), state)
}

async fn project_page(
    ctx: &Ctx,
    mut left: Vec<ProjectId>,
    after: (Timestamp, String),
    until: Timestamp,
    since: Timestamp,
    entries: u64,
) -> Result<(Vec<u8>, State), DbError> {
    // It isn't called without one.
    let Some(project) = left.last().copied() else { return Ok((Vec::new(), State::End)) };
    let rows = store::of_project(ctx.db.reader().await?.conn(), project, (after.0, &after.1), until, PAGE).await?;
    let entries = entries + rows.len() as u64;
    let is_full = i64::try_from(rows.len()).is_ok_and(|length| length == PAGE);
    let after = if let Some(row) = rows.last().filter(|_| is_full) {
        // One without a readable time isn't found by a time.
        (row.at.unwrap_or(after.0), row.id.clone())
    } else {
        left.pop();
        (since, String::new())
    };
    Ok((text(rows), State::Projects { left, after, until, since, entries }))
}

fn text(rows: Vec<super::row::Row>) -> Vec<u8> {
    let mut text = Vec::with_capacity(640 * rows.len());
    for row in rows {
        text.extend(Record::from(row).line());
        text.push(b'\n');
    }
    text
}
