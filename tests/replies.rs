//! End to end: a reply of each kind that the catalogue knows, at each step at which it can come, and what becomes of the mail, of the account, of
//! the others, and what the log, the alarms and `/v1/accounts` say of it.
//!
//! What is expected is worked out here, from what the head of `catalogue.toml` promises of an entry's scope and action. A kind without a reply here
//! fails the test, as does a step at which the reply would be of another kind. Replies amid the content are left out: a server that speaks there
//! breaks the protocol, and what is heard of it depends on the network; `src/reply/tests.rs` judges them.

mod support;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use hve_relay::reply::{Action, Catalogue, Entry, Scope, Step};
use hve_relay::sim::{self, Fault};
use hve_relay::smtp::Reply;
use serde_json::Value;
use support::client::Client;
use support::http::{get, post};
use support::relay::{PATIENCE, Setup};
use support::secure::put;
use support::{World, account, mail, until};

/// A reply of each kind, by the entry's name.
#[rustfmt::skip]
const REPLIES: &[(&str, &str)] = &[
    ("external-rate", "450 4.5.104 Message rejected. Excessive message rate from sender. The HVE message can't be submitted because the rate limit for external emails has been exceeded."),
    ("external-quota", "450 4.5.102 Message rejected. Excessive message rate from sender. The HVE message can't be submitted because the sender's submission tenant quota for external recipients was exceeded."),
    ("message-rate", "450 4.5.127 Message rejected. Excessive message rate from sender."),
    ("submission-quota", "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"),
    ("tenant-external-quota", "550 5.7.233 Your tenant exceeded its daily limit for external recipients"),
    ("recipient-busy", "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded"),
    ("too-many-connections", "432 4.3.2 Concurrent connections limit exceeded"),
    ("basic-auth-blocked", "535 5.7.139 Authentication unsuccessful, basic auth is blocked"),
    ("basic-auth-gone", "550 5.7.30 Basic authentication is not supported for Client Submission."),
    ("token-stale", "501 5.5.127 Invalid XOAUTH2 argument. Token will expire soon"),
    ("xoauth2-malformed", "501 5.5.121 Invalid XOAUTH2 argument"),
    ("app-permission", "535 5.7.144 Authentication unsuccessful, Invalid API permissions"),
    ("app-not-allowed", "550 5.7.240 The application is not allowed for use with this High Volume Email account"),
    ("not-authenticated", "530 5.7.57 Client was not authenticated to send anonymous mail during MAIL FROM"),
    ("authentication-failed", "535 5.7.3 Authentication unsuccessful"),
    ("not-an-hve-account", "550 5.2.240 Not a High Volume Email account"),
    ("sender-differs", "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
    ("account-punished", "550 5.2.251 Sender throttled due to continuous errors"),
    ("account-blocked", "550 5.1.8 Access denied, bad outbound sender"),
    ("tenant-blocked", "550 5.7.705 Access denied, tenant has exceeded threshold"),
    ("suspicious-traffic", "451 4.7.500 Access denied, please try again later"),
    ("external-not-supported", "550 5.5.105 External sending is not supported for High Volume Email accounts"),
    ("one-spoils-the-message", "550 5.7.703 Messages to a recipient are blocked"),
    ("too-many-recipients", "452 4.5.3 Too many recipients"),
    ("no-such-recipient", "550 5.1.10 Recipient not found"),
    ("recipient-refused", "550 5.1.3 Bad destination mailbox address"),
    ("too-large", "552 5.3.4 Message size exceeds fixed maximum message size"),
    ("not-convertible", "554 5.6.3 Conversion required but not supported"),
    ("address-beyond-ascii", "553 5.6.7 Non-ASCII addresses not permitted"),
    ("malformed-message", "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal"),
    ("server-closing", "421 4.3.2 Service not available"),
    ("temporary-server-error", "451 4.7.0 Temporary server error. Please try again later. PRX4"),
    ("command-not-understood", "503 5.5.1 Bad sequence of commands"),
    ("account-refused", "550 5.7.900 The account has no billing policy"),
    ("unknown-transient", "451 4.9.9 Something that passes"),
    ("unknown-permanent", "550 5.9.9 Something for good"),
];

/// Where a reply can come, and where the endpoint gives it.
const STEPS: [(Step, sim::Step); 8] = [
    (Step::Greeting, sim::Step::Greeting),
    (Step::Ehlo, sim::Step::EhloInTls),
    (Step::StartTls, sim::Step::StartTls),
    (Step::Auth, sim::Step::Auth),
    (Step::Mail, sim::Step::Mail),
    (Step::Rcpt, sim::Step::Rcpt),
    (Step::Data, sim::Step::Data),
    (Step::EndOfData, sim::Step::EndOfData),
];

struct Case {
    entry: &'static Entry,
    line: &'static str,
    step: Step,
    at: sim::Step,
}

/// What becomes of the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The other account takes it at once.
    Other,
    /// It waits, for this.
    Waits(&'static str),
    Fails,
}

/// Who rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rests {
    Nobody,
    Account,
    Route,
    Tenant,
}

