//! People: registering them, their passwords, and what they may see of themselves.

pub mod http;
pub mod manage;
pub mod password;
pub mod register;
pub mod rules;
pub mod store;

use serde::Serialize;

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
