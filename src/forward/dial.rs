//! New connections to a side: TCP to the first of its addresses that answers, and TLS with the project's name and CA.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::Project;
use super::error::ConnectError;
use super::names::{Addresses, Names, Resolver, sockets};
use crate::http1::stream::Stream;
use crate::outbound;

/// The certificate that the side shows, as DER.
pub(super) fn certificate(stream: &Stream) -> Option<Vec<u8>> {
    let Stream::Tls(stream) = stream else { return None };
    let shown = stream.get_ref().1.peer_certificates()?;
    shown.first().map(|certificate| certificate.to_vec())
}

/// What to offer to the side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Offer {
    /// HTTP/2 and HTTP/1.1.
    Any,
    /// HTTP/1.1 alone: only it can be upgraded.
    Http1,
}

/// What a TLS set-up depends on: the private CA and the offer.
type TlsKey = (Option<String>, Offer);

/// Makes connections; remembers what TLS needs, sessions included. One per worker.
#[derive(Debug)]
pub(super) struct Dialer {
    names: Names,
    tls: RefCell<HashMap<TlsKey, Arc<ClientConfig>>>,
}

impl Dialer {
    /// Knows no name and has no session.
    pub(super) fn new(resolver: Resolver) -> Self {
        Self { names: Names::new(resolver), tls: RefCell::default() }
    }

    /// Connects to a project. The caller bounds the time, by `timeout`.
    pub(super) async fn dial(
        &self,
        project: &Project,
        offer: Offer,
        timeout: Duration,
    ) -> Result<Stream, ConnectError> {
        #[cfg(test)]
        if let Some(dialed) = super::memory::dial(&project.dial_host) {
            return Ok(Stream::Memory(dialed?));
        }
        let stream = self.connect(&project.dial_host, project.dial_port, timeout).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
        if !project.tls {
            return Ok(Stream::Plain(stream));
        }
        let host =
            project.authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name =
            ServerName::try_from(host).map_err(|error| ConnectError::Tls(error.to_string()))?;
        let config = self.tls_config(project, offer)?;
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        Ok(Stream::Tls(Box::new(TlsStream::from(stream))))
    }

    /// Connects to one of a host's addresses. Where none of those that are remembered answers, the name is asked for anew.
    async fn connect(&self, host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
        let addresses = self.names.addresses(host).await?;
        match self.connect_to(host, &addresses, port, timeout).await {
            Err(failed) if addresses.is_remembered => {
                let now = self.names.addresses(host).await?;
                if now.is_remembered {
                    return Err(failed);
                }
                self.connect_to(host, &now, port, timeout).await
            }
            connected => connected,
        }
    }

    async fn connect_to(
        &self,
        host: &str,
        addresses: &Addresses,
        port: u16,
        timeout: Duration,
    ) -> io::Result<TcpStream> {
        let doubt = self.names.doubt(host);
        let sockets = sockets(addresses, port);
        let (stream, reached) = race(&sockets, STAGGER.min(timeout / 4)).await?;
        doubt.dispelled();
        // Those before it have failed, or were overtaken.
        for lost in sockets.iter().take_while(|socket| **socket != reached) {
            self.names.puts_last(host, lost.ip());
        }
        Ok(stream)
    }

    fn tls_config(
        &self,
        project: &Project,
        offer: Offer,
    ) -> Result<Arc<ClientConfig>, ConnectError> {
        let key = (project.ca_pem.clone(), offer);
        if let Some(config) = self.tls.borrow().get(&key) {
            return Ok(Arc::clone(config));
        }
        let mut config = outbound::tls(project.ca_pem.as_deref().map(str::as_bytes))
            .map_err(ConnectError::Tls)?;
        config.alpn_protocols = match offer {
            Offer::Any => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Offer::Http1 => vec![b"http/1.1".to_vec()],
        };
        let config = Arc::new(config);
        self.tls.borrow_mut().insert(key, Arc::clone(&config));
        Ok(config)
    }
}

/// How long an address may take before the next one is tried beside it (RFC 8305 5), unless `upstream.connect_timeout` leaves less room.
const STAGGER: Duration = Duration::from_millis(250);

/// Connects to the first of several addresses that answers: each is given a head start, and loses it when it fails. An address without a
/// route (an AAAA record that leads nowhere) costs its head start, and not the whole time. Answers which one it is, too.
async fn race(addresses: &[SocketAddr], stagger: Duration) -> io::Result<(TcpStream, SocketAddr)> {
    let mut waiting = addresses.iter();
    let mut trying = FuturesUnordered::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match waiting.next() {
            Some(address) => {
                trying.push(async move { (TcpStream::connect(address).await, *address) })
            }
            None if trying.is_empty() => return Err(failed),
            None => {}
        }
        let has_more = waiting.len() > 0;
        tokio::select! {
            Some((tried, address)) = trying.next() => match tried {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => failed = error,
            },
            () = tokio::time::sleep(stagger), if has_more => {}
        }
    }
}

/// Finds out about a peer that vanished without a word, behind a stream that is quiet for long.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15))
}
