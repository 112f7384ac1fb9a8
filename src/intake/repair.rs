//! The repair of what devices leave out: a content that arrives in pieces gets its Received field, and Date, Message-ID and From if it has none.
//!
//! Nothing comes out until the header is complete; then the Received field, what was missing, the header as it came, an empty line, and from
//! there on every piece as it is. A header field keeps its octets, and the body keeps all of its own. Two exceptions: a Date, Message-ID or From
//! without a value is as good as none and is left out; and where the header ends at a line that is no field, the empty line that belongs
//! there is put in, so that every reader behind us sees the header end where we do.
//!
//! A missing From becomes the reverse-path's mailbox; with the null path it becomes `postmaster@` our host name, as RFC 5322 §3.6 demands
//! one. A message is held only up to its header's limit, whatever its size. Input is in canonical form (CRLF line ends).

use memchr::{memchr, memchr_iter};

use super::{Habit, HabitSet, priority};
use crate::mail::{AUTHORS, Header, Line, Priority, Trace, authors, domain, growth_bound, words};
use crate::smtp::{Mailbox, ReversePath};

/// Received fields from which on a message is taken to go round in circles (RFC 5321 §6.3 asks for a generous number; real paths have under 15).
const HOPS: usize = 50;
/// How much is taken into the header before its end is looked for again.
const STEP: usize = 4_096;
/// Octets of a line without its line end, at most (RFC 5322 §2.1.1).
const LINE: usize = 998;
/// Characters of a subject that are kept.
const SUBJECT: usize = 200;
/// Characters of a Message-ID that are kept.
const MESSAGE_ID: usize = 250;

/// Why a message cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// The header is larger than its limit.
    #[error("the header is too large")]
    HeaderTooLarge,
    /// More than 50 Received fields.
    #[error("the message has passed through more than {HOPS} servers and is taken to go round in circles")]
    Looping,
}

/// What is known of a content when all of it has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The first mailbox of the From that goes into the store.
    pub author: Option<Mailbox>,
    /// The domains of all authors in all From fields, in lower case, each once; empty for an author without an address, or of whom there may be
    /// one because there are more than can be read.
    pub author_domains: Vec<String>,
    /// What it has otherwise than the standards.
    pub habits: HabitSet,
    /// The Subject, decoded, on one line, cut to 200 characters.
    pub subject: String,
    /// The Message-ID with its brackets.
    pub message_id: String,
    /// There are octets beyond ASCII, in the header or in the body.
    pub eight_bit: bool,
    /// Octets that came out.
    pub size: u64,
    /// The most that [`crate::mail::rewrite`] can add to them, for any sender.
    pub growth: u64,
    /// Received fields that were there before ours.
    pub received_count: usize,
    /// The priority that the header asks for, by its fields Priority, X-Priority, Importance or Precedence. Whether that counts is for
    /// [`Policy::priority`](super::Policy::priority) to say.
    pub asked_priority: Option<Priority>,
}

/// The repair of one content.
#[derive(Debug)]
pub struct Repair {
    trace: Trace,
    reverse_path: ReversePath,
    header_limit: usize,
    /// The header so far; empty once it is complete.
    held: Vec<u8>,
    /// Where the last line begun in `held` begins, and what it is once that can be told.
    line: usize,
    kind: Option<Line>,
    state: Result<State, RepairError>,
    /// Octets of the line that is coming in.
    line_length: usize,
    facts: Facts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Body,
}

impl Repair {
    /// `header_limit`: octets of the header as it comes.
    pub fn new(trace: Trace, reverse_path: &ReversePath, header_limit: usize) -> Self {
        let reverse_path = reverse_path.clone();
        let (held, state, facts) = (Vec::new(), Ok(State::Header), Facts::default());
        Self { trace, reverse_path, header_limit, held, line: 0, kind: None, state, line_length: 0, facts }
    }

