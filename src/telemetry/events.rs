//! The events. What each is for is in `table`, and each emits what its row there says: its room as the target, its level, its fields.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::catalogue::target::{ADMIN, CONFIG, DAEMON, NOTICE, SCHEDULE, SESSION, STORE, TELEMETRY, UPSTREAM};
use super::metrics::COUNTERS;
use super::{Level, Room};
use crate::clock::Timestamp;
use crate::intake::Habit;
use crate::mail::{AccountName, AppName, Class, ClientName, Delivery, DeliveryId, InDoubt, Message, QueueId, RouteName};
use crate::notice::{Alarm, AlarmChange};
use crate::reply::{Disposition, Judgement, Outcome, Pause, PauseLength, Step, upstream_id};
use crate::schedule::{Change, Who};
use crate::smtp::{Mailbox, Reply, ReversePath};
use crate::store::history::Trouble;
use crate::store::sqlite::Damaged;
use crate::upstream::Protection;
use crate::upstream::oauth::News;

/// The relay is ready: every listener is bound and the queue is recovered.
pub fn started(version: &str, listeners: &[SocketAddr], accounts: usize, queued: usize, in_doubt: usize) {
    let listeners = listeners.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
    info!(target: DAEMON, event = "started", version, listeners, accounts, queued, in_doubt, "ready for mail");
}

/// Operators are heard there over TCP.
pub fn admin_listening(listener: SocketAddr) {
    info!(target: ADMIN, event = "admin-listening", listener = %listener, "operators can be heard here");
}

/// The usual address for operators cannot be had, and nobody has written it: mail is carried without.
pub fn admin_unavailable(listener: SocketAddr, why: &str) {
    warn!(target: ADMIN, event = "admin-unavailable", listener = %listener, why, "operators are not heard over TCP, and mail is carried all the same");
}

/// An operator has logged in.
pub fn operator_logged_in(peer: IpAddr, by: &str) {
    info!(target: ADMIN, event = "operator-logged-in", peer = %peer, by, "an operator has logged in");
}

/// Somebody has shown a password or a token that is wrong, or did so too often.
pub fn operator_refused(peer: IpAddr) {
    warn!(target: ADMIN, event = "operator-refused", peer = %peer, "a login or a token of an operator is wrong");
}

/// A signal has come: no new sessions; open transactions and deliveries in flight may end.
pub fn stopping(grace: Duration) {
    info!(target: DAEMON, event = "stopping", grace = grace.as_secs_f64(), "stopping: what is not delivered stays queued");
}

/// Another configuration is in force; `by` is who asked for it, `rerouted` how many queued deliveries go another way now.
pub fn reloaded(by: &str, listeners: &[String], accounts: usize, rerouted: usize) {
    let listeners = listeners.join(", ");
    info!(target: CONFIG, event = "reloaded", by, listeners, accounts, rerouted, "the new configuration is in force");
}

/// The configuration cannot be used as it is now: told for each of its problems. Nothing has changed.
pub fn reload_failed(by: &str, problem: &str) {
    error!(target: CONFIG, event = "reload-failed", by, problem, "the new configuration is not used, and the one before stays in force");
}

/// A queued delivery's route is gone, or does not take it any more: it goes another way.
pub fn rerouted(delivery: DeliveryId, former: &RouteName, route: &RouteName, class: Class) {
    info!(
        target: SCHEDULE,
        event = "rerouted",
        queue_id = %delivery.message,
        part = delivery.part,
        route = %route,
        former = %former,
        class = class.as_str(),
        "queued mail follows the new rules"
    );
}

/// The relay could not start, or had to end.
pub fn failed(why: &str) {
    error!(target: DAEMON, event = "failed", why, "the relay has ended");
}

/// The last line of an orderly end.
pub fn stopped(queued: usize) {
    info!(target: DAEMON, event = "stopped", queued, "stopped");
}

/// What must answer for the relay to be alive did not: no sign of life was sent to the service manager.
pub fn watchdog_missed(why: &str) {
    error!(target: DAEMON, event = "watchdog-missed", why, "no sign of life for the service manager");
}

