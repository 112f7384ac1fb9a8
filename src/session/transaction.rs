//! A mail transaction: what MAIL and RCPT have said until now.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::intake::Addressee;
use crate::smtp::{MailParameters, Mailbox, ReversePath};

/// Up to here a look at each recipient is cheaper than a table.
const FEW: usize = 8;

/// Between MAIL and the end of data.
#[derive(Debug)]
pub(super) struct Transaction {
    pub reverse_path: ReversePath,
    pub parameters: MailParameters,
    pub recipients: Vec<Addressee>,
    /// RCPT was said at least once, though it may have been refused.
    pub had_recipients: bool,
    /// A recipient was refused for now, and may be accepted later.
    pub had_deferred: bool,
    /// The most octets that can be sent to all of them.
    pub limit: u64,
    /// A hash of each recipient, once there are many.
    seen: HashSet<u64>,
}

impl Transaction {
    /// No recipient yet; `limit` is the most octets that can be sent to any.
    pub(super) fn new(reverse_path: ReversePath, parameters: MailParameters, limit: u64) -> Self {
        Self { reverse_path, parameters, recipients: Vec::new(), had_recipients: false, had_deferred: false, limit, seen: HashSet::new() }
    }

    /// Whether this recipient has been accepted before. Equal hashes only lead to a closer look, so that nobody gains by making them.
    pub(super) fn has(&self, mailbox: &Mailbox) -> bool {
        (self.recipients.len() <= FEW || self.seen.contains(&hash(mailbox)))
            && self.recipients.iter().any(|known| known.address == *mailbox)
    }

    /// Accepts a recipient that is not there yet, and that so many octets can be sent to.
    pub(super) fn add(&mut self, recipient: Addressee, limit: u64) {
        self.limit = self.limit.min(limit);
        if self.recipients.len() == FEW {
            self.seen.extend(self.recipients.iter().map(|known| hash(&known.address)));
        }
        if self.recipients.len() >= FEW {
            self.seen.insert(hash(&recipient.address));
        }
        self.recipients.push(recipient);
    }
}

fn hash(mailbox: &Mailbox) -> u64 {
    let mut hasher = DefaultHasher::new();
    mailbox.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Class;
    use crate::smtp::RecipientDsn;

    #[test]
    fn knows_each_recipient_again_however_many_there_are() {
        let mut transaction = Transaction::new(ReversePath::Null, MailParameters::default(), 1_000);
        for number in 0..3 * FEW {
            let mailbox: Mailbox = format!("r{number}@contoso.com").parse().expect("a mailbox");
            assert!(!transaction.has(&mailbox));
            transaction.add(Addressee { address: mailbox, class: Class::Internal, dsn: RecipientDsn::default() }, 1_000);
            for known in 0..=number {
                assert!(transaction.has(&format!("r{known}@CONTOSO.com").parse().expect("a mailbox")), "{known} of {number}");
            }
        }
    }
}
