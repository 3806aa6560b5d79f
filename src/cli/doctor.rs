//! `keyward doctor`: what an operator would want to know before it goes wrong.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::base::clock::{Clock as _, SystemClock, Timestamp};
use crate::base::rng::SystemRng;
use crate::infra::audit_key::{Keyring, key_file};
use crate::infra::config::{Config, DatabaseUrl, Registration, SmtpTls};
use crate::infra::db::{self, Db, MigrationState};
use crate::infra::smtp;

use super::args::Format;
use super::{Failure, output};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    detail: String,
}

/// More than this between our clock and the database's is a wrong clock.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// Checks everything; refuses if something failed.
pub(super) async fn doctor(config: &Config, format: Format) -> Result<(), Failure> {
    let mut findings = Vec::new();
    let mut find = |check, verdict, detail: String| findings.push(Finding { check, verdict, detail });
    // A doctor doesn't wait a minute for a server that is down.
    let mut database = config.database.clone();
    database.start_timeout = database.start_timeout.min(Duration::from_secs(5));
    let clock = SystemClock::new().now();
    let new_file = match &database.url {
        DatabaseUrl::Sqlite(path) => !path.exists(),
        DatabaseUrl::Postgres(_) => false,
    };
    if new_file {
        find("database", Verdict::Ok, "there is no file yet; the first start makes it".to_owned());
        find("clock", plausible(clock), format!("it is {clock}"));
    } else {
        match Db::open(&database).await {
            Err(error) => find("database", Verdict::Failed, error.to_string()),
            Ok(db) => {
                match db.ping().await {
                    Ok(()) => find("database", Verdict::Ok, format!("{} answers", db.engine())),
                    Err(error) => find("database", Verdict::Failed, error.to_string()),
                }
                let (verdict, detail) = schema(&db, config.database.migrate_on_start).await;
                find("schema", verdict, detail);
                let (verdict, detail) = clocks(&db, clock).await;
                find("clock", verdict, detail);
                db.close().await;
            }
        }
    }
    for (check, address) in [("port", config.server.address), ("metrics port", config.server.metrics_address)] {
        let (verdict, detail) = port(address);
        find(check, verdict, detail);
    }
    let (verdict, detail) = audit_key(config);
    find("audit key", verdict, detail);
    if let Some((verdict, detail)) = mail(config).await {
        find("mail", verdict, detail);
    }
    for detail in unsafe_settings(config) {
        find("settings", Verdict::Warning, detail);
    }

    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Failed);
    match format {
        Format::Json => output::json(&findings)?,
        Format::Table => output::table(
            &["CHECK", "VERDICT", "DETAIL"],
            findings.iter().map(|f| {
                let verdict = match f.verdict {
                    Verdict::Ok => "ok",
                    Verdict::Warning => "warning",
                    Verdict::Failed => "FAILED",
                };
                vec![f.check.to_owned(), verdict.to_owned(), f.detail.clone()]
            }),
        ),
    }
    if failed { Err(Failure::Refused("some checks failed".to_owned())) } else { Ok(()) }
}

async fn schema(db: &Db, migrates: bool) -> (Verdict, String) {
    match db::migration_state(db).await {
        Ok(MigrationState::Current(version)) => (Verdict::Ok, format!("version {version}")),
        Ok(MigrationState::Behind(count)) if migrates => {
            (Verdict::Ok, format!("{count} migration(s) to apply; the next start does"))
        }
        Ok(MigrationState::Behind(count)) => {
            (Verdict::Failed, format!("{count} migration(s) missing: run `keyward migrate`"))
        }
        Ok(MigrationState::Ahead(version)) => {
            (Verdict::Failed, format!("version {version} is newer than this binary: use the newer one"))
        }
        Err(error) => (Verdict::Failed, error.to_string()),
    }
}

/// A clock that stands at the beginning of time makes every session and expiry wrong.
fn plausible(now: Timestamp) -> Verdict {
    let built = Timestamp::from_micros(1_763_596_800_000_000).unwrap_or(Timestamp::EPOCH);
    if now < built { Verdict::Failed } else { Verdict::Ok }
}

async fn clocks(db: &Db, ours: Timestamp) -> (Verdict, String) {
    match db.clock().await {
        Ok(theirs) => {
            let apart = ours.since(theirs).max(theirs.since(ours));
            if apart > CLOCK_TOLERANCE {
                (Verdict::Failed, format!("here it is {ours}, in the database {theirs}: set the clocks right"))
            } else {
                (plausible(ours), format!("it is {ours}, and the database agrees"))
            }
        }
        Err(error) => (Verdict::Warning, format!("can't ask the database for its time: {error}")),
    }
}

