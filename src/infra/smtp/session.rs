//! A conversation with the mail server (RFC 5321), by lettre.

use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use tokio::time::timeout;

use super::{Letter, SmtpError, masked};
use crate::base::masking::mask_secrets;
use crate::infra::config::{SmtpConfig, SmtpTls};

/// How long it may take until the server is ready for a mail: look-up, connection, TLS and log-in.
const OPEN: Duration = Duration::from_secs(20);

/// How long it may take over one mail. A server that takes longer has perhaps taken it: it comes a second time then, with the
/// same `Message-ID`.
const SEND: Duration = Duration::from_mins(1);

/// The longest text of a server that is kept, in characters.
const MAX_SAID: usize = 200;

/// A server that is ready for mail.
pub struct Session(AsyncSmtpConnection);

impl Session {
    /// Connects, protects the connection and logs in, as the settings say.
    ///
    /// # Errors
    /// [`SmtpError::Unavailable`], whatever the reason: none of them is about a mail.
    pub async fn open(config: &SmtpConfig) -> Result<Self, SmtpError> {
        match timeout(OPEN, connect(config)).await {
            Ok(Ok(connection)) => Ok(Self(connection)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SmtpError::Unavailable("it took too long".to_owned())),
        }
    }

    /// Hands one mail over. After an error the session is at its end.
    ///
    /// # Errors
    /// See [`SmtpError`].
    pub async fn send(&mut self, letter: &Letter<'_>) -> Result<(), SmtpError> {
        let (envelope, bytes) =
            letter.render().map_err(|error| SmtpError::Refused { code: 553, said: said(&error) })?;
        match timeout(SEND, self.0.send(&envelope, &bytes)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(judge(&error)),
            Err(_) => Err(SmtpError::Unavailable("it took too long".to_owned())),
        }
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        // Whatever the answer is, nothing follows.
        drop(timeout(Duration::from_secs(2), self.0.quit()).await);
    }
}

/// Whether mail could be sent now: connection, TLS and log-in.
///
/// # Errors
/// Why not.
pub async fn check(config: &SmtpConfig) -> Result<(), SmtpError> {
    Session::open(config).await?.close().await;
    Ok(())
}

async fn connect(config: &SmtpConfig) -> Result<AsyncSmtpConnection, SmtpError> {
    let trouble = |error: lettre::transport::smtp::Error| SmtpError::Unavailable(said(&error));
    // The writer's domain: whoever checks it finds more there than under the name of a container.
    let hello = ClientId::Domain(config.from.email.domain().to_owned());
    let tls = match config.tls {
        SmtpTls::None => None,
        SmtpTls::StartTls | SmtpTls::Tls => Some(trust(config).await?),
    };
    let at_once = tls.clone().filter(|_| config.tls == SmtpTls::Tls);
    let server = (config.host.as_str(), config.port);
    let mut connection =
        AsyncSmtpConnection::connect_tokio1(server, Some(OPEN), &hello, at_once, None).await.map_err(trouble)?;
    if let Some(tls) = tls {
        if config.tls == SmtpTls::StartTls {
            if !connection.can_starttls() {
                connection.abort().await;
                return Err(SmtpError::Unavailable(
                    "it offers no STARTTLS, and nothing is sent in the clear".to_owned(),
                ));
            }
            connection.starttls(tls, &hello).await.map_err(trouble)?;
        }
        if !connection.is_encrypted() {
            return Err(SmtpError::Unavailable("the connection isn't encrypted".to_owned()));
        }
    }
    if let Some((username, password)) = &config.credentials {
        let credentials = Credentials::new(username.clone(), password.expose().to_owned());
        connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await.map_err(trouble)?;
    }
    Ok(connection)
}

/// Whom the server's certificate must come from: those of the file, or the system's. Read for each connection, because it may
/// have been renewed.
async fn trust(config: &SmtpConfig) -> Result<TlsParameters, SmtpError> {
    let (host, file) = (config.host.clone(), config.ca_file.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut parameters = TlsParameters::builder(host);
        if let Some(path) = file {
            let pem = std::fs::read(&path).map_err(|error| format!("KEYWARD_SMTP_CA_FILE can't be read: {error}"))?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| said(&error))?;
            parameters = parameters.certificate_store(CertificateStore::None).add_root_certificate(certificate);
        }
        parameters.build().map_err(|error| said(&error))
    });
    read.await.unwrap_or_else(|error| Err(error.to_string())).map_err(SmtpError::Unavailable)
}

/// What an error means for the mail.
fn judge(error: &lettre::transport::smtp::Error) -> SmtpError {
    let text = std::error::Error::source(error).map_or_else(String::new, said);
    match error.status().map(u16::from) {
        // Authentication or encryption is wanted (RFC 4954, RFC 3207): the settings are wrong, not the mail.
        Some(530..=539) | None => SmtpError::Unavailable(said(error)),
        Some(code @ 500..) => SmtpError::Refused { code, said: text },
        Some(code) => SmtpError::Later { code, said: text },
    }
}

/// An error's text, or a server's, as it may be kept: on one line, not too long, without secrets and whole addresses.
fn said(error: &(impl std::fmt::Display + ?Sized)) -> String {
    let text = error.to_string();
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(4 * MAX_SAID).collect();
    let words = text.split_whitespace().map(|word| {
        let address = word.trim_matches(|c: char| !c.is_alphanumeric());
        if address.contains('@') { word.replace(address, &masked(address)) } else { word.to_owned() }
    });
    let text = words.collect::<Vec<_>>().join(" ");
    mask_secrets(&text).chars().take(MAX_SAID).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_kept_without_addresses() {
        assert_eq!(
            said("5.1.1 <ops@corp.example>: unknown\r\nuser,\tmailto:a.b@c.example."),
            "5.1.1 <o***@corp.example>: unknown user, m***@c.example."
        );
        assert_eq!(said(&"x ".repeat(5000)).chars().count(), MAX_SAID);
        assert_eq!((masked("ops@example.com"), masked("nonsense")), ("o***@example.com".into(), "***".into()));
    }
}
