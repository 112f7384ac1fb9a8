//! Mail as data: queue ids, messages, deliveries and recipients, the facts of a header, sender rewriting, trace information. Pure.

mod message;
mod queue_id;

pub use message::{AccountName, Class, ClientName, Content, Delivery, DeliveryId, InDoubt, Kind, Message, Queued, Recipient, RouteName};
pub use queue_id::{NotAQueueId, QueueId, QueueIds};
