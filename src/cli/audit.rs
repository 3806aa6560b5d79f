//! `keyward audit`.

use crate::ctx::Ctx;

use super::args::{Audit, Format};
use super::{Failure, trail};

/// Runs a command about the trail.
pub(super) async fn run(ctx: &Ctx, command: Audit, format: Format) -> Result<(), Failure> {
    match command {
        Audit::List(filter) => trail::list(ctx, filter, format).await?,
    }
    ctx.db.close().await;
    Ok(())
}
