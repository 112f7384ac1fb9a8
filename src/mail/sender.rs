//! As whom a message goes out: what becomes of its sender, of the name that readers see, and of signatures that no longer hold.
//!
//! A route says what its server demands, a client may say otherwise for its own mail ([`Senders`]). A [`DisplayName`] is a text with places for
//! what is known of a message; it is read once, with the configuration, so that nothing can be wrong with it when mail goes out. What is filled
//! in comes from outside and is made harmless when the field is written, not here.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::{AccountName, ClientName};
use crate::smtp::Mailbox;

/// What MAIL FROM and the header's From become.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SenderPolicy {
    /// The account that carries the message: High Volume Email takes no other.
    #[default]
    Account,
    /// What they were.
    Keep,
    /// Always this mailbox.
    Fixed(Mailbox),
}

impl SenderPolicy {
    /// The mailbox that takes the sender's place; none where the sender stays, as it does where there is no account whose it could become.
    pub fn mailbox<'a>(&'a self, account: Option<&'a Mailbox>) -> Option<&'a Mailbox> {
        match self {
            Self::Account => account,
            Self::Keep => None,
            Self::Fixed(mailbox) => Some(mailbox),
        }
    }
}

/// What becomes of DKIM-Signature fields when the From is replaced. Each vouches for the From that was there (RFC 6376 §5.4 has every signature
/// cover it), so that it fails from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signatures {
    /// They go: a receiver that mistrusts a failed signature more than none has nothing to mistrust.
    #[default]
    Remove,
    /// They stay, for whoever looks at them later.
    Keep,
}

/// As whom the mail of one client goes out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sender {
    /// What the sender becomes; where nothing is said, what the route says.
    pub policy: Option<SenderPolicy>,
    /// The display name of a replaced From.
    pub display_name: DisplayName,
    /// What becomes of DKIM-Signature fields.
    pub signatures: Signatures,
}

/// As whom the mail of each client goes out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Senders {
    /// For mail of a client that is not configured any more.
    pub every: Sender,
    /// For that of the others.
    pub clients: BTreeMap<ClientName, Sender>,
}

impl Senders {
    /// As whom the mail of that client goes out.
    pub fn of(&self, client: &ClientName) -> &Sender {
        self.clients.get(client).unwrap_or(&self.every)
    }
}

/// The display name of a replaced From: a text with `{author_name}`, `{author}`, `{client}` and `{account}` in it; `{{` and `}}` are braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayName(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    AuthorName,
    Author,
    Client,
    Account,
}

/// The placeholders as they are written.
const PLACES: [(&str, Place); 4] =
    [("author_name", Place::AuthorName), ("author", Place::Author), ("client", Place::Client), ("account", Place::Account)];

/// Why a text is no display name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DisplayNameError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// A line end, or another control.
    #[error("has a control character in it")]
    Control,
    /// No such placeholder; as it was written.
    #[error("has {{{0}}} in it, which stands for nothing")]
    Unknown(String),
    /// A brace without its partner.
    #[error("has a brace without its partner")]
    Brace,
}

/// What a display name is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    /// The author's display name; where there is none, the address.
    pub author_name: &'a str,
    /// The author's address.
    pub author: &'a str,
    pub client: &'a ClientName,
    pub account: &'a AccountName,
}

impl DisplayName {
    /// The name with what is known filled in. It may be of any length and have anything in it.
    pub(super) fn fill(&self, names: Names<'_>) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Place(Place::AuthorName) => names.author_name.to_owned(),
            Part::Place(Place::Author) => names.author.to_owned(),
            Part::Place(Place::Client) => names.client.to_string(),
            Part::Place(Place::Account) => names.account.to_string(),
        };
        self.0.iter().map(text).collect()
    }
}

impl Default for DisplayName {
    /// The author's own.
    fn default() -> Self {
        Self(vec![Part::Place(Place::AuthorName)])
    }
}

impl FromStr for DisplayName {
    type Err = DisplayNameError;

    fn from_str(text: &str) -> Result<Self, DisplayNameError> {
        if text.trim().is_empty() {
            return Err(DisplayNameError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(DisplayNameError::Control);
        }
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            plain.push_str(before);
            if let Some(behind) = brace.strip_prefix("{{").or_else(|| brace.strip_prefix("}}")) {
                plain.push_str(&brace[..1]);
                rest = behind;
                continue;
            }
            let (name, behind) = brace.strip_prefix('{').and_then(|open| open.split_once('}')).ok_or(DisplayNameError::Brace)?;
            let place = PLACES.iter().find(|(written, _)| *written == name).map(|(_, place)| *place);
            let place = place.ok_or_else(|| DisplayNameError::Unknown(name.to_owned()))?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Place(place));
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, DisplayNameError> {
        let (client, account) = (ClientName::new("erp"), AccountName::new("hve01@contoso.com"));
        let names = Names { author_name: "App {x}", author: "app@contoso.com", client: &client, account: &account };
        text.parse::<DisplayName>().map(|name| name.fill(names))
    }

    #[test]
    fn fills_in_what_is_known() {
        for (text, name) in [
            ("{author_name} via {client}", "App {x} via erp"),
            ("{author}{account}", "app@contoso.comhve01@contoso.com"),
            ("Contoso", "Contoso"),
            ("{{{client}}}", "{erp}"),
            ("a }} {{ b", "a } { b"),
            ("{{client}}", "{client}"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(name), "{text}");
        }
        assert_eq!(DisplayName::default(), "{author_name}".parse().expect("a name"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, wrong) in [
            ("", DisplayNameError::Empty),
            ("  ", DisplayNameError::Empty),
            ("a\r\nBcc: x@y", DisplayNameError::Control),
            ("{athor}", DisplayNameError::Unknown("athor".to_owned())),
            ("{}", DisplayNameError::Unknown(String::new())),
            ("{ client }", DisplayNameError::Unknown(" client ".to_owned())),
            ("{client", DisplayNameError::Brace),
            ("client}", DisplayNameError::Brace),
            ("{{client}", DisplayNameError::Brace),
            ("{client}}", DisplayNameError::Brace),
        ] {
            assert_eq!(filled(text), Err(wrong), "{text:?}");
        }
        assert_eq!(DisplayNameError::Unknown("x".to_owned()).to_string(), "has {x} in it, which stands for nothing");
    }

    #[test]
    fn a_client_that_is_gone_is_treated_as_every_client() {
        let own = Sender { policy: Some(SenderPolicy::Keep), ..Sender::default() };
        let senders = Senders { every: Sender::default(), clients: [(ClientName::new("erp"), own.clone())].into() };
        assert_eq!(senders.of(&ClientName::new("erp")), &own);
        assert_eq!(senders.of(&ClientName::new("gone")), &Sender::default());
    }
}
