//! Addresses as a log may show them: as they are, without their local part, or as a word that stands for them.
//!
//! What a field may hold is in the table of fields. A field that holds an address is changed as a whole; in text from elsewhere (replies,
//! reasons, names that clients give themselves) everything that looks like an address is changed, too much rather than too little. A field that
//! is not in the table is such text. Queue ids and Message-IDs stay, for they are what a message is found by, and so do the accounts' own
//! addresses: they come from the configuration, name no person, and an operator must know which account a line is about.
//!
//! The word for an address is the beginning of its HMAC-SHA256, with a key that the relay makes once and keeps in its data directory: the same
//! address has the same word for ever, in capitals or not, and nobody without the key can tell the address from it, nor by trying addresses.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::catalogue::{Holds, field};

/// The file of the key, in the data directory.
const KEY: &str = "log.key";
/// Octets of the key: as many as of the hash (RFC 2104 §3).
const KEY_LENGTH: usize = 32;
/// Octets of the hash that are shown. 64 bits: of a million addresses no two have the same word.
const SHOWN: usize = 8;

/// How addresses are shown.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    how: How,
    /// Addresses that stay, in lower case.
    spared: HashSet<String>,
}

#[derive(Debug, Default)]
enum How {
    #[default]
    AsTheyAre,
    /// `*@contoso.com`
    WithoutLocalPart,
    /// `addr-1f3870be274f6c49`
    Hashed(hmac::Key),
}

impl Redactor {
    /// Without local parts.
    pub fn without_local_part(spared: impl IntoIterator<Item = String>) -> Self {
        Self { how: How::WithoutLocalPart, spared: spared.into_iter().collect() }
    }

    /// Hashed, with the key in the data directory, which is made if it is not there.
    ///
    /// # Errors
    /// If the key can neither be read nor made.
    pub fn hashed(data_dir: &Path, spared: impl IntoIterator<Item = String>) -> io::Result<Self> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key(data_dir)?);
        Ok(Self { how: How::Hashed(key), spared: spared.into_iter().collect() })
    }

    /// The value of a field as it may be shown.
    pub fn shown<'t>(&self, name: &str, value: &'t str) -> Cow<'t, str> {
        if let How::AsTheyAre = self.how {
            return Cow::Borrowed(value);
        }
        match field(name).map_or(Holds::Text, |field| field.holds) {
            Holds::Words => Cow::Borrowed(value),
            Holds::Address => self.whole(value),
            Holds::Text => self.text(value),
        }
    }

    /// One address, with brackets around it or without.
    pub fn whole<'t>(&self, value: &'t str) -> Cow<'t, str> {
        let address = value.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(value);
        match self.address(address) {
            Some(word) if address.len() < value.len() => Cow::Owned(format!("<{word}>")),
            Some(word) => Cow::Owned(word),
            None => Cow::Borrowed(value),
        }
    }

    /// Text in which there may be addresses.
    fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut out = String::new();
        let mut done = 0;
        for (at, _) in text.match_indices('@') {
            let Some((begin, end)) = around(text, done, at) else { continue };
            if let Some(word) = self.address(&text[begin..end]) {
                out.push_str(&text[done..begin]);
                out.push_str(&word);
                done = end;
            }
        }
        if done == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[done..]);
        Cow::Owned(out)
    }

    /// What stands for an address; none: it stays.
    fn address(&self, address: &str) -> Option<String> {
        let lower = address.to_lowercase();
        if address.is_empty() || self.spared.contains(&lower) {
            return None;
        }
        match &self.how {
            How::AsTheyAre => None,
            How::WithoutLocalPart => Some(address.rsplit_once('@').map_or("*".to_owned(), |(_, domain)| format!("*@{domain}"))),
            How::Hashed(key) => {
                let hash = hmac::sign(key, lower.as_bytes());
                let digits: String = hash.as_ref().iter().take(SHOWN).map(|octet| format!("{octet:02x}")).collect();
                Some(format!("addr-{digits}"))
            }
        }
    }
}

/// Where the address begins and ends whose `@` is there, not before `from`; none if it is none.
fn around(text: &str, from: usize, at: usize) -> Option<(usize, usize)> {
    let (before, after) = (&text[from..at], &text[at + 1..]);
    let mut begin = match before.strip_suffix('"') {
        // RFC 5321 §4.1.2: Quoted-string
        Some(quoted) => from + opening_quote(quoted)?,
        None => from + before.rfind(|c| !is_atext(c)).map_or(0, |last| last + before[last..].chars().next().map_or(1, char::len_utf8)),
    };
    let domain = if after.starts_with('[') {
        after.find(']')? + 1
    } else {
        let is_domain = |c: char| c.is_alphanumeric() || !c.is_ascii() || c == '-' || c == '.' || c == '_';
        let end = after.find(|c| !is_domain(c)).unwrap_or(after.len());
        after[..end].trim_end_matches(['.', '-']).len()
    };
    let end = at + 1 + domain;
    // 'you@contoso.com' in quotes is the same address as without.
    if text[begin..].starts_with('\'') && text[end..].starts_with('\'') {
        begin += 1;
    }
    (begin < at && domain > 0).then_some((begin, end))
}

/// Where the quote opens that is closed behind the text.
fn opening_quote(text: &str) -> Option<usize> {
    text.rmatch_indices('"').map(|(at, _)| at).find(|at| !text[..*at].ends_with('\\'))
}

