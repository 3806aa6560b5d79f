//! What a project's keys begin with. A prefix is how people tell whose a key is, so that none may look like another's:
//! nobody takes a prefix that another project has, or one whose first part is that of a project in which they have no say.

use crate::base::id::ProjectId;
use crate::base::invalid::Invalid;
use crate::base::key_shape::{PREFIX_RULE, is_prefix};
use crate::ctx::Ctx;
use crate::features::auth::permission::{Permission as _, ProjectsUpdate};
use crate::features::auth::{Caller, Reach};
use crate::features::members;
use crate::infra::db::{DbError, Tx};

use super::{ProjectError, store};

/// First parts that are ours: of ids, of session tokens, of webhooks' secrets.
const RESERVED: &[&str] = &[
    "alr", "aud", "dlv", "evt", "key", "keyward", "kw", "kws", "lse", "prj", "scp", "sec", "ses", "sfd", "usr", "whk",
    "whsec",
];

fn root(prefix: &str) -> &str {
    prefix.split('_').next().unwrap_or_default()
}

/// Whether a project may have a prefix; gives it as it is stored. Other changes of prefixes wait until the transaction ends.
///
/// # Errors
/// The rule, another project's, or the storage.
pub(super) async fn admit(
    tx: &mut Tx,
    ctx: &Ctx,
    caller: Option<&Caller>,
    project: ProjectId,
    prefix: &str,
) -> Result<Option<String>, ProjectError> {
    let invalid = |message: &'static str| Invalid::field("prefix", "invalid_prefix", message);
    if !is_prefix(prefix) {
        return Err(invalid(PREFIX_RULE).into());
    }
    let root = root(prefix);
    if RESERVED.contains(&root) {
        return Err(invalid("begins with a word that Keyward uses itself").into());
    }
    let default = &ctx.config.keys.prefix;
    if prefix == default {
        return Ok(None);
    }
    store::lock_service(tx).await?;
    for (other, taken) in store::related(tx.conn(), project, root).await? {
        let is_shared = root == self::root(default) || has_a_say(tx, caller, other).await?;
        if taken == prefix || !is_shared {
            return Err(ProjectError::PrefixTaken);
        }
    }
    Ok(Some(prefix.to_owned()))
}

/// Whether the caller may change the other project, too; the command line may change all.
async fn has_a_say(tx: &mut Tx, caller: Option<&Caller>, other: ProjectId) -> Result<bool, DbError> {
    match caller {
        None => Ok(true),
        Some(caller @ Caller::Machine(_)) => Ok(matches!(caller.reach(ProjectsUpdate::SCOPE), Reach::Everywhere)),
        Some(Caller::Person(person)) if person.is_admin => Ok(true),
        Some(Caller::Person(person)) => {
            let standing = members::store::standing(tx.conn(), other, person.user).await?;
            Ok(standing.and_then(|s| s.role).is_some_and(|role| role.grants(ProjectsUpdate::SCOPE)))
        }
    }
}
