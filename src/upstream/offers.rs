//! What a server offers in its reply to EHLO (RFC 5321 §4.1.1.1), and what of it is used.

use crate::smtp::Reply;

/// The extensions that matter here, as offered inside TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offers {
    /// The largest message in octets (RFC 1870); none if the extension is not offered, or is without a limit.
    pub size: Option<u64>,
    /// SIZE is offered, with a limit or without.
    pub declares_size: bool,
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 2034.
    pub enhanced_status_codes: bool,
    /// RFC 3207; before TLS only.
    pub starttls: bool,
    /// The SASL mechanisms (RFC 4954), in upper case.
    pub auth: Vec<String>,
}

/// An extension that is used where it is offered, and that can be done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extension {
    /// RFC 1870.
    Size,
    /// RFC 2920.
    Pipelining,
    /// RFC 6152.
    EightBitMime,
    /// RFC 6531.
    SmtpUtf8,
    /// RFC 3030.
    Chunking,
    /// RFC 3461.
    Dsn,
}

impl Extension {
    /// Every one, by its EHLO keyword.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("SIZE", Self::Size),
        ("PIPELINING", Self::Pipelining),
        ("8BITMIME", Self::EightBitMime),
        ("SMTPUTF8", Self::SmtpUtf8),
        ("CHUNKING", Self::Chunking),
        ("DSN", Self::Dsn),
    ];
}

impl Offers {
    /// As if the server had not offered these: something between it and us may not let pass what it offers.
    pub fn without(mut self, ignored: &[Extension]) -> Self {
        for extension in ignored {
            match extension {
                Extension::Size => (self.declares_size, self.size) = (false, None),
                Extension::Pipelining => self.pipelining = false,
                Extension::EightBitMime => self.eight_bit_mime = false,
                Extension::SmtpUtf8 => self.smtputf8 = false,
                Extension::Chunking => self.chunking = false,
                Extension::Dsn => self.dsn = false,
            }
        }
        self
    }

    /// Reads the reply; its first line is the server's name and greeting.
    pub fn read(reply: &Reply) -> Self {
        let mut offers = Self::default();
        for line in reply.lines.iter().skip(1) {
            // Old servers write `AUTH=LOGIN`; both forms may come, so that a mechanism may come twice.
            let line = line.to_ascii_uppercase();
            let mut words = line.split([' ', '=', '\t']).filter(|word| !word.is_empty());
            match words.next().unwrap_or("") {
                "SIZE" => {
                    offers.declares_size = true;
                    offers.size = words.next().and_then(|number| number.parse().ok()).filter(|limit| *limit > 0);
                }
                "PIPELINING" => offers.pipelining = true,
                "8BITMIME" => offers.eight_bit_mime = true,
                "SMTPUTF8" => offers.smtputf8 = true,
                "CHUNKING" => offers.chunking = true,
                "DSN" => offers.dsn = true,
                "ENHANCEDSTATUSCODES" => offers.enhanced_status_codes = true,
                "STARTTLS" => offers.starttls = true,
                "AUTH" => {
                    for mechanism in words {
                        if !offers.offers_auth(mechanism) {
                            offers.auth.push(mechanism.to_owned());
                        }
                    }
                }
                _ => {}
            }
        }
        offers
    }

    /// Whether a SASL mechanism (in upper case) is offered.
    pub fn offers_auth(&self, mechanism: &str) -> bool {
        self.auth.iter().any(|offered| offered == mechanism)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_servers_offer() {
        let hve = Offers::read(&Reply::plain(250, "ic3-transport-smtp-lob Hello [192.0.2.7]\nSIZE 10485760\nSTARTTLS"));
        assert_eq!(hve, Offers { size: Some(10_485_760), declares_size: true, starttls: true, ..Offers::default() });

        let office365 = "PIPELINING\n8bitmime\nSMTPUTF8\nCHUNKING\nDSN\nENHANCEDSTATUSCODES\nBINARYMIME\nSIZE 0\nAUTH LOGIN XOAUTH2\nAUTH=LOGIN PLAIN\n \n";
        let offers = Offers::read(&Reply::plain(250, format!("PIPELINING.example\n{office365}")));
        assert_eq!(offers.auth, ["LOGIN", "XOAUTH2", "PLAIN"]);
        assert!(offers.pipelining && offers.eight_bit_mime && offers.smtputf8 && offers.chunking && offers.dsn);
        assert!(offers.enhanced_status_codes && offers.declares_size && !offers.starttls);
        assert_eq!(offers.size, None);
    }

    #[test]
    fn what_is_ignored_is_as_if_it_were_not_offered() {
        for (keyword, extension) in Extension::WORDS {
            let all = Extension::WORDS.iter().map(|(word, _)| *word);
            let others = all.clone().filter(|word| word != keyword);
            let read = |words: Vec<&str>| Offers::read(&Reply::plain(250, format!("x\n{}", words.join("\n"))));
            assert_eq!(read(all.collect()).without(&[*extension]), read(others.collect()), "{keyword}");
        }
    }

    #[test]
    fn the_first_line_offers_nothing() {
        assert_eq!(Offers::read(&Reply::plain(250, "STARTTLS")), Offers::default());
    }
}
