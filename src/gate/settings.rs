//! What can be set on a key or on its project, and what comes of both: server ← project ← key, value by value.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::{RefOr, schema::OneOfBuilder};

use crate::base::duration::Seconds;

use super::restrict::{Methods, Networks, Paths, Schedule};
use super::sample::Sample;
use super::windows::Limit;

/// The most limits that one list names. A key and its project together may have twice as many.
pub const MAX_LISTED: usize = 8;
/// The largest limit of a window.
pub const MAX_LIMIT: u32 = 1_000_000_000;
/// The largest cap on simultaneous operations.
pub const MAX_CONCURRENCY: u32 = 1_000_000;
/// The longest name of a limit, in bytes.
const MAX_NAME: usize = 64;
/// Windows of a day and longer are quotas: they are refused as `QUOTA_EXCEEDED`, after the shorter ones.
pub const QUOTA_SECONDS: u64 = 86_400;
/// Windows of an hour and longer survive the end of the process.
pub const KEPT_SECONDS: u64 = 3_600;

/// The limits of a key or a project: at most [`MAX_LISTED`], each with a name of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits(Box<[Limit]>);

impl Limits {
    /// One after another, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Limit> {
        self.0.iter()
    }

    /// Whether the list names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One limit as it is written: `{"name": "minute", "limit": 60, "window": "1m"}`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(deserialize_with = "amount")]
    limit: u32,
    #[serde(serialize_with = "short")]
    window: Seconds,
}

/// The short form where there is one; whole seconds otherwise.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn short<S: serde::Serializer>(window: &Seconds, serializer: S) -> Result<S::Ok, S::Error> {
    match window.short_form() {
        Some(text) => serializer.serialize_str(&text),
        None => serializer.serialize_u64(window.get()),
    }
}

/// A whole number from 1 to [`MAX_LIMIT`], however it is written (JSON Schema, 4.2.3).
fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    whole(deserializer, 1, MAX_LIMIT)
}

/// A whole number within bounds, however it is written (JSON Schema, 4.2.3).
///
/// # Errors
/// Anything else.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D, least: u32, most: u32) -> Result<u32, D::Error> {
    let number = f64::deserialize(deserializer)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just before")]
    if number.fract() == 0.0 && (f64::from(least)..=f64::from(most)).contains(&number) {
        Ok(number as u32)
    } else {
        Err(de::Error::custom(format_args!("expected a whole number from {least} to {most}")))
    }
}

impl Serialize for Limits {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|limit| Written {
            name: limit.name.to_string(),
            limit: limit.limit,
            // Comes from a `Seconds`.
            window: Seconds::new(limit.window_seconds).unwrap_or(Seconds::MAX),
        }))
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Vec::<crate::base::object::Object<Written>>::deserialize(deserializer)?;
        if written.len() > MAX_LISTED {
            return Err(de::Error::custom("expected at most 8 limits"));
        }
        let mut limits: Vec<Limit> = Vec::with_capacity(written.len());
        for crate::base::object::Object(Written { name, limit, window }) in written {
            if !is_name(&name) {
                return Err(de::Error::custom(
                    "expected a name of a to z, 0 to 9, _ and -, that begins with a letter, 64 characters at most",
                ));
            }
            if window.get() == 0 {
                return Err(de::Error::custom("expected a window of at least one second"));
            }
            if limits.iter().any(|other| *other.name == *name) {
                return Err(de::Error::custom("expected a different name for each limit"));
            }
            limits.push(Limit { name: name.into(), limit, window_seconds: window.get() });
        }
        Ok(Self(limits.into()))
    }
}

/// Names stand in headers and in metrics: plain words.
fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

impl utoipa::PartialSchema for Limits {
    fn schema() -> RefOr<Schema> {
        let text = |pattern: &str| ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
        let seconds = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(crate::base::duration::MAX_SECONDS));
        let window = OneOfBuilder::new()
            .item(text(crate::base::duration::SHORT_FORM))
            .item(seconds)
            .description(Some("Its length: whole seconds, or a short form such as `5s`, `1m`, `1h`, `1d` or `30d`."));
        let limit = ObjectBuilder::new()
            .property(
                "name",
                text("^[a-z][a-z0-9_-]{0,63}$").description(Some("`minute`, `hour`, `day` and `month` are usual.")),
            )
            .property(
                "limit",
                ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MAX_LIMIT)),
            )
            .property("window", window)
            .required("name")
            .required("limit")
            .required("window")
            .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(false)));
        ArrayBuilder::new()
            .items(limit)
            .max_items(Some(MAX_LISTED))
            .description(Some(
                "Sliding windows: over any span as long as `window`, never more than `limit` is admitted.",
            ))
            .examples([serde_json::json!([{"name": "minute", "limit": 60, "window": "1m"}])])
            .into()
    }
}

