//! The certificate that a listener shows, looked at again for the handshakes that come.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;

use crate::clock::Timestamp;
use crate::telemetry;
use crate::tls::{Certificate, CertificateError, CertificateFiles, Look};

/// How often the files are looked at, at most: each look is made for the handshake that comes next.
const LOOKS: Duration = Duration::from_secs(2);

/// See the head of this file.
pub(super) struct Shown {
    certificate: Arc<Certificate>,
    last_look: Mutex<Timestamp>,
}

impl Shown {
    /// Reads the files.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn load(files: CertificateFiles, now: Timestamp) -> Result<Self, CertificateError> {
        Ok(Self { certificate: Arc::new(Certificate::load(files)?), last_look: Mutex::new(now) })
    }

    /// What TLS shows now.
    pub async fn config(&self, now: Timestamp) -> Arc<ServerConfig> {
        if self.is_look_due(now) {
            let looking = self.certificate.clone();
            match tokio::task::spawn_blocking(move || looking.look()).await {
                Ok(Look::Renewed) => telemetry::certificate_renewed(self.certificate.path()),
                Ok(Look::Unusable(why)) => telemetry::certificate_unusable(self.certificate.path(), &why.to_string()),
                Ok(Look::Same) | Err(_) => {}
            }
        }
        self.certificate.config()
    }

    fn is_look_due(&self, now: Timestamp) -> bool {
        let mut last = self.last_look.lock().unwrap_or_else(PoisonError::into_inner);
        let due = now.since(*last) >= LOOKS;
        if due {
            *last = now;
        }
        due
    }
}
