//! Moving in: keys that were issued elsewhere, by the hashes of their secrets.
//!
//! A line is a key, known by its `hash`. One that the project has already is skipped, so that an import that was broken off
//! is simply run again; so is one that the project had and deleted. One that anybody else has or had is an error that doesn't
//! say whose: nothing of another tenant moves or shows. Either every line is right and all are taken over in one transaction, or none; where a part may do, each
//! [`CHUNK`] of lines is a transaction of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::runtime::Handle;

use crate::base::id::{KeyId, ProjectId, UserId};
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::features::auth::Caller;
use crate::features::auth::permission::{KeysImport, Permission as _};
use crate::features::changes::{self, Change};
use crate::features::events::{self, Event};
use crate::features::keys::giver::Giver;
use crate::features::keys::quota;
use crate::features::keys::terms::Terms;
use crate::features::projects::{self, Project, ProjectView};
use crate::features::scopes::{Scope, ScopesError};
use crate::gate::Digest;
use crate::infra::db::{Conn, DbError, Tx};

use super::desk::Desk;
use super::report::Report;
use super::store::{self, Batch};

/// The most lines of one import.
pub const MAX_LINES: u64 = 100_000;
/// Lines that are read, compared and written at once.
pub const CHUNK: u64 = 5_000;
/// Keys after which an import is a large one.
const LARGE: u64 = 1_000;
/// How often an import is tried where somebody else adds one of its hashes meanwhile, or changes what whoever imports may do.
const ATTEMPTS: u32 = 3;

/// For whom keys are taken over.
#[derive(Debug)]
pub struct Importing<'a> {
    /// For the audit trail.
    pub by: &'a By,
    /// Whose word it is; `None` is the command line.
    pub caller: Option<&'a Caller>,
    /// Into which project.
    pub project: ProjectId,
    /// The person who answers for the keys.
    pub responsible: Option<UserId>,
    /// Only look what would happen.
    pub dry_run: bool,
    /// Take over what is right, although other lines aren't.
    pub partial: bool,
    /// Take over deleted keys, too, whoever had them: the operator's own wish.
    pub revive: bool,
    /// The line of a file on which the text begins, from 1 on.
    pub first_line: u64,
    /// How many keys stand before it.
    pub first_index: u64,
}

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The project is gone.
    #[error("there is no such project")]
    NoProject,
    /// The permission was taken away a moment ago.
    #[error("not allowed any more")]
    Forbidden,
    /// What the key that imports may do was changed again and again meanwhile.
    #[error("what the caller may do has changed")]
    Changed,
    /// More than [`MAX_LINES`].
    #[error("more than 100,000 lines")]
    TooMany,
    /// Lines are wrong, and a part won't do.
    #[error("{} of {} lines are wrong", .0.failed, .0.total_processed)]
    Refused(Report),
    /// The catalogue can't be asked.
    #[error(transparent)]
    Scopes(#[from] ScopesError),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

/// A part of the text, in whole lines.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) text: Bytes,
    pub(super) first_line: u64,
}

/// Takes over the keys of a text, one a line.
///
/// # Errors
/// See [`ImportError`]; then nothing has changed, unless a part may do: then the chunks before the error are taken over.
pub async fn import(ctx: &Ctx, importing: &Importing<'_>, text: Bytes) -> Result<Report, ImportError> {
    let chunks = cut(&text, importing.first_line)?;
    let parts: Vec<&[Chunk]> =
        if importing.partial && !importing.dry_run { chunks.chunks(1).collect() } else { vec![&chunks] };
    let mut report = Report { dry_run: importing.dry_run, ..Report::default() };
    for part in parts {
        let mut attempt = 1;
        let done = loop {
            let first_index = importing.first_index + report.total_processed;
            match take_over(ctx, importing, part, first_index, attempt == ATTEMPTS).await {
                Err(ImportError::Storage(error)) if error.is_unique() && attempt < ATTEMPTS => attempt += 1,
                Err(ImportError::Changed) if attempt < ATTEMPTS => attempt += 1,
                done => break done?,
            }
        };
        report.add(done);
    }
    if report.failed > 0 && !importing.partial && !importing.dry_run {
        report.created = 0;
        return Err(ImportError::Refused(report));
    }
    Ok(report)
}

/// After an import, once. Where it was a large one, the engine is told: until it looks by itself, a minute later perhaps, it
/// would read all keys for each page of them.
pub async fn settle(ctx: &Ctx, report: &Report) {
    if report.created < LARGE || report.dry_run {
        return;
    }
    let look = async {
        let mut tx = ctx.db.begin().await?;
        store::look_again(&mut tx).await?;
        tx.commit().await
    };
    if let Err(error) = look.await {
        tracing::warn!(cause = %error, "lists will be slow until the database has looked at the imported keys");
    }
}

