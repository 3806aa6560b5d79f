//! `keyward audit …`.

use clap::Subcommand;

use super::Page;

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List entries, newest first.
    #[command(
        after_help = "Examples:\n  keyward audit list --outcome denied --since 2026-11-20T00:00:00Z\n  keyward audit list --resource key_01K5ZV8QXW3M7C2R9T4B6D8F0G --format json\n  keyward audit list --action 'key.*' --actor usr_01K5ZV8QXW3M7C2R9T4B6D8F0G"
    )]
    List(AuditFilter),
}

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
