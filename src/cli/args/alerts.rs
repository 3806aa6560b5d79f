//! `keyward alerts …`.

use clap::Subcommand;

use super::{Page, Whose};

#[derive(Debug, Subcommand)]
pub(crate) enum Alerts {
    /// List a project's alert rules, newest first, each with how it stands.
    #[command(after_help = "Example: keyward alerts list --user ada --state firing")]
    List {
        #[command(flatten)]
        whose: Whose,
        /// Only rules that stand so.
        #[arg(long, value_parser = ["ok", "muted", "firing", "no_data"])]
        state: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Make an alert rule. Its id is printed.
    #[command(
        after_help = "Examples:\n  keyward alerts create 'many refusals' --user ada --metric denied --operator '>=' --threshold 100\n  keyward alerts create 'key ends' --project prj_01K5ZV8QXW3M7C2R9T4B6D8F0G --metric expires_in_days --operator '<=' --threshold 7 --email ops@example.com"
    )]
    Create(NewAlert),
    /// Remove an alert rule. What it fired is resolved; its history stays.
    #[command(after_help = "Example: keyward alerts delete alr_01K5ZV8QXW3M7C2R9T4B6D8F0G --user ada --force")]
    Delete {
        /// Its id.
        id: String,
        #[command(flatten)]
        whose: Whose,
        /// Don't ask.
        #[arg(long)]
        force: bool,
    },
    /// Show what became of a project's alert rules, newest first.
    #[command(after_help = "Example: keyward alerts history --user ada --since 2027-01-31T12:00:00Z")]
    History {
        #[command(flatten)]
        whose: Whose,
        /// Only of the rule with this id.
        #[arg(long, value_name = "ID")]
        alert: Option<String>,
        /// At this time or after it, such as 2027-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Before this time.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        #[command(flatten)]
        page: Page,
    },
}

/// A rule to be made.
#[derive(Debug, clap::Args)]
pub(crate) struct NewAlert {
    /// For people: 1 to 100 characters.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// What is looked at.
    #[arg(long, value_parser = [
        "requests", "denied", "error_rate", "rate_limited", "auth_failures", "scope_denied", "ip_denied",
        "quota_used_percent", "latency_p95_ms", "expires_in_days",
    ])]
    pub(crate) metric: String,
    /// How it is compared.
    #[arg(long, value_parser = [">", ">=", "<", "<=", "=="])]
    pub(crate) operator: String,
    /// With what, in the metric's unit: a share from 0 to 1 for `error_rate`.
    #[arg(long)]
    pub(crate) threshold: f64,
    /// The time up to now that is looked at.
    #[arg(long, default_value = "60m")]
    pub(crate) window: String,
    /// How long after it fired it doesn't fire again.
    #[arg(long, default_value = "60m")]
    pub(crate) cooldown: String,
    /// Only requests of this key.
    #[arg(long, value_name = "KEY_ID")]
    pub(crate) key: Option<String>,
    /// For people.
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Who gets a mail; may be given several times.
    #[arg(long = "email", value_name = "ADDRESS")]
    pub(crate) emails: Vec<String>,
    /// Tell again after each cooldown that it still fires.
    #[arg(long)]
    pub(crate) remind: bool,
    /// Don't evaluate it yet.
    #[arg(long)]
    pub(crate) inactive: bool,
}
