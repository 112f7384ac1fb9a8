//! Recipients that leave their delivery: each alone, because one of them spoils the message for all, or by another route, because this one does
//! not take them.
//!
//! The settlement that ends the attempt makes the new deliveries too, so that each recipient is in exactly one whatever happens. It comes to an
//! end: a recipient that is alone fails where it would have to part, and routes are gone through in one order, never back.

use crate::clock::Timestamp;
use crate::intake::Policy;
use crate::mail::{Delivery, DeliveryId, Message, Recipient};
use crate::reply::{Disposition, Judgement, Outcome, Rest};
use crate::store::history::Record;
use crate::store::{Parted, Spool};
use crate::telemetry;

use super::dispatch::Event;
use super::{Shared, attempt};

/// Who parts after an attempt. Whoever goes by another route has not failed, which is said in the judgement. What is to back off is due at the
/// first time, what is a new start at the second.
pub(super) fn of(
    policy: &Policy,
    message: &Message,
    delivery: &Delivery,
    judgement: &mut Judgement,
    (due, now): (Timestamp, Timestamp),
) -> Vec<Parted> {
    let ordinal = |place: &usize| delivery.recipients.get(*place).map(|recipient| recipient.ordinal);
    let apart = |(place, outcome): (usize, &Outcome)| {
        let ordinal = ordinal(&place).filter(|_| outcome.disposition == Disposition::Deferred)?;
        Some(Parted { ordinals: vec![ordinal], route: delivery.route.clone(), due })
    };
    let mut parted: Vec<Parted> = match judgement.rest {
        Rest::Apart => judgement.outcomes.iter().enumerate().filter_map(apart).collect(),
        Rest::Together | Rest::Held => Vec::new(),
    };
    if let Some(way) = policy.way_behind(&delivery.route, &message.client, delivery.class, message.size) {
        for place in &judgement.misrouted {
            judgement.outcomes[*place].disposition = Disposition::Deferred;
        }
        let ordinals: Vec<u16> = judgement.misrouted.iter().filter_map(ordinal).collect();
        let chunks = ordinals.chunks(way.most(delivery.class));
        parted.extend(chunks.map(|ordinals| Parted { ordinals: ordinals.to_vec(), route: way.name.clone(), due: now }));
    }
    parted
}

