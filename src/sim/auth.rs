//! What a client shows to prove who it is: the SASL mechanisms LOGIN, PLAIN (RFC 4616) and XOAUTH2, from the server's side.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::settings::{Account, Mechanism};
use crate::secret::Secret;

/// A user name and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: String,
    proof: Proof,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    Password(Secret),
    Token(Secret),
}

impl Credentials {
    /// The two answers of LOGIN.
    pub(super) fn login(user: String, password: String) -> Self {
        Self { user, proof: Proof::Password(Secret::new(password)) }
    }

    /// PLAIN: authorization identity, user name and password, with NUL between them. The first must be empty or the same as the second.
    pub(super) fn plain(response: &str) -> Option<Self> {
        let mut parts = response.split('\0');
        let (authority, user, password) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = parts.next().is_none() && (authority.is_empty() || authority == user);
        whole.then(|| Self::login(user.to_owned(), password.to_owned()))
    }

    /// XOAUTH2: `user=` address ^A `auth=Bearer ` token ^A ^A.
    pub(super) fn xoauth2(response: &str) -> Option<Self> {
        let (user, rest) = response.strip_prefix("user=")?.split_once('\u{1}')?;
        let token = rest.strip_prefix("auth=Bearer ")?.strip_suffix("\u{1}\u{1}")?;
        Some(Self { user: user.to_owned(), proof: Proof::Token(Secret::new(token.to_owned())) })
    }

    /// Whether they are this account's.
    pub(super) fn prove(&self, account: &Account) -> bool {
        self.user.eq_ignore_ascii_case(&account.user)
            && match &self.proof {
                Proof::Password(password) => *password == account.password,
                Proof::Token(token) => account.token.as_ref() == Some(token),
            }
    }
}

/// The mechanism of that name, which is compared without regard to case.
pub(super) fn mechanism(name: &str) -> Option<Mechanism> {
    [Mechanism::Login, Mechanism::Plain, Mechanism::Xoauth2].into_iter().find(|known| known.keyword().eq_ignore_ascii_case(name))
}

/// Decodes a response; `=` stands for an empty one (RFC 4954 §4).
pub(super) fn decode(text: &str) -> Option<String> {
    let octets = if text == "=" { Vec::new() } else { STANDARD.decode(text).ok()? };
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_forms_of_the_mechanisms_and_no_other() {
        let account = Account { token: Some(Secret::new("t0k".into())), ..Account::new("hve01@contoso.com", "pass word") };
        let proves = |credentials: Option<Credentials>| credentials.map(|credentials| credentials.prove(&account));
        for (response, expected) in [
            ("\0HVE01@contoso.com\0pass word", Some(true)),
            ("hve01@contoso.com\0hve01@contoso.com\0pass word", Some(true)),
            ("\0hve01@contoso.com\0Pass word", Some(false)),
            ("\0hve02@contoso.com\0pass word", Some(false)),
            ("admin@contoso.com\0hve01@contoso.com\0pass word", None),
            ("hve01@contoso.com\0pass word", None),
            ("\0hve01@contoso.com\0pass word\0", None),
        ] {
            assert_eq!(proves(Credentials::plain(response)), expected, "{response:?}");
        }
        for (response, expected) in [
            ("user=hve01@contoso.com\u{1}auth=Bearer t0k\u{1}\u{1}", Some(true)),
            ("user=hve01@contoso.com\u{1}auth=Bearer pass word\u{1}\u{1}", Some(false)),
            ("user=hve01@contoso.com\u{1}auth=Bearer t0k\u{1}", None),
            ("user=hve01@contoso.com\u{1}auth=t0k\u{1}\u{1}", None),
        ] {
            assert_eq!(proves(Credentials::xoauth2(response)), expected, "{response:?}");
        }
        assert_eq!(decode("="), Some(String::new()));
        assert_eq!(decode("aA"), None, "padding is part of it");
    }
}
