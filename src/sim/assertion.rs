//! The check of a client assertion (RFC 7523 §3), as strict as the specification lets a server be.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use x509_parser::parse_x509_certificate;

use crate::clock::Clock;

/// What `client_assertion_type` must be.
pub(super) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Microsoft asks for no longer a life than ten minutes.
const LONGEST: i64 = 600;

/// The ids of those that were taken: none is taken twice.
#[derive(Debug, Default)]
pub(super) struct Assertions(HashSet<String>);

impl Assertions {
    /// Whether it was signed with the key of this certificate, for this application and this endpoint, now, and is new.
    pub fn check(&mut self, assertion: &str, certificate_pem: &str, client_id: &str, audience: &str) -> Result<(), String> {
        let mut parts = assertion.split('.');
        let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err("it has not three parts".to_owned());
        };
        let signed = &assertion[..header.len() + 1 + claims.len()];
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|error| error.to_string())?;
        let (header, claims) = (json(header)?, json(claims)?);
        let thumbprints = [("x5t#S256", digest(&SHA256, &der)), ("x5t", digest(&SHA1_FOR_LEGACY_USE_ONLY, &der))];
        for (name, digest) in thumbprints.iter().filter(|(name, _)| *name == "x5t#S256" || header.get(name).is_some()) {
            if header[*name] != URL_SAFE_NO_PAD.encode(digest) {
                return Err(format!("{name} is not the registered certificate's"));
            }
        }
        let algorithm: &'static dyn VerificationAlgorithm = match header["alg"].as_str() {
            Some("PS256") => &RSA_PSS_2048_8192_SHA256,
            Some("RS256") => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err("alg is neither PS256 nor RS256".to_owned()),
        };
        let (_, certificate) = parse_x509_certificate(&der).map_err(|error| error.to_string())?;
        let key = UnparsedPublicKey::new(algorithm, certificate.public_key().subject_public_key.data.as_ref());
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|error| error.to_string())?;
        key.verify(signed.as_bytes(), &signature).map_err(|_| "the signature is not of its key".to_owned())?;
        for (name, wanted) in [("aud", audience), ("iss", client_id), ("sub", client_id)] {
            if claims[name] != wanted {
                return Err(format!("{name} is {}", claims[name]));
            }
        }
        let now = Clock::wall().as_millis() / 1_000;
        let time = |name: &str| claims[name].as_i64().ok_or_else(|| format!("{name} is missing"));
        let (nbf, exp) = (time("nbf")?, time("exp")?);
        if nbf > now || exp <= now || exp - nbf > LONGEST {
            return Err(format!("it is good from {nbf} to {exp}, and now is {now}"));
        }
        match claims["jti"].as_str() {
            Some(id) if id.len() >= 16 && self.0.insert(id.to_owned()) => Ok(()),
            Some(_) => Err("its jti was used before, or is too short".to_owned()),
            None => Err("jti is missing".to_owned()),
        }
    }
}

fn json(part: &str) -> Result<Value, String> {
    let octets = URL_SAFE_NO_PAD.decode(part).map_err(|error| error.to_string())?;
    serde_json::from_slice(&octets).map_err(|error| error.to_string())
}
