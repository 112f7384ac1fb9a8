//! What every spool must do, written against the trait alone.

mod operations;

pub use operations::*;

use std::sync::Arc;
use std::time::Duration;

use hve_relay::mail::{AccountName, DeliveryId, InDoubt, Kind, QueueId, Queued};
use hve_relay::smtp::ReversePath;
use hve_relay::store::{Bookkeeping, BudgetRow, Incoming, NewMessage, Settlement, Spool, Start, Started, StoreError, Telling};

use crate::samples::{self, SIZES, accept, id, is_intact, now, settled, start};

/// Where the spool under test lives: it can be opened, dropped and opened again, and is then the same.
pub trait Bed {
    type Spool: Spool;

    fn open(&self) -> Self::Spool;
}

/// Makes a test of each case, on a fresh bed.
macro_rules! conformance {
    ($bed:expr) => {
        crate::conformance::conformance!($bed; what_is_accepted_is_found_again, pieces_of_any_size_make_the_same_content,
            what_is_not_accepted_leaves_nothing, what_is_brought_in_is_as_it_stood_and_comes_once, an_attempt_without_an_end_is_found_in_doubt, what_is_not_there_cannot_be_started,
            ordinals_stay_when_others_are_settled, a_message_goes_with_its_last_recipient, a_notice_comes_with_the_settlement,
            settling_twice_does_nothing, what_does_not_fit_is_refused, an_id_is_taken_once, what_cannot_be_settled_is_not_accepted,
            attempts_begin_together_with_what_they_use, many_at_once_are_all_kept, a_given_up_acceptance_does_no_harm, what_the_scheduler_must_know_is_found_again,
            what_is_used_of_budgets_is_kept_line_by_line,
            where_the_clocks_stand_is_kept, accounts_stay_suspended_until_they_are_resumed, what_is_held_stays_held_until_it_is_released,
            what_is_rerouted_goes_there_also_after_a_restart,
            the_end_of_an_attempt_can_hold_and_tells_of_doubt, a_removed_delivery_is_gone_and_its_message_with_the_last, the_last_reply_is_that_of_the_last_attempt,
            a_listing_comes_in_pages_oldest_first, a_listing_goes_on_behind_what_has_gone, alarms_are_kept_with_the_mail_that_tells_of_them,
            what_was_learned_of_accounts_is_kept_whole_with_its_clock,
            what_is_gathered_comes_with_the_settlement_and_goes_with_the_digest, a_delay_is_told_once, recipients_part_into_deliveries_of_their_own);
    };
    ($bed:expr; $($case:ident),+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            crate::conformance::$case($bed).await;
        })+
    };
}
pub(crate) use conformance;

pub async fn what_is_accepted_is_found_again(bed: impl Bed) {
    let spool = bed.open();
    for (number, size) in (1..).zip(SIZES) {
        accept(&spool, id(number), size, &[3, 1]).await.expect("accepted");
    }
    let as_accepted = queued(&spool).await;
    drop(spool);

    let spool = bed.open();
    let found = queued(&spool).await;
    assert_eq!(found, as_accepted);
    assert_eq!(found.len(), 2 * SIZES.len());
    assert!(found.is_sorted_by_key(|queued| queued.id), "oldest first");
    for (number, size) in (1..).zip(SIZES) {
        let (message, deliveries) = samples::message(id(number), size, &[3, 1]);
        for delivery in deliveries {
            let job = spool.load(delivery.id).await.expect("served").expect("found");
            assert!(is_intact(&job), "{size}");
            assert_eq!((job.message, job.delivery), (message.clone(), delivery));
        }
    }
}

pub async fn pieces_of_any_size_make_the_same_content(bed: impl Bed) {
    let spool = bed.open();
    for (number, piece) in (1..).zip([1_000, 32_768, 131_072, 131_071, 500_000]) {
        let (message, deliveries) = samples::message(id(number), 500_000, &[1]);
        let delivery = deliveries[0].id;
        let mut incoming = spool.begin(id(number), 10).expect("room; more may come than was announced");
        for octets in samples::content(id(number), 500_000).chunks(piece) {
            incoming.write(octets).await.expect("written");
        }
        spool.accept(message, deliveries, incoming).await.expect("accepted");
        assert!(is_intact(&spool.load(delivery).await.expect("served").expect("found")), "{piece}");
    }
}

