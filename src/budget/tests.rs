//! Claims about a budget with the numbers of the service.

use std::time::Duration;

use super::*;
use crate::{clock::Timestamp, mail::Class};

const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;
const PREVIEW: Limits = Limits {
    recipients_per_day: Some(100_000),
    external_recipients_per_day: Some(2_000),
    external_per_minute: Some((10, Unit::Messages)),
    ..Limits::NONE
};
/// An arbitrary moment at the start of a minute.
const START: i64 = 1_795_285_860_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

fn internal(recipients: u32) -> Need {
    Need { class: Class::Internal, recipients }
}

fn external(recipients: u32) -> Need {
    Need { class: Class::External, recipients }
}

fn send(budget: &mut Budget, millis: i64, need: Need) {
    let reservation = budget.reserve(at(millis), need, Share::NONE).expect("it fits");
    budget.settle(reservation, Used::all(need), at(millis));
}

fn blocked(limit: LimitName, until: impl Into<Option<i64>>) -> Option<Wait> {
    Some(Wait { limit, until: until.into().map(at) })
}

fn stored(budget: &Budget, limits: &Limits, millis: i64) -> Budget {
    Budget::restore(limits, &budget.state(), at(millis), 0)
}

#[test]
fn ten_external_messages_go_at_once_and_the_eleventh_when_the_first_window_frees() {
    let mut budget = Budget::new(&PREVIEW);
    let reserved: Vec<_> = (0..10).map(|_| budget.reserve(at(0), external(1), Share::NONE).expect("idle")).collect();
    assert_eq!(budget.wait(at(0), external(1), Share::NONE), blocked(LimitName::ExternalPerMinute, None), "only an end can tell");
    assert_eq!(budget.wait(at(0), internal(50), Share::NONE), None, "internal mail is not concerned");
    for (second, reservation) in (1..).zip(reserved) {
        budget.settle(reservation, Used::all(external(1)), at(second * 1_000));
    }
    // The end is known to the millisecond: it may have been nearly one later.
    assert_eq!(budget.wait(at(10_000), external(1), Share::NONE), blocked(LimitName::ExternalPerMinute, 1_000 + MINUTE + 1));
    assert_eq!(budget.fits(at(MINUTE + 1_000), external(1), Share::NONE), 0);
    send(&mut budget, MINUTE + 1_001, external(1));
    assert_eq!(budget.wait(at(MINUTE + 1_001), external(1), Share::NONE), blocked(LimitName::ExternalPerMinute, 2_000 + MINUTE + 1));
}

#[test]
fn a_hundred_thousand_recipients_go_in_a_day_and_not_one_more() {
    let mut budget = Budget::new(&Limits { external_recipients_per_day: None, external_per_minute: None, ..PREVIEW });
    for message in 0..2_000 {
        send(&mut budget, message * 10, internal(50));
    }
    assert_eq!(budget.fits(at(20_000), internal(50), Share::NONE), 0);
    // A minute counts until all of it is a day old.
    assert_eq!(budget.wait(at(20_000), internal(1), Share::NONE), blocked(LimitName::RecipientsPerDay, MINUTE + DAY));
    assert_eq!(budget.fits(at(MINUTE + DAY - 1), internal(1), Share::NONE), 0);
    assert_eq!(budget.fits(at(MINUTE + DAY), internal(50), Share::NONE), 50);
}

#[test]
fn a_steady_day_frees_minute_by_minute() {
    let mut budget = Budget::new(&Limits { recipients_per_day: Some(1_440), ..Limits::NONE });
    for minute in 0..1_440 {
        send(&mut budget, minute * MINUTE, internal(1));
    }
    assert_eq!(budget.wait(at(DAY), internal(3), Share::NONE), blocked(LimitName::RecipientsPerDay, 3 * MINUTE + DAY));
    assert_eq!(budget.state().len(), 1_440);
    assert_eq!(budget.usage(at(DAY + 2 * MINUTE))[0].used, 1_438);
}

#[test]
fn external_recipients_count_in_both_days() {
    let mut budget = Budget::new(&Limits { external_per_minute: None, ..PREVIEW });
    for _ in 0..40 {
        send(&mut budget, 0, external(50));
    }
    assert_eq!(budget.wait(at(0), external(1), Share::NONE), blocked(LimitName::ExternalRecipientsPerDay, MINUTE + DAY));
    let used: Vec<_> = budget.usage(at(0)).iter().map(|usage| (usage.limit, usage.used, usage.max)).collect();
    assert_eq!(used, [(LimitName::RecipientsPerDay, 2_000, Some(100_000)), (LimitName::ExternalRecipientsPerDay, 2_000, Some(2_000))],);
    assert_eq!(budget.headroom(at(0), Class::External), 0.0);
    assert_eq!(budget.headroom(at(0), Class::Internal), 0.98);
}

