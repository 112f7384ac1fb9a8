//! Which deliveries are meant: one by its name, or all of a range that fit.

use std::fmt;
use std::str::FromStr;

use super::{Action, Refusal, WaitsFor};
use crate::mail::{Class, ClientName, DeliveryId, Priority, QueueId};
use crate::store::Listed;

/// One message, or one of its deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// All that is queued of a message: `01KA…Z`.
    Message(QueueId),
    /// One delivery: `01KA…Z.1`.
    Delivery(DeliveryId),
}

/// A stretch of the queue, which is ordered by delivery id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// Only what comes behind this one; none: from the oldest.
    pub after: Option<DeliveryId>,
    /// Nothing behind this one; none: to the youngest.
    pub through: Option<DeliveryId>,
}

/// What deliveries must be; a field that is none lets all through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this client.
    pub client: Option<ClientName>,
    /// Of this class.
    pub class: Option<Class>,
    /// Of this priority.
    pub priority: Option<Priority>,
    /// Waiting for this.
    pub reason: Option<WaitsFor>,
}

impl Filter {
    /// From how a filter is written.
    ///
    /// # Errors
    /// If a word is not one of those that there are; the text names them.
    pub fn read(client: Option<&str>, class: Option<&str>, priority: Option<&str>, reason: Option<&str>) -> Result<Self, Refusal> {
        let class = read("class", class, &[Class::Internal, Class::External], Class::as_str)?;
        let priority = read("priority", priority, &Priority::ALL, Priority::as_str)?;
        let reason = read("reason", reason, &WaitsFor::ALL, WaitsFor::as_str)?;
        Ok(Self { client: client.map(ClientName::new), class, priority, reason })
    }

    /// Whether it lets a delivery through, as far as the store can tell; `reason` is not looked at.
    pub fn admits(&self, listed: &Listed) -> bool {
        self.client.as_ref().is_none_or(|client| *client == listed.message.client)
            && self.class.is_none_or(|class| class == listed.delivery.class)
            && self.priority.is_none_or(|priority| priority == listed.message.priority)
    }
}

fn read<T: Copy>(what: &str, text: Option<&str>, all: &[T], word: impl Fn(T) -> &'static str) -> Result<Option<T>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let words = || all.iter().map(|one| word(*one)).collect::<Vec<_>>().join(", ");
    let found = all.iter().copied().find(|one| word(*one) == text);
    found.map(Some).ok_or_else(|| Refusal::Invalid(format!("{text:?} is no {what}; there are {}", words())))
}

impl Range {
    /// Exactly what a target names.
    pub fn of(target: Target) -> Self {
        let (message, first, last) = match target {
            Target::Message(message) => (message, 0, u16::MAX),
            // Parts count from 1.
            Target::Delivery(DeliveryId { message, part }) => (message, part.saturating_sub(1), part),
        };
        Self { after: Some(DeliveryId { message, part: first }), through: Some(DeliveryId { message, part: last }) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(id) => id.fmt(f),
            Self::Delivery(id) => id.fmt(f),
        }
    }
}

impl FromStr for Target {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let target = if text.contains('.') { text.parse().map(Self::Delivery) } else { text.parse().map(Self::Message) };
        let hint = "13 characters from 0-9 and A-Z without I, L, O and U, and for one delivery of the message a dot and its number";
        target.map_err(|_| Refusal::NotFound(format!("{text:?} is no queue id: {hint}")))
    }
}

/// The text names nothing that can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are hold, release, retry and remove")]
pub struct NotAnAction;

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hold, Self::Release, Self::Retry, Self::Remove];

    /// As it stands in a path and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Retry => "retry",
            Self::Remove => "remove",
        }
    }
}

impl FromStr for Action {
    type Err = NotAnAction;

    fn from_str(text: &str) -> Result<Self, NotAnAction> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or(NotAnAction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_word_by_word_and_names_the_words_that_there_are() {
        let filter = Filter::read(Some("erp"), Some("external"), Some("bulk"), Some("budget")).expect("a filter");
        assert_eq!((filter.class, filter.priority, filter.reason), (Some(Class::External), Some(Priority::Bulk), Some(WaitsFor::Budget)));
        for (class, priority, reason, named) in [
            (Some("foreign"), None, None, "internal, external"),
            (None, Some("low"), None, "high, normal, bulk"),
            (None, None, Some("no"), "held"),
        ] {
            let Err(Refusal::Invalid(text)) = Filter::read(None, class, priority, reason) else { panic!("taken") };
            assert!(text.contains(named), "{text}");
        }
    }

    #[test]
    fn a_target_is_a_message_or_one_of_its_deliveries() {
        let id = QueueId::from_number(1 << 50).expect("an id");
        for (text, target) in
            [(id.to_string(), Target::Message(id)), (format!("{id}.3"), Target::Delivery(DeliveryId { message: id, part: 3 }))]
        {
            assert_eq!(text.parse(), Ok(target));
            assert_eq!(target.to_string(), text);
        }
        for text in ["", "x", "hold", &format!("{id}."), &format!("{id}.x"), &format!("{id}.70000")] {
            assert!(matches!(text.parse::<Target>(), Err(Refusal::NotFound(_))), "{text}");
        }
    }
}
