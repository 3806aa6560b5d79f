//! `aiosmtpd` as a process: a real mail server. `scripts/install-test-tools` installs it; where it is missing, the tests that
//! need it fail and say so.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// A mail server on a port of this machine; killed when dropped.
pub struct MailServer {
    child: Child,
    pub port: u16,
    /// The certificate that it proves itself with, as `localhost`.
    pub certificate: PathBuf,
    output: PathBuf,
    _directory: tempfile::TempDir,
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// Who may log in.
pub const LOGIN: (&str, &str) = ("keyward", "correct horse");

impl MailServer {
    /// Starts one: `tls` is as in `KEYWARD_SMTP_TLS`; `replies` are given to RCPT or DATA, in this order, instead of 250.
    pub async fn start(tls: &str, is_private: bool, replies: &[(&str, &str)]) -> Self {
        Self::start_at(0, tls, is_private, replies).await
    }

    /// Starts one on a port of the test's choice.
    pub async fn start_at(port: u16, tls: &str, is_private: bool, replies: &[(&str, &str)]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join(".tools/venv/bin/python");
        let is_there = Command::new(&python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
        assert!(
            is_there.is_ok_and(|status| status.success()),
            "no aiosmtpd in {}: run scripts/install-test-tools (make tools)",
            python.display()
        );
        let directory = tempfile::tempdir().unwrap();
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let [certificate, key, output] = ["cert.pem", "key.pem", "said"].map(|name| directory.path().join(name));
        std::fs::write(&certificate, pem("CERTIFICATE", cert.der())).unwrap();
        std::fs::write(&key, pem("PRIVATE KEY", &signing_key.serialize_der())).unwrap();
        let mut wish = json!({"port": port, "tls": tls, "cert": certificate, "key": key, "replies": replies});
        if is_private {
            wish["login"] = json!(LOGIN.0);
            wish["password"] = json!(LOGIN.1);
        }
        let file = File::create(&output).unwrap();
        let child = Command::new(&python)
            .arg(root.join("tests/it/harness/smtp_server.py"))
            .arg(wish.to_string())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(File::create(output.with_extension("trouble")).unwrap())
            .spawn()
            .unwrap();
        let mut server = Self { child, port: 0, certificate, output, _directory: directory };
        let said = server.until(|said| said.iter().any(|line| line["port"].is_number())).await;
        server.port = u16::try_from(said[0]["port"].as_u64().unwrap()).unwrap();
        server
    }

    /// Everything that it has said.
    fn said(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}"));
        whole.lines().map(parse).collect()
    }

    /// Waits until it has said something, and gives all of it.
    pub async fn until(&self, is_enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let started = Instant::now();
        loop {
            let said = self.said();
            if is_enough(&said) {
                return said;
            }
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "the mail server said only {said:?}; {}",
                self.trouble()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What Python said besides: a client that breaks off is one of its troubles.
    fn trouble(&self) -> String {
        std::fs::read_to_string(self.output.with_extension("trouble")).unwrap_or_default()
    }

    /// The mails that it has taken.
    pub fn taken(&self) -> Vec<Value> {
        self.said().into_iter().filter(|line| line["message"].is_string() && line["refused"].is_null()).collect()
    }

    /// The commands and mails that it has refused, as it put it.
    pub fn refused(&self) -> Vec<String> {
        self.said().iter().filter_map(|line| line["refused"].as_str().map(str::to_owned)).collect()
    }

    /// Whether anybody has begun to hand over a mail.
    pub fn was_given_mail(&self) -> bool {
        self.said().iter().any(|line| line["command"] == "MAIL")
    }

    /// Waits for so many mails.
    pub async fn mails(&self, count: usize) -> Vec<Value> {
        let is_taken = |line: &&Value| line["message"].is_string() && line["refused"].is_null();
        self.until(|said| said.iter().filter(is_taken).count() >= count).await;
        self.taken()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
