//! One key as a line of an import or an export: its form, and the rules that need nothing but the line.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

use crate::base::clock::Timestamp;
use crate::base::invalid::{Check, FieldError, Invalid};
use crate::base::object::Object;
use crate::features::keys::rules::RevocationReason;
use crate::features::keys::{Metadata, rules};
use crate::features::scopes::Scopes;
use crate::gate::restrict::{Methods, Networks, Paths, Schedule};
use crate::gate::{Digest, Limits};
use crate::web::extract::json;

/// The longest line in bytes: room for the largest metadata and the most scopes.
pub const MAX_LINE: usize = 256 * 1024;
/// The most superseded secrets of one key.
pub const MAX_OLDER: usize = 4;
/// How far the clock may be ahead that another machine's keys were made by.
const SKEW: Duration = Duration::from_mins(5);
/// What a key is called that comes without a name.
const UNNAMED: &str = "imported";
/// A text of fewer bytes is no secret worth the name, and may be what people call their key.
const TELLING: usize = 20;
/// SHA-256 of the empty text: what a script makes of a variable that isn't set.
const OF_NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// How secrets are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = HashAlgorithm)]
pub enum Algorithm {
    /// SHA-256 of the whole key.
    Sha256,
}

/// A key that moves.
#[derive(Clone, Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "hash": "ee1b0a2b21e3c7d9b9e7d2a0a9b6a5b9f4ad31c1d9e2f8f2a4d6b1f6f4d3c2b1", "prefix": "sk_live", "start": "4eC3",
    "end": "dp7d", "name": "customer-42", "owner": "customer-42", "scopes": ["orders:read"],
    "created_at": "2024-02-29T08:00:00Z", "expires_at": "2099-12-31T23:59:59Z"
}))]
pub struct MovedKey {
    /// SHA-256 of the whole key: 64 hexadecimal digits, or base64 of either alphabet, with or without padding.
    #[schema(
        min_length = 43,
        max_length = 64,
        pattern = "^([0-9a-fA-F]{64}|[A-Za-z0-9+/_-]{42}[AEIMQUYcgkosw048]=?)$"
    )]
    pub hash: String,
    /// How it was hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// What the key begins with, for people. Never the key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64, pattern = "^[!-~]*$", example = "sk_live")]
    pub prefix: Option<String>,
    /// The four characters after the prefix, or fewer, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4, pattern = "^[!-~]*$", example = "4eC3")]
    pub start: Option<String>,
    /// The last four characters, or fewer, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4, pattern = "^[!-~]*$", example = "dp7d")]
    pub end: Option<String>,
    /// For people: 1 to 100 characters; `imported` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
        example = "customer-42"
    )]
    pub name: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    pub description: Option<String>,
    /// Whom it is for, in the project's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
        example = "customer-42"
    )]
    pub owner: Option<String>,
    /// What it may do. Nobody brings in what they don't hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["orders:read"]))]
    pub scopes: Option<Scopes>,
    /// Whatever the owner wants to keep with it: at most 16 KiB of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, example = json!({"team": "billing"}))]
    pub metadata: Option<Metadata>,
    /// Until when it lasts, be it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, example = "2099-12-31T23:59:59Z")]
    pub expires_at: Option<Timestamp>,
    /// When it was made: not before 1970, not in the future. Now, where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, example = "2024-02-29T08:00:00Z")]
    pub created_at: Option<Timestamp>,
    /// Refused until somebody enables it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub disabled: Option<bool>,
    /// Refused for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub revoked: Option<bool>,
    /// Since when it is refused for good; says the same as `revoked`. Not in the future.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, example = "2024-03-01T08:00:00Z")]
    pub revoked_at: Option<Timestamp>,
    /// Why; of a revoked key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_reason: Option<RevocationReason>,
    /// Why, in somebody's words; of a revoked key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    pub revoked_note: Option<String>,
    /// Its limits, in place of its project's of the same names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Simultaneous operations; 0 is off.
    #[serde(
        default,
        deserialize_with = "crate::features::keys::create::concurrency",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub concurrency: Option<u32>,
    /// Networks from which it may be used. An empty list means nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_allow: Option<Networks>,
    /// When it may be used. An empty list means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Methods for which it may be used. An empty list means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method_allow: Option<Methods>,
    /// Paths for which it may be used. An empty list means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_allow: Option<Paths>,
    /// Superseded secrets that still work, oldest first.
    #[serde(default, deserialize_with = "objects", skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Option<Vec<OlderSecret>>, max_items = 4)]
    pub older: Vec<OlderSecret>,
}