struct Expected {
    fate: Fate,
    rests: Rests,
    /// How whoever rests stands.
    state: &'static str,
    advice: String,
}

impl Case {
    fn all() -> Vec<Self> {
        let catalogue = Catalogue::builtin();
        let reply = |line: &str| Reply::parse([line]).unwrap_or_else(|| panic!("{line:?} is no reply"));
        let entry_of = |step, line: &str| catalogue.lookup(step, &reply(line));
        let unknown = ["451 4.9.9", "550 5.9.9"].map(|line| entry_of(Step::EndOfData, line));
        assert!(unknown.iter().all(|entry| catalogue.is_unknown(entry)));
        let entries: Vec<&Entry> = catalogue.entries().iter().chain(unknown).collect();
        let strangers: Vec<&str> =
            REPLIES.iter().map(|(name, _)| *name).filter(|name| entries.iter().all(|it| *it.name != **name)).collect();
        assert!(strangers.is_empty(), "no entry of the catalogue has these names: {strangers:?}");
        let mut cases = Vec::new();
        for entry in entries {
            let line = REPLIES.iter().find(|(name, _)| *name == &*entry.name).map(|(_, line)| *line);
            let line = line.unwrap_or_else(|| panic!("give REPLIES a reply of {}", entry.name));
            for (step, at) in STEPS.into_iter().filter(|(step, _)| entry.steps.is_empty() || entry.steps.contains(step)) {
                assert_eq!(entry_of(step, line).name, entry.name, "{step}: {line}");
                cases.push(Self { entry, line, step, at });
            }
        }
        cases
    }

    /// Before MAIL, nothing is the mail's fault.
    fn before_mail(&self) -> bool {
        self.step < Step::Mail
    }

    fn expected(&self) -> Expected {
        let Entry { action, scope, ref advice, .. } = *self.entry;
        let (code, advice) = (self.line.as_bytes()[0], advice.clone());
        let passes = action == Action::Retry || code == b'4';
        let expected = |fate, rests, state, advice| Expected { fate, rests, state, advice };
        let known = |state| match scope {
            Scope::Tenant => expected(Fate::Waits("paused"), Rests::Tenant, state, advice.clone()),
            // The application of an account that has none is the account.
            _ => expected(Fate::Other, Rests::Account, state, advice.clone()),
        };
        match action {
            Action::Suspend => known("suspended"),
            Action::Wait | Action::BackOff => known("closed"),
            Action::FewerConnections => known("reduced"),
            _ if self.step == Step::Auth && passes => expected(Fate::Other, Rests::Account, "closed", advice),
            _ if self.step == Step::Auth => {
                let advice = "The server refuses this account's login: look at its password, at the account's policies, and at the reply.";
                expected(Fate::Other, Rests::Account, "suspended", advice.to_owned())
            }
            _ if self.before_mail() && passes => expected(Fate::Waits("paused"), Rests::Route, "closed", advice),
            _ if self.before_mail() => {
                let advice =
                    "The server refuses connections from this relay: look at the reply, and whether host and port are right.".to_owned();
                expected(Fate::Waits("paused"), Rests::Route, "closed", advice)
            }
            Action::Retry if scope == Scope::Connection || scope == Scope::Message && self.step != Step::Rcpt => {
                expected(Fate::Other, Rests::Nobody, "", String::new())
            }
            Action::Retry | Action::Rest => expected(Fate::Waits("deferred"), Rests::Nobody, "", String::new()),
            Action::Hold => expected(Fate::Waits("held"), Rests::Nobody, "", String::new()),
            // Nobody knows yet whether the message or the account is to blame.
            Action::Fail if &*self.entry.name == "unknown-permanent" => expected(Fate::Other, Rests::Nobody, "", String::new()),
            Action::Fail | Action::Reroute | Action::Split => expected(Fate::Fails, Rests::Nobody, "", String::new()),
        }
    }
}

