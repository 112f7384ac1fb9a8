//! Scripted faults: at which step, for whom, how often, and what happens then. All of it data.
//!
//! A fault takes the place of what the endpoint would have done at its step; of several that fit, the first in the list whose turn it is
//! acts. Each fault counts every time that it fits, also when another one acts.

use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::record::lock;
use crate::smtp::Mailbox;

/// One scripted fault. [`Fault::new`] fits everybody, always; the methods narrow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub when: Step,
    /// Only for this account, from AUTH on; at AUTH the user name that was given. Compared without regard to case.
    pub account: Option<String>,
    /// Only for this recipient: at RCPT the one that is named, later if the transaction has it. Compared without regard to case.
    pub recipient: Option<String>,
    /// Only in this time since the faults were put in force.
    pub between: Option<Range<Duration>>,
    /// Which of the times that it fits.
    pub times: Times,
    /// What happens.
    pub action: Action,
}

impl Fault {
    /// At this step, for everybody, always.
    pub fn new(when: Step, action: Action) -> Self {
        Self { when, account: None, recipient: None, between: None, times: Times::Always, action }
    }

    /// [`Self::new`] with a reply, the commonest fault.
    pub fn reply(when: Step, text: impl Into<String>) -> Self {
        Self::new(when, Action::Reply(text.into()))
    }

    /// Only for this account.
    pub fn account(self, user: impl Into<String>) -> Self {
        Self { account: Some(user.into()), ..self }
    }

    /// Only for this recipient.
    pub fn recipient(self, address: impl Into<String>) -> Self {
        Self { recipient: Some(address.into()), ..self }
    }

    /// Only in this time since the faults were put in force.
    pub fn between(self, times: Range<Duration>) -> Self {
        Self { between: Some(times), ..self }
    }

    /// Only the first so many times.
    pub fn first(self, times: u32) -> Self {
        Self { times: Times::First(times), ..self }
    }

    /// Only this time, counted from 1.
    pub fn nth(self, time: u32) -> Self {
        Self { times: Times::Nth(time), ..self }
    }

    fn fits(&self, event: &Event<'_>, age: Duration) -> bool {
        let step = match (self.when, event.step) {
            (Step::Content { .. }, Step::Content { .. }) => true,
            (fault, reached) => fault == reached,
        };
        let account = self.account.as_ref().is_none_or(|wanted| event.account.is_some_and(|user| user.eq_ignore_ascii_case(wanted)));
        let recipient = |wanted: &String| event.recipients.iter().any(|mailbox| mailbox.as_str().eq_ignore_ascii_case(wanted));
        let now = self.between.as_ref().is_none_or(|between| between.contains(&age));
        step && now && account && self.recipient.as_ref().is_none_or(recipient)
    }
}

/// A step of the dialogue, seen from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A connection came in; the greeting is due.
    Greeting,
    /// EHLO or HELO before TLS.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// The TLS handshake is about to begin.
    Tls,
    /// EHLO after TLS.
    EhloInTls,
    /// The credentials are complete, the verdict is due.
    Auth,
    /// MAIL FROM, from a client that is logged in.
    Mail,
    /// RCPT TO within a transaction.
    Rcpt,
    /// DATA within a transaction that has recipients. There is no such step with BDAT.
    Data,
    /// So many octets of content have come, as they are on the wire; a shorter content never gets there. Its fits count when content begins.
    Content {
        /// How many.
        after: u64,
    },
    /// The final dot, or the last chunk, has come, the reply to it is due.
    EndOfData,
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Answers this, one line or several (separated by `\n`, each with its code). The dialogue goes on as the code says: 2yz and 3yz as if
    /// the endpoint itself had agreed, anything else as if it had refused; 421 closes. Within the content, and in place of its part of the
    /// handshake, it is a breach of the protocol, and the connection closes behind it.
    Reply(String),
    /// Ends the connection without a word.
    Drop,
    /// At [`Step::EndOfData`] the message is taken, and the connection ends before the reply. Elsewhere as [`Self::Drop`].
    TakeAndDrop,
    /// Says nothing any more, and keeps the connection open until the client ends it; in the content it also stops reading.
    Silence,
    /// At [`Step::StartTls`] these octets follow the 220 in plain text, as from an attacker on the path. Elsewhere nothing happens.
    Inject(Vec<u8>),
    /// Waits so long, then goes on as usual.
    Delay(Duration),
}

