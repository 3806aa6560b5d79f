//! What is decided about webhooks and deliveries, without I/O and without a clock.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type,
};

use crate::base::clock::Timestamp;
use crate::base::duration::Seconds;
use crate::base::id::{KeyId, ProjectId, WebhookId};
use crate::base::invalid::{Check, Invalid};
use crate::base::masking::mask_secrets;
use crate::base::rng::Rng;
use crate::features::events::catalogue;

use super::{Disabled, Filter, sign};

/// The most entries of a list of events.
pub const MAX_EVENTS: usize = 100;
/// The most members of a filter's metadata.
const MAX_METADATA: usize = 16;
/// The longest name, and the longest text, of a member of it, in characters.
const MAX_MEMBER: usize = 256;
/// The longest overlap of two secrets.
const MAX_OVERLAP: u64 = 7 * 86_400;
/// The longest that an endpoint may put an attempt off.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);
/// Bytes of an answer that are kept.
pub const ANSWER_BYTES: usize = 1024;

/// What is wrong with a list of events; the list without repetitions.
///
/// # Errors
/// It is empty or too long, or something in it means no event.
pub fn events(events: Vec<String>) -> Result<Vec<String>, Invalid> {
    let mut check = Check::default();
    if events.is_empty() || events.len() > MAX_EVENTS {
        let message = "must hold 1 to 100 types of events, or \"*\"";
        check.refuse("events", "invalid_value", message);
    }
    let mut wanted: Vec<String> = Vec::new();
    for (place, pattern) in events.into_iter().take(MAX_EVENTS).enumerate() {
        if catalogue::matching(&pattern).is_empty() {
            let message = format!("is no type of event; did you mean {}?", nearest(&pattern));
            check.refuse(format!("events[{place}]"), "unknown_event_type", message);
        } else if !wanted.contains(&pattern) {
            wanted.push(pattern);
        }
    }
    check.finish()?;
    Ok(wanted)
}

/// The schema of a list of events: the catalogue's names, and what stands for several of them.
#[must_use]
pub fn events_schema() -> Schema {
    let groups: BTreeSet<&str> = catalogue::all().filter_map(|kind| kind.name.split('.').next()).collect();
    let mut names: Vec<String> = catalogue::all().map(|kind| kind.name.to_owned()).collect();
    names.extend(groups.into_iter().map(|group| format!("{group}.*")));
    names.push("*".to_owned());
    let list = ArrayBuilder::new()
        .items(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)))
        .min_items(Some(1))
        .max_items(Some(MAX_EVENTS))
        .description(Some("Which events: names of types, `key.*` for all of a kind, `*` for all."));
    Schema::Array(list.build())
}

/// The type of event whose name is most like a text.
#[must_use]
pub fn nearest(text: &str) -> &'static str {
    let text: String = text.chars().take(64).collect();
    let names = catalogue::all().map(|kind| kind.name);
    names.min_by_key(|name| strsim::damerau_levenshtein(&text.to_lowercase(), name)).unwrap_or("*")
}

/// What is wrong with a filter. One that says nothing is none.
///
/// # Errors
/// Its metadata.
pub fn filter(filter: Option<Filter>) -> Result<Option<Filter>, Invalid> {
    let mut check = Check::default();
    let metadata = filter.as_ref().and_then(|filter| filter.metadata.as_ref());
    if metadata.is_some_and(|metadata| metadata.len() > MAX_METADATA) {
        check.refuse("filter.metadata", "invalid_value", "must have at most 16 members");
    }
    let is_short = |text: &str| text.chars().count() <= MAX_MEMBER;
    for (name, value) in metadata.into_iter().flatten() {
        let is_plain = match value {
            Value::String(text) => is_short(text),
            Value::Number(_) | Value::Bool(_) => true,
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        if !is_short(name) || !is_plain {
            let message = "must be texts of at most 256 characters, numbers, true or false";
            check.refuse("filter.metadata", "invalid_value", message);
        }
    }
    check.finish()?;
    let says = |filter: &Filter| filter.key_id.is_some() || filter.metadata.as_ref().is_some_and(|m| !m.is_empty());
    Ok(filter.filter(says))
}

/// The schema of a filter's metadata.
#[must_use]
pub fn metadata_schema() -> Schema {
    let text =
        ObjectBuilder::new().schema_type(Type::String).max_length(Some(MAX_MEMBER)).pattern(Some("^[^\\u0000]*$"));
    let value = OneOfBuilder::new()
        .item(text)
        .item(ObjectBuilder::new().schema_type(Type::Number))
        .item(ObjectBuilder::new().schema_type(Type::Boolean));
    let names =
        ObjectBuilder::new().schema_type(Type::String).max_length(Some(MAX_MEMBER)).pattern(Some("^[^\\u0000]*$"));
    let names: Schema = names.into();
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some("Events of keys whose metadata has all of these members with these values."))
        .property_names(Some(names))
        .additional_properties(Some(AdditionalProperties::RefOr(value.into())))
        .max_properties(Some(MAX_METADATA))
        .build()
        .into()
}

