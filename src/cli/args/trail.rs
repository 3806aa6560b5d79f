//! Which entries of the audit trail.

use super::Page;

/// Which entries.
#[derive(Debug, clap::Args)]
pub(crate) struct AuditFilter {
    /// By this person or key: an id.
    #[arg(long, value_name = "ID")]
    pub(crate) actor: Option<String>,
    /// Of this action, such as key.revoke, or of those that begin so, such as 'key.*'.
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// About this thing: its id, its kind, or both as kind:id.
    #[arg(long)]
    pub(crate) resource: Option<String>,
    /// In the project with this id.
    #[arg(long, value_name = "ID")]
    pub(crate) project: Option<String>,
    /// Through this request.
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// That ended so.
    #[arg(long, value_parser = ["success", "denied", "failure"])]
    pub(crate) outcome: Option<String>,
    /// At this time or after it, such as 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    #[command(flatten)]
    pub(crate) page: Page,
}
