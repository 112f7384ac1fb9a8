//! Who the simulated endpoint is: a certificate, and the private CA made at the same moment to vouch for it.
//!
//! Every identity has a CA of its own, so an endpoint of another CA is simply another identity.

use std::fmt;
use std::io;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// A server certificate and the CA that signed it. Cheap to copy.
#[derive(Clone)]
pub struct Identity {
    ca_pem: Arc<str>,
    /// The server's certificate and its key.
    server_pem: Arc<str>,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// For these names, which may be addresses: valid, for TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// If a name cannot stand in a certificate.
    pub fn make(names: &[&str]) -> io::Result<Self> {
        Self::sign(names, |_| {})
    }

    /// As [`Self::make`], but its certificate's time is over.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn expired(names: &[&str]) -> io::Result<Self> {
        Self::sign(names, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    /// The one that [`Self::server_pem`] and [`Self::ca_pem`] described: its clients need not learn to trust another CA.
    ///
    /// # Errors
    /// If there is no certificate in `server_pem`, or no key that belongs to it.
    pub fn again(ca_pem: &str, server_pem: &str) -> io::Result<Self> {
        let server = crate::tls::server_config(server_pem, server_pem).map_err(io::Error::other)?;
        Ok(Self { ca_pem: ca_pem.into(), server_pem: server_pem.into(), server })
    }

    /// Its certificate and its private key, in PEM form.
    pub fn server_pem(&self) -> &str {
        &self.server_pem
    }

    /// The CA's certificate, for the client's trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// What the endpoint shows to its clients.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// The same, for an endpoint whose clients must show a certificate of this CA, in PEM form.
    ///
    /// # Errors
    /// If it is not the certificate of a CA.
    pub fn server_for(&self, client_ca_pem: &str) -> io::Result<Arc<ServerConfig>> {
        let pem = |text: &str| CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(io::Error::other);
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(pem(client_ca_pem)?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(self.server_pem.as_bytes()).map_err(io::Error::other)?;
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let chain = pem(&self.server_pem)?;
        builder.with_client_cert_verifier(clients).with_single_cert(chain, key).map(Arc::new).map_err(io::Error::other)
    }

    fn sign(names: &[&str], adjust: impl FnOnce(&mut CertificateParams)) -> io::Result<Self> {
        let mut ca = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
        ca.distinguished_name.push(DnType::CommonName, "Simulated HVE CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_key = KeyPair::generate().map_err(io::Error::other)?;
        let ca_certificate = ca.self_signed(&ca_key).map_err(io::Error::other)?;

        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, "Simulated HVE endpoint");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        adjust(&mut params);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &Issuer::new(ca, ca_key)).map_err(io::Error::other)?;

        Self::again(&ca_certificate.pem(), &format!("{}{}", certificate.pem(), key.serialize_pem()))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}
