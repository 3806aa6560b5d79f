//! Keeps in memory which pages projects let call the service: few projects name any, so that all are read whenever one of
//! them changes.

use crate::ctx::Ctx;
use crate::infra::db::DbError;

use super::store;

/// Reads them.
///
/// # Errors
/// The storage; what was read before stays.
pub async fn read_in(ctx: &Ctx) -> Result<(), DbError> {
    let policies = store::policies_with_origins(ctx.db.reader().await?.conn()).await?;
    ctx.origins.replace(policies.into_iter().filter_map(|policy| policy.cors_origins).flatten().collect());
    Ok(())
}
