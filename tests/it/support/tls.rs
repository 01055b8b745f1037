//! Certificates, TLS clients and a TLS upstream.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::world::{Setup, World};

/// A private CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate with its key, both PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    /// A world that serves TLS as `localhost`, by this authority.
    pub fn world(&self) -> Setup {
        let pair = self.issues("localhost");
        World::start()
            .set("tls.listen", "\"127.0.0.1:0\"")
            .set("tls.cert", "\"tls.crt\"")
            .set("tls.key", "\"tls.key\"")
            .file("tls.crt", &pair.cert)
            .file("tls.key", &pair.key)
    }

    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub fn issues(&self, name: &str) -> Pair {
        self.issues_until(name, CertificateParams::default().not_after)
    }

    pub fn issues_until(&self, name: &str, end: time::OffsetDateTime) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = end;
        self.signs(&params)
    }

    pub fn issues_from(&self, name: &str, begin: time::OffsetDateTime) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = begin;
        self.signs(&params)
    }

    fn signs(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert, key: key.serialize_pem() }
    }

    /// Connects as `name`, offering these protocols.
    pub async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
        offered: &[&str],
    ) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

impl Pair {
    /// A certificate that nobody vouches for but itself.
    pub fn self_signed(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        Self { cert, key: key.serialize_pem() }
    }
}

/// Accepts TLS with this certificate, offering these protocols.
pub fn acceptor(pair: &Pair, offered: &[&str]) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// A request as the TLS upstream saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub version: Version,
    /// Host or `:authority`.
    pub host: String,
    pub sni: Option<String>,
    pub path: String,
    pub body: Bytes,
    pub connection: usize,
}

/// An upstream that speaks TLS, HTTP/2 if it offers it.
pub struct TlsUpstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl TlsUpstream {
    pub async fn start(pair: &Pair, offered: &[&str]) -> Self {
        let acceptor = acceptor(pair, offered);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let recording = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                connection += 1;
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&recording));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, connection, seen).await;
                    }
                });
            }
        });
        Self { address, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    connection: usize,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    let session = stream.get_ref().1;
    let sni = session.server_name().map(str::to_owned);
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: Request<Incoming>| {
        let (sni, seen) = (sni.clone(), Arc::clone(&seen));
        async move { Ok::<_, Infallible>(answer(request, sni, connection, &seen).await) }
    });
    let io = TokioIo::new(stream);
    if is_http2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await.ok();
    } else {
        http1::Builder::new().serve_connection(io, service).await.ok();
    }
}

/// A body that no socket's buffers hold.
pub const BIG: usize = 16 * 1024 * 1024;

/// `…/big` is a large body, `…/hold` is never answered; everything else is answered at once.
async fn answer(
    request: Request<Incoming>,
    sni: Option<String>,
    connection: usize,
    seen: &Mutex<Vec<Seen>>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let host = parts.uri.authority().map(ToString::to_string);
    let host = host.or_else(|| Some(parts.headers.get("host")?.to_str().ok()?.to_owned()));
    let body = body.collect().await.unwrap().to_bytes();
    seen.lock().unwrap().push(Seen {
        version: parts.version,
        host: host.unwrap_or_default(),
        sni,
        path: parts.uri.path().to_owned(),
        body,
        connection,
    });
    let body = match parts.uri.path() {
        path if path.ends_with("/big") => {
            static ZEROS: [u8; BIG] = [0; BIG];
            Bytes::from_static(&ZEROS)
        }
        path if path.ends_with("/hold") => std::future::pending().await,
        _ => Bytes::from("{\"side\":\"new\"}"),
    };
    Response::builder().header("x-upstream", "new").body(Full::from(body)).unwrap()
}
