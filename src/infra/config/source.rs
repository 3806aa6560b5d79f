//! Collects the raw values from every place and remembers where each came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::services;
use super::setting::Setting;
use super::table::SETTINGS;

/// Where a value came from, weakest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(&'static str),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// Why the configuration can't be used. The text is written for the operator; it never holds a secret's value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file named by `--config` can't be read.
    #[error("can't read the configuration file {path}: {cause}", path = .0.display(), cause = .1)]
    Unreadable(PathBuf, std::io::Error),
    /// The file isn't TOML.
    #[error("the configuration file {path} isn't valid TOML: {cause}", path = .0.display(), cause = .1)]
    NotToml(PathBuf, String),
    /// A name that isn't a setting.
    #[error("unknown setting {name} ({place}){hint}")]
    Unknown {
        /// As it was written.
        name: String,
        /// Where it stands.
        place: String,
        /// The nearest known one, as a sentence.
        hint: String,
    },
    /// A value that can't be used.
    #[error("{key} can't be {value}: {reason} (from {source_of})")]
    Invalid {
        /// The setting.
        key: &'static str,
        /// The value in quotes, or a placeholder for a secret.
        value: String,
        /// What would be right.
        reason: String,
        /// Where the value came from.
        source_of: Source,
    },
    /// Two settings that only make sense together.
    #[error("{0}")]
    Together(&'static str),
    /// A value of a service that can't be used.
    #[error("{place} can't be used: {reason} (from {source_of})")]
    Service {
        /// Where it stands, such as `services.web.checks[0].interval`.
        place: String,
        /// What would be right.
        reason: String,
        /// Where the value came from.
        source_of: Source,
    },
}

/// Every setting's raw text and its source.
#[derive(Clone)]
pub struct Loaded {
    values: BTreeMap<&'static str, (String, Source)>,
    /// The tables of services: only a file has them.
    services: Option<(toml::Value, Source)>,
}

// Values may be secrets, so the derived form would leak them.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.values.iter().map(|(key, (_, source))| (key, source))).finish()
    }
}

