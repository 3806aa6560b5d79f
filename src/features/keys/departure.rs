//! What becomes of the keys that somebody answers for when they leave a project or are disabled: the project's choice.

use serde_json::json;
use tokio::sync::oneshot;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, UserId};
use crate::ctx::Ctx;
use crate::features::audit::{self, By};
use crate::features::changes::{self, Change, Marking};
use crate::features::projects::policy::DepartedKeys;
use crate::features::{projects, users};
use crate::infra::db::{Conn, DbError, Tx};

use super::change::{self, Target};
use super::rules::RevocationReason;
use super::{Key, KeyView, store};

/// Keys that are settled at once, and people that are looked for at once.
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
    let choice = choice(tx.conn(), project).await?;
    let mut settled = 0;
    loop {
        let part = settle_part(tx, ctx, by, (project, choice), user, now).await?;
        settled += part.settled;
        if part.is_last {
            break;
        }
    }
    if choice != DepartedKeys::Keep {
        changes::append(tx, ctx, Change::Project(project), now).await?;
    }
    Ok(settled)
}

/// Settles the keys of somebody who is disabled, a part in a transaction, as long as they are. Drops `begun` once the first
/// of them are settled.
///
/// # Errors
/// The storage; [`settle_left`] goes on.
pub async fn settle_disabled(
    ctx: &Ctx,
    by: &By,
    user: UserId,
    projects: &[ProjectId],
    begun: oneshot::Sender<()>,
) -> Result<(), DbError> {
    let mut begun = Some(begun);
    let mut settled = 0;
    for project in projects {
        loop {
            let part = settle_one_part(ctx, by, *project, user).await?;
            settled += part.settled;
            if i64::try_from(settled).is_ok_and(|settled| settled >= PAGE) {
                begun.take();
            }
            if part.is_last {
                break;
            }
        }
    }
    Ok(())
}

/// Settles what is left of the keys of disabled people: where a process ended in the middle of it. Any number of replicas may
/// do this at once.
///
/// # Errors
/// The storage; the next call goes on.
pub async fn settle_left(ctx: &Ctx) -> Result<(), DbError> {
    let by = By::system("departure", ctx);
    let mut after = (UserId::from_bits(0), ProjectId::from_bits(0));
    loop {
        let left = store::unsettled(ctx.db.reader().await?.conn(), after, PAGE).await?;
        let Some(last) = left.last() else { return Ok(()) };
        after = *last;
        for (user, project) in left {
            while !settle_one_part(ctx, &by, project, user).await?.is_last {}
        }
    }
}

/// Whether a key is refused because of whom it belongs to, whatever is written of itself.
///
/// # Errors
/// The storage.
pub(super) async fn is_departed(tx: &mut Tx, key: &Key) -> Result<bool, DbError> {
    let Some(user) = key.user_id else { return Ok(false) };
    Ok(is_disabled(tx, user).await? && choice(tx.conn(), key.project_id).await? != DepartedKeys::Keep)
}

async fn is_disabled(tx: &mut Tx, user: UserId) -> Result<bool, DbError> {
    Ok(users::store::find(tx.conn(), user).await?.is_some_and(|user| user.disabled_at.is_some()))
}

async fn choice(conn: Conn<'_>, project: ProjectId) -> Result<DepartedKeys, DbError> {
    let policy = projects::store::settings(conn, project).await?.unwrap_or_default().1;
    Ok(policy.departed_keys.unwrap_or_default())
}

/// What became of a part.
#[derive(Clone, Copy, Debug)]
struct Part {
    settled: usize,
    is_last: bool,
}

impl Part {
    const NOTHING: Self = Self { settled: 0, is_last: true };
}

/// A part in its own transaction, if the person is still disabled. The project comes before the person, as where members
/// are taken out and keys are made.
async fn settle_one_part(ctx: &Ctx, by: &By, project: ProjectId, user: UserId) -> Result<Part, DbError> {
    let mut tx = ctx.db.begin().await?;
    if projects::store::lock(&mut tx, project).await?.is_none() {
        return Ok(Part::NOTHING);
    }
    users::store::lock(&mut tx, user).await?;
    if !is_disabled(&mut tx, user).await? {
        return Ok(Part::NOTHING);
    }
    let now = ctx.now();
    let choice = choice(tx.conn(), project).await?;
    let part = settle_part(&mut tx, ctx, by, (project, choice), user, now).await?;
    if part.settled == 0 {
        return Ok(part);
    }
    changes::append(&mut tx, ctx, Change::Project(project), now).await?;
    let marking = Marking::new(ctx, Change::Project(project));
    tx.commit().await?;
    drop(marking);
    Ok(part)
}

async fn settle_part(
    tx: &mut Tx,
    ctx: &Ctx,
    by: &By,
    (project, choice): (ProjectId, DepartedKeys),
    user: UserId,
    now: Timestamp,
) -> Result<Part, DbError> {
    let keys = match choice {
        DepartedKeys::Keep => return Ok(Part::NOTHING),
        DepartedKeys::Disable => store::enabled_after(tx.conn(), project, user, KeyId::from_bits(0), PAGE).await?,
        DepartedKeys::Revoke => {
            // Those that are disabled already come first: as long as enabled ones are left, the rest is found again.
            let disabled = store::disabled_of(tx.conn(), project, user, PAGE).await?;
            if disabled.is_empty() {
                store::enabled_after(tx.conn(), project, user, KeyId::from_bits(0), PAGE).await?
            } else {
                disabled
            }
        }
    };
    let mut part = Part { settled: 0, is_last: keys.is_empty() };
    for key in keys {
        // As it stands under its lock: what somebody is just taking away from it must not come back with this.
        let Some(mut key) = store::lock(tx, key.id, project).await? else { continue };
        let is_settled = match choice {
            DepartedKeys::Disable => key.disabled_at.is_some(),
            DepartedKeys::Keep | DepartedKeys::Revoke => false,
        };
        if key.revoked_at.is_some() || is_settled || key.user_id != Some(user) {
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
        part.settled += 1;
    }
    Ok(part)
}
