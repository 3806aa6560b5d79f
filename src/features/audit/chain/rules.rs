//! What is hashed and what is signed: the canonical form of an entry, its link to the one before, and the statement about a
//! place in the chain. `docs/audit.md` describes the same for whoever writes a verifier of their own.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::base::clock::Timestamp;

/// A SHA-256.
pub type Hash = [u8; 32];

/// What the first entry names as the hash before it.
pub const START: Hash = [0; 32];

/// What every signed message begins with, so that the key's signatures mean nothing elsewhere.
const DOMAIN: &[u8] = b"keyward-audit-v1\n";

/// The largest integer that every reader of JSON reads exactly (RFC 7493, 2.2).
const MAX_EXACT: f64 = 9_007_199_254_740_991.0;

/// Who acted, as the trail says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordActor {
    /// `user`, `key`, `system` or `anonymous`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id, where there is one.
    pub id: Option<String>,
    /// The name, where there is one.
    pub name: Option<String>,
}

/// What was acted on, as the trail says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordResource {
    /// What kind of thing.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which one.
    pub id: Option<String>,
}

/// A sealed entry. Everything is plain text, so that whatever stands there after a manipulation can be read and judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The entry's id.
    pub id: String,
    /// Its place in the chain, from 1.
    pub seq: i64,
    /// When it happened.
    pub at: String,
    /// Who.
    pub actor: RecordActor,
    /// What.
    pub action: String,
    /// On what.
    pub resource: RecordResource,
    /// In which project.
    pub project_id: Option<String>,
    /// How it ended.
    pub outcome: String,
    /// Through which request.
    pub request_id: Option<String>,
    /// From which address.
    pub ip: Option<String>,
    /// With which program.
    pub user_agent: Option<String>,
    /// What is different.
    pub changes: Option<Value>,
    /// The hash of the entry before, in hexadecimal.
    pub previous_hash: String,
    /// The hash of all of this, in hexadecimal. Not part of what is hashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

impl Record {
    /// The hash of what the entry says, at a place and after another.
    #[must_use]
    pub fn digest(&self, seq: i64, previous: &Hash) -> Hash {
        let placed = Self { seq, previous_hash: hex::encode(previous), hash: None, ..self.clone() };
        Sha256::digest(canonical(&placed)).into()
    }

    /// The hash that stands in it.
    #[must_use]
    pub fn stored_hash(&self) -> Option<Hash> {
        parse_hash(self.hash.as_deref()?)
    }

    /// The hash before it that stands in it.
    #[must_use]
    pub fn stored_previous(&self) -> Option<Hash> {
        parse_hash(&self.previous_hash)
    }

    /// As a line of an export.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        canonical(self)
    }
}

/// From hexadecimal digits in lower case.
#[must_use]
pub fn parse_hash(text: &str) -> Option<Hash> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    hex::decode(text).ok()?.try_into().ok()
}

/// The canonical form of JSON (RFC 8785).
#[must_use]
pub fn canonical(value: &impl Serialize) -> Vec<u8> {
    // Our own types have text keys and finite numbers: they always serialise.
    serde_json_canonicalizer::to_vec(value).unwrap_or_default()
}

/// Numbers that not every reader of JSON reads exactly become text, with all their digits: an edit of the last one of them
/// changes the hash, and no reader rounds it. Says whether there was one.
pub fn make_exact(value: &mut Value) -> bool {
    match value {
        Value::Number(number) => {
            if number.as_f64().is_some_and(|n| n.abs() <= MAX_EXACT) && is_same_as_double(number) {
                return false;
            }
            *value = Value::String(number.to_string());
            true
        }
        Value::Array(values) => values.iter_mut().map(make_exact).fold(false, |any, one| any | one),
        Value::Object(members) => members.values_mut().map(make_exact).fold(false, |any, one| any | one),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// Whether an integer is within the exact ones; 2^53 itself is rounded to by its neighbour.
fn is_same_as_double(number: &serde_json::Number) -> bool {
    const MAX: i64 = 9_007_199_254_740_991;
    match (number.as_i64(), number.as_u64()) {
        (Some(n), _) => (-MAX..=MAX).contains(&n),
        (None, Some(_)) => false,
        (None, None) => true,
    }
}

/// What a signed statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The newest entry of its moment.
    Head,
    /// The last entry of those that were pruned.
    Pruned,
}

impl Kind {
    /// As stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Pruned => "pruned",
        }
    }

    /// `None` for another word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Head, Self::Pruned].into_iter().find(|kind| kind.word() == word)
    }
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: Kind,
    seq: i64,
    hash: &'a str,
    at: Timestamp,
}

