//! The overview as it changes: server-sent events for pages that are kept open (`GET /v1/events`).
//!
//! One task looks while anybody listens, once a second or as seldom as keeps its own cost below a twentieth, and all who listen get the same
//! text. Whoever connects gets the present state at once; an event comes at least every [`PULSE`], so that silence means that something is wrong.
//!
//! *Limits.* [`LISTENERS`] at a time; further ones are told to come again. Who does not read for [`PATIENCE`] is let go.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::{Overview, Refusal, Relay};

/// Pages that listen at a time.
pub const LISTENERS: usize = 32;
/// The longest silence.
pub const PULSE: Duration = Duration::from_secs(10);
/// How often it is looked, at most.
const PACE: Duration = Duration::from_secs(1);
/// Looking may take this part of the time.
const SHARE: u32 = 20;
/// How long an event may wait for its reader.
const PATIENCE: Duration = Duration::from_secs(30);

/// That a connection is to end: true then. Whoever serves the routes may put it into the extensions of each request, so that whoever listens is
/// told to come again.
#[derive(Debug, Clone)]
pub struct Parting(pub watch::Receiver<bool>);

/// The state as it is told: a whole event; none before the first, and when the relay has ended.
type Told = Option<Bytes>;

/// See the head of this file. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Live {
    told: watch::Sender<Told>,
    /// Whether the task looks.
    looking: Arc<Mutex<bool>>,
    places: Arc<Semaphore>,
}

impl Live {
    pub fn new() -> Self {
        Self { told: watch::Sender::new(None), looking: Arc::default(), places: Arc::new(Semaphore::new(LISTENERS)) }
    }

    /// Answers with events until the listener or the relay goes, or the connection is to end.
    pub fn listen<R: Relay>(&self, relay: &R, parting: Option<Parting>) -> Result<Response, Refusal> {
        let full = || Refusal::Unavailable(format!("{LISTENERS} pages listen already; close one of them"));
        let place = self.places.clone().try_acquire_owned().map_err(|_| full())?;
        let told = self.subscribe(relay);
        let (events, body) = mpsc::channel(1);
        tokio::spawn(pass_on(told, events, parting));
        let body = Body::new(Events { events: body, _place: place });
        Ok(([(CONTENT_TYPE, "text/event-stream")], body).into_response())
    }

    fn subscribe<R: Relay>(&self, relay: &R) -> watch::Receiver<Told> {
        // Neither step can panic half-way.
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = self.told.subscribe();
        if *looking {
            if told.borrow().is_some() {
                told.mark_changed();
            }
        } else {
            *looking = true;
            tokio::spawn(look(self.clone(), relay.clone()));
        }
        told
    }

    /// Whether nobody listens any more, and the task is to end.
    fn is_idle(&self) -> bool {
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        *looking = self.told.receiver_count() > 0;
        !*looking
    }
}

async fn look<R: Relay>(live: Live, relay: R) {
    let (mut last, mut told_at): (Option<Overview>, Instant) = (None, Instant::now());
    loop {
        let begun = Instant::now();
        let Ok(overview) = relay.overview().await else {
            live.told.send_replace(None);
            *live.looking.lock().unwrap_or_else(PoisonError::into_inner) = false;
            return;
        };
        let is_same = last.as_ref().is_some_and(|last| is_same(last, &overview));
        if !is_same || told_at.elapsed() + PACE > PULSE {
            // Plain data is written in any case.
            let text = serde_json::to_string(&overview).unwrap_or_default();
            live.told.send_replace(Some(format!("event: overview\ndata: {text}\n\n").into()));
            told_at = Instant::now();
            last = Some(overview);
        }
        sleep(PACE.max(begun.elapsed() * SHARE)).await;
        if live.is_idle() {
            return;
        }
    }
}

/// Whether nothing but the time differs.
fn is_same(one: &Overview, other: &Overview) -> bool {
    let mut one = one.clone();
    one.status.now = other.status.now;
    one == *other
}

async fn pass_on(mut told: watch::Receiver<Told>, events: mpsc::Sender<Bytes>, parting: Option<Parting>) {
    let parting = async {
        match parting {
            // Nor is anybody there to listen when the connection is gone.
            Some(Parting(mut parting)) => drop(parting.wait_for(|parting| *parting).await),
            None => std::future::pending().await,
        }
    };
    tokio::pin!(parting);
    loop {
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            () = events.closed() => return,
            () = &mut parting => return,
        }
        let Some(event) = told.borrow_and_update().clone() else { return };
        if !matches!(timeout(PATIENCE, events.send(event)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// The events as the body of an answer.
struct Events {
    events: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.events.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