impl utoipa::ToSchema for Limits {}

/// What was set in one place; `None` leaves it to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Limits; one replaces the next level's of the same name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Simultaneous operations; 0 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// From where. An empty list admits nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_allow: Option<Networks>,
    /// When. An empty list is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// With which methods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method_allow: Option<Methods>,
    /// For which paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_allow: Option<Paths>,
}

impl Settings {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Puts a field of a merge patch (RFC 7396) in place: an outer `None` leaves the value, an inner one clears it.
pub fn replace<T>(value: &mut Option<T>, patch: Option<Option<T>>) {
    if let Some(new) = patch {
        *value = new;
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ConfigSource)]
pub enum Source {
    /// The server's own settings, or nothing at all.
    Server,
    /// The key's project.
    Project,
    /// The key.
    Key,
}

/// What the server itself sets, where neither key nor project do.
#[derive(Clone, Debug)]
pub struct ServerDefaults {
    /// The limit `default`; `None` is off.
    pub limit: Option<Limit>,
    /// Simultaneous operations; 0 is off.
    pub concurrency: u32,
    /// Which part of admitted requests the log keeps.
    pub sample: Sample,
}

/// What holds for a key.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Its limits, shorter windows first, each with its source.
    pub limits: Vec<(Limit, Source)>,
    /// Simultaneous operations; 0 is off.
    pub concurrency: (u32, Source),
    /// From where; `None` is anywhere.
    pub ip_allow: (Option<Networks>, Source),
    /// When; `None` is always.
    pub schedule: (Option<Schedule>, Source),
    /// With which methods; `None` is any.
    pub method_allow: (Option<Methods>, Source),
    /// For which paths; `None` is any.
    pub path_allow: (Option<Paths>, Source),
}

