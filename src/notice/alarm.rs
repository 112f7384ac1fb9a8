//! Alarms: what an operator must know, each told when it begins and when it is over, and not once more in between.
//!
//! An alarm is raised or cleared by whoever sees what it is about, as often as that is seen; what changes nothing is not told. Changes are
//! gathered for a while into one mail, so that twenty accounts that lose their password together make one mail and not twenty; what began and
//! ended before it could be told is told as both. The number of mails in an hour is limited too: an account that comes and goes tells of
//! itself less and less often, and always how it stands at last.
//!
//! Pure: [`Alarms::change`] takes what happened, [`Alarms::due`] says when a mail is to be written, [`Alarms::untold`] of what, and
//! [`Alarms::told`] is called once that mail is in the queue. [`Standing`]s can be kept and given back, so that a restart tells nothing twice.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::letter::{Letter, Notice};
use super::text::wrap;
use crate::clock::Timestamp;
use crate::mail::words::one_line;
use crate::mail::{AccountName, AppName, ClientName, Priority, QueueId, RouteName, domain};
use crate::smtp::Mailbox;

/// The client of mail that is about no client's.
pub const OWN: &str = "hve-relay";
/// Characters of a reason.
const REASON: usize = 1_000;
const HOUR: Duration = Duration::from_secs(3_600);

/// What an alarm is about; there is at most one of each. Written as it is named in log and store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// The upstream server does not let an account send, and only an operator can change that.
    AccountSuspended(AccountName),
    /// The same for all accounts that log in with an application.
    AppSuspended(AppName),
    /// The same for all accounts of a route.
    RouteSuspended(RouteName),
    /// The same for all accounts of the tenant.
    TenantSuspended,
    /// There is no room for new mail.
    DiskLow,
    /// A certificate is near its end; its name or its file.
    CertificateEnding(String),
    /// The secret of an application is near its end; the application's name.
    SecretEnding(String),
    /// Mail waits longer than it should.
    QueueOld,
}

/// What has become of what an alarm is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlarmChange {
    /// It is so: why, and who must do what.
    Raised(String),
    /// It is no longer so.
    Cleared,
}

/// Where an alarm stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// When it was raised.
    pub since: Timestamp,
    /// Why.
    pub why: String,
    /// When it was cleared, if it is over.
    pub cleared: Option<Timestamp>,
    /// The operators know that it was raised.
    pub told: bool,
}

