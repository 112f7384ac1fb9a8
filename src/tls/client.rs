//! Which certificates are believed, and which one a client shows where it is asked.
//!
//! A client configuration verifies chain, dates and name, always; there is no switch to turn that off, because credentials travel behind it.
//! [`Opportunistic`] is another type, for connections that could as well be in clear. Build one per loaded configuration and share it: it
//! carries the session cache, and reading the operating system's roots takes milliseconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, WantsVerifier};
use zeroize::Zeroizing;

use super::{TlsError, VERSIONS, chain_and_key, provider};

/// Sessions that a client configuration remembers, over all server names.
const SESSIONS: usize = 256;

/// What a client shows of itself where a server asks for it: a certificate chain, its own first, and the key to it, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain.
    pub certificate_file: PathBuf,
    /// The key.
    pub key_file: PathBuf,
}

/// Whether an identity can be shown.
///
/// # Errors
/// If it cannot be read as PEM or its key does not belong to its certificate. Blocks on the file system.
pub fn check_identity(identity: &Identity) -> Result<(), TlsError> {
    let (chain, key) = read_identity(identity)?;
    CertifiedKey::from_der(chain, key, &provider())?;
    Ok(())
}

/// What a client believes: the certificates of `ca_file` and no others, or without one the operating system's.
///
/// # Errors
/// If the file cannot be read, has no usable certificate, or the operating system has none. Blocks on the file system.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_as(ca_file, None)
}

/// The same, for a client that shows who it is.
///
/// # Errors
/// As [`client_config`], and if the identity cannot be read as PEM or its key does not belong to its certificate.
pub fn client_config_as(ca_file: Option<&Path>, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, TlsError> {
    showing(builder()?.with_webpki_verifier(verifier(ca_file)?), identity)
}

/// Encryption without proof of who is at the other end (RFC 7435): any certificate will do, and whether it is the right one can be asked
/// afterwards.
#[derive(Debug)]
pub struct Opportunistic {
    config: Arc<ClientConfig>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Opportunistic {
    /// Believes as [`client_config_as`] does when it is asked.
    ///
    /// # Errors
    /// As [`client_config_as`].
    pub fn new(ca_file: Option<&Path>, identity: Option<&Identity>) -> Result<Self, TlsError> {
        let verifier = verifier(ca_file)?;
        let any = AnyCertificate(verifier.clone());
        let config = showing(builder()?.dangerous().with_custom_certificate_verifier(Arc::new(any)), identity)?;
        Ok(Self { config, verifier })
    }

    /// What to connect with.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Whether these certificates, the server's own first, are those of a server of that name.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn verify(&self, certificates: &[CertificateDer<'_>], name: &ServerName<'_>) -> Result<(), Error> {
        let (own, others) = certificates.split_first().ok_or(Error::NoCertificatesPresented)?;
        self.verifier.verify_server_cert(own, others, name, &[], UnixTime::now()).map(drop)
    }
}

/// Takes whatever certificate there is. That the server has the key to it is verified all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn verifier(ca_file: Option<&Path>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let roots = match ca_file {
        Some(path) => roots_of_file(path)?,
        None => roots_of_system()?,
    };
    // It refuses an empty store only, and neither of these is empty.
    let refused = |error: rustls::client::VerifierBuilderError| TlsError::Refused(Error::General(error.to_string()));
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(refused)
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS)?)
}

fn showing(builder: ConfigBuilder<ClientConfig, WantsClientCert>, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = read_identity(identity)?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

fn read_identity(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let read = |path: &PathBuf| fs::read(path).map_err(|cause| TlsError::Unreadable { path: path.clone(), cause });
    chain_and_key(read(&identity.certificate_file)?, Zeroizing::new(read(&identity.key_file)?))
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let at = || path.to_owned();
    let pem = fs::read(path).map_err(|cause| TlsError::Unreadable { path: at(), cause })?;
    let mut roots = RootCertStore::empty();
    for (i, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        let certificate = certificate.map_err(|cause| TlsError::NotPem { path: at(), cause })?;
        roots.add(certificate).map_err(|cause| TlsError::BadCertificate { path: at(), number: i + 1, cause })?;
    }
    if roots.is_empty() { Err(TlsError::NoCertificate { path: at() }) } else { Ok(roots) }
}

fn roots_of_system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A single certificate that webpki cannot read must not cost all the others: systems carry odd ones.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let details: Vec<String> = found.errors.iter().map(|error| format!("; {error}")).collect();
        return Err(TlsError::NoSystemRoots(details.concat()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::self_signed;

    #[test]
    fn says_which_file_and_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            path
        };
        let (certificate, key) = self_signed();
        assert!(client_config(Some(&file("good.pem", &certificate))).is_ok());
        for (path, wanted) in [
            (folder.path().join("none.pem"), "cannot read "),
            (file("empty.pem", ""), "has no certificate"),
            (file("key.pem", &key), "has no certificate"),
            (file("cut.pem", &certificate[..certificate.len() - 40]), "not well-formed PEM"),
            (file("odd.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "certificate 1 of the CA file"),
        ] {
            let error = client_config(Some(&path)).expect_err(wanted).to_string();
            assert!(error.contains(wanted) && error.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn an_identity_is_a_certificate_and_its_own_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            path
        };
        let ((certificate, key), (_, foreign)) = (self_signed(), self_signed());
        let identity = |key: &str| Identity { certificate_file: file("own.pem", &certificate), key_file: file("own.key", key) };
        assert!(check_identity(&identity(&key)).is_ok());
        assert!(
            client_config_as(Some(&file("ca.pem", &certificate)), Some(&identity(&key)))
                .is_ok_and(|config| config.client_auth_cert_resolver.has_certs())
        );
        assert!(matches!(check_identity(&identity(&foreign)), Err(TlsError::Refused(_))));
        assert!(matches!(check_identity(&identity("")), Err(TlsError::Key(_))));
        let missing = Identity { key_file: folder.path().join("none.key"), ..identity(&key) };
        assert!(matches!(check_identity(&missing), Err(TlsError::Unreadable { .. })));
    }

    #[test]
    fn afterwards_opportunistic_tls_can_tell_whose_certificate_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, _) = self_signed();
        let path = folder.path().join("ca.pem");
        fs::write(&path, &certificate).expect("written");
        let tls = Opportunistic::new(Some(&path), None).expect("a configuration");
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let name = |name: &'static str| ServerName::try_from(name).expect("a name");
        assert_eq!(tls.verify(&[der(&certificate)], &name("relay.example")), Ok(()));
        assert!(tls.verify(&[der(&certificate)], &name("other.example")).is_err());
        assert!(tls.verify(&[der(&self_signed().0)], &name("relay.example")).is_err());
        assert!(tls.verify(&[], &name("relay.example")).is_err());
    }
}
