//! What is sent.

#![expect(clippy::option_option, reason = "a merge patch tells an absent field from null (RFC 7396)")]

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};

use crate::base::duration::Seconds;
use crate::base::id::KeyId;
use crate::features::alerts::manage::Patch;
use crate::features::alerts::rules::{MAX_COOLDOWN, WINDOW};
use crate::features::alerts::{Metric, Operator, Terms};
use crate::web::extract::merge;

/// The short forms from 60 seconds to 30 days.
const WINDOW_FORM: &str = "^(([6-9][0-9]|[1-9][0-9]{2,5}|1[0-9]{6}|2[0-4][0-9]{5}|25[0-8][0-9]{4}|259[01][0-9]{3}|2592000)s\
    |([1-9][0-9]{0,3}|[1-3][0-9]{4}|4[0-2][0-9]{3}|43[01][0-9]{2}|43200)m|([1-9][0-9]?|[1-6][0-9]{2}|7[01][0-9]|720)h\
    |([1-9]|[12][0-9]|30)d)$";
/// The short forms up to 30 days.
const COOLDOWN_FORM: &str = "^(([1-9][0-9]{0,5}|1[0-9]{6}|2[0-4][0-9]{5}|25[0-8][0-9]{4}|259[01][0-9]{3}|2592000)s\
    |([1-9][0-9]{0,3}|[1-3][0-9]{4}|4[0-2][0-9]{3}|43[01][0-9]{2}|43200)m|([1-9][0-9]?|[1-6][0-9]{2}|7[01][0-9]|720)h\
    |([1-9]|[12][0-9]|30)d)$";

fn span(least: u64, most: u64, short: &str, description: &str) -> Schema {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least)).maximum(Some(most));
    let short = ObjectBuilder::new().schema_type(Type::String).pattern(Some(short));
    OneOfBuilder::new()
        .item(seconds)
        .item(short)
        .description(Some(description))
        .examples([serde_json::json!("60m")])
        .build()
        .into()
}

fn window() -> Schema {
    span(
        WINDOW.0,
        WINDOW.1,
        WINDOW_FORM,
        "The time up to now that is looked at: whole seconds, or a short form such as `5m`, `12h` or `30d`; 1 minute to 30 \
         days, 60 minutes where it is left out. Its beginning is moved back to a whole minute, and to a whole hour where it \
         is longer than six hours.",
    )
}

fn cooldown() -> Schema {
    span(
        0,
        MAX_COOLDOWN,
        COOLDOWN_FORM,
        "How long after it fired it doesn't fire again: whole seconds, or a short form such as `5m`, `12h` or `30d`; 0 to 30 \
         days, 60 minutes where it is left out.",
    )
}

fn emails() -> Schema {
    let address = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(3))
        .max_length(Some(254))
        .pattern(Some("^[^\\s@]+@[^\\s@]+$"));
    utoipa::openapi::schema::ArrayBuilder::new()
        .items(address)
        .max_items(Some(crate::features::alerts::MAX_EMAILS))
        .description(Some(
            "Who gets a mail when it fires and when it is resolved: up to 10 addresses. Refused where the service sends no \
             mail (`mail_not_configured`), and where the operator doesn't let mail go there (`address_not_allowed`).",
        ))
        .build()
        .into()
}

/// A rule to be made.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "many refusals", "metric": "denied", "operator": ">=", "threshold": 100, "window": "60m", "cooldown": "60m"
}))]
pub(super) struct NewAlert {
    /// For people: 1 to 100 characters; no other rule of the project has it.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
        example = "many refusals"
    )]
    name: String,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    description: Option<String>,
    /// What is looked at.
    metric: Metric,
    /// How it is compared.
    operator: Operator,
    /// With what, in the metric's unit: 0 to 1 for `error_rate`, which is a share as in usage; 0 to 100 for
    /// `quota_used_percent`; up to 86,400,000 milliseconds for `latency_p95_ms`; up to 36,500 days for `expires_in_days`; up
    /// to 1e12 for what is counted.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64, example = 100)]
    threshold: f64,
    /// The time up to now that is looked at.
    #[serde(default, deserialize_with = "crate::web::extract::object::given")]
    #[schema(schema_with = window, required = false)]
    window: Option<Seconds>,
    /// How long after it fired it doesn't fire again.
    #[serde(default, deserialize_with = "crate::web::extract::object::given")]
    #[schema(schema_with = cooldown, required = false)]
    cooldown: Option<Seconds>,
    /// Only requests of this key of the project; all of the project's where it is left out.
    #[serde(default)]
    key_id: Option<KeyId>,
    /// Who gets a mail.
    #[serde(default, deserialize_with = "crate::web::extract::object::given")]
    #[schema(schema_with = emails, required = false)]
    emails: Option<Vec<String>>,
    /// Whether it tells again after each cooldown that it still fires, with `"reminder": true`; `false` where it is left
    /// out. Needs a cooldown of a minute or more.
    #[serde(default)]
    remind: Option<bool>,
    /// Whether it is evaluated; `true` where it is left out.
    #[serde(default)]
    is_active: Option<bool>,
}

/// What both spans are where nobody says: an hour.
pub(super) const USUAL: u64 = 3_600;