/// What follows from the record of it: the log hears of it, the scheduler gets the new deliveries. Returns what is to be remembered.
pub(super) fn recorded<S: Spool>(
    shared: &Shared<S>,
    message: &Message,
    delivery: &Delivery,
    attempts: u32,
    parted: impl Iterator<Item = (Parted, Option<u16>)>,
) -> Option<Record> {
    let new = |(Parted { ordinals, route, due }, part): (Parted, Option<u16>)| {
        let among = |recipient: &&Recipient| ordinals.contains(&recipient.ordinal);
        let recipients = delivery.recipients.iter().filter(among).cloned().collect();
        let id = DeliveryId { message: message.id, part: part? };
        Some(Delivery { id, route, class: delivery.class, recipients, attempts, due })
    };
    let new: Vec<Delivery> = parted.filter_map(new).collect();
    if new.is_empty() {
        return None;
    }
    new.iter().for_each(|new| telemetry::parted(delivery.id, new, &message.client));
    shared.tell(Event::Add(new.iter().map(|new| attempt::queued(message, new)).collect()));
    Some(Record::Parted(Box::new((message.clone(), new))))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::intake::{ClientSettings, RouteSettings, Settings};
    use crate::mail::{Class, ClientName, Kind, Priority, QueueId, RouteName};
    use crate::reply::{Catalogue, Cause, End, Report, Step, Trouble, judge};
    use crate::smtp::{MessageDsn, RecipientDsn, Reply, ReversePath};

    const DUE: Timestamp = Timestamp::from_millis(2_000);
    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn policy() -> Policy {
        let route = |name: &str| RouteSettings::new(RouteName::new(name), Class::ALL.to_vec());
        let mut connector = RouteSettings { message_size: 5_000, ..route("connector") };
        connector.recipients_per_delivery = 2;
        let clients = vec![ClientSettings::new(ClientName::new("devices"), Vec::new())];
        Policy::new(Settings { routes: vec![route("hve"), connector], clients, ..Settings::default() })
    }

    fn delivery(message: &Message, route: &str, recipients: u16) -> Delivery {
        let recipient = |i| Recipient {
            ordinal: 2 * i,
            address: format!("user{i}@fabrikam.example").parse().expect("a mailbox"),
            dsn: RecipientDsn::default(),
        };
        let (id, route) = (DeliveryId { message: message.id, part: 1 }, RouteName::new(route));
        Delivery { id, route, class: Class::External, recipients: (0..recipients).map(recipient).collect(), attempts: 0, due: NOW }
    }

    fn message(size: u64) -> Message {
        Message {
            id: QueueId::from_number(7).expect("positive"),
            accepted_at: NOW,
            kind: Kind::Mail,
            client: ClientName::new("devices"),
            priority: Priority::Normal,
            peer: None,
            reverse_path: ReversePath::Null,
            author: None,
            subject: String::new(),
            message_id: String::new(),
            size,
            eight_bit: false,
            smtputf8: false,
            dsn: MessageDsn::default(),
        }
    }

    fn reply(line: &str) -> Reply {
        Reply::parse([line]).expect(line)
    }

    /// Who parts from five recipients of `route` that the server answers so at RCPT; and the dispositions.
    fn parted(route: &str, size: u64, replies: [&str; 5]) -> (Vec<Parted>, Vec<Disposition>) {
        let message = message(size);
        let delivery = delivery(&message, route, 5);
        let report = Report { recipients: replies.map(|line| Some(reply(line))).to_vec(), end: End::Accepted(reply("250 2.0.0 OK")) };
        let mut judgement = judge(Catalogue::builtin(), &report, delivery.class);
        let parted = of(&policy(), &message, &delivery, &mut judgement, (DUE, NOW));
        (parted, judgement.outcomes.iter().map(|outcome| outcome.disposition).collect())
    }

    #[test]
    fn who_is_not_taken_here_goes_by_the_next_route_in_its_portions() {
        use Disposition::{Deferred, Failed, Sent};
        let outside = "550 5.5.105 External sending is not supported for High Volume Email accounts";
        let replies = [outside, "250 2.1.5 OK", outside, "550 5.1.1 unknown", outside];
        let by_connector = |ordinals: &[u16]| Parted { ordinals: ordinals.to_vec(), route: RouteName::new("connector"), due: NOW };
        let expected = vec![by_connector(&[0, 4]), by_connector(&[8])];
        assert_eq!(parted("hve", 5_000, replies), (expected, vec![Deferred, Sent, Deferred, Failed, Deferred]));
        for (route, size) in [("hve", 5_001), ("connector", 10), ("gone", 10)] {
            assert_eq!(parted(route, size, replies), (Vec::new(), vec![Failed, Sent, Failed, Failed, Failed]), "{route} {size}");
        }
    }

    #[test]
    fn where_one_spoils_the_message_each_goes_alone_and_alone_fails() {
        let spoilt = || Trouble { step: Step::EndOfData, cause: Cause::Reply(reply("550 5.7.703 blocked")) };
        for count in [1, 3] {
            let message = message(10);
            let delivery = delivery(&message, "hve", count);
            let accepted = Some(reply("250 2.1.5 OK"));
            let report = Report { recipients: vec![accepted; usize::from(count)], end: End::Stopped(spoilt()) };
            let mut judgement = judge(Catalogue::builtin(), &report, delivery.class);
            let parted = of(&policy(), &message, &delivery, &mut judgement, (DUE, NOW));
            let alone: Vec<_> = parted.iter().map(|parted| (parted.ordinals.as_slice(), parted.route.as_str(), parted.due)).collect();
            let dispositions: HashSet<Disposition> = judgement.outcomes.iter().map(|outcome| outcome.disposition).collect();
            if count == 1 {
                assert_eq!((alone, dispositions), (Vec::new(), HashSet::from([Disposition::Failed])));
            } else {
                assert_eq!(alone, [(&[0][..], "hve", DUE), (&[2], "hve", DUE), (&[4], "hve", DUE)]);
                assert_eq!(dispositions, HashSet::from([Disposition::Deferred]));
            }
        }
    }
}
