//! What a project decides about itself and about its new keys.

use serde::{Deserialize, Serialize};

use crate::base::duration::Seconds;

/// What becomes of the keys that somebody answers for when they leave or are disabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DepartedKeys {
    /// They work on.
    Keep,
    /// They are refused until somebody enables them, which needs a person who isn't disabled.
    #[default]
    Disable,
    /// They are refused for good.
    Revoke,
}

/// See the module. What isn't set is left to the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Whether keys may hold only scopes of the catalogue, and wildcards over them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_scopes: Option<bool>,
    /// What becomes of the keys of people who leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub departed_keys: Option<DepartedKeys>,
    /// When a new key ends that says nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_key_expiry: Option<Seconds>,
    /// The longest that a key may last from its creation, or from when its end is changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_key_expiry: Option<Seconds>,
    /// The most keys that aren't revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<u32>,
    /// The most of them that one person answers for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_keys_per_person: Option<u32>,
    /// Pages that may call the service from a browser.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors_origins: Option<Vec<String>>,
    /// How long a webhook may take to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_timeout_seconds: Option<u32>,
    /// How often a delivery is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_max_attempts: Option<u32>,
    /// Which part of admitted requests the request log keeps: 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_log_sample: Option<f64>,
}
