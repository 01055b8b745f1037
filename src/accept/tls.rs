//! TLS termination: HTTP/1.1 and HTTP/2 by ALPN, the certificate read again when its file changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::file;

/// No chain and no key is larger.
const LARGEST: u64 = 1024 * 1024;

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file is no PEM of the right kind.
    #[error("{path}: {cause}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        cause: rustls_pki_types::pem::Error,
    },
    /// The certificate and the key are not usable together.
    #[error("certificate and key can't be used: {0}")]
    Pair(#[from] rustls::Error),
}

/// The certificate in use. Handshakes read it without waiting; a reload swaps it.
#[derive(Debug)]
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    server: Arc<ServerConfig>,
    fingerprint: [u8; 32],
}

impl Certificate {
    /// Reads certificate chain and key.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(read(cert, key)?);
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), current })
    }

    /// What a handshake uses now.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().server)
    }

    /// Reads both files again; `Ok(true)` when they differ and were swapped in. Handshakes under way keep the old one.
    ///
    /// # Errors
    /// [`TlsError`]; the last good certificate stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        if fingerprint(&bytes(&self.cert)?, &bytes(&self.key)?) == self.current.load().fingerprint {
            return Ok(false);
        }
        self.current.store(Arc::new(read(&self.cert, &self.key)?));
        Ok(true)
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    file::read(path, LARGEST).map_err(|cause| TlsError::File { path: path.to_owned(), cause })
}

fn fingerprint(cert: &[u8], key: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(cert).chain_update([0]).chain_update(key).finalize().into()
}

fn read(cert_path: &Path, key_path: &Path) -> Result<Loaded, TlsError> {
    let (cert, key) = (bytes(cert_path)?, bytes(key_path)?);
    let pem_error = |path: &Path| {
        let path = path.to_owned();
        move |cause| TlsError::Pem { path, cause }
    };
    let chain = CertificateDer::pem_slice_iter(&cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem_error(cert_path))?;
    let private = PrivateKeyDer::from_pem_slice(&key).map_err(pem_error(key_path))?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Loaded { server: Arc::new(server), fingerprint: fingerprint(&cert, &key) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write_pair(folder: &Path) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
        fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_changed_pair_is_swapped_in_and_a_bad_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        write_pair(folder.path());
        let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let certificate = Certificate::load(&cert, &key).unwrap();
        let first = certificate.server_config();
        assert!(!certificate.reload().unwrap());
        fs::write(&cert, "half a file").unwrap();
        assert!(certificate.reload().unwrap_err().to_string().contains("certificate"));
        assert!(Arc::ptr_eq(&first, &certificate.server_config()));
        write_pair(folder.path());
        assert!(certificate.reload().unwrap());
        assert!(!Arc::ptr_eq(&first, &certificate.server_config()));
    }

    #[test]
    fn faults_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        assert!(Certificate::load(&cert, &key).unwrap_err().to_string().contains("tls.crt"));
        write_pair(folder.path());
        fs::write(&key, "").unwrap();
        assert!(Certificate::load(&cert, &key).unwrap_err().to_string().contains("tls.key"));
    }

    /// The look that waits for a FIFO would be the last one.
    #[test]
    fn what_stands_in_place_of_a_file_is_named_and_a_good_pair_is_taken_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        write_pair(folder.path());
        let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let certificate = Certificate::load(&cert, &key).unwrap();
        fs::remove_file(&cert).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&cert).status().unwrap().success());
        assert!(
            certificate.reload().unwrap_err().to_string().ends_with("it is no file but a FIFO")
        );
        fs::remove_file(&cert).unwrap();
        fs::create_dir(&cert).unwrap();
        assert!(certificate.reload().unwrap_err().to_string().ends_with("a directory"));
        fs::remove_dir(&cert).unwrap();
        fs::File::create(&cert).unwrap().set_len(100 << 20).unwrap();
        assert!(certificate.reload().unwrap_err().to_string().ends_with("larger than 1 MiB"));
        write_pair(folder.path());
        assert!(certificate.reload().unwrap());
    }
}