impl Loaded {
    /// Defaults, then `file`, then `environment`, then `flags` (by setting key).
    ///
    /// # Errors
    /// The file can't be read, or some place holds a name that isn't a setting.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Self, ConfigError> {
        let values = SETTINGS.iter().map(|s| (s.key, (s.default.to_owned(), Source::Default))).collect();
        let mut loaded = Self { values, services: None };
        if let Some(path) = file {
            loaded.add_file(path)?;
        }
        for (name, value) in environment {
            if let Some(setting) = SETTINGS.iter().find(|s| s.env == name) {
                // An empty variable is how compose files and charts spell "not set".
                if !value.is_empty() {
                    loaded.values.insert(setting.key, (value, Source::Environment(setting.env)));
                }
            } else if name.starts_with("KEYWARD_") && name != "KEYWARD_CONFIG" {
                return Err(ConfigError::Unknown {
                    hint: hint(&name, SETTINGS.iter().map(|s| s.env)),
                    place: "environment variable".to_owned(),
                    name,
                });
            }
        }
        for (key, value) in flags {
            if let Some(setting) = SETTINGS.iter().find(|s| s.key == key) {
                let flag = setting.flags.first().copied().unwrap_or(setting.key);
                loaded.values.insert(setting.key, (value, Source::Flag(flag)));
            }
        }
        Ok(loaded)
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable(path.to_owned(), e))?;
        let table: toml::Table = text
            .parse()
            // The parser's own message quotes the line, which may hold a secret.
            .map_err(|e: toml::de::Error| ConfigError::NotToml(path.to_owned(), e.message().to_owned()))?;
        for (name, value) in table {
            if name == services::KEY {
                self.services = Some((value, Source::File(path.to_owned())));
                continue;
            }
            let Some(setting) = SETTINGS.iter().find(|s| s.key == name) else {
                return Err(ConfigError::Unknown {
                    hint: hint(&name, SETTINGS.iter().map(|s| s.key).chain([services::KEY])),
                    place: format!("file {}", path.display()),
                    name,
                });
            };
            let source = Source::File(path.to_owned());
            let Some(text) = plain(&value) else {
                return Err(ConfigError::Invalid {
                    key: setting.key,
                    value: format!("a {}", value.type_str()),
                    reason: "expected text, a number, true, false, or a list of texts".to_owned(),
                    source_of: source,
                });
            };
            self.values.insert(setting.key, (text, source));
        }
        Ok(())
    }

    /// The raw text of a setting; empty where it isn't set.
    #[must_use]
    pub fn text(&self, key: &'static str) -> &str {
        self.values.get(key).map_or("", |(text, _)| text)
    }

    /// Where a setting's value came from.
    #[must_use]
    pub fn source(&self, key: &'static str) -> Source {
        self.values.get(key).map_or(Source::Default, |(_, source)| source.clone())
    }

    /// Settings that somebody set although this version doesn't use them yet.
    pub fn without_effect(&self) -> impl Iterator<Item = &'static Setting> {
        SETTINGS.iter().filter(|s| s.later && self.source(s.key) != Source::Default)
    }

    /// What `keyward config` prints: key, value with secrets hidden, source.
    #[must_use]
    pub fn shown(&self) -> Vec<(&'static str, String, String)> {
        SETTINGS.iter().map(|s| (s.key, self.shown_value(s), self.source(s.key).to_string())).collect()
    }

    /// The tables of services as they stand in the file, and which file that is.
    pub(super) fn services(&self) -> Option<&(toml::Value, Source)> {
        self.services.as_ref()
    }

    /// What `keyward config` prints of services: each value by its path, secrets hidden, source.
    #[must_use]
    pub fn shown_services(&self) -> Vec<(String, String, String)> {
        let Some((value, source)) = &self.services else { return Vec::new() };
        services::shown(value).into_iter().map(|(key, value)| (key, value, source.to_string())).collect()
    }

    fn shown_value(&self, setting: &Setting) -> String {
        let text = self.text(setting.key);
        if setting.key == "database_url" {
            super::database::without_password(text)
        } else if setting.secret && !text.is_empty() {
            "[secret]".to_owned()
        } else {
            text.to_owned()
        }
    }

    /// An error about a setting's present value.
    pub(super) fn invalid(&self, key: &'static str, reason: impl Into<String>) -> ConfigError {
        let shown = SETTINGS.iter().find(|s| s.key == key).map(|s| self.shown_value(s)).unwrap_or_default();
        let mut reason = reason.into();
        if shown.starts_with("tcp://") {
            reason.push_str("; this looks like a variable that Kubernetes sets for a Service of the same name: set enableServiceLinks: false");
        }
        ConfigError::Invalid { key, value: format!("{shown:?}"), reason, source_of: self.source(key) }
    }

    /// Parses a value by its type's `FromStr`.
    pub(super) fn parse<T: FromStr>(&self, key: &'static str, expected: &str) -> Result<T, ConfigError> {
        self.text(key).trim().parse().map_err(|_| self.invalid(key, format!("expected {expected}")))
    }

    /// Parses a whole number within bounds.
    pub(super) fn number(&self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let number: u64 = self.parse(key, &expected)?;
        if range.contains(&number) { Ok(number) } else { Err(self.invalid(key, format!("expected {expected}"))) }
    }

    /// Parses a duration.
    pub(super) fn duration(&self, key: &'static str) -> Result<std::time::Duration, ConfigError> {
        self.parse::<crate::base::duration::Seconds>(key, "a duration such as 5s, 15m, 12h or 30d")
            .map(crate::base::duration::Seconds::as_duration)
    }

    /// Parses a list separated by commas; empty entries don't count.
    pub(super) fn list<T: FromStr>(&self, key: &'static str, expected: &str) -> Result<Vec<T>, ConfigError> {
        self.text(key)
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                entry.parse().map_err(|_| self.invalid(key, format!("expected {expected}, separated by commas")))
            })
            .collect()
    }
}

fn plain(value: &toml::Value) -> Option<String> {
    Some(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Array(entries) => entries.iter().map(toml::Value::as_str).collect::<Option<Vec<_>>>()?.join(","),
        _ => return None,
    })
}

