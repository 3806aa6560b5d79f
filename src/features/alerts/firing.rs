//! Shows Prometheus which rules fire: every replica the same, from the storage.

use crate::ctx::Ctx;
use crate::infra::db::DbError;
use crate::infra::telemetry::alerts::{FIRING_SHOWN, Series};

use super::store;

/// Rules of one project that are shown.
const SHOWN_OF_A_PROJECT: i64 = 20;

/// Reads in who fires and how many rules there are.
///
/// # Errors
/// The storage; then what was shown stays.
pub async fn show(ctx: &Ctx) -> Result<(), DbError> {
    let mut reader = ctx.db.reader().await?;
    let most = i64::try_from(FIRING_SHOWN).unwrap_or(i64::MAX);
    let (firing, all) = store::firing(reader.conn(), SHOWN_OF_A_PROJECT, most).await?;
    let active = store::count_active(reader.conn()).await?;
    let series = firing.into_iter().map(|(project, alert, name, metric)| Series {
        project: project.to_string(),
        alert: alert.to_string(),
        name,
        metric,
    });
    ctx.metrics.alerts.show(series.collect(), all, active);
    Ok(())
}

/// The same after a change, which is made: what can't be read now is a moment later.
pub async fn show_soon(ctx: &Ctx) {
    if let Err(error) = show(ctx).await {
        tracing::warn!(cause = %error, "the metrics will tell of changed alert rules a moment later");
    }
}
