//! What every spool must do beside the journey of a message: keep what is used, do what an operator says, and show the queue.

use std::time::Duration;

use hve_relay::mail::{AccountName, Action, Class, ClientName, Delivery, DeliveryId, Gathered, Message, Reported, RouteName};
use hve_relay::smtp::{EnhancedStatus, Mailbox};
use hve_relay::store::{
    Ailment, AlarmRow, Anchor, Bookkeeping, BudgetRow, Gathering, Incoming, Ledger, Letter, Listed, Parted, Settled, Settlement, Spool,
    Standing, Suspended, Telling,
};

use super::{Bed, deferred, first, notice, queued, told};
use crate::samples::{accept, content, id, is_intact, message, now, settled, start};

pub async fn what_is_used_of_budgets_is_kept_line_by_line(bed: impl Bed) {
    let spool = bed.open();
    let steps = [
        // Of the tenant, of two accounts, of two limits, of two lines: all are apart.
        (
            vec![
                used("", "day", 0, 10),
                used("a", "day", 0, 11),
                used("b", "day", 0, 12),
                used("b", "rate", 0, 13),
                used("b", "day", 1, 14),
            ],
            5,
        ),
        (vec![used("a", "day", 0, 20), used("b", "day", 0, 0)], 4),
        (vec![used("a", "day", 0, 30), used("a", "day", 0, 31), used("b", "day", 7, 0), used("b", "rate", 0, 0)], 3),
        (vec![], 3),
    ];
    let anchor = Anchor { boot_id: "boot".into(), boot: 1, at: now(), ahead: 0 };
    for (budget, lines) in steps {
        spool.keep_ledger(Bookkeeping::Changed(budget)).await.expect("kept");
        assert_eq!(spool.ledger().await.expect("served").budget.len(), lines);
    }
    drop(spool);
    let spool = bed.open();
    let expected = vec![used("", "day", 0, 10), used("a", "day", 0, 31), used("b", "day", 1, 14)];
    assert_eq!(spool.ledger().await.expect("served").budget, expected);
    let in_flight = vec![BudgetRow { at: None, ..used("c", "day", 2, 7) }];
    spool.keep_ledger(Bookkeeping::Anew(in_flight.clone(), anchor)).await.expect("kept");
    assert_eq!(spool.ledger().await.expect("served").budget, in_flight, "these are all there are");
}

pub async fn where_the_clocks_stand_is_kept(bed: impl Bed) {
    let spool = bed.open();
    assert_eq!(spool.ledger().await, Ok(Ledger::default()));
    let anchor = |boot_id: &str, boot, ahead| {
        let at = now() + Duration::from_millis(boot as u64);
        Anchor { boot_id: boot_id.into(), boot, at, ahead }
    };
    let budget = vec![used("", "day", 3, 5), used("a", "day", 3, 5)];
    spool.keep_ledger(Bookkeeping::Anew(budget.clone(), anchor("first", 1_000, -7))).await.expect("kept");
    assert_eq!(spool.ledger().await, Ok(Ledger { budget, anchor: Some(anchor("first", 1_000, -7)), ..Ledger::default() }));
    // Also where attempts begin; and what changes later belongs to the same anchor.
    let budget = vec![used("a", "day", 4, 6), used("a", "day", 5, 1)];
    let starting = spool.start(Vec::new(), now(), Bookkeeping::Anew(budget, anchor("second", 20, 3_600_000))).await;
    assert_eq!(starting.expect("handed over").await, Ok(Vec::new()));
    spool.keep_ledger(Bookkeeping::Changed(vec![used("a", "day", 5, 0)])).await.expect("kept");
    drop(spool);
    let ledger = bed.open().ledger().await.expect("served");
    let (budget, anchor) = (vec![used("a", "day", 4, 6)], Some(anchor("second", 20, 3_600_000)));
    assert_eq!(ledger, Ledger { budget, anchor, ..Ledger::default() });
}

pub async fn accounts_stay_suspended_until_they_are_resumed(bed: impl Bed) {
    let account = |number: i64| AccountName::new(format!("hve0{number}@contoso.com"));
    let suspended = |number, until, reason: &str| Suspended { account: account(number), until, reason: reason.into() };
    let spool = bed.open();
    for number in 1..=3 {
        spool.suspend(suspended(number, Some(now()), "migration")).await.expect("recorded");
    }
    spool.suspend(suspended(1, None, "für immer")).await.expect("recorded, in place of what was said before");
    spool.resume(&account(2)).await.expect("recorded");
    spool.resume(&account(7)).await.expect("it was not suspended");
    drop(spool);
    let left = bed.open().ledger().await.expect("served").suspended;
    assert_eq!(left, [suspended(1, None, "für immer"), suspended(3, Some(now()), "migration")]);
}

