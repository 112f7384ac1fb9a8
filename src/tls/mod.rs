//! rustls configurations: which certificates are believed, and which one is shown.
//!
//! Both sides use the ring provider and TLS 1.2 or 1.3; rustls knows nothing older.

mod certificate;
mod client;
mod server;

pub use certificate::{Certificate, CertificateError, CertificateFiles, Look, ends, self_signed};
pub use client::{Identity, Opportunistic, check_identity, client_config, client_config_as};
pub use server::server_config;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};

const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Why a TLS configuration could not be built; the text is meant for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or keys could not be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// A file of CA certificates is not PEM.
    #[error("the CA file {} is not well-formed PEM: {cause}", path.display())]
    NotPem {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: PemError,
    },
    /// A file of CA certificates has none.
    #[error("the CA file {} has no certificate: it needs a section -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// A certificate of the CA file is none that can be trusted.
    #[error("certificate {number} of the CA file {} cannot be used: {cause}", path.display())]
    BadCertificate {
        /// Which file.
        path: PathBuf,
        /// Which of its certificates, from 1.
        number: usize,
        /// What is wrong with it.
        cause: rustls::Error,
    },
    /// The operating system has no CA certificates.
    #[error("the operating system has no CA certificates (on Debian: apt install ca-certificates){0}")]
    NoSystemRoots(String),
    /// One's own certificate chain is not PEM, or is empty.
    #[error("the certificate chain is not usable: {0}")]
    Chain(PemError),
    /// One's own key is not PEM.
    #[error("the private key is not usable: {0}")]
    Key(PemError),
    /// rustls refused: mostly a key that does not belong to the certificate.
    #[error("TLS cannot be set up: {0}")]
    Refused(#[from] rustls::Error),
}

/// One's own certificate, those behind it, and the key to it.
fn chain_and_key(
    chain_pem: impl AsRef<[u8]>,
    key_pem: impl AsRef<[u8]>,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem.as_ref()).collect::<Result<_, _>>().map_err(TlsError::Chain)?;
    if chain.is_empty() {
        return Err(TlsError::Chain(PemError::NoItemsFound));
    }
    Ok((chain, PrivateKeyDer::from_pem_slice(key_pem.as_ref()).map_err(TlsError::Key)?))
}

/// Named here and not installed for the whole process, so that no other crate's choice can change it.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests {
    pub(super) fn self_signed() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["relay.example".to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }
}