/// Finds the ends of lines; nothing is read yet.
fn cut(text: &Bytes, first_line: u64) -> Result<Vec<Chunk>, ImportError> {
    // Some editors begin a file so.
    let text = if text.starts_with(b"\xef\xbb\xbf") { text.slice(3..) } else { text.clone() };
    let mut chunks = Vec::new();
    let (mut lines, mut start, mut first) = (0, 0, 0);
    for (at, _) in text.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        lines += 1;
        if lines - first == CHUNK {
            chunks.push(Chunk { text: text.slice(start..=at), first_line: first_line + first });
            (start, first) = (at + 1, lines);
        }
    }
    if start < text.len() {
        lines += u64::from(!text.ends_with(b"\n"));
        chunks.push(Chunk { text: text.slice(start..), first_line: first_line + first });
    }
    if lines > MAX_LINES { Err(ImportError::TooMany) } else { Ok(chunks) }
}

/// Does a part of the import: all of it becomes keys in one transaction, or nothing.
///
/// Lines are judged, and those of a large import staged, before that transaction begins, because on SQLite nobody else writes
/// while it lasts: in it there is only looked whether what they were judged by has changed. With `held`, all of it is done in
/// it all the same.
async fn take_over(
    ctx: &Ctx,
    importing: &Importing<'_>,
    chunks: &[Chunk],
    first_index: u64,
    held: bool,
) -> Result<Report, ImportError> {
    let import = KeyId::generate(ctx.now(), &*ctx.rng);
    let is_large = !held && !importing.dry_run && chunks.len() > 1;
    let staged = is_large.then(|| Staged { ctx: ctx.clone(), import, is_there: true });
    let done = take_over_as(ctx, importing, chunks, first_index, held, import).await;
    if let Some(mut staged) = staged {
        unstage(ctx, import).await;
        staged.is_there = false;
    }
    done
}

/// What an import has staged, to be removed also where the request is given up in the middle: otherwise whoever begins imports and
/// goes away fills the storage.
struct Staged {
    ctx: Ctx,
    import: KeyId,
    is_there: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Without a runtime the process is about to end; `prune` does it then.
        if let (true, Ok(runtime)) = (self.is_there, Handle::try_current()) {
            let (ctx, import) = (self.ctx.clone(), self.import);
            runtime.spawn(async move { unstage(&ctx, import).await });
        }
    }
}

async fn unstage(ctx: &Ctx, import: KeyId) {
    let unstage = async {
        let mut tx = ctx.db.begin().await?;
        store::unstage(&mut tx, import).await?;
        tx.commit().await
    };
    if let Err(error) = unstage.await {
        tracing::warn!(cause = %error, "what an import has staged will be removed later");
    }
}

/// What is to become keys.
#[derive(Default)]
struct Lot {
    count: usize,
    digests: Vec<Digest>,
    scopes: BTreeSet<Scope>,
}

impl Lot {
    async fn stage(&mut self, tx: &mut Tx, import: KeyId, batch: Batch) -> Result<(), DbError> {
        store::stage(tx, import, &batch).await?;
        self.count += batch.count;
        self.digests.extend(batch.digests);
        self.scopes.extend(batch.scopes);
        Ok(())
    }
}

async fn take_over_as(
    ctx: &Ctx,
    importing: &Importing<'_>,
    chunks: &[Chunk],
    first_index: u64,
    held: bool,
    import: KeyId,
) -> Result<Report, ImportError> {
    let mut lot = Lot::default();
    let (mut desk, small) = look(ctx, importing, (chunks, first_index), (held, import), &mut lot).await?;
    if importing.dry_run || (!held && (is_refused(importing, &desk) || (lot.count == 0 && small.is_none()))) {
        return Ok(desk.report);
    }
    let mut tx = ctx.db.begin().await?;
    let project = there(projects::store::lock(&mut tx, importing.project).await?)?;
    let giver = Giver::of(&mut tx, importing.caller, importing.project, KeysImport::SCOPE, ctx.now()).await?;
    let terms = terms(ctx, tx.conn(), importing, giver).await?;
    let is_staged_here = held || small.is_some();
    if held {
        desk = Desk::new(ctx, importing, terms, first_index);
        for chunk in chunks {
            if let Some(batch) = desk.judge(tx.conn(), chunk).await?.filter(|_| !is_refused(importing, &desk)) {
                lot.stage(&mut tx, import, batch).await?;
            }
        }
        if lot.count == 0 || is_refused(importing, &desk) {
            return Ok(desk.report);
        }
    } else {
        if let Some(batch) = small {
            lot.stage(&mut tx, import, batch).await?;
        }
        if !desk.stands(&terms) || !desk.is_free(tx.conn(), import, &lot.scopes).await? {
            return Err(ImportError::Changed);
        }
    }
    store::add(&mut tx, import, &desk.common()).await?;
    if is_staged_here {
        store::unstage(&mut tx, import).await?;
    }
    // The lines were judged by what the caller might do when this began.
    let giver = desk.giver();
    match giver.confirm(&mut tx, importing.caller, importing.project, KeysImport::SCOPE, ctx.now()).await? {
        Some(true) => {}
        Some(false) => return Err(ImportError::Changed),
        None => return Err(ImportError::Forbidden),
    }
    quota::store::add(&mut tx, importing.project, lot.count).await?;
    note(&mut tx, ctx, importing, project, &desk).await?;
    let known = Known { ctx, digests: lot.digests };
    tx.commit().await?;
    drop(known);
    Ok(desk.report)
}