/// The log could not be written for a while, and lines of it are lost.
pub fn log_lost(lines: u64) {
    COUNTERS.log_lines_lost.inc_by(lines);
    error!(target: TELEMETRY, event = "log-lost", lines, "nobody read the log, and lines of it are lost");
}

/// The log's file cannot be written or begun anew; lines go to standard error meanwhile.
pub fn log_file_failed(file: &Path, why: &str) {
    error!(target: TELEMETRY, event = "log-file-failed", file = %file.display(), why, "the log's file cannot be written; what cannot go there goes to standard error");
}

/// The log's file is written again.
pub fn log_file_written(file: &Path) {
    info!(target: TELEMETRY, event = "log-file-written", file = %file.display(), "the log's file is written again");
}

/// An operator has changed what is logged.
pub fn log_level_set(level: Level, room: Option<Room>, by: &str) {
    let room = room.map_or("", Room::as_str);
    warn!(target: TELEMETRY, event = "log-level-set", to_level = level.as_str(), room, by, "what is logged was changed by an operator, until the configuration is read again");
}

/// A configuration loads, but something in it is probably not meant.
pub fn config_warning(warning: &str) {
    warn!(target: CONFIG, event = "config-warning", "{warning}");
}

/// A connection was refused or closed before it became a session.
pub fn connection_refused(peer: IpAddr, reply: &Reply) {
    COUNTERS.connection_refused(reply);
    warn!(target: SESSION, event = "connection-refused", peer = %peer, reply = %reply, "connection refused");
}

/// A connection could not be accepted: the process has no descriptors left, or the like.
pub fn accept_failed(listener: SocketAddr, why: &str, refused: u64) {
    error!(target: SESSION, event = "accept-failed", listener = %listener, why, refused, "cannot accept connections; raise the limit of open files (LimitNOFILE=)");
}

/// An operator has the counts of habits begin anew.
pub fn habits_forgotten(by: &str) {
    info!(target: SESSION, event = "habits-forgotten", by, "habits are counted anew, by an operator's word");
}

/// What was counted cannot be read, and is counted anew.
pub fn counts_unreadable(file: &Path, why: &str) {
    warn!(target: SESSION, event = "counts-unreadable", file = %file.display(), why, "what was counted cannot be read and begins anew");
}

/// What was counted cannot be kept for now.
pub fn counts_unsaved(file: &Path, why: &str) {
    warn!(target: SESSION, event = "counts-unsaved", file = %file.display(), why, "what was counted cannot be kept for now");
}

/// Not as many files may be open as the sessions that are configured can need.
pub fn sessions_lowered(wanted: usize, sessions: usize, allowed: u64, needed: u64) {
    warn!(target: SESSION, event = "sessions-lowered", wanted, sessions, allowed, needed, "fewer sessions than limits.sessions; raise the limit of open files (LimitNOFILE=)");
}

/// A session begins.
pub fn connected(peer: IpAddr, client: &ClientName) {
    COUNTERS.session(client);
    debug!(target: SESSION, event = "connected", peer = %peer, client = %client, "connected");
}

/// A session has ended.
pub fn disconnected(peer: IpAddr, client: &ClientName, how: &str) {
    debug!(target: SESSION, event = "disconnected", peer = %peer, client = %client, how, "disconnected");
}

/// A command or a message was refused.
pub fn refused(peer: IpAddr, client: Option<&ClientName>, what: &str, from: Option<&ReversePath>, reply: &Reply) {
    COUNTERS.refused(client, reply);
    let client = client.map_or("", ClientName::as_str);
    let from = from.map(|from| Angle(from).to_string()).unwrap_or_default();
    warn!(target: SESSION, event = "refused", peer = %peer, client, command = what, from, reply = %reply, "refused");
}

/// A client does something otherwise than the standards have it: told the first time, and then once a day with the count until now.
pub fn habit(peer: IpAddr, client: &ClientName, habit: Habit, count: u64) {
    let (name, outcome) = (habit.as_str(), habit.outcome());
    info!(target: SESSION, event = "habit", peer = %peer, client = %client, habit = name, count, outcome, "{}", habit.words());
}

