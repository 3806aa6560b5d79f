//! A catalogue in the bulk form, read and written piece by piece: a large one takes no more memory than a small one. What
//! changes meanwhile may be in it or not.

use bytes::Bytes;
use futures_util::stream::{self, Stream};

use crate::base::id::ProjectId;
use crate::ctx::Ctx;
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

/// The text of the whole, in pieces. Imported again, it changes nothing.
pub fn pieces(ctx: Ctx, project: ProjectId) -> impl Stream<Item = Result<Bytes, DbError>> + Send {
    stream::try_unfold(Place::Start, move |place| {
        let ctx = ctx.clone();
        async move {
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
    })
}

/// One more than a page, to know whether there is another.
fn fetched() -> i64 {
    i64::try_from(PAGE).unwrap_or(i64::MAX).saturating_add(1)
}
