//! What can be said on the command line.

mod alerts;
mod audit;
mod keys;
mod proof;
mod services;
mod trail;
mod webhooks;

use std::path::PathBuf;

use clap::{Arg, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::gate::MAX_CONCURRENCY;
use crate::infra::config::SETTINGS;

pub(crate) use alerts::{Alerts, NewAlert};
pub(crate) use audit::Audit;
pub(crate) use keys::{ImportKeys, Keys, NewKey};
pub(crate) use proof::{ExportTrail, VerifyTrail};
pub(crate) use services::Services;
pub(crate) use trail::AuditFilter;
pub(crate) use webhooks::Webhooks;

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// API keys as a service. Without a command: serve.
#[derive(Debug, Parser)]
#[command(
    name = "keyward",
    version,
    after_help = "Every setting can also stand in a file or in the environment; `keyward config` shows them all."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Read settings from this TOML file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How results are written.
    #[arg(long, global = true, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve HTTP (the default).
    #[command(after_help = "Example: keyward serve --port 9000")]
    Serve,
    /// Bring the database's schema up to date.
    #[command(after_help = "Example: DATABASE_URL=postgres://keyward@db/keyward keyward migrate")]
    Migrate,
    /// Check the configuration and what it leads to.
    #[command(after_help = "Example: keyward doctor --config /etc/keyward.toml")]
    Doctor,
    /// Print the effective settings, secrets hidden, each with its source.
    #[command(after_help = "Example: keyward config --format json")]
    Config,
    /// Print the OpenAPI document.
    #[command(after_help = "Example: keyward openapi > openapi.json")]
    Openapi,
    /// Make and list people, keep them out, and give them new passwords.
    #[command(subcommand)]
    Users(Users),
    /// Make, list and delete projects.
    #[command(subcommand)]
    Projects(Projects),
    /// Make, list, show, rotate, switch, revoke and remove keys; move them in and out.
    #[command(subcommand)]
    Keys(Keys),
    /// Show, set back and change the limits of a key.
    #[command(subcommand)]
    Ratelimit(Ratelimit),
    /// Show how much keys are used, as a chart.
    #[command(
        after_help = "Examples:\n  keyward usage --period 7d --key key_01K5ZV8QXW3M7C2R9T4B6D8F0G\n  keyward usage --period 24h --project prj_01K5ZV8QXW3M7C2R9T4B6D8F0G --group-by endpoint"
    )]
    Usage(Usage),
    /// List, import and export a project's catalogue of scopes.
    #[command(subcommand)]
    Scopes(Scopes),
    /// List, make and remove alert rules, and show what became of them.
    #[command(subcommand)]
    Alerts(Alerts),
    /// Read, verify and export the audit trail.
    #[command(subcommand)]
    Audit(Audit),
    /// Make, list and test webhooks; see what was sent, and send it once more; follow events live.
    #[command(subcommand)]
    Webhooks(Webhooks),
    /// List and restart the services that are watched.
    #[command(subcommand)]
    Services(Services),
    /// Print a completion script for a shell.
    #[command(after_help = "Example: keyward completions bash > /etc/bash_completion.d/keyward")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether it changes or shows what must be there already.
    pub(crate) fn only_looks(&self) -> bool {
        matches!(
            self,
            Self::Users(Users::List(_) | Users::Disable { .. } | Users::Enable { .. } | Users::ResetPassword { .. })
                | Self::Projects(Projects::List { .. } | Projects::Delete { .. })
                | Self::Keys(
                    Keys::List { .. }
                        | Keys::Info { .. }
                        | Keys::Rotate { .. }
                        | Keys::Disable { .. }
                        | Keys::Enable { .. }
                        | Keys::Revoke { .. }
                        | Keys::Delete { .. }
                        | Keys::Import(_)
                        | Keys::Export { .. }
                )
                | Self::Ratelimit(_)
                | Self::Usage(_)
                | Self::Scopes(_)
                | Self::Alerts(_)
                | Self::Audit(_)
                | Self::Services(_)
        ) || matches!(self, Self::Webhooks(command) if command.only_looks())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Users {
    /// Make a person. The password is asked for, or read from standard input.
    #[command(after_help = "Example: keyward users create --admin ada")]
    Create {
        /// 3 to 64 of A-Z a-z 0-9 . _ -
        username: String,
        /// May act in every project.
        #[arg(long)]
        admin: bool,
    },
    /// List people, newest first.
    #[command(after_help = "Example: keyward users list --format json")]
    List(Page),
    /// Keep a person out until they are enabled. Their sessions end; what becomes of their keys is each project's choice.
    #[command(after_help = "Example: keyward users disable ada")]
    Disable {
        /// Their name.
        username: String,
    },
    /// Let a person in again. Keys that were disabled with them stay disabled.
    #[command(after_help = "Example: keyward users enable ada")]
    Enable {
        /// Their name.
        username: String,
    },
    /// Give a person a new password, and end their sessions. It is asked for, or read from standard input.
    #[command(after_help = "Example: keyward users reset-password ada < password.txt")]
    ResetPassword {
        /// Their name.
        username: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Projects {
    /// Make a project.
    #[command(after_help = "Example: keyward projects create shop --prefix shop_live --owner ada")]
    Create {
        /// For people: 1 to 100 characters.
        name: String,
        /// What its keys begin with.
        #[arg(long)]
        prefix: Option<String>,
        /// For people.
        #[arg(long)]
        description: Option<String>,
        /// Its first owner; without one, an administrator gives it one.
        #[arg(long, value_name = "USERNAME")]
        owner: Option<String>,
    },
    /// List projects, newest first.
    #[command(after_help = "Example: keyward projects list --user ada")]
    List {
        /// Only those of which this person is a member.
        #[arg(long, value_name = "USERNAME")]
        user: Option<String>,
        /// Only those that are deleted and can be restored.
        #[arg(long)]
        deleted: bool,
        #[command(flatten)]
        page: Page,
    },
    /// Delete a project: its keys are refused at once; for a while it can be restored.
    #[command(after_help = "Example: keyward projects delete prj_01K5ZV8QXW3M7C2R9T4B6D8F0G --force")]
    Delete {
        /// Its id.
        id: String,
        /// Don't ask.
        #[arg(long)]
        force: bool,
    },
}

/// Which part of a list.
#[derive(Debug, clap::Args)]
pub(crate) struct Page {
    /// At most so many (1 to 200).
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=200))]
    pub(crate) limit: u64,
    /// Go on after an earlier page; it says which cursor to give.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

/// Whose keys.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct Whose {
    /// This person's own project.
    #[arg(long, value_name = "USERNAME")]
    pub(crate) user: Option<String>,
    /// The project with this id.
    #[arg(long, value_name = "ID")]
    pub(crate) project: Option<String>,
    /// The system project: its keys act in every project.
    #[arg(long)]
    pub(crate) system: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scopes {
    /// List a catalogue, newest first.
    #[command(after_help = "Example: keyward scopes list --user ada --under 'orders:*'")]
    List {
        #[command(flatten)]
        whose: Whose,
        /// Only scopes of this category.
        #[arg(long)]
        category: Option<String>,
        /// Only scopes that this one covers, such as orders:*.
        #[arg(long, value_name = "SCOPE")]
        under: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Create and update scopes from a file: all of them, or none where one breaks a rule.
    #[command(
        after_help = "Examples:\n  keyward scopes import scopes.json --user ada --dry-run\n  keyward scopes import - --project prj_01K5ZV8QXW3M7C2R9T4B6D8F0G < scopes.json"
    )]
    Import {
        /// JSON in the form that `export` writes; - for standard input.
        file: String,
        #[command(flatten)]
        whose: Whose,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Leave out entries that break rules, instead of refusing all.
        #[arg(long)]
        partial: bool,
    },
    /// Write a catalogue as JSON that can be imported again.
    #[command(after_help = "Example: keyward scopes export --user ada --output scopes.json")]
    Export {
        #[command(flatten)]
        whose: Whose,
        /// Into this file, instead of standard output.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Create scopes from the OpenAPI document of an API (3.0 or 3.1, JSON or YAML). Those that are there stay as they are.
    #[command(
        name = "from-openapi",
        after_help = "Examples:\n  keyward scopes from-openapi openapi.yaml --user ada --namespace shop --dry-run\n  keyward scopes from-openapi openapi.json --user ada --strategy tag --action post=create --action delete=remove"
    )]
    FromOpenapi(Described),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Described {
    /// The document; - for standard input.
    pub(crate) file: String,
    #[command(flatten)]
    pub(crate) whose: Whose,
    /// What a scope stands for.
    #[arg(long, default_value = "path_resource", value_parser = ["path_resource", "path_method", "tag", "operation_id"])]
    pub(crate) strategy: String,
    /// What all names begin with, such as shop or acme:shop.
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    /// Another word for a method than read, write or delete, such as post=create.
    #[arg(long, value_name = "METHOD=WORD")]
    pub(crate) action: Vec<String>,
    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Usage {
    /// The time up to now, such as 7d or 24h; 7 days where nothing is said.
    #[arg(long, conflicts_with_all = ["since", "until"])]
    pub(crate) period: Option<String>,
    /// From this time on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Until this time (RFC 3339); now where nothing is said.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Of this key: its id, or - to read the key itself from standard input.
    #[arg(long, value_name = "KEY_ID")]
    pub(crate) key: Option<String>,
    /// Of this project's keys.
    #[arg(long, value_name = "PROJECT_ID", conflicts_with = "key")]
    pub(crate) project: Option<String>,
    /// What a row of the chart is.
    #[arg(long, value_parser = ["minute", "hour", "day", "endpoint", "status", "code", "key", "project"])]
    pub(crate) group_by: Option<String>,
    /// The most rows.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) limit: u16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ratelimit {
    /// Show how a key's limits stand, and where they come from.
    #[command(after_help = "Example: keyward ratelimit status key_01K5ZV8QXW3M7C2R9T4B6D8F0G")]
    Status {
        /// The key's id, or - to read the key itself from standard input.
        #[arg(value_name = "KEY_ID")]
        id: String,
    },
    /// Set a key's limits back: nothing is used of any window any more.
    #[command(after_help = "Example: keyward ratelimit reset key_01K5ZV8QXW3M7C2R9T4B6D8F0G --force")]
    Reset {
        /// The key's id, or - to read the key itself from standard input.
        #[arg(value_name = "KEY_ID")]
        id: String,
        /// Don't ask.
        #[arg(long)]
        force: bool,
    },
    /// Give a key other limits. What a limit of the same name has counted stays counted.
    #[command(
        after_help = "Examples:\n  keyward ratelimit update key_01K5ZV8QXW3M7C2R9T4B6D8F0G --limit minute=60/1m --limit day=1000/1d\n  keyward ratelimit update key_01K5ZV8QXW3M7C2R9T4B6D8F0G --clear --concurrency 5"
    )]
    Update {
        /// The key's id, or - to read the key itself from standard input.
        #[arg(value_name = "KEY_ID")]
        id: String,
        #[command(flatten)]
        change: LimitChange,
    },
}

