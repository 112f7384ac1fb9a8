//! What must hold whatever comes in: the entry points that `cargo fuzz` and `tests/fuzzing.rs` share. A claim that does not hold panics.
#![allow(dead_code, reason = "each fuzz target uses its part of it")]

use std::sync::Arc;
use std::time::Duration;

use hve_relay::clock::Timestamp;
use hve_relay::intake::{self, ClientSettings, LineEndings, Policy, Repair, RouteSettings};
use hve_relay::mail::{Class, ClientName, Header, QueueId, RouteName, Trace};
use hve_relay::session::{Auth, Effect, Entrance, Envelope, Input, LoginRefusal, Session, Settings, Tls};
use hve_relay::smtp::{EnhancedStatus, Reply, ReversePath};

const START: Timestamp = Timestamp::from_millis(1_795_285_881_000);

/// A client says these octets. The first one decides what it may do, and what the store answers; the rest are sent whole, and again octet by
/// octet: both must come to the same.
pub fn session(data: &[u8]) {
    let Some((&way, wire)) = data.split_first() else { return };
    let mut whole = Talk::new(way);
    whole.hear(Input::Octets(wire));
    whole.hear(Input::Eof);
    let mut pieces = Talk::new(way);
    wire.chunks(1).for_each(|octet| pieces.hear(Input::Octets(octet)));
    pieces.hear(Input::Eof);
    assert_eq!(whole.said.escape_ascii().to_string(), pieces.said.escape_ascii().to_string());
    assert_eq!(whole.kept, pieces.kept);
    assert!(whole.is_closed && pieces.is_closed);
    assert_replies(&whole.said);
}

/// These octets are a content as it comes out of a session, or as near to that as can be made of them.
pub fn message(data: &[u8]) {
    let mut content = Vec::new();
    let mut decoder = hve_relay::smtp::DataDecoder::new();
    let end = decoder.decode(data, &mut content);
    if end.is_none() {
        // What is held back at the end of the input comes out with the end of data.
        decoder.decode(b"\r\n.\r\n", &mut content);
    }
    repaired(&content);
}

/// A session with a store, and all that comes out of it.
struct Talk {
    session: Session,
    way: u8,
    next_id: i64,
    open: Option<Vec<u8>>,
    kept: Vec<(Envelope, Vec<u8>)>,
    said: Vec<u8>,
    is_closed: bool,
}

impl Talk {
    fn new(way: u8) -> Self {
        let settings = Settings {
            hostname: "relay.example".to_owned(),
            message_size: 2_000,
            header_size: 1_000,
            recipients: 3,
            transactions: 5,
            command_line: 200,
            errors: 10,
            command_timeout: Duration::from_secs(300),
            entrance: if way & 16 != 0 { Entrance { tls: Tls::StartTls, auth: Auth::Offered, clients: None } } else { Entrance::default() },
            ..Settings::default()
        };
        let networks = vec!["10.0.0.0/8".parse().expect("a network")];
        let mut client = ClientSettings::new(ClientName::new("devices"), networks);
        if way & 1 != 0 {
            client.line_endings = LineEndings::Refuse;
        }
        client.allow_plaintext_auth = true;
        if way & 2 != 0 {
            client.messages_per_minute = std::num::NonZeroU32::new(2);
            client.recipients_per_minute = std::num::NonZeroU32::new(3);
        }
        let policy = Policy::new(intake::Settings {
            accepted_domains: vec!["contoso.com".to_owned()],
            clients: vec![client],
            routes: vec![RouteSettings::new(RouteName::new("hve"), vec![Class::Internal])],
            ..intake::Settings::default()
        });
        let peer = "10.1.2.3".parse().expect("an address");
        let session = Session::new(Arc::new(settings), Arc::new(policy), peer, START);
        let mut talk = Self { session, way, next_id: 1, open: None, kept: Vec::new(), said: Vec::new(), is_closed: false };
        talk.drain();
        talk
    }