impl Standing {
    /// When that happened of which the operators do not know.
    fn untold_since(&self) -> Option<Timestamp> {
        if self.told { self.cleared } else { Some(self.since) }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct Alarms {
    delay: Duration,
    per_hour: usize,
    known: BTreeMap<Alarm, Standing>,
    /// When the last mails were written, as many as an hour may have.
    mails: VecDeque<Timestamp>,
}

impl Alarms {
    /// With what is known from before. Changes are gathered for `delay`; an hour has at most `per_hour` mails.
    pub fn new(delay: Duration, per_hour: usize, known: impl IntoIterator<Item = (Alarm, Standing)>) -> Self {
        Self { delay, per_hour, known: known.into_iter().collect(), mails: VecDeque::new() }
    }

    /// Another pace; what is known stays.
    pub fn pace(&mut self, delay: Duration, per_hour: usize) {
        (self.delay, self.per_hour) = (delay, per_hour);
    }

    /// Something was seen at the time `now`. Returns whether it is new.
    pub fn change(&mut self, now: Timestamp, alarm: &Alarm, change: &AlarmChange) -> bool {
        match (change, self.known.get_mut(alarm)) {
            (AlarmChange::Raised(_), Some(Standing { cleared: None, .. }))
            | (AlarmChange::Cleared, None | Some(Standing { cleared: Some(_), .. })) => return false,
            // It was over for a moment of which nobody knows.
            (AlarmChange::Raised(why), Some(standing)) => (standing.cleared, standing.why) = (None, one_line(why, REASON)),
            (AlarmChange::Raised(why), None) => {
                let standing = Standing { since: now, why: one_line(why, REASON), cleared: None, told: false };
                self.known.insert(alarm.clone(), standing);
            }
            (AlarmChange::Cleared, Some(standing)) => standing.cleared = Some(now),
        }
        true
    }

    /// Another alarm stands for this one from now on: nothing more is told of it, and not that it is over either.
    pub fn withdraw(&mut self, alarm: &Alarm) {
        self.known.remove(alarm);
    }

    /// Whether it is raised and not over.
    pub fn stands(&self, alarm: &Alarm) -> bool {
        self.known.get(alarm).is_some_and(|standing| standing.cleared.is_none())
    }

    /// All that are raised, or of whose end the operators do not know.
    pub fn known(&self) -> impl Iterator<Item = (&Alarm, &Standing)> {
        self.known.iter()
    }

    /// When a mail is to be written, if there is anything to tell.
    pub fn due(&self) -> Option<Timestamp> {
        let first = self.known.values().filter_map(Standing::untold_since).min()?;
        let cap = self.mails.front().filter(|_| self.mails.len() >= self.per_hour).map(|oldest| *oldest + HOUR);
        Some((first + self.delay).max(cap.unwrap_or_default()))
    }

    /// What the operators do not know; what is over comes last.
    pub fn untold(&self) -> Vec<(Alarm, Standing)> {
        let untold = self.known.iter().filter(|(_, standing)| standing.untold_since().is_some());
        let mut untold: Vec<_> = untold.map(|(alarm, standing)| (alarm.clone(), standing.clone())).collect();
        untold.sort_by_key(|(_, standing)| standing.cleared.is_some());
        untold
    }

    /// A mail of the time `now` tells these, as they were when [`Self::untold`] gave them out.
    pub fn told(&mut self, now: Timestamp, told: &[(Alarm, Standing)]) {
        for (alarm, then) in told {
            let Some(standing) = self.known.get_mut(alarm) else { continue };
            standing.told = true;
            if then.cleared.is_some() {
                match standing.cleared {
                    Some(_) => drop(self.known.remove(alarm)),
                    // Raised again since: of that they do not know.
                    None => (standing.since, standing.told) = (now, false),
                }
            }
        }
        self.mails.push_back(now);
        while self.mails.len() > self.per_hour {
            self.mails.pop_front();
        }
    }

    /// What would stand if these had been told: for the record that goes with the mail.
    pub fn after(&self, told: &[(Alarm, Standing)]) -> Vec<(Alarm, Standing)> {
        let after = |alarm: &Alarm, standing: &Standing| match told.iter().find(|(other, _)| other == alarm) {
            Some((_, then)) if then.cleared.is_some() => None,
            Some(_) => Some(Standing { told: true, ..standing.clone() }),
            None => Some(standing.clone()),
        };
        self.known.iter().filter_map(|(alarm, standing)| Some((alarm.clone(), after(alarm, standing)?))).collect()
    }
}

/// The mail that tells of alarms; `id` is its name, a new one.
pub fn alarm_mail(id: QueueId, now: Timestamp, hostname: &str, operators: &[Mailbox], alarms: &[(Alarm, Standing)]) -> Notice {
    let host = domain(hostname);
    let says = |(alarm, standing): &(Alarm, Standing)| if standing.cleared.is_some() { alarm.cleared() } else { alarm.raised() };
    let subject = match alarms {
        [only] => format!("{host}: {}", says(only)),
        [first, others @ ..] => format!("{host}: {} (and {} more)", says(first), others.len()),
        [] => host.clone(),
    };
    let mut text = String::new();
    wrap(&mut text, "", &format!("The mail relay {host} has this to tell its operators."));
    for (alarm, standing) in alarms {
        let Standing { since, why, cleared, told } = standing;
        text += "\r\n";
        match cleared {
            Some(_) if *told => wrap(&mut text, "", &format!("{}.", alarm.cleared())),
            Some(_) => wrap(&mut text, "", &format!("{}. That is over already.", alarm.raised())),
            None => wrap(&mut text, "", &format!("{}.", alarm.raised())),
        }
        wrap(&mut text, "  ", &format!("Since: {}", since.rfc5322()));
        if let Some(cleared) = cleared {
            wrap(&mut text, "  ", &format!("Until: {}", cleared.rfc5322()));
        }
        if !why.is_empty() {
            wrap(&mut text, "  ", why);
        }
    }
    text += "\r\n";
    wrap(
        &mut text,
        "",
        "Each of these is told when it begins and when it is over. \"hve-relay accounts\" and \"hve-relay queue\" show how things stand.",
    );
    let letter = Letter {
        id,
        now,
        hostname,
        recipients: operators.to_vec(),
        subject: one_line(&subject, 200),
        client: ClientName::new(OWN),
        priority: Priority::High,
        in_reply_to: None,
    };
    letter.plain(&text)
}

impl Alarm {
    /// What is so, as a sentence without its full stop.
    pub fn raised(&self) -> String {
        match self {
            Self::AccountSuspended(account) => format!("Account {account} cannot send"),
            Self::AppSuspended(app) => format!("No account of application {app} can send"),
            Self::RouteSuspended(route) => format!("Nothing can be sent on route {route}"),
            Self::TenantSuspended => "No account of the tenant can send".to_owned(),
            Self::DiskLow => "There is no room for new mail".to_owned(),
            Self::CertificateEnding(name) => format!("Certificate {name} is near its end"),
            Self::SecretEnding(app) => format!("The secret of application {app} is near its end"),
            Self::QueueOld => "Mail has been waiting for too long".to_owned(),
        }
    }

    /// What is so when it is over.
    pub fn cleared(&self) -> String {
        match self {
            Self::AccountSuspended(account) => format!("Account {account} sends again"),
            Self::AppSuspended(app) => format!("The accounts of application {app} send again"),
            Self::RouteSuspended(route) => format!("Mail goes again on route {route}"),
            Self::TenantSuspended => "The tenant's mail goes again".to_owned(),
            Self::DiskLow => "There is room for new mail again".to_owned(),
            Self::CertificateEnding(name) => format!("Certificate {name} has been renewed"),
            Self::SecretEnding(app) => format!("The secret of application {app} has been renewed"),
            Self::QueueOld => "No mail has been waiting for too long any more".to_owned(),
        }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccountSuspended(account) => write!(f, "account-suspended {account}"),
            Self::AppSuspended(app) => write!(f, "app-suspended {app}"),
            Self::RouteSuspended(route) => write!(f, "route-suspended {route}"),
            Self::TenantSuspended => f.write_str("tenant-suspended"),
            Self::DiskLow => f.write_str("disk-low"),
            Self::CertificateEnding(name) => write!(f, "certificate-ending {name}"),
            Self::SecretEnding(app) => write!(f, "secret-ending {app}"),
            Self::QueueOld => f.write_str("queue-old"),
        }
    }
}

/// The text names no alarm that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an alarm")]
pub struct NotAnAlarm;

impl FromStr for Alarm {
    type Err = NotAnAlarm;

