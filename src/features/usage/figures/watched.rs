//! Figures of many scopes at once, for whoever watches them all the time: no pages, no series.

use std::collections::HashMap;

use crate::base::id::{KeyId, ProjectId};
use crate::features::usage::rules::Scope;
use crate::gate::Counts;
use crate::infra::db::{Conn, DbError};

use super::{Span, store};

/// Scopes whose histograms are in memory at once.
const TIMED: usize = 50;

/// The counts of each scope, by its text; without durations. A scope without requests is left out.
///
/// # Errors
/// The storage.
pub async fn sums(mut conn: Conn<'_>, scopes: &[Scope], span: &Span) -> Result<HashMap<String, Counts>, DbError> {
    let mut found: HashMap<String, Counts> = HashMap::new();
    for part in span.parts() {
        store::sums(conn.lend(), scopes, part, |scope, counts| found.entry(scope).or_default().merge(&counts)).await?;
    }
    Ok(found)
}

/// A share of each scope's durations took no longer than this, in milliseconds. A scope of which no duration is known is left
/// out.
///
/// # Errors
/// The storage.
pub async fn quantiles(
    mut conn: Conn<'_>,
    scopes: &[Scope],
    span: &Span,
    share: f64,
) -> Result<HashMap<String, f64>, DbError> {
    let mut found = HashMap::new();
    for scopes in scopes.chunks(TIMED) {
        let mut merged: HashMap<String, Counts> = HashMap::new();
        for part in span.parts() {
            store::totals(conn.lend(), scopes, part, |scope, _, counts| {
                merged.entry(scope.to_owned()).or_default().merge(counts);
            })
            .await?;
        }
        let millis = |micros: f64| micros.round() / 1000.0;
        let known =
            merged.into_iter().filter_map(|(scope, counts)| Some((scope, millis(counts.latency.quantile(share)?))));
        found.extend(known);
    }
    Ok(found)
}

/// Requests that were refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the gate said; empty where it wasn't asked.
    pub code: String,
    /// What was answered; 0 for a verification.
    pub status: u16,
    /// How many.
    pub count: u64,
}

/// What was refused to each scope, by its text: everything with a code that isn't `VALID`, or a status of 401 or 429.
///
/// # Errors
/// The storage.
pub async fn refused(
    mut conn: Conn<'_>,
    scopes: &[Scope],
    span: &Span,
) -> Result<HashMap<String, Vec<Refused>>, DbError> {
    let mut found: HashMap<String, Vec<Refused>> = HashMap::new();
    for part in span.parts() {
        store::refused(conn.lend(), scopes, part, |scope, code, status, count| {
            found.entry(scope).or_default().push(Refused { code, status, count });
        })
        .await?;
    }
    Ok(found)
}

/// The keys of a project with the most requests.
///
/// # Errors
/// The storage.
pub async fn busiest(conn: Conn<'_>, project: ProjectId, span: &Span, most: usize) -> Result<Vec<KeyId>, DbError> {
    let ranked = store::keys(conn, &[Scope::Project(project)], &span.parts(), None, most).await?;
    Ok(ranked.into_iter().filter_map(|(name, _)| name.parse().ok()).collect())
}
