//! `keyward audit`.

use crate::ctx::Ctx;

use super::args::{Audit, Format};
use super::{Failure, proof, trail};

/// Runs a command about the trail.
pub(super) async fn run(ctx: &Ctx, command: Audit, format: Format) -> Result<(), Failure> {
    match command {
        Audit::Verify(args) => proof::verify(ctx, &args, format).await,
        Audit::Export(args) => proof::export(ctx, &args).await,
        Audit::List(filter) => {
            trail::list(ctx, filter, format).await?;
            ctx.db.close().await;
            Ok(())
        }
    }
}
