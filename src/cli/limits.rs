//! Limits and restrictions on the command line: as flags are read, and as tables show them.

use serde::Serialize;
use serde_json::{Value, json};

use crate::base::duration::Seconds;
use crate::features::keys::KeyView;
use crate::gate::restrict::Networks;
use crate::gate::{Limit, Limits};
use crate::infra::config::KeysConfig;

use super::Failure;
use super::keys::usage;

/// Values of `--limit`, by the rules of the contract; `None` if there are none.
pub(super) fn read(values: &[String], config: &KeysConfig) -> Result<Option<Limits>, Failure> {
    if values.is_empty() {
        return Ok(None);
    }
    let refused = |error: &dyn std::fmt::Display| usage(format!("--limit: {error}"));
    let limits: Option<Vec<Value>> = values.iter().map(|value| written(value, config)).collect();
    let limits = limits.ok_or_else(|| refused(&"expected NAME=N/WINDOW, such as minute=60/1m, or a number"))?;
    serde_json::from_value(Value::from(limits)).map(Some).map_err(|error| refused(&error))
}

/// One limit as it stands in a request: `minute=60/1m`, or `5000`, which is of the server's name and window.
fn written(value: &str, config: &KeysConfig) -> Option<Value> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let Some((name, rest)) = value.split_once('=') else {
        return Some(json!({ "name": "default", "limit": number(value)?, "window": config.default_window_seconds }));
    };
    let (limit, window) = rest.split_once('/')?;
    // Seconds alone are a number in requests.
    let window = number(window).map_or_else(|| json!(window), |seconds| json!(seconds));
    Some(json!({ "name": name, "limit": number(limit)?, "window": window }))
}

/// Values of `--allow-ip`; `None` if there are none.
pub(super) fn networks(values: &[String]) -> Result<Option<Networks>, Failure> {
    if values.is_empty() {
        return Ok(None);
    }
    serde_json::from_value(json!(values)).map(Some).map_err(|error| usage(format!("--allow-ip: {error}")))
}

/// A window's length, in the short form.
pub(super) fn window(seconds: u64) -> String {
    Seconds::new(seconds).unwrap_or(Seconds::MAX).to_string()
}

/// What is set on a key itself, as rows of a table.
pub(super) fn set_on(key: &KeyView) -> Vec<(&'static str, String)> {
    let limits = |limits: &Limits| {
        let one = |limit: &Limit| format!("{}={}/{}", limit.name, limit.limit, window(limit.window_seconds));
        limits.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let rows = [
        ("limits", key.limits.as_ref().filter(|limits| !limits.is_empty()).map(limits)),
        ("concurrency", key.concurrency.map(cap)),
        ("networks", key.ip_allow.as_ref().map(|list| listed(list, "none: nobody may use it"))),
        ("schedule", key.schedule.as_ref().map(|list| listed(list, "none: never"))),
        ("methods", key.method_allow.as_ref().map(|list| listed(list, "none"))),
        ("paths", key.path_allow.as_ref().map(|list| listed(list, "none"))),
    ];
    rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// A cap on simultaneous operations.
pub(super) fn cap(cap: u32) -> String {
    if cap == 0 { "off".to_owned() } else { cap.to_string() }
}

/// A list of the contract in words; an empty one admits nothing, which must be seen.
fn listed(list: &impl Serialize, empty: &str) -> String {
    let entries = json!(list);
    let entries: Vec<_> = entries.as_array().into_iter().flatten().map(entry).collect();
    if entries.is_empty() { empty.to_owned() } else { entries.join(", ") }
}

/// A word as it is; an opening as `mon tue 08:00-18:00 Europe/Berlin`.
fn entry(value: &Value) -> String {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    match value {
        Value::String(word) => word.clone(),
        Value::Object(_) => {
            let days = value["days"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let days = days.collect::<Vec<_>>().join(" ");
            format!("{days} {}-{} {}", text("from"), text("to"), text("timezone"))
        }
        other => other.to_string(),
    }
}
