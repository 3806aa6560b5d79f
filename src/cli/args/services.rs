//! `keyward services …`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Services {
    /// List the services of the configuration, as they stand.
    #[command(after_help = "Example: keyward services list --config /etc/keyward.toml")]
    List,
    /// Ask for a restart; the running service performs it.
    #[command(
        after_help = "Example: keyward services restart worker --reason 'a new configuration' --config /etc/keyward.toml"
    )]
    Restart {
        /// Its name in the configuration.
        name: String,
        /// Why, for the trail.
        #[arg(long)]
        reason: Option<String>,
    },
}
