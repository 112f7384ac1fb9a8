//! Who may log in: names, the hashes of their passwords, and the clients as which they send.
//!
//! A hash is a PHC string of Argon2 (RFC 9106), as `hve-relay password` prints it. To verify a password takes the memory and the time that its
//! hash names, which is the point of it: the caller does that where it may take time, and a few at a time. A name that no user has takes as long
//! as a wrong password: it is held against another user's hash, always the same one for the same name.
//!
//! Limits: a hash that wants more than [`MOST_MEMORY`] or [`MOST_WORK`] is refused when it is configured, because every stranger who may say
//! AUTH could make the relay spend that.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use argon2::password_hash::phc;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};

use crate::mail::ClientName;
use crate::secret::Secret;

/// KiB that a hash may want: 256 MiB.
const MOST_MEMORY: u32 = 256 << 10;
/// KiB times passes that a hash may want: a second or so.
const MOST_WORK: u64 = 1 << 20;

/// One `[[user]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSettings {
    /// Its name; case does not count.
    pub name: String,
    /// What its password is verified against.
    pub password: PasswordHash,
    /// The client as which it sends.
    pub client: ClientName,
}

/// The hash of a password. Its `Debug` form shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

/// Why a text is no hash that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not a PHC string with salt and hash.
    #[error("no hash of a password")]
    Malformed,
    /// Of another algorithm than Argon2.
    #[error("a hash of another kind than Argon2")]
    Unknown,
    /// It would cost too much memory or time to verify.
    #[error("a hash that takes too much memory or time to verify")]
    TooCostly,
}

impl PasswordHash {
    /// Takes a PHC string.
    ///
    /// # Errors
    /// If it is none, or none of a kind that can be verified here.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let parsed = phc::PasswordHash::new(text).map_err(|_| HashError::Malformed)?;
        if !parsed.algorithm.as_str().starts_with("argon2") {
            return Err(HashError::Unknown);
        }
        if parsed.salt.is_none() || parsed.hash.is_none() {
            return Err(HashError::Malformed);
        }
        let params = Params::try_from(&parsed).map_err(|_| HashError::Malformed)?;
        if params.m_cost() > MOST_MEMORY || u64::from(params.m_cost()) * u64::from(params.t_cost()) > MOST_WORK {
            return Err(HashError::TooCostly);
        }
        Ok(Self(text.to_owned()))
    }

    /// Hashes a password with a salt of 8 to 48 octets, which must be another one each time: Argon2id with 19 MiB and two passes, as OWASP
    /// recommends it.
    ///
    /// # Errors
    /// If the salt is too short or too long.
    pub fn of(password: &Secret, salt: &[u8]) -> Result<Self, HashError> {
        let hash = Argon2::default().hash_password_with_salt(password.expose().as_bytes(), salt).map_err(|_| HashError::Malformed)?;
        Ok(Self(hash.to_string()))
    }

    /// The PHC string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the hash of this password. Takes tens of milliseconds and as much memory as the hash wants.
    pub fn is_of(&self, password: &Secret) -> bool {
        // The hash names its own algorithm, memory and passes.
        phc::PasswordHash::new(&self.0).is_ok_and(|hash| Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok())
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(redacted)")
    }
}

/// Everybody who may log in.
#[derive(Debug, Clone, Default)]
pub struct Users {
    users: Vec<UserSettings>,
    /// Each name in lower case, with its place in `users`.
    by_name: HashMap<String, usize>,
}

impl Users {
    /// These users; of two with one name the first counts.
    pub fn new(users: Vec<UserSettings>) -> Self {
        let by_name = users.iter().enumerate().rev().map(|(i, user)| (user.name.to_lowercase(), i)).collect();
        Self { users, by_name }
    }

    /// Whether there is a user of that name.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(&name.to_lowercase())
    }

    /// The client as which the user sends, if the password is the user's. Takes tens of milliseconds and as much memory as the hash wants.
    pub fn verify(&self, name: &str, password: &Secret) -> Option<&ClientName> {
        let name = name.to_lowercase();
        let known = self.by_name.get(&name).and_then(|i| self.users.get(*i));
        let is_right = known.or_else(|| self.stand_in(&name))?.password.is_of(password);
        known.filter(|_| is_right).map(|user| &user.client)
    }

    /// Whose hash takes the time for somebody whom nobody knows.
    fn stand_in(&self, name: &str) -> Option<&UserSettings> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        self.users.get((hasher.finish() % self.users.len().max(1) as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn user(name: &str, password: &str) -> UserSettings {
        let password = PasswordHash::of(&secret(password), b"a salt of one").expect("hashed");
        UserSettings { name: name.to_owned(), password, client: ClientName::new("erp") }
    }

    #[test]
    fn lets_in_who_has_the_password_and_nobody_else() {
        let users = Users::new(vec![user("Scan", "hunter2"), user("büro", "größe")]);
        for (name, password, is_right) in [
            ("scan", "hunter2", true),
            ("SCAN", "hunter2", true),
            ("BÜRO", "größe", true),
            ("scan", "Hunter2", false),
            ("scan", "", false),
            ("scan", "größe", false),
            ("nobody", "hunter2", false),
        ] {
            assert_eq!(users.verify(name, &secret(password)).is_some(), is_right, "{name} {password}");
        }
        assert!(users.has("scan") && !users.has("nobody"));
        assert_eq!(Users::default().verify("scan", &secret("hunter2")), None);
    }

    #[test]
    fn a_hash_is_read_again_and_never_shown() {
        let made = PasswordHash::of(&secret("hunter2"), b"0123456789abcdef").expect("hashed");
        assert!(made.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", made.as_str());
        assert_eq!(PasswordHash::parse(made.as_str()), Ok(made.clone()));
        assert_eq!(format!("{made:?}"), "PasswordHash(redacted)");
    }

    #[test]
    fn refuses_what_cannot_be_verified_or_costs_too_much() {
        const REST: &str = "$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for (text, why) in [
            ("hunter2".to_owned(), HashError::Malformed),
            (String::new(), HashError::Malformed),
            ("$argon2id$v=19$m=19456,t=2,p=1".to_owned(), HashError::Malformed),
            (format!("$argon2id$v=19$m=4,t=2,p=1{REST}"), HashError::Malformed),
            (format!("$pbkdf2-sha256$i=1000{REST}"), HashError::Unknown),
            (format!("$argon2id$v=19$m=4194304,t=1,p=1{REST}"), HashError::TooCostly),
            (format!("$argon2id$v=19$m=19456,t=1000000,p=1{REST}"), HashError::TooCostly),
        ] {
            assert_eq!(PasswordHash::parse(&text), Err(why), "{text}");
        }
        assert!(PasswordHash::parse(&format!("$argon2i$v=19$m=65536,t=3,p=4{REST}")).is_ok());
    }
}
