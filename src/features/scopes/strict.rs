//! What keys may hold in a project that wants to know every scope: those of its catalogue, and wildcards over one of them.

use std::collections::{BTreeSet, HashSet};

use crate::base::id::ProjectId;
use crate::base::invalid::Invalid;
use crate::features::projects;
use crate::infra::db::Conn;

use super::{Scope, Scopes, ScopesError, store};

/// Whether a key of the project may be given these scopes, as far as the project's catalogue is concerned. Keyward's own are
/// no catalogue's; who may give them is for others to say.
///
/// # Errors
/// [`ScopesError::Unknown`], or the storage.
pub async fn admit(conn: Conn<'_>, project: ProjectId, wanted: &Scopes) -> Result<(), ScopesError> {
    admit_added(conn, project, wanted, &Scopes::default()).await
}

/// The same for a key that holds some scopes already, which it may keep whatever has become of the catalogue.
///
/// # Errors
/// [`ScopesError::Unknown`], or the storage.
pub async fn admit_added(
    mut conn: Conn<'_>,
    project: ProjectId,
    wanted: &Scopes,
    held: &Scopes,
) -> Result<(), ScopesError> {
    let is_new = |scope: &Scope| !scope.is_own() && !held.iter().any(|own| own == scope);
    let added: Vec<(usize, &Scope)> = wanted.iter().enumerate().filter(|(_, scope)| is_new(scope)).collect();
    if added.is_empty() || !is_strict(conn.lend(), project).await? {
        return Ok(());
    }
    let names: Vec<&str> = added.iter().map(|(_, scope)| scope.as_str()).collect();
    let known = store::among(conn.lend(), project, &names).await?;
    let known: HashSet<&str> = known.iter().map(|scope| scope.name.as_str()).collect();
    let mut unknown = Vec::new();
    for (place, scope) in added {
        let is_known = known.contains(scope.as_str())
            || (scope.as_str().ends_with('*') && store::covers_any(conn.lend(), project, scope).await?);
        if !is_known {
            unknown.push(format!("scopes[{place}]"));
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let message = format!("not in the project's catalogue, nor a wildcard over what is: {}", unknown.join(", "));
    Err(ScopesError::Unknown(Invalid::field("scopes", "unknown_scope", message)))
}

/// Which of these the project doesn't want its keys to hold; none where it doesn't mind.
///
/// # Errors
/// The storage.
pub async fn unknown(
    mut conn: Conn<'_>,
    project: ProjectId,
    wanted: &BTreeSet<&Scope>,
) -> Result<HashSet<Scope>, ScopesError> {
    let mut unknown = HashSet::new();
    if wanted.iter().all(|scope| scope.is_own()) || !is_strict(conn.lend(), project).await? {
        return Ok(unknown);
    }
    for scope in wanted.iter().filter(|scope| !scope.is_own()) {
        let wildcard = scope.as_str().ends_with('*');
        let is_known = store::find(conn.lend(), project, scope).await?.is_some()
            || (wildcard && store::covers_any(conn.lend(), project, scope).await?);
        if !is_known {
            unknown.insert((*scope).clone());
        }
    }
    Ok(unknown)
}

async fn is_strict(conn: Conn<'_>, project: ProjectId) -> Result<bool, ScopesError> {
    let set = projects::store::settings(conn, project).await?;
    Ok(set.is_some_and(|(_, policy)| policy.strict_scopes == Some(true)))
}
