//! Whose fault it is that a server refuses a message for good and nobody knows why: the message's, or the account's.
//!
//! One refusal cannot tell. Such a message stays queued and is tried again, on another account at once where there is one. It is *the message's*
//! fault when it is refused so again although an account that had refused it has taken other mail since: an attempt that began after the refusal, and
//! ended before the new one began. That account was well. It is *the account's*
//! trouble when it refuses several messages so, one after the other, and takes nothing in between: the account is suspended, and what it has said of
//! any message counts no more. Two accounts that refuse the same message prove nothing, as long as neither takes anything: the tenant may be stopped.
//! Where nothing else is sent the message waits, at the longest until it is too old, and its author is told of the delay.
//!
//! Limits: of very many such messages the oldest are forgotten first; and what is remembered goes with a restart. It is not worth a write to disk with
//! each message that is taken: without it a message waits for one refusal more, an account for three more, and nothing fails that should not.

use std::collections::{BTreeMap, HashMap};

use crate::clock::Timestamp;
use crate::mail::{AccountName, QueueId};

/// So many different messages in a row are not all to blame.
const ROW: usize = 3;
/// Messages that are remembered.
const MESSAGES: usize = 10_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Suspicions {
    /// The messages that an account has refused since it took one last.
    rows: HashMap<AccountName, Vec<QueueId>>,
    messages: BTreeMap<QueueId, Vec<Refusal>>,
}

/// That an account has refused a message.
#[derive(Debug)]
struct Refusal {
    account: AccountName,
    /// When first.
    at: Timestamp,
    /// When it was known that it had taken another since.
    well_at: Option<Timestamp>,
}

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The message's: it fails.
    Message,
    /// Nobody knows yet.
    Unclear,
    /// The account's: it has refused so many messages in a row.
    Account(usize),
}

impl Suspicions {
    /// An account took a message, in an attempt that had begun at `started`.
    pub fn took(&mut self, now: Timestamp, started: Timestamp, account: &AccountName, message: QueueId) {
        self.messages.remove(&message);
        self.rows.remove(account);
        // Few messages are refused so: mostly there is none.
        for refusal in self.messages.values_mut().flatten().filter(|refusal| refusal.account == *account && refusal.at < started) {
            refusal.well_at.get_or_insert(now);
        }
    }

    /// An account refused a message for good, in words that nobody knows, and took it for nobody, in an attempt that had begun at `started`: what was
    /// under way when a stopped tenant was let go on is no message's fault.
    pub fn refused(&mut self, now: Timestamp, started: Timestamp, account: &AccountName, message: QueueId) -> Blame {
        let refusals = self.messages.entry(message).or_default();
        if refusals.iter().any(|refusal| refusal.well_at.is_some_and(|well_at| well_at < started)) {
            self.messages.remove(&message);
            return Blame::Message;
        }
        if !refusals.iter().any(|refusal| refusal.account == *account) {
            refusals.push(Refusal { account: account.clone(), at: now, well_at: None });
        }
        if self.messages.len() > MESSAGES {
            self.messages.pop_first();
        }
        let row = self.rows.entry(account.clone()).or_default();
        if !row.contains(&message) {
            row.push(message);
        }
        if row.len() < ROW {
            return Blame::Unclear;
        }
        let count = std::mem::take(row).len();
        self.messages.retain(|_, refusals| {
            refusals.retain(|refusal| refusal.account != *account);
            !refusals.is_empty()
        });
        Blame::Account(count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_795_285_881_000) + Duration::from_secs(seconds)
    }

    fn account(number: u32) -> AccountName {
        AccountName::new(format!("hve{number}@contoso.com"))
    }

    fn id(number: i64) -> QueueId {
        QueueId::from_number(number).expect("positive")
    }

    fn took(s: &mut Suspicions, seconds: u64, number: u32, message: i64) {
        s.took(at(seconds), at(seconds), &account(number), id(message));
    }

    /// Refused in an attempt that began at that moment.
    fn refused(s: &mut Suspicions, seconds: u64, number: u32, message: i64) -> Blame {
        s.refused(at(seconds), at(seconds), &account(number), id(message))
    }

    #[test]
    fn a_message_that_alone_is_refused_again_and_again_is_to_blame() {
        let mut s = Suspicions::default();
        took(&mut s, 0, 1, 1);
        assert_eq!(refused(&mut s, 1, 1, 2), Blame::Unclear, "the account may have fallen ill just now");
        assert_eq!(refused(&mut s, 2, 2, 2), Blame::Unclear, "and the tenant with it");
        took(&mut s, 3, 1, 3);
        assert_eq!(refused(&mut s, 60, 2, 2), Blame::Message, "account 1 was well, and had refused it");
    }

    #[test]
    fn an_account_that_refuses_several_messages_in_a_row_is_to_blame() {
        let mut s = Suspicions::default();
        assert_eq!(refused(&mut s, 1, 1, 1), Blame::Unclear);
        assert_eq!(refused(&mut s, 2, 1, 1), Blame::Unclear, "the same one says nothing new");
        assert_eq!(refused(&mut s, 3, 1, 2), Blame::Unclear);
        assert_eq!(refused(&mut s, 4, 1, 3), Blame::Account(3));
        // When it is well again, what it had said before is no evidence.
        took(&mut s, 5, 1, 4);
        assert_eq!(refused(&mut s, 6, 2, 1), Blame::Unclear);
        assert_eq!(refused(&mut s, 7, 1, 2), Blame::Unclear);
    }

    #[test]
    fn a_success_in_between_ends_the_row() {
        let mut s = Suspicions::default();
        for round in 0..20 {
            assert_eq!(refused(&mut s, 10 * round, 1, 100 + 2 * round as i64), Blame::Unclear);
            assert_eq!(refused(&mut s, 10 * round + 1, 1, 101 + 2 * round as i64), Blame::Unclear);
            took(&mut s, 10 * round + 2, 1, 1);
        }
    }

    #[test]
    fn a_tenant_that_is_stopped_bounces_nothing() {
        let mut s = Suspicions::default();
        (1..=4).for_each(|number| took(&mut s, 0, number, 1));
        for minute in 1..1_000 {
            for message in 2..20 {
                let blame = refused(&mut s, 60 * minute, 1 + message as u32 % 4, message);
                assert_ne!(blame, Blame::Message, "nothing was taken since");
            }
        }
    }

    #[test]
    fn what_was_under_way_when_a_tenant_was_let_go_on_is_no_messages_fault() {
        let mut s = Suspicions::default();
        assert_eq!(refused(&mut s, 1, 1, 2), Blame::Unclear);
        // What an account took had begun before it fell ill.
        s.took(at(2), at(1), &account(1), id(4));
        assert_eq!(refused(&mut s, 3, 1, 2), Blame::Unclear);
        took(&mut s, 10, 1, 3);
        assert_eq!(s.refused(at(11), at(9), &account(2), id(2)), Blame::Unclear, "it had begun before");
        assert_eq!(s.refused(at(20), at(19), &account(2), id(2)), Blame::Message);
    }

    #[test]
    fn memory_is_bounded() {
        let mut s = Suspicions::default();
        for number in 0..30_000 {
            refused(&mut s, number as u64, number as u32 % 50, number);
        }
        assert!(s.messages.len() <= MESSAGES && s.rows.values().all(|row| row.len() < ROW));
    }
}
