//! The grammar of SMTP (RFC 5321), both directions, without a session: addresses, replies, command lines, content. Pure.

mod address;
mod command;
mod data;
mod dsn;
mod line;
mod reply;

pub use address::{AddressError, Mailbox, ReversePath};
pub use command::{Command, CommandError, MailParameters, NotOffered, Strays};
pub use data::DataDecoder;
pub use dsn::{MessageDsn, NotADsnValue, Notify, Orcpt, RecipientDsn, Ret, encode_xtext, parse_envid};
pub use line::{Line, LineSplitter};
pub use reply::{EnhancedStatus, NotAStatus, Reply};
