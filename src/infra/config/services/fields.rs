//! Reads one table of the file strictly: what isn't known is refused, and every refusal says where it stands and never what.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::duration::Seconds;

use super::super::source::{ConfigError, Source, hint};

/// A table whose fields are taken one by one.
pub(super) struct Fields<'a> {
    place: String,
    table: toml::Table,
    source: &'a Source,
}

impl<'a> Fields<'a> {
    /// Takes a table over; names that aren't among the known ones are refused with the nearest.
    pub(super) fn open(
        place: String,
        value: toml::Value,
        known: &[&'static str],
        source: &'a Source,
    ) -> Result<Self, ConfigError> {
        let toml::Value::Table(table) = value else {
            return Err(ConfigError::Service {
                place,
                reason: "expected a table".to_owned(),
                source_of: source.clone(),
            });
        };
        if let Some(name) = table.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(ConfigError::Unknown {
                hint: hint(name, known.iter().copied()),
                name: format!("{place}.{name}"),
                place: source.to_string(),
            });
        }
        Ok(Self { place, table, source })
    }

    /// Says from now on by which name the table is known.
    pub(super) fn call(&mut self, place: String) {
        self.place = place;
    }

    /// Where a field stands.
    pub(super) fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.place)
    }

    pub(super) fn source(&self) -> &'a Source {
        self.source
    }

    /// An error about a field.
    pub(super) fn invalid(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::Service { place: self.at(key), reason: reason.into(), source_of: self.source.clone() }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<toml::Value> {
        self.table.remove(key)
    }

    /// Refuses a field that means nothing here.
    pub(super) fn refuse(&self, keys: &[&str], reason: &str) -> Result<(), ConfigError> {
        match keys.iter().find(|key| self.table.contains_key(**key)) {
            Some(key) => Err(self.invalid(key, reason)),
            None => Ok(()),
        }
    }

    /// A text without control characters, of 1 to `most` bytes.
    pub(super) fn text(&mut self, key: &str, most: usize) -> Result<Option<String>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) if is_text(&text, most) => Ok(Some(text)),
            Some(_) => {
                Err(self.invalid(key, format!("expected a text of 1 to {most} bytes without control characters")))
            }
        }
    }

    pub(super) fn needed(&mut self, key: &str, most: usize) -> Result<String, ConfigError> {
        self.text(key, most)?.ok_or_else(|| self.invalid(key, "it is missing"))
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &str, most: usize, count: usize) -> Result<Vec<String>, ConfigError> {
        let wrong = |fields: &Self| {
            fields.invalid(key, format!("expected a list of at most {count} texts, each of at most {most} bytes"))
        };
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let toml::Value::Array(entries) = value else { return Err(wrong(self)) };
        if entries.len() > count {
            return Err(wrong(self));
        }
        let text = |entry| match entry {
            toml::Value::String(text) if text.len() <= most && !text.contains('\0') => Some(text),
            _ => None,
        };
        entries.into_iter().map(text).collect::<Option<_>>().ok_or_else(|| wrong(self))
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: &str, default: u32, range: RangeInclusive<u32>) -> Result<u32, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(default) };
        let number = value.as_integer().and_then(|number| u32::try_from(number).ok()).filter(|n| range.contains(n));
        number.ok_or_else(|| {
            self.invalid(key, format!("expected a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// A duration: whole seconds, or a short form such as `5s`.
    pub(super) fn duration(
        &mut self,
        key: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<Duration, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(Duration::from_secs(default)) };
        let seconds = match &value {
            toml::Value::Integer(number) => u64::try_from(*number).ok(),
            toml::Value::String(text) => text.parse().ok().map(Seconds::get),
            _ => None,
        };
        let seconds = seconds.filter(|seconds| range.contains(seconds)).ok_or_else(|| {
            let short = |seconds: u64| Seconds::new(seconds).map(|span| span.to_string()).unwrap_or_default();
            self.invalid(key, format!("expected a duration from {} to {}", short(*range.start()), short(*range.end())))
        })?;
        Ok(Duration::from_secs(seconds))
    }
}

fn is_text(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && !text.chars().any(char::is_control)
}
