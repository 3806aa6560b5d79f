//! What becomes of the keys that somebody answers for when their role in a project grants less than before: those that may
//! do what the person may not any more are switched off, unless the project keeps the keys of who leaves.

use serde_json::json;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, UserId};
use crate::ctx::Ctx;
use crate::features::audit::{self, By};
use crate::features::auth::Role;
use crate::features::changes::{self, Change};
use crate::features::projects;
use crate::features::projects::policy::DepartedKeys;
use crate::infra::db::{DbError, Tx};

use super::change::{self, Target};
use super::{Key, KeyView, store};

/// Keys that are read at once.
const PAGE: usize = 500;

/// Disables the keys that hold scopes of Keyward's own which the new role doesn't grant, as part of the change of the role,
/// and tells how many these were. Where the new role grants whatever the old one did, there are none. The caller marks
/// [`Change::Project`] when it commits.
///
/// # Errors
/// The storage.
pub async fn settle(
    tx: &mut Tx,
    ctx: &Ctx,
    (by, project): (&By, ProjectId),
    user: UserId,
    (before, after): (Role, Role),
    now: Timestamp,
) -> Result<usize, DbError> {
    if before.scopes().iter().all(|scope| after.grants(scope)) {
        return Ok(0);
    }
    let policy = projects::store::settings(tx.conn(), project).await?.unwrap_or_default().1;
    if policy.departed_keys.unwrap_or_default() == DepartedKeys::Keep {
        return Ok(0);
    }
    let mut settled = 0;
    let mut last = KeyId::from_bits(0);
    loop {
        let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
        let keys = store::enabled_after(tx.conn(), project, user, last, limit).await?;
        let read = keys.len();
        for key in keys {
            last = key.id;
            // As it stands under its lock: another change may be under way, and may add a scope.
            let Some(mut key) = store::lock(tx, key.id, project).await? else { continue };
            let is_off = key.revoked_at.is_some() || key.disabled_at.is_some();
            if is_off || key.user_id != Some(user) || !exceeds(&key, after) {
                continue;
            }
            let facts = json!(KeyView::at(key.clone(), now));
            key.disabled_at = Some(now);
            key.updated_at = now;
            store::save(tx, &key).await?;
            let target = Target { by, project, key: key.id };
            let names = ("key.disable", "key.disabled");
            let view = json!(KeyView::at(key, now));
            change::note(tx, ctx, target, now, names, audit::difference(&facts, &view), view).await?;
            settled += 1;
        }
        if read < PAGE {
            break;
        }
    }
    if settled > 0 {
        changes::append(tx, ctx, Change::Project(project), now).await?;
    }
    Ok(settled)
}

/// Whether a key holds a scope of Keyward's own that a role doesn't grant.
fn exceeds(key: &Key, role: Role) -> bool {
    key.scopes.iter().any(|scope| scope.is_own() && !role.grants(scope.as_str()))
}
