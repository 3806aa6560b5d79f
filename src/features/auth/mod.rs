//! Who calls, and what they may do.
//!
//! `permission` names what can be allowed; `authenticate` finds out who calls; `extract` are the extractors that a handler
//! must name to get at a project or a key, so that one that forgets to ask for permission doesn't compile.

pub mod authenticate;
mod extract;
pub mod layers;
pub mod permission;

pub(crate) use extract::forbidden;
pub use extract::{Anywhere, AtHome, InProject, KeyCaller, OnKey, PersonCaller};
pub use permission::{Permission, Role};

use std::sync::Arc;

use crate::base::id::{ProjectId, UserId};
use crate::ctx::Ctx;
use crate::gate::Entry;
use crate::gate::people::LoggedIn;
use crate::infra::db::DbError;
use crate::web::request::{CallerId, RequestContext};

use super::audit::{Actor, By};
use super::projects;
use super::scopes::Scope;
use super::scopes::Scopes;

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
        By { actor, origin: origin.clone() }
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

    /// What `scope` amounts to in `project`.
    ///
    /// # Errors
    /// The storage.
    pub async fn access(&self, ctx: &Ctx, scope: &str, project: ProjectId) -> Result<Access, DbError> {
        let granted = |yes: bool| {
            if yes { Access::Granted } else { Access::Forbidden }
        };
        match self {
            Self::Machine(machine) => {
                let visible = machine.project() == project
                    || (machine.is_system() && projects::store::exists(ctx.db.reader().await?.conn(), project).await?);
                Ok(if visible { granted(machine.covers(scope)) } else { Access::Hidden })
            }
            Self::Person(person) => {
                let role = projects::store::role(ctx.db.reader().await?.conn(), project, person.user).await?;
                Ok(match role {
                    Some(_) if person.is_admin => Access::Granted,
                    None | Some(None) => Access::Hidden,
                    Some(Some(role)) => granted(role.grants(scope)),
                })
            }
        }
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

    /// What the caller may give to keys of a project.
    ///
    /// # Errors
    /// The storage.
    pub async fn grants(&self, ctx: &Ctx, project: ProjectId) -> Result<Grants, DbError> {
        match self {
            Self::Machine(machine) => Ok(Grants::Held(machine.scopes())),
            Self::Person(person) if person.is_admin => Ok(Grants::Everything),
            Self::Person(person) => {
                let role = projects::store::role(ctx.db.reader().await?.conn(), project, person.user).await?.flatten();
                Ok(Grants::Role(role))
            }
        }
    }
}

/// What somebody may give to a key: nobody grants what they don't hold.
#[derive(Clone, Debug)]
pub enum Grants {
    /// An administrator, or the operator.
    Everything,
    /// A key: what it was given.
    Held(Scopes),
    /// A person: of Keyward's own scopes those of their role; the rest is the project's own catalogue, for which they
    /// stand.
    Role(Option<Role>),
}

impl Grants {
    /// Whether this one may be given.
    #[must_use]
    pub fn allow(&self, scope: &Scope) -> bool {
        match self {
            Self::Everything => true,
            Self::Held(held) => held.cover(scope.as_str()),
            Self::Role(role) => !scope.is_own() || role.is_some_and(|role| role.grants(scope.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_grants_what_they_do_not_hold() {
        let scope = |text: &str| text.parse::<Scope>().unwrap();
        let member = Grants::Role(Some(Role::Member));
        assert!(member.allow(&scope("orders:*")) && member.allow(&scope("keyward:keys:read")));
        assert!(!member.allow(&scope("keyward:*")) && !member.allow(&scope("keyward:projects:delete")));
        assert!(Grants::Role(Some(Role::Owner)).allow(&scope("keyward:*")));
        assert!(!Grants::Role(None).allow(&scope("keyward:keys:read")));
        let key = Grants::Held(Scopes::new([scope("keyward:keys:create"), scope("orders:*")]));
        assert!(key.allow(&scope("orders:read")) && key.allow(&scope("keyward:keys:create")));
        assert!(!key.allow(&scope("users:read")) && !key.allow(&scope("keyward:keys:*")));
    }
}