    fn hear(&mut self, input: Input<'_>) {
        self.session.handle(START, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.session.next_effect() {
            assert!(!self.is_closed, "{effect:?} follows the end");
            match effect {
                Effect::Send(octets) => self.said.extend_from_slice(&octets),
                Effect::Open { .. } => {
                    assert!(self.open.is_none(), "opened twice");
                    let answer = if self.way & 4 != 0 && self.next_id % 2 == 0 { Err(full()) } else { Ok(id(self.next_id)) };
                    self.next_id += 1;
                    self.open = answer.is_ok().then(Vec::new);
                    self.session.handle(START, Input::Opened(answer));
                }
                Effect::Content(octets) => self.open.as_mut().expect("an open message").extend_from_slice(&octets),
                Effect::Keep(envelope) => {
                    let content = self.open.take().expect("an open message");
                    assert_envelope(&envelope);
                    assert_canonical(&content);
                    repaired(&content);
                    let answer = if self.way & 8 != 0 { Err(full()) } else { Ok(()) };
                    if answer.is_ok() {
                        self.kept.push((envelope, content));
                    }
                    self.session.handle(START, Input::Kept(answer));
                }
                Effect::Discard => drop(self.open.take().expect("an open message")),
                Effect::Refused { what, .. } => assert!(!what.chars().any(char::is_control), "{what:?}"),
                // A handshake that never ends: what comes all the same came before it.
                Effect::Noticed(_) | Effect::StartTls => {}
                Effect::LogIn(credentials) => {
                    assert!(!credentials.user.chars().any(char::is_control), "{:?}", credentials.user);
                    let refusal = LoginRefusal { reply: Reply::new(535, EnhancedStatus::new(5, 7, 8), "no"), after: Duration::ZERO };
                    let answer = if self.way & 32 != 0 { Ok(ClientName::new("devices")) } else { Err(refusal) };
                    self.session.handle(START, Input::LoggedIn(answer));
                    self.session.handle(START, Input::Tick);
                }
                Effect::Close(_) => {
                    assert!(self.open.is_none(), "left open");
                    self.is_closed = true;
                }
            }
        }
        let acknowledged = self.said.windows(9).filter(|nine| *nine == b"queued as").count();
        assert_eq!(acknowledged, self.kept.len(), "acknowledged and kept");
    }
}

fn id(number: i64) -> QueueId {
    QueueId::from_number(number).expect("positive")
}

fn full() -> Reply {
    Reply::new(452, EnhancedStatus::new(4, 3, 1), "full")
}

/// Every line of a reply is one: a code, a blank or a hyphen, no controls, and short enough (RFC 5321 §4.5.3.1.5).
fn assert_replies(said: &[u8]) {
    for line in said.split_inclusive(|octet| *octet == b'\n') {
        let text = line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("half a line: {}", line.escape_ascii()));
        let shown = || text.escape_ascii().to_string();
        assert!(text.len() <= 510 && text.len() >= 4, "{}", shown());
        assert!(text[..3].iter().all(u8::is_ascii_digit) && matches!(text[3], b' ' | b'-'), "{}", shown());
        assert!(!text.iter().any(u8::is_ascii_control), "{}", shown());
    }
}

/// Nothing in it can end a path, a line or a command.
fn assert_envelope(envelope: &Envelope) {
    let harmless = |text: &str| !text.contains(|c: char| c.is_control() || matches!(c, '<' | '>'));
    assert!(envelope.reverse_path.mailbox().is_none_or(|mailbox| harmless(mailbox.as_str())), "{envelope:?}");
    assert!(!envelope.recipients.is_empty() && envelope.recipients.iter().all(|to| harmless(to.address.as_str())), "{envelope:?}");
    assert!(envelope.helo.as_deref().is_none_or(harmless), "{envelope:?}");
}

/// Whoever sends it on and stuffs its dots sends no false end of data.
fn assert_canonical(content: &[u8]) {
    let crlfs = content.windows(2).filter(|two| two == b"\r\n").count();
    for octet in [b'\r', b'\n'] {
        assert_eq!(content.iter().filter(|other| **other == octet).count(), crlfs, "{}", content.escape_ascii());
    }
    assert!(content.is_empty() || content.ends_with(b"\r\n"), "{}", content.escape_ascii());
}

/// The content with what was missing in it: whole or octet by octet, it comes to the same, and keeps its body.
fn repaired(content: &[u8]) {
    let repair = |pieces: usize| {
        let trace = Trace {
            hostname: "relay.example".to_owned(),
            helo: Some("mfp".to_owned()),
            peer: None,
            protocol: "SMTP",
            id: id(77),
            at: START,
            only_recipient: None,
        };
        let mut repair = Repair::new(trace, &ReversePath::Null, 1_000);
        let mut out = Vec::new();
        for piece in content.chunks(pieces.max(1)) {
            repair.push(piece, &mut out).ok()?;
        }
        repair.finish(&mut out).ok().map(|facts| (facts, out))
    };
    let whole = repair(content.len());
    assert_eq!(whole, repair(1));
    let Some((facts, out)) = whole else { return };
    assert_eq!(facts.size, out.len() as u64);
    let (before, after) = (Header::scan(content), Header::scan(&out));
    assert!(after.ended() && after.named("From").count() >= 1, "{}", out.escape_ascii());
    assert_eq!(content[before.body()..].escape_ascii().to_string(), out[after.body()..].escape_ascii().to_string());
    assert!(!facts.subject.chars().any(char::is_control) && !facts.message_id.chars().any(char::is_control));
}
