//! Webhooks lead nowhere but where they may: by their URLs, and by what the DNS says of them, which the test decides.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use keyward::infra::net::Resolve;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::support::text;
use crate::both_engines;
use crate::harness::{App, Session};

/// As `src/infra/net/tests/hostile.rs` reads them.
const URLS: &str = include_str!("../harness/hostile_urls.txt");
const VAULT: (&str, &str) = ("KEYWARD_SECRETS_KEY", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
const ALLOW: (&str, &str) = ("KEYWARD_OUTBOUND_ALLOW", "127.0.0.1/32");

/// What names lead to, one answer a look-up; the last one again and again. How often each was asked.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<HashMap<String, Answers>>>);

/// How often it was asked, and what it says.
type Answers = (usize, Vec<Vec<IpAddr>>);

impl Names {
    fn set(&self, name: &str, answers: &[&[&str]]) {
        let answers = answers.iter().map(|ips| ips.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
        self.0.lock().unwrap().insert(name.to_owned(), (0, answers));
    }

    fn asked(&self, name: &str) -> usize {
        self.0.lock().unwrap()[name].0
    }
}

impl Resolve for Names {
    fn resolve(&self, name: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        let mut names = self.0.lock().unwrap();
        let Some((asked, answers)) = names.get_mut(&name) else {
            // A server of the DNS that says nothing.
            return Box::pin(std::future::pending());
        };
        let found = answers[(*asked).min(answers.len() - 1)].clone();
        *asked += 1;
        Box::pin(async { Ok(found) })
    }
}

/// Answers every request in the same words, and counts them.
async fn receiver(address: &str, answer: String) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn({
        let heads = Arc::clone(&heads);
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (heads, answer) = (Arc::clone(&heads), answer.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    heads.lock().unwrap().push(String::from_utf8(head).unwrap());
                    // Whoever asked may have heard enough.
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        }
    });
    (port, heads)
}

async fn create(app: &App, who: &Session, url: &str) -> crate::harness::Answer {
    let path = format!("/v1/projects/{}/webhooks", who.project);
    app.post(&path).token(&who.token).json(&json!({"url": url, "events": ["key.created"]})).send().await
}

/// Sends a test, and gives what came of it.
async fn tried(app: &App, who: &Session, webhook: &Value) -> Value {
    let path = format!("/v1/projects/{}/webhooks/{}/test", who.project, text(webhook, "id"));
    app.post(&path).token(&who.token).send().await.expect(200).json()
}

fn says_nothing_of_the_network(said: &str) {
    for secret in ["10.", "127.", "169.254", "fd00", "os error", "efused (", "nternal"] {
        assert!(!said.contains(secret), "{said}");
    }
}

both_engines! {
    async fn hostile_urls_are_no_webhooks(engine: Engine) {
        let app = App::start_with(engine, &[VAULT]).await;
        let anna = app.person("anna").await;
        let good = create(&app, &anna, "https://example.com/hook").await.expect(201).json();
        let path = format!("/v1/projects/{}/webhooks/{}", anna.project, text(&good, "id"));
        let mut count = 0;
        for (_, url) in URLS.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once(' ').unwrap()) {
            let change = app.patch(&path).token(&anna.token).json(&json!({"url": url})).send().await;
            for answer in [create(&app, &anna, url).await, change] {
                let problem = answer.expect(400).json();
                let error = &problem["errors"][0];
                assert_eq!((&error["field"], &error["code"]), (&json!("url"), &json!("invalid_url")), "{url}: {problem}");
                says_nothing_of_the_network(text(error, "message"));
            }
            count += 1;
        }
        assert!(count >= 100);
        assert_eq!(app.count("SELECT count(*) FROM webhooks").await, 1);
        assert_eq!(app.get(&path).token(&anna.token).send().await.expect(200).json()["url"], "https://example.com/hook");
    }

    async fn what_the_dns_says_of_a_webhook_is_judged_at_each_delivery(engine: Engine) {
        let names = Names::default();
        let app = App::start_resolving(engine, &[VAULT, ALLOW], Box::new(names.clone())).await;
        let anna = app.person("anna").await;
        let ok = "HTTP/1.1 204 x\r\nConnection: close\r\n\r\n".to_owned();
        let (port, judged) = receiver("127.0.0.1:0", ok.clone()).await;
        let (_, inside) = receiver(&format!("127.0.0.2:{port}"), ok).await;
        // https to public addresses, http to allowed ones; none of these is either.
        for (n, answer) in [
            &["127.0.0.2"][..], &["10.0.0.1"], &["169.254.169.254"], &["100.100.100.200"], &["168.63.129.16"], &["0.0.0.0"],
            &["::1"], &["::ffff:127.0.0.2"], &["64:ff9b::127.0.0.2"], &["2002:7f00:2::"], &["fd00:ec2::254"], &["fe80::1"],
            &["ff02::1"], &["127.0.0.2", "10.0.0.1", "fe80::1"],
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("alias{n}.example");
            names.set(&name, &[answer]);
            for scheme in ["http", "https"] {
                let made = create(&app, &anna, &format!("{scheme}://{name}:{port}/")).await.expect(201).json();
                let outcome = tried(&app, &anna, &made).await;
                assert_eq!((&outcome["delivered"], &outcome["error"]), (&json!(false), &json!("refused")), "{answer:?} {outcome}");
                says_nothing_of_the_network(text(&outcome, "message"));
            }
            assert_eq!(names.asked(&name), 2);
        }
        // What is allowed is reached, also where the name has another address; and nothing beside it.
        names.set("both.example", &[&["127.0.0.2", "127.0.0.1", "10.0.0.1"]]);
        let made = create(&app, &anna, &format!("http://both.example:{port}/")).await.expect(201).json();
        assert_eq!(tried(&app, &anna, &made).await["status"], 204);
        // Judged once, connected to once; the second time it leads elsewhere.
        names.set("rebinding.example", &[&["127.0.0.1"], &["127.0.0.2"]]);
        let made = create(&app, &anna, &format!("http://rebinding.example:{port}/")).await.expect(201).json();
        assert_eq!(tried(&app, &anna, &made).await["delivered"], true);
        assert_eq!(names.asked("rebinding.example"), 1);
        assert_eq!(tried(&app, &anna, &made).await["error"], "refused");
        assert_eq!((judged.lock().unwrap().len(), inside.lock().unwrap().len()), (2, 0));
    }

    async fn a_host_that_answers_with_tricks_gains_nothing(engine: Engine) {
        let names = Names::default();
        let app = App::start_resolving(engine, &[VAULT, ALLOW, ("KEYWARD_WEBHOOK_TIMEOUT", "1s")], Box::new(names)).await;
        let anna = app.person("anna").await;
        let (inside_port, inside) = receiver("127.0.0.2:0", "HTTP/1.1 204 x\r\n\r\n".to_owned()).await;
        let redirect = |to: String| format!("HTTP/1.1 307 x\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        for (answer, expected) in [
            (redirect(format!("http://127.0.0.2:{inside_port}/")), "redirect"),
            (redirect("http://169.254.169.254/latest/meta-data/".to_owned()), "redirect"),
            (format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(100_000)), "http"),
            (format!("HTTP/1.1 503 x\r\nRetry-After: {}\r\nContent-Length: 0\r\n\r\n", "9".repeat(400)), "status"),
            // No end of the head: the connection stays open.
            ("HTTP/1.1 200 OK\r\nX: y".to_owned(), "http"),
        ] {
            let (port, _) = receiver("127.0.0.1:0", answer.clone()).await;
            let made = create(&app, &anna, &format!("http://127.0.0.1:{port}/")).await.expect(201).json();
            let outcome = tried(&app, &anna, &made).await;
            assert_eq!((&outcome["delivered"], &outcome["error"]), (&json!(false), &json!(expected)), "{answer:.80}");
        }
        assert_eq!(inside.lock().unwrap().len(), 0);
        // An endless body is none of our business: the head said 200.
        let (port, _) = receiver("127.0.0.1:0", format!("HTTP/1.1 200 OK\r\n\r\n{}", "a".repeat(5_000_000))).await;
        let made = create(&app, &anna, &format!("http://127.0.0.1:{port}/")).await.expect(201).json();
        let outcome = tried(&app, &anna, &made).await;
        assert_eq!((&outcome["delivered"], outcome["answer"].as_str().unwrap().len()), (&json!(true), 1024));
        // Nobody answers for this name.
        let made = create(&app, &anna, "https://silent.example/").await.expect(201).json();
        assert_eq!(tried(&app, &anna, &made).await["error"], "timeout");
    }
}
