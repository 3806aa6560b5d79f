//! A real HTTP server that webhooks are delivered to: it keeps what came, and answers what the test wants.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::task::JoinHandle;

/// One message that came.
#[derive(Clone, Debug)]
pub struct Got {
    pub headers: HeaderMap,
    pub body: String,
    pub at: Instant,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Its `webhook-id`.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// How many of its signatures are good ones by this secret, by an implementation of the test's own.
    pub fn signed_by(&self, secret: &str) -> usize {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.{}", self.id(), self.header("webhook-timestamp"), self.body).as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.header("webhook-signature").split(' ').filter(|signature| *signature == expected).count()
    }

    pub fn signatures(&self) -> usize {
        self.header("webhook-signature").split(' ').count()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub after: Duration,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), after: Duration::ZERO }
    }

    /// None, for longer than any test lasts.
    pub fn never() -> Self {
        Self { after: Duration::from_hours(1), ..Self::status(200) }
    }
}

type Answers = Box<dyn Fn(&Got, usize) -> Reply + Send + Sync>;

struct Desk {
    got: Mutex<Vec<Got>>,
    answers: Mutex<Answers>,
}

/// See the module; it ends when dropped.
pub struct Receiver {
    pub url: String,
    desk: Arc<Desk>,
    running: JoinHandle<()>,
}

impl Receiver {
    /// Answers with what the function says, which is told how many came before.
    pub async fn start(answers: impl Fn(&Got, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let desk = Arc::new(Desk { got: Mutex::default(), answers: Mutex::new(Box::new(answers)) });
        let router = Router::new().fallback(receive).with_state(Arc::clone(&desk));
        let running = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, desk, running }
    }

    /// Answers 204 to everything.
    pub async fn willing() -> Self {
        Self::start(|_, _| Reply::status(204)).await
    }

    /// Answers otherwise from now on.
    pub fn answer(&self, answers: impl Fn(&Got, usize) -> Reply + Send + Sync + 'static) {
        *self.desk.answers.lock().unwrap() = Box::new(answers);
    }

    /// What came until now.
    pub fn got(&self) -> Vec<Got> {
        self.desk.got.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.desk.got.lock().unwrap().len()
    }

    /// Waits until so many came; fails where it takes longer than 15 seconds.
    #[track_caller]
    pub fn until(&self, count: usize) -> impl Future<Output = Vec<Got>> + '_ {
        let place = std::panic::Location::caller();
        async move {
            let started = Instant::now();
            while self.count() < count {
                assert!(started.elapsed() < Duration::from_secs(15), "{place}: {} of {count} came", self.count());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.got()
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn receive(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Bytes) -> Response {
    let got = Got { headers, body: String::from_utf8(body.to_vec()).unwrap(), at: Instant::now() };
    let reply = {
        let mut all = desk.got.lock().unwrap();
        let reply = (desk.answers.lock().unwrap())(&got, all.len());
        all.push(got);
        reply
    };
    tokio::time::sleep(reply.after).await;
    let mut response = (StatusCode::from_u16(reply.status).unwrap(), reply.body).into_response();
    for (name, value) in reply.headers {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
    }
    response
}
