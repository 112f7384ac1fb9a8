//! The catalogue of upstream replies: data in, one entry for any reply out.
//!
//! What a reply means is written in `catalogue.toml`, not in code, because Microsoft changes texts and numbers without notice; the file is
//! built in and says itself how it is read. The configuration's own entries are tried first, and one of the same name takes a built-in one's
//! place. Entries are tried in order and the first that matches decides. A reply that no entry knows follows its basic code, where a 5yz whose
//! text begins with an enhanced 4.y.z counts as 4yz: doubt defers.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::smtp::{EnhancedStatus, Reply};

use super::{Entry, Step};

static BUILTIN: LazyLock<Catalogue> =
    LazyLock::new(|| include_str!("catalogue.toml").parse().expect("the catalogue that is built in is well-formed: a test reads it"));

/// What the known replies mean.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    #[serde(rename = "reply")]
    entries: Vec<Entry>,
    transient: Entry,
    permanent: Entry,
}

impl Catalogue {
    /// The catalogue that comes with the relay.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// The built-in catalogue behind entries of one's own, which take the place of built-in ones of the same name.
    pub fn extended(own: Vec<Entry>) -> Self {
        let Self { entries, transient, permanent } = Self::builtin().clone();
        let others = entries.into_iter().filter(|entry| own.iter().all(|other| other.name != entry.name)).collect::<Vec<_>>();
        Self { entries: own.into_iter().chain(others).collect(), transient, permanent }
    }

    /// The entries, in the order in which they are tried.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What a reply means that came at `step`.
    pub fn lookup(&self, step: Step, reply: &Reply) -> &Entry {
        let status = effective_status(reply);
        let text = reply.text().to_lowercase();
        let disagrees = status.is_some_and(|status| status.class == 4);
        let unknown = if reply.is_permanent() && !disagrees { &self.permanent } else { &self.transient };
        self.entries.iter().find(|entry| entry.fits(step, reply.code, status, &text)).unwrap_or(unknown)
    }

    /// Whether an entry stands for all replies that nobody knows.
    pub fn is_unknown(&self, entry: &Entry) -> bool {
        [&self.permanent, &self.transient].iter().any(|unknown| unknown.name == entry.name)
    }
}

impl std::str::FromStr for Catalogue {
    type Err = toml::de::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        toml::from_str(text)
    }
}

/// The reply's enhanced status, or the one that its text begins with although it disagrees with the basic code.
pub(super) fn effective_status(reply: &Reply) -> Option<EnhancedStatus> {
    reply.enhanced.or_else(|| reply.lines.first()?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::reply::{Action, Scope};

    #[test]
    fn the_built_in_catalogue_is_consistent() {
        let catalogue = Catalogue::builtin();
        let names: BTreeSet<Arc<str>> = catalogue.entries.iter().map(|entry| entry.name.clone()).collect();
        assert_eq!(names.len(), catalogue.entries.len(), "a name is used twice");
        for entry in &catalogue.entries {
            assert_eq!(entry.flaw(), None, "{}", entry.name);
        }
    }

    #[test]
    fn an_entry_of_ones_own_is_tried_first_and_replaces_its_namesake() {
        let own: Entry = toml::from_str(
            "name = 'authentication-failed'\nmatch = [{ text = 'closed for lunch' }]\nscope = 'account'\naction = 'wait'\nfor = '1h'",
        )
        .expect("an entry");
        let catalogue = Catalogue::extended(vec![own]);
        let found = |line: &str| catalogue.lookup(Step::Auth, &Reply::parse([line]).expect(line)).clone();
        assert_eq!(found("535 5.7.3 Closed for Lunch").action, Action::Wait);
        assert_eq!(&*found("535 5.7.3 Authentication unsuccessful").name, "unknown-permanent");
        assert_eq!(found("550 5.7.750 blocked").scope, Scope::Tenant);
    }

    #[test]
    fn where_the_numbers_disagree_the_text_decides() {
        let name = |line: &str| {
            let reply = Reply::parse([line]).expect(line);
            Catalogue::builtin().lookup(Step::EndOfData, &reply).name.to_string()
        };
        assert_eq!(name("550 4.5.104 Message rejected. Excessive message rate from sender."), "external-rate");
        assert_eq!(name("550 5.2.252 Sender throttled due to continuous unknown-recipient errors"), "account-punished");
        assert_eq!(name("554 5.2.252 SendAsDenied"), "sender-differs");
        assert_eq!(name("550 5.2.252 SendAsDenied"), "sender-differs");
        assert_eq!(name("554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"), "submission-quota");
        assert_eq!(name("550 4.4.999 whatever"), "unknown-transient");
        assert_eq!(name("450 5.9.9 whatever"), "unknown-transient");
        assert_eq!(name("550 whatever"), "unknown-permanent");
    }
}
