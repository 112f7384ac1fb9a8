//! What an application remembers between requests: its token, or why there is none. Pure: time comes in as an argument.
//!
//! A token has three ages. *Fresh*: it is the answer. *Due*: it is still the answer, and one renewal is under way, so that nobody waits for a
//! token while there is one. *Spent*: it is too near its end to log in with, or to keep a connection that did; who asks then waits for the
//! renewal. A fault is remembered briefly and is the answer to everybody who would otherwise make the same request again.

use std::time::{Duration, Instant};

use super::answer::Grant;
use super::app::App;
use crate::reply::{PauseLength, TokenFault};
use crate::secret::Secret;

/// A token that can be logged in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub(super) secret: Secret,
    /// Which of its application's tokens it is.
    number: u64,
    since: Instant,
    due: Instant,
    spent: Instant,
}

impl Token {
    /// When a connection that was opened with it must be closed: the server may end it, or hold its mail back, when the token ends.
    pub fn spent_at(&self) -> Instant {
        self.spent
    }

    /// The token itself.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// What is to be told, once for each change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// There is a new token that lives so long.
    Fetched {
        /// From the request on.
        life: Duration,
    },
    /// There is none, or no new one. Said again only when the kind of trouble has changed, or after a token has come in between.
    Failed {
        /// Why.
        fault: TokenFault,
        /// The present token can still be used for so long.
        left: Option<Duration>,
    },
}

/// What somebody gets who asks for a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    With(Token),
    Without(TokenFault),
    /// A request is under way.
    Wait,
}

#[derive(Debug)]
pub(super) struct Memory {
    renew_before: Duration,
    remember_passing: Duration,
    remember_refusal: Duration,
    token: Option<Token>,
    fault: Option<(TokenFault, Instant)>,
    fetching: bool,
    issued: u64,
    /// The trouble that was told last: whether somebody must act. None: there was none, or it is over.
    told: Option<bool>,
}

impl Memory {
    pub fn new(app: &App) -> Self {
        let App { renew_before, remember_passing, remember_refusal, .. } = *app;
        Self { renew_before, remember_passing, remember_refusal, token: None, fault: None, fetching: false, issued: 0, told: None }
    }

    /// Somebody asks. If the second is true, the caller must make a request, and tell its end to [`Self::ended`].
    pub fn ask(&mut self, now: Instant) -> (Answered, bool) {
        self.fault.take_if(|(_, until)| now >= *until);
        let token = self.token.as_ref().filter(|token| now < token.spent);
        let fresh = token.is_some_and(|token| now < token.due);
        let fetch = !fresh && !self.fetching && self.fault.is_none();
        self.fetching |= fetch;
        let answered = match (token, &self.fault) {
            (Some(token), _) => Answered::With(token.clone()),
            (None, Some((fault, _))) => Answered::Without(fault.clone()),
            (None, None) => Answered::Wait,
        };
        (answered, fetch)
    }

    /// A request that was begun at `begun` has ended.
    pub fn ended(&mut self, begun: Instant, now: Instant, result: Result<Grant, TokenFault>) -> Option<News> {
        self.fetching = false;
        match result {
            Ok(Grant { token, life }) => {
                let margin = self.renew_before.min(life / 2);
                let end = begun + life;
                self.issued += 1;
                self.token = Some(Token { secret: token, number: self.issued, since: now, due: end - margin, spent: end - margin / 2 });
                (self.fault, self.told) = (None, None);
                Some(News::Fetched { life })
            }
            Err(fault) => {
                let remembered = match fault.pause {
                    PauseLength::For(length) => length,
                    PauseLength::BackOff | PauseLength::FewerConnections => self.remember_passing,
                    PauseLength::Suspended => self.remember_refusal,
                };
                let acts = Some(fault.pause == PauseLength::Suspended);
                let left = self.token.as_ref().map(|token| token.spent.saturating_duration_since(now)).filter(|left| !left.is_zero());
                self.fault = Some((fault.clone(), now + remembered));
                (std::mem::replace(&mut self.told, acts) != acts).then_some(News::Failed { fault, left })
            }
        }
    }

    /// A server has refused this token; it is used no more. One that is younger than `least` stays: a fresh one would be refused as well.
    pub fn refused(&mut self, refused: &Token, now: Instant, least: Duration) {
        self.token.take_if(|token| token.number == refused.number && now.saturating_duration_since(token.since) >= least);
    }

    /// For how long the present token can still be used; nothing without one.
    pub fn left(&self, now: Instant) -> Duration {
        self.token.as_ref().map_or(Duration::ZERO, |token| token.spent.saturating_duration_since(now))
    }

