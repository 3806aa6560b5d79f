//! Deliveries are what the public libraries of Standard Webhooks take for genuine, and what isn't genuine they refuse. The real
//! binary, because the libraries go by the real time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};

use crate::both_engines;
use crate::harness::Scratch;
use crate::harness::program::Program;
use crate::harness::verifier::{Library, Verifier};

const NO_MATCH: &str = "No matching signature found";

/// The signature of what was never sent, by whoever knows the secret.
fn signed(secret: &str, id: &str, timestamp: i64, body: &str) -> String {
    let secret = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag))
}

/// Sends a message as anybody could, and gives what the library says of it under one secret.
async fn sent(verifier: &Verifier, id: &str, timestamp: &str, signature: &str, body: &str) -> String {
    let mut request = reqwest::Client::builder().build().unwrap().post(&verifier.url).body(body.to_owned());
    for (name, value) in [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)] {
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    let results: Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
    results["third"].as_str().unwrap().to_owned()
}

async fn verified_by(engine: crate::harness::Engine, library: Library) {
    let (scratch, directory) = (Scratch::new(engine).await, tempfile::tempdir().unwrap());
    let key = STANDARD.encode([7; 32]);
    let environment = [
        ("DATABASE_URL", scratch.url.as_str()),
        ("KEYWARD_OUTBOUND_ALLOW", "127.0.0.1/32"),
        ("KEYWARD_SECRETS_KEY", &key),
    ];
    let server = Program::start(directory.path(), &environment).await;
    let token = server.person("anna").await;
    let me = server.get("/v1/users/me").token(&token).send().await.expect(200).json();
    let path = format!("/v1/projects/{}/webhooks", me["personal_project_id"].as_str().unwrap());

    let verifier = Verifier::start(library).await;
    let body = json!({"url": verifier.url, "events": ["key.created"]});
    let made = server.post(&path).token(&token).json(&body).send().await.expect(201).json();
    let first = made["secret"].as_str().unwrap();
    let rotate = async |overlap: Value| {
        let path = format!("{path}/{}/rotate-secret", made["id"].as_str().unwrap());
        let rotated = server.post(&path).token(&token).json(&json!({"overlap": overlap})).send().await.expect(200).json();
        rotated["secret"].as_str().unwrap().to_owned()
    };

    verifier.trust(&[("first", first)]);
    let key = server.generate(&token).await;
    let delivery = verifier.request(1).await;
    assert_eq!(delivery["results"], json!({"first": "verified"}), "{delivery}");
    let body: Value = serde_json::from_str(delivery["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["type"], &body["data"]["id"]), (&json!("key.created"), &key["id"]));

    // While both sign, whoever has either is content.
    let second = rotate(json!("24h")).await;
    verifier.trust(&[("first", first), ("second", &second)]);
    server.generate(&token).await;
    let delivery = verifier.request(2).await;
    assert_eq!(delivery["results"], json!({"first": "verified", "second": "verified"}), "{delivery}");

    // Without an overlap the former ones are worth nothing at once.
    let third = rotate(json!(0)).await;
    verifier.trust(&[("first", first), ("second", &second), ("third", &third)]);
    server.generate(&token).await;
    let delivery = verifier.request(3).await;
    assert_eq!(delivery["results"], json!({"first": NO_MATCH, "second": NO_MATCH, "third": "verified"}), "{delivery}");

    // What somebody has changed on its way.
    let header = |name: &str| delivery["headers"][name].as_str().unwrap();
    let (id, at, signature) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    let body = delivery["body"].as_str().unwrap();
    let (now, other) = (at.parse::<i64>().unwrap(), body.replace("key.created", "key.revoked"));
    assert_ne!(body, other);
    let next = (now + 1).to_string();
    assert_eq!(sent(&verifier, id, at, signature, body).await, "verified");
    for (id, at, signature, body) in [
        (id, at, signature, other.as_str()),
        (id, at, signature, &format!("{body} ")),
        (&format!("{id}x"), at, signature, body),
        (id, &next, signature, body),
        (id, at, &signed(first, id, now, body), body),
        (id, at, &signed(&second, id, now, body), body),
        (id, at, &signed(&third, id, now, &other), body),
    ] {
        assert_eq!(sent(&verifier, id, at, signature, body).await, NO_MATCH, "{id} {at} {signature} {body}");
    }
    for (id, at, signature) in [("", at, signature), (id, "", signature), (id, at, "")] {
        assert_eq!(sent(&verifier, id, at, signature, body).await, "Missing required headers");
    }
    // What somebody has kept, although its signature is good.
    for (seconds, expected) in [
        (0, "verified"),
        (-200, "verified"),
        (-400, "Message timestamp too old"),
        (-86_400, "Message timestamp too old"),
        (400, "Message timestamp too new"),
    ] {
        let at = now + seconds;
        let signature = signed(&third, id, at, body);
        assert_eq!(sent(&verifier, id, &at.to_string(), &signature, body).await, expected, "{seconds}");
    }
}

both_engines! {
    async fn pypis_standardwebhooks_verifies_deliveries(engine: Engine) {
        verified_by(engine, Library::PyPi).await;
    }

    async fn npms_standardwebhooks_verifies_deliveries(engine: Engine) {
        verified_by(engine, Library::Npm).await;
    }
}
