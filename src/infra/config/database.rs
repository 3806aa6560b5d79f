//! Where the data is and how it is reached.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::secret::Secret;

use super::source::{ConfigError, Loaded};

/// Which engine, and where.
#[derive(Clone, Debug)]
pub enum DatabaseUrl {
    /// A file of this machine.
    Sqlite(PathBuf),
    /// A server; the whole URL, since it may hold a password.
    Postgres(Secret),
}

/// Settings of the storage.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// Which engine, and where.
    pub url: DatabaseUrl,
    /// Connections in the pool; on SQLite, of readers.
    pub max_connections: u32,
    /// How long a request waits for a connection.
    pub acquire_timeout: Duration,
    /// How long the start waits for Postgres.
    pub start_timeout: Duration,
    /// Whether `serve` migrates.
    pub migrate_on_start: bool,
}

impl DatabaseConfig {
    pub(super) fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        Ok(Self {
            url: parse_url(loaded)?,
            max_connections: u32::try_from(loaded.number("database_max_connections", 1..=1000)?).unwrap_or(1000),
            acquire_timeout: loaded.duration("database_acquire_timeout")?.max(Duration::from_secs(1)),
            start_timeout: loaded.duration("database_start_timeout")?,
            migrate_on_start: loaded.parse("migrate_on_start", "true or false")?,
        })
    }
}

fn parse_url(loaded: &Loaded) -> Result<DatabaseUrl, ConfigError> {
    let key = "database_url";
    let text = loaded.text(key);
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Ok(DatabaseUrl::Postgres(Secret::new(text.to_owned())));
    }
    let path = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:"));
    // The one parameter that people bring along from elsewhere: it asks for what is done anyway.
    let path = path.map(|path| path.strip_suffix("?mode=rwc").unwrap_or(path));
    match path {
        Some(path) if path.contains(":memory:") => {
            Err(loaded.invalid(key, "a database in memory would lose every acknowledged key; name a file"))
        }
        Some(path) if path.contains('?') => Err(loaded.invalid(key, "SQLite takes no parameters here; name a file")),
        Some(path) if !path.is_empty() => Ok(DatabaseUrl::Sqlite(PathBuf::from(path))),
        _ => Err(loaded.invalid(key, "expected sqlite://FILE or postgres://USER:PASSWORD@HOST/DATABASE")),
    }
}

/// The URL with its password, and its parameters, which may hold one, replaced. What isn't plainly a URL isn't shown at all:
/// nobody knows where the password is in it.
pub(super) fn without_password(url: &str) -> String {
    const HIDDEN: &str = "[secret]";
    if url.is_empty() || url.starts_with("sqlite:") {
        return url.to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| scheme.starts_with("postgres")) else {
        return HIDDEN.to_owned();
    };
    let cut = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(cut);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let parameters = if path.len() < rest.len() { "?[secret]" } else { "" };
    let (login, host) = authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
    let has_port_alone =
        host.rsplit_once(':').is_none_or(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()) || port.ends_with(']'));
    // A second @ means that the password itself holds what ends an authority.
    if rest.contains('@') || !has_port_alone {
        return format!("{scheme}://{HIDDEN}");
    }
    let login = login.map_or(String::new(), |login| match login.split_once(':') {
        Some((user, _)) => format!("{user}:{HIDDEN}@"),
        None => format!("{login}@"),
    });
    format!("{scheme}://{login}{host}{path}{parameters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_urls_name_a_file() {
        let parse = |url: &str| {
            let loaded = Loaded::load(None, [("DATABASE_URL".to_owned(), url.to_owned())], []).unwrap();
            match parse_url(&loaded) {
                Ok(DatabaseUrl::Sqlite(path)) => Some(path.display().to_string()),
                _ => None,
            }
        };
        for (url, path) in [
            ("sqlite://keyward.db", "keyward.db"),
            ("sqlite:///var/lib/keyward.db", "/var/lib/keyward.db"),
            ("sqlite:keyward.db", "keyward.db"),
            ("sqlite://keyward.db?mode=rwc", "keyward.db"),
        ] {
            assert_eq!(parse(url).as_deref(), Some(path), "{url}");
        }
        for url in ["sqlite://", "sqlite:", "sqlite://x.db?mode=ro", "sqlite::memory:", "keyward.db", "mysql://h/d"] {
            assert_eq!(parse(url), None, "{url}");
        }
    }

    #[test]
    fn passwords_are_hidden() {
        for (url, shown) in [
            ("postgres://u:p@h/d", "postgres://u:[secret]@h/d"),
            ("postgres://u:p@ss@h/d?sslmode=require", "postgres://u:[secret]@h/d?[secret]"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres:///d?host=/tmp&password=p", "postgres:///d?[secret]"),
            ("sqlite://keyward.db", "sqlite://keyward.db"),
            ("postgres://k:hun?ter2@db/k", "postgres://[secret]"),
            ("postgres://k:hunter2", "postgres://[secret]"),
            ("keyward:hunter2@db/keyward", "[secret]"),
            ("host=db user=k password=hunter2", "[secret]"),
            ("postgres:/k:hunter2@db/k", "[secret]"),
            ("postgres://u:p@h:5432/d", "postgres://u:[secret]@h:5432/d"),
            ("postgres://u:p@[::1]:5432/d", "postgres://u:[secret]@[::1]:5432/d"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