/// How long a former secret signs, too.
///
/// # Errors
/// More than 7 days.
pub fn overlap(overlap: Option<Seconds>) -> Result<Duration, Invalid> {
    let overlap = overlap.map_or(86_400, Seconds::get);
    if overlap > MAX_OVERLAP {
        return Err(Invalid::field("overlap", "invalid_value", "must be at most 7 days"));
    }
    Ok(Duration::from_secs(overlap))
}

/// A URL without what may be secret in it: its path, query and fragment.
#[must_use]
pub fn masked_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "…".to_owned() };
    let host = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    if rest.len() == host.len() || rest == format!("{host}/") {
        return url.to_owned();
    }
    format!("{scheme}://{host}/…")
}

/// What of an event decides who gets it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its type.
    pub kind: &'a str,
    /// Whose.
    pub project: ProjectId,
    /// Of which thing.
    pub resource_id: &'a str,
    /// The thing.
    pub data: &'a Value,
}

impl Facts<'_> {
    /// The key that it is about, if it is about one.
    fn key(&self) -> Option<KeyId> {
        let member = |name: &str| self.data.get(name).and_then(Value::as_str).and_then(|id| id.parse().ok());
        self.resource_id.parse().ok().or_else(|| member("id")).or_else(|| member("key_id"))
    }
}

/// Whether an event is one of those that a list names.
#[must_use]
pub fn names(events: &[String], kind: &str) -> bool {
    events.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => kind.starts_with(beginning),
        None => pattern == kind,
    })
}

/// Whether a webhook gets an event. What happens to itself it isn't told: it may be what can't be reached.
#[must_use]
pub fn wants(id: WebhookId, events: &[String], filter: Option<&Filter>, event: &Facts<'_>) -> bool {
    let is_own = event.kind.starts_with("webhook.") && event.resource_id == id.to_string();
    names(events, event.kind) && !is_own && filter.is_none_or(|filter| admits(filter, event))
}

fn admits(filter: &Filter, event: &Facts<'_>) -> bool {
    let Some(key) = event.key() else { return false };
    let empty = Map::new();
    let has = event.data.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let none = BTreeMap::new();
    let mut wanted = filter.metadata.as_ref().unwrap_or(&none).iter();
    filter.key_id.is_none_or(|wanted| wanted == key)
        && wanted.all(|(name, value)| has.get(name).is_some_and(|v| same(v, value)))
}

/// Equality in which 1 and 1.0 are the same number.
fn same(one: &Value, other: &Value) -> bool {
    one == other || (one.is_number() && one.as_f64() == other.as_f64())
}

