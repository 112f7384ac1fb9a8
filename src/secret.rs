//! Secrets that cannot be printed by accident.

use std::fmt;

use zeroize::Zeroizing;

/// A password or token. Its `Debug` form is redacted, it has no `Display`, and its memory is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// Why octets are no secret. The text tells nothing of them, and reads on behind the name of their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotASecret {
    /// More than any secret has.
    #[error("holds more than {} octets", Secret::LONGEST)]
    TooLong,
    /// Octets that are no text.
    #[error("holds what is not UTF-8 text")]
    NotText,
    /// Nothing.
    #[error("is empty")]
    Empty,
    /// Several lines, or worse.
    #[error("holds line ends or other controls")]
    Controls,
}

impl Secret {
    /// Octets of a secret that is read from somewhere: far more than any password has.
    pub const LONGEST: usize = 4_096;

    /// Takes the secret over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret that a file or a variable holds and nothing else, without the line end that editors leave behind it.
    ///
    /// # Errors
    /// If that is no secret.
    pub fn from_line(octets: &[u8]) -> Result<Self, NotASecret> {
        if octets.len() > Self::LONGEST {
            return Err(NotASecret::TooLong);
        }
        let text = str::from_utf8(octets).map_err(|_| NotASecret::NotText)?;
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        match text {
            "" => Err(NotASecret::Empty),
            text if text.chars().any(char::is_control) => Err(NotASecret::Controls),
            text => Ok(Self::new(text.to_owned())),
        }
    }

    /// The secret itself, for the one place that must send or compare it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_shows_itself() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2".into()))), "Some(Secret(redacted))");
    }
}