    /// Takes a piece of the content and appends what goes into the store.
    ///
    /// # Errors
    /// If the message cannot be taken. Nothing more comes out then, and every later call says the same.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) -> Result<(), RepairError> {
        self.state?;
        self.observe(octets);
        let mut rest = octets;
        while self.state? == State::Header && !rest.is_empty() {
            let step = rest.len().min(STEP);
            let (piece, behind) = rest.split_at(memchr(b'\n', &rest[..step]).map_or(step, |end| end + 1));
            self.held.extend_from_slice(piece);
            rest = behind;
            self.look_at_line(out);
        }
        self.state?;
        self.pass(rest, out);
        Ok(())
    }

    /// The content has ended. An empty one is a message too.
    ///
    /// # Errors
    /// As of [`Self::push`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Facts, RepairError> {
        if self.state? == State::Header {
            let mut end = self.line;
            if self.kind.is_some() {
                self.held.extend_from_slice(b"\r\n");
                end = self.held.len();
            }
            self.end_header(end, end, out);
            self.state?;
        }
        Ok(self.facts)
    }

    /// What can be told of the content wherever it is cut, header or body.
    fn observe(&mut self, octets: &[u8]) {
        if memchr(0, octets).is_some() {
            self.facts.habits.insert(Habit::Nul);
        }
        let mut start = 0;
        for end in memchr_iter(b'\n', octets).chain([octets.len()]) {
            self.line_length += end - start;
            // The line end is CR LF; a line that goes on may yet end in one more octet, its CR.
            if self.line_length > LINE + 1 {
                self.facts.habits.insert(Habit::LongLines);
            }
            if end < octets.len() {
                (self.line_length, start) = (0, end + 1);
            }
        }
    }

    fn look_at_line(&mut self, out: &mut Vec<u8>) {
        let line = &self.held[self.line..];
        let kind = self.kind.unwrap_or_else(|| Line::of(line));
        match kind {
            Line::Undecided => {}
            Line::Blank => self.end_header(self.line, self.held.len(), out),
            Line::Other => self.end_header(self.line, self.line, out),
            Line::Continuation if self.line == 0 => self.end_header(0, 0, out),
            Line::Field | Line::Continuation if self.held.len() > self.header_limit => {
                self.held = Vec::new();
                self.state = Err(RepairError::HeaderTooLarge);
            }
            Line::Field | Line::Continuation if line.ends_with(b"\n") => {
                self.line = self.held.len();
                self.kind = None;
            }
            Line::Field | Line::Continuation => self.kind = Some(kind),
        }
    }

    /// The header is what is held up to `end`; the body begins at `body`.
    fn end_header(&mut self, end: usize, body: usize, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        self.state = self.write_header(Header::scan(&held[..end]), out).map(|()| State::Body);
        if self.state.is_ok() {
            self.pass(&held[body..], out);
        }
    }

    fn write_header(&mut self, header: Header<'_>, out: &mut Vec<u8>) -> Result<(), RepairError> {
        self.facts.received_count = header.named("Received").count();
        if self.facts.received_count > HOPS {
            return Err(RepairError::Looping);
        }
        self.facts.asked_priority = priority::asked(header);
        let first = |name| header.named(name).find(|field| !field.is_blank()).map(|field| field.value());
        let subject = first("Subject").map(words::unfolded).unwrap_or_default();
        self.facts.subject = words::one_line(&words::decoded(&subject), SUBJECT);

        let start = out.len();
        self.trace.write_to(out);
        if first("Date").is_none() {
            self.facts.habits.insert(Habit::NoDate);
            out.extend_from_slice(format!("Date: {}\r\n", self.trace.at.rfc5322()).as_bytes());
        }
        self.facts.message_id = match first("Message-ID") {
            Some(value) => bracketed(value),
            None => {
                self.facts.habits.insert(Habit::NoMessageId);
                let ours = self.trace.message_id();
                out.extend_from_slice(format!("Message-ID: {ours}\r\n").as_bytes());
                ours
            }
        };
        match first("From") {
            Some(value) => self.facts.author = authors(value).list.into_iter().find_map(|author| author.address),
            None => {
                let postmaster = || format!("postmaster@{}", domain(&self.trace.hostname));
                let sender = self.reverse_path.mailbox().map_or_else(postmaster, Mailbox::to_string);
                out.extend_from_slice(format!("From: <{sender}>\r\n").as_bytes());
                self.facts.author = sender.parse().ok();
                self.facts.author_domains = self.facts.author.iter().map(domain_of).collect();
                self.facts.habits.insert(Habit::NoFrom);
            }
        }
        let froms: Vec<_> = header.named("From").filter(|field| !field.is_blank()).collect();
        if froms.len() > 1 {
            self.facts.habits.insert(Habit::SeveralFrom);
        }
        froms.iter().for_each(|field| self.note_authors(field.value()));
        for field in header.fields() {
            let empty = field.is_blank() && ["Date", "Message-ID", "From"].iter().any(|name| field.is(name));
            if !empty {
                out.extend_from_slice(field.whole());
            }
        }
        out.extend_from_slice(b"\r\n");

        let written = &out[start..];
        self.facts.growth = growth_bound(written, &self.reverse_path);
        self.facts.eight_bit |= !written.is_ascii();
        self.facts.size += written.len() as u64;
        Ok(())
    }

    /// Of very many authors the first ones are read, and that there are more.
    fn note_authors(&mut self, from: &[u8]) {
        let list = authors(from).list;
        let unread = if list.len() >= AUTHORS { Some(String::new()) } else { None };
        let domains = &mut self.facts.author_domains;
        for domain in list.iter().map(|author| author.address.as_ref().map(domain_of).unwrap_or_default()).chain(unread) {
            let domain = if domains.len() < AUTHORS { domain } else { String::new() };
            if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
    }

    fn pass(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        self.facts.eight_bit = self.facts.eight_bit || !octets.is_ascii();
        self.facts.size += octets.len() as u64;
        out.extend_from_slice(octets);
    }
}

