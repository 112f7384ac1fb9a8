//! Whose fault it is that a server refuses a message for good and nobody knows why: the message's, or the account's.
//!
//! One refusal cannot tell. Such a message stays queued and is tried again, on another account at once where there is one. It is *the message's*
//! fault when it is refused so again although an account that had refused it has taken other mail since: that account was well. It is *the account's*
//! trouble when it refuses several messages so, one after the other, and takes nothing in between: the account is suspended, and what it has said of
//! any message counts no more. Two accounts that refuse the same message prove nothing, as long as neither takes anything: the tenant may be stopped.
//! Where nothing else is sent the message waits, at the longest until it is too old, and its author is told of the delay.
//!
//! Limits: what is remembered goes with a restart, and then takes one more attempt; of very many such messages the oldest are forgotten first.

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
    accounts: HashMap<AccountName, Record>,
    /// Which accounts refused a message first when.
    messages: BTreeMap<QueueId, Vec<(AccountName, Timestamp)>>,
}

#[derive(Debug, Default)]
struct Record {
    /// When it took a message last.
    took_at: Option<Timestamp>,
    /// The messages that it has refused since.
    row: Vec<QueueId>,
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
    /// An account took a message.
    pub fn took(&mut self, now: Timestamp, account: &AccountName, message: QueueId) {
        self.messages.remove(&message);
        match self.accounts.get_mut(account) {
            Some(record) => (record.took_at, record.row) = (Some(now), Vec::new()),
            None => drop(self.accounts.insert(account.clone(), Record { took_at: Some(now), row: Vec::new() })),
        }
    }

    /// An account refused a message for good, in words that nobody knows, and took it for nobody.
    pub fn refused(&mut self, now: Timestamp, account: &AccountName, message: QueueId) -> Blame {
        let well_since = |(account, at): &(AccountName, Timestamp)| {
            self.accounts.get(account).and_then(|record| record.took_at).is_some_and(|took_at| took_at > *at)
        };
        if self.messages.get(&message).is_some_and(|refusals| refusals.iter().any(well_since)) {
            self.messages.remove(&message);
            return Blame::Message;
        }
        let refusals = self.messages.entry(message).or_default();
        if !refusals.iter().any(|(other, _)| other == account) {
            refusals.push((account.clone(), now));
        }
        if self.messages.len() > MESSAGES {
            self.messages.pop_first();
        }
        let row = &mut self.accounts.entry(account.clone()).or_default().row;
        if !row.contains(&message) {
            row.push(message);
        }
        if row.len() < ROW {
            return Blame::Unclear;
        }
        let count = std::mem::take(row).len();
        self.messages.retain(|_, refusals| {
            refusals.retain(|(other, _)| other != account);
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

    #[test]
    fn a_message_that_alone_is_refused_again_and_again_is_to_blame() {
        let mut s = Suspicions::default();
        s.took(at(0), &account(1), id(1));
        assert_eq!(s.refused(at(1), &account(1), id(2)), Blame::Unclear, "the account may have fallen ill just now");
        assert_eq!(s.refused(at(2), &account(2), id(2)), Blame::Unclear, "and the tenant with it");
        s.took(at(3), &account(1), id(3));
        assert_eq!(s.refused(at(60), &account(2), id(2)), Blame::Message, "account 1 was well, and had refused it");
    }

    #[test]
    fn an_account_that_refuses_several_messages_in_a_row_is_to_blame() {
        let mut s = Suspicions::default();
        assert_eq!(s.refused(at(1), &account(1), id(1)), Blame::Unclear);
        assert_eq!(s.refused(at(2), &account(1), id(1)), Blame::Unclear, "the same one says nothing new");
        assert_eq!(s.refused(at(3), &account(1), id(2)), Blame::Unclear);
        assert_eq!(s.refused(at(4), &account(1), id(3)), Blame::Account(3));
        // When it is well again, what it had said before is no evidence.
        s.took(at(5), &account(1), id(4));
        assert_eq!(s.refused(at(6), &account(2), id(1)), Blame::Unclear);
        assert_eq!(s.refused(at(7), &account(1), id(2)), Blame::Unclear);
    }

    #[test]
    fn a_success_in_between_ends_the_row() {
        let mut s = Suspicions::default();
        for round in 0..20 {
            assert_eq!(s.refused(at(10 * round), &account(1), id(100 + 2 * round as i64)), Blame::Unclear);
            assert_eq!(s.refused(at(10 * round + 1), &account(1), id(101 + 2 * round as i64)), Blame::Unclear);
            s.took(at(10 * round + 2), &account(1), id(1));
        }
    }

    #[test]
    fn a_tenant_that_is_stopped_bounces_nothing() {
        let mut s = Suspicions::default();
        (1..=4).for_each(|number| s.took(at(0), &account(number), id(1)));
        for minute in 1..1_000 {
            for message in 2..20 {
                let blame = s.refused(at(60 * minute), &account(1 + message as u32 % 4), id(message));
                assert_ne!(blame, Blame::Message, "nothing was taken since");
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut s = Suspicions::default();
        for number in 0..30_000 {
            s.refused(at(number as u64), &account(number as u32 % 50), id(number));
        }
        assert!(s.messages.len() <= MESSAGES && s.accounts.values().all(|record| record.row.len() < ROW));
    }
}