pub async fn what_was_learned_of_accounts_is_kept_whole_with_its_clock(bed: impl Bed) {
    let anchor = |boot: i64| Anchor { boot_id: "first".into(), boot, at: now(), ahead: -7 };
    let ailment = |holder: &str, about: &str, using: Option<u32>| Ailment {
        holder: holder.into(),
        about: about.into(),
        since: now(),
        met: now() + Duration::from_secs(1),
        until: now() + Duration::from_secs(1_200),
        level: 3,
        logins: 2,
        passed: using.is_none(),
        using,
        scope: "account".into(),
        length: "suspended".into(),
        lasts: using.map(|_| Duration::from_millis(86_400_001)),
        every: using.map(|_| Duration::from_secs(300)),
        limit: using.map(|_| "recipients_per_day".into()),
        step: "auth".into(),
        kind: "authentication-failed".into(),
        reason: "AUTH: 535 5.7.3 für immer".into(),
        advice: "Act.".into(),
    };
    let all = [
        ailment("account hve01@contoso.com", "", None),
        ailment("account hve01@contoso.com", "connections", Some(3)),
        ailment("tenant", "external", None),
    ];
    let spool = bed.open();
    spool.keep_health(all.to_vec(), anchor(1)).await.expect("recorded");
    drop(spool);
    let spool = bed.open();
    let ledger = spool.ledger().await.expect("served");
    assert_eq!((&ledger.health[..], ledger.health_anchor, ledger.anchor), (&all[..], Some(anchor(1)), None));
    spool.keep_health(all[2..].to_vec(), anchor(2)).await.expect("recorded");
    let ledger = spool.ledger().await.expect("served");
    assert_eq!((&ledger.health[..], ledger.health_anchor), (&all[2..], Some(anchor(2))), "in place of all that was known");
}

pub async fn alarms_are_kept_with_the_mail_that_tells_of_them(bed: impl Bed) {
    let alarm = |name: &str, cleared, told| AlarmRow { name: name.into(), since: now(), why: "für immer".into(), cleared, told };
    let spool = bed.open();
    spool.keep_alarms(vec![alarm("disk-low", None, false), alarm("queue-old", Some(now()), true)], None).await.expect("recorded");
    spool.keep_alarms(vec![alarm("disk-low", None, true)], Some(notice(id(7), 700))).await.expect("recorded");
    drop(spool);
    let spool = bed.open();
    assert_eq!(spool.ledger().await.expect("served").alarms, [alarm("disk-low", None, true)], "in place of all that were");
    assert_eq!(queued(&spool).await.iter().map(|queued| queued.id).collect::<Vec<_>>(), [first(7)]);
    assert!(is_intact(&spool.load(first(7)).await.expect("served").expect("found")));
    // The name of a mail that is there already is not taken again, and then nothing is recorded.
    assert!(spool.keep_alarms(Vec::new(), Some(notice(id(7), 100))).await.is_err());
    assert_eq!(spool.ledger().await.expect("served").alarms.len(), 1);
}

fn gathered(number: i64, reader: &str) -> Gathered {
    let far = number % 2 == 0;
    let recipient = Reported {
        address: format!("jürgen{number}@contoso.com").parse().expect("a mailbox"),
        orcpt: if far { "rfc822;j+2B1@contoso.com".parse().ok() } else { None },
        action: if far { Action::Delayed } else { Action::Failed },
        status: EnhancedStatus::new(5, 1, 10),
        diagnostic: "550 5.1.10 für immer".into(),
        remote_mta: far.then(|| "smtp.example".into()),
        last_attempt: far.then(now),
    };
    Gathered {
        reader: reader.parse().expect("a mailbox"),
        at: now() + Duration::from_secs(number as u64),
        message: id(number),
        client: ClientName::new("erp"),
        accepted_at: now(),
        subject: "Rechnung für Sie".into(),
        envid: far.then(|| "PO 7".into()),
        recipient,
    }
}

