//! TLS to the hosts that are called: rustls with ring, trusting whom the system trusts.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::target::Where;

/// Reads the system's certificates with the first connection: whoever never calls anybody doesn't pay for them.
#[derive(Default)]
pub(super) struct Tls(OnceCell<TlsConnector>);

/// Why there is no TLS; for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// No certificate authority was found.
    #[error("the system has no trusted certificates (SSL_CERT_FILE, SSL_CERT_DIR): {0}")]
    NoRoots(String),
    /// The host's name can't stand in a certificate.
    #[error("no name for a certificate")]
    Name,
    /// The provider and rustls don't fit: a defect.
    #[error("{0}")]
    Setup(#[from] tokio_rustls::rustls::Error),
    /// The handshake.
    #[error("{0}")]
    Handshake(#[from] std::io::Error),
    /// The thread that reads certificates died.
    #[error("{0}")]
    Thread(#[from] tokio::task::JoinError),
}

impl Tls {
    /// Greets a host, and makes sure that it is the one.
    pub(super) async fn greet(&self, host: &Where, stream: TcpStream) -> Result<TlsStream<TcpStream>, TlsError> {
        let name = match host {
            Where::Address(ip) => ServerName::from(*ip),
            // Certificates name hosts without the dot that ends an absolute name.
            Where::Name(name) => {
                ServerName::try_from(name.strip_suffix('.').unwrap_or(name).to_owned()).map_err(|_| TlsError::Name)?
            }
        };
        let connector = self.0.get_or_try_init(|| async { connector(system_roots().await?) }).await?;
        Ok(connector.connect(name, stream).await?)
    }

    /// Trusts these alone.
    #[cfg(test)]
    pub(super) fn trusting(roots: RootCertStore) -> Self {
        Self(OnceCell::new_with(connector(roots).ok()))
    }
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, TlsError> {
    // Named here, not taken from the process: another crate may install another one there.
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

async fn system_roots() -> Result<RootCertStore, TlsError> {
    tokio::task::spawn_blocking(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() { Err(TlsError::NoRoots(format!("{:?}", found.errors))) } else { Ok(roots) }
    })
    .await?
}
