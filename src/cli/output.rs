//! The one place that writes to the terminal.

use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, TableStyle};
use serde::Serialize;

use super::Failure;

/// A line on standard output. A reader that has gone away is no error of ours.
pub(crate) fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// A line on standard error.
pub(crate) fn complain(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// A value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Refused(error.to_string()))?;
    say(&text);
    Ok(())
}

/// Rows under a heading, as wide as the terminal.
pub(crate) fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Dynamic).set_header(heading.iter());
    table.add_rows(rows);
    say(table.trim_fmt().trim_end());
}

/// Asks yes or no on the terminal; without one, only `--force` says yes.
pub(crate) fn confirm(question: &str) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Refused("not on a terminal: add --force".to_owned()));
    }
    drop(write!(std::io::stderr(), "{question} [y/N] "));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::Refused("nothing was changed".to_owned()))
    }
}

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::args::command(), "keyward", &mut script);
    std::io::stdout().write_all(&script).map_err(Failure::from)
}