impl Effective {
    /// What holds for a key with these settings, in a project with those.
    #[must_use]
    pub fn of(key: &Settings, project: &Settings, server: &ServerDefaults) -> Self {
        fn pick<T: Clone>(key: Option<&T>, project: Option<&T>) -> (Option<T>, Source) {
            match (key, project) {
                (Some(value), _) => (Some(value.clone()), Source::Key),
                (None, Some(value)) => (Some(value.clone()), Source::Project),
                (None, None) => (None, Source::Server),
            }
        }
        let mut limits: Vec<(Limit, Source)> = Vec::new();
        for (level, source) in [(&key.limits, Source::Key), (&project.limits, Source::Project)] {
            for limit in level.iter().flat_map(Limits::iter) {
                if !limits.iter().any(|(nearer, _)| nearer.name == limit.name) {
                    limits.push((limit.clone(), source));
                }
            }
        }
        if limits.is_empty() {
            limits.extend(server.limit.clone().map(|limit| (limit, Source::Server)));
        }
        limits.sort_by_key(|(limit, _)| limit.window_seconds);
        let concurrency = match (key.concurrency, project.concurrency) {
            (Some(cap), _) => (cap, Source::Key),
            (None, Some(cap)) => (cap, Source::Project),
            (None, None) => (server.concurrency, Source::Server),
        };
        Self {
            limits,
            concurrency,
            ip_allow: pick(key.ip_allow.as_ref(), project.ip_allow.as_ref()),
            schedule: pick(key.schedule.as_ref(), project.schedule.as_ref()),
            method_allow: pick(key.method_allow.as_ref(), project.method_allow.as_ref()),
            path_allow: pick(key.path_allow.as_ref(), project.path_allow.as_ref()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Project => "project",
            Self::Key => "key",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(json: &str) -> Limits {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn limits_read_and_write_the_same() {
        let text = r#"[{"name":"minute","limit":60,"window":"1m"},{"name":"day","limit":5,"window":"1d"}]"#;
        assert_eq!(serde_json::to_string(&limits(text)).unwrap(), text);
        assert_eq!(
            limits(r#"[{"name":"a","limit":1.0,"window":60}]"#),
            limits(r#"[{"name":"a","limit":1,"window":"1m"}]"#)
        );
        for bad in [
            r#"[{"name":"","limit":1,"window":"1m"}]"#,
            r#"[{"name":"A","limit":1,"window":"1m"}]"#,
            r#"[{"name":"a\"b","limit":1,"window":"1m"}]"#,
            r#"[{"name":"a","limit":0,"window":"1m"}]"#,
            r#"[{"name":"a","limit":1000000001,"window":"1m"}]"#,
            r#"[{"name":"a","limit":1.5,"window":"1m"}]"#,
            r#"[{"name":"a","limit":1,"window":0}]"#,
            r#"[{"name":"a","limit":1,"window":"1w"}]"#,
            r#"[{"name":"a","limit":1}]"#,
            r#"[["a",1,"1m"]]"#,
            r#"[{"name":"a","limit":1,"window":"1m","burst":2}]"#,
            r#"[{"name":"a","limit":1,"window":"1m"},{"name":"a","limit":2,"window":"1h"}]"#,
        ] {
            assert!(serde_json::from_str::<Limits>(bad).is_err(), "{bad}");
        }
        let nine: Vec<_> =
            (0..9).map(|i| serde_json::json!({"name": format!("l{i}"), "limit": 1, "window": 1})).collect();
        assert!(serde_json::from_value::<Limits>(nine[..8].into()).is_ok());
        assert!(serde_json::from_value::<Limits>(nine.into()).is_err());
    }

    proptest::proptest! {
        /// What is stored can be read again, whatever was accepted.
        #[test]
        fn every_window_reads_back(seconds in 1..=crate::base::duration::MAX_SECONDS, unit in 0_usize..4) {
            let unit = [1, 60, 3_600, 86_400][unit];
            let window = (seconds / unit * unit).max(1);
            let read = limits(&serde_json::json!([{"name": "a", "limit": 1, "window": window}]).to_string());
            proptest::prop_assert_eq!(limits(&serde_json::to_string(&read).unwrap()), read);
        }
    }

    #[test]
    fn a_nearer_value_replaces_a_farther_one_by_name() {
        let server = ServerDefaults {
            limit: Some(Limit { name: "default".into(), limit: 1000, window_seconds: 3600 }),
            concurrency: 7,
            sample: Sample::NONE,
        };
        let none = Settings::default();
        let names = |effective: &Effective| {
            effective.limits.iter().map(|(l, s)| format!("{}={} {s}", l.name, l.limit)).collect::<Vec<_>>().join(", ")
        };
        let only = Effective::of(&none, &none, &server);
        assert_eq!((names(&only).as_str(), only.concurrency), ("default=1000 server", (7, Source::Server)));
        let project = Settings {
            limits: Some(limits(
                r#"[{"name":"day","limit":9,"window":"1d"},{"name":"minute","limit":6,"window":"1m"}]"#,
            )),
            concurrency: Some(3),
            ip_allow: Some(serde_json::from_str(r#"["10.0.0.0/8"]"#).unwrap()),
            ..Settings::default()
        };
        let both = Effective::of(&none, &project, &server);
        assert_eq!(
            (names(&both).as_str(), both.concurrency),
            ("minute=6 project, day=9 project", (3, Source::Project))
        );
        let key = Settings {
            limits: Some(limits(r#"[{"name":"minute","limit":60,"window":"1m"}]"#)),
            concurrency: Some(0),
            ip_allow: Some(serde_json::from_str("[]").unwrap()),
            ..Settings::default()
        };
        let all = Effective::of(&key, &project, &server);
        assert_eq!((names(&all).as_str(), all.concurrency), ("minute=60 key, day=9 project", (0, Source::Key)));
        assert!(!all.ip_allow.0.unwrap().admits("10.0.0.1".parse().unwrap()), "an empty list admits nobody");
        let empty = Settings { limits: Some(Limits::default()), ..Settings::default() };
        assert_eq!(names(&Effective::of(&empty, &none, &server)), "default=1000 server", "an empty list names none");
    }
}
