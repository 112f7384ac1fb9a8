//! Every script in `tests/dialogues/` against the session itself: step by step, pipelined, cut before every octet, and octet by octet.
//! What a script can say is told in `support/dialogue.rs`.

#[path = "support/dialogue.rs"]
mod dialogue;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dialogue::{Action, Cut, Inside, Relay, Script, Setup, matches, reply_line, scripts};
use hve_relay::clock::Timestamp;
use hve_relay::intake::{Addressee, Habit, Policy};
use hve_relay::mail::{ClientName, QueueId};
use hve_relay::session::{Effect, Envelope, Input, LoginRefusal, Session};
use hve_relay::smtp::{Credentials, EnhancedStatus, Reply};

/// A script with more octets than this is cut at some places only: that many.
const CUTS: usize = 3_000;

#[test]
fn every_dialogue_goes_as_written() {
    let scripts = scripts();
    assert!(scripts.len() >= 40, "only {} scripts", scripts.len());
    let over_a_connection = scripts.iter().filter(|script| script.needs_only_a_connection()).count();
    assert!(over_a_connection >= 40, "only {over_a_connection} of them can be played over a connection");
    play_all(&scripts, |_| vec![Cut::Steps]);
}

#[test]
fn no_dialogue_depends_on_how_the_input_is_cut() {
    play_all(&scripts(), |script| {
        let octets = script.octets();
        let cuts = (1..octets).step_by(octets / CUTS + 1).map(Cut::Before);
        cuts.chain([Cut::Joined, Cut::Octets]).collect()
    });
}

