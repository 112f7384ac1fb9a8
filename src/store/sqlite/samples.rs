//! Messages for this room's unit tests.

use crate::clock::Timestamp;
use crate::mail::{Class, ClientName, Delivery, DeliveryId, Kind, Message, Priority, QueueId, Recipient, RouteName};
use crate::smtp::{MessageDsn, RecipientDsn, ReversePath};

/// A message with one delivery for each of `recipients`, which says how many are in it.
pub(super) fn message(number: i64, recipients: &[u16]) -> (Message, Vec<Delivery>) {
    let id = QueueId::from_number(number).expect("a queue id");
    let message = Message {
        id,
        accepted_at: Timestamp::from_millis(1_795_285_881_042),
        kind: Kind::Mail,
        client: ClientName::new("devices"),
        priority: Priority::High,
        peer: Some([192, 0, 2, 7].into()),
        reverse_path: ReversePath::Mailbox("scan@contoso.com".parse().expect("a mailbox")),
        author: None,
        subject: "Scan".into(),
        message_id: format!("<{id}@relay.example>"),
        size: 4,
        eight_bit: false,
        smtputf8: false,
        dsn: MessageDsn::default(),
    };
    let deliveries = (1..).zip(recipients).map(|(part, count)| delivery(DeliveryId { message: id, part }, *count)).collect();
    (message, deliveries)
}

fn delivery(id: DeliveryId, recipients: u16) -> Delivery {
    let recipient = |ordinal| Recipient {
        ordinal,
        address: format!("user{ordinal}@contoso.com").parse().expect("a mailbox"),
        dsn: RecipientDsn::default(),
    };
    Delivery {
        id,
        route: RouteName::new("hve"),
        class: Class::Internal,
        recipients: (0..recipients).map(recipient).collect(),
        attempts: 0,
        due: Timestamp::from_millis(1_795_285_881_042),
    }
}
