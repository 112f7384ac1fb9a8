//! An application's certificate and its key: read, held against each other, and signed with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ring::digest::{self, digest};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::{KeyPair as _, RSA_PSS_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Timestamp;

/// A client certificate with its key. Its `Debug` form shows neither.
pub struct ClientCertificate {
    sha1: [u8; digest::SHA1_OUTPUT_LEN],
    sha256: [u8; digest::SHA256_OUTPUT_LEN],
    not_after: Timestamp,
    key: KeyPair,
}

/// Why a certificate and its key are of no use. The text names the file and says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFault {
    /// The certificate's file cannot be read, or holds no certificate.
    #[error("{} {why}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key's file cannot be read, or holds no RSA key.
    #[error("{} {why}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Both are well-formed, and do not belong together.
    #[error("the key in {} is not that of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

impl ClientCertificate {
    /// Reads both files; of several certificates in one file the first counts. Blocks on the file system.
    ///
    /// # Errors
    /// If either is of no use, or the two do not belong together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateFault> {
        let of_certificate = |why| CertificateFault::Certificate { path: certificate.to_owned(), why };
        let of_key = |why| CertificateFault::Key { path: key.to_owned(), why };
        let der = CertificateDer::from_pem_slice(&fs::read(certificate).map_err(|error| of_certificate(unreadable(&error)))?)
            .map_err(|_| of_certificate("holds no certificate in PEM form".to_owned()))?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|_| of_certificate("holds a certificate that cannot be read".to_owned()))?;
        let pair = key_pair(key).map_err(of_key)?;
        // Both are an RSAPublicKey of RFC 8017 appendix A.1.1, in DER, which has one form for each key.
        if pair.public_key().as_ref() != parsed.public_key().subject_public_key.data.as_ref() {
            return Err(CertificateFault::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() });
        }
        let not_after = Timestamp::from_millis(parsed.validity().not_after.timestamp().saturating_mul(1_000));
        Ok(Self {
            sha1: thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY, &der),
            sha256: thumbprint(&digest::SHA256, &der),
            not_after,
            key: pair,
        })
    }

    /// When it ends.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// RFC 7515 §4.1.7.
    pub(super) fn sha1(&self) -> &[u8] {
        &self.sha1
    }

    /// RFC 7515 §4.1.8.
    pub(super) fn sha256(&self) -> &[u8] {
        &self.sha256
    }

    /// RSASSA-PSS with SHA-256 (RFC 7518 §3.5), or nothing if the system has no randomness.
    pub(super) fn sign(&self, octets: &[u8]) -> Option<Vec<u8>> {
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), octets, &mut signature).ok()?;
        Some(signature)
    }
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The first private key of a PEM file. Entra takes certificates with RSA keys only, and ring keys of 2048 bits at least.
fn key_pair(path: &Path) -> Result<KeyPair, String> {
    let pem = zeroize::Zeroizing::new(fs::read(path).map_err(|error| unreadable(&error))?);
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| "holds no private key in PEM form (one that a passphrase protects cannot be used)".to_owned())?;
    let rejected = |why: ring::error::KeyRejected| format!("holds a key that cannot be used ({why}): it must be RSA of 2048 to 4096 bits");
    match &key {
        PrivateKeyDer::Pkcs8(der) => KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(rejected),
        PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()).map_err(rejected),
        _ => Err("holds a key that is not RSA, and Entra takes no other".to_owned()),
    }
}

fn thumbprint<const N: usize>(algorithm: &'static digest::Algorithm, der: &[u8]) -> [u8; N] {
    let mut octets = [0; N];
    octets.copy_from_slice(digest(algorithm, der).as_ref());
    octets
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}