/// A TLS handshake failed, or was not finished in time.
pub fn tls_failed(peer: IpAddr, why: &str) {
    COUNTERS.tls_failures.inc();
    warn!(target: SESSION, event = "tls-failed", peer = %peer, why, "no TLS with this peer");
}

/// A listener shows a new certificate.
pub fn certificate_renewed(file: &Path) {
    info!(target: SESSION, event = "certificate-renewed", file = %file.display(), "the new certificate is in use");
}

/// A certificate's files have changed and cannot be used.
pub fn certificate_unusable(file: &Path, why: &str) {
    error!(target: SESSION, event = "certificate-unusable", file = %file.display(), why, "the new certificate cannot be used; the one before is still shown");
}

/// A load balancer did not say whose connection it passes on.
pub fn proxy_failed(peer: IpAddr, why: &str) {
    warn!(target: SESSION, event = "proxy-failed", peer = %peer, why, "a connection from a load balancer without a proper PROXY header; closed");
}

/// A user has logged in.
pub fn logged_in(peer: IpAddr, user: &str, client: &ClientName) {
    COUNTERS.login("accepted");
    info!(target: SESSION, event = "logged-in", peer = %peer, user, client = %client, "logged in");
}

/// A login was refused; `user` is empty if there is no such user.
pub fn login_failed(peer: IpAddr, user: &str, failures: usize) {
    COUNTERS.login("failed");
    warn!(target: SESSION, event = "login-failed", peer = %peer, user, failures, "user name or password is wrong");
}

/// How a message came.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// As in Received.
    pub protocol: &'a str,
    /// What the client called itself.
    pub helo: &'a str,
    /// The user who logged in; empty if nobody did.
    pub user: &'a str,
    /// Version and cipher of TLS; empty without.
    pub tls: &'a str,
    /// From the end of its data until it was safe.
    pub took: Duration,
}

/// A message is safe on disk and was acknowledged.
pub fn accepted(message: &Message, how: &Arrival<'_>, recipients: usize) {
    COUNTERS.accepted(&message.client, recipients, message.size, how.took);
    info!(
        target: SESSION,
        event = "accepted",
        queue_id = %message.id,
        client = %message.client,
        peer = message.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        helo = how.helo,
        proto = how.protocol,
        tls = how.tls,
        user = how.user,
        from = %Angle(&message.reverse_path),
        author = message.author.as_ref().map_or("", Mailbox::as_str),
        message_id = message.message_id,
        size = message.size,
        nrcpt = recipients,
        "accepted"
    );
}

/// What became of one recipient in one attempt.
pub fn recipient_settled(message: &Message, to: &Mailbox, attempt: &Attempt<'_>, outcome: &Outcome, retry: Option<Timestamp>) {
    let status = match outcome.disposition {
        Disposition::Sent => "sent",
        Disposition::Deferred => "deferred",
        Disposition::Failed => "bounced",
    };
    let upstream_id =
        Some(outcome).filter(|outcome| outcome.disposition == Disposition::Sent).and_then(|sent| upstream_id(&sent.diagnostic));
    let retry = retry.filter(|_| outcome.disposition == Disposition::Deferred).map(|at| at.to_string()).unwrap_or_default();
    let delay = attempt.ended.since(message.accepted_at).as_secs_f64();
    COUNTERS.recipient(attempt.account, attempt.class, outcome.disposition, delay);
    // Postfix's delays=a/b/c/d less what the relay does not have: in the queue, then with the upstream server.
    let delays = format!(
        "{:.3}/{:.3}",
        attempt.started.since(message.accepted_at).as_secs_f64(),
        attempt.ended.since(attempt.started).as_secs_f64()
    );
    macro_rules! line {
        ($level:ident) => {
            $level!(
                target: UPSTREAM,
                event = "delivery",
                queue_id = %message.id,
                part = attempt.delivery.part,
                client = %message.client,
                to = %to,
                class = attempt.class.as_str(),
                account = %attempt.account,
                relay = attempt.relay,
                tls = attempt.protection.map_or("", Protection::as_str),
                attempt = attempt.number,
                delay,
                delays,
                dsn = %outcome.status,
                status,
                step = %outcome.step,
                reply = outcome.diagnostic,
                upstream_id,
                retry,
                "{status}"
            )
        };
    }
    match outcome.disposition {
        Disposition::Sent => line!(info),
        Disposition::Deferred | Disposition::Failed => line!(warn),
    }
}