    fn from_str(text: &str) -> Result<Self, NotAnAlarm> {
        match text.split_once(' ') {
            Some(("account-suspended", account)) => Ok(Self::AccountSuspended(AccountName::new(account))),
            Some(("app-suspended", app)) => Ok(Self::AppSuspended(AppName::new(app))),
            Some(("route-suspended", route)) => Ok(Self::RouteSuspended(RouteName::new(route))),
            Some(("certificate-ending", name)) => Ok(Self::CertificateEnding(name.to_owned())),
            Some(("secret-ending", app)) => Ok(Self::SecretEnding(app.to_owned())),
            None if text == "disk-low" => Ok(Self::DiskLow),
            None if text == "queue-old" => Ok(Self::QueueOld),
            None if text == "tenant-suspended" => Ok(Self::TenantSuspended),
            _ => Err(NotAnAlarm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_795_285_881_000);
    const DELAY: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Timestamp {
        START + Duration::from_secs(seconds)
    }

    fn account(number: u32) -> Alarm {
        Alarm::AccountSuspended(AccountName::new(format!("hve{number:02}@contoso.com")))
    }

    fn raised() -> AlarmChange {
        AlarmChange::Raised("535 5.7.3 Authentication unsuccessful. Check its password.".to_owned())
    }

    fn alarms() -> Alarms {
        Alarms::new(DELAY, 3, [])
    }

    fn mail(alarms: &mut Alarms, now: Timestamp) -> String {
        let untold = alarms.untold();
        let after = alarms.after(&untold);
        let operators = ["ops@contoso.com".parse().expect("a mailbox"), "night@contoso.com".parse().expect("a mailbox")];
        let notice = alarm_mail(QueueId::from_number(77).expect("positive"), now, "relay.contoso.com", &operators, &untold);
        alarms.told(now, &untold);
        assert_eq!(alarms.known().map(|(alarm, standing)| (alarm.clone(), standing.clone())).collect::<Vec<_>>(), after);
        assert_eq!(notice.recipients, operators);
        String::from_utf8(notice.content).expect("ASCII")
    }

    #[test]
    fn a_state_is_told_once_when_it_begins_and_once_when_it_is_over() {
        let mut alarms = alarms();
        assert!(alarms.change(at(0), &account(1), &raised()));
        assert!(!alarms.change(at(5), &account(1), &raised()) && !alarms.change(at(6), &account(2), &AlarmChange::Cleared));
        assert_eq!(alarms.due(), Some(at(60)));
        assert!(mail(&mut alarms, at(60)).contains("\r\nSubject: relay.contoso.com: Account hve01@contoso.com cannot send\r\n"));
        assert!(!alarms.change(at(70), &account(1), &raised()));
        assert_eq!(alarms.due(), None);
        assert!(alarms.change(at(100), &account(1), &AlarmChange::Cleared) && !alarms.change(at(101), &account(1), &AlarmChange::Cleared));
        assert_eq!(alarms.due(), Some(at(160)));
        assert!(mail(&mut alarms, at(160)).contains("Account hve01@contoso.com sends again.\r\n"));
        assert_eq!((alarms.due(), alarms.known().count()), (None, 0));
    }

    #[test]
    fn what_comes_together_is_one_mail_and_says_what_is_over_already() {
        let mut alarms = alarms();
        for number in 1..=2 {
            alarms.change(at(u64::from(number)), &account(number), &raised());
        }
        alarms.change(at(10), &Alarm::DiskLow, &AlarmChange::Raised("240 MB are free, 256 MiB are kept".to_owned()));
        alarms.change(at(2_281), &account(1), &AlarmChange::Cleared);
        let mail = mail(&mut alarms, at(2_300)).replace("\r\n", "\n");
        assert!(mail == include_str!("golden/alarms.eml"), "what is written now:\n{mail}<<<");
        assert_eq!(alarms.due(), None);
    }

    #[test]
    fn one_that_is_back_before_its_end_was_told_has_not_ended() {
        let mut alarms = alarms();
        alarms.change(at(0), &account(1), &raised());
        mail(&mut alarms, at(60));
        assert!(alarms.change(at(100), &account(1), &AlarmChange::Cleared) && alarms.change(at(110), &account(1), &raised()));
        assert_eq!(alarms.due(), None);
    }

    #[test]
    fn what_changes_while_the_mail_is_on_its_way_is_told_by_the_next() {
        let mut alarms = alarms();
        alarms.change(at(0), &account(1), &raised());
        let untold = alarms.untold();
        alarms.change(at(61), &account(1), &AlarmChange::Cleared);
        alarms.told(at(62), &untold);
        assert_eq!(alarms.due(), Some(at(121)));
        let untold = alarms.untold();
        alarms.change(at(122), &account(1), &raised());
        alarms.told(at(123), &untold);
        assert_eq!(alarms.due(), Some(at(183)), "that it is back is news");
    }

    #[test]
    fn an_hour_has_only_so_many_mails() {
        let mut alarms = alarms();
        let mut mails = Vec::new();
        for minute in 0..240 {
            let change = if minute % 2 == 0 { raised() } else { AlarmChange::Cleared };
            alarms.change(at(minute * 120), &account(1), &change);
            if let Some(due) = alarms.due().filter(|due| *due <= at(minute * 120 + 110)) {
                mail(&mut alarms, due.max(at(minute * 120)));
                mails.push(minute * 120);
            }
        }
        assert!(mails.len() >= 20, "{mails:?}");
        assert!(mails.windows(4).all(|four| four[3] - four[0] >= 3_540), "{mails:?}");
    }

    #[test]
    fn a_restart_tells_nothing_twice() {
        let mut before = alarms();
        before.change(at(0), &account(1), &raised());
        mail(&mut before, at(60));
        before.change(at(61), &Alarm::QueueOld, &AlarmChange::Raised(String::new()));
        let kept: Vec<(Alarm, Standing)> = before.known().map(|(alarm, standing)| (alarm.clone(), standing.clone())).collect();
        let mut after = Alarms::new(DELAY, 3, kept);
        assert!(!after.change(at(100), &account(1), &raised()));
        assert_eq!(after.untold().into_iter().map(|(alarm, _)| alarm).collect::<Vec<_>>(), [Alarm::QueueOld]);
    }

    #[test]
    fn every_alarm_is_read_as_it_was_written() {
        for alarm in [
            account(1),
            Alarm::AppSuspended(AppName::new("mailer")),
            Alarm::RouteSuspended(RouteName::new("hve")),
            Alarm::TenantSuspended,
            Alarm::DiskLow,
            Alarm::CertificateEnding("/etc/a file.pem".to_owned()),
            Alarm::SecretEnding("app".to_owned()),
            Alarm::QueueOld,
        ] {
            assert_eq!(alarm.to_string().parse(), Ok(alarm.clone()));
            assert!(!alarm.raised().is_empty() && !alarm.cleared().is_empty());
        }
        assert_eq!("account-suspended".parse::<Alarm>(), Err(NotAnAlarm));
    }
}
