//! What is refused before a handler sees it: bodies, paths, methods, heads; and what every answer carries.

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{MANY_KEYS, body_of, talk, text};
use crate::both_engines;
use crate::harness::{Answer, App};

const MIB: usize = 1024 * 1024;

async fn generate(app: &App, token: &str, body: impl Into<Vec<u8>>) -> Answer {
    app.post("/generate-key").token(token).raw(body).send().await
}

/// `levels` arrays and objects in one another.
fn nested(levels: usize) -> String {
    format!("{{\"metadata\": {{\"a\": {}{}}}}}", "[".repeat(levels - 2), "]".repeat(levels - 2))
}

both_engines! {
    async fn a_body_must_be_json(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for bad in ["{", "{}x", "{} {}", "{'name': 'x'}", "{\"name\": NaN}", "{name: 1}", "\u{feff}{}", "hello", "{\"name\": \"a\tb\"}", "{\"name\": \"\\ud800\"}", "{\"name\": \"x\",}", "{\"metadata\": {\"n\": 1e999}}"] {
            generate(&app, &ada.token, bad).await.problem(400, "invalid_json");
        }
        let latin: &[u8] = b"{\"name\": \"caf\xe9\"}";
        generate(&app, &ada.token, latin).await.problem(400, "invalid_json");
        for wrong in ["[]", "[\"name\"]", "7", "\"name\"", "true"] {
            let problem = generate(&app, &ada.token, wrong).await.problem(400, "invalid_request");
            assert_eq!(problem["errors"][0]["field"], "body", "{wrong}");
        }
        // As serde would take it, with the field names left out.
        app.post("/login").raw("[\"ada\", \"password\"]").send().await.problem(400, "invalid_request");
        app.post("/v1/keys/verify").token(&ada.token).raw("{\"key\": \"x\", \"client\": [\"127.0.0.1\", \"GET\", \"/\"]}").send().await.problem(400, "invalid_request");
        let twice = generate(&app, &ada.token, "{\"name\": \"a\", \"name\": \"b\"}").await.problem(400, "invalid_request");
        assert_eq!((&twice["errors"][0]["field"], &twice["errors"][0]["code"]), (&json!("name"), &json!("duplicate")));
        let unknown = generate(&app, &ada.token, "{\"nmae\": \"hunter2\"}").await.problem(400, "unknown_field");
        assert_eq!(unknown["errors"][0]["field"], "nmae");
        assert!(!unknown.to_string().contains("hunter2"));
        assert_eq!(app.count("SELECT count(*) FROM api_keys").await, 0);
    }

    async fn a_body_is_missing_or_optional(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        app.post("/login").send().await.problem(415, "unsupported_media_type");
        app.post("/login").raw("").send().await.problem(400, "invalid_json");
        app.post("/login").raw("null").send().await.problem(400, "invalid_request");
        app.post("/generate-key").token(&ada.token).send().await.expect(201);
        for empty in ["", "null", " null\n", "{}"] {
            generate(&app, &ada.token, empty).await.expect(201);
        }
    }

    async fn a_body_must_be_declared(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let send = |kind: &str| {
            let mut call = app.post("/generate-key").token(&ada.token);
            call.0 = call.0.header("content-type", kind).body("{\"name\": \"x\"}");
            call.send()
        };
        for good in ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/merge-patch+json"] {
            send(good).await.expect(201);
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data; boundary=x", "json", "", "text/json"] {
            send(bad).await.problem(415, "unsupported_media_type");
        }
        let mut undeclared = app.post("/generate-key").token(&ada.token);
        undeclared.0 = undeclared.0.body("{}");
        undeclared.send().await.problem(415, "unsupported_media_type");
    }

    async fn a_body_has_a_mebibyte_at_most(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let padded = |length: usize| format!("{{\"name\": \"x\"{}}}", " ".repeat(length - 13)).into_bytes();
        assert_eq!(padded(MIB).len(), MIB);
        generate(&app, &ada.token, padded(MIB)).await.expect(201);
        generate(&app, &ada.token, padded(MIB + 1)).await.problem(413, "body_too_large");
        for (length, status) in [(MIB, 201), (MIB + 1, 413)] {
            // Without a Content-Length, in chunks.
            let chunks: Vec<_> = padded(length).chunks(100_000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
            let mut call = app.post("/generate-key").token(&ada.token).header("content-type", "application/json");
            call.0 = call.0.body(reqwest::Body::wrap_stream(futures_util::stream::iter(chunks)));
            let answer = call.send().await;
            assert_eq!(answer.status, status, "{}", answer.text());
        }
        // Nobody reads to the end of what is too long.
        let mut request = format!("POST /login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", 50 * MIB).into_bytes();
        request.resize(request.len() + MIB + 1, b' ');
        let answer = talk(&app, &request).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert_eq!(body_of(&answer)["code"], "body_too_large");
    }

    async fn a_body_has_64_levels_at_most(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        let made = generate(&app, &ada.token, nested(64)).await.expect(201).json();
        let found = app.get(&super::support::path(&made, "")).token(&ada.token).send().await.expect(200).json();
        assert_eq!(found["metadata"], made["metadata"]);
        generate(&app, &ada.token, nested(65)).await.problem(400, "invalid_json");
        generate(&app, &ada.token, "[".repeat(MIB)).await.problem(400, "invalid_json");
        generate(&app, &ada.token, "{\"a\":".repeat(100_000)).await.problem(400, "invalid_json");
    }

    async fn what_cannot_be_stored_is_refused(engine: Engine) {
        let app = App::start_with(engine, &[MANY_KEYS]).await;
        let ada = app.person("ada").await;
        for bad in ["{\"name\": \"a\\u0000b\"}", "{\"metadata\": {\"a\\u0000\": 1}}", "{\"metadata\": {\"a\": [\"\\u0000\"]}}", "{\"description\": \"\\\\\\u0000\"}", "{\"owner\": \"a\u{0}b\"}"] {
            generate(&app, &ada.token, bad).await.problem(400, "invalid_json");
        }
        // A backslash and its escape are no NUL; and all other text is kept as it is.
        let odd = json!({"name": "\\u0000 \u{fffd}\u{10ffff}'\"%_", "description": "\u{2028}\r\n\t", "owner": "\u{202e}", "metadata": {"": "", "\u{1}": "\u{7f}", "n": 9_007_199_254_740_993_i64}});
        let made = generate(&app, &ada.token, odd.to_string()).await.expect(201).json();
        let found = app.get(&super::support::path(&made, "")).token(&ada.token).send().await.expect(200).json();
        for field in ["name", "description", "owner", "metadata"] {
            assert_eq!(found[field], odd[field], "{field}");
        }
        for path in ["/v1/keys/%00", "/v1/projects/%00/keys", "/%00"] {
            assert_eq!(app.get(path).token(&ada.token).send().await.status, 404, "{path}");
        }
        app.post("/login").json(&json!({"username": "a\u{0}b", "password": "x"})).send().await.problem(400, "invalid_json");
    }
}