/// What [`recipient_settled`] says of the attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Of which class.
    pub class: Class,
    /// On which account.
    pub account: &'a AccountName,
    /// The upstream server, `host:port`.
    pub relay: &'a str,
    /// How the connection was protected, if there was one.
    pub protection: Option<Protection>,
    /// Its number, from 1.
    pub number: u32,
    /// Its begin.
    pub started: Timestamp,
    /// Its end.
    pub ended: Timestamp,
}

/// An attempt has ended; `steps` are those that were completed, with the time that each took.
pub fn attempt_ended(delivery: DeliveryId, account: &AccountName, judgement: &Judgement, steps: &[(Step, Duration)]) {
    COUNTERS.attempt(account, judgement, steps);
    // Nobody need write it who does not listen.
    if tracing::enabled!(target: UPSTREAM, tracing::Level::DEBUG) {
        let steps: Vec<String> = steps.iter().map(|(step, took)| format!("{step} {:.3}", took.as_secs_f64())).collect();
        debug!(
            target: UPSTREAM,
            event = "attempt-ended",
            queue_id = %delivery.message,
            part = delivery.part,
            account = %account,
            steps = steps.join(", "),
            "attempt ended"
        );
    }
}

/// A transaction of the queue's database was synced. This is counted, and no line of the log.
pub fn store_committed(operations: usize, took: Duration) {
    COUNTERS.committed(operations, took);
}

/// These are the clients and accounts of the configuration: what is counted for them begins at 0.
pub fn expect(clients: &[ClientName], accounts: &[AccountName]) {
    COUNTERS.expect(clients, accounts);
}

/// A message was sent without DKIM signatures that it had come with, those of `domains`.
pub fn dkim_signature_removed(delivery: DeliveryId, client: &ClientName, sender: &Mailbox, domains: &[String]) {
    info!(
        target: UPSTREAM,
        event = "dkim-signature-removed",
        queue_id = %delivery.message,
        part = delivery.part,
        client = %client,
        sender = %sender,
        domains = domains.join(" "),
        "sent without its DKIM signature: that vouches for the From that was replaced, and would fail"
    );
}

/// A server hangs up on connections that have carried messages, which left messages in doubt.
pub fn content_waits(relay: &str) {
    info!(
        target: UPSTREAM,
        event = "content-waits",
        relay,
        "the server has hung up without a word on connections that had carried messages: on such ones the content waits for its replies from here on"
    );
}

/// A message was sent otherwise than it came, because the upstream server does not take content beyond ASCII.
pub fn content_converted(delivery: DeliveryId, client: &ClientName, relay: &str) {
    info!(
        target: UPSTREAM,
        event = "content-converted",
        queue_id = %delivery.message,
        part = delivery.part,
        client = %client,
        relay,
        "converted to quoted-printable and base64: the upstream server does not offer 8BITMIME"
    );
}

/// A delivery was given up because its message became too old.
pub fn expired(message: &Message, delivery: &Delivery, lifetime: Duration) {
    COUNTERS.expired(delivery.class, delivery.recipients.len());
    for recipient in &delivery.recipients {
        warn!(
            target: UPSTREAM,
            event = "delivery",
            queue_id = %message.id,
            part = delivery.id.part,
            client = %message.client,
            to = %recipient.address,
            class = delivery.class.as_str(),
            attempt = delivery.attempts,
            dsn = "4.4.7",
            status = "expired",
            lifetime = lifetime.as_secs(),
            "expired"
        );
    }
}