pub async fn what_is_gathered_comes_with_the_settlement_and_goes_with_the_digest(bed: impl Bed) {
    let (erp, other): (Mailbox, Mailbox) = ("erp@contoso.com".parse().expect("a mailbox"), "other@contoso.com".parse().expect("a mailbox"));
    let spool = bed.open();
    for number in 1..=5 {
        accept(&spool, id(number), 100, &[1]).await.expect("accepted");
        let reader = if number == 3 { other.as_str() } else { erp.as_str() };
        let telling = Telling { notices: Vec::new(), gathered: vec![gathered(number, reader)] };
        let settlement = Settlement { telling, ..settled(first(number), &[0]) };
        spool.settle(settlement.clone()).await.expect("settled");
        spool.settle(settlement).await.expect("settled before");
    }
    drop(spool);
    let spool = bed.open();
    let since = |number| now() + Duration::from_secs(number);
    let all =
        [Gathering { reader: erp.clone(), count: 4, since: since(1) }, Gathering { reader: other.clone(), count: 1, since: since(3) }];
    assert_eq!(spool.ledger().await.expect("served").gathering, all);

    let (found, mark) = spool.gathered(&erp, 3).await.expect("served");
    assert_eq!(found, [1, 2, 4].map(|number| gathered(number, "erp@contoso.com")));
    spool.digest(&erp, mark, Some(notice(id(9), 700))).await.expect("recorded");
    assert_eq!(queued(&spool).await.iter().map(|queued| queued.id).collect::<Vec<_>>(), [first(9)]);
    let (found, mark) = spool.gathered(&erp, 3).await.expect("served");
    assert_eq!(found, [gathered(5, "erp@contoso.com")]);
    spool.digest(&erp, mark, None).await.expect("recorded");
    assert_eq!(spool.gathered(&erp, 3).await, Ok((Vec::new(), 0)));
    assert_eq!(spool.ledger().await.expect("served").gathering, all[1..]);
}

pub async fn a_delay_is_told_once(bed: impl Bed) {
    let spool = bed.open();
    for number in [1, 2, 4] {
        accept(&spool, id(number), 100, &[1, 2]).await.expect("accepted");
    }
    spool.settle(Settlement { telling: told(notice(id(3), 100)), ..settled(first(2), &[0]) }).await.expect("settled");
    let part = |number, part| DeliveryId { message: id(number), part };
    let delayed = async |limit| {
        let found = spool.delayed(now() + Duration::from_millis(1), limit).await.expect("served");
        found.into_iter().map(|listed| (listed.delivery.id, listed.delivery.recipients.len())).collect::<Vec<_>>()
    };
    // Of a notice nobody is warned.
    let all = [(part(1, 1), 1), (part(1, 2), 2), (part(2, 2), 2), (part(4, 1), 1), (part(4, 2), 2)];
    assert_eq!((delayed(9).await, delayed(2).await), (all.to_vec(), all[..2].to_vec()));
    assert_eq!(spool.delayed(now(), 9).await, Ok(Vec::new()), "none is older");

    for (number, told_of) in [(7, true), (8, false)] {
        let telling = Telling { notices: vec![notice(id(number), 700)], gathered: vec![gathered(number, "erp@contoso.com")] };
        assert_eq!(spool.warn(part(1, 2), telling).await, Ok(told_of));
    }
    assert_eq!(spool.warn(part(2, 1), told(notice(id(8), 700))).await, Ok(false), "it is settled");
    assert_eq!(delayed(9).await, [all[0], all[2], all[3], all[4]]);
    drop(spool);
    let spool = bed.open();
    assert_eq!(spool.delayed(now() + Duration::from_secs(1), 9).await.expect("served").len(), 4);
    assert!(spool.load(first(7)).await.expect("served").is_some() && spool.load(first(8)).await.expect("served").is_none());
    assert_eq!(spool.ledger().await.expect("served").gathering.len(), 1);
}

pub async fn what_is_held_stays_held_until_it_is_released(bed: impl Bed) {
    let spool = bed.open();
    for number in 1..=3 {
        accept(&spool, id(number), 100, &[1, 1]).await.expect("accepted");
    }
    let second = DeliveryId { message: id(2), part: 2 };
    spool.hold(vec![first(1), second, first(3), first(9)], true).await.expect("recorded; one is not there");
    spool.hold(vec![first(3)], false).await.expect("recorded");
    spool.hold(vec![], true).await.expect("nothing");
    spool.settle(deferred(first(1))).await.expect("settled: that is no release");
    drop(spool);
    let spool = bed.open();
    let held: Vec<_> = queued(&spool).await.into_iter().filter(|queued| queued.held).map(|queued| queued.id).collect();
    assert_eq!(held, [first(1), second]);
    let listed: Vec<_> = listed(&spool, 100).await.into_iter().filter(|listed| listed.held).map(|listed| listed.delivery.id).collect();
    assert_eq!(listed, held);
    assert!(start(&spool, second, 1, vec![]).await.is_some(), "who holds it back is not the store");
}

