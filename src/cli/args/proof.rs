//! What can be said about the proof behind the audit trail.

use std::path::PathBuf;

use crate::base::clock::Timestamp;

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|_| "expected an RFC 3339 time such as 2027-01-31T12:00:00Z".to_owned())
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyTrail {
    /// An export, instead of the database; - for standard input. Needs no configuration.
    #[arg(long, value_name = "FILE", requires = "public_key")]
    pub(crate) file: Option<PathBuf>,
    /// Whose signatures count: base64, or a file with base64 or PEM. Repeat it for former keys.
    #[arg(long, value_name = "KEY", requires = "file")]
    pub(crate) public_key: Vec<String>,
    /// Checkpoints that were stored elsewhere: JSON as `/v1/audit/checkpoints` gives it, or one a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Be content with an export of projects in which each entry agrees with its own hash. That proves nothing: such a file
    /// isn't signed, and anybody could have made it. Without this, its exit status is 1.
    #[arg(long, requires = "file")]
    pub(crate) entries_only: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExportTrail {
    /// Into this file, which must not be there yet, instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Only what happened in the project with this id. Its links can't be verified.
    #[arg(long, value_name = "ID")]
    pub(crate) project: Option<String>,
    /// Not before this.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) since: Option<Timestamp>,
    /// Before this.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) until: Option<Timestamp>,
}
