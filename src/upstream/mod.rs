//! The client side of SMTP: dial, TLS, EHLO, AUTH, one mail transaction with a reply for each recipient, warm connections.

mod settings;

pub use settings::{Endpoint, Login, Timeouts};
