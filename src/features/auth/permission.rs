//! What can be allowed: Keyward's own scopes, and the roles that grant sets of them to people.

use serde::{Deserialize, Serialize};

/// One of Keyward's own scopes, as a type that an extractor can name.
pub trait Permission: Send + Sync + 'static {
    /// `keyward:<resource>:<action>`.
    const SCOPE: &'static str;
}

macro_rules! permissions {
    ($($(#[doc = $doc:literal])* $name:ident = $scope:literal;)*) => {
        $($(#[doc = $doc])* #[derive(Clone, Copy, Debug)] pub struct $name;

        impl Permission for $name {
            const SCOPE: &'static str = $scope;
        })*

        /// What can be allowed in a project, with what it allows.
        pub const IN_PROJECTS: &[(&str, &str)] = &[$(($scope, concat!($($doc),*))),*];
    };
}

macro_rules! instance_permissions {
    ($($(#[doc = $doc:literal])* $name:ident = $scope:literal;)*) => {
        $($(#[doc = $doc])* #[derive(Clone, Copy, Debug)] pub struct $name;

        impl Permission for $name {
            const SCOPE: &'static str = $scope;
        })*

        /// What concerns the whole service: administrators hold it, and keys of the system project that have the scope. In any
        /// other project it means nothing.
        pub const INSTANCE: &[(&str, &str)] = &[$(($scope, concat!($($doc),*))),*];
    };
}

/// Every permission with what it allows.
pub fn all() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    IN_PROJECTS.iter().chain(INSTANCE)
}

/// Whether a scope under `keyward:` means anything: a permission, or a wildcard over some. Others may come to mean
/// something later, and nobody should hold that by accident.
#[must_use]
pub fn is_known(scope: &str) -> bool {
    all().any(|(known, _)| crate::features::scopes::covers(scope, known))
}

permissions! {
    /// See keys and their settings, never their secrets.
    KeysRead = "keyward:keys:read";
    /// Make keys.
    KeysCreate = "keyward:keys:create";
    /// Change a key's name, scopes, metadata, owner, limits and expiry; disable and enable it.
    KeysUpdate = "keyward:keys:update";
    /// Revoke keys.
    KeysRevoke = "keyward:keys:revoke";
    /// Remove keys for good.
    KeysDelete = "keyward:keys:delete";
    /// Ask whether a key is good, and what it may do; take and give back leases.
    KeysVerify = "keyward:keys:verify";
    /// Give a key a new secret.
    KeysRotate = "keyward:keys:rotate";
    /// Make another member answer for a key.
    KeysTransfer = "keyward:keys:transfer";
    /// Take over keys that were issued elsewhere.
    KeysImport = "keyward:keys:import";
    /// Export keys with the hashes of their secrets.
    KeysExport = "keyward:keys:export";
    /// See a project and its settings.
    ProjectsRead = "keyward:projects:read";
    /// Change a project and its settings.
    ProjectsUpdate = "keyward:projects:update";
    /// Suspend a project, and resume it.
    ProjectsSuspend = "keyward:projects:suspend";
    /// Delete a project, and restore it.
    ProjectsDelete = "keyward:projects:delete";
    /// See who is a member.
    MembersRead = "keyward:members:read";
    /// Add members.
    MembersCreate = "keyward:members:create";
    /// Change members' roles.
    MembersUpdate = "keyward:members:update";
    /// Remove members.
    MembersDelete = "keyward:members:delete";
    /// See the catalogue of scopes.
    ScopesRead = "keyward:scopes:read";
    /// Add scopes to the catalogue.
    ScopesCreate = "keyward:scopes:create";
    /// Change scopes of the catalogue, and switch them off and on.
    ScopesUpdate = "keyward:scopes:update";
    /// Remove scopes from the catalogue.
    ScopesDelete = "keyward:scopes:delete";
    /// Import a catalogue, or make one from an OpenAPI document.
    ScopesImport = "keyward:scopes:import";
    /// Export the catalogue.
    ScopesExport = "keyward:scopes:export";
    /// See how much keys are used, and the request log.
    UsageRead = "keyward:usage:read";
    /// Report requests that services have judged by themselves.
    UsageRecord = "keyward:usage:record";
    /// Export the audit trail: the project's entries; administrators and keys of the system project all of it.
    AuditExport = "keyward:audit:export";
    /// Read the audit trail of a project.
    AuditRead = "keyward:audit:read";
    /// See alert rules, how they stand, and what became of them.
    AlertsRead = "keyward:alerts:read";
    /// Make alert rules.
    AlertsCreate = "keyward:alerts:create";
    /// Change alert rules, switch them off and on, and try them.
    AlertsUpdate = "keyward:alerts:update";
    /// Remove alert rules.
    AlertsDelete = "keyward:alerts:delete";
    /// Read events, and listen to them.
    EventsRead = "keyward:events:read";
    /// See webhooks, their URLs, and what was sent.
    WebhooksRead = "keyward:webhooks:read";
    /// Make webhooks.
    WebhooksCreate = "keyward:webhooks:create";
    /// Change webhooks and their secrets, switch them on and off; send tests, and deliveries once more.
    WebhooksUpdate = "keyward:webhooks:update";
    /// Delete webhooks.
    WebhooksDelete = "keyward:webhooks:delete";
    /// See which fields are sensitive, and try rules on a document. Those of the server: as an administrator.
    SensitiveFieldsRead = "keyward:sensitive-fields:read";
    /// Add, change and remove rules for sensitive fields. Those of the server: as an administrator.
    SensitiveFieldsUpdate = "keyward:sensitive-fields:update";
}

instance_permissions! {
    /// Make projects: a key of the system project. People may without it.
    ProjectsCreate = "keyward:projects:create";
    /// See everybody.
    UsersRead = "keyward:users:read";
    /// Make people.
    UsersCreate = "keyward:users:create";
    /// Disable and enable people, and make them administrators or not.
    UsersUpdate = "keyward:users:update";
    /// Remove people for good.
    UsersDelete = "keyward:users:delete";
    /// Give people a new password.
    UsersResetPassword = "keyward:users:reset-password";
    /// Verify the audit trail, and see its checkpoints.
    AuditVerify = "keyward:audit:verify";
    /// See how a running process of the service is set.
    SystemRead = "keyward:system:read";
    /// Change what a running process of the service logs.
    SystemUpdate = "keyward:system:update";
    /// See the services that are watched.
    ServicesRead = "keyward:services:read";
    /// Restart services that are watched.
    ServicesRestart = "keyward:services:restart";
}

/// A person's part in a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, the project's end included.
    Owner,
    /// Everything but the project's end; gives every role but owner.
    Admin,
    /// Works with keys.
    Member,
    /// Looks.
    Viewer,
}

/// Every role, from the most to the least that it grants.
pub const ROLES: [Role; 4] = [Role::Owner, Role::Admin, Role::Member, Role::Viewer];

impl Role {
    /// As stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
        }
    }

    /// `None` for a word that is no role.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        ROLES.into_iter().find(|role| role.word() == word)
    }

    /// The scopes that the role grants.
    #[must_use]
    pub fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::Owner => &["keyward:*"],
            Self::Admin => &[
                "keyward:keys:*",
                ProjectsRead::SCOPE,
                ProjectsUpdate::SCOPE,
                ProjectsSuspend::SCOPE,
                "keyward:members:*",
                "keyward:scopes:*",
                "keyward:usage:*",
                AuditExport::SCOPE,
                AuditRead::SCOPE,
                "keyward:alerts:*",
                EventsRead::SCOPE,
                "keyward:sensitive-fields:*",
                "keyward:webhooks:*",
            ],
            Self::Member => &[
                KeysRead::SCOPE,
                KeysCreate::SCOPE,
                KeysUpdate::SCOPE,
                KeysRevoke::SCOPE,
                KeysDelete::SCOPE,
                KeysVerify::SCOPE,
                KeysRotate::SCOPE,
                ProjectsRead::SCOPE,
                MembersRead::SCOPE,
                ScopesRead::SCOPE,
                UsageRead::SCOPE,
                UsageRecord::SCOPE,
                AlertsRead::SCOPE,
            ],
            Self::Viewer => &[
                KeysRead::SCOPE,
                ProjectsRead::SCOPE,
                MembersRead::SCOPE,
                ScopesRead::SCOPE,
                UsageRead::SCOPE,
                AlertsRead::SCOPE,
            ],
        }
    }

    /// Whether it grants this one.
    #[must_use]
    pub fn grants(self, scope: &str) -> bool {
        self.scopes().iter().any(|held| crate::features::scopes::covers(held, scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_valid_scopes_of_our_own() {
        assert!(all().count() >= 30);
        for (scope, text) in all() {
            assert!(scope.parse::<crate::features::scopes::Scope>().unwrap().is_own(), "{scope}");
            assert!(!text.trim().is_empty(), "{scope}");
        }
    }

    #[test]
    fn what_means_nothing_is_unknown() {
        for known in ["keyward:*", "keyward:keys:*", "keyward:keys:read", "keyward:users:*"] {
            assert!(is_known(known), "{known}");
        }
        for unknown in
            ["keyward:nonsense:x", "keyward:nonsense:*", "keyward:keys:reed", "keyward:keys:read:*", "keyward:keys"]
        {
            assert!(!is_known(unknown), "{unknown}");
        }
    }

    #[test]
    fn roles_grant_less_and_less() {
        let granted =
            |role: Role| all().filter(|(scope, _)| role.grants(scope)).map(|(scope, _)| *scope).collect::<Vec<_>>();
        for pair in ROLES.windows(2) {
            let (more, less) = (granted(pair[0]), granted(pair[1]));
            assert!(less.len() < more.len() && less.iter().all(|scope| more.contains(scope)), "{pair:?}");
        }
        assert!(!Role::Admin.grants("keyward:projects:delete") && !Role::Admin.grants("keyward:*"));
        assert!(Role::Viewer.grants(KeysRead::SCOPE) && !Role::Viewer.grants(KeysVerify::SCOPE));
        assert!(!Role::Viewer.grants("keyward:keys:*"));
    }
}
