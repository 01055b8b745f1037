//! A connection's bytes, with TLS or without, at either end of the proxy.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS on it.
    Tls(Box<TlsStream<TcpStream>>),
    /// A pipe in memory: a simulation has no sockets, because time does not wait for them.
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

impl Stream {
    /// What the TLS handshake agreed on (ALPN) is HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
            #[cfg(test)]
            Self::Memory(_) => false,
        }
    }

    /// Whether nothing has come of it, as far as is known without asking the system: the runtime knows the sockets that have something
    /// to read, which is the end here or what nobody asked for.
    pub fn is_quiet(&mut self) -> bool {
        let (mut byte, mut cx) = ([0], Context::from_waker(Waker::noop()));
        match self {
            Self::Plain(stream) => {
                stream.try_read(&mut byte).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(stream) => {
                Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
            #[cfg(test)]
            Self::Memory(stream) => {
                Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }

    /// The same of the TCP below, and the system is asked.
    #[must_use]
    pub fn is_really_quiet(&self) -> bool {
        let Some(tcp) = self.tcp() else { return true };
        let peeked = SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The close of it will be a reset, which no reader takes for an end.
    pub fn will_reset(&self) {
        if let Some(tcp) = self.tcp() {
            let _set = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }

    /// Lets the system ask the other end whether it is still there, after so much silence and four times more within as much again. An end
    /// that may say nothing for hours may be gone without a word.
    pub fn asks_whether_it_lives(&self, silence: Duration) {
        if let Some(tcp) = self.tcp() {
            let keepalive =
                TcpKeepalive::new().with_time(silence).with_interval(silence / 4).with_retries(4);
            let _set = SockRef::from(tcp).set_tcp_keepalive(&keepalive);
        }
    }

    /// The connection below, which only a pipe of a simulation has not.
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(stream) => Some(stream.get_ref().0),
            #[cfg(test)]
            Self::Memory(_) => None,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            #[cfg(test)]
            Self::Memory(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