/// A superseded secret of a key.
#[derive(Clone, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OlderSecret {
    /// SHA-256 of the whole key as it was then.
    #[schema(
        min_length = 43,
        max_length = 64,
        pattern = "^([0-9a-fA-F]{64}|[A-Za-z0-9+/_-]{42}[AEIMQUYcgkosw048]=?)$"
    )]
    pub hash: String,
    /// What it begins with, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64, pattern = "^[!-~]*$", example = "sk_live")]
    pub prefix: Option<String>,
    /// The four characters after the prefix, or fewer, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4, pattern = "^[!-~]*$", example = "4eC3")]
    pub start: Option<String>,
    /// The last four characters, or fewer, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4, pattern = "^[!-~]*$", example = "dp7d")]
    pub end: Option<String>,
    /// Until when it works.
    #[schema(value_type = String, format = DateTime, example = "2099-12-31T23:59:59Z")]
    pub expires_at: Timestamp,
}

fn objects<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<OlderSecret>, D::Error> {
    let objects = Option::<Vec<Object<OlderSecret>>>::deserialize(deserializer)?;
    Ok(objects.into_iter().flatten().map(|Object(older)| older).collect())
}

/// A line that breaks none of the rules here.
#[derive(Clone, Debug)]
pub struct Line {
    /// What its present secret is found by.
    pub hash: Digest,
    /// What its superseded secrets are found by, in the order of `key.older`.
    pub older: Vec<Digest>,
    /// The rest, with `name`, `created_at` and, of a revoked key, `revoked_at` filled in.
    pub key: MovedKey,
}

/// Reads a line.
///
/// # Errors
/// Every rule that is broken; the field is `line` where the whole of it is wrong.
pub fn read(text: &[u8], now: Timestamp) -> Result<Line, Vec<FieldError>> {
    if text.len() > MAX_LINE {
        return Err(Invalid::field("line", "too_long", "must be at most 256 KiB").0);
    }
    let key: MovedKey = json::parse(text).map_err(|problem| {
        if problem.errors().is_empty() {
            let message = problem.detail().replace("The body", "the line").replace("line 1 column", "column");
            return Invalid::field("line", problem.code(), message).0;
        }
        let whole = |error: &FieldError| FieldError {
            field: if error.field == "body" { "line".into() } else { error.field.clone() },
            ..error.clone()
        };
        problem.errors().iter().map(whole).collect()
    })?;
    check(key, now).map_err(|invalid| invalid.0)
}

fn check(mut key: MovedKey, now: Timestamp) -> Result<Line, Invalid> {
    let mut check = Check::default();
    let hash = check.part(digest("hash".to_owned(), &key.hash));
    let older: Vec<Option<Digest>> = key
        .older
        .iter()
        .enumerate()
        .map(|(i, older)| {
            check.part(shown(&format!("older[{i}]."), [&older.prefix, &older.start, &older.end]));
            check.part(digest(format!("older[{i}].hash"), &older.hash))
        })
        .collect();
    if key.older.len() > MAX_OLDER {
        check.refuse("older", "too_many", "must be at most 4 superseded secrets");
    }
    let known: Vec<Digest> = hash.iter().chain(older.iter().flatten()).copied().collect();
    if (1..known.len()).any(|i| known[..i].contains(&known[i])) {
        check.refuse("older", "duplicate", "holds a hash twice");
    }
    check.part(shown("", [&key.prefix, &key.start, &key.end]));
    check.part(rules::name(key.name.get_or_insert_with(|| UNNAMED.to_owned())));
    check.part(rules::settings(&rules::Settings {
        description: key.description.as_deref(),
        owner: key.owner.as_deref(),
        scopes: key.scopes.as_ref(),
        metadata: key.metadata.as_ref(),
    }));
    for field in holding_a_secret(&key, &known) {
        check.refuse(field, "holds_secret", "holds the key itself, which must never be sent");
    }
    times(&mut key, now, &mut check);
    check.finish()?;
    Ok(Line { hash: hash.unwrap_or_default(), older: older.into_iter().flatten().collect(), key })
}

