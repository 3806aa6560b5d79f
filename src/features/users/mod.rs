//! People: registering them, their passwords, what they may see of themselves, and what administrators do with them.

pub mod admin;
pub mod http;
pub mod manage;
pub mod password;
pub mod register;
pub mod rules;
pub mod store;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::UserId;

/// A person, as others may see them.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct User {
    /// Names them for good.
    pub id: UserId,
    /// As they chose it; unique without regard to case.
    #[schema(example = "ada")]
    pub username: String,
    /// When they registered.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub created_at: Timestamp,
}

/// Whether somebody may log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = UserStatus)]
pub enum Status {
    /// They may.
    Active,
    /// They may not, until they are enabled.
    Disabled,
}

/// A person, as administrators see them.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "id": "usr_01K5ZV8QXW3M7C2R9T4B6D8F0G", "username": "ada", "is_admin": false, "status": "active",
    "disabled_at": null, "created_at": "2026-11-20T12:00:00Z"
}))]
pub struct Account {
    /// Names them for good.
    pub id: UserId,
    /// As they chose it; unique without regard to case.
    pub username: String,
    /// Whether they may act in every project.
    pub is_admin: bool,
    /// Whether they may log in.
    pub status: Status,
    /// Since when they may not log in.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub disabled_at: Option<Timestamp>,
    /// When they were made.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub created_at: Timestamp,
}

impl From<store::ListedUser> for Account {
    fn from(user: store::ListedUser) -> Self {
        Self {
            id: user.id,
            username: user.username,
            is_admin: user.is_admin,
            status: if user.disabled_at.is_some() { Status::Disabled } else { Status::Active },
            disabled_at: user.disabled_at,
            created_at: user.created_at,
        }
    }
}