pub async fn what_is_not_accepted_leaves_nothing(bed: impl Bed) {
    let spool = bed.open();
    for (number, size) in (1..).zip(SIZES) {
        let mut incoming = spool.begin(id(number), size as u64).expect("room");
        incoming.write(&samples::content(id(number), size)).await.expect("written");
    }
    assert_eq!(queued(&spool).await, []);
    drop(spool);
    assert_eq!(queued(&bed.open()).await, []);
}

pub async fn an_attempt_without_an_end_is_found_in_doubt(bed: impl Bed) {
    let spool = bed.open();
    let account = AccountName::new("hve01@contoso.com");
    for number in 1..=3 {
        accept(&spool, id(number), 100, &[3]).await.expect("accepted");
    }
    for number in 1..=2 {
        let job = start(&spool, first(number), 2, vec![]).await.expect("found");
        assert!(is_intact(&job));
        assert_eq!(job.delivery.recipients.len(), 3, "also those that it is not tried for");
    }
    spool.settle(deferred(first(2))).await.expect("settled");
    drop(spool);

    let doubts: Vec<_> = queued(&bed.open()).await.into_iter().map(|queued| queued.in_doubt).collect();
    assert_eq!(doubts[0], Some(InDoubt { account, started: now(), recipients: 2 }), "started and not settled");
    assert_eq!(doubts[1..], [None, None], "settled, and never started");
}

pub async fn what_is_not_there_cannot_be_started(bed: impl Bed) {
    let spool = bed.open();
    assert_eq!(start(&spool, first(1), 1, vec![]).await, None);
    accept(&spool, id(1), 100, &[1]).await.expect("accepted");
    assert_eq!(start(&spool, DeliveryId { message: id(1), part: 2 }, 1, vec![]).await, None);
    spool.settle(settled(first(1), &[0])).await.expect("settled without an attempt");
    assert_eq!(start(&spool, first(1), 1, vec![]).await, None);
    assert_eq!(spool.load(first(1)).await, Ok(None));
}

pub async fn attempts_begin_together_with_what_they_use(bed: impl Bed) {
    let spool = bed.open();
    for number in 1..=3 {
        accept(&spool, id(number), SIZES[number as usize], &[1, 2]).await.expect("accepted");
    }
    drop(spool);
    // Some are known from their acceptance, some must be read, and of some there is nothing any more.
    let spool = bed.open();
    for number in 4..=5 {
        accept(&spool, id(number), 40_000, &[1]).await.expect("accepted");
    }
    assert_eq!(spool.remove(first(4)).await, Ok(true));
    let row = |index, amount| BudgetRow { account: None, limit: "day".into(), index, at: None, amount };
    let (second, account) = (DeliveryId { message: id(2), part: 2 }, AccountName::new("hve01@contoso.com"));
    let wanted = [first(5), first(3), first(9), second, first(4)];
    let starts = wanted.map(|delivery| Start { delivery, account: account.clone(), recipients: delivery.part });
    let starting = spool.start(starts.to_vec(), now(), Bookkeeping::Changed(vec![row(0, 3), row(1, 5)])).await.expect("handed over");
    let started = starting.await.expect("served");
    for (delivery, started) in wanted.iter().zip(&started) {
        match started {
            Started::Begun(job) => assert!(job.delivery.id == *delivery && is_intact(job)),
            Started::Gone => assert!([first(9), first(4)].contains(delivery)),
            Started::Unreadable(why) => panic!("{delivery}: {why}"),
        }
    }
    assert_eq!(started.iter().filter(|started| matches!(started, Started::Begun(_))).count(), 3);
    drop(spool);
    let spool = bed.open();
    let begun: Vec<_> = queued(&spool).await.into_iter().filter_map(|queued| Some((queued.id, queued.in_doubt?.recipients))).collect();
    assert_eq!(begun, [(second, 2), (first(3), 1), (first(5), 1)]);
    assert_eq!(spool.ledger().await.expect("served").budget, [row(0, 3), row(1, 5)]);
}

