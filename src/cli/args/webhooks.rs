//! `keyward webhooks …`.

use clap::Subcommand;

use super::{Page, Whose};

#[derive(Debug, Subcommand)]
pub(crate) enum Webhooks {
    /// List a project's webhooks, newest first.
    #[command(after_help = "Example: keyward webhooks list --user ada")]
    List {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        page: Page,
    },
    /// Make a webhook, and print its secret alone on standard output.
    #[command(
        after_help = "Example: keyward webhooks create https://example.com/hooks --user ada --events key.revoked,limit.*"
    )]
    Create {
        /// Where events are sent.
        url: String,
        #[command(flatten)]
        whose: Whose,
        /// Which: types of events, separated by commas; all, where nothing is said.
        #[arg(long, value_delimiter = ',', default_value = "*")]
        events: Vec<String>,
        /// For people.
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete a webhook, and whatever is on its way to it.
    #[command(after_help = "Example: keyward webhooks delete whk_01K5ZV8QXW3M7C2R9T4B6D8F0G --force")]
    Delete {
        /// Its id.
        id: String,
        /// Don't ask.
        #[arg(long)]
        force: bool,
    },
    /// Send the example of an event to a webhook, and say what came of it.
    #[command(after_help = "Example: keyward webhooks test whk_01K5ZV8QXW3M7C2R9T4B6D8F0G --type key.revoked")]
    Test {
        /// Its id.
        id: String,
        /// Which type of event; the webhook's first, where nothing is said.
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
    },
    /// List what was sent to a webhook, newest first.
    #[command(after_help = "Example: keyward webhooks deliveries whk_01K5ZV8QXW3M7C2R9T4B6D8F0G --state dead")]
    Deliveries {
        /// Its id.
        id: String,
        /// Only those that stand so.
        #[arg(long, value_parser = ["pending", "retrying", "delivered", "dead", "paused"])]
        state: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Try a delivery once more.
    #[command(after_help = "Example: keyward webhooks retry dlv_01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    Retry {
        /// Its id.
        id: String,
    },
    /// Print a project's events as they happen, a line each, until Ctrl-C.
    #[command(
        after_help = "Examples:\n  keyward webhooks listen --user ada --type key.*\n  keyward webhooks listen --user ada --format json | jq .data"
    )]
    Listen {
        #[command(flatten)]
        whose: Whose,
        /// Only these types, separated by commas.
        #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
        kinds: Vec<String>,
        /// End after so many.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
}

impl Webhooks {
    /// Whether it needs what must be there already.
    pub(crate) fn only_looks(&self) -> bool {
        !matches!(self, Self::Create { .. })
    }
}
