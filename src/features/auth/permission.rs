//! What can be allowed: Keyward's own scopes, and the roles that grant sets of them to people.

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

        /// Every permission with what it allows.
        pub const ALL: &[(&str, &str)] = &[$(($scope, concat!($($doc),*))),*];
    };
}

permissions! {
    /// See keys and their settings, never their secrets.
    KeysRead = "keyward:keys:read";
    /// Make keys.
    KeysCreate = "keyward:keys:create";
    /// Change a key's name, scopes, metadata, owner and expiry; disable and enable it.
    KeysUpdate = "keyward:keys:update";
    /// Revoke keys.
    KeysRevoke = "keyward:keys:revoke";
    /// Remove keys for good.
    KeysDelete = "keyward:keys:delete";
    /// Ask whether a key is good, and what it may do.
    KeysVerify = "keyward:keys:verify";
    /// See a project's settings.
    ProjectsRead = "keyward:projects:read";
    /// Change a project's settings.
    ProjectsUpdate = "keyward:projects:update";
}

/// A person's part in a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything, the project's end included.
    Owner,
    /// Everything.
    Admin,
    /// Works with keys.
    Member,
    /// Looks.
    Viewer,
}

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
        [Self::Owner, Self::Admin, Self::Member, Self::Viewer].into_iter().find(|role| role.word() == word)
    }

    /// The scopes that the role grants.
    #[must_use]
    pub fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::Owner | Self::Admin => &["keyward:*"],
            Self::Member => &["keyward:keys:*"],
            Self::Viewer => &[KeysRead::SCOPE],
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
        for (scope, text) in ALL {
            assert!(scope.parse::<crate::features::scopes::Scope>().unwrap().is_own(), "{scope}");
            assert!(!text.trim().is_empty(), "{scope}");
        }
    }

    #[test]
    fn roles_grant_less_and_less() {
        let granted = |role: Role| ALL.iter().filter(|(scope, _)| role.grants(scope)).count();
        assert_eq!(granted(Role::Owner), ALL.len());
        assert!(granted(Role::Owner) >= granted(Role::Admin));
        assert!(granted(Role::Admin) >= granted(Role::Member) && granted(Role::Member) > granted(Role::Viewer));
        assert!(Role::Viewer.grants(KeysRead::SCOPE) && !Role::Viewer.grants(KeysVerify::SCOPE));
        assert!(!Role::Viewer.grants("keyward:keys:*"));
    }
}
