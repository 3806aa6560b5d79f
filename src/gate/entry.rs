//! What verification knows of a key: one immutable entry, compiled once, shared by everybody who asks.

use std::fmt::Write as _;
use std::sync::Arc;

use http::HeaderValue;
use serde_json::{Map, Value, json};

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, SecretId, UserId};
use crate::base::scope::{Scope, Scopes, covers};

use super::mark::Project;
use super::restrict::{Methods, Networks, Paths, Schedule};
use super::sample::Sample;
use super::settings::{Effective, KEPT_SECONDS, Settings};
use super::state::KeyState;
use super::windows::{Limit, Saved};

/// What the storage says of a shown secret.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug)]
pub struct Facts {
    /// The key.
    pub key: KeyId,
    /// Which of its secrets.
    pub secret: SecretId,
    /// Whose.
    pub project: ProjectId,
    /// Whether that is the system project, whose keys act everywhere.
    pub is_system: bool,
    /// The person who answers for it.
    pub user: Option<UserId>,
    /// For people.
    pub name: String,
    /// Whom it is for.
    pub owner: Option<String>,
    /// What it may do.
    pub scopes: Scopes,
    /// Whatever its owner keeps with it.
    pub metadata: Value,
    /// Taken back for good.
    pub revoked: bool,
    /// Switched off, or its project is.
    pub disabled: bool,
    /// Whether its project is deleted: then there is no such key, until the project is restored.
    pub gone: bool,
    /// Names of its project's scopes that grant nothing.
    pub inactive_scopes: Vec<String>,
    /// Which part of admitted requests its project's log keeps; `None` leaves it to the server.
    pub request_log_sample: Option<f64>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// The end of a superseded secret's overlap.
    pub secret_expires_at: Option<Timestamp>,
    /// What is set on it.
    pub settings: Settings,
    /// What is set on its project.
    pub project_settings: Settings,
    /// Its windows as they were last written.
    pub saved: Vec<Saved>,
}

const NOBODY: UserId = UserId::from_bits(0);

/// Bytes that an entry's weight counts together.
const UNIT: usize = 64;

/// See the module. Its texts are rendered once, because they are answered many thousand times a second.
#[derive(Debug)]
pub struct Entry {
    /// Which of its secrets.
    pub secret: SecretId,
    /// The person who answers for it; all zero for nobody, which saves 16 bytes.
    user: UserId,
    /// What restricts it.
    pub rules: Arc<Rules>,
    /// What is counted of it.
    pub state: Arc<KeyState>,
    /// Whose.
    owner: Arc<Project>,
    /// The state of the world that it was read from.
    epoch: u64,
    /// Microseconds; `i64::MAX` is never.
    expires_at: i64,
    secret_expires_at: i64,
    /// As JSON, one after another: the name; the owner, if there is one; the scopes without their brackets; the metadata, if
    /// there is any.
    text: Box<str>,
    /// Where in `text` the first three end.
    ends: [u32; 3],
    /// See [`bytes`](Self::bytes); in units of [`UNIT`], rounded up.
    weight: u16,
    /// Taken back for good.
    pub revoked: bool,
    /// Switched off, or its project is.
    pub disabled: bool,
    /// Its project is deleted.
    pub gone: bool,
}

