//! SASL as AUTH carries it (RFC 4954): the mechanisms PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login), from the server's side.
//!
//! An [`Exchange`] is what the client's next line answers. Responses are base64; `=` stands for an empty one that came with the command. Devices
//! leave the padding out or write passwords in ISO 8859-1; neither changes what is meant, so both are taken: what is not UTF-8 is read as
//! ISO 8859-1. A password is compared as it came otherwise, without the mappings of SASLprep (RFC 4013).

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Characters of a user name; no user has a longer one.
const LONGEST_NAME: usize = 255;

/// Base64 with padding or without.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Name and password in one response.
    Plain,
    /// Name and password in two.
    Login,
}

impl Mechanism {
    /// As EHLO lists them.
    pub const ALL: &'static str = "PLAIN LOGIN";

    /// The mechanism of that name, in whatever case.
    pub fn named(name: &[u8]) -> Option<Self> {
        [Self::Plain, Self::Login].into_iter().find(|known| name.eq_ignore_ascii_case(known.as_str().as_bytes()))
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who a client says that it is, and its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name: no controls, at most 255 characters.
    pub user: String,
    /// What goes with it.
    pub password: Secret,
}

/// A login that is under way: what the next response is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// The one response of PLAIN.
    Plain,
    /// The first of LOGIN.
    LoginName,
    /// The second of LOGIN.
    LoginPassword {
        /// What the first one said.
        user: String,
    },
}

/// What comes of a response.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Another response is needed.
    Next(Exchange),
    /// All is said.
    Complete(Credentials),
}

/// Why a response is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslError {
    /// The client wants to end the exchange.
    Cancelled,
    /// Not base64.
    NotBase64,
    /// Base64 of something that the mechanism does not have.
    Malformed,
}

impl Exchange {
    /// A login by that mechanism.
    pub fn new(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::Plain => Self::Plain,
            Mechanism::Login => Self::LoginName,
        }
    }

    /// What the client is asked for, in base64. Devices that speak LOGIN look for these very words.
    pub fn challenge(&self) -> &'static str {
        match self {
            Self::Plain => "",
            // Username:
            Self::LoginName => "VXNlcm5hbWU6",
            // Password:
            Self::LoginPassword { .. } => "UGFzc3dvcmQ6",
        }
    }

    /// Takes a response.
    ///
    /// # Errors
    /// If it is none, or the client gives up. That ends the exchange.
    pub fn answer(self, response: &[u8]) -> Result<Step, SaslError> {
        let octets = match response {
            // RFC 4954 §4
            b"*" => return Err(SaslError::Cancelled),
            b"=" => Zeroizing::default(),
            _ => Zeroizing::new(BASE64.decode(response).map_err(|_| SaslError::NotBase64)?),
        };
        match self {
            Self::Plain => plain(&octets).map(Step::Complete),
            Self::LoginName => Ok(Step::Next(Self::LoginPassword { user: name(&octets)? })),
            Self::LoginPassword { user } => Ok(Step::Complete(Credentials { user, password: Secret::new(text(&octets)) })),
        }
    }
}

/// `[authorization identity] NUL name NUL password`. To act for another user is nothing that a user may do here.
fn plain(octets: &[u8]) -> Result<Credentials, SaslError> {
    let mut parts = octets.splitn(3, |octet| *octet == 0);
    let (Some(authority), Some(user), Some(password)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(SaslError::Malformed);
    };
    if password.contains(&0) || !(authority.is_empty() || authority == user) {
        return Err(SaslError::Malformed);
    }
    Ok(Credentials { user: name(user)?, password: Secret::new(text(password)) })
}

fn name(octets: &[u8]) -> Result<String, SaslError> {
    let name = text(octets);
    let fits = !name.is_empty() && name.chars().count() <= LONGEST_NAME && !name.chars().any(char::is_control);
    if fits { Ok(name) } else { Err(SaslError::Malformed) }
}

fn text(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) => text.to_owned(),
        // The first 256 characters of Unicode are those of ISO 8859-1.
        Err(_) => octets.iter().map(|octet| char::from(*octet)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(user: &str, password: &str) -> Step {
        Step::Complete(Credentials { user: user.to_owned(), password: Secret::new(password.to_owned()) })
    }

    fn plain(octets: &[u8]) -> Result<Step, SaslError> {
        Exchange::Plain.answer(BASE64.encode(octets).as_bytes())
    }

    #[test]
    fn takes_the_forms_of_plain_and_no_other() {
        assert_eq!(plain(b"\0scan\0hunter2"), Ok(credentials("scan", "hunter2")));
        assert_eq!(plain(b"scan\0scan\0hunter 2"), Ok(credentials("scan", "hunter 2")));
        assert_eq!(plain(b"\0scan\0"), Ok(credentials("scan", "")));
        assert_eq!(plain("\0büro\0größe".as_bytes()), Ok(credentials("büro", "größe")));
        assert_eq!(plain(b"\0scan\0gr\xf6\xdfe"), Ok(credentials("scan", "größe")));
        for octets in [&b"scan"[..], b"scan\0hunter2", b"boss\0scan\0hunter2", b"\0\0hunter2", b"\0scan\0a\0b", b"\0sc\nan\0x", b""] {
            assert_eq!(plain(octets), Err(SaslError::Malformed), "{}", octets.escape_ascii());
        }
        assert_eq!(plain(&[b"\0", &[b'x'; 256][..], b"\0p"].concat()), Err(SaslError::Malformed));
    }

    #[test]
    fn asks_for_name_and_password_in_turn() {
        let exchange = Exchange::new(Mechanism::Login);
        assert_eq!(BASE64.decode(exchange.challenge()).as_deref(), Ok(&b"Username:"[..]));
        let Ok(Step::Next(exchange)) = exchange.answer(b"c2Nhbg==") else { panic!("a name is no login") };
        assert_eq!(BASE64.decode(exchange.challenge()).as_deref(), Ok(&b"Password:"[..]));
        assert_eq!(exchange.answer(b"aHVudGVyMg"), Ok(credentials("scan", "hunter2")), "without its padding");
        assert_eq!(Exchange::LoginName.answer(b"="), Err(SaslError::Malformed));
    }

    #[test]
    fn the_client_may_give_up() {
        for exchange in [Exchange::Plain, Exchange::LoginName, Exchange::LoginPassword { user: "scan".to_owned() }] {
            assert_eq!(exchange.clone().answer(b"*"), Err(SaslError::Cancelled));
            assert_eq!(exchange.answer(b"no base64!"), Err(SaslError::NotBase64));
        }
    }

    #[test]
    fn knows_mechanisms_by_name() {
        for (name, mechanism) in
            [(&b"plain"[..], Some(Mechanism::Plain)), (b"LOGIN", Some(Mechanism::Login)), (b"CRAM-MD5", None), (b"", None)]
        {
            assert_eq!(Mechanism::named(name), mechanism);
        }
    }
}