/// When it was made, when it ends, when it was revoked.
fn times(key: &mut MovedKey, now: Timestamp, check: &mut Check) {
    let created_at = *key.created_at.get_or_insert(now);
    let soon = now.saturating_add(SKEW);
    if created_at > soon || created_at < Timestamp::EPOCH {
        check.refuse("created_at", "invalid_value", "must be from 1970 on, and not in the future");
    }
    key.expires_at = key.expires_at.map(|at| at.min(Timestamp::FAR));
    for older in &mut key.older {
        older.expires_at = older.expires_at.min(Timestamp::FAR);
    }
    match (key.revoked, key.revoked_at) {
        (Some(true), None) => key.revoked_at = Some(now),
        (Some(false), Some(_)) => check.refuse("revoked_at", "invalid_value", "contradicts `revoked`"),
        (_, Some(at)) if at > soon => check.refuse("revoked_at", "invalid_value", "must not be in the future"),
        _ => {}
    }
    if key.revoked_at.is_none() && (key.revoked_reason.is_some() || key.revoked_note.is_some()) {
        check.refuse("revoked", "required", "is required with a reason or a note");
    }
    if let Some(note) = &key.revoked_note
        && let Err(Invalid(errors)) = rules::note(note)
    {
        check.part::<()>(Err(Invalid(
            errors.into_iter().map(|error| FieldError { field: "revoked_note".into(), ..error }).collect(),
        )));
    }
}

/// Reads a hash in one of its spellings.
fn digest(field: String, text: &str) -> Result<Digest, Invalid> {
    let mut hash = Digest::default();
    let read = if text.len() == 64 {
        hex::decode_to_slice(text, &mut hash).is_ok()
    } else {
        let text: String = text.strip_suffix('=').unwrap_or(text).replace('+', "-").replace('/', "_");
        text.len() == 43 && URL_SAFE_NO_PAD.decode_slice(text, &mut hash).is_ok_and(|length| length == 32)
    };
    if !read {
        return Err(Invalid::field(field, "invalid_value", "expected a SHA-256: 64 hexadecimal digits, or base64"));
    }
    if hash == OF_NOTHING {
        return Err(Invalid::field(field, "invalid_value", "is the hash of an empty text"));
    }
    Ok(hash)
}

/// What is shown of a secret.
fn shown(path: &str, [prefix, start, end]: [&Option<String>; 3]) -> Result<(), Invalid> {
    let mut check = Check::default();
    for (name, text, longest) in [("prefix", prefix, 64), ("start", start, 4), ("end", end, 4)] {
        let fits = |text: &String| text.len() <= longest && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !text.as_ref().is_none_or(fits) {
            let message = format!("must be at most {longest} visible ASCII characters");
            check.refuse(format!("{path}{name}"), "invalid_value", message);
        }
    }
    check.finish()
}