/// What is sent: always the same bytes for an event.
#[must_use]
pub fn body(kind: &str, at: Timestamp, data: &Value) -> String {
    // Not `json!`, which would put the members in alphabetical order.
    let (kind, at) = (json!(kind), json!(at));
    format!(r#"{{"type":{kind},"timestamp":{at},"data":{data}}}"#)
}

/// When a delivery that has been tried so often is tried again; `None` if it isn't.
///
/// `tries` counts the attempt that has just failed. An endpoint's wish to be left alone longer is granted up to 24 hours; one
/// to be asked earlier isn't, since its own schedule is the operator's.
#[must_use]
pub fn next_try(
    now: Timestamp,
    retries: &[Duration],
    max_attempts: Option<u32>,
    tries: i64,
    retry_after: Option<Duration>,
    rng: &dyn Rng,
) -> Option<Timestamp> {
    if max_attempts.is_some_and(|most| tries >= i64::from(most)) {
        return None;
    }
    let pause = retries.get(usize::try_from(tries.saturating_sub(1)).ok()?)?;
    let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
    Some(now.saturating_add(jittered(*pause, rng).max(asked)))
}

/// A span, a tenth longer or shorter at the most: so that what failed together isn't tried together.
#[must_use]
pub fn jittered(span: Duration, rng: &dyn Rng) -> Duration {
    let mut random = [0; 4];
    rng.fill(&mut random);
    let share = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
    span.mul_f64(0.9 + 0.2 * share)
}

/// Whether an endpoint is to be switched off after attempts that failed.
#[must_use]
pub fn disables(gone: bool, failing_since: Option<Timestamp>, now: Timestamp, after: Duration) -> Option<Disabled> {
    let is_failing = !after.is_zero() && failing_since.is_some_and(|since| now.since(since) >= after);
    if gone { Some(Disabled::Gone) } else { is_failing.then_some(Disabled::Failing) }
}

/// The beginning of an answer as it is kept: text without control characters, without secrets of Keyward's, and without this
/// webhook's own, in whatever form it was sent.
#[must_use]
pub fn kept_answer(answer: &[u8], secrets: &[Vec<u8>], signatures: &str) -> Option<String> {
    if answer.is_empty() {
        return None;
    }
    // A character that the bound cut in two isn't the endpoint's.
    let text = String::from_utf8_lossy(&answer[..answer.len().min(ANSWER_BYTES)]);
    let text = text.strip_suffix('\u{fffd}').filter(|_| answer.len() >= ANSWER_BYTES).unwrap_or(&text);
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    for secret in secrets {
        let encoded = STANDARD.encode(secret);
        for form in [encoded.trim_end_matches('='), &hex::encode(secret)] {
            if text.contains(form) {
                text = text.replace(form, "[masked]");
            }
        }
    }
    for signature in signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,")) {
        let signature = signature.trim_end_matches('=');
        if !signature.is_empty() && text.contains(signature) {
            text = text.replace(signature, "[masked]");
        }
    }
    if text.contains("[masked]=") {
        text = text.replace("[masked]=", "[masked]");
    }
    // What the bound has cut off is no secret any more, but most of one.
    let is_cut = |start: &usize| {
        let rest = &text[*start..];
        answer.len() >= ANSWER_BYTES && rest.len() < 64 && !rest.contains("[masked]")
    };
    if let Some(start) = text.rfind(sign::PREFIX).filter(is_cut) {
        text.truncate(start);
    }
    let text = match mask_secrets(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(masked) => masked,
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::SystemRng;

    const KEY: &str = "key_01K5ZV8QXW3M7C2R9T4B6D8F0G";
    const HOOK: &str = "whk_01K5ZV8QXW3M7C2R9T4B6D8F0G";

    #[test]
    fn what_may_be_secret_in_a_url_is_masked() {
        for (url, masked) in [
            ("https://example.com", "https://example.com"),
            ("https://example.com/", "https://example.com/"),
            ("https://example.com:8443/hooks/abc", "https://example.com:8443/…"),
            ("https://example.com?token=abc", "https://example.com/…"),
            ("https://example.com/#abc", "https://example.com/…"),
            ("https://user:pw@example.com/", "https://example.com/…"),
            ("nonsense", "…"),
        ] {
            assert_eq!(masked_url(url), masked, "{url}");
        }
    }

    #[test]
    fn a_webhook_gets_what_it_names_and_nothing_about_itself() {
        let id: WebhookId = HOOK.parse().unwrap();
        let data = json!({"id": KEY, "metadata": {"team": "billing", "tier": 1}});
        let event = |kind: &'static str, resource_id: &'static str| -> Facts<'_> {
            Facts { kind, project: ProjectId::from_bits(1), resource_id, data: &data }
        };
        let all = ["*".to_owned()];
        let of_keys = ["key.*".to_owned(), "limit.reached".to_owned()];
        assert!(wants(id, &all, None, &event("webhook.failed", "whk_other")));
        assert!(!wants(id, &all, None, &event("webhook.failed", HOOK)));
        assert!(wants(id, &of_keys, None, &event("key.created", KEY)));
        assert!(wants(id, &of_keys, None, &event("limit.reached", KEY)));
        assert!(!wants(id, &of_keys, None, &event("limit.reached.more", KEY)));
        assert!(!wants(id, &of_keys, None, &event("project.updated", "prj_x")));
        let metadata = |value: Value| {
            let Value::Object(members) = value else { panic!("no object") };
            Some(members.into_iter().collect::<BTreeMap<_, _>>())
        };
        for (filter, fits) in [
            (Filter { key_id: KEY.parse().ok(), metadata: None }, true),
            (Filter { key_id: Some(KeyId::from_bits(7)), metadata: None }, false),
            (Filter { key_id: None, metadata: metadata(json!({"team": "billing", "tier": 1.0})) }, true),
            (Filter { key_id: None, metadata: metadata(json!({"team": "billing", "tier": "1"})) }, false),
            (Filter { key_id: None, metadata: metadata(json!({"other": "billing"})) }, false),
        ] {
            assert_eq!(wants(id, &all, Some(&filter), &event("limit.reached", "x")), fits, "{filter:?}");
        }
        let nothing = json!({"metadata": {"team": "billing"}});
        let keyless = Facts { data: &nothing, ..event("project.updated", "prj_x") };
        let filter = Filter { key_id: None, metadata: metadata(json!({"team": "billing"})) };
        assert!(!wants(id, &all, Some(&filter), &keyless));
    }

    #[test]
    fn the_next_try_follows_the_schedule_within_a_tenth() {
        let retries = [5, 300].map(Duration::from_secs);
        let now = Timestamp::EPOCH;
        let next = |tries, most, after: Option<u64>| {
            let after = after.map(Duration::from_secs);
            next_try(now, &retries, most, tries, after, &SystemRng).map(|at| at.since(now).as_secs_f64())
        };
        for _ in 0..100 {
            assert!((4.5..=5.5).contains(&next(1, None, None).unwrap()));
            assert!((270.0..=330.0).contains(&next(2, Some(3), Some(1)).unwrap()));
        }
        assert_eq!(next(3, None, None), None);
        assert_eq!((next(1, Some(1), None), next(2, Some(2), Some(60))), (None, None));
        assert_eq!(next(1, None, Some(600)), Some(600.0));
        assert_eq!(next(1, None, Some(u64::MAX / 4)), Some(86_400.0));
        assert_eq!(jittered(Duration::ZERO, &SystemRng), Duration::ZERO);
    }

    #[test]
    fn endpoints_are_switched_off_when_they_are_gone_or_have_failed_for_long() {
        let days = |days: u64| Timestamp::EPOCH.saturating_add(Duration::from_hours(24 * days));
        let after = Duration::from_hours(24 * 5);
        let since = Some(Timestamp::EPOCH);
        assert_eq!(disables(true, None, days(0), after), Some(Disabled::Gone));
        assert_eq!(disables(false, since, days(5), after), Some(Disabled::Failing));
        assert_eq!(disables(false, since, days(4), after), None);
        assert_eq!(disables(false, None, days(9), after), None);
        assert_eq!(disables(false, since, days(9), Duration::ZERO), None);
    }

    #[test]
    fn an_answer_is_kept_without_secrets_and_control_characters() {
        let secret = vec![7; 32];
        let kept =
            |answer: &[u8]| kept_answer(answer, std::slice::from_ref(&secret), "v1,c2lnbmVk").unwrap_or_default();
        assert_eq!(kept_answer(b"", &[], ""), None);
        assert_eq!(kept(b"a\0b\r\n\x1b[31mc\xff"), "a b   [31mc\u{fffd}");
        let shown = sign::shown(&secret);
        let masked = kept(format!("<{}> v1,c2lnbmVk {}", shown.expose(), hex::encode(&secret)).as_bytes());
        assert_eq!(masked, "<whsec_[masked]> v1,[masked] [masked]");
        // A character that the bound cuts in two goes; so does most of a secret.
        let long = [vec![b'x'; ANSWER_BYTES - 1], "é".as_bytes().to_vec()].concat();
        assert_eq!(kept(&long), "x".repeat(ANSWER_BYTES - 1));
        let cut = [vec![b'x'; ANSWER_BYTES - 20], shown.expose().as_bytes().to_vec()].concat();
        assert_eq!(kept(&cut), "x".repeat(ANSWER_BYTES - 20));
    }

    #[test]
    fn a_body_has_three_members_in_their_order() {
        let at = Timestamp::parse("2026-11-20T12:00:00Z").unwrap();
        let text = body("key.created", at, &json!({"a": "é\"\n"}));
        assert_eq!(text, r#"{"type":"key.created","timestamp":"2026-11-20T12:00:00Z","data":{"a":"é\"\n"}}"#);
    }

    #[test]
    fn an_unknown_type_is_answered_with_the_nearest() {
        assert_eq!((nearest("key.revokd"), nearest("Webhook.Failed")), ("key.revoked", "webhook.failed"));
        let refused = events(vec!["key.*".to_owned(), "quota".to_owned()]).unwrap_err();
        assert_eq!((&*refused.0[0].field, &*refused.0[0].code), ("events[1]", "unknown_event_type"));
        assert!(events(Vec::new()).is_err() && events(vec!["*".to_owned(); 101]).is_err());
        assert_eq!(events(vec!["*".to_owned(); 3]).unwrap(), ["*"]);
    }
}
