//! Notices of the relay: RFC 3464 reports about what failed. Pure.
