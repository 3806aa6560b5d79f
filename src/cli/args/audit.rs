//! What can be said about the audit trail: `keyward audit …`.

use clap::Subcommand;

use super::{AuditFilter, ExportTrail, VerifyTrail};

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List entries, newest first.
    #[command(
        after_help = "Examples:\n  keyward audit list --outcome denied --since 2026-11-20T00:00:00Z\n  keyward audit list --resource key_01K5ZV8QXW3M7C2R9T4B6D8F0G --format json\n  keyward audit list --action 'key.*' --actor usr_01K5ZV8QXW3M7C2R9T4B6D8F0G"
    )]
    List(AuditFilter),
    /// Verify that no entry was changed, removed, put in or moved: in the database, or in a file that `export` wrote.
    #[command(
        after_help = "Examples:\n  keyward audit verify\n  keyward audit verify --file trail.ndjson --public-key audit.pem --checkpoint checkpoints.ndjson\n\nExit status: 0 valid, 1 broken or not proven (an export of projects, an empty file), 2 usage."
    )]
    Verify(VerifyTrail),
    /// Write the trail as NDJSON that can be verified without the database.
    #[command(after_help = "Example: keyward audit export --output trail.ndjson")]
    Export(ExportTrail),
}
