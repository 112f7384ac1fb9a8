//! One command line, read (RFC 5321 §4.1.1).
//!
//! Reading is liberal where devices are careless and nothing can go wrong: lower case, blanks before and behind, `MAIL FROM: <a@b>`, no angle
//! brackets, a source route (dropped, RFC 5321 appendix C), HELO without a name or with one that is none, a parameter that nobody offered and
//! that asks for nothing but what happens anyway. It is strict where a guess could change what is meant: an open bracket, a parameter of those
//! in [`MEANT`]. What was taken although the grammar has it otherwise is told as [`Strays`]. Paths are returned as text, because what is
//! missing in them (a domain) is for the session to add; [`super::Mailbox`] decides whether they are addresses.

use std::borrow::Cow;

use super::dsn::{MessageDsn, NotADsnValue, RecipientDsn, parse_envid};

/// Parameters that are not offered, and that cannot be passed over: whoever writes one relies on it. When to send (RFC 4865, RFC 2852), over
/// what (RFC 8689), what may be done to the content (RFC 4141), and what belongs to the other command of the two (RFC 3461).
const MEANT: &[&str] = &["HOLDFOR", "HOLDUNTIL", "BY", "REQUIRETLS", "CONPERM", "RET", "ENVID", "NOTIFY", "ORCPT"];

/// A command that this side of SMTP knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// HELO and what stood behind it, if anything.
    Helo(Cow<'a, str>),
    /// EHLO and what stood behind it, if anything.
    Ehlo(Cow<'a, str>),
    /// MAIL FROM.
    Mail {
        /// The reverse-path without its brackets; empty for `<>`.
        path: &'a str,
        /// What stood behind it.
        parameters: MailParameters,
        /// What the grammar has otherwise.
        strays: Strays,
    },
    /// RCPT TO.
    Rcpt {
        /// The forward-path without its brackets.
        path: &'a str,
        /// What stood behind it (RFC 3461).
        dsn: RecipientDsn,
        /// What the grammar has otherwise.
        strays: Strays,
    },
    /// DATA
    Data,
    /// RSET
    Rset,
    /// NOOP
    Noop,
    /// VRFY
    Vrfy,
    /// HELP
    Help,
    /// QUIT
    Quit,
    /// STARTTLS (RFC 3207)
    StartTls,
    /// AUTH (RFC 4954).
    Auth {
        /// The name of the mechanism; empty if there was none.
        mechanism: &'a [u8],
        /// The first response, if it came with the command.
        initial: Option<&'a [u8]>,
    },
    /// A command of an extension that is not offered.
    NotOffered(NotOffered),
}

/// Commands that are known, so that the refusal can say what to do instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOffered {
    /// EXPN (RFC 5321 §4.1.1.7).
    Expn,
    /// BDAT (RFC 3030); octets of content follow it at once.
    Bdat,
}

/// What MAIL or RCPT has otherwise than the grammar, and what is taken all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strays {
    /// The path is not written as `:<path>`: blanks before it or in it, no brackets, a source route.
    pub path: bool,
    /// There are parameters that were not offered. They were passed over.
    pub parameters: bool,
}