both_engines! {
    async fn unknown_paths_are_problems(engine: Engine) {
        let app = App::start(engine).await;
        for path in ["/", "/nowhere", "/v1", "/v1/", "/v1/keys", "/V1/keys/verify", "/health/", "//health", "/register/", "/metrics", "/favicon.ico", "/%ff", "/v1/keys/self/x", "/.env"] {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                app.call(method, path).send().await.problem(404, "not_found");
            }
        }
    }

    async fn wrong_methods_are_told_the_right_ones(engine: Engine) {
        let app = App::start(engine).await;
        let document = serde_json::to_value(keyward::server::document(&app.ctx)).unwrap();
        let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::TRACE, Method::from_bytes(b"BREW").unwrap()];
        for (template, item) in document["paths"].as_object().unwrap() {
            let of = |part: &str| match part {
                "{length}" => "8".to_owned(),
                part if part.starts_with('{') => "x".to_owned(),
                part => part.to_owned(),
            };
            let path = template.split('/').map(of).collect::<Vec<_>>().join("/");
            let documented = |method: &Method| {
                let method = if method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
                item.get(&method).is_some()
            };
            for method in methods.iter().filter(|method| !documented(method)) {
                let answer = app.call(method.clone(), &path).send().await;
                assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text());
                let allow = answer.header("allow").to_owned();
                let allowed: Vec<_> = allow.split(',').map(str::trim).collect();
                for method in methods.iter().filter(|method| documented(method)) {
                    assert!(allowed.contains(&method.as_str()), "{path}: no {method} in {allow:?}");
                }
                assert!(!allowed.contains(&method.as_str()), "{path}: {method} in {allow:?}");
                // An answer to HEAD has no body.
                if *method != Method::HEAD {
                    answer.problem(405, "method_not_allowed");
                }
            }
        }
    }

    async fn odd_request_lines_end_no_server(engine: Engine) {
        let app = App::start(engine).await;
        for line in ["BREW /health HTTP/1.1", "get /health HTTP/1.1", "TRACE / HTTP/1.1", "CONNECT example.com:443 HTTP/1.1", "OPTIONS * HTTP/1.1", "GET * HTTP/1.1", "GET http://example.com/health HTTP/1.1",
            "GET http://example.com HTTP/1.1", "GET ?x=1 HTTP/1.1", "GET /\u{e9} HTTP/1.1", "GET /health HTTP/1.0", "GET /health HTTP/3.0", "GET /health", "\u{0}\u{0}\u{0}", "GET  /health HTTP/1.1", "GET /%zz?%zz=%zz HTTP/1.1"] {
            let answer = talk(&app, format!("{line}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await;
            assert!(!answer.contains(" 500 "), "{line}: {answer}");
            if answer.contains("problem+json") {
                assert!(text(&body_of(&answer), "code").len() > 2);
            }
        }
        let both = b"POST /login HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n";
        assert!(!talk(&app, both).await.contains(" 500 "));
        app.get("/health").send().await.expect(200);
    }

    async fn heads_are_bounded(engine: Engine) {
        let app = App::start(engine).await;
        let padded = |length: usize| app.get("/key/8").header("x-padding", &"x".repeat(length)).send();
        padded(15 * 1024).await.expect(200);
        padded(16 * 1024).await.problem(431, "headers_too_large");
        padded(60 * 1024).await.problem(431, "headers_too_large");
        let mut many = app.get("/key/8");
        for i in 0..60 {
            many = many.header(&format!("x-padding-{i}"), &"x".repeat(300));
        }
        many.send().await.problem(431, "headers_too_large");
        // Past what is read at all, a bare answer, and the next connection works.
        let huge = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-padding: {}\r\n\r\n", "x".repeat(200_000));
        assert!(talk(&app, huge.as_bytes()).await.starts_with("HTTP/1.1 431"));

        let query = |length: usize| format!("/key/8?{}", "x".repeat(length - 7));
        app.get(&query(8 * 1024)).send().await.problem(400, "unknown_field");
        app.get(&query(8 * 1024 + 1)).send().await.problem(414, "target_too_long");
        app.get(&format!("/{}", "x".repeat(20_000))).send().await.problem(414, "target_too_long");
        app.get("/health").send().await.expect(200);
    }

    async fn a_request_has_an_id(engine: Engine) {
        let app = App::start(engine).await;
        let id = async |sent: &str| app.get("/key/8").header("x-request-id", sent).send().await.expect(200).header("x-request-id").to_owned();
        for kept in ["a", "8e03978e-40d5-43e8-bc93-6894a57f9324", "~!@#$%^&*()", &"x".repeat(128)] {
            assert_eq!(id(kept).await, kept);
        }
        for replaced in ["", "two words", &"x".repeat(129), "tab\tbed"] {
            let made = id(replaced).await;
            assert!(made.len() == 26 && made != id(replaced).await, "{replaced:?}: {made}");
        }
        let mut call = app.get("/nowhere");
        call.0 = call.0.header("x-request-id", &[b'a', 0xe9][..]);
        assert_eq!(call.send().await.problem(404, "not_found")["request_id"].as_str().unwrap().len(), 26);
        let problem = app.get("/nowhere").header("x-request-id", "mine").send().await.problem(404, "not_found");
        assert_eq!(problem["request_id"], "mine");
    }

    async fn every_answer_is_guarded(engine: Engine) {
        let app = App::start_with(engine, &[("KEYWARD_IP_RATE_PER_MINUTE", "100"), super::support::PROXY]).await;
        let ada = app.person("ada").await;
        let mut answers = vec![
            app.get("/health").send().await.expect(200),
            app.get("/health/ready").send().await.expect(200),
            app.get("/key/8").send().await.expect(200),
            app.call(Method::HEAD, "/key/8").send().await.expect(200),
            app.get("/nowhere").send().await.expect(404),
            app.post("/health").send().await.expect(405),
            app.get("/list-keys").send().await.expect(401),
            app.get("/list-keys").token(&ada.token).send().await.expect(200),
            app.post("/generate-key").token(&ada.token).send().await.expect(201),
            app.post("/logout").token(&ada.token).send().await.expect(204),
            app.post("/login").raw("{").send().await.expect(400),
            app.get("/key/8").header("x-padding", &"x".repeat(17_000)).send().await.expect(431),
            app.get("/openapi.json").send().await.expect(200),
            app.get("/docs/").send().await.expect(200),
        ];
        for _ in 0..101 {
            answers.push(app.get("/key/8").header("x-forwarded-for", "192.0.2.9").send().await);
        }
        answers.last().unwrap().problem(429, "rate_limited");
        for answer in answers {
            let shown = format!("{} {:?}", answer.status, answer.headers);
            assert!(!answer.header("x-request-id").is_empty(), "{shown}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{shown}");
            assert_eq!(answer.header("x-frame-options"), "DENY", "{shown}");
            assert_eq!(answer.header("referrer-policy"), "no-referrer", "{shown}");
            assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{shown}");
            assert!(!answer.header("cache-control").is_empty(), "{shown}");
            assert_eq!(answer.header("server"), "", "{shown}");
        }
    }

    async fn the_documentation_is_served_from_here(engine: Engine) {
        let app = App::start(engine).await;
        let document = app.get("/openapi.json").send().await.expect(200);
        assert_eq!(document.header("content-type"), "application/json");
        assert!(text(&document.json(), "openapi").starts_with("3.1"));
        assert!(document.json()["paths"]["/v1/keys/verify"]["post"].is_object());
        let at = app.get("/docs").send().await;
        assert!(at.status == 200 || at.header("location").ends_with("/docs/"), "{} {:?}", at.status, at.headers);
        let page = app.get("/docs/").send().await.expect(200);
        assert!(page.header("content-type").starts_with("text/html"));
        assert!(!page.text().contains("https://"), "nothing from elsewhere");
        app.get("/docs/../openapi.json").send().await.expect(200);
        assert_eq!(app.get("/docs/%2e%2e%2f%2e%2e%2fetc%2fpasswd").send().await.status, 404);
    }

    async fn a_defect_says_nothing_but_its_id(engine: Engine) {
        let app = App::start(engine).await;
        let ada = app.person("ada").await;
        app.tamper("ALTER TABLE key_creations RENAME TO gone").await;
        let answer = app.post("/generate-key").token(&ada.token).send().await;
        let problem = answer.problem(500, "internal");
        let expected = json!({"type": "about:blank", "title": "Internal Server Error", "status": 500, "detail": "An internal error occurred.", "error": "An internal error occurred.", "code": "internal", "request_id": problem["request_id"]});
        assert_eq!(problem, expected);
        assert_eq!(problem.get("errors"), None::<&Value>);
        app.tamper("ALTER TABLE gone RENAME TO key_creations").await;
        app.post("/generate-key").token(&ada.token).send().await.expect(201);
    }
}
