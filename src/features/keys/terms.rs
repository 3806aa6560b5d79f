//! The terms on which keys are made and kept: what the server sets and what the project sets, whichever is stricter. They
//! hold for everybody who comes over HTTP. The operator at the command line is bound by the default end alone.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::{ProjectId, UserId};
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::projects;
use crate::features::projects::policy::Policy;
use crate::infra::config::KeysConfig;
use crate::infra::db::{Conn, DbError, Tx};

use super::quota;

/// See the module. `None` is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How long a key lasts whose maker doesn't say.
    usual: Option<Duration>,
    /// The longest that a key may last.
    longest: Option<Duration>,
    /// The most keys of the project that aren't revoked.
    most: Option<u32>,
    /// The most of them that one person answers for.
    most_per_person: Option<u32>,
    /// The most keys of the project, revoked ones too.
    ceiling: Option<u32>,
}

/// A key would last longer than the terms allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl TooLong {
    /// The error of the field that says so.
    #[must_use]
    pub fn of(self, field: &'static str) -> Invalid {
        Invalid::field(field, "too_long", "is later than keys may end here")
    }
}

impl Terms {
    /// The stricter of two maxima; of defaults the project's.
    #[must_use]
    pub fn of(server: &KeysConfig, project: &Policy) -> Self {
        let span = |span: Duration| (!span.is_zero()).then_some(span);
        let count = |count: u32| (count > 0).then_some(count);
        let own = |span: Option<Seconds>| span.map(Seconds::as_duration);
        Self {
            usual: own(project.default_key_expiry).or_else(|| span(server.default_expiry)),
            longest: stricter(span(server.max_expiry), own(project.max_key_expiry)),
            most: stricter(count(server.per_project), project.max_keys),
            most_per_person: stricter(count(server.per_user), project.max_keys_per_person),
            ceiling: count(server.max_per_project),
        }
    }

    /// Those of a project, as a transaction sees them.
    ///
    /// # Errors
    /// The storage.
    pub async fn read(ctx: &Ctx, conn: Conn<'_>, project: ProjectId) -> Result<Self, DbError> {
        let policy = projects::store::settings(conn, project).await?.unwrap_or_default().1;
        Ok(Self::of(&ctx.config.keys, &policy))
    }

    /// What binds the operator.
    #[must_use]
    pub fn for_operator(self) -> Self {
        Self { usual: self.usual, ..Self::default() }
    }

    /// When a new key ends whose maker doesn't say.
    #[must_use]
    pub fn usual_end(&self, now: Timestamp) -> Option<Timestamp> {
        let span = stricter(self.usual, self.longest);
        span.map(|span| now.saturating_add(span).min(Timestamp::FAR))
    }

    /// Whether a key may end then; `None` is never.
    ///
    /// # Errors
    /// That is too late.
    pub fn allow_end(&self, end: Option<Timestamp>, now: Timestamp) -> Result<(), TooLong> {
        match self.longest {
            Some(longest) if end.is_none_or(|end| end > now.saturating_add(longest)) => Err(TooLong),
            _ => Ok(()),
        }
    }

    /// How many more keys the project may have, and the person; `None` is any number.
    ///
    /// # Errors
    /// The storage.
    pub async fn room(
        &self,
        mut conn: Conn<'_>,
        project: ProjectId,
        person: Option<UserId>,
    ) -> Result<Option<u32>, DbError> {
        let of_all = match self.ceiling {
            Some(ceiling) => Some(ceiling.saturating_sub(quota::store::count(conn.lend(), project).await?)),
            None => None,
        };
        let of_project = match self.most {
            Some(most) => Some(most.saturating_sub(quota::store::count_unrevoked(conn.lend(), project, most).await?)),
            None => None,
        };
        let of_person = match (self.most_per_person, person) {
            (Some(most), Some(person)) => {
                Some(most.saturating_sub(quota::store::count_unrevoked_of(conn, project, person, most).await?))
            }
            _ => None,
        };
        Ok(stricter(of_all, stricter(of_project, of_person)))
    }

    /// Whether the project may have one more key, and the person. The project's row must be held: then of many who ask at
    /// once, each sees what those before have made.
    ///
    /// # Errors
    /// The storage; `Ok(Err(…))` is the maximum that is reached.
    pub async fn admit(
        &self,
        tx: &mut Tx,
        project: ProjectId,
        person: Option<UserId>,
    ) -> Result<Result<(), u32>, DbError> {
        if let Some(ceiling) = self.ceiling
            && quota::store::count(tx.conn(), project).await? >= ceiling
        {
            return Ok(Err(ceiling));
        }
        if let Some(most) = self.most
            && quota::store::count_unrevoked(tx.conn(), project, most).await? >= most
        {
            return Ok(Err(most));
        }
        self.admit_person(tx, project, person).await
    }

    /// Whether the person may answer for one more key of the project. See [`admit`](Self::admit).
    ///
    /// # Errors
    /// The storage; `Ok(Err(…))` is the maximum that is reached.
    pub async fn admit_person(
        &self,
        tx: &mut Tx,
        project: ProjectId,
        person: Option<UserId>,
    ) -> Result<Result<(), u32>, DbError> {
        match (self.most_per_person, person) {
            (Some(most), Some(person))
                if quota::store::count_unrevoked_of(tx.conn(), project, person, most).await? >= most =>
            {
                Ok(Err(most))
            }
            _ => Ok(Ok(())),
        }
    }
}

fn stricter<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn terms(usual: u32, longest: u32) -> Terms {
        let days = |n: u32| (n > 0).then(|| DAY * n);
        Terms { usual: days(usual), longest: days(longest), ..Terms::default() }
    }

    #[test]
    fn maxima_are_the_stricter_ones() {
        assert_eq!(stricter::<u32>(None, None), None);
        assert_eq!((stricter(Some(3), None), stricter(None, Some(3))), (Some(3), Some(3)));
        assert_eq!((stricter(Some(3), Some(2)), stricter(Some(2), Some(3))), (Some(2), Some(2)));
    }

    #[test]
    fn ends_keep_to_the_terms() {
        let now = Timestamp::EPOCH;
        let after = |days: u32| Some(now.saturating_add(DAY * days));
        for (terms, usual) in [
            (terms(0, 0), None),
            (terms(5, 0), after(5)),
            (terms(0, 7), after(7)),
            (terms(5, 7), after(5)),
            (terms(9, 7), after(7)),
        ] {
            assert_eq!(terms.usual_end(now), usual, "{terms:?}");
        }
        let longest = terms(0, 7);
        assert_eq!(longest.allow_end(after(7), now), Ok(()));
        assert_eq!(longest.allow_end(after(8), now), Err(TooLong));
        assert_eq!(longest.allow_end(None, now), Err(TooLong));
        assert_eq!(terms(5, 0).allow_end(None, now), Ok(()));
        assert_eq!(longest.for_operator().allow_end(None, now), Ok(()));
        assert_eq!(terms(9, 7).for_operator().usual_end(now), after(9));
    }
}
