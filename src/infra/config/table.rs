//! Every setting there is.

use super::setting::{Setting, flagged, later, secret, setting};

/// All settings, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    flagged(
        "database_url",
        "DATABASE_URL",
        &["database-url"],
        "sqlite://keyward.db",
        "sqlite://FILE, or postgres://USER:PASSWORD@HOST/DATABASE",
    ),
    setting(
        "database_max_connections",
        "KEYWARD_DATABASE_MAX_CONNECTIONS",
        "10",
        "Pooled connections (readers on SQLite), 1 to 1000",
    ),
    setting(
        "database_acquire_timeout",
        "KEYWARD_DATABASE_ACQUIRE_TIMEOUT",
        "3s",
        "How long a request waits for a connection before it is answered 503",
    ),
    setting(
        "database_start_timeout",
        "KEYWARD_DATABASE_START_TIMEOUT",
        "60s",
        "How long the start waits for Postgres to answer",
    ),
    setting(
        "migrate_on_start",
        "KEYWARD_MIGRATE_ON_START",
        "true",
        "Bring the schema up to date at start: true or false",
    ),
    later(secret(flagged(
        "redis_url",
        "REDIS_URL",
        &["redis-url"],
        "",
        "Redis for counting shared by several replicas",
    ))),
    flagged("host", "KEYWARD_HOST", &["host"], "127.0.0.1", "Address that the service listens on"),
    flagged(
        "port",
        "KEYWARD_PORT",
        &["port", "srv-port"],
        "8080",
        "Port that the service listens on; 0 picks a free one",
    ),
    flagged(
        "metrics_host",
        "KEYWARD_METRICS_HOST",
        &["metrics-host"],
        "",
        "Address that /metrics listens on; the service's own where not set",
    ),
    flagged(
        "metrics_port",
        "KEYWARD_METRICS_PORT",
        &["metrics-port"],
        "8000",
        "Port that /metrics listens on; 0 picks a free one",
    ),
    setting(
        "max_connections",
        "KEYWARD_MAX_CONNECTIONS",
        "8192",
        "Open connections; one more is answered 503 and closed",
    ),
    setting(
        "max_in_flight",
        "KEYWARD_MAX_IN_FLIGHT",
        "1024",
        "Requests being worked on; one more is answered 503 (health still answers)",
    ),
    setting(
        "max_in_flight_per_address",
        "KEYWARD_MAX_IN_FLIGHT_PER_ADDRESS",
        "256",
        "Those of one client address while fewer than a quarter are free, trusted proxies apart; one more is answered 503",
    ),
    setting(
        "max_body_bytes_in_flight",
        "KEYWARD_MAX_BODY_BYTES_IN_FLIGHT",
        "67108864",
        "Bytes of bulk routes' bodies in memory, half of them for one client address; what has no room is answered 503",
    ),
    setting("request_timeout", "KEYWARD_REQUEST_TIMEOUT", "30s", "Longest time for one request, its body included"),
    setting(
        "header_timeout",
        "KEYWARD_HEADER_TIMEOUT",
        "30s",
        "Longest time to send a request's headers; also ends idle connections",
    ),
    setting(
        "drain_delay",
        "KEYWARD_DRAIN_DELAY",
        "1s",
        "After SIGTERM: how long new connections are still accepted while /health/ready says 503",
    ),
    setting(
        "shutdown_grace",
        "KEYWARD_SHUTDOWN_GRACE",
        "30s",
        "After that: how long requests in flight may take to finish",
    ),
    setting(
        "cors_origins",
        "KEYWARD_CORS_ORIGINS",
        "",
        "Origins whose pages may call the service, separated by commas",
    ),
    setting(
        "trusted_proxies",
        "KEYWARD_TRUSTED_PROXIES",
        "",
        "Networks whose X-Forwarded-For is believed, separated by commas",
    ),
    setting("registration", "KEYWARD_REGISTRATION", "open", "Who may register: open or closed"),
    setting("admin_username", "KEYWARD_ADMIN_USERNAME", "", "Administrator made at start if absent"),
    secret(setting("admin_password", "KEYWARD_ADMIN_PASSWORD", "", "That administrator's first password")),
    setting("session_ttl", "KEYWARD_SESSION_TTL", "12h", "How long a log-in lasts"),
    setting(
        "sessions_per_user",
        "KEYWARD_SESSIONS_PER_USER",
        "20",
        "Log-ins a person may have at once; one more ends the oldest",
    ),
    setting(
        "auth_rate_per_minute",
        "KEYWARD_AUTH_RATE_PER_MINUTE",
        "10",
        "Register and login calls a minute for one client address; 0 is off",
    ),
    setting(
        "ip_rate_per_minute",
        "KEYWARD_IP_RATE_PER_MINUTE",
        "0",
        "Calls a minute for one client address, health apart; 0 is off",
    ),
    setting(
        "password_hash_parallelism",
        "KEYWARD_PASSWORD_HASH_PARALLELISM",
        "0",
        "Password hashes computed at once (19 MiB each); 0 is one a core",
    ),
    setting(
        "keys_per_user_per_day",
        "KEYWARD_KEYS_PER_USER_PER_DAY",
        "5",
        "Keys that one person may make in 24 hours; 0 is off",
    ),
    setting(
        "keys_per_user",
        "KEYWARD_KEYS_PER_USER",
        "0",
        "Keys that one person may answer for in one project, revoked ones apart; 0 is off",
    ),
    setting(
        "keys_per_project",
        "KEYWARD_KEYS_PER_PROJECT",
        "0",
        "Keys that one project may have, revoked ones apart; 0 is off",
    ),
    setting(
        "max_keys_per_project",
        "KEYWARD_MAX_KEYS_PER_PROJECT",
        "1000000",
        "Keys that one project may have, revoked ones too; 0 is off",
    ),
    setting(
        "default_key_expiry",
        "KEYWARD_DEFAULT_KEY_EXPIRY",
        "0",
        "When a new key ends that says nothing of it, such as 90d; 0 is never",
    ),
    setting("max_key_expiry", "KEYWARD_MAX_KEY_EXPIRY", "0", "The longest that a key may last, such as 365d; 0 is off"),
    setting(
        "key_expiry_warnings",
        "KEYWARD_KEY_EXPIRY_WARNINGS",
        "30d,7d,1d",
        "How long before a key's end that is told (key.expiring), separated by commas; 0 is none",
    ),
    setting("projects_per_user", "KEYWARD_PROJECTS_PER_USER", "100", "Projects that one person may make; 0 is off"),
    setting(
        "project_grace",
        "KEYWARD_PROJECT_GRACE",
        "30d",
        "How long a deleted project can be restored before it is removed for good",
    ),
    setting("key_prefix", "KEYWARD_KEY_PREFIX", "sk", "What new keys begin with, where the project doesn't say"),
    flagged(
        "max_key_size",
        "KEYWARD_MAX_KEY_SIZE",
        &["max-key-size", "max-size"],
        "1024",
        "Longest answer of /key/{length} in bytes, up to 16777216",
    ),
    setting(
        "default_rate_limit",
        "KEYWARD_DEFAULT_RATE_LIMIT",
        "1000",
        "A key's limit where neither it nor its project sets any; 0 is off",
    ),
    setting("rate_limit_window", "KEYWARD_RATE_LIMIT_WINDOW", "1h", "The window of that limit"),
    setting(
        "default_concurrency",
        "KEYWARD_DEFAULT_CONCURRENCY",
        "0",
        "Simultaneous operations of a key where neither it nor its project says; 0 is off",
    ),
    setting("key_cache_entries", "KEYWARD_KEY_CACHE_ENTRIES", "2000000", "Keys held in memory for verification"),
    setting("key_cache_bytes", "KEYWARD_KEY_CACHE_BYTES", "1073741824", "Bytes that they may take together"),
    setting(
        "request_log_sample",
        "KEYWARD_REQUEST_LOG_SAMPLE",
        "0.01",
        "Part of admitted requests kept in the request log where the project doesn't say, 0 to 1",
    ),
    setting(
        "request_log_retention",
        "KEYWARD_REQUEST_LOG_RETENTION",
        "30d",
        "How long the request log is kept, at least 1s",
    ),
    setting(
        "event_retention",
        "KEYWARD_EVENT_RETENTION",
        "30d",
        "How long events are kept, at least 1h; what hasn't been delivered yet is kept longer",
    ),
    setting(
        "max_event_streams",
        "KEYWARD_MAX_EVENT_STREAMS",
        "512",
        "Open streams of events in one process; one more is answered 503",
    ),
    setting("usage", "KEYWARD_USAGE", "on", "Count the requests of keys: on or off"),
    setting(
        "usage_keep_minutes",
        "KEYWARD_USAGE_KEEP_MINUTES",
        "2d",
        "How long usage is kept by the minute, at least 2h",
    ),
    setting("usage_keep_hours", "KEYWARD_USAGE_KEEP_HOURS", "90d", "How long usage is kept by the hour, at least 2d"),
    setting("usage_keep_days", "KEYWARD_USAGE_KEEP_DAYS", "0", "How long usage is kept by the day; 0 is for ever"),
    setting("alert_interval", "KEYWARD_ALERT_INTERVAL", "15s", "How often each alert rule is evaluated, 1s to 1h"),
    setting(
        "alert_history_retention",
        "KEYWARD_ALERT_HISTORY_RETENTION",
        "90d",
        "How long is kept what became of alert rules, at least 1h",
    ),
    setting(
        "quota_warning_percent",
        "KEYWARD_QUOTA_WARNING_PERCENT",
        "80",
        "Part of a quota whose use is told (quota.warning), in percent; 0 is off",
    ),
    setting(
        "suspicion_guesses",
        "KEYWARD_SUSPICION_GUESSES",
        "20",
        "Wrong keys and passwords from one address that are suspicious; 0 is off",
    ),
    setting("suspicion_guess_window", "KEYWARD_SUSPICION_GUESS_WINDOW", "5m", "Within which time, 10s to 1d"),
    setting(
        "suspicion_addresses",
        "KEYWARD_SUSPICION_ADDRESSES",
        "10",
        "Addresses that one key may be used from before that is suspicious, up to 100; 0 is off",
    ),
    setting("suspicion_address_window", "KEYWARD_SUSPICION_ADDRESS_WINDOW", "10m", "Within which time, 10s to 1d"),
    setting(
        "suspicion_revoked",
        "KEYWARD_SUSPICION_REVOKED",
        "on",
        "Whether it is suspicious that a revoked key, or a secret after its overlap, is still used: on or off",
    ),
    setting(
        "suspicion_failures",
        "KEYWARD_SUSPICION_FAILURES",
        "20",
        "Failures of a key within 15 minutes that are suspicious if they are beyond its habit; 0 is off",
    ),
    setting(
        "suspicion_failure_factor",
        "KEYWARD_SUSPICION_FAILURE_FACTOR",
        "5",
        "How many times the habit of the 7 days before they must be, 1 to 1000",
    ),
    secret(setting(
        "audit_signing_key",
        "KEYWARD_AUDIT_SIGNING_KEY",
        "",
        "Ed25519 seed (32 bytes in base64) that signs the audit trail; share it among replicas",
    )),
    setting(
        "audit_signing_key_file",
        "KEYWARD_AUDIT_SIGNING_KEY_FILE",
        "",
        "File that holds that seed, made if absent; beside the SQLite file, or keyward-audit.key, where not set",
    ),
    setting(
        "audit_public_keys",
        "KEYWARD_AUDIT_PUBLIC_KEYS",
        "",
        "Former public keys (base64) whose signatures on the audit trail still count, separated by commas",
    ),
    setting(
        "audit_head_file",
        "KEYWARD_AUDIT_HEAD_FILE",
        "",
        "File that remembers the newest signed head outside of the database; beside the key's file where not set",
    ),
    setting(
        "audit_retention",
        "KEYWARD_AUDIT_RETENTION",
        "0",
        "How long audit entries are kept, such as 365d; 0 is for ever",
    ),
    secret(setting(
        "secrets_key",
        "KEYWARD_SECRETS_KEY",
        "",
        "Key (32 bytes in base64) that webhooks' secrets are encrypted with; made beside the SQLite file where not set",
    )),
    secret(setting(
        "secrets_keys_previous",
        "KEYWARD_SECRETS_KEYS_PREVIOUS",
        "",
        "Former keys of that kind, which still decrypt, separated by commas",
    )),
    secret(setting(
        "field_hash_key",
        "KEYWARD_FIELD_HASH_KEY",
        "",
        "What sensitive fields are hashed with: 32 characters or more; made at first start and kept where not set",
    )),
    flagged("log", "KEYWARD_LOG", &["log"], "info", "Level, or tracing directives such as info,keyward=debug"),
    flagged(
        "log_format",
        "KEYWARD_LOG_FORMAT",
        &["log-format"],
        "",
        "pretty or json; pretty on a terminal and json elsewhere where not set",
    ),
    setting(
        "otlp_endpoint",
        "KEYWARD_OTLP_ENDPOINT",
        "",
        "Collector that traces and logs are sent to, such as http://collector:4318",
    ),
    secret(setting(
        "otlp_headers",
        "KEYWARD_OTLP_HEADERS",
        "",
        "Headers for it, such as authorization=Bearer%20TOKEN, separated by commas",
    )),
    setting(
        "otlp_sample",
        "KEYWARD_OTLP_SAMPLE",
        "0.05",
        "Share of the requests that are traced where their caller doesn't say, 0 to 1",
    ),
    setting(
        "outbound_allow",
        "KEYWARD_OUTBOUND_ALLOW",
        "",
        "Private networks that the service's own requests may reach, separated by commas",
    ),
    setting("smtp_host", "KEYWARD_SMTP_HOST", "", "Mail server that e-mail is handed to; none is sent where not set"),
    setting(
        "smtp_port",
        "KEYWARD_SMTP_PORT",
        "",
        "Its port; 587, 465 with KEYWARD_SMTP_TLS=tls and 25 without TLS where not set",
    ),
    setting(
        "smtp_tls",
        "KEYWARD_SMTP_TLS",
        "starttls",
        "starttls or tls; none for a server on this machine; insecure for one elsewhere that has neither",
    ),
    setting(
        "smtp_ca_file",
        "KEYWARD_SMTP_CA_FILE",
        "",
        "File of the certificate authorities (PEM) that its certificate must come from; the system's where not set",
    ),
    setting("smtp_username", "KEYWARD_SMTP_USERNAME", "", "Name to log in with"),
    secret(setting("smtp_password", "KEYWARD_SMTP_PASSWORD", "", "Password to log in with")),
    setting("smtp_from", "KEYWARD_SMTP_FROM", "", "Who writes, such as Keyward <keyward@example.com>"),
    setting(
        "mail_recipients",
        "KEYWARD_MAIL_RECIPIENTS",
        "",
        "Addresses (ops@example.com) and domains (@example.com) that mail may go to, separated by commas; nobody where not set",
    ),
    setting("mail_per_day", "KEYWARD_MAIL_PER_DAY", "100", "How many mails a project may cause a day (UTC)"),
    setting("mail_retention", "KEYWARD_MAIL_RETENTION", "30d", "How long is remembered what was sent"),
    setting(
        "webhook_retries",
        "KEYWARD_WEBHOOK_RETRIES",
        "5s,5m,30m,2h,5h,10h,14h,20h,24h",
        "How long after each failed attempt a delivery is tried again, separated by commas",
    ),
    setting("webhook_timeout", "KEYWARD_WEBHOOK_TIMEOUT", "15s", "How long an endpoint may take to answer, up to 60s"),
    setting(
        "webhook_disable_after",
        "KEYWARD_WEBHOOK_DISABLE_AFTER",
        "5d",
        "An endpoint whose every attempt has failed for so long is disabled; 0 is never",
    ),
    setting(
        "webhook_delivery_retention",
        "KEYWARD_WEBHOOK_DELIVERY_RETENTION",
        "30d",
        "How long deliveries and their attempts are kept, at least 1s",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_follow_one_pattern() {
        let mut seen = std::collections::HashSet::new();
        let mut flags = std::collections::HashSet::new();
        for setting in SETTINGS {
            assert!(seen.insert(setting.key) && seen.insert(setting.env), "{}", setting.key);
            assert!(setting.flags.iter().all(|flag| flags.insert(flag)), "{}", setting.key);
            let expected = setting.key.to_uppercase();
            assert!(setting.env == expected || setting.env == format!("KEYWARD_{expected}"), "{}", setting.env);
        }
    }

    #[test]
    fn the_example_file_holds_every_setting_with_its_default() {
        let example = include_str!("../../../.env.example");
        for setting in SETTINGS {
            let line = format!("{}={}", setting.env, setting.default);
            assert!(example.lines().any(|l| l.trim_start_matches("# ") == line), "no line {line:?} in .env.example");
        }
        let assignment = |line: &'static str| line.trim_start_matches("# ").split_once('=').map(|(name, _)| name);
        let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        for name in example.lines().filter_map(assignment).filter(is_name) {
            assert!(SETTINGS.iter().any(|s| s.env == name), "{name} in .env.example is no setting");
        }
    }
}
