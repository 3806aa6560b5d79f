//! What the caller of a change may pass on, as the change's own transaction sees it: the scopes that they hold, and for a
//! key what restricts it.

use crate::base::clock::Timestamp;
use crate::base::id::ProjectId;
use crate::features::auth::{Caller, Grants};
use crate::features::scopes::Scope;
use crate::infra::db::{Conn, DbError, Tx};

use super::inherit::{self, Looser};
use super::{Key, secrets, store};

/// See the module.
#[derive(Debug)]
pub struct Giver {
    /// What they may give.
    pub grants: Grants,
    /// The key that acts, if one does.
    own: Option<Key>,
}

impl Giver {
    /// For a change in `project` that needs the permission `needs`; no caller is the command line. Held until the transaction
    /// ends: nobody takes anything from the person meanwhile. `None` is somebody who doesn't hold it any more, or a key that
    /// was taken back or switched off since it was let in.
    ///
    /// # Errors
    /// The storage.
    pub async fn of(
        tx: &mut Tx,
        caller: Option<&Caller>,
        project: ProjectId,
        needs: &str,
        now: Timestamp,
    ) -> Result<Option<Self>, DbError> {
        let Some(giver) = Self::look(tx.conn(), caller, project, needs, now).await? else { return Ok(None) };
        let grants = giver.grants.fresh(tx, project).await?;
        Ok(grants.hold(needs).then_some(Self { grants, ..giver }))
    }

    /// Asks once more, at the end of a transaction that took a while: who takes a key back mustn't wait for what it does, so
    /// nobody has held the one that acts. It is held from here on. `None` is who may not do it any more; `Some(false)` who may
    /// do it otherwise than when this was read.
    ///
    /// # Errors
    /// The storage.
    pub async fn confirm(
        &self,
        tx: &mut Tx,
        caller: Option<&Caller>,
        project: ProjectId,
        needs: &str,
        now: Timestamp,
    ) -> Result<Option<bool>, DbError> {
        if let Some(Caller::Machine(machine)) = caller {
            store::lock(tx, machine.key(), machine.project()).await?;
        }
        let giver = Self::of(tx, caller, project, needs, now).await?;
        Ok(giver.map(|giver| self.is_as(&giver)))
    }

    /// Whether both may give the same, restricted alike.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        let same = |one: &Key, other: &Key| {
            one.scopes == other.scopes && one.settings == other.settings && one.expires_at == other.expires_at
        };
        let own = match (&self.own, &other.own) {
            (Some(one), Some(other)) => same(one, other),
            (None, None) => true,
            _ => false,
        };
        own && self.grants == other.grants
    }

    /// Like [`of`](Self::of) without holding anything: to say what would be.
    ///
    /// # Errors
    /// The storage.
    pub async fn look(
        mut conn: Conn<'_>,
        caller: Option<&Caller>,
        project: ProjectId,
        needs: &str,
        now: Timestamp,
    ) -> Result<Option<Self>, DbError> {
        let giver = match caller {
            None => Some(Self { grants: Grants::Everything, own: None }),
            Some(person @ Caller::Person(_)) => {
                Some(Self { grants: person.grants_on(conn, project).await?, own: None })
            }
            Some(Caller::Machine(machine)) => {
                // A superseded secret passes nothing on that outlasts it, or it would never end.
                let secret_end = secrets::store::end(conn.lend(), machine.secret).await?;
                let own = store::find(conn, machine.key(), machine.project()).await?;
                let own = own.zip(secret_end).map(|(own, secret_end)| Key {
                    expires_at: own.expires_at.into_iter().chain(secret_end).min(),
                    ..own
                });
                let is_good = |own: &Key| {
                    own.revoked_at.is_none() && own.disabled_at.is_none() && own.expires_at.is_none_or(|end| end > now)
                };
                own.filter(is_good).map(|own| Self { grants: Grants::Held(own.scopes.clone()), own: Some(own) })
            }
        };
        Ok(giver.filter(|giver| giver.grants.hold(needs)))
    }

    /// What restricts the key that acts; nothing where none does.
    #[must_use]
    pub fn own(&self) -> Option<&Key> {
        self.own.as_ref()
    }

    /// Whether they hold every scope of a key: who doesn't may not make it less restricted, nor switch it on.
    #[must_use]
    pub fn holds(&self, key: &Key) -> bool {
        key.scopes.iter().all(|scope| self.grants.allow(scope))
    }

    /// Whether they hold every scope of a key, and it is restricted as much as they are: they may then have its secret.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn may_have(&self, key: &Key) -> Result<(), Refused> {
        if !self.holds(key) {
            return Err(Refused::NotHeld);
        }
        match &self.own {
            Some(own) if own.id != key.id && !inherit::covers(own, key) => Err(Refused::Looser),
            _ => Ok(()),
        }
    }

    /// Whether they may make `after` of `before`. Compared with what the key holds under its lock: a scope that somebody takes
    /// away at this moment is a new one.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn may_change(&self, before: &Key, after: &Key) -> Result<(), Refused> {
        let loosened = before.settings != after.settings || before.expires_at != after.expires_at;
        if loosened && !self.holds(before) {
            return Err(Refused::NotHeld);
        }
        let is_new = |scope: &&Scope| !before.scopes.iter().any(|held| held == *scope);
        if !after.scopes.iter().filter(is_new).all(|scope| self.grants.allow(scope)) {
            return Err(Refused::NotHeld);
        }
        self.own.as_ref().map_or(Ok(()), |own| Ok(inherit::change(own, before, after)?))
    }
}

/// Why something may not be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A scope that they don't hold.
    NotHeld,
    /// A restriction of their own that the other key wouldn't have.
    Looser,
}

impl From<Looser> for Refused {
    fn from(Looser: Looser) -> Self {
        Self::Looser
    }
}