/// The parameters of MAIL that are offered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailParameters {
    /// SIZE (RFC 1870): how many octets the client is going to send, as far as it knows. A number beyond 64 bits is the largest of them.
    pub size: Option<u64>,
    /// BODY=8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET and ENVID (RFC 3461).
    pub dsn: MessageDsn,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandError<'a> {
    /// No such command.
    Unknown,
    /// It begins a request of HTTP: somebody makes a browser or a proxy talk to us.
    Http,
    /// Octets beyond ASCII that are not UTF-8, in an address or a parameter.
    NotUtf8,
    /// Not `MAIL FROM:<address>`.
    NotAMailCommand,
    /// Not `RCPT TO:<address>`.
    NotARcptCommand,
    /// DATA takes no argument.
    ArgumentOfData,
    /// A parameter that is not offered and cannot be passed over, or something that is no parameter.
    UnknownParameter(&'a str),
    /// A parameter that is offered, with a value that it cannot have.
    BadParameter(&'a str),
    /// A parameter that may be said once and was said again (RFC 3461 §4).
    RepeatedParameter(&'a str),
}

impl<'a> Command<'a> {
    /// Reads a line without its line end.
    ///
    /// # Errors
    /// [`CommandError`] says what is wrong with it.
    pub fn parse(line: &'a [u8]) -> Result<Self, CommandError<'a>> {
        let line = line.trim_ascii();
        let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        let (verb, argument) = (&line[..end], line[end..].trim_ascii_start());
        let mut upper = [0; 8];
        let upper = upper.get_mut(..end).ok_or(CommandError::Unknown)?;
        upper.copy_from_slice(verb);
        upper.make_ascii_uppercase();
        Ok(match &*upper {
            b"HELO" => Self::Helo(String::from_utf8_lossy(argument)),
            b"EHLO" => Self::Ehlo(String::from_utf8_lossy(argument)),
            b"MAIL" => {
                let (path, rest, mut strays) = path(argument, "FROM", CommandError::NotAMailCommand)?;
                let parameters = MailParameters::parse(rest, &mut strays)?;
                Self::Mail { path, parameters, strays }
            }
            b"RCPT" => {
                let (path, rest, mut strays) = path(argument, "TO", CommandError::NotARcptCommand)?;
                let dsn = RecipientDsn::parse(rest, &mut strays)?;
                Self::Rcpt { path, dsn, strays }
            }
            b"DATA" if argument.is_empty() => Self::Data,
            b"DATA" => return Err(CommandError::ArgumentOfData),
            b"RSET" => Self::Rset,
            b"NOOP" => Self::Noop,
            b"VRFY" => Self::Vrfy,
            b"HELP" => Self::Help,
            b"QUIT" => Self::Quit,
            b"EXPN" => Self::NotOffered(NotOffered::Expn),
            b"STARTTLS" => Self::StartTls,
            b"AUTH" => {
                let mut words = argument.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
                Self::Auth { mechanism: words.next().unwrap_or_default(), initial: words.next() }
            }
            b"BDAT" => Self::NotOffered(NotOffered::Bdat),
            b"GET" | b"HEAD" | b"POST" | b"PUT" | b"DELETE" | b"PATCH" | b"OPTIONS" | b"CONNECT" | b"TRACE" => {
                return Err(CommandError::Http);
            }
            _ => return Err(CommandError::Unknown),
        })
    }
}

impl Strays {
    /// Passes over a parameter that is not offered, if that does no harm.
    fn pass_over<'a>(&mut self, parameter: &'a str) -> Result<(), CommandError<'a>> {
        let (keyword, _) = keyword_and_value(parameter);
        // RFC 5321 §4.1.2: esmtp-keyword. What is none may be the rest of an address.
        let is_keyword = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
            && keyword.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
        if !is_keyword || MEANT.iter().any(|meant| keyword.eq_ignore_ascii_case(meant)) {
            return Err(CommandError::UnknownParameter(parameter));
        }
        self.parameters = true;
        Ok(())
    }
}

impl MailParameters {
    fn parse<'a>(text: &'a str, strays: &mut Strays) -> Result<Self, CommandError<'a>> {
        let mut parameters = Self::default();
        for parameter in text.split_ascii_whitespace() {
            let (keyword, value) = keyword_and_value(parameter);
            let is = |name: &str| keyword.eq_ignore_ascii_case(name);
            match value {
                _ if is("RET") => once(&mut parameters.dsn.ret, parameter, str::parse)?,
                _ if is("ENVID") => once(&mut parameters.dsn.envid, parameter, parse_envid)?,
                Some(value) if is("SIZE") => parameters.size = Some(octets(value).ok_or(CommandError::BadParameter(parameter))?),
                Some(value) if is("BODY") && value.eq_ignore_ascii_case("8BITMIME") => parameters.eight_bit = true,
                Some(value) if is("BODY") && value.eq_ignore_ascii_case("7BIT") => parameters.eight_bit = false,
                None if is("SMTPUTF8") => parameters.smtputf8 = true,
                // RFC 4954 §5: who first submitted the message, if somebody vouches for it. Nobody asks here, so that it may say anything.
                Some(_) if is("AUTH") => {}
                _ if is("SIZE") || is("BODY") || is("SMTPUTF8") => return Err(CommandError::BadParameter(parameter)),
                _ => strays.pass_over(parameter)?,
            }
        }
        Ok(parameters)
    }
}

