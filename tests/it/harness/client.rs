//! Calls, and what came back.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::App;

/// The password of everybody that the harness registers.
pub const PASSWORD: &str = "correct horse battery staple";

/// A call in the making.
pub struct Call(pub RequestBuilder);

/// What came back, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
}

/// Somebody who is logged in.
#[derive(Clone, Debug)]
pub struct Session {
    pub token: String,
    pub user: String,
    pub project: String,
}

impl App {
    pub fn call(&self, method: Method, path: &str) -> Call {
        Call(self.http.request(method, format!("{}{path}", self.url)))
    }

    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> Call {
        self.call(Method::POST, path)
    }

    pub fn put(&self, path: &str) -> Call {
        self.call(Method::PUT, path)
    }

    pub fn patch(&self, path: &str) -> Call {
        self.call(Method::PATCH, path)
    }

    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    /// Registers somebody and logs them in.
    pub async fn person(&self, username: &str) -> Session {
        self.post("/register").json(&json!({"username": username, "password": PASSWORD})).send().await.expect(201);
        self.login(username, PASSWORD).await
    }

    /// Logs somebody in.
    pub async fn login(&self, username: &str, password: &str) -> Session {
        let body = json!({"username": username, "password": password});
        let token =
            self.post("/login").json(&body).send().await.expect(200).json()["token"].as_str().unwrap().to_owned();
        let me = self.get("/v1/users/me").token(&token).send().await.expect(200).json();
        Session {
            token,
            user: me["id"].as_str().unwrap().to_owned(),
            project: me["personal_project_id"].as_str().unwrap().to_owned(),
        }
    }

    /// Makes a key in somebody's own project and gives the whole answer, which holds the secret as `key`.
    pub async fn key(&self, session: &Session, body: Value) -> Value {
        let path = format!("/v1/projects/{}/keys", session.project);
        let mut body = body;
        if body.get("name").is_none() {
            body["name"] = json!("test");
        }
        self.post(&path).token(&session.token).json(&body).send().await.expect(201).json()
    }

    /// Asks about a key as its project's owner.
    pub async fn verify(&self, session: &Session, question: Value) -> Value {
        self.post("/v1/keys/verify").token(&session.token).json(&question).send().await.expect(200).json()
    }
}

impl Call {
    pub fn token(self, token: &str) -> Self {
        Self(self.0.bearer_auth(token))
    }

    pub fn api_key(self, key: &str) -> Self {
        Self(self.0.header("x-api-key", key))
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    pub fn json(self, body: &Value) -> Self {
        Self(self.0.json(body))
    }

    /// A body as it stands, declared as JSON.
    pub fn raw(self, body: impl Into<Vec<u8>>) -> Self {
        Self(self.0.header("content-type", "application/json").body(body.into()))
    }

    pub async fn send(self) -> Answer {
        let response = self.0.send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            bytes: response.bytes().await.unwrap().to_vec(),
        }
    }
}

impl Answer {
    /// The status must be this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A header's text; empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A problem of the one form, with this status and code.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(body["type"], "about:blank", "{body}");
        assert_eq!(body["request_id"], self.header("x-request-id"), "{body}");
        assert_eq!(body["error"], body["detail"], "{body}");
        assert!(!body["title"].as_str().unwrap().is_empty(), "{body}");
        body
    }
}
