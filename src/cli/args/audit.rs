//! What can be said about the audit trail.

use clap::Subcommand;

use super::{ExportTrail, VerifyTrail};

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Verify that no entry was changed, removed, put in or moved: in the database, or in a file that `export` wrote.
    #[command(
        after_help = "Examples:\n  keyward audit verify\n  keyward audit verify --file trail.ndjson --public-key audit.pem --checkpoint checkpoints.ndjson\n\nExit status: 0 valid, 1 broken, 2 usage."
    )]
    Verify(VerifyTrail),
    /// Write the trail as NDJSON that can be verified without the database.
    #[command(after_help = "Example: keyward audit export --output trail.ndjson")]
    Export(ExportTrail),
}
