//! Who calls, and what they may do.
//!
//! `permission` names what can be allowed; `authenticate` finds out who calls; `extract` are the extractors that a handler
//! must name to get at a project or a key, so that one that forgets to ask for permission doesn't compile.

mod again;
pub mod authenticate;
mod extract;
pub mod http;
mod lasting;
pub mod layers;
pub mod permission;

pub(crate) use extract::forbidden;
pub use extract::{
    Anybody, Anywhere, AtHome, InAnyProject, InProject, Instance, KeyCaller, OnKey, OnKeyOfThen, PersonCaller,
};
pub use lasting::{Lasting, LastingInAnyProject};
pub use permission::{Permission, Role};

use std::sync::Arc;

use crate::base::id::{ProjectId, UserId};
use crate::ctx::Ctx;
use crate::gate::Entry;
use crate::gate::people::LoggedIn;
use crate::infra::db::{Conn, DbError, Tx};
use crate::web::request::{CallerId, RequestContext};

use super::audit::{Actor, By};
use super::scopes::{Scope, Scopes};
use super::{members, users};

/// Whoever proved who they are.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A person, by a session.
    Person(Person),
    /// A machine, by an API key.
    Machine(Machine),
}

/// A person who is logged in.
#[derive(Clone, Debug)]
pub struct Person {
    /// Who, as read a moment ago: good for what they are called and where to look, not for what they may change.
    pub logged_in: Arc<LoggedIn>,
    /// The hash of the token that they showed.
    pub token_hash: Vec<u8>,
}

impl std::ops::Deref for Person {
    type Target = LoggedIn;

    fn deref(&self) -> &LoggedIn {
        &self.logged_in
    }
}

/// A key that acts.
#[derive(Clone, Debug)]
pub struct Machine(pub Arc<Entry>);

impl std::ops::Deref for Machine {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.0
    }
}

/// What a permission amounts to in one project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Go on.
    Granted,
    /// The caller may know of the project, but not do this.
    Forbidden,
    /// To this caller the project isn't there.
    Hidden,
}

/// The projects in which a caller holds a permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// None.
    Nowhere,
    /// Every one.
    Everywhere,
    /// This one.
    Project(ProjectId),
    /// These.
    Projects(Vec<ProjectId>),
}

impl Reach {
    /// Whether it is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Nowhere => true,
            Self::Projects(projects) => projects.is_empty(),
            Self::Everywhere | Self::Project(_) => false,
        }
    }

    /// Whether all of these are among others.
    #[must_use]
    pub fn is_within(&self, others: &Self) -> bool {
        match self {
            Self::Nowhere => true,
            Self::Everywhere => *others == Self::Everywhere,
            Self::Project(project) => others.contains(*project),
            Self::Projects(projects) => projects.iter().all(|project| others.contains(*project)),
        }
    }

    /// Whether a project is among them.
    #[must_use]
    pub fn contains(&self, project: ProjectId) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Everywhere => true,
            Self::Project(own) => *own == project,
            Self::Projects(projects) => projects.contains(&project),
        }
    }
}

impl Caller {
    /// For the audit trail.
    #[must_use]
    pub fn by(&self, origin: &RequestContext) -> By {
        let actor = match self {
            Self::Person(person) => Actor::User(person.user, person.username.clone()),
            Self::Machine(machine) => Actor::Key(machine.key(), machine.name()),
        };
        By::new(actor, origin.clone())
    }

    /// Who, for the log.
    #[must_use]
    pub fn name(&self) -> CallerId {
        match self {
            Self::Person(person) => CallerId::User(person.user),
            Self::Machine(machine) => CallerId::Key(machine.key()),
        }
    }

