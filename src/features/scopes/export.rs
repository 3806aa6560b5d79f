//! A catalogue in the bulk form, read and written piece by piece: a large one takes no more memory than a small one. What
//! changes meanwhile may be in it or not.

use bytes::Bytes;
use futures_util::stream::{self, Stream};

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
use crate::features::audit::{self, By};
use crate::infra::db::DbError;

use super::bulk::VERSION;
use super::rules::NewScope;
use super::store;

/// Scopes read at once.
const PAGE: usize = 1000;

/// Where the next piece begins.
enum Place {
    Start,
    After(String),
    End,
}

/// Begins an export: says so in the audit trail, before anything leaves.
///
/// # Errors
/// The storage.
pub async fn begin(ctx: &Ctx, by: &By, project: ProjectId) -> Result<(), DbError> {
    audit::append_reading(ctx, by, "scopes.export", Some(project), None).await
}

/// The text of the whole, in pieces. Imported again, it changes nothing.
pub fn pieces(ctx: Ctx, by: By, project: ProjectId) -> impl Stream<Item = Result<Bytes, DbError>> + Send {
    stream::try_unfold(Place::Start, move |place| {
        let (ctx, by) = (ctx.clone(), by.clone());
        async move {
            let piece = piece(&ctx, project, place).await;
            if piece.is_err() {
                audit::append_broken(&ctx, &by, "scopes.export", project).await;
            }
            piece
        }
    })
}

/// One piece, and where the next begins.
async fn piece(ctx: &Ctx, project: ProjectId, place: Place) -> Result<Option<(Bytes, Place)>, DbError> {
    let (after, head) = match place {
        Place::Start => (String::new(), format!("{{\"version\":\"{VERSION}\",\"scopes\":[")),
        Place::After(name) => (name, ",".to_owned()),
        Place::End => return Ok(None),
    };
    let rows = store::export(ctx.db.reader().await?.conn(), project, &after, fetched()).await?;
    let more = rows.len() > PAGE;
    let lines: Vec<NewScope> = rows
        .into_iter()
        .take(PAGE)
        .map(|row| NewScope {
            name: row.name,
            description: row.description,
            category: row.category,
            is_active: row.is_active,
        })
        .collect();
    // Our own types always serialise.
    let texts: Vec<String> = lines.iter().filter_map(|line| serde_json::to_string(line).ok()).collect();
    let next = match lines.last() {
        Some(last) if more => Place::After(last.name.to_string()),
        _ => Place::End,
    };
    let tail = if matches!(next, Place::End) { "]}\n" } else { "" };
    Ok(Some((Bytes::from(format!("{head}{}{tail}", texts.join(",\n"))), next)))
}

/// One more than a page, to know whether there is another.
fn fetched() -> i64 {
    i64::try_from(PAGE).unwrap_or(i64::MAX).saturating_add(1)
}