/// Those that do not depend on the time themselves: no script that lets time pass, or has a limit in a minute, for a login or for a line.
#[test]
fn every_dialogue_goes_as_written_at_an_octet_a_second() {
    let depends = |script: &Script| {
        let ticks = script.steps.iter().any(|step| matches!(step.action, Action::Inside(Inside::Tick(_))));
        let limited = |(key, _): &(String, String)| key == "command_line" || key.ends_with("_per_minute");
        ticks || !script.setup.users.is_empty() || script.setup.changed.iter().any(limited)
    };
    let scripts: Vec<Script> = scripts().into_iter().filter(|script| !depends(script)).collect();
    assert!(scripts.len() >= 70, "only {} scripts", scripts.len());
    let failed = |script: &Script| script.play(&mut Pure { pace: Duration::from_secs(1), ..Pure::new(&script.setup) }, Cut::Octets).err();
    let failures: Vec<String> = scripts.iter().filter_map(failed).collect();
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

#[test]
fn a_script_that_expects_nothing_or_makes_no_sense_is_refused() {
    for (text, why) in [
        ("", "expects nothing"),
        ("# s <- 220 *\nc -> NOOP\n", "expects nothing"),
        ("disk full\ntick 5m\n", "expects nothing"),
        ("s < 220 *\n", "not a step"),
        ("set colour blue\ns <- 220 *\n", "no such setting"),
        ("c => \"a\ns <- 220 *\n", "no end"),
    ] {
        let error = Script::parse("test", text).err().expect(text);
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_script_that_does_not_hold_fails() {
    for (text, why) in [
        ("s <- 221 *\n", "got: 220"),
        ("s <- 220 *\ns <- 250 *\n", "says nothing"),
        ("s <- 220 *\nc -> NOOP\n", "also said: 250"),
        ("s <- 220 *\ns closes\n", "still open"),
        ("s <- 220 *\nstore keeps\n", "kept nothing"),
    ] {
        let script = Script::parse("test", text).expect(text);
        let error = script.play(&mut Pure::new(&script.setup), Cut::Steps).expect_err(text);
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_pattern_is_exact_but_for_its_wildcards() {
    for (pattern, text, holds) in [
        ("250 Ok", "250 Ok", true),
        ("250 Ok", "250 Okay", false),
        ("250 *", "250 Ok", true),
        ("250 …as *!", "250 queued as 7!", true),
        ("250 * as", "250 as 7", false),
        ("a*a", "a", false),
    ] {
        assert_eq!(matches(pattern, text), holds, "{pattern} {text}");
    }
}

fn play_all(scripts: &[Script], cuts: impl Fn(&Script) -> Vec<Cut>) {
    let first_failure = |script: &Script| cuts(script).into_iter().find_map(|cut| script.play(&mut Pure::new(&script.setup), cut).err());
    let failures: Vec<String> = scripts.iter().filter_map(first_failure).collect();
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

/// The session itself, a clock that is turned by hand, and a store that is a list.
struct Pure {
    session: Session,
    now: Timestamp,
    /// What passes before each piece of input.
    pace: Duration,
    said: Vec<u8>,
    is_closed: bool,
    store: Store,
    refused: VecDeque<(String, String)>,
    is_log_watched: bool,
    /// What was noticed of the client and not looked at.
    habits: Vec<Habit>,
    /// Names, passwords and clients.
    users: Vec<[String; 3]>,
    /// The client was told to begin TLS.
    awaits_handshake: bool,
}

#[derive(Default)]
struct Store {
    /// The content of the message that is on its way in.
    open: Option<Vec<u8>>,
    kept: VecDeque<(Envelope, Vec<u8>)>,
    dropped: usize,
    reserved: Option<u64>,
    /// The message that the script looks at.
    shown: Option<(Envelope, Vec<u8>)>,
    /// The script has named some of its recipients, and so must name all.
    names_recipients: bool,
    is_full: bool,
    is_full_at_commit: bool,
    waits: bool,
    /// What the session has asked and nobody has answered.
    asked: Option<Question>,
    next_id: i64,
    is_watched: bool,
}

enum Question {
    Open,
    Keep(Box<Envelope>),
}

impl Pure {
    fn new(setup: &Setup) -> Self {
        let now = Timestamp::from_millis(1_795_285_881_000);
        let (settings, policy) = (Arc::new(setup.session.clone()), Arc::new(Policy::new(setup.intake.clone())));
        let mut pure = Self {
            session: Session::new(settings, policy, setup.peer, now),
            now,
            pace: Duration::ZERO,
            said: Vec::new(),
            is_closed: false,
            store: Store::default(),
            refused: VecDeque::new(),
            is_log_watched: false,
            habits: Vec::new(),
            users: setup.users.clone(),
            awaits_handshake: false,
        };
        pure.drain();
        pure
    }

    fn handle(&mut self, input: Input<'_>) {
        self.session.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            while let Some(effect) = self.session.next_effect() {
                self.carry_out(effect);
            }
            if self.store.waits || self.store.asked.is_none() {
                return;
            }
            self.answer();
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        assert!(!self.is_closed, "{effect:?} after the end");
        match effect {
            Effect::Send(octets) => self.said.extend_from_slice(&octets),
            Effect::Open { announced } => {
                assert!(self.store.open.is_none(), "one message at a time");
                self.store.reserved = Some(announced);
                self.store.asked = Some(Question::Open);
            }
            Effect::Content(octets) => self.store.open.as_mut().expect("an open message").extend_from_slice(&octets),
            Effect::Keep(envelope) => self.store.asked = Some(Question::Keep(Box::new(envelope))),
            Effect::Discard => {
                self.store.open.take().expect("an open message");
                self.store.dropped += 1;
            }
            Effect::Refused { reply, what, .. } => self.refused.push_back((what, reply.to_string())),
            Effect::Noticed(habit) => self.habits.push(habit),
            Effect::StartTls => self.awaits_handshake = true,
            Effect::LogIn(Credentials { user, password }) => {
                let found = self.users.iter().find(|[name, right, _]| *name == user && right == password.expose());
                let refusal =
                    || LoginRefusal { reply: Reply::new(535, EnhancedStatus::new(5, 7, 8), "wrong"), after: Duration::from_secs(1) };
                let answer = found.map(|[.., client]| ClientName::new(client.as_str())).ok_or_else(refusal);
                self.session.handle(self.now, Input::LoggedIn(answer));
            }
            Effect::Close(_) => self.is_closed = true,
        }
    }

    fn answer(&mut self) {
        let full = Reply::new(452, EnhancedStatus::new(4, 3, 1), "The relay's disk is full: try again later");
        let input = match self.store.asked.take().expect("a question") {
            Question::Open if self.store.is_full => Input::Opened(Err(full)),
            Question::Open => {
                self.store.next_id += 1;
                self.store.open = Some(Vec::new());
                Input::Opened(Ok(QueueId::from_number(self.store.next_id).expect("positive")))
            }
            Question::Keep(envelope) => {
                let content = self.store.open.take().expect("an open message");
                if self.store.is_full_at_commit {
                    Input::Kept(Err(full))
                } else {
                    self.store.kept.push_back((*envelope, content));
                    Input::Kept(Ok(()))
                }
            }
        };
        self.session.handle(self.now, input);
    }

    fn assert_all_recipients_named(&mut self) -> Result<(), String> {
        match &self.store.shown {
            Some((envelope, _)) if std::mem::take(&mut self.store.names_recipients) && !envelope.recipients.is_empty() => {
                Err(format!("also for: {:?}", envelope.recipients))
            }
            _ => Ok(()),
        }
    }

    /// Looks at one side of the message that is shown.
    fn claim(&mut self, expected: &str, found: impl Fn(&mut Envelope) -> String) -> Result<(), String> {
        let (envelope, _) = self.store.shown.as_mut().ok_or("write `store keeps` first")?;
        let found = found(envelope);
        if found == expected { Ok(()) } else { Err(format!("expected: {expected}\n       got: {found}")) }
    }
}

impl Relay for Pure {
    fn send(&mut self, octets: &[u8]) {
        if !self.pace.is_zero() {
            self.now = self.now + self.pace;
            self.handle(Input::Tick);
        }
        self.handle(Input::Octets(octets));
    }

    fn hang_up(&mut self) {
        self.handle(Input::Eof);
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.said.windows(2).position(|end| end == b"\r\n").ok_or("the relay says nothing")?;
        reply_line(self.said.drain(..end + 2).collect())
    }

    fn is_closed(&mut self) -> bool {
        self.is_closed
    }

    fn inside(&mut self, step: &Inside) -> Result<(), String> {
        match step {
            Inside::ExpectNothing if self.said.is_empty() && !self.is_closed => Ok(()),
            Inside::ExpectNothing if self.is_closed => Err("the connection is closed".to_owned()),
            Inside::ExpectNothing => Err(format!("the relay said: {}", self.said.escape_ascii())),
            Inside::Tick(duration) => {
                self.now = self.now + *duration;
                self.handle(Input::Tick);
                Ok(())
            }
            Inside::Handshake => {
                if !std::mem::take(&mut self.awaits_handshake) {
                    return Err("TLS was not begun".to_owned());
                }
                self.handle(Input::TlsEstablished);
                Ok(())
            }
            Inside::Shutdown => {
                self.handle(Input::Shutdown);
                Ok(())
            }
            Inside::OthersWait => {
                self.handle(Input::MakeRoom);
                Ok(())
            }
            Inside::DiskFull | Inside::DiskFullAtCommit | Inside::DiskFree => {
                self.store.is_full = *step == Inside::DiskFull;
                self.store.is_full_at_commit = *step == Inside::DiskFullAtCommit;
                Ok(())
            }
            Inside::StoreWaits => {
                self.store.waits = true;
                Ok(())
            }
            Inside::StoreAnswers => {
                self.store.asked.as_ref().ok_or("the store was not asked")?;
                self.answer();
                self.drain();
                Ok(())
            }
            Inside::Keeps => {
                self.assert_all_recipients_named()?;
                self.store.is_watched = true;
                self.store.shown = Some(self.store.kept.pop_front().ok_or("the store kept nothing")?);
                Ok(())
            }
            Inside::From(path) => self.claim(path, |envelope| format!("<{}>", envelope.reverse_path)),
            Inside::To(recipient) => {
                self.store.names_recipients = true;
                self.claim(recipient, |envelope| match envelope.recipients.is_empty() {
                    true => "nobody else".to_owned(),
                    false => {
                        let Addressee { address, class, .. } = envelope.recipients.remove(0);
                        format!("{address} {class}")
                    }
                })
            }
            Inside::Helo(name) => self.claim(name, |envelope| envelope.helo.clone().unwrap_or_else(|| "-".to_owned())),
            Inside::With(protocol) => self.claim(protocol, |envelope| envelope.protocol.to_string()),
            Inside::Declares(what) => self.claim(what, |envelope| {
                match (envelope.eight_bit_declared, envelope.smtputf8) {
                    (false, false) => "-",
                    (true, false) => "8bit",
                    (false, true) => "smtputf8",
                    (true, true) => "8bit smtputf8",
                }
                .to_owned()
            }),
            Inside::Content(content) => {
                let (_, found) = self.store.shown.as_ref().ok_or("write `store keeps` first")?;
                let shown = |octets: &[u8]| octets.escape_ascii().to_string();
                if found == content { Ok(()) } else { Err(format!("expected: {}\n       got: {}", shown(content), shown(found))) }
            }
            Inside::Drops => {
                self.store.is_watched = true;
                self.store.dropped = self.store.dropped.checked_sub(1).ok_or("nothing was dropped")?;
                Ok(())
            }
            Inside::Reserves(octets) => match self.store.reserved.take() {
                Some(reserved) if reserved == *octets => Ok(()),
                reserved => Err(format!("reserved: {reserved:?}")),
            },
            Inside::Habits(expected) => {
                let found: Vec<&str> = self.habits.drain(..).map(Habit::as_str).collect();
                let found = if found.is_empty() { "-".to_owned() } else { found.join(" ") };
                if found == *expected { Ok(()) } else { Err(format!("expected: {expected}\n       got: {found}")) }
            }
            Inside::Log(what, reply) => {
                self.is_log_watched = true;
                let (found, said) = self.refused.pop_front().ok_or("nothing was refused")?;
                if matches(what, &found) && matches(reply, &said) { Ok(()) } else { Err(format!("in the log: {found} | {said}")) }
            }
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        if let Ok(line) = self.line() {
            return Err(format!("the relay also said: {line}"));
        }
        if !self.said.is_empty() {
            return Err(format!("half a line: {}", self.said.escape_ascii()));
        }
        self.assert_all_recipients_named()?;
        if self.store.is_watched && (!self.store.kept.is_empty() || self.store.dropped > 0) {
            return Err(format!("the store also kept {} and dropped {}", self.store.kept.len(), self.store.dropped));
        }
        match self.refused.front() {
            Some((what, reply)) if self.is_log_watched => Err(format!("also refused: {what} | {reply}")),
            _ => Ok(()),
        }
    }
}
