//! What becomes of the keys that somebody answers for when they leave a project or are disabled: the project's choice.

use serde_json::json;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, UserId};
use crate::ctx::Ctx;
use crate::features::audit::{self, By};
use crate::features::changes::{self, Change};
use crate::features::projects;
use crate::features::projects::policy::DepartedKeys;
use crate::infra::db::{DbError, Tx};

use super::change::{self, Target};
use super::rules::RevocationReason;
use super::{KeyView, store};

/// Keys that are read at once.
const PAGE: i64 = 500;

/// Does what the project chose, as part of the person's leaving, and tells how many keys it concerned. The caller marks
/// [`Change::Project`] when it commits.
///
/// # Errors
/// The storage.
pub async fn settle(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    user: UserId,
    now: Timestamp,
) -> Result<usize, DbError> {
    let policy = projects::store::settings(tx.conn(), project).await?.unwrap_or_default().1;
    let choice = policy.departed_keys.unwrap_or_default();
    if choice == DepartedKeys::Keep {
        return Ok(0);
    }
    let mut settled = 0;
    loop {
        let keys = match choice {
            DepartedKeys::Keep => Vec::new(),
            DepartedKeys::Disable => store::enabled_of(tx.conn(), project, user, PAGE).await?,
            DepartedKeys::Revoke => store::unrevoked_of(tx.conn(), project, user, PAGE).await?,
        };
        let read = keys.len();
        for listed in keys {
            // Somebody else may have changed it since it was listed: what they did must stay.
            let Some(mut key) = store::lock(tx, listed.id, project).await? else { continue };
            if key.revoked_at.is_some() || (choice == DepartedKeys::Disable && key.disabled_at.is_some()) {
                continue;
            }
            let before = json!(KeyView::at(key.clone(), now));
            let names = if choice == DepartedKeys::Disable {
                key.disabled_at = Some(now);
                ("key.disable", "key.disabled")
            } else {
                key.revoked_at = Some(now);
                key.revoked_reason = Some(RevocationReason::AffiliationChanged.word().to_owned());
                ("key.revoke", "key.revoked")
            };
            key.updated_at = now;
            store::save(tx, &key).await?;
            let target = Target { by, project, key: key.id };
            let after = json!(KeyView::at(key, now));
            change::note(tx, ctx, target, now, names, audit::difference(&before, &after), after).await?;
            settled += 1;
        }
        if i64::try_from(read).is_ok_and(|read| read < PAGE) {
            break;
        }
    }
    changes::append(tx, ctx, Change::Project(project), now).await?;
    Ok(settled)
}
