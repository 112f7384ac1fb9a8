//! By what a message can be found: one kind of term for everything, so that whoever searches need not say what it is that he has.
//!
//! The terms of a message are its Message-ID, its addresses, its client and that one's address, and the words of its subject: each without case
//! and without punctuation around it (`<a@B>` is `a@b`). The table has a hash of each; what it finds is held against the terms themselves.

use std::collections::BTreeSet;

use super::values::Past;
use crate::mail::{DeliveryId, QueueId};

/// Words of a subject that count, at most.
const WORDS: usize = 24;
/// The term that every message has which failed for somebody. No text has it, for it has no letter.
pub(super) const FAILED: &str = "!";

/// What is searched for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum What {
    /// Everything.
    #[default]
    All,
    /// The message of this name.
    Message(QueueId),
    /// What has all of these terms.
    Terms(Vec<String>),
}

impl What {
    /// From what somebody has of a message: a queue id, a Message-ID, an address, a client, or words of its subject. Nothing is everything.
    pub fn read(text: &str) -> Self {
        let id = || text.parse().or_else(|_| text.parse::<DeliveryId>().map(|delivery| delivery.message));
        match id() {
            Ok(id) => Self::Message(id),
            Err(_) => Self::words(text),
        }
    }

    /// The same for a text that looks like a queue id and is none.
    pub fn words(text: &str) -> Self {
        let terms: Vec<String> = text.split_whitespace().filter_map(term).take(WORDS).collect();
        if terms.is_empty() { Self::All } else { Self::Terms(terms) }
    }
}

/// The terms of a message.
pub(super) fn of(message: &Past) -> BTreeSet<String> {
    let mut terms = BTreeSet::new();
    let whole =
        [Some(&message.client), message.peer.as_ref(), Some(&message.reverse_path), message.author.as_ref(), Some(&message.message_id)];
    let recipients = message.deliveries.iter().flat_map(|delivery| delivery.recipients.iter().map(Option::as_ref));
    for text in whole.into_iter().chain(recipients).flatten() {
        terms.extend(text.split_whitespace().filter_map(term));
    }
    for word in message.subject.split_whitespace().take(WORDS) {
        terms.extend(term(word));
        // `scan-2026.pdf` is found by each of its parts too.
        terms.extend(word.split(|c: char| !c.is_alphanumeric()).filter_map(term));
    }
    terms
}

/// A word as it is compared; none if there is nothing in it.
fn term(word: &str) -> Option<String> {
    let term = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    (!term.is_empty()).then_some(term)
}

/// 48 bits of a term: FNV-1a, because what is in the file must mean the same in the next version.
pub(super) fn hash(term: &str) -> i64 {
    let hash = term.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3));
    ((hash >> 48 ^ hash) & 0xffff_ffff_ffff) as i64
}

/// The day of a message, as the table has it. It depends on the queue id alone, so that one order serves both.
pub(super) fn day(message: QueueId) -> i64 {
    message.time().as_millis().div_euclid(86_400_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_somebody_has_is_read() {
        let id = QueueId::from_number(1 << 50).expect("an id");
        assert_eq!(What::read(&id.to_string()), What::Message(id));
        assert_eq!(What::read(&format!("{id}.2")), What::Message(id));
        for (text, terms) in [
            ("<Scan-1@Copier.contoso.com>", vec!["scan-1@copier.contoso.com"]),
            ("  Monthly REPORT, ", vec!["monthly", "report"]),
            ("10.20.0.7", vec!["10.20.0.7"]),
            ("Größe", vec!["größe"]),
        ] {
            assert_eq!(What::read(text), What::Terms(terms.into_iter().map(str::to_owned).collect()), "{text}");
        }
        for nothing in ["", "  ", "...", FAILED] {
            assert_eq!(What::read(nothing), What::All, "{nothing:?}");
        }
    }

    #[test]
    fn hashes_stay_as_they_were_written() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325_u64 as i64 & 0xffff_ffff_ffff ^ 0xcbf2);
        assert_eq!(hash("a"), (0xaf63_dc4c_8601_ec8c_u64 as i64 & 0xffff_ffff_ffff) ^ 0xaf63);
    }
}