/// Fields in which somebody has put the key itself.
fn holding_a_secret(key: &MovedKey, known: &[Digest]) -> Vec<String> {
    let is_secret = |text: &str| text.len() >= TELLING && known.contains(&Sha256::digest(text).into());
    let mut found: Vec<String> = [
        ("prefix", &key.prefix),
        ("name", &key.name),
        ("description", &key.description),
        ("owner", &key.owner),
        ("revoked_note", &key.revoked_note),
    ]
    .into_iter()
    .filter(|(_, text)| text.as_deref().is_some_and(is_secret))
    .map(|(field, _)| field.to_owned())
    .collect();
    let inside = key.metadata.iter().flatten().filter(|(_, value)| value.as_str().is_some_and(is_secret));
    // The name of a field that the client chose isn't repeated.
    found.extend(inside.take(1).map(|_| "metadata".to_owned()));
    found
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
    use serde_json::{Value, json};

    use super::*;

    fn noon() -> Timestamp {
        Timestamp::parse("2031-05-06T12:00:00Z").unwrap()
    }

    fn wrong(line: &Value) -> Vec<(String, String)> {
        match read(line.to_string().as_bytes(), noon()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.into_iter().map(|e| (e.field.into_owned(), e.code.into_owned())).collect(),
        }
    }

    #[test]
    fn a_hash_has_several_spellings() {
        let hash: Digest = Sha256::digest("secret?>").into();
        let mut spellings = vec![hex::encode(hash), hex::encode_upper(hash)];
        spellings.extend([STANDARD.encode(hash), STANDARD_NO_PAD.encode(hash), URL_SAFE.encode(hash)]);
        spellings.push(URL_SAFE_NO_PAD.encode(hash));
        for text in spellings {
            assert_eq!(digest("hash".to_owned(), &text), Ok(hash), "{text}");
        }
        for bad in [
            "",
            "=",
            &"0".repeat(63),
            &"0".repeat(65),
            &"g".repeat(64),
            &"A".repeat(42),
            &format!("{}==", "A".repeat(43)),
        ] {
            assert!(digest("hash".to_owned(), bad).is_err(), "{bad}");
        }
        // The last character of 43 has two bits that mean nothing.
        assert!(digest("hash".to_owned(), &format!("{}B", "A".repeat(42))).is_err());
        assert!(digest("hash".to_owned(), &hex::encode(Sha256::digest(""))).is_err());
    }

    #[test]
    fn every_rule_names_its_field() {
        let hash = "11".repeat(32);
        for (line, field, code) in [
            (json!({}), "hash", "required"),
            (json!([]), "line", "invalid_value"),
            (json!({"hash": hash, "algorithm": "md5"}), "algorithm", "invalid_value"),
            (json!({"hash": hash, "nmae": "x"}), "nmae", "unknown_field"),
            (json!({"hash": hash, "prefix": "a b"}), "prefix", "invalid_value"),
            (json!({"hash": hash, "prefix": "x".repeat(65)}), "prefix", "invalid_value"),
            (json!({"hash": hash, "start": "12345"}), "start", "invalid_value"),
            (json!({"hash": hash, "end": "é"}), "end", "invalid_value"),
            (json!({"hash": hash, "name": ""}), "name", "too_short"),
            (json!({"hash": hash, "owner": ""}), "owner", "too_short"),
            (json!({"hash": hash, "description": "x".repeat(1001)}), "description", "too_long"),
            (json!({"hash": hash, "metadata": {"x": "y".repeat(16 * 1024)}}), "metadata", "too_large"),
            (json!({"hash": hash, "created_at": "2031-05-06T12:05:01Z"}), "created_at", "invalid_value"),
            (json!({"hash": hash, "created_at": "1969-12-31T23:59:59Z"}), "created_at", "invalid_value"),
            (json!({"hash": hash, "revoked_at": "2031-05-06T12:05:01Z"}), "revoked_at", "invalid_value"),
            (
                json!({"hash": hash, "revoked": false, "revoked_at": "2030-05-06T12:00:00Z"}),
                "revoked_at",
                "invalid_value",
            ),
            (json!({"hash": hash, "revoked_reason": "superseded"}), "revoked", "required"),
            (json!({"hash": hash, "revoked": true, "revoked_note": "x".repeat(1001)}), "revoked_note", "too_long"),
            (json!({"hash": hash, "older": [{"hash": "22".repeat(32)}]}), "older[0].expires_at", "required"),
            (
                json!({"hash": hash, "older": [{"hash": "2", "expires_at": "2032-01-01T00:00:00Z"}]}),
                "older[0].hash",
                "invalid_value",
            ),
            (
                json!({"hash": hash, "older": [{"hash": hash, "expires_at": "2032-01-01T00:00:00Z"}]}),
                "older",
                "duplicate",
            ),
            (
                json!({"hash": hash, "limits": [{"name": "minute", "limit": 0, "window": "1m"}]}),
                "limits[0].limit",
                "invalid_value",
            ),
            (json!({"hash": hash, "concurrency": -1}), "concurrency", "invalid_value"),
            (json!({"hash": hash, "scopes": ["Not"]}), "scopes[0]", "invalid_value"),
        ] {
            assert_eq!(wrong(&line), [(field.to_owned(), code.to_owned())], "{line}");
        }
    }

    #[test]
    fn a_field_that_holds_the_key_itself_is_refused() {
        let key = "live_4eC39HqLyjWDarjtT1zdp7dc";
        let hash = hex::encode(Sha256::digest(key));
        for field in ["prefix", "name", "description", "owner"] {
            assert_eq!(wrong(&json!({"hash": hash, field: key})), [(field.to_owned(), "holds_secret".to_owned())]);
        }
        assert_eq!(wrong(&json!({"hash": hash, "metadata": {"key": key}}))[0].0, "metadata");
        assert!(wrong(&json!({"hash": hash, "name": &key[..20], "prefix": "live"})).is_empty());
        assert!(wrong(&json!({"hash": hex::encode(Sha256::digest("demo")), "name": "demo"})).is_empty());
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let line = read(json!({"hash": "11".repeat(32), "revoked": true}).to_string().as_bytes(), noon()).unwrap();
        assert_eq!((line.key.name.as_deref(), line.key.created_at), (Some("imported"), Some(noon())));
        assert_eq!(line.key.revoked_at, Some(noon()));
        let far = json!({"hash": "11".repeat(32), "expires_at": "9999-12-31T23:59:59.5Z"}).to_string();
        assert_eq!(read(far.as_bytes(), noon()).unwrap().key.expires_at, Some(Timestamp::FAR));
    }
}