impl Entry {
    pub(super) fn new(facts: Facts, rules: Arc<Rules>, state: Arc<KeyState>, owner: Arc<Project>, epoch: u64) -> Self {
        let end = |at: Option<Timestamp>| at.map_or(i64::MAX, Timestamp::as_micros);
        let mut text = json!(facts.name).to_string();
        let name_end = text.len();
        // What most keys have none of takes no room.
        if let Some(owner) = &facts.owner {
            text.push_str(&json!(owner).to_string());
        }
        let owner_end = text.len();
        for (i, scope) in facts.scopes.iter().enumerate() {
            // Writing into a string can't fail.
            let _ = write!(text, "{}\"{scope}\"", if i == 0 { "" } else { "," });
        }
        let scopes_end = text.len();
        if facts.metadata.as_object().is_some_and(|fields| !fields.is_empty()) {
            text.push_str(&facts.metadata.to_string());
        }
        let at = |place: usize| u32::try_from(place).unwrap_or(0);
        // Two counts of the `Arc`, the cache's own slot, and the allocator's rounding; then what is counted.
        let own = size_of::<Self>() + text.len() + 16 + 96 + 256;
        let bytes = own + rules.bytes / Arc::strong_count(&rules).max(1);
        Self {
            weight: u16::try_from(bytes.div_ceil(UNIT)).unwrap_or(u16::MAX),
            secret: facts.secret,
            user: facts.user.unwrap_or(NOBODY),
            rules,
            state,
            owner,
            epoch,
            expires_at: end(facts.expires_at),
            secret_expires_at: end(facts.secret_expires_at),
            ends: [at(name_end), at(owner_end), at(scopes_end)],
            text: text.into(),
            revoked: facts.revoked,
            disabled: facts.disabled,
            gone: facts.gone,
        }
    }

    /// Whether nothing has changed since it was read, neither all nor what it is about.
    #[must_use]
    pub(super) fn is_current(&self, all: u64) -> bool {
        self.epoch >= all && self.epoch >= self.state.mark.get() && self.epoch >= self.owner.mark.get()
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> KeyId {
        self.state.key
    }

    /// Whose key it is.
    #[must_use]
    pub fn project(&self) -> ProjectId {
        self.owner.id
    }

    /// Whether its project's keys act everywhere.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.owner.is_system
    }

    /// Which part of its admitted requests the log keeps.
    #[must_use]
    pub fn sample(&self) -> Sample {
        self.owner.sample
    }

    /// The person who answers for it.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        (self.user != NOBODY).then_some(self.user)
    }

    /// The state of the world that it was read from.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether its time is over, or its secret's.
    #[must_use]
    pub fn is_expired(&self, now: i64) -> bool {
        self.expires_at <= now || self.secret_expires_at <= now
    }

    /// Whether a superseded secret was shown.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.secret_expires_at != i64::MAX
    }

    fn part(&self, from: u32, to: u32) -> &str {
        self.text.get(from as usize..to as usize).unwrap_or_default()
    }

    /// Appends `"name":…`: what every answer tells of a proven key.
    pub fn write_name(&self, text: &mut Vec<u8>) {
        text.extend_from_slice(b"\"name\":");
        text.extend_from_slice(self.part(0, self.ends[0]).as_bytes());
    }

    /// Appends `"name":…,"owner":…,"scopes":[…],"metadata":{…},"expires_at":…`: what a good answer tells.
    pub fn write_fields(&self, text: &mut Vec<u8>) {
        self.write_name(text);
        text.extend_from_slice(b",\"owner\":");
        let owner = self.part(self.ends[0], self.ends[1]);
        text.extend_from_slice(if owner.is_empty() { b"null" } else { owner.as_bytes() });
        text.extend_from_slice(b",\"scopes\":[");
        text.extend_from_slice(self.part(self.ends[1], self.ends[2]).as_bytes());
        text.extend_from_slice(b"],\"metadata\":");
        let metadata = self.text.get(self.ends[2] as usize..).unwrap_or_default();
        text.extend_from_slice(if metadata.is_empty() { b"{}" } else { metadata.as_bytes() });
        text.extend_from_slice(b",\"expires_at\":");
        match Timestamp::from_micros(self.expires_at).filter(|_| self.expires_at != i64::MAX) {
            Some(end) => text.extend_from_slice(format!("\"{end}\"").as_bytes()),
            None => text.extend_from_slice(b"null"),
        }
    }

    /// Bytes that [`write_fields`](Self::write_fields) appends, about.
    #[must_use]
    pub fn fields_length(&self) -> usize {
        self.text.len() + 100
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> String {
        // Rendered by us.
        serde_json::from_str(self.part(0, self.ends[0])).unwrap_or_default()
    }

    fn held(&self) -> impl Iterator<Item = &str> {
        // Scopes hold neither quotes nor commas.
        self.part(self.ends[1], self.ends[2]).split(',').map(|quoted| quoted.trim_matches('"'))
    }

    /// Whether some scope of the key is enough for `wanted`.
    #[must_use]
    pub fn covers(&self, wanted: &str) -> bool {
        if self.owner.inactive.is_empty() {
            return self.held().any(|held| covers(held, wanted));
        }
        let is_active = |scope: &str| !self.owner.inactive.contains(scope);
        is_active(wanted) && self.held().any(|held| covers(held, wanted) && is_active(held))
    }

    /// The scopes.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        Scopes::new(self.held().filter_map(|held| held.parse::<Scope>().ok()))
    }

    /// Bytes in memory, with its share of the rules as it was when the entry was made: a cache needs a weight that stays.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::from(self.weight) * UNIT
    }
}

