//! Keys, concurrency and limits as `tower` layers: around Keyward's own routes, and around anybody else's.
//!
//! The order, from the outside in: [`Authenticate`] finds out which key calls, and whether it may be used from here, now and
//! for this; [`Concurrency`] takes one of its places; [`RateLimits`] spends from its windows and tells how they stand. It is
//! the order in which verification decides, by the same code.

mod authenticate;
mod concurrency;
mod rate_limits;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};

use crate::features::audit::witness::Witness;
use crate::gate::{Code, Entry, Rules, Standings};
use crate::web::problem::Problem;
use crate::web::request::RequestContext;

pub use authenticate::{Authenticate, AuthenticateService};
pub use concurrency::{Concurrency, ConcurrencyService};
pub use rate_limits::{RateLimits, RateLimitsService};

/// The key that calls: put into a request's extensions by [`Authenticate`].
#[derive(Clone, Debug)]
pub struct ApiKey(pub Arc<Entry>);

/// Why a key's request was refused further in: put into its answer's extensions, for whoever counts it.
#[derive(Clone, Debug)]
struct Refused {
    code: Code,
    /// How the key's windows stood, where they refused.
    windows: Option<(Standings, Arc<Rules>)>,
}

/// A key that is refused by its own limits may know of its project, and the project of the refusal.
fn about_its_project(request: &Request) {
    if let (Some(witness), Some(ApiKey(entry))) = (Witness::of(request.extensions()), request.extensions().get()) {
        witness.about(entry.project());
    }
}

/// A refusal for which the gate has a code.
fn refuse_as(refused: Refused, problem: Problem, origin: Option<&RequestContext>) -> Response {
    let mut response = refuse(problem, origin);
    response.extensions_mut().insert(refused);
    response
}

/// A refusal. Under Keyward's own stack the outermost layer renders it, and gives it the request's id; elsewhere it is
/// rendered here.
fn refuse(problem: Problem, origin: Option<&RequestContext>) -> Response {
    if origin.is_some() {
        return problem.into_response();
    }
    let body = problem.render("");
    let mut response = problem.into_response();
    response.extensions_mut().remove::<Problem>();
    *response.body_mut() = Body::from(body);
    response
}