pub async fn ordinals_stay_when_others_are_settled(bed: impl Bed) {
    let spool = bed.open();
    accept(&spool, id(1), 100, &[5]).await.expect("accepted");
    // Once without an attempt before, once after one: neither may bring back what is settled.
    for (settled, left) in [(vec![0, 2], vec![1, 3, 4]), (vec![3], vec![1, 4])] {
        let due = now() + Duration::from_secs(60);
        let settlement = Settlement { due, attempts: 7, ..samples::settled(first(1), &settled) };
        spool.settle(settlement).await.expect("settled");
        for job in [spool.load(first(1)).await.expect("served"), start(&spool, first(1), 1, vec![]).await] {
            let delivery = job.expect("found").delivery;
            assert_eq!(delivery.recipients.iter().map(|recipient| recipient.ordinal).collect::<Vec<_>>(), left);
            assert!(delivery.recipients.iter().all(|r| r.address.local_part() == format!("user{}", r.ordinal)));
            assert_eq!((delivery.due, delivery.attempts), (due, 7));
        }
        assert_eq!(usize::from(queued(&spool).await[0].recipients), left.len());
    }
}

pub async fn a_message_goes_with_its_last_recipient(bed: impl Bed) {
    let spool = bed.open();
    for (number, size) in [(1, 100), (2, 100_000)] {
        accept(&spool, id(number), size, &[2, 1]).await.expect("accepted");
        let second = DeliveryId { message: id(number), part: 2 };
        spool.settle(settled(first(number), &[1, 0])).await.expect("settled");
        assert_eq!(spool.load(first(number)).await, Ok(None));
        assert!(is_intact(&spool.load(second).await.expect("served").expect("still there")));
        spool.settle(settled(second, &[0])).await.expect("settled");
        assert_eq!(spool.load(second).await, Ok(None));
    }
    assert_eq!(queued(&spool).await, []);
    drop(spool);
    assert_eq!(queued(&bed.open()).await, []);
}

pub async fn a_notice_comes_with_the_settlement(bed: impl Bed) {
    let spool = bed.open();
    for (number, size) in [(1, 2_000), (3, 100_000)] {
        accept(&spool, id(number), 100, &[1]).await.expect("accepted");
        let notice = notice(id(number + 1), size);
        spool.settle(Settlement { telling: told(notice.clone()), ..settled(first(number), &[0]) }).await.expect("settled");
        let job = spool.load(first(number + 1)).await.expect("served").expect("queued");
        assert!(is_intact(&job));
        assert_eq!((job.message, job.delivery), (notice.message, notice.deliveries[0].clone()));
    }
    assert_eq!(queued(&spool).await.iter().map(|queued| queued.id).collect::<Vec<_>>(), [first(2), first(4)]);
}

pub async fn settling_twice_does_nothing(bed: impl Bed) {
    let spool = bed.open();
    accept(&spool, id(1), 100, &[1]).await.expect("accepted");
    let settlement = Settlement { telling: told(notice(id(2), 100)), ..settled(first(1), &[0]) };
    spool.settle(settlement.clone()).await.expect("settled");
    spool.settle(settled(first(2), &[0])).await.expect("the notice, too");
    spool.settle(settlement).await.expect("settled before");
    assert_eq!(queued(&spool).await, []);
}

pub async fn what_does_not_fit_is_refused(bed: impl Bed) {
    let spool = bed.open();
    assert!(matches!(spool.begin(id(1), u64::MAX / 2), Err(StoreError::Full(_))));
    accept(&spool, id(1), 100, &[1]).await.expect("what fits is taken");
}

pub async fn an_id_is_taken_once(bed: impl Bed) {
    let spool = bed.open();
    for (number, size) in [(1, 100), (2, 100_000)] {
        accept(&spool, id(number), size, &[1]).await.expect("accepted");
        for other in [50, 200_000] {
            let again = accept(&spool, id(number), other, &[1]).await;
            assert!(matches!(again, Err(StoreError::Unavailable(_))), "{size} {other}: {again:?}");
        }
        let job = spool.load(first(number)).await.expect("served").expect("found");
        assert!(job.message.size == size as u64 && is_intact(&job), "the first is unharmed");
    }
}

