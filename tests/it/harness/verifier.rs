//! Receivers of webhooks as processes, which verify what they get with the public `standardwebhooks` libraries.
//! `scripts/install-test-tools` installs those; where one is missing, the tests that need it fail and say so.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// Whose library verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    PyPi,
    Npm,
}

/// A receiver on a port of this machine; killed when dropped.
pub struct Verifier {
    child: Child,
    pub url: String,
    directory: tempfile::TempDir,
}

impl Verifier {
    /// Starts one that knows no secret yet.
    pub async fn start(library: Library) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let directory = tempfile::tempdir().unwrap();
        let secrets = directory.path().join("secrets.json");
        std::fs::write(&secrets, "{}").unwrap();
        let mut command = match library {
            Library::PyPi => {
                let python = root.join(".tools/venv/bin/python");
                let probe = Command::new(&python).args(["-c", "import standardwebhooks"]).stderr(Stdio::null()).status();
                let is_there = probe.is_ok_and(|status| status.success());
                assert!(is_there, "no standardwebhooks in {}: {MISSING}", python.display());
                let mut command = Command::new(python);
                command.arg(root.join("tests/it/harness/webhook_verifier.py")).arg(&secrets);
                command
            }
            Library::Npm => {
                let (node, packages) = (root.join(".tools/node/node"), root.join(".tools/node/node_modules"));
                let package = packages.join("standardwebhooks");
                assert!(node.exists() && package.exists(), "no {}: {MISSING}", package.display());
                let mut command = Command::new(node);
                command.arg(root.join("tests/it/harness/webhook_verifier.cjs")).arg(&secrets).arg(&packages);
                command
            }
        };
        let output = |name: &str| File::create(directory.path().join(name)).unwrap();
        command.env_clear().stdin(Stdio::null()).stdout(output("said")).stderr(output("trouble"));
        let mut verifier = Self { child: command.spawn().unwrap(), url: String::new(), directory };
        let port = verifier.until(|said| said.first()?["port"].as_u64()).await;
        verifier.url = format!("http://127.0.0.1:{port}/");
        verifier
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// From now on it tries these secrets, by their names.
    pub fn trust(&self, secrets: &[(&str, &str)]) {
        let secrets: Map<_, _> = secrets.iter().map(|(name, secret)| ((*name).to_owned(), json!(secret))).collect();
        let new = self.file("new.json");
        std::fs::write(&new, json!(secrets).to_string()).unwrap();
        std::fs::rename(new, self.file("secrets.json")).unwrap();
    }

    async fn until<T>(&self, found: impl Fn(&[Value]) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let text = std::fs::read_to_string(self.file("said")).unwrap_or_default();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let said: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if let Some(found) = found(&said) {
                return found;
            }
            let trouble = || std::fs::read_to_string(self.file("trouble")).unwrap_or_default();
            assert!(started.elapsed() < Duration::from_secs(30), "the receiver said only {said:?}; {}", trouble());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The request with this number, from 1, and what came of it.
    pub async fn request(&self, number: usize) -> Value {
        self.until(|said| said.get(number).cloned()).await
    }
}

const MISSING: &str = "run scripts/install-test-tools (make tools)";

impl Drop for Verifier {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
