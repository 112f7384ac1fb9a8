//! What each reason for waiting means, as a sentence, and what an operator can do about it: all of it in this one place.

use super::{Time, WaitsFor, Why};
use crate::budget::LimitName;
use crate::mail::AccountName;
use crate::schedule::{Reason, Wait, Who};

/// What a reason is about, in one word.
pub fn waits_for(reason: &Reason) -> WaitsFor {
    match reason {
        Reason::UnderWay => WaitsFor::UnderWay,
        Reason::Held => WaitsFor::Held,
        Reason::Deferred => WaitsFor::Deferred,
        Reason::NoAccount => WaitsFor::NoAccount,
        Reason::Suspended(_) => WaitsFor::Suspended,
        Reason::Paused { .. } => WaitsFor::Paused,
        Reason::Budget { .. } => WaitsFor::Budget,
        Reason::Connections => WaitsFor::Connections,
        Reason::Turn => WaitsFor::Turn,
    }
}

/// Why a delivery waits. `last_reply` is what its last attempt came to, `hold_reason` why it is held if no operator did it.
pub(super) fn of_delivery(wait: &Wait, last_reply: &str, hold_reason: &str) -> Why {
    let (reason, advice) = match &wait.reason {
        Reason::UnderWay => ("an attempt is under way".to_owned(), ""),
        Reason::Held if hold_reason.is_empty() => ("an operator holds it".to_owned(), "`hve-relay queue release` lets it go on"),
        Reason::Held => (hold_reason.to_owned(), "`hve-relay queue release` sends it, `hve-relay queue remove` drops it"),
        Reason::Deferred if last_reply.is_empty() => ("the last attempt did not succeed".to_owned(), ""),
        Reason::Deferred => (format!("the last attempt did not succeed: {last_reply}"), ""),
        Reason::NoAccount => (
            "no account may take it".to_owned(),
            "give its route an [[account]], or name one of that route in `accounts` of its [[client]]",
        ),
        Reason::Suspended(said) => (said_by("every account that may take it is suspended", said), RESUME),
        Reason::Paused { reason, advice } => (reason.clone(), advice.as_str()),
        Reason::Budget { account, limit } => budget(account.as_ref(), *limit),
        Reason::Connections => ("every connection of the accounts that may take it is in use".to_owned(), ""),
        Reason::Turn => ("other mail is before it".to_owned(), ""),
    };
    Why { waits_for: waits_for(&wait.reason), reason, advice: advice.to_owned(), until: wait.until.map(Time) }
}

/// Why an account takes no mail of a class.
pub(super) fn of_account(name: &AccountName, wait: &Wait) -> Why {
    let (reason, advice) = match &wait.reason {
        Reason::Suspended(said) => {
            (said_by(&format!("{name} is suspended"), said), format!("`hve-relay accounts resume {name}` ends the suspension"))
        }
        Reason::Connections => {
            (format!("every connection of {name} is in use"), "`connections` of the [[account]] says how many there are".to_owned())
        }
        _ => return of_delivery(wait, "", ""),
    };
    Why { reason, advice, ..of_delivery(wait, "", "") }
}

/// Whose trouble it is.
pub(super) fn whose(who: &Who) -> String {
    match who {
        Who::Account(account) => format!("account {account}"),
        Who::App(app) => format!("app {app}"),
        Who::Route(route) => format!("route {route}"),
        Who::Tenant => "tenant".to_owned(),
    }
}

/// Why a delivery waits that the store has and the scheduler does not: it is just coming or going.
pub(super) fn in_between() -> Why {
    let reason = "it is being taken into the queue, or out of it, at this moment".to_owned();
    Why { waits_for: WaitsFor::UnderWay, reason, advice: String::new(), until: None }
}

const RESUME: &str = "`hve-relay accounts resume` ends the suspension";

fn said_by(what: &str, said: &str) -> String {
    if said.is_empty() { what.to_owned() } else { format!("{what}: {said}") }
}

fn budget(account: Option<&AccountName>, limit: LimitName) -> (String, &'static str) {
    let whose = account.map_or("the tenant", AccountName::as_str);
    let reason = match limit {
        LimitName::MinimumPause => format!("the {limit} of {whose} after its last message is not over"),
        _ => format!("{limit} of {whose} is used up"),
    };
    let advice = match (account, limit) {
        (_, LimitName::MinimumPause) => "",
        (Some(_), _) => "it goes on by itself; more accounts would carry more",
        (None, _) => "it goes on by itself; more accounts do not help against a limit of the tenant",
    };
    (reason, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn wait(reason: Reason) -> Wait {
        Wait { reason, until: Some(Timestamp::from_millis(60_000)) }
    }

    #[test]
    fn every_reason_is_a_sentence_that_names_what_it_is_about() {
        let name = AccountName::new("hve03@contoso.com");
        let paused = Reason::Paused { reason: "535 5.7.3".into(), advice: "correct the password".into() };
        let own = Reason::Budget { account: Some(name.clone()), limit: LimitName::ExternalPerMinute };
        let shared = Reason::Budget { account: None, limit: LimitName::RecipientsPerDay };
        let pause = Reason::Budget { account: Some(name.clone()), limit: LimitName::MinimumPause };
        for (reason, waits_for, sentence) in [
            (Reason::UnderWay, WaitsFor::UnderWay, "an attempt is under way"),
            (Reason::Held, WaitsFor::Held, "an operator holds it"),
            (Reason::Deferred, WaitsFor::Deferred, "the last attempt did not succeed: 451 4.7.500 busy"),
            (Reason::NoAccount, WaitsFor::NoAccount, "no account may take it"),
            (Reason::Suspended("audit".into()), WaitsFor::Suspended, "every account that may take it is suspended: audit"),
            (paused, WaitsFor::Paused, "535 5.7.3"),
            (own, WaitsFor::Budget, "external_per_minute of hve03@contoso.com is used up"),
            (shared, WaitsFor::Budget, "recipients_per_day of the tenant is used up"),
            (pause, WaitsFor::Budget, "the minimum_pause of hve03@contoso.com after its last message is not over"),
            (Reason::Connections, WaitsFor::Connections, "every connection of the accounts that may take it is in use"),
            (Reason::Turn, WaitsFor::Turn, "other mail is before it"),
        ] {
            let why = of_delivery(&wait(reason), "451 4.7.500 busy", "");
            assert_eq!((why.waits_for, why.reason.as_str()), (waits_for, sentence));
            assert_eq!(why.until, Some(Time(Timestamp::from_millis(60_000))));
        }
        let why = of_delivery(&wait(Reason::Held), "in doubt: lost", "in doubt: it may have arrived");
        assert_eq!(why.reason, "in doubt: it may have arrived");
        assert!(why.advice.contains("queue release") && why.advice.contains("queue remove"));
        let why = of_account(&name, &wait(Reason::Suspended(String::new())));
        assert_eq!(why.reason, "hve03@contoso.com is suspended");
        assert!(of_account(&name, &wait(Reason::Connections)).reason.contains("hve03"));
    }
}
