//! Which pages may call the service from a browser: those that the operator names, and those that projects name for
//! themselves. A page sends its token itself, and cookies are never used, so that an origin that one project names can do
//! nothing in another.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

/// See the module.
#[derive(Debug)]
pub struct Origins {
    configured: Vec<String>,
    of_projects: RwLock<HashSet<String>>,
}

impl Origins {
    /// With what the operator names; projects' are read later.
    #[must_use]
    pub fn new(configured: Vec<String>) -> Self {
        Self { configured, of_projects: RwLock::default() }
    }

    /// Whether answers depend on where a page is from, whatever is asked.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.configured.is_empty()
    }

    /// Whether pages of this origin may call.
    #[must_use]
    pub fn allow(&self, origin: &[u8]) -> bool {
        self.configured.iter().any(|known| known.as_bytes() == origin)
            || std::str::from_utf8(origin)
                .is_ok_and(|origin| self.of_projects.read().unwrap_or_else(PoisonError::into_inner).contains(origin))
    }

    /// Replaces what projects name.
    pub fn replace(&self, of_projects: HashSet<String>) {
        *self.of_projects.write().unwrap_or_else(PoisonError::into_inner) = of_projects;
    }
}
