//! The grammar of SMTP (RFC 5321), both directions, without a session: addresses, replies, command lines, content;
//! and what stands around it on the wire: SASL, the PROXY protocol. Pure.

mod address;
mod command;
mod data;
mod dsn;
mod line;
mod proxy;
mod reply;
mod sasl;

pub use address::{AddressError, Mailbox, ReversePath};
pub use command::{Command, CommandError, MailParameters, NotOffered, Strays};
pub use data::DataDecoder;
pub use dsn::{MessageDsn, NotADsnValue, Notify, Orcpt, RecipientDsn, Ret, encode_xtext, parse_envid};
pub use line::{Line, LineSplitter};
pub use proxy::{Parsed, ProxyError, ProxyHeader};
pub use reply::{EnhancedStatus, NotAStatus, Reply};
pub use sasl::{Credentials, Exchange, Mechanism, SaslError, Step};