/// Judges lines without holding anything, unless they are judged later anyway. The keys of a large import are staged, a part at
/// a time; those of a small one are given.
async fn look<'a>(
    ctx: &'a Ctx,
    importing: &'a Importing<'a>,
    (chunks, first_index): (&[Chunk], u64),
    (held, import): (bool, KeyId),
    lot: &mut Lot,
) -> Result<(Desk<'a>, Option<Batch>), ImportError> {
    let mut reader = ctx.db.reader().await?;
    there(projects::store::find(reader.conn(), importing.project).await?)?;
    let giver = Giver::look(reader.conn(), importing.caller, importing.project, KeysImport::SCOPE, ctx.now()).await?;
    let mut desk = Desk::new(ctx, importing, terms(ctx, reader.conn(), importing, giver).await?, first_index);
    let mut small = None;
    for chunk in if held && !importing.dry_run { &[] } else { chunks } {
        let batch = desk.judge(reader.conn(), chunk).await?;
        // Once a line is wrong nothing is kept, unless a part will do; the rest is looked at for the report.
        let Some(batch) = batch.filter(|_| !importing.dry_run && !is_refused(importing, &desk)) else { continue };
        if chunks.len() == 1 {
            small = Some(batch);
        } else {
            let mut tx = ctx.db.begin().await?;
            lot.stage(&mut tx, import, batch).await?;
            tx.commit().await?;
        }
    }
    Ok((desk, small))
}

/// How long what an import has staged may lie there: longer than any request takes.
const STAGED: Duration = Duration::from_hours(1);

/// Removes what imports have staged that were given up in the middle. Any number of replicas may do this at once.
///
/// # Errors
/// The storage; the next call does it.
pub async fn prune(ctx: &Ctx) -> Result<(), DbError> {
    let mut tx = ctx.db.begin().await?;
    store::prune(&mut tx, ctx.now().saturating_sub(STAGED)).await?;
    tx.commit().await
}

/// Whether a line is wrong, and a part won't do.
fn is_refused(importing: &Importing<'_>, desk: &Desk<'_>) -> bool {
    desk.report.failed > 0 && !importing.partial
}

fn there(project: Option<Project>) -> Result<Project, ImportError> {
    project.filter(|project| project.deleted_at.is_none()).ok_or(ImportError::NoProject)
}

/// On which terms keys come in, if whoever brings them may do so: somebody may have taken it away since the request came.
async fn terms(
    ctx: &Ctx,
    mut conn: Conn<'_>,
    importing: &Importing<'_>,
    giver: Option<Giver>,
) -> Result<(Giver, Terms, Option<u32>), ImportError> {
    let giver = giver.ok_or(ImportError::Forbidden)?;
    let terms = match importing.caller {
        Some(_) => Terms::read(ctx, conn.lend(), importing.project).await?,
        // The operator is bound by nothing.
        None => Terms::default(),
    };
    let room = terms.room(conn, importing.project, importing.responsible).await?;
    Ok((giver, terms, room))
}

/// Tells the gate of secrets when dropped: after the commit, whatever came of it, and also where the request is given up in
/// the middle. A digest too many does no harm.
struct Known<'a> {
    ctx: &'a Ctx,
    digests: Vec<Digest>,
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        self.ctx.gate.imported(&self.digests);
    }
}

/// Writes what an import leaves behind: one audit entry, one event and one change, with counts; not one a key.
async fn note(
    tx: &mut Tx,
    ctx: &Ctx,
    importing: &Importing<'_>,
    project: Project,
    desk: &Desk<'_>,
) -> Result<(), DbError> {
    let (id, at) = (project.id, desk.now);
    let Report { total_processed, created, skipped, failed, .. } = desk.report;
    let entry = Entry {
        by: importing.by,
        at,
        action: "keys.import",
        resource_type: "project",
        resource_id: Some(id.to_string()),
        project: Some(id),
        outcome: Outcome::Success,
        changes: Some(json!({
            "total_processed": total_processed, "created": created, "skipped": skipped, "failed": failed,
        })),
    };
    audit::append(tx, ctx, entry).await?;
    // The other processes find the secrets by the moment: their ids and this row share it.
    changes::append(tx, ctx, Change::Imported(id), at).await?;
    let mut data = json!(ProjectView::of(ctx, project));
    data["keys_imported"] = created.into();
    let data = events::told(importing.by, "keys.import", data, None);
    let event = Event { at, project: id, kind: "project.updated", resource_id: id.to_string(), data };
    events::append(tx, ctx, event).await
}
