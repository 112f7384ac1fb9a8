//! Properties of the session that hold for whatever a client sends. What each command is answered is told by the dialogues in `tests/`.

use std::sync::Arc;

use proptest::prelude::*;

use std::time::Duration;

use super::*;
use crate::intake;
use crate::mail::{Class, RouteName};
use crate::smtp::{EnhancedStatus, ReversePath};

const START: Timestamp = Timestamp::from_millis(1_795_285_881_000);

fn settings() -> Settings {
    Settings { hostname: "relay.example".to_owned(), message_size: 200, header_size: 100, recipients: 3, ..Settings::default() }
}

/// Whoever comes may say STARTTLS and log in.
fn with_everything() -> Settings {
    Settings { entrance: Entrance { tls: Tls::StartTls, auth: Auth::Offered, clients: None }, ..settings() }
}

fn session(settings: Settings, peer: &str) -> Session {
    let mut client = intake::ClientSettings::new(ClientName::new("devices"), vec!["10.0.0.0/8".parse().expect("a network")]);
    client.allow_plaintext_auth = true;
    let policy = Policy::new(intake::Settings {
        accepted_domains: vec!["contoso.com".to_owned()],
        clients: vec![client, intake::ClientSettings::new(ClientName::new("erp"), Vec::new())],
        routes: vec![intake::RouteSettings::new(RouteName::new("hve"), vec![Class::Internal])],
        ..intake::Settings::default()
    });
    Session::new(Arc::new(settings), Arc::new(policy), peer.parse().expect("an address"), START)
}

/// A session with a store that always has room, where the user `in` may log in and a TLS handshake never ends; and all that the session did.
struct Played {
    session: Session,
    /// Everything but `Send`; pieces of content joined.
    effects: Vec<Effect>,
    sent: Vec<u8>,
    writes: usize,
    next_id: i64,
    now: Timestamp,
}

impl Played {
    fn new(settings: Settings) -> Self {
        let mut played =
            Self { session: session(settings, "10.1.2.3"), effects: Vec::new(), sent: Vec::new(), writes: 0, next_id: 1, now: START };
        played.drain();
        played
    }

    fn handle(&mut self, input: Input<'_>) {
        self.session.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.session.next_effect() {
            assert!(!matches!(self.effects.last(), Some(Effect::Close(_))), "{effect:?} follows the end");
            let answer = match effect {
                Effect::Open { .. } => Some(Input::Opened(Ok(QueueId::from_number(self.next_id).expect("positive")))),
                Effect::Keep(_) => Some(Input::Kept(Ok(()))),
                Effect::LogIn(ref credentials) if credentials.user == "in" => Some(Input::LoggedIn(Ok(ClientName::new("devices")))),
                Effect::LogIn(_) => {
                    let reply = Reply::new(535, EnhancedStatus::new(5, 7, 8), "no");
                    Some(Input::LoggedIn(Err(LoginRefusal { reply, after: Duration::ZERO })))
                }
                _ => None,
            };
            match (effect, self.effects.last_mut()) {
                (Effect::Send(octets), _) => {
                    self.sent.extend_from_slice(&octets);
                    self.writes += 1;
                }
                (Effect::Content(more), Some(Effect::Content(content))) => content.extend_from_slice(&more),
                (effect, _) => self.effects.push(effect),
            }
            if let Some(answer) = answer {
                self.next_id += 1;
                self.session.handle(self.now, answer);
                if matches!(self.session.phase, Phase::Delaying(..)) {
                    self.session.handle(self.now, Input::Tick);
                }
            }
        }
    }

    /// Each message that was opened was kept or discarded, once, and content came in between only.
    fn assert_every_opened_message_has_one_end(&self) {
        let mut is_open = false;
        for effect in &self.effects {
            match effect {
                Effect::Open { .. } => assert!(!std::mem::replace(&mut is_open, true), "opened twice"),
                Effect::Content(_) => assert!(is_open, "content of no message"),
                Effect::Keep(_) | Effect::Discard => assert!(std::mem::replace(&mut is_open, false), "ended twice"),
                Effect::Close(_) => assert!(!is_open, "left open"),
                Effect::Send(_) | Effect::Refused { .. } | Effect::Noticed(_) | Effect::StartTls | Effect::LogIn(_) => {}
            }
        }
        let kept = self.effects.iter().filter(|effect| matches!(effect, Effect::Keep(_))).count();
        assert_eq!(memchr::memmem::find_iter(&self.sent, b"queued as").count(), kept);
    }
}