pub async fn what_is_rerouted_goes_there_also_after_a_restart(bed: impl Bed) {
    let spool = bed.open();
    for number in 1..=2 {
        accept(&spool, id(number), 100, &[1, 2]).await.expect("accepted");
    }
    let (second, route) = (DeliveryId { message: id(1), part: 2 }, RouteName::new("connector"));
    let move_of = |delivery| (delivery, route.clone(), Class::External);
    spool.reroute(vec![move_of(second), move_of(first(2)), move_of(first(9))]).await.expect("recorded; one is not there");
    // Also of one that was accepted a moment ago.
    let job = start(&spool, first(2), 1, vec![]).await.expect("begun");
    assert_eq!((&job.delivery.route, job.delivery.class), (&route, Class::External));
    drop(spool);
    let spool = bed.open();
    let moved: Vec<_> = queued(&spool).await.into_iter().filter(|queued| queued.route == route).collect();
    assert_eq!(
        moved.iter().map(|queued| (queued.id, queued.class)).collect::<Vec<_>>(),
        [(second, Class::External), (first(2), Class::External)]
    );
    let listed = listed(&spool, 100).await;
    assert_eq!(listed.iter().filter(|listed| listed.delivery.route == route).count(), 2);
    assert_eq!(listed.iter().map(|listed| listed.delivery.recipients.len()).sum::<usize>(), 6, "nobody is lost");
}

pub async fn the_end_of_an_attempt_can_hold_and_tells_of_doubt(bed: impl Bed) {
    let spool = bed.open();
    for number in 1..=3 {
        accept(&spool, id(number), 100, &[2]).await.expect("accepted");
    }
    let doubtful =
        |number, hold: Option<&str>| Settlement { hold: hold.map(str::to_owned), in_doubt: true, ..settled(first(number), &[0]) };
    spool.settle(doubtful(1, Some("who knows"))).await.expect("settled");
    spool.settle(doubtful(2, None)).await.expect("settled");
    spool.settle(doubtful(2, None)).await.expect("settled");
    // An operator holds it: the end of an attempt does not let it go.
    spool.hold(vec![first(3)], true).await.expect("recorded");
    spool.settle(settled(first(3), &[0])).await.expect("settled");
    drop(spool);
    let spool = bed.open();
    let found = |listed: Vec<Listed>| -> Vec<(bool, String, u32)> {
        listed.into_iter().map(|listed| (listed.held, listed.hold_reason, listed.doubts)).collect()
    };
    let expected = [(true, "who knows".to_owned(), 1), (false, String::new(), 2), (true, String::new(), 0)];
    assert_eq!(found(listed(&spool, 10).await), expected);
    assert_eq!(queued(&spool).await.iter().map(|queued| queued.held).collect::<Vec<_>>(), [true, false, true]);
    // Released, or held by an operator: the old reason is gone.
    spool.hold(vec![first(1)], false).await.expect("recorded");
    assert_eq!(found(listed(&spool, 10).await)[0], (false, String::new(), 1));
    spool.hold(vec![first(1)], true).await.expect("recorded");
    assert_eq!(found(listed(&spool, 10).await)[0], (true, String::new(), 1));
}

pub async fn a_removed_delivery_is_gone_and_its_message_with_the_last(bed: impl Bed) {
    let spool = bed.open();
    for (number, size) in [(1, 100), (2, 100_000)] {
        accept(&spool, id(number), size, &[2, 1]).await.expect("accepted");
        let second = DeliveryId { message: id(number), part: 2 };
        assert!(start(&spool, second, 1, vec![]).await.is_some());
        assert_eq!(spool.remove(first(number)).await, Ok(false));
        assert_eq!(spool.remove(first(number)).await, Ok(false), "it is not there any more");
        assert_eq!(start(&spool, first(number), 1, vec![]).await, None);
        assert!(is_intact(&spool.load(second).await.expect("served").expect("still there")));
        assert_eq!(spool.remove(second).await, Ok(true), "although it is under way");
        assert_eq!(spool.remove(second).await, Ok(false));
        let late = Settlement { telling: told(notice(id(7), 10)), ..settled(second, &[0]) };
        assert_eq!(spool.settle(late).await, Ok(Settled::default()), "the end of that changes nothing");
    }
    assert_eq!(spool.remove(first(9)).await, Ok(false), "it was never there");
    drop(spool);
    assert_eq!(queued(&bed.open()).await, []);
}

