//! What the connections that this program opens have in common: whom they believe, what it calls itself where it asks on its own
//! behalf, and which of a chain of errors is worth a word.

use std::error::Error;
use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// The `User-Agent` of requests that are no client's.
pub(crate) const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("cutover/", env!("CARGO_PKG_VERSION")));

/// TLS that believes the CAs of a PEM, or the system's where there is none. It offers no protocol by ALPN.
///
/// # Errors
/// What is wrong with the PEM.
pub(crate) fn tls(ca_pem: Option<&[u8]>) -> Result<ClientConfig, String> {
    let roots = match ca_pem {
        Some(pem) => Arc::new(private_roots(pem)?),
        None => system_roots(),
    };
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn private_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

/// The system's own CAs, read once per process (`SSL_CERT_FILE` is honoured).
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (added, ignored) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(added, ignored, "system certificates read");
        Arc::new(roots)
    };
    Arc::clone(ROOTS.get_or_init(read))
}

/// The cause at the bottom of a chain of errors, which says more than `client error (Connect)`.
pub(crate) fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}
