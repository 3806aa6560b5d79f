//! A service that somebody else restarts: a signed request to the operator's hook, in the manner of Standard Webhooks 1.0.0.
//! What somebody said as a reason isn't sent: nothing of a request leaves here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use sha2::Sha256;

use crate::base::id::ServiceOperationId;
use crate::ctx::Ctx;
use crate::features::services::rules::Cause;
use crate::infra::config::{HookConfig, ServiceName};
use crate::infra::net::Probe;

/// Asks the hook once. Its id is the restart's, so that who hears it twice knows.
pub(super) async fn call(
    ctx: &Ctx,
    name: &ServiceName,
    hook: &HookConfig,
    operation: ServiceOperationId,
    cause: Cause,
) -> Result<(), String> {
    let now = ctx.now();
    let body = json!({
        "type": "service.restart",
        "timestamp": now,
        "data": { "service": name.as_str(), "operation_id": operation, "cause": cause.word() },
    })
    .to_string();
    let (id, timestamp) = (operation.to_string(), (now.as_millis() / 1000).to_string());
    let signature = sign(hook.secret.expose(), &id, &timestamp, &body).ok_or("the secret isn't one")?;
    let mut headers = HeaderMap::new();
    for (name, value) in [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)] {
        headers.insert(name, HeaderValue::try_from(value).map_err(|error| error.to_string())?);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let probe = Probe::new(&hook.url).map_err(|error| error.to_string())?;
    let answered = tokio::time::timeout(hook.timeout, probe.post(&headers, Bytes::from(body))).await;
    let heard = answered.map_err(|_| "the hook took too long")?.map_err(|error| format!("the hook: {error}"))?;
    if heard.status.is_success() {
        Ok(())
    } else {
        Err(format!("the hook answered with status {}", heard.status.as_u16()))
    }
}

/// `v1,` and base64 of the HMAC-SHA256 of `id.timestamp.body`.
fn sign(secret: &str, id: &str, timestamp: &str, body: &str) -> Option<String> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::sign;

    /// The example of the Standard Webhooks specification and its libraries.
    #[test]
    fn a_known_signature() {
        let signature = sign(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            "{\"test\": 2432232314}",
        );
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
