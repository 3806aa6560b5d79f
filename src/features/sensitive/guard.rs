//! Stands before what is written of others' data: audit entries and events.

use std::borrow::Cow;

use serde_json::Value;

use crate::base::id::ProjectId;
use crate::base::masking::{holds_secret, mask_secrets};
use crate::ctx::Ctx;
use crate::features::audit::{Actor, By};
use crate::infra::db::{DbError, Tx};

use super::memory;

/// Treats a document by the rules of its project, every text in it included.
///
/// # Errors
/// The storage.
pub async fn document(ctx: &Ctx, tx: &mut Tx, project: Option<ProjectId>, document: &mut Value) -> Result<(), DbError> {
    memory::cleaner(ctx, tx, project).await?.clean(document);
    Ok(())
}

/// Masks our own secrets in a text that isn't anybody's document: an id, a name.
pub fn text(text: &mut String) {
    if let Cow::Owned(masked) = mask_secrets(text) {
        *text = masked;
    }
}

/// Whoever acts, without a secret in their name. Names are refused that hold one, but older ones may.
#[must_use]
pub fn actor(by: &By) -> Option<By> {
    let name = by.actor.name().filter(|name| holds_secret(name))?;
    let masked = mask_secrets(name).into_owned();
    let actor = match &by.actor {
        Actor::User(id, _) => Actor::User(*id, masked),
        Actor::Key(id, _) => Actor::Key(*id, masked),
        Actor::System(_) | Actor::Anonymous => return None,
    };
    Some(By { actor, ..by.clone() })
}