pub async fn the_last_reply_is_that_of_the_last_attempt(bed: impl Bed) {
    let spool = bed.open();
    accept(&spool, id(1), 100, &[3]).await.expect("accepted");
    assert_eq!(listed(&spool, 1).await[0].last_reply, "", "before the first");
    for (ordinals, reply) in [(&[][..], "451 4.7.500 Server busy"), (&[0], "452 4.5.3 Zu viele Empfänger"), (&[1], "")] {
        spool.settle(Settlement { last_reply: reply.into(), ..settled(first(1), ordinals) }).await.expect("settled");
        assert_eq!(listed(&spool, 1).await[0].last_reply, reply);
    }
}

pub async fn a_listing_comes_in_pages_oldest_first(bed: impl Bed) {
    let spool = bed.open();
    assert_eq!(spool.list(None, 10).await, Ok(vec![]));
    // The oldest is not the first to be accepted.
    for number in [4, 1, 3, 0, 2] {
        accept(&spool, id(number), 100, &[3, 1, 2]).await.expect("accepted");
    }
    spool.settle(settled(first(3), &[1])).await.expect("settled");
    spool.settle(settled(first(4), &[0, 1, 2])).await.expect("settled");
    let expected: Vec<_> = queued(&spool).await.into_iter().map(|queued| queued.id).collect();
    assert_eq!(expected.len(), 14);
    for limit in [1, 2, 5, 13, 14, 15, usize::MAX] {
        let found = listed(&spool, limit).await;
        assert_eq!(found.iter().map(|listed| listed.delivery.id).collect::<Vec<_>>(), expected, "{limit} at a time");
        for Listed { message, delivery, held, hold_reason, doubts, last_reply } in found {
            let job = spool.load(delivery.id).await.expect("served").expect("found");
            assert_eq!((message, delivery), (job.message, job.delivery));
            assert_eq!((held, hold_reason.as_str(), doubts, last_reply.as_str()), (false, "", 0, ""));
        }
    }
    assert_eq!(spool.list(None, 0).await, Ok(vec![]));
}

pub async fn a_listing_goes_on_behind_what_has_gone(bed: impl Bed) {
    let spool = bed.open();
    for number in 1..=3 {
        accept(&spool, id(number), 100, &[1]).await.expect("accepted");
    }
    spool.remove(first(2)).await.expect("removed");
    let behind: Vec<_> = spool.list(Some(first(2)), 10).await.expect("served").into_iter().map(|listed| listed.delivery.id).collect();
    assert_eq!(behind, [first(3)]);
}

/// All that is queued, so many at a time.
async fn listed(spool: &impl Spool, limit: usize) -> Vec<Listed> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let page = spool.list(all.last().map(|last| last.delivery.id), limit).await.expect("served");
        assert!(page.len() <= limit);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// A line of a ledger; without a name it is the tenant's.
fn used(account: &str, limit: &str, index: u32, amount: u32) -> BudgetRow {
    let at = Some(now() + Duration::from_secs(u64::from(amount)));
    BudgetRow { account: (!account.is_empty()).then(|| AccountName::new(account)), limit: limit.into(), index, at, amount }
}