/// A mailbox's domain as it is compared.
fn domain_of(mailbox: &Mailbox) -> String {
    let domain = mailbox.domain();
    domain.strip_suffix('.').unwrap_or(domain).to_lowercase()
}

/// The Message-ID as it is shown and referred to: from its bracket to its bracket, if it has them.
fn bracketed(value: &[u8]) -> String {
    let text = words::one_line(&words::unfolded(value), usize::MAX);
    let from = text.find('<').unwrap_or(0);
    let end = text[from..].find('>').map_or(text.len(), |end| from + end + 1);
    words::one_line(&text[from..end], MESSAGE_ID)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::mail::{AccountName, ClientName, DisplayName, Kind, QueueId, Rewrite, Signatures, header_end, rewrite};

    const RECEIVED: &str = "Received: from printer ([10.20.0.9])\r\n\tby relay.contoso.com (hve-relay) with SMTP id 000000000002D;\r\n\
                            \tSat, 21 Nov 2026 18:31:21 +0000\r\n";
    const DATE: &str = "Date: Sat, 21 Nov 2026 18:31:21 +0000\r\n";
    const MESSAGE_ID: &str = "Message-ID: <000000000002D@relay.contoso.com>\r\n";
    const FROM: &str = "From: <scan@contoso.com>\r\n";

    fn repair(path: &str, limit: usize) -> Repair {
        let trace = Trace {
            hostname: "relay.contoso.com".to_owned(),
            helo: Some("printer".to_owned()),
            peer: Some("10.20.0.9".parse().expect("an address")),
            protocol: "SMTP",
            id: QueueId::from_number(77).expect("positive"),
            at: Timestamp::from_millis(1_795_285_881_042),
            only_recipient: None,
        };
        let path = if path.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(path.parse().expect("a mailbox")) };
        Repair::new(trace, &path, limit)
    }

    fn repaired_in(pieces: &[&[u8]], path: &str) -> Result<(Vec<u8>, Facts), RepairError> {
        let mut repair = repair(path, 100_000);
        let mut out = Vec::new();
        for piece in pieces {
            repair.push(piece, &mut out)?;
        }
        let facts = repair.finish(&mut out)?;
        assert_eq!(facts.size, out.len() as u64);
        assert_eq!(facts.eight_bit, !out.is_ascii());
        Ok((out, facts))
    }

    fn repaired(message: &str) -> (String, Facts) {
        let (out, facts) = repaired_in(&[message.as_bytes()], "scan@contoso.com").expect("fit");
        (String::from_utf8(out).expect("UTF-8"), facts)
    }

    #[test]
    fn adds_only_what_is_missing() {
        let whole = "DATE: x\r\nmessage-id : <1@x>\r\nFrom: A <a@b>\r\nSubject: =?utf-8?Q?=C3=BC?=\r\n y\r\n\r\nbody\r\n";
        for (message, expected) in [
            (whole, format!("{RECEIVED}{whole}")),
            ("", format!("{RECEIVED}{DATE}{MESSAGE_ID}{FROM}\r\n")),
            ("\r\n", format!("{RECEIVED}{DATE}{MESSAGE_ID}{FROM}\r\n")),
            ("\r\nbody\r\n", format!("{RECEIVED}{DATE}{MESSAGE_ID}{FROM}\r\nbody\r\n")),
            ("just text\r\nmore: x\r\n", format!("{RECEIVED}{DATE}{MESSAGE_ID}{FROM}\r\njust text\r\nmore: x\r\n")),
            (" folded\r\n", format!("{RECEIVED}{DATE}{MESSAGE_ID}{FROM}\r\n folded\r\n")),
            ("Subject: x\r\n", format!("{RECEIVED}{DATE}{MESSAGE_ID}{FROM}Subject: x\r\n\r\n")),
            ("Subject: x", format!("{RECEIVED}{DATE}{MESSAGE_ID}{FROM}Subject: x\r\n\r\n")),
            ("Subject: x\r\ntext", format!("{RECEIVED}{DATE}{MESSAGE_ID}{FROM}Subject: x\r\n\r\ntext")),
            (
                "Subject: x\r\nF r o m: e@f\r\n\r\ntext\r\n",
                format!("{RECEIVED}{DATE}{MESSAGE_ID}{FROM}Subject: x\r\n\r\nF r o m: e@f\r\n\r\ntext\r\n"),
            ),
            ("From:\r\nDate: \r\n \r\nTo:\r\n\r\n", format!("{RECEIVED}{DATE}{MESSAGE_ID}{FROM}To:\r\n\r\n")),
        ] {
            assert_eq!(repaired(message).0, expected, "{message:?}");
        }
    }

    #[test]
    fn knows_the_facts() {
        let (_, facts) =
            repaired("From: A <a@b>, c@d\r\nSubject: =?utf-8?Q?=C3=BC?=\r\n y\0\r\nMessage-ID: x <1@x> y\r\nReceived: z\r\n\r\n");
        assert_eq!(facts.author.map(|author| author.to_string()).as_deref(), Some("a@b"));
        assert_eq!((facts.subject.as_str(), facts.message_id.as_str(), facts.received_count), ("ü y", "<1@x>", 1));
        assert!(!facts.eight_bit);
        assert_eq!(facts.asked_priority, None);
        let (out, facts) = repaired("X-Priority: 1 (Highest)\r\n\r\n");
        assert_eq!(facts.asked_priority, Some(Priority::High));
        assert!(out.contains("\r\nX-Priority: 1 (Highest)\r\n"), "{out}");
        let (_, facts) = repaired(&format!("Subject: {}\r\n\r\nü", "ä".repeat(1_000)));
        assert_eq!(facts.subject, "ä".repeat(200));
        assert_eq!(facts.message_id, "<000000000002D@relay.contoso.com>");
        assert!(facts.eight_bit);
        let (out, facts) = repaired_in(&[b"x"], "").expect("fit");
        assert_eq!(facts.author.map(|author| author.to_string()).as_deref(), Some("postmaster@relay.contoso.com"));
        assert!(String::from_utf8_lossy(&out).contains("\r\nFrom: <postmaster@relay.contoso.com>\r\n\r\nx"));
    }

    #[test]
    fn names_every_author_and_every_habit() {
        use Habit::*;
        const GOOD: &str = "Date: x\r\nMessage-ID: <1@x>\r\nFrom: A <a@B.example>\r\n";
        let line = |length| "x".repeat(length);
        for (message, domains, habits) in [
            (format!("{GOOD}\r\n{}\r\nx", line(998)), vec!["b.example"], vec![]),
            (format!("{GOOD}\r\n{}\r\n", line(999)), vec!["b.example"], vec![LongLines]),
            (format!("{GOOD}X: {}\r\n", line(996)), vec!["b.example"], vec![LongLines]),
            (format!("{GOOD}\r\n\0"), vec!["b.example"], vec![Nul]),
            (format!("{GOOD}From: c@d.example., \"x@y.example\" <e@b.example>\r\n"), vec!["b.example", "d.example"], vec![SeveralFrom]),
            (format!("{GOOD}From: \r\n"), vec!["b.example"], vec![]),
            ("".to_owned(), vec!["contoso.com"], vec![NoDate, NoFrom, NoMessageId]),
            ("Date: x\r\nMessage-ID: <1@x>\r\nFrom: Scanner\r\n".to_owned(), vec![""], vec![]),
            (format!("Date: x\r\nMessage-ID: <1@x>\r\nFrom: {}a@b.example\r\n", "a@b.example, ".repeat(20)), vec!["b.example", ""], vec![]),
        ] {
            let (_, facts) = repaired(&message);
            assert_eq!(
                (facts.author_domains, facts.habits.iter().collect()),
                (domains.iter().map(|d| d.to_string()).collect(), habits),
                "{message:?}"
            );
        }
    }

    #[test]
    fn keeps_long_lines_and_large_headers() {
        let message = format!("X: {}\r\nY: {}\r\n\r\n{}\r\n", "x".repeat(90_000), "y\r\n ".repeat(2_000), "z".repeat(100_000));
        assert!(repaired(&message).0.ends_with(&message));
        let text = "z".repeat(1_000_000);
        assert!(repaired(&text).0.ends_with(&format!("{FROM}\r\n{text}")));
    }

    #[test]
    fn a_header_over_its_limit_is_refused_early_and_for_good() {
        let mut repair = repair("", 1_000);
        let mut out = Vec::new();
        repair.push(b"X: ", &mut out).expect("fits");
        assert_eq!(repair.push(&[b'x'; 1_000], &mut out), Err(RepairError::HeaderTooLarge));
        assert_eq!(repair.push(b"\r\n\r\n", &mut out), Err(RepairError::HeaderTooLarge));
        assert_eq!(repair.finish(&mut out), Err(RepairError::HeaderTooLarge));
        assert!(out.is_empty());
    }

    #[test]
    fn a_message_that_goes_round_in_circles_is_refused() {
        let hops = |n: usize| "Received: x\r\n".repeat(n) + "\r\n";
        assert!(repaired_in(&[hops(50).as_bytes()], "").is_ok());
        assert_eq!(repaired_in(&[hops(51).as_bytes()], ""), Err(RepairError::Looping));
        assert_eq!(repaired_in(&[hops(51).trim_end().as_bytes()], ""), Err(RepairError::Looping));
    }

    #[test]
    fn a_helo_name_cannot_add_a_field() {
        let mut repair = repair("", 1_000);
        repair.trace.helo = Some("x\r\nBcc: a@b".to_owned());
        let mut out = Vec::new();
        repair.push(b"\r\n", &mut out).expect("fits");
        assert_eq!(Header::scan(&out).named("Bcc").count(), 0);
    }

    proptest! {
            #[test]
            fn pieces_make_no_difference(
                lines in proptest::collection::vec(prop_oneof!["[A-Za-z]{1,8} ?: ?[ -~äß]{0,60}", "[ \t][ -~]{0,20}", "[ -~ü]{0,300}", Just(String::new())], 0..20),
                cuts in proptest::collection::vec(1usize..40, 1..40),
            ) {
                let message: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\r\n"].concat()).collect();
                let whole = repaired_in(&[&message], "scan@contoso.com").expect("fit");

                let (mut pieces, mut rest, mut cuts) = (Vec::new(), &message[..], cuts.into_iter().cycle());
                while !rest.is_empty() {
                    let (piece, behind) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                    pieces.push(piece);
                    rest = behind;
                }
                prop_assert_eq!(&repaired_in(&pieces, "scan@contoso.com").expect("fit"), &whole);
                let octets: Vec<&[u8]> = message.chunks(1).collect();
                prop_assert_eq!(&repaired_in(&octets, "scan@contoso.com").expect("fit"), &whole);

                // Whatever account it goes out on, it stays within what was foreseen, and the body is what came.
            let longest: Mailbox = format!("{}@{}", "x".repeat(64), "y".repeat(189)).parse().expect("a mailbox");
            let (account, client) = (AccountName::new(longest.as_str()), ClientName::new("devices"));
            let path = ReversePath::Mailbox("scan@contoso.com".parse().expect("a mailbox"));
            let with = Rewrite {
                sender: Some(&longest),
                display_name: &DisplayName::default(),
                signatures: Signatures::Remove,
                account: &account,
                client: &client,
                reverse_path: &path,
                kind: Kind::Mail,
            };
            let sent = rewrite(&whole.0, &with).header;
            let body = header_end(&whole.0).expect("an end");
            prop_assert!((sent.len() + whole.0.len() - body) as u64 <= whole.1.size + whole.1.growth);

            // Our view of header and body before and after is the same.
                let (before, after) = (Header::scan(&message), Header::scan(&whole.0));
                prop_assert_eq!(&message[before.body()..], &whole.0[after.body()..]);
                prop_assert!(after.ended() && after.named("From").count() >= 1);
    prop_assert!(after.octets().ends_with(before.octets()) || before.fields().any(|field| field.is_blank()));
            }
        }
}