/// What shall be different.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct LimitChange {
    /// How often it may be used; repeat it for several windows. All of its own limits from now on. A number alone is for the
    /// server's usual window.
    #[arg(long, value_name = "NAME=N/WINDOW", conflicts_with = "clear")]
    pub(crate) limit: Vec<String>,
    /// No limits of its own any more: those of its project hold, or the server's.
    #[arg(long)]
    pub(crate) clear: bool,
    /// Simultaneous operations; 0 is off.
    #[arg(long, value_name = "N", value_parser = cap())]
    pub(crate) concurrency: Option<u32>,
}

fn cap() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=i64::from(MAX_CONCURRENCY))
}

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) command: Command,
    pub(crate) format: Format,
    pub(crate) file: Option<PathBuf>,
    pub(crate) flags: Vec<(&'static str, String)>,
}

impl Invocation {
    /// Parses the process's arguments.
    pub(crate) fn parse() -> Result<Self, clap::Error> {
        let matches = command().try_get_matches()?;
        let cli = Cli::from_arg_matches(&matches)?;
        Ok(Self {
            command: cli.command.unwrap_or(Command::Serve),
            format: cli.format,
            file: cli.config,
            flags: flags(&matches),
        })
    }
}

/// The whole command line, with a flag for each setting that has one.
pub(crate) fn command() -> clap::Command {
    let mut command = Cli::command();
    for setting in SETTINGS {
        let Some((first, aliases)) = setting.flags.split_first() else {
            continue;
        };
        let default =
            if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
        command = command.arg(
            Arg::new(setting.key)
                .long(*first)
                .visible_aliases(aliases.to_vec())
                .value_name("VALUE")
                .global(true)
                .help(format!("{}{default}", setting.help))
                .help_heading("Settings"),
        );
    }
    command
}

/// Flags that were given, wherever they stand.
fn flags(matches: &ArgMatches) -> Vec<(&'static str, String)> {
    let mut deepest = matches;
    while let Some((_, inner)) = deepest.subcommand() {
        deepest = inner;
    }
    SETTINGS
        .iter()
        .filter(|setting| !setting.flags.is_empty())
        .filter_map(|setting| deepest.get_one::<String>(setting.key).map(|value| (setting.key, value.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn flags_may_stand_before_or_after_the_command() {
        for line in [["keyward", "--srv-port", "9", "serve"], ["keyward", "serve", "--port", "9"]] {
            assert_eq!(flags(&command().try_get_matches_from(line).unwrap()), [("port", "9".to_owned())]);
        }
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path}");
            }
            command.get_subcommands().for_each(|inner| check(inner, &path));
        }
        check(&command(), "");
    }
}
