//! Bringing messages in, each with its envelope and its content: on the operator's socket alone, because contents are as large as the
//! configuration lets them be, and what comes over TCP is small.
//!
//! A request's body is a [`BringIn`] in JSON on one line, and behind the line's end the content as it is. All of it is read in any case, so that
//! whoever sends it hears the answer. Of an envelope there may be [`Envelope::LONGEST`] octets, and of such requests [`AT_ONCE`] at a time; the
//! next ones wait.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{Operator, Refusal, Relay, Time};
use crate::store::{Envelope, MayHaveLeft};

/// Messages that are brought in at a time.
const AT_ONCE: usize = 2;

/// What is to be brought in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BringIn {
    /// `hold` or `resend`: it may have been delivered since it was written.
    pub in_doubt: MayHaveLeft,
    /// When the backup was made that it comes from; none: it comes from files.
    pub backup_of: Option<Time>,
    /// Its envelope.
    pub envelope: Envelope,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroughtIn {
    /// In a word.
    pub outcome: Outcome,
    /// Deliveries that were brought in.
    pub deliveries: usize,
    /// Recipients who were left out: the history says what became of them since.
    pub settled: usize,
}

/// See [`BroughtIn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was brought in.
    Taken,
    /// It is queued, and stays as it is.
    Queued,
    /// It was, and has left since.
    Left,
}

/// The content of a message that is brought in, piece by piece.
#[derive(Debug)]
pub struct Pieces {
    /// What came with the line before it.
    ready: Bytes,
    rest: Body,
}

impl Pieces {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// If whoever sends it has gone.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        if !self.ready.is_empty() {
            return Ok(Some(std::mem::take(&mut self.ready)));
        }
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut self.rest).poll_frame(cx)).await {
            let frame = frame.map_err(|error| Refusal::Invalid(format!("the content cannot be read: {error}")))?;
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Reads the rest of it, for nobody.
    ///
    /// # Errors
    /// As of [`Self::next`].
    pub async fn swallow(&mut self) -> Result<(), Refusal> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// The first line.
    async fn line(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut line = Vec::new();
        while let Some(mut piece) = self.next().await? {
            let end = memchr::memchr(b'\n', &piece);
            line.extend_from_slice(&piece.split_to(end.unwrap_or(piece.len())));
            if line.len() as u64 > Envelope::LONGEST {
                return Err(Refusal::Invalid(format!("an envelope has at most {} octets", Envelope::LONGEST)));
            }
            if end.is_some() {
                self.ready = piece.split_off(1);
                return Ok(line);
            }
        }
        Err(Refusal::Invalid("the envelope has no end: it is one line, and the content comes behind it".to_owned()))
    }
}

/// The route. Whoever serves it puts an [`Operator`] into the extensions of each request.
pub fn letters<R: Relay>(relay: R) -> Router {
    Router::new().route("/v1/letters", post(bring_in::<R>)).with_state((relay, Arc::new(Semaphore::new(AT_ONCE))))
}

async fn bring_in<R: Relay>(
    State((relay, places)): State<(R, Arc<Semaphore>)>,
    by: Operator,
    rest: Body,
) -> Result<Json<BroughtIn>, Refusal> {
    // The semaphore is never closed.
    let _place = places.acquire().await;
    let mut content = Pieces { ready: Bytes::new(), rest };
    let line = content.line().await?;
    let asked = serde_json::from_slice(&line).map_err(|error| Refusal::Invalid(format!("the envelope cannot be read: {error}")))?;
    relay.bring_in(asked, content, by).await.map(Json)
}