/// What clients send, and what they should not.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "EHLO x\r\n",
        "HELO\n",
        "MAIL FROM:<a@b>\r\n",
        "MAIL FROM:<> SIZE=5\r\n",
        "MAIL FROM:<a@b> SIZE=999\r\n",
        "RCPT TO:<a@contoso.com>\r\n",
        "RCPT TO:<b@contoso.com>\r\n",
        "RCPT TO:<x@y>\r\n",
        "DATA\r\n",
        "RSET\r\n",
        "NOOP\n",
        "A: b\r\n",
        "\r\n",
        ".\r\n",
        "\n",
        "\r",
        ".",
        "text",
        "0123456789012345678901234567890123456789\r\n",
        "AUTH LOGIN\r\n",
        "aW4=\r\n",
        "AUTH PLAIN AGluAHg=\r\n",
        "AUTH PLAIN AG91dAB4\r\n",
        "AUTH PLAIN\r\n",
        "*\r\n",
        "STARTTLS\r\n",
    ]);
    let pieces = prop_oneof![
        8 => words.prop_map(|word| word.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let opening = prop_oneof![
        3 => Just("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@contoso.com>\r\nDATA\r\n"),
        1 => Just(""),
    ];
    (opening, proptest::collection::vec(pieces, 0..40)).prop_map(|(opening, pieces)| [opening.as_bytes(), &pieces.concat()].concat())
}

proptest! {
    #[test]
    fn whatever_a_client_sends_is_answered_the_same_wherever_it_is_cut(wire in wire(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(wire.len() + 1);
        let [mut whole, mut halves, mut octets] = [(); 3].map(|()| Played::new(with_everything()));
        whole.handle(Input::Octets(&wire));
        halves.handle(Input::Octets(&wire[..cut]));
        halves.handle(Input::Octets(&wire[cut..]));
        wire.chunks(1).for_each(|octet| octets.handle(Input::Octets(octet)));
        for played in [&mut whole, &mut halves, &mut octets] {
            played.handle(Input::Eof);
            prop_assert!(matches!(played.effects.last(), Some(Effect::Close(_))));
            played.assert_every_opened_message_has_one_end();
        }
        prop_assert_eq!(whole.sent.escape_ascii().to_string(), octets.sent.escape_ascii().to_string());
        prop_assert_eq!(&whole.sent, &halves.sent);
        // How soon content is found too large depends on the pieces; what is kept does not.
        let kept = |played: &Played| played.effects.iter().filter(|effect| matches!(effect, Effect::Keep(_))).cloned().collect::<Vec<_>>();
        prop_assert_eq!(kept(&whole), kept(&halves));
        prop_assert_eq!(kept(&whole), kept(&octets));
        let habits = |played: &Played| played.effects.iter().filter(|effect| matches!(effect, Effect::Noticed(_))).cloned().collect::<Vec<_>>();
        prop_assert_eq!(habits(&whole), habits(&halves));
        prop_assert_eq!(habits(&whole), habits(&octets));
    }

    #[test]
    fn whatever_happens_ends_in_order(wire in wire(), cut in any::<prop::sample::Index>(), last in 0..4_usize) {
        let mut played = Played::new(settings());
        played.handle(Input::Octets(&wire[..cut.index(wire.len() + 1)]));
        if last == 0 {
            let late = played.session.deadline().unwrap_or(START);
            played.session.handle(late, Input::Tick);
            played.drain();
        } else {
            played.handle([Input::Eof, Input::Shutdown, Input::MakeRoom][last - 1].clone());
        }
        if matches!(played.session.phase, Phase::Content(_)) {
            // Only a shutdown lets the message end first.
            played.handle(Input::Octets(b"\r\n.\r\n"));
        }
        prop_assert!(matches!(played.effects.last(), Some(Effect::Close(_))));
        played.assert_every_opened_message_has_one_end();
        prop_assert_eq!(played.session.deadline(), None);
        prop_assert!(!played.session.wants_input());
    }
}

#[test]
fn tells_what_it_is_doing() {
    let at = |seconds| START + Duration::from_secs(seconds);
    let mut session = session(settings(), "10.1.2.3");
    assert_eq!(session.standing(), Standing::Idle(START));
    session.handle(at(1), Input::Octets(b"EHLO x\r\n"));
    assert_eq!(session.standing(), Standing::Idle(at(1)));
    session.handle(at(2), Input::Octets(b"MAIL FROM:<a@b>\r\nRCPT TO:<a@cont"));
    assert_eq!(session.standing(), Standing::Begun(at(2)));
    session.handle(at(3), Input::Octets(b"o"));
    assert_eq!(session.standing(), Standing::Begun(at(2)), "who only goes on has done nothing yet");
    session.handle(at(4), Input::Octets(b"so.com>\r\nDATA\r\n"));
    assert_eq!(session.standing(), Standing::Busy);
    session.handle(at(5), Input::Opened(Ok(QueueId::from_number(1).expect("positive"))));
    assert_eq!(session.standing(), Standing::Content(at(5), 0));
    session.handle(at(6), Input::Octets(b"\r\ntext\r\n"));
    assert_eq!(session.standing(), Standing::Content(at(5), 8));
    session.handle(at(7), Input::Octets(b".\r\n"));
    assert_eq!(session.standing(), Standing::Busy);
    session.handle(at(8), Input::Kept(Ok(())));
    assert_eq!(session.standing(), Standing::Idle(at(8)));
}

#[test]
fn replies_to_pipelined_commands_are_one_write() {
    let mut played = Played::new(settings());
    played.handle(Input::Octets(b"EHLO x\r\n"));
    played.writes = 0;
    played.handle(Input::Octets(b"MAIL FROM:<a@b>\r\nRCPT TO:<a@contoso.com>\r\nRCPT TO:<b@contoso.com>\r\nDATA\r\n"));
    assert_eq!(played.writes, 1);
    played.handle(Input::Octets(b"\r\ntext\r\n.\r\nQUIT\r\n"));
    assert_eq!(played.writes, 2);
    assert!(played.sent.ends_with(b"\r\n250 2.0.0 Ok: queued as 0000000000001\r\n221 2.0.0 Bye\r\n"));
}

#[test]
fn waits_for_each_answer_and_keeps_what_comes_meanwhile() {
    let mut session = session(settings(), "10.1.2.3");
    let drain = |session: &mut Session| std::iter::from_fn(|| session.next_effect()).collect::<Vec<_>>();
    drain(&mut session);
    session.handle(START, Input::Octets(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@contoso.com>\r\nDATA\r\nhi\r\n.\r\nNO"));
    assert_eq!(drain(&mut session), [Effect::Open { announced: 200 }]);
    assert_eq!((session.wants_input(), session.deadline()), (false, None));
    session.handle(START, Input::Octets(b"OP\r\n"));
    session.handle(START, Input::Tick);
    assert_eq!(drain(&mut session), []);

    session.handle(START, Input::Opened(Ok(QueueId::from_number(1).expect("positive"))));
    let effects = drain(&mut session);
    assert_eq!(effects[0], Effect::Content(b"hi\r\n".to_vec()));
    assert!(matches!(&effects[1], Effect::Keep(envelope) if envelope.protocol.as_str() == "SMTP"), "{effects:?}");
    assert!(matches!(&effects[2], Effect::Send(octets) if octets.ends_with(b"only a dot\r\n")), "{effects:?}");
    assert!(!session.wants_input());

    session.handle(START, Input::Kept(Ok(())));
    assert_eq!(drain(&mut session), [Effect::Send(b"250 2.0.0 Ok: queued as 0000000000001\r\n250 2.0.0 Ok\r\n".to_vec())]);
    assert!(session.wants_input());
    assert_eq!(session.deadline(), Some(START + Settings::default().command_timeout));
}

#[test]
fn a_refusal_of_the_store_is_told_and_recorded() {
    let full = || Reply::new(452, EnhancedStatus::new(4, 3, 1), "full");
    let mut session = session(settings(), "10.1.2.3");
    session.handle(START, Input::Octets(b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@contoso.com>\r\nDATA\r\n"));
    while session.next_effect().is_some() {}
    session.handle(START, Input::Opened(Err(full())));
    let reverse_path = Some(ReversePath::Mailbox("a@b".parse().expect("a mailbox")));
    assert_eq!(session.next_effect(), Some(Effect::Refused { reply: full(), what: "DATA".to_owned(), reverse_path }));
}

#[test]
fn a_421_of_the_store_ends_the_session() {
    let failed = || Reply::new(421, EnhancedStatus::new(4, 3, 0), "the store failed");
    let mut session = session(settings(), "10.1.2.3");
    session.handle(START, Input::Octets(b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@contoso.com>\r\nDATA\r\nNOOP\r\n"));
    while session.next_effect().is_some() {}
    session.handle(START, Input::Opened(Err(failed())));
    let effects: Vec<_> = std::iter::from_fn(|| session.next_effect()).collect();
    assert!(matches!(&effects[1], Effect::Send(octets) if octets.ends_with(b"421 4.3.0 the store failed\r\n")), "{effects:?}");
    assert_eq!(effects[2..], [Effect::Close(Ending::TurnedAway)]);
}

#[test]
fn passwords_that_nobody_asked_for_are_not_logged() {
    let mut played = Played::new(settings());
    played.handle(Input::Octets(b"EHLO x\r\nAUTH PLAIN AHNjYW4AaHVudGVyMg==\r\nAUTH LOGIN\r\naHVudGVyMg==\r\nhunter2\r\n"));
    let log = format!("{:?}", played.effects);
    assert!(!log.contains("AHNj") && !log.contains("aHVu") && !log.contains("hunter2"), "{log}");
    assert_eq!(played.effects.iter().filter(|effect| matches!(effect, Effect::Refused { .. })).count(), 4);
}

#[test]
fn a_handshake_makes_the_session_forget_what_was_said_before() {
    let mut session = session(with_everything(), "10.1.2.3");
    let drain = |session: &mut Session| std::iter::from_fn(|| session.next_effect()).collect::<Vec<_>>();
    session.handle(START, Input::Octets(b"EHLO x\r\nAUTH PLAIN AGluAHg=\r\n"));
    drain(&mut session);
    session.handle(START, Input::LoggedIn(Ok(ClientName::new("erp"))));
    assert_eq!((session.client().map(ClientName::as_str), session.user()), (Some("erp"), Some("in")));
    session.handle(START, Input::Octets(b"MAIL FROM:<a@b>\r\nSTARTTLS\r\n"));
    assert!(matches!(&drain(&mut session)[1..], [Effect::StartTls]));
    assert_eq!((session.wants_input(), session.deadline()), (false, None));

    session.handle(START, Input::TlsEstablished);
    assert_eq!((session.client().map(ClientName::as_str), session.user()), (Some("devices"), None));
    session.handle(START, Input::Octets(b"RCPT TO:<a@contoso.com>\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\nEHLO x\r\n"));
    let effects = drain(&mut session);
    let Some(Effect::Send(said)) = effects.last() else { panic!("{effects:?}") };
    let said = String::from_utf8_lossy(said);
    for (line, start) in said.lines().zip(["503 5.5.1 Say MAIL", "503 5.5.1 Say EHLO", "503 5.5.1 TLS is on", "250-relay.example"]) {
        assert!(line.starts_with(start), "{line}");
    }
    assert!(!said.contains("STARTTLS\r\n") && said.contains("250-AUTH PLAIN LOGIN\r\n"), "{said}");
}

#[test]
fn octets_that_came_before_the_handshake_end_the_session() {
    for pieces in [&[&b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<evil@contoso.com>\r\n"[..]][..], &[b"EHLO x\r\nSTARTTLS\r\n", b"M"]] {
        let mut session = session(with_everything(), "10.1.2.3");
        let mut effects = Vec::new();
        for piece in pieces {
            session.handle(START, Input::Octets(piece));
            effects.extend(std::iter::from_fn(|| session.next_effect()));
        }
        assert_eq!(effects.last(), Some(&Effect::Close(Ending::TurnedAway)));
        let refused =
            effects.iter().any(|effect| matches!(effect, Effect::Refused { what, .. } if what.starts_with("octets behind STARTTLS")));
        assert!(refused, "{effects:?}");
    }
}

#[test]
fn a_refused_login_is_answered_in_its_time_and_nothing_else_before() {
    let mut session = session(with_everything(), "10.1.2.3");
    let drain = |session: &mut Session| std::iter::from_fn(|| session.next_effect()).collect::<Vec<_>>();
    session.handle(START, Input::Octets(b"EHLO x\r\nAUTH PLAIN AG91dAB4\r\nNOOP\r\n"));
    let effects = drain(&mut session);
    assert!(matches!(&effects[0], Effect::LogIn(credentials) if credentials.user == "out"), "{effects:?}");
    let (reply, after) = (Reply::new(535, EnhancedStatus::new(5, 7, 8), "no"), Duration::from_secs(4));
    session.handle(START, Input::LoggedIn(Err(LoginRefusal { reply, after })));
    assert_eq!((drain(&mut session), session.wants_input(), session.deadline()), (vec![], false, Some(START + after)));
    session.handle(START + after, Input::Tick);
    let effects = drain(&mut session);
    assert!(matches!(&effects[0], Effect::Refused { what, .. } if what == "AUTH"), "{effects:?}");
    assert_eq!(effects[1], Effect::Send(b"535 5.7.8 no\r\n250 2.0.0 Ok\r\n".to_vec()));
    assert!(session.wants_input());
}

#[test]
fn a_stranger_who_does_not_log_in_is_sent_away_in_time() {
    let settings = with_everything();
    let limit = settings.login_timeout;
    let mut session = session(settings, "192.0.2.7");
    while session.next_effect().is_some() {}
    session.handle(START + limit / 2, Input::Octets(b"EHLO x\r\nNOOP\r\n"));
    while session.next_effect().is_some() {}
    assert_eq!(session.deadline(), Some(START + limit), "talking gives no more time");
    session.handle(START + limit, Input::Tick);
    let effects: Vec<_> = std::iter::from_fn(|| session.next_effect()).collect();
    assert!(matches!(&effects[1], Effect::Send(octets) if octets.starts_with(b"421 4.7.0 Nobody logged in within 1m")), "{effects:?}");
    assert_eq!(effects[2..], [Effect::Close(Ending::TimedOut)]);
}

#[test]
fn nothing_of_what_a_stranger_says_is_looked_at() {
    let mut session = session(settings(), "192.0.2.7");
    session.handle(START, Input::Octets(b"EHLO x\r\n"));
    let effects: Vec<_> = std::iter::from_fn(|| session.next_effect()).collect();
    assert!(matches!(&effects[0], Effect::Refused { what, .. } if what == "connection"));
    assert!(matches!(&effects[1], Effect::Send(octets) if octets.starts_with(b"554 5.7.1 192.0.2.7 is not a client")));
    assert_eq!(effects[2..], [Effect::Close(Ending::NotServed)]);
}

#[test]
fn a_device_that_sends_one_octet_a_second_is_served_as_long_as_it_moves() {
    let mut played = Played::new(Settings { message_size: 10_000, header_size: 10_000, ..settings() });
    let parameter = format!("X-JOB={}", "7".repeat(400));
    let content = "text\r\n".repeat(200);
    let wire = format!("EHLO x\r\nMAIL FROM:<a@b> {parameter}\r\nRCPT TO:<a@contoso.com>\r\nDATA\r\n{content}.\r\n");
    for octet in wire.as_bytes().chunks(1) {
        played.now = played.now + Duration::from_secs(1);
        played.handle(Input::Tick);
        played.handle(Input::Octets(octet));
    }
    assert!(played.sent.ends_with(b"queued as 0000000000001\r\n"), "{}", played.sent.escape_ascii());
    // The command took longer than a silent client may take, and the content longer than the wait for content.
    assert!(parameter.len() as u64 > settings().command_timeout.as_secs() && content.len() as u64 > settings().data_timeout.as_secs());

    // One that stops is sent away; so is one whose command never ends.
    let mut late = played.now + settings().command_timeout;
    assert_eq!(played.session.deadline(), Some(late));
    for _ in 0..settings().command_line * 2 {
        played.now = played.now + Duration::from_secs(1);
        played.handle(Input::Octets(b"x"));
    }
    late = late + Duration::from_secs(settings().command_line as u64);
    assert_eq!(played.session.deadline(), Some(late));
    played.now = late;
    played.handle(Input::Tick);
    assert_eq!(played.effects.last(), Some(&Effect::Close(Ending::TimedOut)));
}