#[test]
fn where_recipients_count_a_message_may_go_to_fewer() {
    let mut budget = Budget::new(&Limits { external_per_minute: Some((10, Unit::Recipients)), ..PREVIEW });
    assert_eq!(budget.capacity(Class::External, Share::NONE), 10);
    assert_eq!(budget.fits(at(0), external(50), Share::NONE), 10);
    assert_eq!(budget.wait(at(0), external(50), Share::NONE), blocked(LimitName::ExternalPerMinute, None), "never");
    send(&mut budget, 0, external(7));
    assert_eq!(budget.fits(at(0), external(50), Share::NONE), 3);
    assert_eq!(budget.wait(at(0), external(4), Share::NONE), blocked(LimitName::ExternalPerMinute, MINUTE + 1));
}

#[test]
fn a_definite_refusal_is_given_back_and_a_doubt_is_not() {
    for unit in [Unit::Messages, Unit::Recipients] {
        let limits = Limits { recipients_per_day: Some(5), external_per_minute: Some((5, unit)), ..Limits::NONE };
        let mut budget = Budget::new(&limits);
        for _ in 0..100 {
            let reservation = budget.reserve(at(0), external(5), Share::NONE).expect("all was given back");
            budget.settle(reservation, Used::NOTHING, at(10));
        }
        let reservation = budget.reserve(at(10), external(5), Share::NONE).expect("all was given back");
        budget.settle(reservation, Used { recipients: 2, message: true }, at(20));
        assert_eq!(budget.fits(at(20), external(5), Share::NONE), 3);
        let reservation = budget.reserve(at(20), external(3), Share::NONE).expect("three are left");
        let all = Used::all(reservation.need());
        budget.settle(reservation, all, at(30));
        assert_eq!(budget.fits(at(30), external(5), Share::NONE), 0);
    }
}

#[test]
fn a_reserve_is_left_to_others() {
    let mut budget = Budget::new(&Limits { recipients_per_day: Some(100), ..Limits::NONE });
    let keep = Share::percent(10);
    send(&mut budget, 0, internal(60));
    assert_eq!(budget.fits(at(0), internal(50), keep), 30);
    assert_eq!(budget.wait(at(0), internal(31), keep), blocked(LimitName::RecipientsPerDay, MINUTE + DAY));
    assert_eq!(budget.fits(at(0), internal(50), Share::NONE), 40);
    assert_eq!(budget.capacity(Class::Internal, keep), 90);
}

#[test]
fn the_pause_begins_when_a_message_has_ended() {
    let mut budget = Budget::new(&Limits { minimum_pause: Some(Duration::from_secs(2)), ..Limits::NONE });
    let reservation = budget.reserve(at(0), internal(1), Share::NONE).expect("idle");
    assert_eq!(budget.wait(at(5_000), internal(1), Share::NONE), blocked(LimitName::MinimumPause, None));
    budget.settle(reservation, Used::all(internal(1)), at(5_000));
    assert_eq!(budget.wait(at(5_000), internal(1), Share::NONE), blocked(LimitName::MinimumPause, 7_001));
    let mut none = Budget::new(&Limits { minimum_pause: Some(Duration::ZERO), ..Limits::NONE });
    send(&mut none, 0, internal(1));
    send(&mut none, 0, internal(1));
}

#[test]
fn of_several_limits_the_last_to_free_is_named() {
    let mut budget = Budget::new(&Limits { messages_per_minute: Some(1), recipients_per_day: Some(5), ..Limits::NONE });
    send(&mut budget, 0, internal(4));
    assert_eq!(budget.wait(at(0), internal(1), Share::NONE), blocked(LimitName::MessagesPerMinute, MINUTE + 1));
    assert_eq!(budget.wait(at(0), internal(2), Share::NONE), blocked(LimitName::RecipientsPerDay, MINUTE + DAY));
}

#[test]
fn a_closed_limit_stays_closed_until_its_window_can_have_freed() {
    let mut budget = Budget::new(&PREVIEW);
    send(&mut budget, 0, external(50));
    let minute = budget.close(LimitName::ExternalPerMinute, at(30_000));
    assert_eq!(minute, blocked(LimitName::ExternalPerMinute, 30_001 + MINUTE));
    let day = budget.close(LimitName::ExternalRecipientsPerDay, at(5 * MINUTE));
    assert_eq!(day, blocked(LimitName::ExternalRecipientsPerDay, MINUTE + DAY), "what was sent first is the first to free");
    let restored = stored(&budget, &PREVIEW, 6 * MINUTE);
    assert_eq!(restored.fits(at(MINUTE + DAY - 1), external(50), Share::NONE), 0);
    assert_eq!(restored.fits(at(MINUTE + DAY), external(60), Share::NONE), 50);
    assert_eq!(restored.fits(at(6 * MINUTE + DAY), external(60), Share::NONE), 60);
    assert_eq!(restored.fits(at(6 * MINUTE), internal(50), Share::NONE), 50);
    assert_eq!(budget.close(LimitName::MessagesPerMinute, at(5 * MINUTE)), None, "there is no such limit");
    assert_eq!(Budget::new(&Limits::NONE).close(LimitName::RecipientsPerDay, at(0)), None);
}