/// RFC 5322 §3.2.3 with dots, and RFC 6531 §3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~.".contains(c)
}

/// The key of the data directory.
fn key(data_dir: &Path) -> io::Result<[u8; KEY_LENGTH]> {
    let path = data_dir.join(KEY);
    match fs::read_to_string(&path) {
        Ok(text) => read_key(text.trim()).ok_or_else(|| {
            let what = format!(
                "it should hold {} hexadecimal digits; without it the relay makes a new one, and words differ from then on",
                2 * KEY_LENGTH
            );
            io::Error::new(io::ErrorKind::InvalidData, what)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(data_dir, &path),
        Err(error) => Err(error),
    }
}

fn read_key(text: &str) -> Option<[u8; KEY_LENGTH]> {
    let mut key = [0; KEY_LENGTH];
    if text.len() != 2 * KEY_LENGTH || !text.is_ascii() {
        return None;
    }
    for (i, octet) in key.iter_mut().enumerate() {
        *octet = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(key)
}

/// Makes a key that is there as a whole, or not at all, whenever the power goes.
fn make_key(data_dir: &Path, path: &Path) -> io::Result<[u8; KEY_LENGTH]> {
    let mut key = [0; KEY_LENGTH];
    SystemRandom::new().fill(&mut key).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    // As the store makes it, if this comes first.
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
    let draft = data_dir.join(format!("{KEY}.part"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    let digits: String = key.iter().map(|octet| format!("{octet:02x}")).collect();
    writeln!(file, "{digits}")?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(data_dir)?.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn spared() -> [String; 1] {
        ["hve01@contoso.com".to_owned()]
    }

    #[test]
    fn addresses_are_found_wherever_they_stand() {
        let redactor = Redactor::without_local_part(spared());
        for (text, shown) in [
            ("you@contoso.com", "*@contoso.com"),
            ("550 5.1.1 <you@contoso.com>: no such user", "550 5.1.1 <*@contoso.com>: no such user"),
            ("of a@x.example, b@y.example.", "of *@x.example, *@y.example."),
            ("RCPT TO:<you+tag=z@contoso.com>", "RCPT TO:<*@contoso.com>"),
            ("says 'you@contoso.com' twice", "says '*@contoso.com' twice"),
            ("\"John \\\"the\\\" Doe\"@contoso.com is he", "*@contoso.com is he"),
            ("jörg@bücher.example", "*@bücher.example"),
            ("a@[192.0.2.1] and a@[IPv6:2001:db8::1]", "*@[192.0.2.1] and *@[IPv6:2001:db8::1]"),
            ("a@b@c.example", "*@b@c.example"),
            ("535 for hve01@contoso.com, HVE01@Contoso.com", "535 for hve01@contoso.com, HVE01@Contoso.com"),
            ("250 at 3 @ noon, x@ y, @z.example", "250 at 3 @ noon, x@ y, @z.example"),
            ("nothing", "nothing"),
            ("", ""),
        ] {
            assert_eq!(redactor.text(text), shown, "{text}");
        }
    }

    #[test]
    fn each_field_is_shown_as_the_table_says() {
        let redactor = Redactor::without_local_part(spared());
        for (name, value, shown) in [
            ("to", "you@contoso.com", "*@contoso.com"),
            ("from", "<you@contoso.com>", "<*@contoso.com>"),
            ("from", "<>", "<>"),
            ("to", "postmaster", "*"),
            ("account", "hve01@contoso.com", "hve01@contoso.com"),
            ("message_id", "<1@copier.contoso.com>", "<1@copier.contoso.com>"),
            ("queue_id", "01KAF7N3W5Z2Q", "01KAF7N3W5Z2Q"),
            ("reply", "550 <you@contoso.com>", "550 <*@contoso.com>"),
            ("message", "about you@contoso.com", "about *@contoso.com"),
            ("a_field_that_nobody_knows", "you@contoso.com", "*@contoso.com"),
        ] {
            assert_eq!(redactor.shown(name, value), shown, "{name}");
        }
        assert_eq!(Redactor::default().shown("to", "you@contoso.com"), "you@contoso.com");
    }

    #[test]
    fn the_word_for_an_address_stays_the_same_with_the_key() {
        let (here, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let data_dir = here.path().join("not/yet/there");
        let word = Redactor::hashed(&data_dir, spared()).expect("a key").whole("You@Contoso.com").into_owned();
        assert!(word.starts_with("addr-") && word.len() == 21 && !word.contains('@'), "{word}");
        let again = Redactor::hashed(&data_dir, spared()).expect("the key");
        assert_eq!(again.shown("to", "you@contoso.com"), word);
        assert_eq!(again.shown("reply", "550 <you@contoso.com>"), format!("550 <{word}>"));
        assert_eq!(again.shown("reply", "535 hve01@contoso.com"), "535 hve01@contoso.com");
        assert_ne!(Redactor::hashed(elsewhere.path(), spared()).expect("a key").whole("you@contoso.com"), word);
        let mode = fs::metadata(data_dir.join(KEY)).expect("the key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(data_dir.join(KEY), "short\n").expect("written");
        assert!(Redactor::hashed(&data_dir, spared()).expect_err("no key").to_string().contains("64 hexadecimal digits"));
    }
}
