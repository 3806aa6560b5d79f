//! A connection that is read a line at a time, for STARTTLS: whatever somebody on the way puts behind the server's last word in
//! the clear isn't in a buffer, to be taken for its first word under TLS, but breaks the handshake (CVE-2011-0411 is the name
//! of this on the other side).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// See the module. It stays so under TLS: mail is small.
#[derive(Debug)]
pub(super) struct ByLine(pub(super) TcpStream);

/// The most that is read at once, in bytes.
const PART: usize = 1024;

impl AsyncRead for ByLine {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut part = [0; PART];
        let most = PART.min(buf.remaining());
        let mut seen = ReadBuf::new(&mut part[..most]);
        let count = ready!(self.0.poll_peek(cx, &mut seen))?;
        let line = seen.filled().iter().position(|b| *b == b'\n').map_or(count, |end| end + 1);
        // At the end of the stream it reads as nothing, once more.
        let mut taken = ReadBuf::new(&mut part[..line]);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut taken))?;
        buf.put_slice(taken.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByLine {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for ByLine {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }
}
