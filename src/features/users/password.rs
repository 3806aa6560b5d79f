//! Changing one's own password.

use crate::base::invalid::Invalid;
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::audit::{self, By, Entry, Outcome};
use crate::features::auth::Person;
use crate::features::changes::{self, Change, Marking};
use crate::features::sessions;
use crate::features::sessions::throttle::Account;
use crate::infra::db::DbError;
use crate::infra::passwords::PasswordError;

use super::register::{RegisterError, refuse_common};
use super::{rules, store};

/// Why the password is still the old one.
#[derive(Debug, thiserror::Error)]
pub enum ChangePasswordError {
    /// The new password breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The present password is another, or was changed in this moment.
    #[error("the present password is another")]
    Wrong,
    /// Too many wrong ones lately.
    #[error("too many wrong passwords")]
    Blocked {
        /// Seconds to wait.
        seconds: u64,
    },
    /// Too many passwords are being hashed, or hashing failed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}

impl From<RegisterError> for ChangePasswordError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Invalid(invalid) => Self::Invalid(invalid),
            RegisterError::Password(error) => Self::Password(error),
            RegisterError::Storage(error) => Self::Storage(error),
            RegisterError::Blocked { seconds } => Self::Blocked { seconds },
            RegisterError::Forbidden | RegisterError::Taken | RegisterError::Claimed(_) => Self::Wrong,
        }
    }
}

/// Changes it, and ends all of the person's other sessions. Wrong guesses count like failed log-ins: a stolen session
/// mustn't be a way to find the password out.
///
/// # Errors
/// See [`ChangePasswordError`].
pub async fn change(
    ctx: &Ctx,
    by: &By,
    person: &Person,
    present: &Secret,
    new: &Secret,
) -> Result<(), ChangePasswordError> {
    let new = rules::new_password("new_password", new)?;
    let account = Account::of(&person.username, by.origin.ip);
    if let Some(seconds) = sessions::throttle::blocked(ctx, &account).await? {
        return Err(ChangePasswordError::Blocked { seconds });
    }
    let old_hash = store::password_hash(ctx.db.reader().await?.conn(), person.user).await?;
    let right = match (rules::normalised(present), old_hash.clone()) {
        (Some(present), Some(hash)) => ctx.passwords.verify(present, Some(hash)).await?,
        _ => false,
    };
    // Only who knows the present password is worth the work of judging and hashing another.
    let new_hash = if right {
        refuse_common(ctx, "new_password", &new, &person.username).await?;
        Some(ctx.passwords.hash(new).await?)
    } else {
        None
    };

    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    if let Some(seconds) = sessions::throttle::blocked_in(&mut tx, &account, now).await? {
        return Err(ChangePasswordError::Blocked { seconds });
    }
    let changed = match (&new_hash, &old_hash) {
        (Some(new), Some(old)) => store::set_password_hash(&mut tx, person.user, new, old, now).await?,
        _ => false,
    };
    if changed {
        sessions::store::end_others(&mut tx, person.user, &person.token_hash).await?;
        changes::append(&mut tx, ctx, Change::Session(person.user), now).await?;
    } else {
        sessions::throttle::failed(&mut tx, &account, now).await?;
    }
    let entry = Entry {
        by,
        at: now,
        action: "user.change_password",
        resource_type: "user",
        resource_id: Some(person.user.to_string()),
        project: None,
        outcome: if changed { Outcome::Success } else { Outcome::Denied },
        changes: None,
    };
    audit::append(&mut tx, ctx, entry).await?;
    let marking = Marking::new(ctx, Change::Session(person.user));
    tx.commit().await?;
    drop(marking);
    if changed { Ok(()) } else { Err(ChangePasswordError::Wrong) }
}
