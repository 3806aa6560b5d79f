//! What is seen of a request on its way to its handler, for the entry that is written if it is refused.

use std::sync::{Arc, OnceLock};

use axum::http::Extensions;

use crate::base::id::ProjectId;

use super::Actor;

/// Travels in a request's extensions; whoever stands around the route keeps another of it.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    actor: OnceLock<Actor>,
    project: OnceLock<ProjectId>,
    hidden: OnceLock<()>,
}

impl Witness {
    /// Of a request, if anybody watches it.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// Who calls is known.
    pub fn called_by(&self, actor: impl FnOnce() -> Actor) {
        self.0.actor.get_or_init(actor);
    }

    /// The caller may know of this project, which the request is about.
    pub fn about(&self, project: ProjectId) {
        self.0.project.get_or_init(|| project);
    }

    /// What the request is about is hidden from its caller, or isn't there: nobody can tell.
    pub fn hid(&self) {
        self.0.hidden.get_or_init(|| ());
    }

    /// Whoever calls, if they proved who they are.
    #[must_use]
    pub fn actor(&self) -> Option<&Actor> {
        self.0.actor.get()
    }

    /// The project.
    #[must_use]
    pub fn project(&self) -> Option<ProjectId> {
        self.0.project.get().copied()
    }

    /// Whether something was hidden.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.0.hidden.get().is_some()
    }
}
