//! The settings: one table of what can be set, where each value came from, and a typed struct a subject.
//!
//! Precedence: defaults, then the file, then the environment, then flags. A name that isn't in the table is an error that
//! says which one was probably meant.

mod alerts;
mod audit;
mod auth;
mod database;
mod events;
mod keys;
mod log;
mod mail;
mod otlp;
mod outbound;
mod privacy;
mod projects;
mod requests;
mod secrets;
mod security;
mod server;
mod services;
mod setting;
mod source;
mod table;
mod usage;
mod webhooks;

pub use alerts::AlertsConfig;
pub use audit::{AuditConfig, thirty_two};
pub use auth::{AdminAccount, AuthConfig, Registration};
pub use database::{DatabaseConfig, DatabaseUrl};
pub use events::EventsConfig;
pub use keys::{KeysConfig, MAX_RANDOM_BYTES};
pub use log::{LogConfig, LogFormat};
pub use mail::{MailConfig, NotPermitted, Recipient, SmtpConfig, SmtpTls};
pub use otlp::OtlpConfig;
pub use outbound::OutboundConfig;
pub use privacy::PrivacyConfig;
pub use projects::ProjectsConfig;
pub use requests::RequestsConfig;
pub use secrets::SecretsConfig;
pub use security::SecurityConfig;
pub use server::{MAX_BODY_BYTES, ServerConfig, is_origin};
pub use services::{
    CheckConfig, CheckKind, CommandLine, HookConfig, ProcessConfig, RestartPolicy, ServiceConfig, ServiceKind,
    ServiceName,
};
pub use setting::Setting;
pub use source::{ConfigError, Loaded, Source};
pub use table::SETTINGS;
pub use usage::UsageConfig;
pub use webhooks::WebhooksConfig;

/// Every setting, parsed and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the data is.
    pub database: DatabaseConfig,
    /// Listeners, limits on the wire, the end of the process.
    pub server: ServerConfig,
    /// People, sessions and limits by address.
    pub auth: AuthConfig,
    /// API keys and random keys.
    pub keys: KeysConfig,
    /// Projects.
    pub projects: ProjectsConfig,
    /// The request log.
    pub requests: RequestsConfig,
    /// What is counted of requests.
    pub usage: UsageConfig,
    /// Alert rules.
    pub alerts: AlertsConfig,
    /// Events.
    pub events: EventsConfig,
    /// What is told of traffic.
    pub security: SecurityConfig,
    /// Protection of data.
    pub privacy: PrivacyConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Where traces and logs are sent, if anywhere.
    pub otlp: Option<OtlpConfig>,
    /// Requests that the service makes itself.
    pub outbound: OutboundConfig,
    /// E-mail.
    pub mail: MailConfig,
    /// The audit trail's proof.
    pub audit: AuditConfig,
    /// Encryption at rest.
    pub secrets: SecretsConfig,
    /// Deliveries of webhooks.
    pub webhooks: WebhooksConfig,
    /// Services that are watched, in the order of their names.
    pub services: Vec<ServiceConfig>,
}

impl Config {
    /// Parses what was loaded.
    ///
    /// # Errors
    /// The first value that can't be used, with the name of its setting and where it came from.
    pub fn parse(loaded: &Loaded) -> Result<Self, ConfigError> {
        Ok(Self {
            database: DatabaseConfig::parse(loaded)?,
            server: ServerConfig::parse(loaded)?,
            auth: AuthConfig::parse(loaded)?,
            keys: KeysConfig::parse(loaded)?,
            projects: ProjectsConfig::parse(loaded)?,
            requests: RequestsConfig::parse(loaded)?,
            usage: UsageConfig::parse(loaded)?,
            alerts: AlertsConfig::parse(loaded)?,
            events: EventsConfig::parse(loaded)?,
            security: SecurityConfig::parse(loaded)?,
            privacy: PrivacyConfig::parse(loaded)?,
            log: LogConfig::parse(loaded)?,
            otlp: OtlpConfig::parse(loaded)?,
            outbound: OutboundConfig::parse(loaded)?,
            mail: MailConfig::parse(loaded)?,
            audit: AuditConfig::parse(loaded)?,
            secrets: SecretsConfig::parse(loaded)?,
            webhooks: WebhooksConfig::parse(loaded)?,
            services: services::parse(loaded)?,
        })
    }
}
