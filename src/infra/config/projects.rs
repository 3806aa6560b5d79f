//! Projects.

use std::time::Duration;

use super::source::{ConfigError, Loaded};

/// Settings of projects.
#[derive(Clone, Debug)]
pub struct ProjectsConfig {
    /// Teams that a person may make; 0 is off.
    pub per_user: u32,
    /// How long a deleted project can be restored.
    pub grace: Duration,
}

impl ProjectsConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        Ok(Self {
            per_user: u32::try_from(loaded.number("projects_per_user", 0..=1_000_000)?).unwrap_or(u32::MAX),
            grace: loaded.duration("project_grace")?,
        })
    }
}
