//! `keyward audit …`.

use clap::Subcommand;

use super::AuditFilter;

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List entries, newest first.
    #[command(
        after_help = "Examples:\n  keyward audit list --outcome denied --since 2026-11-20T00:00:00Z\n  keyward audit list --resource key_01K5ZV8QXW3M7C2R9T4B6D8F0G --format json\n  keyward audit list --action 'key.*' --actor usr_01K5ZV8QXW3M7C2R9T4B6D8F0G"
    )]
    List(AuditFilter),
}
