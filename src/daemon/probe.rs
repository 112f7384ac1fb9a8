//! A login without mail: connect, STARTTLS, EHLO, AUTH, QUIT. It finds out whether a suspended account, application or tenant may send again, and
//! does no harm: no mail is tried, and the scheduler has it done rarely.

use std::sync::Arc;

use super::Shared;
use super::dispatch::Event;
use crate::clock::Timestamp;
use crate::mail::AccountName;
use crate::reply;
use crate::schedule::Probed;
use crate::store::Spool;
use crate::telemetry;
use crate::upstream::Connection;

/// Tries it and tells the scheduler. That it begins is recorded.
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>, account: AccountName, started: Timestamp) {
    let setup = shared.setup();
    let opened = match setup.accounts.get(&account) {
        Some(upstream) => Connection::open(&upstream.endpoint, upstream.login.as_ref()).await,
        // It was taken out of the configuration, and nobody waits for it.
        None => return,
    };
    let trouble = opened.as_ref().err().map(ToString::to_string).unwrap_or_default();
    telemetry::login_tried(&account, &trouble);
    let pause = match opened {
        Ok(connection) => {
            connection.quit().await;
            None
        }
        Err(trouble) => reply::judge_open(&setup.catalogue, &trouble, 0).pause,
    };
    shared.tell(Event::Probed(Probed { account, started, pause }));
}
