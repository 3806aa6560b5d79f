//! Finding keys.

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::base::page::{Cursor, Limit, Page};
use crate::ctx::Ctx;
use crate::infra::db::DbError;

use super::store::{self, Filter};
use super::{Key, KeyView};

/// A page of a project's keys, newest first. Without a project, of all keys: for the operator alone.
///
/// # Errors
/// The storage.
pub async fn list(
    ctx: &Ctx,
    project: Option<ProjectId>,
    filter: &Filter,
    after: Option<Cursor<KeyId>>,
    limit: Limit,
) -> Result<Page<KeyView>, DbError> {
    let now = ctx.now();
    let after = after.unwrap_or(Cursor { at: Timestamp::FAR, id: KeyId::from_bits(u128::MAX) });
    let rows = store::list(ctx.db.reader().await?.conn(), project, filter, now, &after, limit).await?;
    let page = Page::cut(rows, limit, |key: &Key| Cursor { at: key.created_at, id: key.id });
    Ok(page.map(|key| KeyView::at(key, now)))
}
