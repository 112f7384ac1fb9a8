//! A message as it is taken out of a queue and brought into one: its envelope, which is written as JSON, and what that means.
//!
//! An envelope is of some time ago. What it names may have left since then, so that whoever brings it in says what becomes of that
//! ([`MayHaveLeft`]), and each of its deliveries counts as in doubt once more.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::mail::{Class, ClientName, Delivery, DeliveryId, Kind, Message, Priority, QueueId, Recipient, RouteName};
use crate::smtp::{Mailbox, MessageDsn, RecipientDsn, ReversePath};

/// The version of the envelope's form.
const FORMAT: u32 = 1;
/// By how much the clock of the relay that gave a message its queue id may be ahead.
const AHEAD: Duration = Duration::from_secs(86_400);

/// An envelope as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    pub(super) format: u32,
    pub(super) id: String,
    /// Milliseconds since the Unix epoch.
    pub(super) accepted_at: i64,
    /// `mail` or `notice`.
    pub(super) kind: String,
    pub(super) client: String,
    pub(super) priority: String,
    pub(super) peer: Option<String>,
    /// Empty for `<>`.
    pub(super) from: String,
    pub(super) author: Option<String>,
    pub(super) subject: String,
    pub(super) message_id: String,
    pub(super) size: u64,
    pub(super) eight_bit: bool,
    pub(super) smtputf8: bool,
    pub(super) ret: Option<String>,
    pub(super) envid: Option<String>,
    /// The highest number that a delivery got when recipients parted from theirs.
    pub(super) parts: u32,
    pub(super) deliveries: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    pub(super) part: u16,
    pub(super) route: String,
    pub(super) class: String,
    pub(super) attempts: u32,
    pub(super) due: i64,
    pub(super) held: bool,
    pub(super) hold_reason: String,
    pub(super) doubts: u32,
    /// An attempt is under way, or was cut off.
    pub(super) under_way: bool,
    pub(super) last_reply: String,
    pub(super) recipients: Vec<To>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct To {
    pub(super) ordinal: u16,
    pub(super) address: String,
    pub(super) notify: Option<String>,
    pub(super) orcpt: Option<String>,
}

/// What becomes of mail that may have left since it was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MayHaveLeft {
    /// It is held until an operator has found out.
    Hold,
    /// It is sent, and somebody may get it twice.
    Resend,
}

/// A message as it is brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The message.
    pub message: Message,
    /// The highest number that a delivery got when recipients parted from theirs.
    pub parts: u32,
    /// What is to be done with it.
    pub deliveries: Vec<Standing>,
}

/// A delivery as it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The delivery, with the recipients that were not settled.
    pub delivery: Delivery,
    /// It is held until an operator releases it.
    pub held: bool,
    /// Why, if it was not an operator who held it.
    pub hold_reason: String,
    /// How many attempts ended so that the upstream server may have the message although it did not say so.
    pub doubts: u32,
    /// What the last attempt came to, for its first deferred recipient.
    pub last_reply: String,
}

impl Envelope {
    /// Octets of an envelope in JSON: one has 50 recipients for each delivery, and at most some thousand of those.
    pub const LONGEST: u64 = 64 << 20;

    /// From its JSON.
    ///
    /// # Errors
    /// In words for the operator.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| format!("it is no envelope: {error}"))
    }

    /// The queue id, as it is written.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Octets of the content that belongs to it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The envelope of a message, to be filled with its deliveries.
    pub(super) fn of(message: Message, parts: u32, deliveries: Vec<Part>) -> Self {
        Self {
            format: FORMAT,
            id: message.id.to_string(),
            accepted_at: message.accepted_at.as_millis(),
            kind: if message.kind == Kind::Notice { "notice" } else { "mail" }.to_owned(),
            client: message.client.as_str().to_owned(),
            priority: message.priority.as_str().to_owned(),
            peer: message.peer.map(|peer| peer.to_string()),
            from: message.reverse_path.mailbox().map(|from| from.as_str().to_owned()).unwrap_or_default(),
            author: message.author.map(|author| author.as_str().to_owned()),
            subject: message.subject,
            message_id: message.message_id,
            size: message.size,
            eight_bit: message.eight_bit,
            smtputf8: message.smtputf8,
            ret: message.dsn.ret.map(|ret| ret.to_string()),
            envid: message.dsn.envid,
            parts,
            deliveries,
        }
    }
}

