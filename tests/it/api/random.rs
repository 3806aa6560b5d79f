//! `GET /key/{length}`.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::StreamExt as _;
use reqwest::Method;

use crate::both_engines;
use crate::harness::App;

const MAX: (&str, &str) = ("KEYWARD_MAX_KEY_SIZE", "16777216");

both_engines! {
    async fn random_bytes_are_given(engine: Engine) {
        let app = App::start(engine).await;
        let mut seen = HashSet::new();
        for length in [1, 2, 31, 32, 33, 1023, 1024] {
            for _ in 0..3 {
                let answer = app.get(&format!("/key/{length}")).send().await.expect(200);
                assert_eq!(answer.bytes.len(), length);
                assert_eq!(answer.header("content-type"), "application/octet-stream");
                assert_eq!(answer.header("content-length"), length.to_string());
                assert_eq!(answer.header("cache-control"), "no-store");
                assert!(length < 31 || seen.insert(answer.bytes), "the same twice");
            }
        }
        // Leading zeros are zeros; and nobody must be known.
        assert_eq!(app.get("/key/0032").send().await.expect(200).bytes.len(), 32);
        assert_eq!(app.get("/key/%33%32").send().await.expect(200).bytes.len(), 32);
        app.get("/key/32").token("nonsense").send().await.expect(200);
    }

    async fn a_length_is_a_positive_integer(engine: Engine) {
        let app = App::start(engine).await;
        for bad in ["0", "00", "abc", "+7", "-1", "1_0", "1.0", "1e3", "0x10", "%2B7", "%201", "32%20", "%EF%BC%91", "%ff", "%00", "32%2F", "1,024", "NaN"] {
            let answer = app.get(&format!("/key/{bad}")).send().await;
            answer.problem(400, "invalid_length");
            assert_eq!(answer.header("cache-control"), "no-store");
        }
        for large in ["1025", "16777217", "18446744073709551615", "18446744073709551616", &"9".repeat(1000)] {
            let problem = app.get(&format!("/key/{large}")).send().await.problem(413, "length_too_large");
            assert_eq!(problem["detail"], "Length exceeds maximum size of 1024");
            assert_eq!(problem["error"], problem["detail"]);
        }
        for nowhere in ["/key", "/key/", "/key/32/", "/key/32/1"] {
            app.get(nowhere).send().await.problem(404, "not_found");
        }
        let answer = app.post("/key/32").send().await;
        answer.problem(405, "method_not_allowed");
        assert!(answer.header("allow").contains("GET"), "{}", answer.header("allow"));
    }

    async fn text_is_given_where_it_is_wanted(engine: Engine) {
        let app = App::start(engine).await;
        for length in [1, 2, 3, 32, 1024_usize] {
            for encoding in ["hex", "base64", "base64url"] {
                let answer = app.get(&format!("/key/{length}?encoding={encoding}")).send().await.expect(200);
                assert!(answer.header("content-type").starts_with("text/plain"), "{encoding}");
                assert_eq!(answer.header("cache-control"), "no-store");
                let text = answer.text();
                assert_eq!(answer.header("content-length"), text.len().to_string());
                let bytes = match encoding {
                    "hex" => {
                        assert_eq!(text, text.to_lowercase());
                        hex::decode(&text).unwrap()
                    }
                    "base64" => STANDARD.decode(&text).unwrap(),
                    _ => URL_SAFE_NO_PAD.decode(&text).unwrap(),
                };
                assert_eq!(bytes.len(), length, "{encoding}: the length is that of the bytes");
            }
        }
        for unknown in ["base32", "HEX", "", "raw", "%00"] {
            let answer = app.get(&format!("/key/32?encoding={unknown}")).send().await;
            assert_eq!(answer.status, 400, "{unknown}");
        }
        app.get("/key/32?encoding=base32").send().await.problem(400, "invalid_request");
        app.get("/key/32?encoding=hex&encoding=hex").send().await.problem(400, "invalid_request");
        app.get("/key/32?format=hex").send().await.problem(400, "unknown_field");
        app.get("/key/1025?encoding=hex").send().await.problem(413, "length_too_large");
    }

    async fn head_tells_the_length_alone(engine: Engine) {
        let app = App::start_with(engine, &[MAX]).await;
        for (path, length, kind) in [
            ("/key/32", "32", "application/octet-stream"),
            ("/key/16777216", "16777216", "application/octet-stream"),
            ("/key/3?encoding=base64", "4", "text/plain"),
            ("/key/16777216?encoding=hex", "33554432", "text/plain"),
        ] {
            let answer = app.call(Method::HEAD, path).send().await.expect(200);
            assert_eq!((answer.header("content-length"), answer.bytes.len()), (length, 0), "{path}");
            assert!(answer.header("content-type").starts_with(kind), "{path}");
            assert_eq!(answer.header("cache-control"), "no-store");
        }
        let refused = app.call(Method::HEAD, "/key/0").send().await.expect(400);
        assert!(refused.bytes.is_empty());
    }

    async fn the_largest_answer_is_streamed(engine: Engine) {
        let app = App::start_with(engine, &[MAX]).await;
        let length = 16 * 1024 * 1024;
        let response = app.get("/key/16777216").0.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-length"], length.to_string().as_str());
        let (mut stream, mut bytes, mut pieces) = (response.bytes_stream(), Vec::with_capacity(length), 0);
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece.unwrap());
            pieces += 1;
        }
        assert_eq!(bytes.len(), length);
        assert!(pieces > 1);
        // No block of 16 bytes twice: neither zeros nor a generator that begins anew with each piece.
        let blocks: HashSet<&[u8]> = bytes.chunks(16).collect();
        assert_eq!(blocks.len(), length / 16);
        // Each value of a byte about equally often: 65,536 times, give or take six deviations of 256.
        let mut counts = [0_i64; 256];
        for byte in &bytes {
            counts[usize::from(*byte)] += 1;
        }
        assert!(counts.iter().all(|count| (count - 65_536).abs() < 6 * 256), "{counts:?}");
        app.get("/key/16777217").send().await.problem(413, "length_too_large");
    }

    async fn streamed_text_is_whole(engine: Engine) {
        let app = App::start_with(engine, &[MAX]).await;
        // Around the border between one piece and several.
        for length in [64_511, 64_512, 64_513, 65_536, 65_537, 200_000_usize] {
            assert_eq!(app.get(&format!("/key/{length}")).send().await.expect(200).bytes.len(), length);
            let text = app.get(&format!("/key/{length}?encoding=base64")).send().await.expect(200).text();
            assert_eq!(STANDARD.decode(text).unwrap().len(), length);
            let text = app.get(&format!("/key/{length}?encoding=base64url")).send().await.expect(200).text();
            assert_eq!(URL_SAFE_NO_PAD.decode(text).unwrap().len(), length);
            let text = app.get(&format!("/key/{length}?encoding=hex")).send().await.expect(200).text();
            assert_eq!(hex::decode(text).unwrap().len(), length);
        }
    }
}