impl RecipientDsn {
    fn parse<'a>(text: &'a str, strays: &mut Strays) -> Result<Self, CommandError<'a>> {
        let mut dsn = Self::default();
        for parameter in text.split_ascii_whitespace() {
            let (keyword, _) = keyword_and_value(parameter);
            match keyword {
                _ if keyword.eq_ignore_ascii_case("NOTIFY") => once(&mut dsn.notify, parameter, str::parse)?,
                _ if keyword.eq_ignore_ascii_case("ORCPT") => once(&mut dsn.orcpt, parameter, str::parse)?,
                _ => strays.pass_over(parameter)?,
            }
        }
        Ok(dsn)
    }
}

fn keyword_and_value(parameter: &str) -> (&str, Option<&str>) {
    parameter.split_once('=').map_or((parameter, None), |(keyword, value)| (keyword, Some(value)))
}

/// Reads the value of a parameter that may be said once.
fn once<'a, T>(slot: &mut Option<T>, parameter: &'a str, read: impl Fn(&str) -> Result<T, NotADsnValue>) -> Result<(), CommandError<'a>> {
    let (_, value) = keyword_and_value(parameter);
    let value = value.and_then(|value| read(value).ok()).ok_or(CommandError::BadParameter(parameter))?;
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(CommandError::RepeatedParameter(parameter)),
    }
}

fn octets(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Reads `FROM:<path> rest`: the path without brackets and source route, and the rest.
fn path<'a>(argument: &'a [u8], keyword: &str, wrong: CommandError<'a>) -> Result<(&'a str, &'a str, Strays), CommandError<'a>> {
    let text = std::str::from_utf8(argument).map_err(|_| CommandError::NotUtf8)?;
    let (head, tail) = text.split_at_checked(keyword.len()).ok_or(wrong)?;
    let behind = if head.eq_ignore_ascii_case(keyword) { tail.trim_ascii_start().strip_prefix(':') } else { None };
    let text = behind.ok_or(wrong)?.trim_ascii_start();
    let (written, rest) = match text.strip_prefix('<') {
        Some(inside) => {
            let end = outside_quotes(inside, |octet| octet == b'>').ok_or(wrong)?;
            (&inside[..end], &inside[end + 1..])
        }
        None if text.is_empty() => return Err(wrong),
        None => text.split_at(outside_quotes(text, |octet| octet.is_ascii_whitespace()).unwrap_or(text.len())),
    };
    let path = without_source_route(written.trim_ascii());
    let is_strict = tail.starts_with(":<") && path == written;
    Ok((path, rest, Strays { path: !is_strict, parameters: false }))
}

/// The position of the first octet that is wanted and not in a quoted string (RFC 5321 §4.1.2).
fn outside_quotes(text: &str, wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().position(|octet| {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => return !quoted && wanted(octet),
        }
        false
    })
}