impl From<NewAlert> for Terms {
    fn from(body: NewAlert) -> Self {
        // An hour is no longer than the longest.
        let usual = || Seconds::new(USUAL).unwrap_or(Seconds::MAX);
        Self {
            name: body.name,
            description: body.description,
            metric: body.metric,
            operator: body.operator,
            threshold: body.threshold,
            window: body.window.unwrap_or_else(usual),
            cooldown: body.cooldown.unwrap_or_else(usual),
            key_id: body.key_id,
            emails: body.emails.unwrap_or_default(),
            remind: body.remind.unwrap_or(false),
            is_active: body.is_active.unwrap_or(true),
        }
    }
}

/// What shall be different: an absent field stays, `null` clears.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"threshold": 200, "window": "30m"}))]
pub(super) struct PatchAlert {
    /// For people: 1 to 100 characters.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    name: Option<String>,
    /// For people.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<String>, max_length = 1000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    description: Option<Option<String>>,
    /// What is looked at.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = Metric, required = false)]
    metric: Option<Metric>,
    /// How it is compared.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = Operator, required = false)]
    operator: Option<Operator>,
    /// With what, in the metric's unit.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = f64, required = false, minimum = 0, maximum = 1_000_000_000_000_i64)]
    threshold: Option<f64>,
    /// The time up to now that is looked at.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(schema_with = window, required = false)]
    window: Option<Seconds>,
    /// How long after it fired it doesn't fire again.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(schema_with = cooldown, required = false)]
    cooldown: Option<Seconds>,
    /// Only requests of this key; `null` for all of the project's.
    #[serde(default, deserialize_with = "merge::present")]
    #[schema(value_type = Option<KeyId>)]
    key_id: Option<Option<KeyId>>,
    /// Who gets a mail; the whole list is replaced.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(schema_with = emails, required = false)]
    emails: Option<Vec<String>>,
    /// Whether it tells again after each cooldown that it still fires.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = bool, required = false)]
    remind: Option<bool>,
    /// Whether it is evaluated. What it fired is resolved when it is switched off.
    #[serde(default, deserialize_with = "merge::required")]
    #[schema(value_type = bool, required = false)]
    is_active: Option<bool>,
}

impl From<PatchAlert> for Patch {
    fn from(body: PatchAlert) -> Self {
        Self {
            name: body.name,
            description: body.description,
            metric: body.metric,
            operator: body.operator,
            threshold: body.threshold,
            window: body.window,
            cooldown: body.cooldown,
            key_id: body.key_id,
            emails: body.emails,
            remind: body.remind,
            is_active: body.is_active,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::alerts::rules;

    /// What the document allows is what is taken, and nothing else.
    #[test]
    fn the_short_forms_are_the_bounds() {
        let window = regex(WINDOW_FORM);
        let cooldown = regex(COOLDOWN_FORM);
        for count in (0..50_000).chain(2_400_000..2_600_000) {
            for unit in ["s", "m", "h", "d"] {
                let text = format!("{count}{unit}");
                let seconds = serde_json::from_str::<Seconds>(&format!("\"{text}\"")).ok().map(Seconds::get);
                let within = |least: u64| seconds.is_some_and(|s| (least..=rules::MAX_COOLDOWN).contains(&s));
                assert_eq!(window(&text), within(60), "{text}");
                assert_eq!(cooldown(&text), within(1), "{text}");
            }
        }
    }

    /// Enough of a matcher for these patterns: alternatives of digit classes in front of a unit.
    fn regex(pattern: &str) -> impl Fn(&str) -> bool {
        let inner = pattern.trim_start_matches("^(").trim_end_matches(")$").to_owned();
        move |text: &str| {
            let (digits, unit) = text.split_at(text.len() - 1);
            inner
                .split(')')
                .collect::<Vec<_>>()
                .windows(2)
                .map(|pair| (pair[0].rsplit('(').next().unwrap(), pair[1].chars().next()))
                .filter(|(_, letter)| letter.map(String::from).as_deref() == Some(unit))
                .any(|(choices, _)| choices.split('|').any(|choice| matches(choice, digits)))
        }
    }

    fn matches(choice: &str, digits: &str) -> bool {
        let mut rest = choice;
        let mut at = 0;
        let bytes = digits.as_bytes();
        while !rest.is_empty() {
            let (class, after) = match rest.strip_prefix('[') {
                Some(inner) => inner.split_once(']').unwrap(),
                None => rest.split_at(1),
            };
            let is_in = |b: u8| match class.as_bytes() {
                [from, b'-', to] => (*from..=*to).contains(&b),
                set => set.contains(&b),
            };
            let (least, most, after) = if let Some(inner) = after.strip_prefix('{') {
                let (counts, after) = inner.split_once('}').unwrap();
                let (least, most) = counts.split_once(',').unwrap_or((counts, counts));
                (least.parse().unwrap(), most.parse().unwrap(), after)
            } else if let Some(after) = after.strip_prefix('?') {
                (0, 1, after)
            } else {
                (1, 1, after)
            };
            let run = bytes[at..].iter().take(most).take_while(|b| is_in(**b)).count();
            if run < least {
                return false;
            }
            at += run;
            rest = after;
        }
        at == bytes.len()
    }
}
