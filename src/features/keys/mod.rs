//! API keys: making, finding, changing, revoking and verifying them.

pub mod as_of;
pub mod change;
pub mod create;
pub mod demotion;
pub mod departure;
pub mod expiry;
pub mod format;
pub mod giver;
pub mod http;
pub mod inherit;
pub mod list;
pub mod moving;
pub mod quota;
pub mod removal;
pub mod rotate;
pub mod rules;
pub mod secrets;
pub mod store;
pub mod terms;
pub mod transfer;
pub mod verify;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, UserId};

use crate::gate::restrict::{Methods, Networks, Paths, Schedule};
use crate::gate::{Limits, Settings};

use super::scopes::Scopes;

pub use rules::KeyState;

/// Whatever the owner wants to keep with a key.
pub type Metadata = BTreeMap<String, Value>;

/// A key as it is stored. Its secrets are elsewhere: it may have several.
#[derive(Clone, Debug)]
pub struct Key {
    /// Names it for good.
    pub id: KeyId,
    /// Whose.
    pub project_id: ProjectId,
    /// The person who answers for it.
    pub user_id: Option<UserId>,
    /// Who made it: a person, a key, or `system`.
    pub created_by: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Whom the key was made for, in the project's own words.
    pub owner: Option<String>,
    /// What it may do.
    pub scopes: Scopes,
    /// Whatever the owner wants to keep with it.
    pub metadata: Metadata,
    /// Since when it is refused until it is enabled.
    pub disabled_at: Option<Timestamp>,
    /// Since when it is refused for good.
    pub revoked_at: Option<Timestamp>,
    /// Why.
    pub revoked_reason: Option<String>,
    /// Why, in somebody's words.
    pub revoked_note: Option<String>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// When it was first used; `None` also where that was before anybody noted it.
    pub first_used_at: Option<Timestamp>,
    /// When it was last used, at most a second behind.
    pub last_used_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// What its present secret begins with.
    pub prefix: String,
    /// The first four characters after the prefix.
    pub first_four: String,
    /// The last four characters.
    pub last_four: String,
    /// Its limits and restrictions.
    pub settings: Settings,
}

#[cfg(test)]
impl Key {
    /// One that nothing restricts.
    pub(crate) fn example() -> Self {
        Self {
            id: KeyId::from_bits(1),
            project_id: ProjectId::from_bits(1),
            user_id: None,
            created_by: "system".to_owned(),
            name: "k".to_owned(),
            description: None,
            owner: None,
            scopes: Scopes::default(),
            metadata: Metadata::new(),
            disabled_at: None,
            revoked_at: None,
            revoked_reason: None,
            revoked_note: None,
            expires_at: None,
            first_used_at: None,
            last_used_at: None,
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
            prefix: "sk".to_owned(),
            first_four: String::new(),
            last_four: String::new(),
            settings: Settings::default(),
        }
    }
}

/// A key, as its project sees it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Key, example = json!({
    "id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G", "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "billing worker",
    "description": null, "prefix": "sk", "display": "sk_AAEC…_cIg", "status": "active", "scopes": ["orders:read"],
    "metadata": {"team": "billing"}, "owner": "customer-42", "created_by": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "user_id": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G",
    "created_at": "2026-11-20T12:00:00Z", "updated_at": "2026-11-20T12:00:00Z", "expires_at": "2026-12-20T12:00:00Z",
    "first_used_at": null, "last_used_at": null, "disabled_at": null, "revoked_at": null, "revoked_reason": null, "revoked_note": null,
    "limits": [{"name": "minute", "limit": 60, "window": "1m"}], "concurrency": null, "ip_allow": ["192.0.2.0/24"],
    "schedule": null, "method_allow": null, "path_allow": null
}))]
pub struct KeyView {
    /// Names it for good.
    pub id: KeyId,
    /// Whose.
    pub project_id: ProjectId,
    /// For people.
    #[schema(example = "billing worker")]
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// What the key begins with.
    #[schema(example = "sk")]
    pub prefix: String,
    /// What may be shown of the key: its prefix, its first four and its last four characters.
    #[schema(example = "sk_Ab3x…9Zq0")]
    pub display: String,
    /// What `verify` would say of it now.
    pub status: KeyState,
    /// What it may do.
    pub scopes: Scopes,
    /// Whatever the owner wants to keep with it.
    #[schema(value_type = Object)]
    pub metadata: Metadata,
    /// Whom the key was made for, in the project's own words.
    pub owner: Option<String>,
    /// Who made it: a person, a key, or `system`.
    #[schema(example = "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    pub created_by: String,
    /// The person who answers for it; nobody, where the operator made it, or the person is gone.
    pub user_id: Option<UserId>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub updated_at: Timestamp,
    /// From when on it is refused.
    #[schema(value_type = Option<String>, format = DateTime, example = "2027-11-20T12:00:00Z")]
    pub expires_at: Option<Timestamp>,
    /// When it was first used; `null` also where that was before this was noted.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub first_used_at: Option<Timestamp>,
    /// When it was last used, at most a second behind.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// Since when it is refused until it is enabled.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub disabled_at: Option<Timestamp>,
    /// Since when it is refused for good.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
    /// Why.
    pub revoked_reason: Option<String>,
    /// Why, in somebody's words.
    pub revoked_note: Option<String>,
    /// Its own limits.
    pub limits: Option<Limits>,
    /// Its own cap on simultaneous operations; 0 is off.
    pub concurrency: Option<u32>,
    /// From where it may be used.
    pub ip_allow: Option<Networks>,
    /// When it may be used.
    pub schedule: Option<Schedule>,
    /// For which methods it may be used.
    pub method_allow: Option<Methods>,
    /// For which paths it may be used.
    pub path_allow: Option<Paths>,
}

/// What may be shown of a key. Of one that was issued elsewhere nothing may be known.
fn display(key: &Key) -> String {
    let joint = if key.prefix.is_empty() || key.prefix.ends_with('_') { "" } else { "_" };
    format!("{}{joint}{}…{}", key.prefix, key.first_four, key.last_four)
}

impl KeyView {
    /// The key as it is at `now` to somebody who shows one of its secrets, which is good: a superseded one inside its overlap
    /// or the present one.
    #[must_use]
    pub fn shown(key: Key, superseded: bool, now: Timestamp) -> Self {
        let view = Self::at(key, now);
        match view.status {
            KeyState::Active if superseded => Self { status: KeyState::Rotating, ..view },
            _ => view,
        }
    }

    /// The key as it is at `now`.
    #[must_use]
    pub fn at(key: Key, now: Timestamp) -> Self {
        Self {
            status: rules::state(&key, None, now),
            display: display(&key),
            id: key.id,
            project_id: key.project_id,
            name: key.name,
            description: key.description,
            prefix: key.prefix,
            scopes: key.scopes,
            metadata: key.metadata,
            owner: key.owner,
            created_by: key.created_by,
            user_id: key.user_id,
            created_at: key.created_at,
            updated_at: key.updated_at,
            expires_at: key.expires_at,
            first_used_at: key.first_used_at,
            last_used_at: key.last_used_at,
            disabled_at: key.disabled_at,
            revoked_at: key.revoked_at,
            revoked_reason: key.revoked_reason,
            revoked_note: key.revoked_note,
            limits: key.settings.limits,
            concurrency: key.settings.concurrency,
            ip_allow: key.settings.ip_allow,
            schedule: key.settings.schedule,
            method_allow: key.settings.method_allow,
            path_allow: key.settings.path_allow,
        }
    }
}
