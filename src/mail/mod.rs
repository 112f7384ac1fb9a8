//! Mail as data: queue ids, messages, deliveries and recipients, the facts of a header, sender rewriting, trace information. Pure.

mod author;
mod header;
mod message;
mod queue_id;
mod reported;
mod rewrite;
mod sender;
pub mod sevenbit;
mod trace;
pub mod words;

pub use author::{AUTHORS, Author, Authors, authors};
pub use header::{Field, Fields, Header, Line, header_end};
pub use message::{
    AccountName, AppName, Class, ClientName, Content, Delivery, DeliveryId, InDoubt, Kind, Message, Priority, Queued, Recipient, RouteName,
};
pub use queue_id::{NotAQueueId, QueueId, QueueIds};
pub use reported::{Action, Gathered, NotAnAction, Reported};
pub use rewrite::{Rewrite, Rewritten, growth_bound, rewrite};
pub use sender::{DisplayName, DisplayNameError, Sender, SenderPolicy, Senders, Signatures};
pub use trace::{Trace, domain, message_id};
