//! What a token says of itself, for an operator who wants to know why a server does not take it. Pure.
//!
//! To the relay a token is a word that it passes on (RFC 6749 §1.4), so nothing is decided by this. Microsoft's tokens for Exchange are JSON Web
//! Tokens (RFC 7519); their signature is for the server to check, and is not looked at.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde::Deserialize;

use crate::clock::Timestamp;
use crate::secret::Secret;

/// The claims that tell why a token is taken or not. None of them is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The service that it is for (`aud`).
    pub audience: String,
    /// The permissions that it carries (`roles`).
    pub roles: Vec<String>,
    /// The application that it was issued to (`appid`).
    pub app_id: String,
    /// The tenant (`tid`).
    pub tenant: String,
    /// When it ends (`exp`).
    pub ends: Timestamp,
}

#[derive(Deserialize)]
struct Payload {
    aud: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default, alias = "azp")]
    appid: String,
    #[serde(default)]
    tid: String,
    exp: i64,
}

impl Claims {
    /// Reads them; none if the token is not one of that kind.
    pub fn read(token: &Secret) -> Option<Self> {
        let mut parts = token.expose().split('.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else { return None };
        let payload: Payload = serde_json::from_slice(&BASE64URL.decode(payload.trim_end_matches('=')).ok()?).ok()?;
        Some(Self {
            audience: payload.aud,
            roles: payload.roles,
            app_id: payload.appid,
            tenant: payload.tid,
            ends: Timestamp::from_millis(payload.exp.saturating_mul(1_000)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: &str) -> Option<Claims> {
        Claims::read(&Secret::new(format!("eyJ.{}.c2ln", BASE64URL.encode(payload))))
    }

    #[test]
    fn tells_what_a_token_is_good_for() {
        let claims =
            read(r#"{"aud":"https://outlook.office.com","roles":["Mail.Send","X"],"appid":"a","tid":"t","exp":1795890000,"x":[1]}"#);
        let ends = Timestamp::from_millis(1_795_890_000_000);
        let [audience, app_id, tenant] = ["https://outlook.office.com", "a", "t"].map(str::to_owned);
        assert_eq!(claims, Some(Claims { audience, roles: vec!["Mail.Send".to_owned(), "X".to_owned()], app_id, tenant, ends }));
        assert_eq!(read(r#"{"aud":"x","exp":1,"azp":"v2"}"#).map(|claims| (claims.app_id, claims.roles)), Some(("v2".to_owned(), vec![])));
    }

    #[test]
    fn of_another_kind_of_token_nothing_is_said() {
        for token in ["", "opaque", "a.b", "a.b.c", "a.b.c.d", "..", "eyJ.\u{fc}.x"] {
            assert_eq!(Claims::read(&Secret::new(token.to_owned())), None, "{token}");
        }
        for payload in ["", "{}", "[]", r#"{"aud":1,"exp":1}"#, r#"{"aud":"x","exp":"soon"}"#, r#"{"aud":"x"}"#] {
            assert_eq!(read(payload), None, "{payload}");
        }
        assert_eq!(read(&format!(r#"{{"aud":"x","exp":{}}}"#, i64::MAX)).map(|claims| claims.ends.as_millis()), Some(i64::MAX));
    }
}