/// A notice about what became of recipients was queued.
pub fn notice_queued(about: QueueId, notice: QueueId, to: &Mailbox) {
    COUNTERS.notices_queued.inc();
    info!(target: NOTICE, event = "notice-queued", queue_id = %about, notice = %notice, to = %to, "notice queued");
}

/// What became of so many recipients is told with the reader's next digest.
pub fn notice_gathered(about: QueueId, reader: &Mailbox, recipients: usize) {
    info!(target: NOTICE, event = "notice-gathered", queue_id = %about, to = %reader, nrcpt = recipients, "told with the next digest");
}

/// A digest of what was gathered for a reader was queued.
pub fn digest_queued(notice: QueueId, to: &Mailbox) {
    COUNTERS.notices_queued.inc();
    info!(target: NOTICE, event = "digest-queued", notice = %notice, to = %to, "digest queued");
}

/// What was gathered about so many recipients was dropped: notices do not reach the reader, or no route leads there.
pub fn digest_impossible(reader: &Mailbox, recipients: usize) {
    warn!(target: NOTICE, event = "digest-impossible", to = %reader, nrcpt = recipients, "notices do not reach this address; what was gathered for it is dropped");
}

/// Something became of recipients that somebody should be told, and nobody can be.
pub fn notice_impossible(about: &Message, why: &str) {
    warn!(target: NOTICE, event = "notice-impossible", queue_id = %about.id, client = %about.client, from = %Angle(&about.reverse_path), why, "nobody can be told");
}

/// The last recipient of a message is settled; it has left the queue.
pub fn removed(message: QueueId) {
    info!(target: SCHEDULE, event = "removed", queue_id = %message, "removed");
}

/// Recipients of a delivery go on in one of their own: alone, or by another route.
pub fn parted(delivery: DeliveryId, into: &Delivery, client: &ClientName) {
    info!(
        target: UPSTREAM,
        event = "parted",
        queue_id = %delivery.message,
        part = delivery.part,
        client = %client,
        into = into.id.part,
        route = %into.route,
        nrcpt = into.recipients.len(),
        "parted"
    );
}

/// The upstream server may have taken the message although no reply came, or an attempt was cut off by a crash: it will be sent again.
pub fn in_doubt(delivery: DeliveryId, attempt: &InDoubt) {
    COUNTERS.in_doubt(&attempt.account);
    warn!(
        target: UPSTREAM,
        event = "in-doubt",
        queue_id = %delivery.message,
        part = delivery.part,
        account = %attempt.account,
        started = %attempt.started,
        "in doubt: the upstream server may have this already; it is sent again"
    );
}

/// The same, and it waits for an operator's word.
pub fn held_in_doubt(delivery: DeliveryId, attempt: &InDoubt) {
    COUNTERS.in_doubt(&attempt.account);
    warn!(
        target: UPSTREAM,
        event = "in-doubt-held",
        queue_id = %delivery.message,
        part = delivery.part,
        account = %attempt.account,
        started = %attempt.started,
        "in doubt: the upstream server may have this already; it is held until an operator releases or removes it"
    );
}

/// A gate closed or opened, or an account uses more or fewer connections.
pub fn gate(change: &Change) {
    match change {
        Change::Closed { gate, until, pause } => closed(gate, *until, pause),
        Change::Opened { gate: Who::Account(account) } => {
            info!(target: SCHEDULE, event = "account-resumed", account = %account, "account in use again");
        }
        Change::Opened { gate: Who::App(app) } => info!(target: SCHEDULE, event = "app-resumed", app = %app, "application in use again"),
        Change::Opened { gate: Who::Route(route) } => {
            info!(target: SCHEDULE, event = "route-resumed", route = %route, "route in use again");
        }
        Change::Opened { gate: Who::Tenant } => info!(target: SCHEDULE, event = "tenant-resumed", "mail of the tenant goes again"),
        Change::Narrowed { account, using, configured, pause } => {
            let Pause { kind, reason, advice, .. } = pause;
            warn!(target: SCHEDULE, event = "account-narrowed", account = %account, using, configured, kind = &**kind, reason, advice, "the server takes fewer connections at a time than are configured");
        }
        Change::Widened { account, using, configured } => {
            info!(target: SCHEDULE, event = "account-widened", account = %account, using, configured, "one connection more is tried");
        }
    }
}