const TOKEN: &str = "a-t0ken-of-some-length-Pa55word";

/// A relay with two accounts. Each connection carries one message; nothing that rests comes back by itself while a test looks.
struct Bed {
    world: World,
    client: Client,
}

impl Bed {
    fn new() -> Self {
        let adapt = |setup: Setup| {
            let file = setup.folder().join("admin.token");
            put(&file, TOKEN);
            let setup = setup.patient().pause_min("1h").pause_max("1h").probe("1h").client("affinity = \"none\"");
            setup
                .with("[account_limits]\nrecipients_per_day = \"none\"\nexternal_recipients_per_day = \"none\"\nexternal_per_minute = \"none\"")
                .with("[upstream]\nmessages_per_connection = 1")
                .with(&format!("[admin]\nlisten = \"127.0.0.1:0\"\n[[admin.token]]\nname = \"t\"\ntoken_file = \"{}\"", file.display()))
        };
        let world = World::with(2, |_| {}, adapt);
        let client = world.client();
        Self { world, client }
    }

    fn get(&self, path: &str) -> Value {
        get(self.world.relay.page(), path, &[]).json()
    }

    fn post(&self, path: &str) {
        let answer = post(self.world.relay.page(), path, &[&format!("Authorization: Bearer {TOKEN}")], "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }

    fn health(&self, name: &str) -> (Value, Value) {
        let accounts = self.get("/v1/accounts");
        let entry = accounts["accounts"].as_array().and_then(|all| all.iter().find(|entry| entry["name"] == name)).expect("an account");
        (entry.clone(), accounts["troubles"].clone())
    }

    fn deliveries(&self, id: &str, count: usize) -> Vec<Value> {
        self.world.relay.wait_for_all("attempts", count, |line| line["event"] == "delivery" && line["queue_id"] == id)
    }

    /// Sends a message from the null path, so that no notice comes in between.
    fn send(&mut self, to: &str, content: &[u8]) -> String {
        self.client.accepted("", &[to], content)
    }

    fn play(&mut self, case: &Case, number: usize) {
        let expected = case.expected();
        let what = format!("{}: {} [case {number}]", case.step, case.line);
        let tag = format!("[case {number}]");
        let to = if case.entry.class.is_some() { "x@fabrikam.example" } else { "you@contoso.com" };
        self.world.faults([Fault::reply(case.at, format!("{} {tag}", case.line)).first(1)]);
        let id = self.send(to, &mail(&format!("case{number}"), b"text\r\n"));

        // The attempt that met it.
        let first = self.deliveries(&id, 1).remove(0);
        let hit = first["account"].as_str().expect("an account").to_owned();
        let other = account(if hit == account(1) { 2 } else { 1 });
        let status = if expected.fate == Fate::Fails { "bounced" } else { "deferred" };
        let enhanced = case.line.split(' ').nth(1).expect("an enhanced code");
        let seen = ["status", "dsn", "step"].map(|field| first[field].as_str().unwrap_or_default());
        assert_eq!(seen, [status, enhanced, &case.step.to_string()], "{what}: {first}");
        assert_eq!(first["reply"].as_str(), Some(format!("{} {tag}", case.line).as_str()), "{what}");

        // Whoever rests, as the log has it.
        let reason = format!("{}: {} {tag}", case.step, case.line);
        let event = match (expected.rests, expected.state) {
            (Rests::Nobody, _) => "",
            (_, "reduced") => "account-narrowed",
            (Rests::Account, _) => "account-paused",
            (Rests::Route, _) => "route-paused",
            (Rests::Tenant, _) => "tenant-paused",
        };
        let told = |line: &Value| line["reason"] == reason.as_str() && line["event"] != "login-tried";
        if !event.is_empty() {
            let line = self.world.relay.wait_for(&what, told);
            let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
            assert_eq!((text("event").as_str(), &*text("kind")), (event, &*case.entry.name), "{what}: {line}");
            assert_eq!(text("advice"), expected.advice, "{what}");
            match expected.rests {
                Rests::Account => assert_eq!(text("account"), hit, "{what}"),
                Rests::Route => assert_eq!(text("route"), "hve", "{what}"),
                Rests::Tenant | Rests::Nobody => {}
            }
            if event == "account-narrowed" {
                assert!(line["using"].as_u64() < line["configured"].as_u64(), "{what}: {line}");
            } else {
                assert!(text("until").starts_with('2'), "{what}: {line}");
                assert_eq!(text("class"), case.entry.class.map_or("", |class| class.as_str()), "{what}");
            }
        }

        // The account, or more, as operators see it.
        let (entry, troubles) = self.health(&hit);
        let health = match expected.rests {
            Rests::Route | Rests::Tenant => {
                assert_eq!(troubles.as_array().map(Vec::len), Some(1), "{what}: {troubles}");
                let whose = if expected.rests == Rests::Tenant { "tenant" } else { "route hve" };
                assert_eq!(troubles[0]["whose"], whose, "{what}");
                troubles[0].clone()
            }
            Rests::Account | Rests::Nobody => {
                assert_eq!(troubles, serde_json::json!([]), "{what}");
                entry["health"].clone()
            }
        };
        if expected.rests == Rests::Nobody {
            assert_eq!(health["state"], "healthy", "{what}");
        } else {
            let text = |field: &str| health[field].as_str().unwrap_or_default().to_owned();
            assert_eq!((text("state").as_str(), &*text("kind")), (expected.state, &*case.entry.name), "{what}: {health}");
            assert!(text("reason").ends_with(&reason) && text("advice") == expected.advice, "{what}: {health}");
            assert!(text("since").starts_with('2') && text("until").starts_with('2'), "{what}: {health}");
        }
        let alarm = match (expected.rests, expected.state) {
            (Rests::Account, "suspended") => format!("account-suspended {hit}"),
            (Rests::Tenant, "suspended") => "tenant-suspended".to_owned(),
            _ => String::new(),
        };
        if !alarm.is_empty() {
            let raised = |line: &Value| line["event"] == "alarm-raised" && line["why"].as_str().is_some_and(|why| why.contains(&tag));
            let line = self.world.relay.wait_for("the alarm", raised);
            assert!(line["alarm"] == alarm.as_str() && line["why"].as_str().is_some_and(|why| why.contains(&expected.advice)), "{line}");
        }

        // The mail.
        match expected.fate {
            Fate::Other => {
                self.world.removed(&id);
                let attempts = self.deliveries(&id, 2);
                let last = &attempts[1];
                assert_eq!((last["status"].as_str(), last["account"].as_str()), (Some("sent"), Some(other.as_str())), "{what}: {last}");
                assert_eq!(attempts.len(), 2, "{what}");
            }
            Fate::Fails => {
                self.world.removed(&id);
                assert_eq!(self.deliveries(&id, 1).len(), 1, "{what}");
            }
            Fate::Waits(reason) => {
                let waits = || self.get(&format!("/v1/queue/{id}"))["deliveries"][0].clone();
                until(&what, || waits()["waits_for"] == reason);
                let entry = waits();
                let because = entry["reason"].as_str().unwrap_or_default();
                assert!(because.contains(&format!("{} {tag}", case.line)), "{what}: {entry}");
                assert_eq!(entry["until"].is_string(), reason != "held", "{what}: {entry}");
                assert_eq!(self.deliveries(&id, 1).len(), 1, "{what}");
            }
        }

        // The others: mail that has nothing to do with it goes, unless it is all of a route or tenant that rests.
        if expected.rests != Rests::Route && (expected.rests != Rests::Tenant || case.entry.class.is_some()) {
            let bystander = self.send("others@contoso.com", &mail(&format!("other{number}"), b"text\r\n"));
            self.world.removed(&bystander);
            assert!(self.deliveries(&bystander, 1).iter().all(|line| line["status"] == "sent"), "{what}");
        }
        let lines = self.world.relay.logged(told);
        assert_eq!(lines.len(), usize::from(expected.rests != Rests::Nobody), "{what}: {lines:?}");
    }

    /// All is well again, and nothing is queued.
    fn heal(&mut self, case: &Case, number: usize) {
        self.world.faults([]);
        for number in 1..=2 {
            self.post(&format!("/v1/accounts/{}/resume", account(number)));
        }
        for entry in self.get("/v1/queue")["entries"].as_array().expect("a list") {
            let id = entry["id"].as_str().expect("an id");
            if entry["waits_for"] == "held" {
                self.post(&format!("/v1/queue/{id}/release"));
            }
            // What waits for an account goes by itself.
            if ["held", "deferred"].iter().any(|reason| entry["waits_for"] == *reason) {
                self.post(&format!("/v1/queue/{id}/retry"));
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (accounts, queue) = (self.get("/v1/accounts"), self.get("/v1/queue")["entries"].clone());
            let healthy = |entry: &Value| entry["health"]["state"] == "healthy";
            let all = accounts["accounts"].as_array().is_some_and(|all| all.iter().all(healthy));
            if all && accounts["troubles"] == serde_json::json!([]) && queue == serde_json::json!([]) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "not well again after {}, {}: {accounts}\n{queue}\n{}",
                case.entry.name,
                case.step,
                self.world.relay.log_text()
            );
            std::thread::yield_now();
        }
        // What an account has refused for reasons that nobody knows counts until it takes something.
        if &*case.entry.name == "unknown-permanent" {
            for pinned in 1..=2 {
                let from = account(pinned);
                let content = String::from_utf8(mail(&format!("well{number}n{pinned}"), b"text\r\n")).expect("text");
                let id = self.send("you@contoso.com", content.replace("app@contoso.com", &from).as_bytes());
                self.world.removed(&id);
                assert_eq!(self.deliveries(&id, 1)[0]["account"], from.as_str());
            }
        }
    }
}

/// A tenant that waits for a day cannot be told by anybody to go on.
fn heals(case: &Case) -> bool {
    !(case.entry.scope == Scope::Tenant && case.entry.action == Action::Wait)
}

#[test]
fn every_kind_of_reply_at_each_step_does_what_its_entry_says_and_is_told() {
    /// Relays side by side: each waits for the network and the disk most of the time.
    const BEDS: usize = 6;
    let cases = Case::all();
    assert!(cases.len() > 200, "{}", cases.len());
    let left = Mutex::new(cases.iter().enumerate().collect::<Vec<_>>());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    std::thread::scope(|scope| {
        for _ in 0..BEDS {
            scope.spawn(|| {
                let mut bed = Bed::new();
                while let Some((number, case)) = next() {
                    bed.play(case, number);
                    if heals(case) {
                        bed.heal(case, number);
                    } else {
                        bed = Bed::new();
                    }
                }
            });
        }
    });
}
