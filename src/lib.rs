//! hve-relay: an on-premises SMTP submission relay for Microsoft 365 High Volume Email.

pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod intake;
pub mod mail;
pub mod notice;
pub mod reply;
pub mod schedule;
pub mod secret;
pub mod session;
pub mod sim;
pub mod smtp;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod units;
pub mod upstream;
