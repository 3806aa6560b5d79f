//! Moving in: keys that were issued elsewhere, by the hashes of their secrets.
//!
//! A line is a key, known by its `hash`. One that the project has already is skipped, so that an import that was broken off
//! is simply run again; so is one that the project had and deleted. One that anybody else has or had is an error that doesn't
//! say whose: nothing of another tenant moves or shows. Either every line is right and all are taken over in one transaction, or none; where a part may do, each
//! [`CHUNK`] of lines is a transaction of its own.

use bytes::Bytes;
use serde_json::json;

use crate::base::id::{ProjectId, UserId};
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
use crate::features::scopes::ScopesError;
use crate::gate::Digest;
use crate::infra::db::{Conn, DbError, Tx};

use super::desk::Desk;
use super::report::Report;
use super::store::{self};

/// The most lines of one import.
pub const MAX_LINES: u64 = 100_000;
/// Lines that are read, compared and written at once.
pub const CHUNK: u64 = 5_000;
/// Keys after which an import is a large one.
const LARGE: u64 = 1_000;
/// How often an import begins again because somebody else added one of its hashes meanwhile, or changed what whoever imports
/// may do.
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
            match take_over(ctx, importing, part, importing.first_index + report.total_processed).await {
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

/// Does a part of the import, in one transaction.
async fn take_over(
    ctx: &Ctx,
    importing: &Importing<'_>,
    chunks: &[Chunk],
    first_index: u64,
) -> Result<Report, ImportError> {
    let desk = |terms| Desk::new(ctx, importing, terms, first_index);
    if importing.dry_run {
        let mut reader = ctx.db.reader().await?;
        there(projects::store::find(reader.conn(), importing.project).await?)?;
        let giver =
            Giver::look(reader.conn(), importing.caller, importing.project, KeysImport::SCOPE, ctx.now()).await?;
        let mut desk = desk(terms(ctx, reader.conn(), importing, giver).await?);
        for chunk in chunks {
            desk.judge(reader.conn(), chunk).await?;
        }
        return Ok(desk.report);
    }
    let mut tx = ctx.db.begin().await?;
    let project = there(projects::store::lock(&mut tx, importing.project).await?)?;
    let giver = Giver::of(&mut tx, importing.caller, importing.project, KeysImport::SCOPE, ctx.now()).await?;
    let mut desk = desk(terms(ctx, tx.conn(), importing, giver).await?);
    let (mut digests, mut added) = (Vec::new(), 0);
    for chunk in chunks {
        let new = desk.judge(tx.conn(), chunk).await?;
        // Once a line is wrong nothing is kept, unless a part will do; the rest is looked at for the report.
        if desk.report.failed == 0 || importing.partial {
            store::add(&mut tx, &new).await?;
            added += new.len();
            digests.extend(new.iter().flat_map(|new| new.secrets.iter().map(|secret| secret.hash)));
        }
    }
    if digests.is_empty() || (desk.report.failed > 0 && !importing.partial) {
        return Ok(desk.report);
    }
    // The lines were judged by what the caller might do when this began.
    let giver = desk.giver();
    match giver.confirm(&mut tx, importing.caller, importing.project, KeysImport::SCOPE, ctx.now()).await? {
        Some(true) => {}
        Some(false) => return Err(ImportError::Changed),
        None => return Err(ImportError::Forbidden),
    }
    quota::store::add(&mut tx, importing.project, added).await?;
    note(&mut tx, ctx, importing, project, &desk).await?;
    let known = Known { ctx, digests };
    tx.commit().await?;
    drop(known);
    Ok(desk.report)
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
    let event = Event { at, project: id, kind: "project.updated", resource_id: id.to_string(), data };
    events::append(tx, ctx, event).await
}