/// Which of the times that a fault fits it acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Each.
    Always,
    /// The first so many.
    First(u32),
    /// Only this one, counted from 1.
    Nth(u32),
}

/// What has come to pass in a dialogue.
pub(super) struct Event<'a> {
    pub(super) step: Step,
    pub(super) account: Option<&'a str>,
    pub(super) recipients: &'a [Mailbox],
}

/// The faults in force.
#[derive(Debug)]
pub(super) struct Script(Mutex<InForce>);

#[derive(Debug)]
struct InForce {
    since: Instant,
    /// Each with how often it has fitted.
    faults: Vec<(Fault, u32)>,
}

impl Default for Script {
    fn default() -> Self {
        Self(Mutex::new(InForce { since: Instant::now(), faults: Vec::new() }))
    }
}

impl Script {
    pub(super) fn set(&self, faults: Vec<Fault>) {
        *lock(&self.0) = InForce { since: Instant::now(), faults: faults.into_iter().map(|fault| (fault, 0)).collect() };
    }

    /// The fault whose turn it is.
    pub(super) fn due(&self, event: &Event<'_>) -> Option<Fault> {
        let mut due = None;
        let mut script = lock(&self.0);
        let age = script.since.elapsed();
        for (fault, seen) in script.faults.iter_mut().filter(|(fault, _)| fault.fits(event, age)) {
            *seen += 1;
            let turn = match fault.times {
                Times::Always => true,
                Times::First(times) => *seen <= times,
                Times::Nth(time) => *seen == time,
            };
            if turn && due.is_none() {
                due = Some(fault.clone());
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event<'a>(step: Step, account: Option<&'a str>, recipients: &'a [Mailbox]) -> Event<'a> {
        Event { step, account, recipients }
    }

    #[test]
    fn acts_as_often_as_it_should() {
        for (times, expected) in [
            (Times::Always, [true, true, true, true]),
            (Times::First(2), [true, true, false, false]),
            (Times::Nth(3), [false, false, true, false]),
        ] {
            let script = Script::default();
            script.set(vec![Fault { times, ..Fault::new(Step::Mail, Action::Drop) }]);
            let acted = expected.map(|_| script.due(&event(Step::Mail, None, &[])).is_some());
            assert_eq!(acted, expected, "{times:?}");
        }
    }

    #[test]
    fn fits_only_in_its_time() {
        let seconds = Duration::from_secs;
        let fault = Fault::new(Step::Mail, Action::Drop).between(seconds(2)..seconds(4));
        let fits = [0, 1, 2, 3, 4, 5].map(|age| fault.fits(&event(Step::Mail, None, &[]), seconds(age)));
        assert_eq!(fits, [false, false, true, true, false, false]);
    }

    #[test]
    fn fits_only_whom_it_names() {
        let script = Script::default();
        script.set(vec![Fault::new(Step::Rcpt, Action::Drop).account("hve01@contoso.com").recipient("x@y")]);
        let [both, other] = ["X@y", "z@y"].map(|address| [address.parse::<Mailbox>().expect("an address")]);
        assert!(script.due(&event(Step::Rcpt, Some("HVE01@contoso.com"), &both)).is_some());
        for missed in [
            event(Step::Rcpt, Some("hve02@contoso.com"), &both),
            event(Step::Rcpt, None, &both),
            event(Step::Rcpt, Some("hve01@contoso.com"), &other),
            event(Step::Data, Some("hve01@contoso.com"), &both),
        ] {
            assert!(script.due(&missed).is_none());
        }
    }

    #[test]
    fn the_first_in_turn_acts_and_all_count() {
        let script = Script::default();
        script.set(vec![Fault::reply(Step::Mail, "451 a").first(1), Fault::reply(Step::Mail, "452 b").first(2)]);
        let replies: Vec<_> = (0..3).map(|_| script.due(&event(Step::Mail, None, &[])).map(|fault| fault.action)).collect();
        assert_eq!(replies, [Some(Action::Reply("451 a".into())), Some(Action::Reply("452 b".into())), None]);
    }
}