/// A suspended account, application or tenant was tried with a login of an account, and no mail; `trouble` is what that met, empty if it passed.
pub fn login_tried(account: &AccountName, trouble: &str) {
    info!(target: SCHEDULE, event = "login-tried", account = %account, reason = trouble, "login without mail");
}

fn closed(gate: &Who, until: Timestamp, pause: &Pause) {
    let (kind, reason, advice, class) = (&*pause.kind, &pause.reason, &pause.advice, pause.class.map_or("", Class::as_str));
    match gate {
        Who::Account(account) => {
            error!(target: SCHEDULE, event = "account-paused", account = %account, class, until = %until, kind, reason, advice, "account paused; its mail stays queued");
        }
        Who::App(app) => {
            error!(target: SCHEDULE, event = "app-paused", app = %app, class, until = %until, kind, reason, advice, "application paused; the mail of its accounts stays queued");
        }
        Who::Tenant => {
            error!(target: SCHEDULE, event = "tenant-paused", class, until = %until, kind, reason, advice, "tenant paused; its mail stays queued");
        }
        Who::Route(route) => {
            error!(target: SCHEDULE, event = "route-paused", route = %route, class, until = %until, kind, reason, advice, "route paused; its mail stays queued");
        }
    }
}

/// An application has a new token, or could not get one; told by [`TokenSource`](crate::upstream::oauth::TokenSource), once for each change.
pub fn token(app: &AppName, news: &News) {
    match news {
        News::Fetched { life } => info!(target: UPSTREAM, event = "token-fetched", app = %app, life = life.as_secs(), "new token"),
        News::Failed { fault, left } => {
            let (reason, advice) = (&fault.reason, &fault.advice);
            let left = left.map(|left| left.as_secs());
            if fault.pause == PauseLength::Suspended {
                error!(target: UPSTREAM, event = "token-refused", app = %app, reason, advice, left, "no token for this application; the mail of its accounts stays queued");
            } else {
                warn!(target: UPSTREAM, event = "token-unavailable", app = %app, reason, advice, left, "no token for this application for the moment; the mail of its accounts stays queued");
            }
        }
    }
}

/// A secret or certificate ends soon, or has ended.
pub fn credential_ends(name: &str, used_by: &str, what: &str, end: Timestamp, days: i64, advice: &str) {
    macro_rules! line {
        ($level:ident) => {
            $level!(target: UPSTREAM, event = "credential-ends", name, used_by, what, ends = %end, days, advice, "a {what} ends")
        };
    }
    // A week is what it may take to find who can do this.
    if days <= 7 { line!(error) } else { line!(warn) }
}

/// Something that operators must know has begun, or is over. Told once for each, and gathered into mail for them.
pub fn alarm(alarm: &Alarm, change: &AlarmChange) {
    match change {
        AlarmChange::Raised(why) => {
            COUNTERS.alarm(alarm);
            error!(target: NOTICE, event = "alarm-raised", alarm = %alarm, why, "{}", alarm.raised())
        }
        AlarmChange::Cleared => info!(target: NOTICE, event = "alarm-cleared", alarm = %alarm, "{}", alarm.cleared()),
    }
}

/// Mail to the operators that tells of so many alarms was queued.
pub fn alarm_mail(mail: QueueId, alarms: usize) {
    info!(target: NOTICE, event = "alarm-mail", notice = %mail, alarms, "mail to the operators queued");
}

/// A queued delivery names a route or account that the configuration no longer has.
pub fn route_unknown(delivery: DeliveryId, route: &RouteName) {
    error!(target: SCHEDULE, event = "route-unknown", queue_id = %delivery.message, part = delivery.part, route = %route, "queued for a route that is not configured; it waits until the configuration has it again");
}

/// A message was refused because the disk has not enough room; the client tries again.
pub fn disk_low(why: &str) {
    COUNTERS.store_refused("full");
    error!(target: STORE, event = "disk-low", why, "not enough disk space for new mail; free some, or lower queue.free_space_reserve");
}

