//! Mail goes out here: one server, which the operator names, and which may well stand in a private network. Nothing that a user
//! gives ever leads a connection anywhere; to whom mail may go is `features/mail`'s to decide.
//!
//! Where TLS is asked for, nothing is said before it is there: a server that doesn't offer it gets no mail. Tried again or given
//! up is the caller's decision; [`SmtpError`] says which of them makes sense.

mod letter;
mod session;

pub use letter::Letter;
pub use session::{Session, check};

/// Why a mail wasn't taken. The texts hold no address in full, and no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SmtpError {
    /// The server wasn't there, or it came to no conversation about this mail: connection, TLS, log-in. Another time it may.
    #[error("{0}")]
    Unavailable(String),
    /// It can't take the mail now (4xx).
    #[error("{code} {said}")]
    Later {
        /// 400 to 499.
        code: u16,
        /// Its own words.
        said: String,
    },
    /// It won't take it (5xx).
    #[error("{code} {said}")]
    Refused {
        /// 500 to 599.
        code: u16,
        /// Its own words.
        said: String,
    },
}

/// An address as it may stand in a log: `o***@example.com`.
#[must_use]
pub fn masked(address: &str) -> String {
    match address.split_once('@') {
        Some((local, domain)) => {
            format!("{}***@{domain}", local.chars().next().map(String::from).unwrap_or_default())
        }
        None => "***".to_owned(),
    }
}
