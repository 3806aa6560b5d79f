//! Why a request of the service's own came to nothing. The texts are for whoever named the URL: they say what is wrong with
//! it, and nothing about the network that the service stands in. The causes go to the log.

/// What is wrong with a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Longer than [`MAX_URL`](super::MAX_URL).
    #[error("expected at most {} bytes", super::MAX_URL)]
    TooLong,
    /// It can't be read, or has no host.
    #[error("expected a URL such as https://example.com/path")]
    Form,
    /// Neither `https` nor, where the caller admits it, `http`.
    #[error("expected a URL that begins with https://")]
    Scheme,
    /// A user name or a password.
    #[error("expected a URL without user name and password")]
    Credentials,
    /// Port 0.
    #[error("expected a port from 1 to 65535")]
    Port,
    /// A port where another protocol is spoken; asked for a `POST` alone.
    #[error("expected a port that doesn't belong to another protocol")]
    ForeignPort,
}

/// How an exchange with a host went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No address of it took the connection.
    #[error("its host takes no connection")]
    Connect,
    /// Its certificate isn't trusted, or it doesn't speak TLS 1.2 or 1.3.
    #[error("there is no trusted TLS connection to its host")]
    Tls,
    /// It didn't speak HTTP, or hung up in the middle of an answer.
    #[error("its host gave no complete HTTP answer")]
    Http,
    /// The head of its answer is larger than [`MAX_HEAD`](super::MAX_HEAD).
    #[error("its host's answer has too many headers")]
    Head,
    /// It compressed what was asked for plainly.
    #[error("its host's answer is compressed")]
    Encoding,
}

/// Why there is no answer. The text reads on after a colon: "`document_url`: its host can't be found".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The URL itself.
    #[error(transparent)]
    InvalidUrl(#[from] UrlError),
    /// The host has addresses, or is one, but none that may be reached.
    #[error("its host has no public address, and the operator allows no other")]
    Refused,
    /// `http` to somewhere that the operator hasn't named: the same for public and private addresses.
    #[error("without https, its host may be reached only in networks that the operator allows")]
    Plain,
    /// The host's name has no address, or none was to be found out.
    #[error("its host can't be found")]
    Unresolvable,
    /// It took longer than the caller, or a connection, may.
    #[error("it took too long")]
    Timeout,
    /// A body of more bytes than the caller wants.
    #[error("its answer is larger than {0} bytes")]
    TooLarge(usize),
    /// Any status but 200 to 299, or a redirect where none is followed.
    #[error("it was answered with status {0}")]
    Status(u16),
    /// More redirects than the caller follows.
    #[error("it redirects more than {0} times")]
    TooManyRedirects(u8),
    /// A redirect to a URL that isn't followed; from `https` to `http`, for example.
    #[error("it redirects to a URL that isn't followed: {0}")]
    BadRedirect(UrlError),
    /// The exchange itself.
    #[error(transparent)]
    Failed(#[from] Failure),
}
