//! Replies: a code, an enhanced status, and lines of text (RFC 5321 §4.2, RFC 2034, RFC 3463).
//!
//! The same type serves both ends: what the session answers to a client, and what an upstream server answered to us.

use std::fmt;
use std::str::FromStr;

/// An enhanced mail system status code, `class.subject.detail` (RFC 3463 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnhancedStatus {
    /// 2 (success), 4 (persistent transient failure) or 5 (permanent failure).
    pub class: u8,
    /// What the status is about, 0 to 999.
    pub subject: u16,
    /// The status itself, 0 to 999.
    pub detail: u16,
}

impl EnhancedStatus {
    /// The three parts as they are written: `EnhancedStatus::new(5, 7, 1)` is `5.7.1`.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// The text is not an enhanced status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code")]
pub struct NotAStatus;

impl FromStr for EnhancedStatus {
    type Err = NotAStatus;

    fn from_str(text: &str) -> Result<Self, NotAStatus> {
        let mut parts = text.split('.');
        let mut number = |digits: usize| {
            let part = parts.next().ok_or(NotAStatus)?;
            let plain = !part.is_empty() && part.len() <= digits && part.bytes().all(|b| b.is_ascii_digit());
            if plain { part.parse::<u16>().map_err(|_| NotAStatus) } else { Err(NotAStatus) }
        };
        let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
        let known_class = matches!(class, 2 | 4 | 5);
        if known_class && parts.next().is_none() { Ok(Self { class: class as u8, subject, detail }) } else { Err(NotAStatus) }
    }
}

/// A reply of one or more lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The reply code, 200 to 599.
    pub code: u16,
    /// The enhanced status, if the reply has one.
    pub enhanced: Option<EnhancedStatus>,
    /// The text of each line, without code and enhanced status; never empty, never with CR or LF.
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply with an enhanced status. A text of several lines, separated by `\n`, becomes a multi-line reply.
    pub fn new(code: u16, status: EnhancedStatus, text: impl AsRef<str>) -> Self {
        Self { code, enhanced: Some(status), lines: split(text.as_ref()) }
    }

    /// A reply without an enhanced status: the greeting, the answers to HELO and EHLO, and 354.
    pub fn plain(code: u16, text: impl AsRef<str>) -> Self {
        Self { code, enhanced: None, lines: split(text.as_ref()) }
    }

    /// Whether the code is 2yz.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// Whether the code is 4yz.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// Whether the code is 5yz.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// The text of all lines, joined by blanks.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// Appends the reply as it goes over the wire: `250-2.1.0 …\r\n250 2.1.0 …\r\n`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        for (i, line) in self.lines.iter().enumerate() {
            let mark = if i + 1 == self.lines.len() { ' ' } else { '-' };
            // Writing to a Vec cannot fail.
            let _ = match self.enhanced {
                Some(status) => write!(out, "{}{mark}{status} {line}\r\n", self.code),
                None => write!(out, "{}{mark}{line}\r\n", self.code),
            };
        }
    }

    /// Reads the lines of one received reply, each without its line end; `None` if they do not form one.
    /// An enhanced status counts only if its class agrees with the code's first digit and is cut off from each line that repeats it.
    pub fn parse<'a>(received: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut reply = Self { code: 0, enhanced: None, lines: Vec::new() };
        let mut finished = false;
        for line in received {
            let code: u16 = line.get(..3)?.parse().ok()?;
            if finished || !(200..600).contains(&code) || (reply.code != 0 && reply.code != code) {
                return None;
            }
            reply.code = code;
            finished = match line.as_bytes().get(3) {
                None | Some(b' ') => true,
                Some(b'-') => false,
                Some(_) => return None,
            };
            let mut text = line.get(4..).unwrap_or("");
            let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
            if let Ok(status) = first.parse::<EnhancedStatus>()
                && u16::from(status.class) == code / 100
                && reply.enhanced.is_none_or(|known| known == status)
            {
                reply.enhanced = Some(status);
                text = rest;
            }
            reply.lines.push(text.to_owned());
        }
        finished.then_some(reply)
    }
}

/// On one line, as a log or a notice shows it: `550 5.1.10 Recipient not found`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.enhanced {
            write!(f, " {status}")?;
        }
        for line in self.lines.iter().filter(|line| !line.is_empty()) {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}

fn split(text: &str) -> Vec<String> {
    text.split('\n').map(|line| line.replace('\r', "")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_the_same_reply() {
        let reply = Reply::new(550, EnhancedStatus::new(5, 7, 1), "first\nsecond");
        let mut wire = Vec::new();
        reply.write_to(&mut wire);
        assert_eq!(wire, b"550-5.7.1 first\r\n550 5.7.1 second\r\n");
        let text = String::from_utf8(wire).expect("ASCII");
        assert_eq!(Reply::parse(text.lines()), Some(reply));
    }

    #[test]
    fn reads_what_servers_send() {
        let reply = Reply::parse(["250 4.5.1 odd"]).expect("a reply");
        assert_eq!((reply.enhanced, reply.text().as_str()), (None, "4.5.1 odd"));
        assert_eq!(Reply::parse(["250"]).map(|r| r.code), Some(250));
        assert_eq!(Reply::parse(["421 4.3.2 bye"]).map(|r| r.to_string()), Some("421 4.3.2 bye".to_owned()));
        for bad in [
            vec![],
            vec!["250-open"],
            vec!["250 a", "250 b"],
            vec!["250-a", "550 b"],
            vec!["2"],
            vec!["250xa"],
            vec!["999 a"],
            vec!["é50 a"],
        ] {
            assert_eq!(Reply::parse(bad.iter().copied()), None, "{bad:?}");
        }
    }

    #[test]
    fn knows_a_status_from_a_number() {
        assert_eq!("5.7.139".parse(), Ok(EnhancedStatus::new(5, 7, 139)));
        for bad in ["", "5", "5.7", "5.7.1.1", "3.0.0", "5.7.1000", "5..1", "+5.1.1", "5.7.1a"] {
            assert_eq!(bad.parse::<EnhancedStatus>(), Err(NotAStatus), "{bad}");
        }
    }
}