/// Whether the mail server would take something; nothing is sent.
async fn mail(config: &Config) -> Option<(Verdict, String)> {
    let smtp = config.mail.smtp.as_ref()?;
    let server = format!("{}:{}", smtp.host, smtp.port);
    Some(match smtp::check(smtp).await {
        Err(error) => (Verdict::Failed, format!("{server} takes no mail: {error}")),
        Ok(()) if config.mail.recipients.is_empty() => {
            (Verdict::Warning, format!("{server} answers, but mail may go to nobody (KEYWARD_MAIL_RECIPIENTS)"))
        }
        Ok(()) => (Verdict::Ok, format!("{server} answers, and lets us in")),
    })
}

/// What signs the audit trail.
fn audit_key(config: &Config) -> (Verdict, String) {
    let keyring = Keyring::open(&config.audit, &config.database, &SystemRng, false);
    let path = config.audit.signing_key_file.clone().unwrap_or_else(|| key_file(&config.database));
    let place = path.display();
    let is_there = config.audit.signing_key.is_some() || path.exists();
    match keyring.signer() {
        #[cfg(unix)]
        Some(_) if config.audit.signing_key.is_none() && is_open_to_others(&path) => {
            (Verdict::Warning, format!("{place} can be read by others on this machine (chmod 600)"))
        }
        Some(signer) => (Verdict::Ok, format!("the trail is signed by the key {}", signer.public().id())),
        None if is_there => {
            let trouble = keyring.trouble().unwrap_or_default();
            (Verdict::Failed, format!("the audit trail isn't signed: {trouble}"))
        }
        None if !is_writable(&path) => (
            Verdict::Warning,
            format!(
                "the audit trail won't be signed: {place} can't be made (KEYWARD_AUDIT_SIGNING_KEY or KEYWARD_AUDIT_SIGNING_KEY_FILE)"
            ),
        ),
        None if matches!(config.database.url, DatabaseUrl::Postgres(_)) => (
            Verdict::Ok,
            format!("the first start makes {place}; other replicas need the same key (KEYWARD_AUDIT_SIGNING_KEY)"),
        ),
        None => (Verdict::Ok, format!("the first start makes {place}")),
    }
}

/// Whether a file could be made there.
fn is_writable(path: &Path) -> bool {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::metadata(directory).is_ok_and(|meta| meta.is_dir() && !meta.permissions().readonly())
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

fn port(address: SocketAddr) -> (Verdict, String) {
    match TcpListener::bind(address) {
        Ok(_) => (Verdict::Ok, format!("{address} is free")),
        Err(error) => (Verdict::Warning, format!("{address}: {error} (fine if that is Keyward itself)")),
    }
}

fn unsafe_settings(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let mut warn = |text: &str| found.push(text.to_owned());
    let public = !config.server.address.ip().is_loopback();
    if public && config.auth.registration == Registration::Open {
        warn(
            "registration is open on an address that others can reach: anybody may register (KEYWARD_REGISTRATION=closed)",
        );
    }
    if config.auth.auth_rate_per_minute == 0 {
        warn("register and login have no limit by address (KEYWARD_AUTH_RATE_PER_MINUTE is 0)");
    }
    if config.server.trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
        warn("every address is a trusted proxy: clients choose their own address (KEYWARD_TRUSTED_PROXIES)");
    }
    if config.outbound.allow.iter().any(|network| network.prefix_len() == 0) {
        warn(
            "the service's own requests may reach every private network, its cloud's secrets among them (KEYWARD_OUTBOUND_ALLOW)",
        );
    }
    if let Some(smtp) = &config.mail.smtp
        && smtp.tls == SmtpTls::None
        && smtp.host.parse().map_or(smtp.host != "localhost", |ip: IpAddr| !ip.is_loopback())
    {
        warn("mail goes to another machine in the clear (KEYWARD_SMTP_TLS)");
    }
    if public && config.server.metrics_address.ip().is_unspecified() {
        warn("metrics are served on every address (KEYWARD_METRICS_HOST)");
    }
    if config.server.cors_origins.iter().any(|origin| origin.starts_with("http://") && !origin.contains("localhost")) {
        warn("a CORS origin isn't https: whoever is on its network can act as its pages (KEYWARD_CORS_ORIGINS)");
    }
    if config.log.filter.contains("trace") {
        warn("the log is at trace level, which is slow (KEYWARD_LOG)");
    }
    if config.auth.admin.is_some() {
        warn(
            "the administrator's first password is in the environment: change it after the first log-in, then unset it (KEYWARD_ADMIN_PASSWORD)",
        );
    }
    #[cfg(unix)]
    if let DatabaseUrl::Sqlite(path) = &config.database.url
        && is_open_to_others(path)
    {
        warn("the SQLite file can be read by others on this machine (chmod 600)");
    }
    if let DatabaseUrl::Postgres(url) = &config.database.url {
        let url = url.expose();
        let local =
            ["@localhost", "@127.0.0.1", "@[::1]", "@/", "host=/", "host=%2F"].iter().any(|part| url.contains(part));
        if !local && !url.contains("sslmode=verify-full") {
            warn("the connection to Postgres doesn't verify the server (add ?sslmode=verify-full)");
        }
    }
    found
}