pub async fn what_cannot_be_settled_is_not_accepted(bed: impl Bed) {
    let spool = bed.open();
    for recipients in [&[][..], &[0], &[1, 0]] {
        let refused = accept(&spool, id(1), 100, recipients).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{recipients:?}: {refused:?}");
    }
    let (message, deliveries) = samples::message(id(2), 0, &[1]);
    let refused = spool.accept(message, deliveries, spool.begin(id(3), 0).expect("room")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "the content of another message: {refused:?}");
    assert_eq!(queued(&spool).await, []);
}

pub async fn many_at_once_are_all_kept(bed: impl Bed) {
    let spool = Arc::new(bed.open());
    let journey = |number: i64| {
        let spool = spool.clone();
        tokio::spawn(async move {
            let size = SIZES[number as usize % SIZES.len()];
            accept(&*spool, id(number), size, &[2]).await.expect("accepted");
            let job = start(&*spool, first(number), 1, vec![]).await.expect("found");
            assert!(is_intact(&job));
            let gone: &[u16] = if number % 3 == 0 { &[0, 1] } else { &[0] };
            spool.settle(settled(first(number), gone)).await.expect("settled");
        })
    };
    for journey in (1..=200).map(journey).collect::<Vec<_>>() {
        journey.await.expect("to its end");
    }
    let left: Vec<_> = queued(&*spool).await.into_iter().map(|queued| queued.id).collect();
    assert_eq!(left, (1..=200).filter(|number| number % 3 != 0).map(first).collect::<Vec<_>>());
}

/// A session that ends while its message is being accepted: the message is kept or not, but never in part.
pub async fn a_given_up_acceptance_does_no_harm(bed: impl Bed) {
    let spool = bed.open();
    for number in 1..=60 {
        let size = if number % 2 == 0 { 1_000 } else { 200_000 };
        // Each acceptance is given up after another number of polls.
        let mut polls = number / 2;
        let accepting = std::pin::pin!(accept(&spool, id(number), size, &[1]));
        let mut accepting = accepting;
        let _ = std::future::poll_fn(|context| {
            polls -= 1;
            match accepting.as_mut().poll(context) {
                std::task::Poll::Ready(outcome) => std::task::Poll::Ready(Some(outcome)),
                std::task::Poll::Pending if polls <= 0 => std::task::Poll::Ready(None),
                std::task::Poll::Pending => std::task::Poll::Pending,
            }
        })
        .await;
    }
    drop(spool);
    let spool = bed.open();
    for queued in queued(&spool).await {
        assert!(is_intact(&spool.load(queued.id).await.expect("served").expect("found")));
    }
    accept(&spool, id(100), 200_000, &[1]).await.expect("and the next is accepted");
}

pub async fn what_the_scheduler_must_know_is_found_again(bed: impl Bed) {
    let spool = bed.open();
    for number in 1..=3 {
        accept(&spool, id(number), 100, &[3, 1]).await.expect("accepted");
    }
    for queued in queued(&spool).await {
        let (message, deliveries) = samples::message(queued.id.message, 100, &[3, 1]);
        let delivery = &deliveries[usize::from(queued.id.part) - 1];
        let expected = Queued {
            id: delivery.id,
            client: message.client,
            priority: message.priority,
            author: message.author,
            held: false,
            route: delivery.route.clone(),
            class: delivery.class,
            recipients: delivery.recipients.len() as u16,
            size: 100,
            accepted_at: message.accepted_at,
            due: delivery.due,
            attempts: 0,
            in_doubt: None,
        };
        assert_eq!(queued, expected);
    }
}

pub async fn queued(spool: &impl Spool) -> Vec<Queued> {
    let mut all = Vec::new();
    spool.queued(|queued| all.push(queued)).await.expect("listed");
    all
}

fn first(number: i64) -> DeliveryId {
    DeliveryId { message: id(number), part: 1 }
}

fn deferred(delivery: DeliveryId) -> Settlement {
    settled(delivery, &[])
}

/// One notice and nothing else.
fn told(notice: NewMessage) -> Telling {
    Telling { notices: vec![notice], gathered: Vec::new() }
}

fn notice(id: QueueId, size: usize) -> NewMessage {
    let (mut message, deliveries) = samples::message(id, size, &[1]);
    (message.kind, message.peer, message.reverse_path) = (Kind::Notice, None, ReversePath::Null);
    NewMessage { message, deliveries, content: samples::content(id, size) }
}
