//! Signatures of Standard Webhooks 1.0.0: HMAC-SHA256 over `id.timestamp.body`, in base64, behind `v1,`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ring::hmac;

use crate::base::clock::Timestamp;
use crate::base::rng::Rng;
use crate::base::secret::Secret;

/// Bytes of a secret; the standard wants 24 to 64.
pub const SECRET_BYTES: usize = 32;
/// What a secret begins with as text.
pub const PREFIX: &str = "whsec_";

/// A new secret.
#[must_use]
pub fn generate(rng: &dyn Rng) -> [u8; SECRET_BYTES] {
    let mut secret = [0; SECRET_BYTES];
    rng.fill(&mut secret);
    secret
}

/// A secret as it is shown.
#[must_use]
pub fn shown(secret: &[u8]) -> Secret {
    Secret::new(format!("{PREFIX}{}", STANDARD.encode(secret)))
}

/// One signature.
#[must_use]
pub fn signature(secret: &[u8], id: &str, timestamp: i64, body: &str) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    for part in [id, ".", &timestamp.to_string(), ".", body] {
        context.update(part.as_bytes());
    }
    format!("v1,{}", STANDARD.encode(context.sign()))
}

/// The headers of an attempt at `at`, with a signature by each secret, the present one first.
#[must_use]
pub fn headers(secrets: &[Vec<u8>], id: &str, at: Timestamp, body: &str) -> HeaderMap {
    let timestamp = at.as_micros().div_euclid(1_000_000);
    let signatures: Vec<_> = secrets.iter().map(|secret| signature(secret, id, timestamp, body)).collect();
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("webhook-timestamp"), HeaderValue::from(timestamp));
    // Ids and base64 are visible ASCII.
    let texts = [("webhook-id", id.to_owned()), ("webhook-signature", signatures.join(" "))];
    for (name, value) in texts {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard_is_signed_as_it_says() {
        // From the specification's reference libraries.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = r#"{"test": 2432232314}"#;
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_secret_signs() {
        let at = Timestamp::parse("2026-11-20T12:00:00.9Z").unwrap();
        let headers = headers(&[vec![1; 32], vec![2; 32]], "evt_x", at, "{}");
        assert_eq!(headers["webhook-timestamp"], "1795176000");
        let both: Vec<_> = headers["webhook-signature"].to_str().unwrap().split(' ').collect();
        assert_eq!(both, [1, 2].map(|byte| signature(&[byte; 32], "evt_x", 1_795_176_000, "{}")));
        assert_eq!(
            (headers["webhook-id"].to_str().unwrap(), headers["content-type"].as_bytes()),
            ("evt_x", &b"application/json"[..])
        );
    }
}