pub async fn recipients_part_into_deliveries_of_their_own(bed: impl Bed) {
    let spool = bed.open();
    accept(&spool, id(1), 40_000, &[5, 1]).await.expect("accepted");
    let part = |part| DeliveryId { message: id(1), part };
    let parted = |ordinals: &[u16], route: &str, seconds| Parted {
        ordinals: ordinals.to_vec(),
        route: RouteName::new(route),
        due: now() + Duration::from_secs(seconds),
    };
    start(&spool, part(1), 5, Vec::new()).await.expect("there");
    let settlement = Settlement {
        parted: vec![parted(&[1, 3], "connector", 0), parted(&[2], "hve", 60), parted(&[0], "connector", 0)],
        last_reply: "550 5.5.105 not here".into(),
        ..settled(part(1), &[0])
    };
    // What is settled does not part, and what had a number never gives it to another.
    let expected = Settled { last: false, parted: vec![Some(3), Some(4), None] };
    assert_eq!(spool.settle(settlement.clone()).await, Ok(expected));
    assert_eq!(spool.settle(settlement).await.map(|again| again.parted), Ok(vec![None; 3]), "once");
    spool.settle(settled(part(4), &[2])).await.expect("settled");
    let alone = Settlement { parted: vec![parted(&[4], "hve", 0)], ..settled(part(1), &[]) };
    assert_eq!(spool.settle(alone).await, Ok(Settled { last: false, parted: vec![Some(9)] }));

    drop(spool);
    let spool = bed.open();
    let listed = spool.list(None, 10).await.expect("listed");
    let shown = |it: &Listed| {
        let ordinals: Vec<u16> = it.delivery.recipients.iter().map(|recipient| recipient.ordinal).collect();
        (it.delivery.id.part, it.delivery.route.to_string(), ordinals, it.last_reply.clone())
    };
    let reply = "550 5.5.105 not here".to_owned();
    assert_eq!(
        listed.iter().map(shown).collect::<Vec<_>>(),
        [
            (2, "hve".to_owned(), vec![0], String::new()),
            (3, "connector".to_owned(), vec![1, 3], reply),
            (9, "hve".to_owned(), vec![4], String::new()),
        ],
        "the delivery that everybody has left is gone"
    );
    let class = listed[0].delivery.class;
    assert!(listed[1..].iter().all(|it| it.delivery.class != class && it.delivery.attempts == 1 && !it.held));
    let job = start(&spool, part(3), 2, Vec::new()).await.expect("there");
    assert!(is_intact(&job) && job.delivery.recipients[1].address.as_str() == "user3@contoso.com");
    for (number, ordinals, last) in [(2, &[0][..], false), (3, &[1, 3], false), (9, &[4], true)] {
        assert_eq!(spool.settle(settled(part(number), ordinals)).await.map(|it| it.last), Ok(last));
    }
    assert_eq!(queued(&spool).await, []);
}

pub async fn what_is_brought_in_is_as_it_stood_and_comes_once(bed: impl Bed) {
    let spool = bed.open();
    for (number, size) in [(1, 700), (2, 300_001)] {
        let (message, deliveries) = message(id(number), size, &[2, 1]);
        let standing = |(i, mut delivery): (usize, Delivery)| {
            (delivery.attempts, delivery.due) = (7, now() + Duration::from_secs(60));
            let (held, hold_reason) = (i == 1, if i == 1 { "für immer".to_owned() } else { String::new() });
            Standing { delivery, held, hold_reason, doubts: 3, last_reply: "451 4.7.0 later".to_owned() }
        };
        let letter = Letter { message, parts: 9, deliveries: deliveries.into_iter().enumerate().map(standing).collect() };
        let come = async |letter: &Letter, octets: &[u8]| {
            let mut incoming = spool.begin(id(number), octets.len() as u64)?;
            incoming.write(octets).await?;
            spool.bring_in(letter.clone(), incoming).await
        };
        assert!(come(&letter, &content(id(number), size - 1)).await.is_err(), "a content of another length");
        let nobody = Letter { deliveries: Vec::new(), ..letter.clone() };
        assert!(come(&nobody, &content(id(number), size)).await.is_err(), "for nobody");
        assert_eq!(come(&letter, &content(id(number), size)).await, Ok(true));
        // The first stays, whatever comes later.
        let other = Letter { message: Message { size: 9, ..letter.message.clone() }, ..letter.clone() };
        assert_eq!(come(&other, b"something").await, Ok(false));
        let found: Vec<Listed> =
            spool.list(None, 10).await.expect("listed").into_iter().filter(|listed| listed.message.id == id(number)).collect();
        for (Listed { message, delivery, held, hold_reason, doubts, last_reply }, was) in found.iter().zip(&letter.deliveries) {
            let is = Standing {
                delivery: delivery.clone(),
                held: *held,
                hold_reason: hold_reason.clone(),
                doubts: *doubts,
                last_reply: last_reply.clone(),
            };
            assert_eq!((message, &is), (&letter.message, was));
        }
        assert_eq!(found.len(), 2);
        // Who parts from a delivery gets a number that none has had.
        let parted = vec![Parted { ordinals: vec![1], route: RouteName::new("hve"), due: now() }];
        let settled = spool.settle(Settlement { parted, ..settled(first(number), &[0]) }).await.expect("settled");
        assert_eq!(settled, Settled { last: false, parted: vec![Some(10)] });
    }
    drop(spool);
    let spool = bed.open();
    for queued in queued(&spool).await {
        let job = spool.load(queued.id).await.expect("served").expect("there");
        assert!(is_intact(&job), "{}", queued.id);
    }
}
