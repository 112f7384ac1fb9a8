//! The running relay: listeners, sessions, the dispatch loop, shutdown.
