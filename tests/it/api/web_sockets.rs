//! Connections: HTTP/2, slow and silent clients, too many of them, and requests that never end.

use std::time::Duration;

use reqwest::Version;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::support::{body_of, dial, listen, until_metrics_say};
use crate::both_engines;
use crate::harness::{App, Call};

const IMPATIENT: (&str, &str) = ("KEYWARD_HEADER_TIMEOUT", "1s");

/// Sends the head of a log-in whose body never comes.
async fn hang(app: &App) -> TcpStream {
    let mut stream = dial(app).await;
    let head = b"POST /login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head).await.unwrap();
    stream
}

both_engines! {
    async fn http_2_works_without_negotiation(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        let http = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let get = |path: &str| http.get(format!("{}{path}", app.url));
        let response = get("/key/32").send().await.unwrap();
        assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
        assert_eq!(response.bytes().await.unwrap().len(), 32);
        let made = Call(http.post(format!("{}/generate-key", app.url))).token(&ada.token).send().await.expect(201).json();
        assert!(made["key"].is_string());
        Call(get("/nowhere")).send().await.problem(404, "not_found");
        Call(get("/key/8")).header("x-padding", &"x".repeat(17_000)).send().await.problem(431, "headers_too_large");
        Call(get("/list-keys")).api_key("x").token("y").send().await.problem(401, "ambiguous_credentials");
        let body = json!({"username": "x".repeat(1024 * 1024), "password": "x"});
        Call(http.post(format!("{}/login", app.url))).json(&body).send().await.problem(413, "body_too_large");
        let many = (0..300).map(|_| Call(get("/key/1000")).send());
        assert!(futures_util::future::join_all(many).await.iter().all(|answer| answer.status == 200 && answer.bytes.len() == 1000));
    }

    async fn a_client_that_says_nothing_is_cut_off(engine: Engine) {
        let app = App::start_with(engine, &[IMPATIENT]).await;
        let mut all = Vec::new();
        for said in ["", "G", "GET", "GET /health HTTP/1.1\r\nhost: x\r\n", "GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\r\n\r\n"] {
            let app = &app;
            all.push(async move {
                let mut stream = dial(app).await;
                stream.write_all(said.as_bytes()).await.unwrap();
                let (heard, closed) = listen(&mut stream).await;
                assert!(closed, "{said:?} is still open");
                assert!(!heard.contains(" 200 "), "{said:?}: {heard}");
            });
        }
        futures_util::future::join_all(all).await;
    }

    async fn a_client_that_dribbles_is_cut_off(engine: Engine) {
        let app = App::start_with(engine, &[IMPATIENT]).await;
        let (mut read, mut write) = dial(&app).await.into_split();
        let dribble = tokio::spawn(async move {
            let head = b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ".iter().chain(std::iter::repeat(&b'x'));
            for byte in head {
                // Fails once the server has closed.
                if write.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut heard = Vec::new();
        let end = tokio::time::timeout(Duration::from_millis(2500), tokio::io::AsyncReadExt::read_to_end(&mut read, &mut heard)).await;
        dribble.abort();
        assert!(end.is_ok(), "still open");
        assert!(!String::from_utf8_lossy(&heard).contains(" 200 "));
    }

    async fn an_idle_connection_ends(engine: Engine) {
        let app = App::start_with(engine, &[IMPATIENT]).await;
        let mut stream = dial(&app).await;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let (heard, closed) = listen(&mut stream).await;
        assert!(heard.starts_with("HTTP/1.1 200") && heard.ends_with("OK"), "{heard}");
        assert!(closed, "still open");
    }

    async fn a_body_that_never_comes_is_not_waited_for(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_REQUEST_TIMEOUT", "1s")]).await;
        let mut stream = hang(&app).await;
        let (heard, _) = listen(&mut stream).await;
        assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
        assert!(heard.to_lowercase().contains("content-type: application/problem+json"), "{heard}");
        let problem = body_of(&heard);
        assert_eq!((&problem["status"], &problem["code"]), (&json!(408), &json!("timeout")));
        assert!(heard.to_lowercase().contains(&format!("x-request-id: {}", problem["request_id"].as_str().unwrap().to_lowercase())));
        app.get("/health").send().await.expect(200);
    }

    async fn one_connection_too_many_is_turned_away(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_MAX_CONNECTIONS", "1")]).await;
        let mut first = dial(&app).await;
        first.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        until_metrics_say(&app, "keyward_http_connections 1").await;
        let mut second = dial(&app).await;
        let (heard, closed) = listen(&mut second).await;
        assert!(closed && heard.starts_with("HTTP/1.1 503"), "{heard}");
        assert!(heard.to_lowercase().contains("retry-after: "), "{heard}");
        assert!(heard.to_lowercase().contains("content-type: application/problem+json"), "{heard}");
        let problem = body_of(&heard);
        assert_eq!((&problem["status"], &problem["code"]), (&json!(503), &json!("overloaded")));
        assert!(heard.contains(&format!("content-length: {}\r\n", problem.to_string().len())) || heard.contains("content-length"), "{heard}");
        until_metrics_say(&app, "keyward_http_connections_refused_total 1").await;
        drop(first);
        until_metrics_say(&app, "keyward_http_connections 0").await;
        app.get("/health").send().await.expect(200);
    }

    async fn one_request_too_many_is_shed_and_health_answers(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_MAX_IN_FLIGHT", "1")]).await;
        let hanging = hang(&app).await;
        until_metrics_say(&app, "keyward_http_requests_in_flight 1").await;
        for path in ["/key/8", "/nowhere", "/v1/users/me"] {
            let shed = app.get(path).send().await;
            let problem = shed.problem(503, "overloaded");
            assert!(shed.header("retry-after").parse::<u64>().unwrap() >= 1, "{problem}");
        }
        for path in ["/health", "/health/live", "/health/ready"] {
            app.get(path).send().await.expect(200);
        }
        until_metrics_say(&app, "keyward_http_requests_shed_total 3").await;
        drop(hanging);
        until_metrics_say(&app, "keyward_http_requests_in_flight 0").await;
        app.get("/key/8").send().await.expect(200);
    }
}
