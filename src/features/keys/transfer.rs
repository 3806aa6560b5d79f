//! Transfer: another member answers for a key from now on. What it is and may do doesn't change.

use crate::base::id::UserId;
use crate::ctx::Ctx;
use crate::features::users::rules::Username;
use crate::features::{members, projects, users};

use super::change::{ChangeError, Target, finish};
use super::terms::Terms;
use super::{KeyView, store};

/// Who shall answer for it; both name the same person.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// By their name.
    pub username: Option<Username>,
    /// By their id.
    pub user: Option<UserId>,
}

/// Makes another member of the key's project answer for it. The project's row is held: who leaves at this moment has left
/// before or after, and their keys are settled with them.
///
/// # Errors
/// See [`ChangeError`].
pub async fn transfer(ctx: &Ctx, target: Target<'_>, receiver: &Receiver) -> Result<KeyView, ChangeError> {
    target.refuse_own()?;
    let mut tx = ctx.db.begin().await?;
    projects::store::lock(&mut tx, target.project).await?.ok_or(ChangeError::NotFound)?;
    let before = store::lock(&mut tx, target.key, target.project).await?.ok_or(ChangeError::NotFound)?;
    let now = ctx.now();
    if before.revoked_at.is_some() {
        return Err(ChangeError::Revoked);
    }
    let named = match &receiver.username {
        Some(username) => users::store::credentials(tx.conn(), username).await?.map(|user| user.id),
        None => receiver.user,
    };
    let user = named.filter(|user| receiver.user.is_none_or(|id| id == *user)).ok_or(ChangeError::NoMember)?;
    let member = members::store::find(tx.conn(), target.project, user).await?.ok_or(ChangeError::NoMember)?;
    if before.user_id == Some(member.user_id) {
        return Ok(KeyView::at(before, now));
    }
    if member.is_disabled {
        return Err(ChangeError::DisabledMember);
    }
    let terms = Terms::read(ctx, tx.conn(), target.project).await?;
    terms.admit_person(&mut tx, target.project, Some(user)).await?.map_err(ChangeError::TooManyKeys)?;
    store::set_person(&mut tx, target.key, target.project, user).await?;
    let mut key = before.clone();
    key.user_id = Some(user);
    finish(tx, ctx, target, now, ("key.transfer", "key.updated"), before, key).await
}
