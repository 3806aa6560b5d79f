//! Decisions about keys: no I/O and no clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::invalid::{Check, Invalid};
use crate::base::masking::holds_secret;
use crate::features::auth::permission;
use crate::features::scopes::{MAX_SCOPES, Scope, Scopes};

use super::{Key, Metadata};

/// Longest name, in characters.
pub const MAX_NAME: usize = 100;
/// Longest description, in characters.
pub const MAX_DESCRIPTION: usize = 1000;
/// Longest owner, in characters.
pub const MAX_OWNER: usize = 255;
/// Largest metadata, in bytes of JSON.
pub const MAX_METADATA: usize = 16 * 1024;

/// The longest that a superseded secret may be good: 365 days, in seconds.
pub const MAX_OVERLAP: u64 = 365 * 86_400;

/// What a key is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = KeyStatus)]
pub enum KeyState {
    /// Good.
    Active,
    /// Refused until it is enabled.
    Disabled,
    /// Refused because its time is over.
    Expired,
    /// Refused for good.
    Revoked,
    /// A superseded secret inside its overlap.
    Rotating,
}

/// What a key is. `secret_expires_at` is the end of a superseded secret's overlap.
#[must_use]
pub fn state(key: &Key, secret_expires_at: Option<Timestamp>, now: Timestamp) -> KeyState {
    let over = |end: Option<Timestamp>| end.is_some_and(|end| end <= now);
    if key.revoked_at.is_some() {
        KeyState::Revoked
    } else if key.disabled_at.is_some() {
        KeyState::Disabled
    } else if over(key.expires_at) || over(secret_expires_at) {
        KeyState::Expired
    } else if secret_expires_at.is_some() {
        KeyState::Rotating
    } else {
        KeyState::Active
    }
}

/// Why a key was revoked (the reasons of RFC 5280, section 5.3.1, that apply to keys).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// Nobody says.
    #[default]
    Unspecified,
    /// Somebody else may know it.
    KeyCompromise,
    /// Its owner has left.
    AffiliationChanged,
    /// Another key took its place.
    Superseded,
    /// What it was for has ended.
    CessationOfOperation,
}

impl RevocationReason {
    /// As stored and on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key_compromise",
            Self::AffiliationChanged => "affiliation_changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation_of_operation",
        }
    }

    /// `None` for a word that is no reason.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Unspecified, Self::KeyCompromise, Self::AffiliationChanged, Self::Superseded, Self::CessationOfOperation]
            .into_iter()
            .find(|reason| reason.word() == word)
    }
}

/// A name: 1 to 100 characters, none of them control characters.
///
/// # Errors
/// The rule.
pub fn name(text: &str) -> Result<(), Invalid> {
    text_of("name", text, 1, MAX_NAME, false)
}

/// What may be set on a key besides its name.
#[derive(Debug)]
pub struct Settings<'a> {
    /// For people.
    pub description: Option<&'a str>,
    /// Whom it is for.
    pub owner: Option<&'a str>,
    /// What it may do.
    pub scopes: Option<&'a Scopes>,
    /// Whatever its owner wants to keep.
    pub metadata: Option<&'a Metadata>,
}

/// # Errors
/// Every rule that is broken.
pub fn settings(settings: &Settings<'_>) -> Result<(), Invalid> {
    let mut check = Check::default();
    if let Some(text) = settings.description {
        check.part(description(text));
    }
    if let Some(text) = settings.owner {
        check.part(text_of("owner", text, 1, MAX_OWNER, false));
    }
    if settings.scopes.is_some_and(|scopes| scopes.len() > MAX_SCOPES) {
        check.refuse("scopes", "too_many", "must be at most 256 scopes");
    }
    if let Some(json) = settings.metadata.map(|metadata| serde_json::to_string(metadata).unwrap_or_default()) {
        if json.len() > MAX_METADATA {
            check.refuse("metadata", "too_large", "must be at most 16 KiB of JSON");
        }
        check.part(no_secret("metadata", &json));
    }
    check.finish()
}

/// Scopes that a key is given: those under `keyward:` must mean something.
///
/// # Errors
/// The rule.
pub fn known<'a>(scopes: impl IntoIterator<Item = &'a Scope>) -> Result<(), Invalid> {
    if scopes.into_iter().all(|scope| !scope.is_own() || permission::is_known(scope.as_str())) {
        Ok(())
    } else {
        let message = "holds a name under keyward: that isn't a permission; GET /v1/permissions names them";
        Err(Invalid::field("scopes", "unknown_scope", message))
    }
}

/// A note: up to 1000 characters, of control characters only those between lines and words.
///
/// # Errors
/// The rule.
pub fn note(text: &str) -> Result<(), Invalid> {
    text_of("note", text, 0, MAX_DESCRIPTION, true)
}

/// A description: up to 1000 characters, of control characters only those between lines and words.
///
/// # Errors
/// The rule.
pub fn description(text: &str) -> Result<(), Invalid> {
    text_of("description", text, 0, MAX_DESCRIPTION, true)
}

/// A reason: as a description.
///
/// # Errors
/// The rule.
pub fn reason(text: &str) -> Result<(), Invalid> {
    text_of("reason", text, 0, MAX_DESCRIPTION, true)
}

/// Nothing that is kept may hold a key: it would be shown, and sent on.
fn no_secret(field: &'static str, text: &str) -> Result<(), Invalid> {
    if holds_secret(text) {
        let message = "holds a key, a token or a webhook's secret, which is never kept";
        return Err(Invalid::field(field, "holds_secret", message));
    }
    Ok(())
}