    /// The id of the person or the key.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Person(person) => person.user.to_string(),
            Self::Machine(machine) => machine.key().to_string(),
        }
    }

    /// The person who calls, or who answers for the key that does.
    #[must_use]
    pub fn responsible(&self) -> Option<UserId> {
        match self {
            Self::Person(person) => Some(person.user),
            Self::Machine(machine) => machine.user(),
        }
    }

    /// What `scope` amounts to in `project`. A deleted one isn't there.
    ///
    /// # Errors
    /// The storage.
    pub async fn access(&self, ctx: &Ctx, scope: &str, project: ProjectId) -> Result<Access, DbError> {
        self.judged(ctx, scope, project, false).await
    }

    /// The same, with deleted projects.
    ///
    /// # Errors
    /// The storage.
    pub async fn access_to_deleted(&self, ctx: &Ctx, scope: &str, project: ProjectId) -> Result<Access, DbError> {
        self.judged(ctx, scope, project, true).await
    }

    async fn judged(&self, ctx: &Ctx, scope: &str, project: ProjectId, deleted: bool) -> Result<Access, DbError> {
        let granted = |yes: bool| {
            if yes { Access::Granted } else { Access::Forbidden }
        };
        let person = match self {
            // A key of a deleted project isn't let in at all.
            Self::Machine(machine) if machine.project() == project => return Ok(granted(machine.covers(scope))),
            Self::Machine(machine) if !machine.is_system() => return Ok(Access::Hidden),
            Self::Machine(_) => None,
            Self::Person(person) => Some(person),
        };
        let user = person.map_or(UserId::from_bits(0), |person| person.user);
        let standing = members::store::standing(ctx.db.reader().await?.conn(), project, user).await?;
        let Some(standing) = standing.filter(|standing| deleted || !standing.is_deleted) else {
            return Ok(Access::Hidden);
        };
        Ok(match (self, standing.role) {
            (Self::Machine(machine), _) => granted(machine.covers(scope)),
            // As it is now, not as it was when the session was read.
            (Self::Person(_), _) if standing.is_admin => Access::Granted,
            (Self::Person(_), Some(role)) => granted(role.grants(scope)),
            (Self::Person(_), None) => Access::Hidden,
        })
    }

    /// Whether the caller holds `scope` in every project and for the service itself.
    #[must_use]
    pub fn holds_everywhere(&self, scope: &str) -> bool {
        matches!(self.reach(scope), Reach::Everywhere)
    }

    /// Where `scope` is held at all.
    #[must_use]
    pub fn reach(&self, scope: &str) -> Reach {
        match self {
            Self::Machine(machine) => match machine.covers(scope) {
                false => Reach::Nowhere,
                true if machine.is_system() => Reach::Everywhere,
                true => Reach::Project(machine.project()),
            },
            Self::Person(person) if person.is_admin => Reach::Everywhere,
            Self::Person(person) => {
                let grants = |role: &str| Role::from_word(role).is_some_and(|role| role.grants(scope));
                Reach::Projects(
                    person.roles.iter().filter(|(_, role)| grants(role)).map(|(project, _)| *project).collect(),
                )
            }
        }
    }

    /// What the caller may give in a project.
    ///
    /// # Errors
    /// The storage.
    pub async fn grants(&self, ctx: &Ctx, project: ProjectId) -> Result<Grants, DbError> {
        self.grants_on(ctx.db.reader().await?.conn(), project).await
    }

    /// The same, as a transaction sees it that holds the project.
    ///
    /// # Errors
    /// The storage.
    pub async fn grants_on(&self, conn: Conn<'_>, project: ProjectId) -> Result<Grants, DbError> {
        match self {
            Self::Machine(machine) => Ok(Grants::Held(machine.scopes())),
            Self::Person(person) => Grants::of(conn, project, person.user).await,
        }
    }
}

/// What somebody may give to a key: nobody grants what they don't hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grants {
    /// An administrator, or the operator.
    Everything,
    /// A key: what it was given.
    Held(Scopes),
    /// A person: of Keyward's own scopes those of their role, or all as an administrator; the rest is the project's own
    /// catalogue, for which its members stand.
    Person {
        /// Who.
        user: UserId,
        /// Their role in the project.
        role: Option<Role>,
        /// Whether they may act in every project.
        is_admin: bool,
    },
}

