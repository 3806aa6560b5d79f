//! Scopes of keys and of questions; a project's own catalogue of them comes later.

pub use crate::base::scope::{MAX_LENGTH, MAX_SCOPES, NotAScope, OWN_PREFIX, Scope, Scopes, covers};
pub use crate::base::scope_query::ScopeQuery;
