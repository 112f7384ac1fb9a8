//! Messages whose content follows from their id, so that it can be checked without having been kept.

use hve_relay::clock::Timestamp;
use hve_relay::mail::{
    AccountName, Class, ClientName, Content, Delivery, DeliveryId, Kind, Message, Priority, QueueId, Recipient, RouteName,
};
use hve_relay::smtp::{MessageDsn, RecipientDsn, Ret, ReversePath};
use hve_relay::store::{Bookkeeping, BudgetRow, Incoming, Job, Settlement, Spool, Start, Started, StoreError, Telling};

/// Sizes on both sides of each threshold, as a burst of mixed mail has them.
pub const SIZES: [usize; 10] = [700, 0, 4_096, 1, 32_768, 32_769, 2_000, 131_072, 300_001, 12];

pub fn now() -> Timestamp {
    Timestamp::from_millis(1_795_285_881_042)
}

pub fn id(number: i64) -> QueueId {
    QueueId::from_number(number).expect("a queue id")
}

/// The content of a message: octets that only this message has.
pub fn content(id: QueueId, size: usize) -> Vec<u8> {
    let mut state = (id.number() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut octets = Vec::with_capacity(size + 8);
    while octets.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        octets.extend_from_slice(&state.to_le_bytes());
    }
    octets.truncate(size);
    octets
}

/// A message with one delivery for each of `recipients`, which says how many are in it.
pub fn message(id: QueueId, size: usize, recipients: &[u16]) -> (Message, Vec<Delivery>) {
    let message = Message {
        id,
        accepted_at: now(),
        kind: Kind::Mail,
        client: ClientName::new("devices"),
        priority: Priority::ALL[id.number() as usize % 3],
        peer: Some([192, 0, 2, 7].into()),
        reverse_path: ReversePath::Mailbox("\"the scanner\"@mfp_3f.local".parse().expect("a mailbox")),
        author: Some("jürgen@müller.example".parse().expect("a mailbox")),
        subject: "Scan für Sie".into(),
        message_id: format!("<{id}@relay.example>"),
        size: size as u64,
        eight_bit: true,
        smtputf8: true,
        dsn: MessageDsn { ret: Some(Ret::Headers), envid: Some("Q 1".into()) },
    };
    let recipient = |ordinal| Recipient {
        ordinal,
        address: format!("user{ordinal}@contoso.com").parse().expect("a mailbox"),
        dsn: match ordinal % 3 {
            0 => RecipientDsn::default(),
            1 => RecipientDsn { notify: "NEVER".parse().ok(), orcpt: "rfc822;user+2B1@contoso.com".parse().ok() },
            _ => RecipientDsn { notify: "SUCCESS,DELAY".parse().ok(), orcpt: None },
        },
    };
    let delivery = |(part, count): (u16, &u16)| Delivery {
        id: DeliveryId { message: id, part },
        route: RouteName::new("hve"),
        class: if part == 1 { Class::Internal } else { Class::External },
        recipients: (0..*count).map(recipient).collect(),
        attempts: 0,
        due: now(),
    };
    (message, (1..).zip(recipients).map(delivery).collect())
}

/// Brings a message in and has it accepted.
pub async fn accept(spool: &impl Spool, id: QueueId, size: usize, recipients: &[u16]) -> Result<(), StoreError> {
    let (message, deliveries) = message(id, size, recipients);
    let mut incoming = spool.begin(id, size as u64)?;
    for piece in content(id, size).chunks(16_384) {
        incoming.write(piece).await?;
    }
    spool.accept(message, deliveries, incoming).await
}

/// Begins one attempt to so many recipients, which uses this; `None`: the delivery is not there.
pub async fn start(spool: &impl Spool, delivery: DeliveryId, recipients: u16, budget: Vec<BudgetRow>) -> Option<Job> {
    let start = Start { delivery, account: AccountName::new("hve01@contoso.com"), recipients };
    let started = spool.start(vec![start], now(), Bookkeeping::Changed(budget)).await.expect("handed over").await.expect("served");
    match <[Started; 1]>::try_from(started) {
        Ok([Started::Begun(job)]) => Some(*job),
        Ok([Started::Gone]) => None,
        other => panic!("{other:?}"),
    }
}

/// The end of an attempt after which these ordinals are settled.
pub fn settled(delivery: DeliveryId, ordinals: &[u16]) -> Settlement {
    let settled = ordinals.to_vec();
    Settlement {
        delivery,
        settled,
        parted: Vec::new(),
        due: now(),
        last_reply: String::new(),
        attempts: 1,
        telling: Telling::default(),
        hold: None,
        in_doubt: false,
    }
}

/// Whether the content is the one that belongs to the message.
pub fn is_intact(job: &Job) -> bool {
    let expected = content(job.message.id, job.message.size as usize);
    match &job.content {
        Content::Inline(octets) => *octets == expected,
        Content::File { path, len } => *len == job.message.size && std::fs::read(path).is_ok_and(|octets| octets == expected),
    }
}
