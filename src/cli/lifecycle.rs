//! `keyward keys rotate`, `disable`, `enable` and `delete`. The operator is bound by nobody's permissions.

use serde_json::json;

use crate::base::duration::Seconds;
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::keys::change::{self, Target};
use crate::features::keys::{rotate, rules};

use super::args::Format;
use super::keys::{find, obeyed, usage};
use super::{Failure, output};

/// Gives a key a new secret, and prints it alone where its result goes.
pub(super) async fn rotate(ctx: &Ctx, id: &str, overlap: &str, format: Format) -> Result<(), Failure> {
    let span: Seconds = overlap.parse().map_err(|error| usage(format!("--overlap: {error}")))?;
    let span = rules::overlap(span).map_err(|_| usage("--overlap: at most 365 days"))?;
    let (key, project) = find(ctx, id).await?;
    let by = By::system("cli", ctx);
    let rotated = rotate::rotate(ctx, Target { by: &by, project, key }, None, span, None).await?;
    // Printed before anything else can go wrong: it can't be had again.
    match format {
        Format::Table => output::say(rotated.secret.expose()),
        Format::Json => {
            let mut view = json!(rotated.view);
            if let Some(fields) = view.as_object_mut() {
                fields.insert("key".to_owned(), json!(rotated.secret.expose()));
                fields.insert("previous_expires_at".to_owned(), json!(rotated.previous_expires_at));
            }
            output::json(&view)?;
        }
    }
    obeyed().await;
    Ok(())
}

/// Switches a key on or off.
pub(super) async fn switch(ctx: &Ctx, id: &str, on: bool, format: Format) -> Result<(), Failure> {
    let (key, project) = find(ctx, id).await?;
    let by = By::system("cli", ctx);
    let target = Target { by: &by, project, key };
    let view = if on { change::enable(ctx, target, None).await? } else { change::disable(ctx, target).await? };
    obeyed().await;
    match format {
        Format::Json => output::json(&view),
        Format::Table => {
            output::say(&format!("{} {key}", if on { "enabled" } else { "disabled" }));
            Ok(())
        }
    }
}

/// Removes a key for good.
pub(super) async fn delete(ctx: &Ctx, id: &str, force: bool, format: Format) -> Result<(), Failure> {
    let (key, project) = find(ctx, id).await?;
    if !force {
        output::confirm(&format!("Remove {key} for good?"))?;
    }
    let by = By::system("cli", ctx);
    change::delete(ctx, Target { by: &by, project, key }).await?;
    obeyed().await;
    match format {
        Format::Json => output::json(&json!({ "id": key, "deleted": true })),
        Format::Table => {
            output::say(&format!("removed {key}"));
            Ok(())
        }
    }
}
