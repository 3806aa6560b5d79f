//! `keyward keys …`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Page, Whose, cap};

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a key and print it, this once.
    #[command(
        after_help = "Examples:\n  keyward keys create billing --user ada --scopes orders:read,orders:write --limit 5000 --expires 30d\n  keyward keys create worker --user ada --limit minute=60/1m --limit day=1000/1d --allow-ip 10.0.0.0/8,192.0.2.7"
    )]
    Create(NewKey),
    /// List keys, newest first.
    #[command(after_help = "Example: keyward keys list --user ada --status active")]
    List {
        #[command(flatten)]
        whose: Whose,
        /// Only keys of this status.
        #[arg(long, value_parser = ["active", "disabled", "expired", "revoked", "rotating"])]
        status: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show one key.
    #[command(after_help = "Example: keyward keys info key_01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    Info {
        /// Its id.
        id: String,
    },
    /// Give a key a new secret and print it, this once. The former ones are good until the overlap ends.
    #[command(
        after_help = "Examples:\n  keyward keys rotate key_01K5ZV8QXW3M7C2R9T4B6D8F0G\n  keyward keys rotate key_01K5ZV8QXW3M7C2R9T4B6D8F0G --overlap 0"
    )]
    Rotate {
        /// Its id, or - to read the key itself from standard input.
        id: String,
        /// How long the former secrets are good: 5s, 15m, 12h, 30d; 0 ends them at once.
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        overlap: String,
    },
    /// Switch a key off until it is enabled.
    #[command(after_help = "Example: keyward keys disable key_01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    Disable {
        /// Its id, or - to read the key itself from standard input.
        id: String,
    },
    /// Switch a key on again.
    #[command(after_help = "Example: keyward keys enable key_01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    Enable {
        /// Its id, or - to read the key itself from standard input.
        id: String,
    },
    /// Remove a key for good; its history stays.
    #[command(after_help = "Example: keyward keys delete key_01K5ZV8QXW3M7C2R9T4B6D8F0G --force")]
    Delete {
        /// Its id, or - to read the key itself from standard input.
        id: String,
        /// Don't ask.
        #[arg(long)]
        force: bool,
    },
    /// Take a key back for good.
    #[command(
        after_help = "Examples:\n  keyward keys revoke key_01K5ZV8QXW3M7C2R9T4B6D8F0G --reason key_compromise\n  keyward keys revoke - --force < leaked.txt"
    )]
    Revoke {
        /// Its id, or - to read the key itself from standard input.
        id: String,
        /// Why.
        #[arg(long, default_value = "unspecified", value_parser = ["unspecified", "key_compromise", "affiliation_changed", "superseded", "cessation_of_operation"])]
        reason: String,
        /// Why, in your own words.
        #[arg(long)]
        note: Option<String>,
        /// Don't ask.
        #[arg(long)]
        force: bool,
    },
    /// Take over keys that were issued elsewhere, by their hashes: a JSON object a line.
    #[command(
        after_help = "Examples:\n  keyward keys import keys.ndjson --project prj_01K5ZV8QXW3M7C2R9T4B6D8F0G --dry-run\n  keyward keys export --user ada | keyward --database-url postgres://… keys import - --user ada\n\nWhat is there already is skipped: an import that was broken off is simply run again. See docs/moving-in.md."
    )]
    Import(ImportKeys),
    /// Write a project's keys with the hashes of their secrets, in the form that import reads.
    #[command(
        after_help = "Example: keyward keys export --project prj_01K5ZV8QXW3M7C2R9T4B6D8F0G --output keys.ndjson"
    )]
    Export {
        #[command(flatten)]
        whose: Whose,
        /// Into this file, which must not be there yet; standard output otherwise.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Which keys are taken over, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportKeys {
    /// Where they stand, or - for standard input.
    pub(crate) file: String,
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// Only look what would happen.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take over what is right, although other lines aren't.
    #[arg(long)]
    pub(crate) partial: bool,
    /// Take over keys that were deleted, too, here or by others.
    #[arg(long)]
    pub(crate) deleted: bool,
}

/// What a new key shall be.
#[derive(Debug, clap::Args)]
pub(crate) struct NewKey {
    /// For people: 1 to 100 characters.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// What it may do, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub(crate) scopes: Vec<String>,
    /// How long it lasts: 5s, 15m, 12h, 30d; for ever if left out.
    #[arg(long, value_name = "DURATION")]
    pub(crate) expires: Option<String>,
    /// For people.
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Whom it is for, in your own words.
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// How often it may be used; repeat it for several windows. A number alone is for the server's usual window.
    #[arg(long, value_name = "NAME=N/WINDOW")]
    pub(crate) limit: Vec<String>,
    /// Simultaneous operations; 0 is off.
    #[arg(long, value_name = "N", value_parser = cap())]
    pub(crate) concurrency: Option<u32>,
    /// Networks or addresses from which alone it may be used, separated by commas.
    #[arg(long, value_name = "NETWORK", value_delimiter = ',')]
    pub(crate) allow_ip: Vec<String>,
}
