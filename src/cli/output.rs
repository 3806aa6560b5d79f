//! The one place that writes to the terminal. Nothing that comes from data moves its cursor, or turns its text around.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, TableStyle};
use serde::Serialize;

use super::Failure;
use crate::base::unseen::is_unseen;

/// What a terminal isn't given.
fn is_withheld(c: char) -> bool {
    is_unseen(c) && !matches!(c, '\n' | '\t')
}

/// A text as a terminal is given it: a sign stands where something can't be seen.
fn plain(text: &str) -> Cow<'_, str> {
    if text.contains(is_withheld) { Cow::Owned(text.replace(is_withheld, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// A JSON text as a terminal is given it: the same value. Such characters stand in its strings alone, and may be escaped there.
pub(crate) fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_withheld(c) {
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

/// A line on standard output. A reader that has gone away is no error of ours.
pub(crate) fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{}", plain(text)));
}

/// A line on standard error.
pub(crate) fn complain(text: &str) {
    drop(writeln!(std::io::stderr(), "{}", plain(text)));
}

/// A value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Refused(error.to_string()))?;
    say(&escaped(&text));
    Ok(())
}

/// Rows under a heading, as wide as the terminal.
pub(crate) fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Dynamic).set_header(heading.iter());
    // Before they are measured.
    table.add_rows(rows.into_iter().map(|row| row.iter().map(|cell| plain(cell).into_owned()).collect::<Vec<_>>()));
    say(table.trim_fmt().trim_end());
}

/// Asks yes or no on the terminal; without one, only `--force` says yes.
pub(crate) fn confirm(question: &str) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Refused("not on a terminal: add --force".to_owned()));
    }
    drop(write!(std::io::stderr(), "{} [y/N] ", plain(question)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unseen_reaches_the_terminal() {
        for (text, expected) in [
            ("", ""),
            ("a\tb\nü 鍵 🔑", "a\tb\nü 鍵 🔑"),
            ("\u{1b}[2J", "\u{fffd}[2J"),
            ("a\rb\u{8}\u{7f}\0", "a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}"),
            ("\u{9b}31m\u{85}", "\u{fffd}31m\u{fffd}"),
            ("\u{202e}gpj.exe\u{2069}\u{200b}", "\u{fffd}gpj.exe\u{fffd}\u{fffd}"),
            ("\u{2028}\u{2029}\u{feff}", "\u{fffd}\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(plain(text), expected, "{text:?}");
        }
    }

    #[test]
    fn json_stays_the_same_value() {
        let odd: String = ('\0'..='\u{ffff}').filter(|c| is_unseen(*c)).collect();
        let value = serde_json::json!({ "name": odd, odd.as_str(): ["\u{202e}\u{1b}[2J", "ü 鍵 🔑\n\t"] });
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = escaped(&text);
            assert!(!shown.contains(is_withheld), "{shown}");
            assert_eq!(plain(&shown), shown);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
        assert_eq!(escaped("\"\u{9b}\u{feff}\""), "\"\\u009b\\ufeff\"");
    }
}