/// The bytes that are signed: the domain, and the canonical form of `{type, seq, hash, at}`.
#[must_use]
pub fn message(kind: Kind, seq: i64, hash: &Hash, at: Timestamp) -> Vec<u8> {
    let hash = hex::encode(hash);
    [DOMAIN, &canonical(&Message { kind, seq, hash: &hash, at })].concat()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    pub(in super::super) fn record(seq: i64, name: &str) -> Record {
        Record {
            id: format!("aud_{seq}"),
            seq,
            at: "2031-05-06T12:00:00Z".to_owned(),
            actor: RecordActor { kind: "user".to_owned(), id: Some("usr_1".to_owned()), name: Some(name.to_owned()) },
            action: "key.create".to_owned(),
            resource: RecordResource { kind: "key".to_owned(), id: None },
            project_id: None,
            outcome: "success".to_owned(),
            request_id: Some("r".to_owned()),
            ip: None,
            user_agent: None,
            changes: Some(json!({"after": {"limit": 5}})),
            previous_hash: hex::encode(START),
            hash: None,
        }
    }

    #[test]
    fn the_form_is_the_one_that_the_documentation_shows() {
        let mut entry = record(1, "ada");
        let text = concat!(
            r#"{"action":"key.create","actor":{"id":"usr_1","name":"ada","type":"user"},"at":"2031-05-06T12:00:00Z","#,
            r#""changes":{"after":{"limit":5}},"id":"aud_1","ip":null,"outcome":"success","#,
            r#""previous_hash":"0000000000000000000000000000000000000000000000000000000000000000","#,
            r#""project_id":null,"request_id":"r","resource":{"id":null,"type":"key"},"seq":1,"user_agent":null}"#
        );
        assert_eq!(String::from_utf8(canonical(&entry)).unwrap(), text);
        let digest = entry.digest(1, &START);
        assert_eq!(digest, <Hash>::from(Sha256::digest(text)));
        // The hash that stands in an entry isn't part of it.
        entry.hash = Some(hex::encode(digest));
        assert_eq!(entry.digest(1, &START), digest);
        assert_ne!(entry.digest(2, &START), digest);
        assert_ne!(entry.digest(1, &[1; 32]), digest);
    }

    #[test]
    fn large_numbers_become_text() {
        let mut value = json!({"a": [9_007_199_254_740_991_i64, 9_007_199_254_740_992_i64, -9_007_199_254_740_993_i64],
            "b": {"c": u64::MAX, "d": 1e300, "e": 0.1, "f": -0.0, "g": "9007199254740993"}});
        assert!(make_exact(&mut value));
        assert_eq!(
            value,
            json!({"a": [9_007_199_254_740_991_i64, "9007199254740992", "-9007199254740993"],
                "b": {"c": "18446744073709551615", "d": "1e+300", "e": 0.1, "f": -0.0, "g": "9007199254740993"}})
        );
        assert!(!make_exact(&mut value), "once is enough");
    }

    #[test]
    fn a_statement_is_about_its_kind_and_place() {
        let at = Timestamp::EPOCH;
        let text = String::from_utf8(message(Kind::Head, 7, &START, at)).unwrap();
        let hash = "0".repeat(64);
        assert_eq!(
            text,
            format!(
                "keyward-audit-v1\n{{\"at\":\"1970-01-01T00:00:00Z\",\"hash\":\"{hash}\",\"seq\":7,\"type\":\"head\"}}"
            )
        );
        assert_ne!(message(Kind::Head, 7, &START, at), message(Kind::Pruned, 7, &START, at));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>()
                .prop_filter_map("JSON has no infinity", |n| serde_json::Number::from_f64(n).map(Value::Number)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_canonical_form_reads_back_as_itself(mut value in any_json()) {
            make_exact(&mut value);
            let text = canonical(&value);
            let again: Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(canonical(&again), text);
        }

        #[test]
        fn what_differs_has_another_hash(mut a in any_json(), mut b in any_json()) {
            make_exact(&mut a);
            make_exact(&mut b);
            let hash = |changes: &Value| Record { changes: Some(changes.clone()), ..record(1, "x") }.digest(1, &START);
            // Texts of another form of the same double are the same number.
            if canonical(&a) == canonical(&b) {
                prop_assert_eq!(hash(&a), hash(&b));
            } else {
                prop_assert_ne!(hash(&a), hash(&b));
            }
        }
    }
}
