//! A login without mail: connect, STARTTLS, EHLO, AUTH, QUIT. It finds out whether a suspended account, application or tenant may send again, and
//! does no harm: no mail is tried, and the scheduler has it done rarely.

use std::sync::Arc;

use super::dispatch::Event;
use super::{Setup, Shared};
use crate::clock::Timestamp;
use crate::mail::AccountName;
use crate::reply;
use crate::schedule::Probed;
use crate::store::Spool;
use crate::telemetry;
use crate::upstream::Connection;

/// Tries it and tells the scheduler. That it begins is recorded. `heard` is what [`Upstream::heard`](super::Upstream::heard) said then.
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>, setup: Arc<Setup>, account: AccountName, heard: u64, started: Timestamp) {
    // Else it was taken out of the configuration, and nobody waits for it.
    let Some(upstream) = setup.accounts.get(&account) else { return };
    let opened = Connection::open(&upstream.endpoint, upstream.login.as_ref().map(|login| (login, heard))).await;
    let trouble = opened.as_ref().err().map(ToString::to_string).unwrap_or_default();
    telemetry::login_tried(&account, &trouble);
    let pause = match opened {
        Ok(connection) => {
            connection.quit().await;
            None
        }
        Err(trouble) => reply::judge_open(&setup.catalogue, &trouble, 0).pause,
    };
    let refused = upstream.refused(pause.as_ref());
    shared.tell(Event::Probed(Probed { account, started, pause }, refused));
}
