//! `@elastic/mockotlpserver` as a process: what a collector sees of the service. `scripts/install-test-tools` installs it;
//! where it is missing, the tests that need it fail and say so.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A receiver on a port of this machine; killed when dropped.
pub struct Receiver {
    child: Child,
    /// For `KEYWARD_OTLP_ENDPOINT`.
    pub url: String,
    output: PathBuf,
}

/// What was received: the resource, and the span or the log record.
#[derive(Clone, Debug)]
pub struct Received {
    pub resource: Value,
    pub item: Value,
}

impl Received {
    pub fn attribute(&self, name: &str) -> &Value {
        &self.item["attributes"][name]
    }

    #[track_caller]
    pub fn text(&self, name: &str) -> &str {
        self.item[name].as_str().unwrap_or_default()
    }
}

impl Receiver {
    /// Starts one on a free port. `name` tells several in one directory apart.
    pub async fn start(directory: &Path, name: &str) -> Self {
        Self::start_at(directory, name, 0).await
    }

    /// Starts one on a port that another had.
    pub async fn start_at(directory: &Path, name: &str, port: u16) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tools = root.join(".tools/node");
        let (node, packages) = (tools.join("node"), tools.join("node_modules"));
        let package = packages.join("@elastic/mockotlpserver");
        assert!(
            node.exists() && package.exists(),
            "no OTLP receiver at {}: run scripts/install-test-tools (make tools)",
            package.display()
        );
        let output = directory.join(format!("{name}.jsonl"));
        let file = File::create(&output).unwrap();
        let child = Command::new(node)
            .arg(root.join("tests/it/harness/otlp_receiver.cjs"))
            .arg(&packages)
            .arg(port.to_string())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut receiver = Self { child, url: String::new(), output };
        receiver.url =
            receiver.until(|said| Some(said.first()?["url"].as_str()?.trim_end_matches('/').to_owned())).await;
        receiver
    }

    /// The port, for whoever comes after it.
    pub fn port(&self) -> u16 {
        self.url.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// Everything that it has said. A line that is being written doesn't count yet.
    fn said(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        whole.lines().filter(|line| !line.is_empty()).map(parse).collect()
    }

    /// All that it has said, as text.
    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }

    /// Waits until something can be found in what it says, 20 seconds at most.
    async fn until<T>(&self, find: impl Fn(&[Value]) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let said = self.said();
            if let Some(found) = find(&said) {
                return found;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "not in {}", self.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every span that it has received.
    pub fn spans(&self) -> Vec<Received> {
        self.said().iter().flat_map(|said| items(&said["traces"], "resourceSpans", "scopeSpans", "spans")).collect()
    }

    /// Every log record that it has received.
    pub fn logs(&self) -> Vec<Received> {
        self.said().iter().flat_map(|said| items(&said["logs"], "resourceLogs", "scopeLogs", "logRecords")).collect()
    }

    /// The headers of each request to it.
    pub fn headers(&self) -> Vec<Value> {
        self.said().iter().filter(|said| !said["request"].is_null()).map(|said| said["headers"].clone()).collect()
    }

    /// The one span of the service itself in a trace, once it is there.
    pub async fn server_span(&self, trace: &str) -> Received {
        self.until(|_| {
            let of_trace = |span: &Received| span.text("traceId") == trace && span.text("kind") == "SPAN_KIND_SERVER";
            self.spans().into_iter().find(of_trace)
        })
        .await
    }

    /// The log records of a request, once there are so many.
    pub async fn logs_of(&self, request: &str, count: usize) -> Vec<Received> {
        self.until(|_| {
            let logs: Vec<_> = self.logs().into_iter().filter(|log| log.attribute("request_id") == request).collect();
            (logs.len() >= count).then_some(logs)
        })
        .await
    }

    /// Sends it a signal by its name: `STOP` and `CONT` make it hang and go on.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn items(said: &Value, resources: &str, scopes: &str, name: &str) -> Vec<Received> {
    let mut found = Vec::new();
    for group in said[resources].as_array().into_iter().flatten() {
        for scope in group[scopes].as_array().into_iter().flatten() {
            assert_eq!(scope["scope"]["name"], "keyward", "{scope}");
            let items = scope[name].as_array().into_iter().flatten();
            found.extend(
                items.map(|item| Received { resource: group["resource"]["attributes"].clone(), item: item.clone() }),
            );
        }
    }
    found
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
