//! What the operator does with people: the administrator of the configuration, and the command line's calls.

use crate::base::clock::Timestamp;
use crate::base::id::UserId;
use crate::base::page::{Cursor, Limit, Page};
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::infra::db::DbError;

use super::Account;
use super::register::{RegisterError, register};
use super::rules::Username;
use super::store::{self, Filter};

/// Makes the administrator that the configuration names, if nobody has the name; several replicas may do this at once.
/// Somebody who has it is left as they are.
///
/// # Errors
/// The name or the password breaks a rule, or the storage.
pub async fn ensure_admin(ctx: &Ctx) -> Result<(), RegisterError> {
    let Some(admin) = &ctx.config.auth.admin else {
        return Ok(());
    };
    let username = Username::parse(&admin.username)?;
    let existing = store::credentials(ctx.db.reader().await?.conn(), &username).await?;
    if let Some(existing) = existing {
        if !existing.is_admin {
            tracing::warn!(user = %existing.id, "KEYWARD_ADMIN_USERNAME names somebody who isn't an administrator");
        }
        return Ok(());
    }
    match register(ctx, &By::system("start", ctx), &admin.username, &admin.password, true, None).await {
        Ok(user) => {
            tracing::info!(user = %user.id, "made the administrator");
            Ok(())
        }
        // Another replica was faster.
        Err(RegisterError::Taken) => Ok(()),
        Err(error) => Err(error),
    }
}

/// People, newest first.
///
/// # Errors
/// The storage.
pub async fn list(
    ctx: &Ctx,
    filter: &Filter,
    after: Option<Cursor<UserId>>,
    limit: Limit,
) -> Result<Page<Account>, DbError> {
    let after = after.unwrap_or(Cursor { at: Timestamp::FAR, id: UserId::from_bits(u128::MAX) });
    let rows = store::list(ctx.db.reader().await?.conn(), filter, &after, limit).await?;
    Ok(Page::cut(rows, limit, |user| Cursor { at: user.created_at, id: user.id }).map(Account::from))
}
