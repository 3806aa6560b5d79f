//! A catalogue from the description of an API: what the document gives is imported like any other list.

use crate::base::id::ProjectId;
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::infra::telemetry::current;

use super::ScopesError;
use super::import::{self, Candidate, Existing, Imported};
use super::openapi::{self, Derived, DocumentError, Options};
use super::rules::NewScope;

/// Why nothing was added.
#[derive(Debug, thiserror::Error)]
pub enum DescribedError {
    /// The document gives no scopes.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The catalogue takes none.
    #[error(transparent)]
    Scopes(#[from] ScopesError),
    /// A defect ended the reading.
    #[error("reading the document came to no end: {0}")]
    Gone(#[from] tokio::task::JoinError),
}

/// Reads a document, and adds the scopes that the catalogue doesn't hold; those that it holds stay as they are.
///
/// # Errors
/// See [`DescribedError`].
pub async fn bring(
    ctx: &Ctx,
    by: &By,
    project: ProjectId,
    document: Vec<u8>,
    options: Options,
    dry_run: bool,
) -> Result<(Imported, Derived), DescribedError> {
    // A large one takes a while, in which others mustn't wait.
    let derived =
        tokio::task::spawn_blocking(current::carried_to_thread(move || openapi::derive(&document, &options))).await??;
    let options = import::Options { dry_run, partial: false, existing: Existing::Keep, may_switch: false };
    let imported = import::import(ctx, by, project, candidates(&derived), options).await?;
    Ok((imported, derived))
}

fn candidates(derived: &Derived) -> Vec<Candidate> {
    let candidate = |scope: &openapi::DerivedScope| {
        let new = NewScope {
            name: scope.name.clone(),
            description: scope.description.clone(),
            category: scope.category.clone(),
            is_active: true,
        };
        Ok::<_, Invalid>(new.into())
    };
    derived.scopes.iter().map(candidate).collect()
}