impl Letter {
    /// What an envelope means.
    ///
    /// # Errors
    /// In words for the operator.
    pub fn of(envelope: Envelope, now: Timestamp) -> Result<Self, String> {
        if envelope.format != FORMAT {
            return Err(format!("it is of form {}, and this program knows {FORMAT}", envelope.format));
        }
        let id: QueueId = envelope.id.parse().map_err(|_| format!("{:?} is no queue id", envelope.id))?;
        // Ids grow: behind one of the far future there would soon be none.
        if id.time() > now + AHEAD {
            return Err(format!("the queue id {id} is of {}, which is yet to come: is the clock right?", id.time()));
        }
        if envelope.deliveries.is_empty() || envelope.deliveries.iter().any(|part| part.recipients.is_empty()) {
            return Err("a delivery has no recipients".to_owned());
        }
        let mut numbers = HashSet::new();
        for part in &envelope.deliveries {
            if part.part == 0 || part.part == u16::MAX || !numbers.insert(part.part) {
                return Err(format!("{} is the number of no delivery, or of two", part.part));
            }
            let mut places = HashSet::new();
            if part.recipients.len() > usize::from(u16::MAX) || !part.recipients.iter().all(|to| places.insert(to.ordinal)) {
                return Err(format!("two recipients of delivery {} have one place", part.part));
            }
        }
        if envelope.parts >= u32::from(u16::MAX) {
            return Err(format!("no message has {} deliveries", envelope.parts));
        }
        let address = |text: &str| text.parse().map_err(|error| format!("{text:?} is no address: {error}"));
        let message = Message {
            id,
            accepted_at: Timestamp::from_millis(envelope.accepted_at),
            kind: if envelope.kind == "notice" { Kind::Notice } else { Kind::Mail },
            client: ClientName::new(envelope.client),
            priority: Priority::ALL.into_iter().find(|known| known.as_str() == envelope.priority).unwrap_or_default(),
            peer: envelope.peer.and_then(|peer| peer.parse().ok()),
            reverse_path: if envelope.from.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(address(&envelope.from)?) },
            author: envelope.author.as_deref().map(address).transpose()?,
            subject: envelope.subject,
            message_id: envelope.message_id,
            size: envelope.size,
            eight_bit: envelope.eight_bit,
            smtputf8: envelope.smtputf8,
            dsn: MessageDsn { ret: envelope.ret.and_then(|ret| ret.parse().ok()), envid: envelope.envid },
        };
        let standing = |part: Part| {
            let recipient = |to: &To| {
                let dsn = RecipientDsn {
                    notify: to.notify.as_deref().and_then(|notify| notify.parse().ok()),
                    orcpt: to.orcpt.as_deref().and_then(|orcpt| orcpt.parse().ok()),
                };
                Ok(Recipient { ordinal: to.ordinal, address: address(&to.address)?, dsn })
            };
            let recipients = part.recipients.iter().map(recipient).collect::<Result<Vec<_>, String>>()?;
            let class = if part.class == Class::External.as_str() { Class::External } else { Class::Internal };
            let (route, due) = (RouteName::new(part.route), Timestamp::from_millis(part.due));
            let id = DeliveryId { message: id, part: part.part };
            Ok(Standing {
                delivery: Delivery { id, route, class, recipients, attempts: part.attempts, due },
                held: part.held,
                hold_reason: if part.held { part.hold_reason } else { String::new() },
                doubts: part.doubts,
                last_reply: part.last_reply,
            })
        };
        let deliveries = envelope.deliveries.into_iter().map(standing).collect::<Result<Vec<_>, String>>()?;
        Ok(Self { message, parts: envelope.parts, deliveries })
    }

    /// It may have been delivered since it was written; `why` is what is said of what is held for that.
    pub fn doubt(&mut self, mail: MayHaveLeft, why: &str) {
        for standing in &mut self.deliveries {
            standing.doubts = standing.doubts.saturating_add(1);
            if mail == MayHaveLeft::Hold && !standing.held {
                (standing.held, standing.hold_reason) = (true, why.to_owned());
            }
        }
    }

    /// Leaves recipients out, and deliveries that have none then. Returns how many recipients they were.
    pub fn leave_out(&mut self, is_settled: impl Fn(&Mailbox) -> bool) -> usize {
        let mut left_out = 0;
        for Standing { delivery, .. } in &mut self.deliveries {
            let before = delivery.recipients.len();
            delivery.recipients.retain(|recipient| !is_settled(&recipient.address));
            left_out += before - delivery.recipients.len();
        }
        self.deliveries.retain(|standing| !standing.delivery.recipients.is_empty());
        left_out
    }

    /// How many recipients it is for.
    pub fn recipients(&self) -> usize {
        self.deliveries.iter().map(|standing| standing.delivery.recipients.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_285_881_042);

    fn envelope() -> Envelope {
        let to = |ordinal, address: &str| To { ordinal, address: address.to_owned(), notify: None, orcpt: None };
        let part = |part, recipients| Part {
            part,
            route: "hve".to_owned(),
            class: "internal".to_owned(),
            attempts: 2,
            due: 0,
            held: part == 2,
            hold_reason: "the reply".to_owned(),
            doubts: 0,
            under_way: false,
            last_reply: "451 4.7.0 later".to_owned(),
            recipients,
        };
        Envelope {
            format: FORMAT,
            id: "01KAF7N3W5Z2Q".to_owned(),
            accepted_at: 0,
            kind: "mail".to_owned(),
            client: "devices".to_owned(),
            priority: "bulk".to_owned(),
            peer: None,
            from: String::new(),
            author: None,
            subject: String::new(),
            message_id: String::new(),
            size: 4,
            eight_bit: false,
            smtputf8: false,
            ret: None,
            envid: None,
            parts: 2,
            deliveries: vec![part(1, vec![to(0, "a@contoso.com"), to(1, "b@contoso.com")]), part(2, vec![to(0, "c@contoso.com")])],
        }
    }

    #[test]
    fn what_is_wrong_with_an_envelope_is_said_in_words() {
        type Change = fn(&mut Envelope);
        let wrong: [(Change, &str); 10] = [
            (|it| it.format = 2, "this program knows 1"),
            (|it| it.id = "7".to_owned(), "\"7\" is no queue id"),
            (|it| it.id = "7ZZZZZZZZZZZZ".to_owned(), "which is yet to come"),
            (|it| it.parts = 65_535, "no message has 65535 deliveries"),
            (|it| it.deliveries.clear(), "no recipients"),
            (|it| it.deliveries[1].recipients.clear(), "no recipients"),
            (|it| it.deliveries[1].part = 1, "1 is the number of no delivery, or of two"),
            (|it| it.deliveries[0].part = 0, "0 is the number of no delivery"),
            (|it| it.deliveries[0].recipients[1].ordinal = 0, "have one place"),
            (|it| it.deliveries[0].recipients[1].address = "b".to_owned(), "\"b\" is no address"),
        ];
        for (change, says) in wrong {
            let mut envelope = envelope();
            change(&mut envelope);
            let why = Letter::of(envelope, NOW).expect_err(says);
            assert!(why.contains(says), "{why}");
        }
        assert!(Envelope::read(b"{}").expect_err("nothing").contains("it is no envelope"));
    }

    #[test]
    fn what_may_have_left_is_in_doubt_once_more_and_held_if_it_is_to_be() {
        let letter = Letter::of(envelope(), NOW).expect("a letter");
        let mut held = letter.clone();
        held.doubt(MayHaveLeft::Hold, "it may");
        let states: Vec<_> = held.deliveries.iter().map(|one| (one.held, one.hold_reason.as_str(), one.doubts)).collect();
        assert_eq!(states, [(true, "it may", 1), (true, "the reply", 1)]);
        let mut sent = letter;
        sent.doubt(MayHaveLeft::Resend, "it may");
        let states: Vec<_> = sent.deliveries.iter().map(|one| (one.held, one.hold_reason.as_str(), one.doubts)).collect();
        assert_eq!(states, [(false, "", 1), (true, "the reply", 1)], "what was held for a reason stays so");
    }

    #[test]
    fn who_is_settled_is_left_out_and_so_is_a_delivery_without_recipients() {
        let mut letter = Letter::of(envelope(), NOW).expect("a letter");
        assert_eq!(letter.leave_out(|address| ["b@contoso.com", "c@contoso.com"].contains(&address.as_str())), 2);
        assert_eq!((letter.recipients(), letter.deliveries.len()), (1, 1));
        assert_eq!(letter.deliveries[0].delivery.recipients[0].ordinal, 0);
    }
}