impl Grants {
    async fn of(conn: Conn<'_>, project: ProjectId, user: UserId) -> Result<Self, DbError> {
        let standing = members::store::standing(conn, project, user).await?;
        let standing = standing.filter(|standing| !standing.is_deleted);
        Ok(Self::Person {
            user,
            role: standing.and_then(|standing| standing.role),
            is_admin: standing.is_some_and(|standing| standing.is_admin),
        })
    }

    /// The same as they stand until the transaction ends: what somebody lost since they asked is gone, and nobody takes more
    /// from them meanwhile.
    ///
    /// # Errors
    /// The storage.
    pub async fn fresh(&self, tx: &mut Tx, project: ProjectId) -> Result<Self, DbError> {
        match self {
            Self::Person { user, .. } => {
                users::store::lock(tx, *user).await?;
                Self::of(tx.conn(), project, *user).await
            }
            other => Ok(other.clone()),
        }
    }

    /// Whether one of Keyward's own is held.
    #[must_use]
    pub fn hold(&self, scope: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Held(held) => held.cover(scope),
            Self::Person { role, is_admin, .. } => *is_admin || role.is_some_and(|role| role.grants(scope)),
        }
    }

    /// Whether this one may be given.
    #[must_use]
    pub fn allow(&self, scope: &Scope) -> bool {
        let is_theirs = match self {
            Self::Person { role, .. } => !scope.is_own() && role.is_some(),
            Self::Everything | Self::Held(_) => false,
        };
        is_theirs || self.hold(scope.as_str())
    }

    /// Whether this role may be given, and taken: every scope that it grants is held.
    #[must_use]
    pub fn allow_role(&self, role: Role) -> bool {
        role.scopes().iter().all(|scope| self.hold(scope))
    }
}

#[cfg(test)]
mod tests {
    use super::permission::ROLES;
    use super::*;

    fn person(role: Option<Role>) -> Grants {
        Grants::Person { user: UserId::from_bits(1), role, is_admin: false }
    }

    #[test]
    fn nobody_grants_what_they_do_not_hold() {
        let scope = |text: &str| text.parse::<Scope>().unwrap();
        let member = person(Some(Role::Member));
        assert!(member.allow(&scope("orders:*")) && member.allow(&scope("keyward:keys:read")));
        assert!(!member.allow(&scope("keyward:*")) && !member.allow(&scope("keyward:projects:delete")));
        assert!(person(Some(Role::Owner)).allow(&scope("keyward:*")));
        assert!(!person(None).allow(&scope("keyward:keys:read")) && !person(None).allow(&scope("orders:read")));
        let admin = Grants::Person { user: UserId::from_bits(1), role: None, is_admin: true };
        assert!(admin.allow(&scope("keyward:*")) && admin.allow(&scope("orders:*")) && admin.allow_role(Role::Owner));
        assert!(!person(Some(Role::Admin)).allow(&scope("keyward:*")));
        let key = Grants::Held(Scopes::new([scope("keyward:keys:create"), scope("orders:*")]));
        assert!(key.allow(&scope("orders:read")) && key.allow(&scope("keyward:keys:create")));
        assert!(!key.allow(&scope("users:read")) && !key.allow(&scope("keyward:keys:*")));
    }

    #[test]
    fn nobody_gives_a_role_that_grants_more_than_their_own() {
        for own in ROLES {
            for given in ROLES {
                let allowed = person(Some(own)).allow_role(given);
                let less_or_same = given.scopes().iter().all(|scope| own.grants(scope));
                assert_eq!(allowed, less_or_same, "{own:?} gives {given:?}");
            }
        }
        assert!(!person(Some(Role::Admin)).allow_role(Role::Owner));
        assert!(person(Some(Role::Admin)).allow_role(Role::Admin));
        assert!(!person(None).allow_role(Role::Viewer));
        let key = Grants::Held(Scopes::new(["keyward:members:*".parse().unwrap()]));
        assert!(!key.allow_role(Role::Viewer));
    }
}
