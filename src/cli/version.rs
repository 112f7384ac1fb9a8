//! `hve-relay --version`: what is needed to say which program this is.

use std::sync::LazyLock;

static FACTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\ncommit  {}\ntarget  {}\nrustc   {}\nsqlite  {}",
        env!("CARGO_PKG_VERSION"),
        env!("HVE_RELAY_COMMIT"),
        env!("HVE_RELAY_TARGET"),
        env!("HVE_RELAY_RUSTC").trim_start_matches("rustc "),
        rusqlite::version(),
    )
});

/// The version, and below it the facts of the build.
pub(super) fn facts() -> &'static str {
    &FACTS
}