/// `@one,@two:user@domain` is `user@domain`.
fn without_source_route(path: &str) -> &str {
    if path.starts_with('@') { path.split_once(':').map_or(path, |(_, mailbox)| mailbox.trim_ascii_start()) } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::{Notify, Orcpt, Ret};

    const STRICT: Strays = Strays { path: false, parameters: false };
    const LOOSE: Strays = Strays { path: true, parameters: false };

    #[test]
    fn takes_the_paths_that_devices_write_and_tells_which_stray() {
        for (line, path, strays) in [
            ("MAIL FROM:<a@b>", "a@b", STRICT),
            ("mail from:<a@b>", "a@b", STRICT),
            ("MAIL FROM: <a@b>", "a@b", LOOSE),
            ("MAIL FROM : < a@b > ", "a@b", LOOSE),
            ("  MAIL\tFROM:<a@b>\t", "a@b", STRICT),
            ("MAIL FROM:a@b", "a@b", LOOSE),
            ("MAIL FROM: a@b  ", "a@b", LOOSE),
            ("MAIL FROM:<>", "", STRICT),
            ("MAIL FROM: < >", "", LOOSE),
            ("MAIL FROM:<scanner>", "scanner", STRICT),
            ("MAIL FROM:<@one,@two:a@b>", "a@b", LOOSE),
            ("MAIL FROM:<@a>", "@a", STRICT),
            ("MAIL FROM:<\"a> b\"@c>", "\"a> b\"@c", STRICT),
            ("MAIL FROM:\"a b\"@c", "\"a b\"@c", LOOSE),
            ("MAIL FROM:<\"a\\\">\"@c>", "\"a\\\">\"@c", STRICT),
            ("MAIL FROM:<jürgen@müller.example>", "jürgen@müller.example", STRICT),
        ] {
            let parameters = MailParameters::default();
            assert_eq!(Command::parse(line.as_bytes()), Ok(Command::Mail { path, parameters, strays }), "{line:?}");
        }
        assert_eq!(Command::parse(b"rcpt to: <@x:a@b> "), Ok(Command::Rcpt { path: "a@b", dsn: RecipientDsn::default(), strays: LOOSE }));
    }

    #[test]
    fn reads_the_parameters_of_mail() {
        let all = MailParameters { size: Some(100), eight_bit: true, smtputf8: true, dsn: MessageDsn::default() };
        let dsn = MessageDsn { ret: Some(Ret::Headers), envid: Some("QQ 1".to_owned()) };
        for (line, parameters) in [
            ("MAIL FROM:<a@b> SIZE=100 BODY=8BITMIME SMTPUTF8", all.clone()),
            ("MAIL FROM:<a@b>size=100  body=8bitmime smtputf8 ", all),
            ("MAIL FROM:<a@b> BODY=7BIT", MailParameters::default()),
            ("MAIL FROM:<a@b> ret=hdrs envid=QQ+201 SIZE=5", MailParameters { size: Some(5), dsn, ..MailParameters::default() }),
            ("MAIL FROM:<a@b> SIZE=99999999999999999999999", MailParameters { size: Some(u64::MAX), ..MailParameters::default() }),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Ok(Command::Mail { path: "a@b", parameters, strays: STRICT }), "{line:?}");
        }
    }

    #[test]
    fn passes_over_parameters_that_ask_for_nothing_else() {
        let strays = Strays { path: false, parameters: true };
        for line in ["MAIL FROM:<a@b> FOO", "MAIL FROM:<a@b> X-FOO=bar AUTH=<> foo", "MAIL FROM:<a@b> MT-PRIORITY=3"] {
            let parameters = MailParameters::default();
            assert_eq!(Command::parse(line.as_bytes()), Ok(Command::Mail { path: "a@b", parameters, strays }), "{line:?}");
        }
        let parameters = MailParameters { size: Some(5), ..MailParameters::default() };
        assert_eq!(Command::parse(b"MAIL FROM:<a@b> FOO SIZE=5"), Ok(Command::Mail { path: "a@b", parameters, strays }));
        assert_eq!(Command::parse(b"RCPT TO:<a@b> SIZE=5"), Ok(Command::Rcpt { path: "a@b", dsn: RecipientDsn::default(), strays }));
    }

    #[test]
    fn reads_the_parameters_of_rcpt() {
        let orcpt = Some(Orcpt { address_type: "rfc822".to_owned(), address: "x+y@b".to_owned() });
        let failure = Some(Notify { failure: true, ..Notify::NEVER });
        for (line, dsn) in [
            ("RCPT TO:<a@b>", RecipientDsn::default()),
            ("RCPT TO:<a@b> NOTIFY=NEVER", RecipientDsn { notify: Some(Notify::NEVER), orcpt: None }),
            ("RCPT TO:<a@b> orcpt=rfc822;x+2By@b  notify=failure", RecipientDsn { notify: failure, orcpt }),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Ok(Command::Rcpt { path: "a@b", dsn, strays: STRICT }), "{line:?}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        use CommandError::*;
        for (line, why) in [
            ("", Unknown),
            ("FOO", Unknown),
            ("MAILFROM:<a@b>", Unknown),
            ("X-VERY-LONG-VERB", Unknown),
            ("\0\u{1}", Unknown),
            ("GET / HTTP/1.1", Http),
            ("POST /x HTTP/1.1", Http),
            ("MAIL", NotAMailCommand),
            ("MAIL FROM", NotAMailCommand),
            ("MAIL FROM:", NotAMailCommand),
            ("MAIL TO:<a@b>", NotAMailCommand),
            ("MAIL FROM:<a@b", NotAMailCommand),
            ("MAIL FROM:<\"a@b>", NotAMailCommand),
            ("MAIL FR\u{e9}:<a>", NotAMailCommand),
            ("RCPT FROM:<a@b>", NotARcptCommand),
            ("DATA now", ArgumentOfData),
            ("RCPT TO:<a@b> RET=FULL", UnknownParameter("RET=FULL")),
            ("MAIL FROM:<a@b> NOTIFY=NEVER", UnknownParameter("NOTIFY=NEVER")),
            ("MAIL FROM:<a@b> holdfor=60", UnknownParameter("holdfor=60")),
            ("MAIL FROM:<a@b> FOO BY=120;R", UnknownParameter("BY=120;R")),
            ("MAIL FROM:<a@b> REQUIRETLS", UnknownParameter("REQUIRETLS")),
            ("MAIL FROM:<a@b> <c@d>", UnknownParameter("<c@d>")),
            ("MAIL FROM:a b@c", UnknownParameter("b@c")),
            ("MAIL FROM:<a@b>> SIZE=5", UnknownParameter(">")),
            ("MAIL FROM:<a@b> =5", UnknownParameter("=5")),
            ("RCPT TO:<a@b>,<c@d>", UnknownParameter(",<c@d>")),
            ("RCPT TO:<a@b> HOLDFOR=60", UnknownParameter("HOLDFOR=60")),
            ("MAIL FROM:<a@b> RET", BadParameter("RET")),
            ("MAIL FROM:<a@b> RET=ALL", BadParameter("RET=ALL")),
            ("MAIL FROM:<a@b> ENVID=a+0Ab", BadParameter("ENVID=a+0Ab")),
            ("MAIL FROM:<a@b> RET=FULL RET=FULL", RepeatedParameter("RET=FULL")),
            ("RCPT TO:<a@b> NOTIFY=NEVER,DELAY", BadParameter("NOTIFY=NEVER,DELAY")),
            ("RCPT TO:<a@b> ORCPT=a@b", BadParameter("ORCPT=a@b")),
            ("RCPT TO:<a@b> NOTIFY=DELAY notify=never", RepeatedParameter("notify=never")),
            ("MAIL FROM:<a@b> SIZE", BadParameter("SIZE")),
            ("MAIL FROM:<a@b> SIZE=", BadParameter("SIZE=")),
            ("MAIL FROM:<a@b> SIZE=-1", BadParameter("SIZE=-1")),
            ("MAIL FROM:<a@b> BODY=BINARYMIME", BadParameter("BODY=BINARYMIME")),
            ("MAIL FROM:<a@b> SMTPUTF8=1", BadParameter("SMTPUTF8=1")),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Err(why), "{line:?}");
        }
        assert_eq!(Command::parse(b"MAIL FROM:<j\xfcrgen@b>"), Err(NotUtf8));
    }

    #[test]
    fn takes_any_helo() {
        for (line, name) in [
            (&b"HELO"[..], ""),
            (b"helo ", ""),
            (b"HELO mfp_3f", "mfp_3f"),
            (b"HELO 10.0.0.7 ", "10.0.0.7"),
            (b"HELO B\xfcro", "B\u{fffd}ro"),
        ] {
            assert_eq!(Command::parse(line), Ok(Command::Helo(name.into())));
        }
        assert_eq!(Command::parse(b"EHLO [192.0.2.7]"), Ok(Command::Ehlo("[192.0.2.7]".into())));
    }

    #[test]
    fn knows_the_rest() {
        for (line, command) in [
            ("DATA ", Command::Data),
            ("RSET", Command::Rset),
            ("noop anything", Command::Noop),
            ("VRFY a", Command::Vrfy),
            ("HELP MAIL", Command::Help),
            ("QUIT", Command::Quit),
            ("EXPN list", Command::NotOffered(NotOffered::Expn)),
            ("STARTTLS", Command::StartTls),
            ("AUTH", Command::Auth { mechanism: b"", initial: None }),
            ("auth  login", Command::Auth { mechanism: b"login", initial: None }),
            ("AUTH PLAIN =", Command::Auth { mechanism: b"PLAIN", initial: Some(b"=") }),
            ("BDAT 86 LAST", Command::NotOffered(NotOffered::Bdat)),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Ok(command), "{line:?}");
        }
    }
}
