//! Scopes: of keys, of questions, and a project's own catalogue of what its keys may do. The words themselves are in `base`.
//!
//! The project's row is held while its catalogue changes. What the catalogue has switched off is also written on the
//! project, which verification reads with each key; only where that differs are the project's keys read anew.

pub mod bulk;
pub mod described;
pub mod export;
pub mod http;
pub mod import;
pub mod manage;
pub mod openapi;
pub mod rules;
pub mod store;
mod strict;

use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::id::{ProjectId, ScopeId};
use crate::base::invalid::Invalid;
use crate::infra::db::DbError;

use super::idempotency::Claimed;

pub use crate::base::scope::{MAX_LENGTH, MAX_SCOPES, NotAScope, OWN_PREFIX, Scope, Scopes, covers};
pub use crate::base::scope_query::ScopeQuery;
pub use strict::{admit, admit_added, unknown};

/// A scope of a project's catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "id": "scp_01K5ZV8QXW3M7C2R9T4B6D8F0G", "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "name": "orders:read",
    "description": "See orders", "category": "orders", "is_active": true, "created_at": "2026-11-20T12:00:00Z",
    "updated_at": "2026-11-20T12:00:00Z"
}))]
pub struct CatalogueScope {
    /// Names it in the audit trail; in paths it is named by its name.
    pub id: ScopeId,
    /// Whose.
    pub project_id: ProjectId,
    /// What keys hold. It never changes.
    pub name: Scope,
    /// What it allows, for people.
    pub description: String,
    /// What it belongs to, in the project's own words.
    pub category: Option<String>,
    /// Whether it grants anything.
    pub is_active: bool,
    /// When it was added.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime, example = "2026-11-20T12:00:00Z")]
    pub updated_at: Timestamp,
}

/// Why nothing changed, or why a key can't hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum ScopesError {
    /// There is no such project.
    #[error("there is no such project")]
    NoProject,
    /// There is no such scope in its catalogue.
    #[error("there is no such scope in the catalogue")]
    NotFound,
    /// The catalogue holds the name already.
    #[error("the catalogue holds a scope of this name already")]
    Exists,
    /// The wishes break rules.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The project wants keys to hold scopes of its catalogue alone, and these aren't.
    #[error(transparent)]
    Unknown(Invalid),
    /// To be removed is a scope that is switched off; keys could use it again, which the caller may not bring about.
    #[error("removing a scope that is switched off lets keys use it again, which the caller may not")]
    NotHeld,
    /// The catalogue is full.
    #[error("a catalogue holds at most {} scopes", rules::MAX_CATALOGUE)]
    TooMany,
    /// Too many would be switched off.
    #[error("at most {} scopes of a catalogue may be inactive", rules::MAX_INACTIVE)]
    TooManyInactive,
    /// Entries of an import break rules, and it wasn't to be a part of them.
    #[error("{}", .0.refusal())]
    Refused(Box<import::Imported>),
    /// The `Idempotency-Key` was used for another request.
    #[error(transparent)]
    Claimed(#[from] Claimed),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] DbError),
}
