//! What is so at the moment of a scrape. It is asked for then, and not kept up to date meanwhile: whoever does not scrape pays nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::counters::alarm_word;
use super::{PREFIX, help};
use crate::budget::Usage;
use crate::clock::Timestamp;
use crate::intake::Habit;
use crate::mail::{AppName, Class, ClientName};
use crate::notice::Alarm;
use crate::schedule::{AccountStatus, ClassStatus, Counts};

/// What is so.
#[derive(Debug, Default)]
pub struct State {
    /// When.
    pub now: Timestamp,
    /// Nothing speaks against `/readyz`.
    pub ready: bool,
    /// Sessions that are open.
    pub sessions: usize,
    /// Deliveries by what they do.
    pub queue: Counts,
    /// What waits.
    pub classes: Vec<ClassStatus>,
    /// Each account.
    pub accounts: Vec<AccountStatus>,
    /// The tenant's budgets.
    pub tenant: Vec<Usage>,
    /// Alarms that stand.
    pub alarms: Vec<Alarm>,
    /// What clients were seen to do, and how often.
    pub habits: Vec<(ClientName, Habit, u64)>,
    /// Octets that new mail may still take.
    pub spare: u64,
    /// Secrets and certificates.
    pub ends: Vec<End>,
    /// Seconds that each application's present token still serves.
    pub tokens: Vec<(AppName, f64)>,
}

/// Something that ends one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// `secret` or `certificate`.
    pub kind: &'static str,
    /// The application, or the file.
    pub name: String,
    /// When.
    pub at: Timestamp,
}

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;

/// Metrics that are made for one scrape.
struct Sheet(BTreeMap<&'static str, Gauges>, Registry);

impl Sheet {
    fn set<const N: usize>(&mut self, name: &'static str, labels: [(&'static str, &str); N], value: f64) {
        let Self(known, registry) = self;
        let gauges = known.entry(name).or_insert_with(|| {
            let gauges = Gauges::default();
            registry.register(name, help(name), gauges.clone());
            gauges
        });
        gauges.get_or_create(&labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect()).set(value);
    }

    fn budgets(&mut self, holder: &str, usage: &[Usage]) {
        for Usage { limit, used, in_flight, max, .. } in usage {
            let labels = [("holder", holder), ("limit", limit.as_str())];
            self.set("budget_used", labels, f64::from(used + in_flight));
            if let Some(max) = max {
                self.set("budget_limit", labels, f64::from(*max));
            }
        }
    }
}

impl State {
    pub(super) fn write_to(&self, text: &mut String) -> fmt::Result {
        let mut sheet = Sheet(BTreeMap::new(), Registry::with_prefix(PREFIX));
        sheet.set("build_info", [("version", env!("CARGO_PKG_VERSION"))], 1.0);
        sheet.set("ready", [], f64::from(u8::from(self.ready)));
        sheet.set("sessions_open", [], self.sessions as f64);
        let Counts { active, ready, deferred, held } = self.queue;
        for (state, count) in [("under-way", active), ("ready", ready), ("deferred", deferred), ("held", held)] {
            sheet.set("queue_deliveries", [("state", state)], count as f64);
        }
        self.classes.iter().for_each(|status| self.class(&mut sheet, status));
        self.accounts.iter().for_each(|status| account(&mut sheet, status));
        sheet.budgets("tenant", &self.tenant);
        for alarm in &self.alarms {
            sheet.set("alarms_standing", [("alarm", alarm_word(alarm))], self.standing(alarm_word(alarm)));
        }
        sheet.set("store_spare_bytes", [], self.spare as f64);
        for End { kind, name, at } in &self.ends {
            sheet.set("credential_ends_seconds", [("kind", kind), ("name", name)], at.as_millis() as f64 / 1_000.0);
        }
        for (app, left) in &self.tokens {
            sheet.set("token_left_seconds", [("app", app.as_str())], *left);
        }
        let habits = Family::<Labels, Counter>::default();
        sheet.1.register("habits", help("habits"), habits.clone());
        for (client, habit, count) in &self.habits {
            let labels = vec![("client", client.to_string()), ("habit", habit.as_str().to_owned())];
            habits.get_or_create(&labels).inc_by(*count);
        }
        encode_registry(text, &sheet.1)
    }

    fn class(&self, sheet: &mut Sheet, status: &ClassStatus) {
        let (priority, class) = (status.priority.to_string(), status.class.to_string());
        let labels = [("priority", priority.as_str()), ("class", class.as_str())];
        sheet.set("waiting_deliveries", labels, status.deliveries as f64);
        sheet.set("waiting_recipients", labels, status.recipients as f64);
        sheet.set("oldest_seconds", labels, self.now.since(status.oldest).as_secs_f64());
        if let Some(empty_at) = status.empty_at {
            sheet.set("empty_in_seconds", labels, empty_at.since(self.now).as_secs_f64());
        }
    }

    fn standing(&self, word: &str) -> f64 {
        self.alarms.iter().filter(|alarm| alarm_word(alarm) == word).count() as f64
    }
}

fn account(sheet: &mut Sheet, status: &AccountStatus) {
    let name = status.name.as_str();
    sheet.set("account_connections", [("account", name)], status.active as f64);
    sheet.set("account_suspended", [("account", name)], f64::from(u8::from(status.suspended.is_some())));
    for class in Class::ALL {
        let waits = status.waits.iter().any(|(waiting, _)| *waiting == class);
        sheet.set("account_usable", [("account", name), ("class", class.as_str())], f64::from(u8::from(!waits)));
    }
    sheet.budgets(name, &status.usage);
}
