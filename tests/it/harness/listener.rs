//! Listens to a stream of events, as a browser would.

use std::time::Duration;

use serde_json::{Value, json};

use super::{App, Call};

/// Longer than anything takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open stream.
pub struct Listener {
    response: reqwest::Response,
    heard: String,
}

impl App {
    /// Opens a project's stream; `rest` is its query.
    pub async fn listen(&self, token: &str, project: &str, rest: &str) -> Listener {
        Listener::of(self.get(&format!("/v1/projects/{project}/events{rest}")).token(token)).await
    }
}

impl Listener {
    /// Sends a call, whose answer must be a stream.
    pub async fn of(call: Call) -> Self {
        let response = call.header("accept", "text/event-stream").0.send().await.unwrap();
        let status = response.status().as_u16();
        assert!(status == 200, "{status}: {}", response.text().await.unwrap());
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { response, heard: String::new() }
    }

    /// The next block, without its line ends; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.heard.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.heard = rest;
                return Some(block);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("nothing comes");
            // A stream that is broken off has ended, too.
            self.heard += std::str::from_utf8(&chunk.ok().flatten()?).unwrap();
        }
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let block = self.block().await?;
            if block.starts_with(':') || block.starts_with("retry:") {
                continue;
            }
            let lines: Vec<_> = block.lines().map(|line| line.split_once(": ").unwrap()).collect();
            let [("id", id), ("event", kind), ("data", data)] = lines.as_slice() else { panic!("{block}") };
            let event: Value = serde_json::from_str(data).unwrap();
            assert_eq!((&event["id"], &event["type"]), (&json!(id), &json!(kind)));
            return Some(event);
        }
    }

    /// So many events.
    pub async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(self.next().await.unwrap_or_else(|| panic!("only {events:#?}")));
        }
        events
    }

    /// Everything until the end.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// What the last comment says once the stream has ended; no event may come before.
    pub async fn end(&mut self) -> String {
        let mut last = String::new();
        while let Some(block) = self.block().await {
            assert!(block.starts_with(':') || block.starts_with("retry:"), "{block}");
            last = block;
        }
        last
    }
}
