//! New connections to a side: TCP, and TLS with the project's name and CA.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::Project;
use super::error::ConnectError;
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
#[derive(Debug, Default)]
pub(super) struct Dialer {
    tls: RefCell<HashMap<TlsKey, Arc<ClientConfig>>>,
}

impl Dialer {
    /// Connects to a project. The caller bounds the time.
    pub(super) async fn dial(
        &self,
        project: &Project,
        offer: Offer,
    ) -> Result<Stream, ConnectError> {
        #[cfg(test)]
        if let Some(dialed) = super::memory::dial(&project.dial_host) {
            return Ok(Stream::Memory(dialed?));
        }
        let stream = connect(project).await?;
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

/// How long one address may take while there is another one to try.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(1);

/// Tries a name's addresses in order. A dead one (an AAAA record without a route) may not use up the whole time.
async fn connect(project: &Project) -> io::Result<TcpStream> {
    let host = (project.dial_host.as_str(), project.dial_port);
    let mut addresses = tokio::net::lookup_host(host).await?.peekable();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    while let Some(address) = addresses.next() {
        let connecting = TcpStream::connect(address);
        let connected = match addresses.peek() {
            None => connecting.await,
            Some(_) => match tokio::time::timeout(ADDRESS_PATIENCE, connecting).await {
                Ok(connected) => connected,
                Err(late) => Err(late.into()),
            },
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Finds out about a peer that vanished without a word, behind a stream that is quiet for long.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15))
}