#[test]
fn what_is_given_back_does_not_open_a_closed_minute() {
    let mut budget = Budget::new(&PREVIEW);
    let refused: Vec<_> = (0..3).map(|_| budget.reserve(at(0), external(1), Share::NONE).expect("idle")).collect();
    budget.close(LimitName::ExternalPerMinute, at(1_000));
    refused.into_iter().for_each(|reservation| budget.settle(reservation, Used::NOTHING, at(2_000)));
    assert_eq!(budget.wait(at(2_000), external(1), Share::NONE), blocked(LimitName::ExternalPerMinute, 1_001 + MINUTE));
}

#[test]
fn what_was_in_flight_at_a_crash_is_used_when_the_relay_starts_again() {
    let mut budget = Budget::new(&PREVIEW);
    let lost = budget.reserve(at(0), external(50), Share::NONE).expect("idle");
    let restored = stored(&budget, &PREVIEW, 90_000);
    let free = restored.usage(at(90_000)).iter().map(|usage| (usage.used, usage.in_flight, usage.frees_at)).collect::<Vec<_>>();
    let day = Some(at(2 * MINUTE + DAY));
    assert_eq!(free, [(50, 0, day), (50, 0, day), (1, 0, Some(at(90_001 + MINUTE)))]);
    drop(lost);
}

#[test]
fn stamps_are_translated_and_the_future_counts_as_now() {
    const YEAR: i64 = 365 * DAY;
    let mut budget = Budget::new(&PREVIEW);
    for _ in 0..10 {
        send(&mut budget, 0, external(1));
    }
    let free = |now: i64, shift: i64, later: i64| {
        let restored = Budget::restore(&PREVIEW, &budget.state(), at(now), shift);
        restored.fits(at(now + later), external(1), Share::NONE)
    };
    assert_eq!(free(MINUTE + 1, 0, 0), 1, "a minute has passed");
    assert_eq!(free(MINUTE, 0, 0), 0);
    assert_eq!(free(-3_600_000, 0, 59_999), 0, "a wall that was set back frees nothing");
    assert_eq!(free(-YEAR, 0, MINUTE + 1), 1, "and does not block for a year");
    assert_eq!(free(YEAR + 30_000, YEAR, 0), 0, "the wall was set forward by a year, but half a minute has passed");
    assert_eq!(free(YEAR + 30_000, YEAR, 30_001), 1);
    let restored = Budget::restore(&PREVIEW, &budget.state(), at(-YEAR), 0);
    assert_eq!(restored.usage(at(-YEAR + DAY + MINUTE))[0].used, 0);
}

#[test]
fn an_attempt_changes_few_rows() {
    let mut budget = Budget::new(&PREVIEW);
    let reservation = budget.reserve(at(0), external(50), Share::NONE).expect("idle");
    let slots = |changes: Vec<Change>| {
        let put = |change| match change {
            Change::Put(row) => (row.limit, row.at, row.amount),
            Change::Remove { limit, slot } => (limit, None, slot),
        };
        changes.into_iter().map(put).collect::<Vec<_>>()
    };
    use LimitName::{ExternalPerMinute, ExternalRecipientsPerDay, RecipientsPerDay};
    let started = [(RecipientsPerDay, None, 50), (ExternalRecipientsPerDay, None, 50), (ExternalPerMinute, None, 50)];
    assert_eq!(slots(budget.changes()), started);
    budget.settle(reservation, Used::all(external(50)), at(1_000));
    let minute = Some(at(MINUTE - 1));
    let ended = [
        (RecipientsPerDay, minute, 50),
        (RecipientsPerDay, None, 1_442),
        (ExternalRecipientsPerDay, minute, 50),
        (ExternalRecipientsPerDay, None, 1_442),
        (ExternalPerMinute, Some(at(1_000)), 50),
    ];
    assert_eq!(slots(budget.changes()), ended);
    assert_eq!(budget.changes(), []);
}

