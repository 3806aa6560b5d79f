//! The request log: what was refused or went wrong, and a sample of what was admitted, request by request, for a while. And
//! the way by which services that judge requests by themselves tell of them.
//!
//! `gate/noted.rs` holds what isn't written yet; `log` fills it and writes it, twice a second and at shutdown. Nobody ever
//! waits for it. Sums are `features/usage`'s affair: they are exact, this log is for looking at single requests.

pub mod http;
pub mod log;
pub mod record;
pub mod rules;
pub mod store;

use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId, RequestId};
use crate::gate::Code;
use crate::gate::noted::{Outcome, Source};

/// A row of the log.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "id": "req_01K5ZV8QXW3M7C2R9T4B6D8F0G", "at": "2026-11-20T12:00:00.123456Z",
    "project_id": "prj_01K5ZV8QXW3M7C2R9T4B6D8F0G", "key_id": "key_01K5ZV8QXW3M7C2R9T4B6D8F0G", "source": "verify",
    "method": "GET", "endpoint": "/orders/42", "status": null, "outcome": "denied", "code": "RATE_LIMITED",
    "duration_ms": 0.084, "ip": "192.0.2.7", "user_agent": null, "request_id": "01K5ZV8QXW3M7C2R9T4B6D8F0G", "count": 1
}))]
pub struct Logged {
    /// Names the row.
    pub id: RequestId,
    /// When the request came.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Whose key.
    pub project_id: ProjectId,
    /// Which key.
    pub key_id: KeyId,
    /// Who saw it: `verify` if Keyward was asked about the key, `own` if the key called Keyward itself, `recorded` if a
    /// service reported it.
    pub source: Source,
    /// Its method, as far as it is known.
    pub method: Option<String>,
    /// Its path without the query, as far as it is known; of Keyward's own routes the template.
    pub endpoint: Option<String>,
    /// The status of its answer; `null` for verifications.
    #[schema(minimum = 100, maximum = 599)]
    pub status: Option<u16>,
    /// How it came out.
    pub outcome: Outcome,
    /// What was decided about the key; `null` for what was reported.
    #[schema(value_type = Option<Code>)]
    pub code: Option<String>,
    /// How long it took, in milliseconds; `null` in a row that stands for several.
    #[schema(minimum = 0)]
    pub duration_ms: Option<f64>,
    /// The client's address, as far as it is known.
    pub ip: Option<String>,
    /// What the client calls itself, as far as it is known.
    pub user_agent: Option<String>,
    /// Names the request in the service's log; not for what was reported.
    pub request_id: Option<String>,
    /// How many requests the row stands for. More than one: of a second in which many of the key's requests were refused,
    /// for one reason; then the row holds what they share.
    #[schema(minimum = 1)]
    pub count: u32,
}
