//! Labels. Clients, accounts and applications come from the configuration, everything else from closed sets: there are never more series than
//! those make, whatever clients and servers say.

use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::mail::{AccountName, Class, ClientName};
use crate::reply::Step;
use crate::smtp::{EnhancedStatus, Reply};

/// The name of a client; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Client(pub ClientName);

/// The name of an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Account(pub AccountName);

/// The status of one of the relay's own replies, or its code where it has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Status(u16, Option<EnhancedStatus>);

impl Status {
    pub fn of(reply: &Reply) -> Self {
        Self(reply.code, reply.enhanced)
    }
}

impl EncodeLabelValue for Client {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.0.as_str())
    }
}

impl EncodeLabelValue for Account {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.0.as_str())
    }
}

impl EncodeLabelValue for Status {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self.1 {
            Some(status) => write!(encoder, "{status}"),
            None => write!(encoder, "{}", self.0),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfClient {
    pub client: Client,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfStatus {
    pub status: Status,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfRefusal {
    pub client: Client,
    pub status: Status,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfRecipient {
    pub account: Account,
    pub class: &'static str,
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfAttempt {
    pub account: Account,
    pub outcome: &'static str,
    pub scope: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfAccount {
    pub account: Account,
}

/// One word of a closed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfResult {
    pub result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfAlarm {
    pub alarm: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfClass {
    pub class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfStep {
    pub step: &'static str,
}

pub(super) fn class(class: Class) -> OfClass {
    OfClass { class: class.as_str() }
}

/// A step of the dialogue with an upstream server, as one word.
pub(super) fn step(step: Step) -> OfStep {
    let step = match step {
        Step::Token => "token",
        Step::Connect => "connect",
        Step::Greeting => "greeting",
        Step::Ehlo => "ehlo",
        Step::StartTls => "starttls",
        Step::Tls => "tls",
        Step::Auth => "auth",
        Step::Mail => "mail",
        Step::Rcpt => "rcpt",
        Step::Data => "data",
        Step::Content => "content",
        Step::EndOfData => "end-of-data",
    };
    OfStep { step }
}
