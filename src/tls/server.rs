//! Which certificate a server shows.

use std::sync::Arc;

use rustls::ServerConfig;

use super::{TlsError, VERSIONS, chain_and_key, provider};

/// What a server shows: a chain, its own certificate first, and the key to it, both PEM.
///
/// # Errors
/// If either cannot be read as PEM, or the key does not belong to the first certificate.
pub fn server_config(chain_pem: impl AsRef<[u8]>, key_pem: impl AsRef<[u8]>) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = chain_and_key(chain_pem, key_pem)?;
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS)?;
    Ok(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::self_signed;

    #[test]
    fn shows_a_certificate_only_with_its_own_key() {
        let (chain, key) = self_signed();
        let (_, foreign) = self_signed();
        assert!(server_config(&chain, &key).is_ok());
        assert!(matches!(server_config(&chain, foreign), Err(TlsError::Refused(_))));
        assert!(matches!(server_config("", &key), Err(TlsError::Chain(_))));
        assert!(matches!(server_config(&chain, ""), Err(TlsError::Key(_))));
    }
}