/// A text of so many characters, none of them control characters, but for those between lines and words.
///
/// # Errors
/// The rule.
pub fn text_of(field: &'static str, text: &str, shortest: usize, longest: usize, lines: bool) -> Result<(), Invalid> {
    let length = text.chars().count();
    if length < shortest {
        return Err(Invalid::field(field, "too_short", "must not be empty"));
    }
    if length > longest {
        return Err(Invalid::field(field, "too_long", format!("must be at most {longest} characters")));
    }
    if text.chars().any(|c| c.is_control() && !(lines && matches!(c, '\n' | '\t' | '\r'))) {
        return Err(Invalid::field(field, "invalid_value", "must not hold control characters"));
    }
    no_secret(field, text)
}

/// How long superseded secrets are good: at most 365 days; 0 ends them at once.
///
/// # Errors
/// The rule.
pub fn overlap(span: Seconds) -> Result<Duration, Invalid> {
    if span.get() > MAX_OVERLAP {
        return Err(Invalid::field("overlap", "too_long", "must be at most 365 days"));
    }
    Ok(span.as_duration())
}

/// What one of a key's secrets is, whatever the key's own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = SecretStatus)]
pub enum SecretState {
    /// The present one.
    Active,
    /// Superseded, inside its overlap.
    Rotating,
    /// Superseded, and not good any more.
    Expired,
}

/// What a secret is that ends at `expires_at`; the present one doesn't.
#[must_use]
pub fn secret_state(expires_at: Option<Timestamp>, now: Timestamp) -> SecretState {
    match expires_at {
        None => SecretState::Active,
        Some(end) if end > now => SecretState::Rotating,
        Some(_) => SecretState::Expired,
    }
}

/// When a key ends that is told so at `now`: after a span, or at a time in the future; whichever is first, if both are
/// given; never after the year 9999.
///
/// # Errors
/// The rule.
pub fn expiry(
    expires_in: Option<Seconds>,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<Timestamp>, Invalid> {
    if expires_in.is_some_and(|span| span.get() == 0) {
        return Err(Invalid::field("expires_in", "invalid_value", "must be at least one second"));
    }
    if expires_at.is_some_and(|at| at <= now) {
        return Err(Invalid::field("expires_at", "invalid_value", "must be in the future"));
    }
    let end = expires_in.map(|span| now.saturating_add(span.as_duration()));
    Ok(end.into_iter().chain(expires_at).min().map(|end| end.min(Timestamp::FAR)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_decided_in_order() {
        let now = Timestamp::from_micros(1_000_000).unwrap();
        let before = Timestamp::from_micros(999_999);
        let after = Timestamp::from_micros(1_000_001);
        let key = |revoked, disabled, expires| Key {
            revoked_at: revoked,
            disabled_at: disabled,
            expires_at: expires,
            ..Key::example()
        };
        for (key, secret, expected) in [
            (key(before, before, before), None, KeyState::Revoked),
            (key(None, before, before), None, KeyState::Disabled),
            (key(None, None, before), None, KeyState::Expired),
            (key(None, None, Some(now)), None, KeyState::Expired),
            (key(None, None, after), None, KeyState::Active),
            (key(None, None, None), Some(now), KeyState::Expired),
            (key(None, None, None), after, KeyState::Rotating),
        ] {
            assert_eq!(state(&key, secret, now), expected);
        }
    }

    #[test]
    fn expiries_are_in_the_future() {
        let now = Timestamp::EPOCH.saturating_add(std::time::Duration::from_secs(10));
        let span = |s| Some(Seconds::new(s).unwrap());
        assert_eq!(expiry(None, None, now), Ok(None));
        assert_eq!(expiry(span(5), None, now).unwrap().unwrap().as_micros(), 15_000_000);
        assert!(expiry(span(0), None, now).is_err());
        assert!(expiry(None, Some(now), now).is_err());
        assert_eq!(expiry(span(5), Some(Timestamp::FAR), now), expiry(span(5), None, now));
        let beyond = Timestamp::FAR.saturating_add(std::time::Duration::from_secs(1));
        assert_eq!(expiry(None, Some(beyond), now), Ok(Some(Timestamp::FAR)));
    }

    #[test]
    fn overlaps_are_a_year_at_most() {
        let of = |seconds| overlap(Seconds::new(seconds).unwrap());
        assert_eq!((of(0), of(MAX_OVERLAP)), (Ok(Duration::ZERO), Ok(Duration::from_hours(365 * 24))));
        assert!(of(MAX_OVERLAP + 1).is_err());
    }

    #[test]
    fn secrets_end_at_their_end() {
        let at = Timestamp::from_micros;
        let now = at(10).unwrap();
        assert_eq!(secret_state(None, now), SecretState::Active);
        assert_eq!(secret_state(at(11), now), SecretState::Rotating);
        assert_eq!(secret_state(at(10), now), SecretState::Expired);
    }

    #[test]
    fn texts_are_bounded() {
        assert!(name("ok").is_ok() && name(&"ä".repeat(100)).is_ok());
        for bad in ["", "a\nb", &"x".repeat(101), "\u{7f}"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
        let description =
            |text| settings(&Settings { description: Some(text), owner: None, scopes: None, metadata: None });
        assert!(description("two\nlines").is_ok() && description("").is_ok() && description("\u{1b}[31m").is_err());
    }
}