pub(super) fn hint(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    known
        .map(|candidate| (strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .min()
        .filter(|(distance, _)| *distance <= name.len() / 2)
        .map(|(_, candidate)| format!("; did you mean {candidate}?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::Config;
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn each_place_overrides_the_one_before() {
        let file =
            file("port = 1\nmetrics_port = 2\nsession_ttl = \"1h\"\ncors_origins = [\"https://a\", \"https://b\"]\n");
        let loaded = Loaded::load(
            Some(file.path()),
            env(&[
                ("KEYWARD_METRICS_PORT", "3"),
                ("KEYWARD_SESSION_TTL", "2h"),
                ("PATH", "/bin"),
                ("KEYWARD_HOST", ""),
            ]),
            [("session_ttl", "3h".to_owned())],
        )
        .unwrap();
        assert_eq!((loaded.text("port"), loaded.source("port")), ("1", Source::File(file.path().to_owned())));
        assert_eq!(loaded.text("metrics_port"), "3");
        assert_eq!(loaded.source("metrics_port"), Source::Environment("KEYWARD_METRICS_PORT"));
        assert_eq!(loaded.text("session_ttl"), "3h");
        assert_eq!((loaded.text("host"), loaded.source("host")), ("127.0.0.1", Source::Default));
        assert_eq!(loaded.text("cors_origins"), "https://a,https://b");
        assert_eq!(Config::parse(&loaded).unwrap().auth.session_ttl.as_secs(), 10_800);
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest_known_one() {
        let error = Loaded::load(None, env(&[("KEYWARD_PROT", "1")]), []).unwrap_err().to_string();
        assert_eq!(error, "unknown setting KEYWARD_PROT (environment variable); did you mean KEYWARD_PORT?");
        let file = file("regstration = \"open\"\n");
        let error = Loaded::load(Some(file.path()), [], []).unwrap_err().to_string();
        assert!(error.ends_with("did you mean registration?"), "{error}");
        assert!(Loaded::load(None, env(&[("KEYWARD_CONFIG", "x")]), []).is_ok());
    }

    #[test]
    fn errors_never_show_a_secret() {
        let file = file("admin_password = \"hunter2hunter2\n");
        let error = Loaded::load(Some(file.path()), [], []).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        let loaded = Loaded::load(
            None,
            env(&[("DATABASE_URL", "mysql://u:hunter2@h/d"), ("KEYWARD_ADMIN_PASSWORD", "hunter2")]),
            [],
        )
        .unwrap();
        let error = Config::parse(&loaded).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(!format!("{loaded:?} {:?}", loaded.shown()).contains("hunter2"));
    }

    #[test]
    fn networks_that_requests_may_reach_are_read() {
        let allowed = |text: &str| {
            let loaded = Loaded::load(None, env(&[("KEYWARD_OUTBOUND_ALLOW", text)]), []).unwrap();
            Config::parse(&loaded).unwrap().outbound.allow.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(allowed(""), [""; 0]);
        assert_eq!(allowed("10.0.0.0/8, ::1 ,192.0.2.7,"), ["10.0.0.0/8", "::1/128", "192.0.2.7/32"]);
    }

    #[test]
    fn every_default_is_valid_and_bad_values_name_their_setting() {
        assert!(Config::parse(&Loaded::load(None, [], []).unwrap()).is_ok());
        for (name, value) in [
            ("KEYWARD_PORT", "65536"),
            ("KEYWARD_HOST", "nowhere"),
            ("KEYWARD_MAX_KEY_SIZE", "0"),
            ("KEYWARD_MAX_KEY_SIZE", "16777217"),
            ("KEYWARD_REGISTRATION", "maybe"),
            ("KEYWARD_SESSION_TTL", "soon"),
            ("KEYWARD_SESSION_TTL", "0"),
            ("KEYWARD_KEY_PREFIX", "SK"),
            ("KEYWARD_TRUSTED_PROXIES", "10.0.0.0/99"),
            ("KEYWARD_OUTBOUND_ALLOW", "10.0.0.0/8, db.internal"),
            ("KEYWARD_CORS_ORIGINS", "example.com"),
            ("KEYWARD_REQUEST_LOG_SAMPLE", "1.5"),
            ("KEYWARD_REQUEST_LOG_SAMPLE", "NaN"),
            ("KEYWARD_REQUEST_LOG_SAMPLE", "some"),
            ("KEYWARD_REQUEST_LOG_RETENTION", "0"),
            ("KEYWARD_LOG_FORMAT", "xml"),
            ("KEYWARD_LOG", "keyward=loud"),
            ("KEYWARD_ADMIN_USERNAME", "root"),
            ("DATABASE_URL", "sqlite::memory:"),
            ("KEYWARD_MIGRATE_ON_START", "yes"),
            ("KEYWARD_PORT", "tcp://10.0.0.1:80"),
        ] {
            let loaded = Loaded::load(None, env(&[(name, value)]), []).unwrap();
            let error = Config::parse(&loaded).expect_err(name).to_string();
            assert!(error.to_lowercase().contains(&name.to_lowercase().replace("keyward_", "")), "{name}: {error}");
        }
    }
}