/// The store could not do what was asked, and will be asked again.
pub fn store_busy(what: &str, why: &str) {
    COUNTERS.store_refused("busy");
    error!(target: STORE, event = "store-busy", what, why, "the store cannot serve; trying again");
}

/// The store failed for good: the process ends so that a restart recovers the queue.
pub fn store_failed(why: &str) {
    COUNTERS.store_refused("failed");
    error!(target: STORE, event = "store-failed", why, "the store failed; stopping. Check the disk, then start the relay again: it recovers its queue");
}

/// At start: contents that no queued message names were removed. They were never acknowledged, or their messages are settled.
pub fn orphans_removed(count: u64) {
    info!(target: STORE, event = "orphans-removed", count, "removed contents that no queued message needs");
}

/// At start: a queued message's content is not there as it was accepted.
pub fn content_damaged(damaged: &Damaged) {
    error!(target: STORE, event = "content-damaged", queue_id = %damaged.id, why = %damaged, "a queued message is damaged; restore the file from a backup, or tell its sender");
}

/// At start: there is no history, and none is written until the next start. Mail goes on.
pub fn history_unavailable(why: &str) {
    error!(
        target: STORE,
        event = "history-unavailable",
        why, "what becomes of mail is not remembered: move history.db away, or repair it, and start again"
    );
}

/// So many records of what became of mail could not be written. Mail goes on.
pub fn history_lost(trouble: &Trouble) {
    COUNTERS.history_records_lost.inc_by(trouble.records);
    error!(target: STORE, event = "history-lost", records = trouble.records, why = trouble.why, "what became of mail could not be remembered");
}

/// An operator holds a delivery back.
pub fn queue_held(delivery: DeliveryId, client: &ClientName, by: &str) {
    info!(target: ADMIN, event = "queue-held", queue_id = %delivery.message, part = delivery.part, client = %client, by, "held by an operator");
}

/// An operator lets a held delivery go on.
pub fn queue_released(delivery: DeliveryId, client: &ClientName, by: &str) {
    info!(target: ADMIN, event = "queue-released", queue_id = %delivery.message, part = delivery.part, client = %client, by, "released by an operator");
}

/// An operator has a deferred delivery tried now.
pub fn queue_retried(delivery: DeliveryId, client: &ClientName, by: &str) {
    info!(target: ADMIN, event = "queue-retried", queue_id = %delivery.message, part = delivery.part, client = %client, by, "due now, by an operator's word");
}

/// An operator has removed a delivery: so many recipients do not get the message, and nobody is told.
pub fn queue_removed(delivery: DeliveryId, client: &ClientName, recipients: usize, by: &str) {
    warn!(target: ADMIN, event = "queue-removed", queue_id = %delivery.message, part = delivery.part, client = %client, nrcpt = recipients, by, "removed by an operator; its recipients do not get it");
}

/// An operator has brought in a message that was queued before.
pub fn queue_brought_in(message: &Message, recipients: usize, why: &str, by: &str) {
    let (id, client, from) = (message.id, &message.client, Angle(&message.reverse_path));
    info!(target: ADMIN, event = "queue-brought-in", queue_id = %id, client = %client, from = %from, message_id = message.message_id, size = message.size, nrcpt = recipients, why, by, "brought in by an operator");
}

/// An operator has suspended an account.
pub fn account_suspended(account: &AccountName, until: Option<Timestamp>, reason: &str, by: &str) {
    let until = until.map(|until| until.to_string()).unwrap_or_default();
    warn!(target: ADMIN, event = "account-suspended", account = %account, until, reason, by, "account suspended by an operator; its mail stays queued or goes over the others");
}

/// An operator lets an account be used again.
pub fn account_resumed_by_operator(account: &AccountName, by: &str) {
    info!(target: ADMIN, event = "account-resumed-by-operator", account = %account, by, "account in use again, by an operator's word");
}

/// The reverse-path as a log shows it.
struct Angle<'a>(&'a ReversePath);

impl std::fmt::Display for Angle<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{}>", self.0)
    }
}
