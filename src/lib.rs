//! hve-relay: an on-premises SMTP submission relay for Microsoft 365 High Volume Email. This page is the map.
//!
//! > A message is never acknowledged before it is durable, and never forgotten before it is settled. Everything that decides is a pure
//! > function of its inputs; everything that touches the world is thin.
//!
//! # The journey of a message
//!
//! ```text
//!  device ──TCP──▶ daemon::listener ─▶ session ─▶ intake ─▶ store.accept ──▶ 250
//!                  (sockets)           (SMTP      (who,      (durable)
//!                                       grammar)   what)         │
//!                                                                ▼
//!  HVE ◀──TLS── upstream ◀── mail::rewrite ◀── daemon::attempt ◀── schedule
//!               (lettre)     (From = account)  (thin)              (what next, on which account)
//!                  │
//!                  ▼
//!               reply::judge ─▶ store.settle ─▶ notice (RFC 3464), log, metrics
//! ```
//!
//! # The rooms
//!
//! Imports point down only; `tests/architecture.rs` holds the table and enforces it. Each room's `mod.rs` is its only door, and says what is
//! inside.
//!
//! | row | rooms |
//! |---|---|
//! | wiring | [`cli`], [`daemon`] |
//! | showing | [`admin`] |
//! | telling | [`telemetry`]: log events and metrics |
//! | touching the world | [`store`], [`upstream`], [`tls`], [`config`] |
//! | deciding (pure) | [`session`], [`intake`], [`schedule`], [`budget`], [`reply`], [`notice`] |
//! | speaking (pure) | [`mail`], [`smtp`], [`clock`], [`secret`], [`units`] |
//! | beside | [`sim`]: the simulated HVE endpoint, which shares no parser with the rest |
//!
//! # What holds everywhere
//!
//! * A client sees 250 only after the store has synced. An attempt begins only after the store has recorded that it does.
//! * Doubt defers: only an explicit 5yz that is the recipient's or the message's own fault, or expiry, fails a recipient.
//! * No room that decides reads a clock, opens a file or a socket, or logs: time comes in as an argument, decisions go out as values.
//! * No credential is sent but over a verified TLS connection, and no type that holds one can print it.
//! * What the configuration says is one value. A reload puts another in its place, and whoever has begun something ends it by the one it began with.
//! * Nothing grows without a limit, and each limit has a key in the configuration.
//! * No lock is held across an await.
//!
//! What an operator must know is in `README.md`, `config/hve-relay.toml` and `deploy/`.

pub mod admin;
pub mod budget;
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