#[test]
fn a_changed_limit_keeps_what_is_used() {
    let five = |per_minute| Limits { external_per_minute: Some((per_minute, Unit::Messages)), ..PREVIEW };
    let mut budget = Budget::new(&five(5));
    for second in 0..4 {
        send(&mut budget, second * 1_000, external(1));
    }
    budget.change(at(4_000), &five(7));
    assert_eq!(budget.usage(at(4_000))[2].used, 4);
    let reserved: Vec<_> = (0..3).map(|_| budget.reserve(at(4_000), external(1), Share::NONE).expect("three are left")).collect();
    budget.change(at(5_000), &five(2));
    assert_eq!(budget.wait(at(5_000), external(1), Share::NONE), blocked(LimitName::ExternalPerMinute, None), "three are in flight");
    for (second, reservation) in (6..).zip(reserved) {
        budget.settle(reservation, Used::all(external(1)), at(second * 1_000));
    }
    // Of those that ended at 6, 7 and 8 s, one more may go when only one is left in the window.
    assert_eq!(budget.wait(at(8_000), external(1), Share::NONE), blocked(LimitName::ExternalPerMinute, 7_001 + MINUTE));
    budget.change(at(9_000), &Limits { recipients_per_day: Some(5), ..five(2) });
    assert_eq!(budget.wait(at(9_000), external(1), Share::NONE), blocked(LimitName::RecipientsPerDay, MINUTE + DAY));
    let mut budget = stored(&budget, &five(2), 9_000);
    budget.change(at(9_000), &five(100));
    assert_eq!(budget.usage(at(9_000))[2].used, 7, "a lower limit in between forgets nothing");
}

#[test]
fn what_is_given_back_under_a_lower_limit_is_not_freed_before_what_was_used() {
    let limit = |per_minute| Limits { messages_per_minute: Some(per_minute), ..Limits::NONE };
    let mut budget = Budget::new(&limit(4));
    let mut reserved: Vec<_> = (0..4).map(|_| budget.reserve(at(0), internal(1), Share::NONE).expect("idle")).collect();
    budget.settle(reserved.remove(0), Used::all(internal(1)), at(1_000));
    budget.change(at(2_000), &limit(2));
    budget.settle(reserved.remove(0), Used::NOTHING, at(3_000));
    budget.settle(reserved.remove(0), Used::NOTHING, at(4_000));
    assert_eq!(budget.wait(at(4_000), internal(1), Share::NONE), blocked(LimitName::MessagesPerMinute, 1_001 + MINUTE));
}

#[test]
fn a_day_that_is_limited_later_is_known_and_a_minute_begins_full() {
    let mut budget = Budget::new(&Limits::NONE);
    send(&mut budget, 0, external(30));
    let flying = budget.reserve(at(1_000), external(1), Share::NONE).expect("no limit");
    budget.change(at(2_000), &PREVIEW);
    assert_eq!(budget.usage(at(2_000))[0].used, 30);
    assert_eq!(budget.wait(at(200_000), external(1), Share::NONE), blocked(LimitName::ExternalPerMinute, None));
    budget.settle(flying, Used::NOTHING, at(300_000));
    assert_eq!(budget.wait(at(300_000), external(1), Share::NONE), blocked(LimitName::ExternalPerMinute, 300_001 + MINUTE));
    assert_eq!(budget.fits(at(300_001 + MINUTE), external(1), Share::NONE), 1);
}

#[test]
fn after_a_restart_messages_count_for_their_recipients_if_these_are_counted() {
    let mut budget = Budget::new(&PREVIEW);
    send(&mut budget, 0, external(4));
    let recipients = Limits { external_per_minute: Some((10, Unit::Recipients)), ..PREVIEW };
    let restored = stored(&budget, &recipients, 1_000);
    assert_eq!(restored.fits(at(1_000), external(50), Share::NONE), 6);
    assert_eq!(stored(&restored, &PREVIEW, 1_000).usage(at(1_000))[2].used, 4, "and back: no less than it was");
}

#[test]
fn a_longer_minute_reaches_back_as_far_as_is_known() {
    let mut budget = Budget::new(&PREVIEW);
    send(&mut budget, 0, external(1));
    let long = Limits { minute: Duration::from_secs(600), external_per_minute: Some((11, Unit::Messages)), ..PREVIEW };
    budget.change(at(2 * MINUTE), &long);
    let usage = budget.usage(at(2 * MINUTE))[2];
    assert_eq!((usage.used, usage.frees_at), (2, Some(at(600_001))), "one was used, and of the new cell nothing is known");
}

#[test]
fn a_limit_of_zero_lets_nothing_through_and_no_limit_everything() {
    let zero = Budget::new(&Limits { external_per_minute: Some((0, Unit::Messages)), ..Limits::NONE });
    assert_eq!(zero.fits(at(0), external(1), Share::NONE), 0);
    assert_eq!(zero.wait(at(0), external(1), Share::NONE), blocked(LimitName::ExternalPerMinute, None));
    assert_eq!(zero.fits(at(0), internal(1), Share::NONE), 1);
    assert_eq!(Budget::new(&Limits::NONE).fits(at(0), external(u32::MAX), Share::NONE), u32::MAX);
    assert_eq!(Budget::new(&Limits::NONE).headroom(at(0), Class::External), 1.0);
}