/// What restricts a key: the effective configuration, compiled. Keys for which the same holds share one.
#[derive(Debug)]
pub struct Rules {
    /// Its limits, shorter windows first.
    pub limits: Box<[Limit]>,
    /// Simultaneous operations; 0 is off.
    pub concurrency: u32,
    /// From where; `None` is anywhere.
    pub networks: Option<Networks>,
    /// When; `None` is always.
    pub schedule: Option<Schedule>,
    /// With which methods; `None` is any.
    pub methods: Option<Methods>,
    /// For which paths; `None` is any.
    pub paths: Option<Paths>,
    /// About how many bytes these rules take.
    bytes: usize,
    /// Whether some window must survive the end of the process.
    pub is_kept: bool,
    /// The `RateLimit-Policy` header; `None` without limits.
    pub policy: Option<HeaderValue>,
    /// For each limit: what stands before its numbers in a `RateLimit` header and in an answer.
    pub heads: Box<[Head]>,
}

/// See [`Rules::heads`].
#[derive(Debug)]
pub struct Head {
    /// `"minute";r=`
    pub header: Box<str>,
    /// `{"name":"minute","limit":60,"remaining":`
    pub json: Box<str>,
}

impl Rules {
    pub(super) fn compile(effective: Effective, bytes: usize) -> Self {
        let limits: Box<[Limit]> = effective.limits.into_iter().map(|(limit, _)| limit).collect();
        let policy = limits
            .iter()
            .map(|l| format!("\"{}\";q={};w={}", l.name, l.limit, l.window_seconds))
            .collect::<Vec<_>>()
            .join(", ");
        let heads = limits
            .iter()
            .map(|l| Head {
                header: format!("\"{}\";r=", l.name).into(),
                json: format!("{{\"name\":\"{}\",\"limit\":{},\"remaining\":", l.name, l.limit).into(),
            })
            .collect();
        Self {
            bytes,
            is_kept: limits.iter().any(|limit| limit.window_seconds >= KEPT_SECONDS),
            policy: if limits.is_empty() { None } else { HeaderValue::try_from(policy).ok() },
            heads,
            limits,
            concurrency: effective.concurrency.0,
            networks: effective.ip_allow.0,
            schedule: effective.schedule.0,
            methods: effective.method_allow.0,
            paths: effective.path_allow.0,
        }
    }
}

/// What tells two effective configurations apart.
pub(super) fn fingerprint(effective: &Effective) -> String {
    let limits: Vec<_> =
        effective.limits.iter().map(|(l, _)| json!([l.name.as_ref(), l.limit, l.window_seconds])).collect();
    let mut parts = Map::new();
    parts.insert("limits".to_owned(), json!(limits));
    parts.insert("concurrency".to_owned(), json!(effective.concurrency.0));
    parts.insert("ip".to_owned(), json!(effective.ip_allow.0));
    parts.insert("schedule".to_owned(), json!(effective.schedule.0));
    parts.insert("methods".to_owned(), json!(effective.method_allow.0));
    parts.insert("paths".to_owned(), json!(effective.path_allow.0));
    Value::Object(parts).to_string()
}
