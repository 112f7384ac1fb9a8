//! The assertion by which a certificate takes the place of a client secret: a signed JWT (RFC 7523 §3).
//!
//! As Microsoft wants it: PS256, the certificate named by its thumbprint (`x5t#S256`, and `x5t` for endpoints that know the older form alone),
//! the token endpoint as audience, a few minutes of life, and an id that is never used again.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde_json::json;

use super::certificate::ClientCertificate;
use crate::clock::Timestamp;
use crate::secret::Secret;

/// Microsoft asks for five to ten minutes at most.
const LIFE: i64 = 300;
/// A server whose clock is behind ours must not find that the assertion is of the future.
const SKEW: i64 = 60;

/// An assertion that is good for one request; nothing if the system has no randomness.
pub(super) fn sign(certificate: &ClientCertificate, client_id: &str, audience: &str, now: Timestamp, id: &[u8; 16]) -> Option<Secret> {
    let now = now.as_millis().div_euclid(1_000);
    let header = json!({
        "alg": "PS256",
        "typ": "JWT",
        "x5t": BASE64URL.encode(certificate.sha1()),
        "x5t#S256": BASE64URL.encode(certificate.sha256()),
    });
    let claims = json!({
        "aud": audience,
        "iss": client_id,
        "sub": client_id,
        "jti": uuid(id),
        "iat": now,
        "nbf": now - SKEW,
        "exp": now + LIFE,
    });
    let signed = format!("{}.{}", BASE64URL.encode(header.to_string()), BASE64URL.encode(claims.to_string()));
    let signature = certificate.sign(signed.as_bytes())?;
    Some(Secret::new(format!("{signed}.{}", BASE64URL.encode(signature))))
}

/// A random UUID (RFC 9562 §5.4) of these octets.
fn uuid(octets: &[u8; 16]) -> String {
    let mut octets = *octets;
    octets[6] = octets[6] & 0x0F | 0x40;
    octets[8] = octets[8] & 0x3F | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(octets));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_random_uuid() {
        assert_eq!(uuid(&[0; 16]), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(&[0xFF; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