    /// The operator has put something right: the next who asks makes a request.
    pub fn forgive(&mut self) {
        self.fault = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::AppName;
    use crate::upstream::oauth::{ClientProof, SecretPlace};

    const MINUTE: Duration = Duration::from_secs(60);

    fn memory() -> (Memory, Instant) {
        let app = App {
            name: AppName::new("hve"),
            client_id: String::new(),
            token_url: "https://login.example/t".parse().expect("an address"),
            scope: String::new(),
            proof: ClientProof::Secret(SecretPlace::Variable(String::new())),
            secret_ends: None,
            renew_before: 20 * MINUTE,
            tls_ca_file: None,
            time_limit: MINUTE,
            remember_passing: Duration::from_secs(5),
            remember_refusal: Duration::from_secs(30),
        };
        (Memory::new(&app), Instant::now())
    }

    fn grant(life: Duration) -> Result<Grant, TokenFault> {
        Ok(Grant { token: Secret::new("t".to_owned()), life })
    }

    fn fault(pause: PauseLength) -> TokenFault {
        TokenFault { reason: format!("{pause:?}"), pause, advice: String::new() }
    }

    fn number(answered: &Answered) -> Option<u64> {
        match answered {
            Answered::With(token) => Some(token.number),
            _ => None,
        }
    }

    #[test]
    fn one_asks_and_the_others_wait() {
        let (mut memory, start) = memory();
        assert_eq!(memory.ask(start), (Answered::Wait, true));
        for _ in 0..3 {
            assert_eq!(memory.ask(start + MINUTE), (Answered::Wait, false));
        }
        assert_eq!(memory.ended(start, start + MINUTE, grant(60 * MINUTE)), Some(News::Fetched { life: 60 * MINUTE }));
        let (answered, fetch) = memory.ask(start + MINUTE);
        assert_eq!((number(&answered), fetch), (Some(1), false));
    }

    #[test]
    fn a_token_is_renewed_early_and_used_until_the_new_one_is_there() {
        let (mut memory, start) = memory();
        memory.ask(start);
        memory.ended(start, start, grant(60 * MINUTE));
        let asked = |memory: &mut Memory, minute: u32| {
            let (answered, fetch) = memory.ask(start + minute * MINUTE);
            (number(&answered), fetch)
        };
        assert_eq!(asked(&mut memory, 39), (Some(1), false));
        assert_eq!(asked(&mut memory, 40), (Some(1), true), "due, and asked for once");
        assert_eq!(asked(&mut memory, 41), (Some(1), false));
        assert_eq!(asked(&mut memory, 50), (None, false), "spent");
        memory.ended(start + 40 * MINUTE, start + 50 * MINUTE, grant(60 * MINUTE));
        assert_eq!(asked(&mut memory, 51), (Some(2), false));
        assert_eq!(asked(&mut memory, 80), (Some(2), true), "its life began with the request");
    }

    #[test]
    fn of_a_short_life_half_is_used() {
        let (mut memory, start) = memory();
        memory.ask(start);
        memory.ended(start, start, grant(10 * MINUTE));
        let (Answered::With(token), false) = memory.ask(start + 4 * MINUTE) else { panic!("a fresh token") };
        assert_eq!(token.spent_at(), start + 10 * MINUTE - 150 * Duration::from_secs(1));
        assert!(memory.ask(start + 5 * MINUTE).1);
    }

    #[test]
    fn a_fault_is_the_answer_for_a_while_and_told_once() {
        for (pause, seconds) in [(PauseLength::BackOff, 5), (PauseLength::Suspended, 30), (PauseLength::For(Duration::from_secs(17)), 17)] {
            let (mut memory, start) = memory();
            let length = Duration::from_secs(seconds);
            memory.ask(start);
            assert_eq!(memory.ended(start, start, Err(fault(pause))), Some(News::Failed { fault: fault(pause), left: None }));
            assert_eq!(memory.ask(start + length - Duration::from_millis(1)), (Answered::Without(fault(pause)), false));
            assert_eq!(memory.ask(start + length), (Answered::Wait, true));
            assert_eq!(memory.ended(start, start + length, Err(fault(pause))), None, "the same trouble is not told again");
            memory.ask(start + 2 * length);
            memory.ended(start, start + 2 * length, grant(60 * MINUTE));
            memory.ask(start + 59 * MINUTE);
            assert!(memory.ended(start, start + 59 * MINUTE, Err(fault(pause))).is_some(), "after a token it is news again");
        }
    }

    #[test]
    fn a_renewal_that_fails_leaves_the_token_in_use() {
        let (mut memory, start) = memory();
        memory.ask(start);
        memory.ended(start, start, grant(60 * MINUTE));
        let at = start + 45 * MINUTE;
        assert!(memory.ask(at).1);
        let news = memory.ended(at, at, Err(fault(PauseLength::BackOff)));
        assert_eq!(news, Some(News::Failed { fault: fault(PauseLength::BackOff), left: Some(5 * MINUTE) }));
        let (answered, fetch) = memory.ask(at);
        assert_eq!((number(&answered), fetch), (Some(1), false));
        assert!(memory.ask(at + Duration::from_secs(5)).1);
    }

    #[test]
    fn a_refused_token_is_dropped_and_no_later_one() {
        let (mut memory, start) = memory();
        memory.ask(start);
        memory.ended(start, start, grant(60 * MINUTE));
        let (Answered::With(first), _) = memory.ask(start) else { panic!("a token") };
        memory.refused(&first, start + MINUTE, 5 * MINUTE);
        assert!(matches!(memory.ask(start + MINUTE), (Answered::With(_), false)), "too young to be the cause");
        memory.refused(&first, start + MINUTE, Duration::ZERO);
        assert_eq!(memory.ask(start + MINUTE), (Answered::Wait, true));
        memory.ended(start, start + MINUTE, grant(60 * MINUTE));
        memory.refused(&first, start + MINUTE, Duration::ZERO);
        assert_eq!(number(&memory.ask(start + MINUTE).0), Some(2));
    }

    #[test]
    fn what_the_operator_put_right_is_tried_at_once() {
        let (mut memory, start) = memory();
        memory.ask(start);
        memory.ended(start, start, Err(fault(PauseLength::Suspended)));
        memory.forgive();
        assert_eq!(memory.ask(start), (Answered::Wait, true));
    }
}
