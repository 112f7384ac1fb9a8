//! The routes: from a request to a question that the relay can answer, and from its answer to a response.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::live::{Live, Parting};
use super::{
    Action, ErrorText, Filter, LIMIT, LIMIT_MAX, ListQuery, Operator, REASON_MAX, Range, Refusal, Relay, ReportQuery, SUSPENSION_MAX,
    Selection, Suspend, Target, TraceQuery,
};
use crate::mail::{AccountName, DeliveryId};
use crate::units::{format_duration, parse_duration};

/// Octets of a request's body, at most.
pub(super) const BODY_MAX: usize = 64 << 10;

/// Version 1 for programs that read interfaces.
const OPENAPI: &str = include_str!("../../deploy/openapi.json");

/// All routes of version 1. Whoever serves them puts an [`Operator`] into the extensions of each request.
pub fn router<R: Relay>(relay: R) -> Router {
    let live = Live::new();
    let events = move |State(relay): State<R>, parting: Option<Extension<Parting>>| async move {
        live.listen(&relay, parting.map(|Extension(parting)| parting))
    };
    Router::new()
        .route("/v1/openapi.json", get(|| async { ([(CONTENT_TYPE, "application/json")], OPENAPI) }))
        .route("/v1/overview", get(overview::<R>))
        .route("/v1/events", get(events))
        .route("/v1/status", get(status::<R>))
        .route("/v1/queue", get(list::<R>))
        // One delivery by its id; or, of the selected ones, what is to be done to them.
        .route("/v1/queue/{what}", get(show::<R>).delete(remove::<R>).post(select::<R>))
        .route("/v1/queue/{what}/{action}", post(change::<R>))
        .route("/v1/accounts", get(accounts::<R>))
        .route("/v1/trace", get(trace::<R>))
        .route("/v1/report", get(report::<R>))
        .route("/v1/accounts/{name}/suspend", post(suspend::<R>))
        .route("/v1/accounts/{name}/resume", post(resume::<R>))
        .route("/v1/habits", get(habits::<R>).delete(forget_habits::<R>))
        .route("/v1/reload", post(reload::<R>))
        .merge(super::log::routes())
        .merge(super::monitor::routes::<R>())
        .fallback(|| async { Refusal::NotFound("there is nothing at this path".to_owned()) })
        .method_not_allowed_fallback(|| async { error(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method") })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(relay)
}

type Answer<T> = Result<Json<T>, Refusal>;

async fn status<R: Relay>(State(relay): State<R>) -> Answer<impl Serialize> {
    relay.status().await.map(Json)
}

async fn overview<R: Relay>(State(relay): State<R>) -> Answer<impl Serialize> {
    relay.overview().await.map(Json)
}

async fn list<R: Relay>(State(relay): State<R>, query: Result<Query<ListQuery>, QueryRejection>) -> Answer<impl Serialize> {
    let Query(query) = query.map_err(|error| Refusal::Invalid(error.body_text()))?;
    let ListQuery { after, limit, client, class, priority, reason } = query;
    let filter = Filter::read(client.as_deref(), class.as_deref(), priority.as_deref(), reason.as_deref())?;
    let limit = limit.unwrap_or(LIMIT);
    if limit == 0 || limit > LIMIT_MAX {
        return Err(Refusal::Invalid(format!("limit is a number from 1 to {LIMIT_MAX}")));
    }
    relay.list(Range { after: place(after.as_deref())?, through: None }, filter, limit).await.map(Json)
}

async fn show<R: Relay>(State(relay): State<R>, Path(id): Path<String>) -> Answer<impl Serialize> {
    relay.show(id.parse()?).await.map(Json)
}

async fn change<R: Relay>(State(relay): State<R>, Path((id, action)): Path<(String, String)>, by: Operator) -> Answer<impl Serialize> {
    let target: Target = id.parse()?;
    relay.change(read_action(&action)?, target, by).await.map(Json)
}

async fn remove<R: Relay>(State(relay): State<R>, Path(id): Path<String>, by: Operator) -> Answer<impl Serialize> {
    relay.change(Action::Remove, id.parse()?, by).await.map(Json)
}

async fn select<R: Relay>(State(relay): State<R>, Path(what): Path<String>, by: Operator, body: Bytes) -> Result<Response, Refusal> {
    let count = what == "count";
    let action = if count { None } else { Some(read_action(&what)?) };
    let Selection { all, client, class, priority, reason, after, through } = read(&body)?;
    let filter = Filter::read(client.as_deref(), class.as_deref(), priority.as_deref(), reason.as_deref())?;
    if all == (filter != Filter::default()) {
        let text = "say what is meant: either \"all\": true, or one of client, class, priority and reason";
        return Err(Refusal::Invalid(text.to_owned()));
    }
    let range = Range { after: place(after.as_deref())?, through: place(through.as_deref())? };
    match action {
        None => relay.count(range, filter).await.map(|totals| Json(totals).into_response()),
        Some(action) => relay.change_all(action, range, filter, by).await.map(|changed| Json(changed).into_response()),
    }
}

async fn accounts<R: Relay>(State(relay): State<R>) -> Answer<impl Serialize> {
    relay.accounts().await.map(Json)
}

async fn habits<R: Relay>(State(relay): State<R>) -> Answer<impl Serialize> {
    relay.habits().await.map(Json)
}

async fn forget_habits<R: Relay>(State(relay): State<R>, by: Operator) -> Answer<impl Serialize> {
    relay.forget_habits(by).await.map(Json)
}

async fn trace<R: Relay>(State(relay): State<R>, query: Result<Query<TraceQuery>, QueryRejection>) -> Answer<impl Serialize> {
    let Query(query) = query.map_err(|error| Refusal::Invalid(error.body_text()))?;
    relay.trace(query).await.map(Json)
}

async fn report<R: Relay>(State(relay): State<R>, query: Result<Query<ReportQuery>, QueryRejection>) -> Answer<impl Serialize> {
    let Query(query) = query.map_err(|error| Refusal::Invalid(error.body_text()))?;
    relay.report(query).await.map(Json)
}

async fn suspend<R: Relay>(State(relay): State<R>, Path(name): Path<String>, by: Operator, body: Bytes) -> Answer<impl Serialize> {
    let Suspend { length, reason } = read(&body)?;
    let length = length.as_deref().map(read_length).transpose()?;
    // It comes out again on one line of a listing.
    let reason = reason.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ").replace(char::is_control, "");
    if reason.chars().count() > REASON_MAX {
        return Err(Refusal::Invalid(format!("the reason has more than {REASON_MAX} characters")));
    }
    relay.suspend(read_account(&name), length, reason, by).await.map(Json)
}

async fn resume<R: Relay>(State(relay): State<R>, Path(name): Path<String>, by: Operator) -> Answer<impl Serialize> {
    relay.resume(read_account(&name), by).await.map(Json)
}

async fn reload<R: Relay>(State(relay): State<R>, by: Operator) -> Answer<impl Serialize> {
    relay.reload(by).await.map(Json)
}

/// An empty body stands for an object without fields.
pub(super) fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Refusal> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| Refusal::Invalid(format!("the body cannot be read: {error}")))
}

fn read_action(text: &str) -> Result<Action, Refusal> {
    text.parse().map_err(|error| Refusal::NotFound(format!("{text:?} cannot be done to mail: {error}")))
}

fn read_length(text: &str) -> Result<Duration, Refusal> {
    let length = parse_duration(text).map_err(|error| Refusal::Invalid(error.to_string()))?;
    if length.is_zero() || length > SUSPENSION_MAX {
        let longest = format_duration(SUSPENSION_MAX);
        return Err(Refusal::Invalid(format!("a suspension lasts between 1ms and {longest}, or without \"for\" until it is ended")));
    }
    Ok(length)
}

/// The names of accounts are addresses in lower case.
fn read_account(text: &str) -> AccountName {
    AccountName::new(text.to_ascii_lowercase())
}

fn place(text: Option<&str>) -> Result<Option<DeliveryId>, Refusal> {
    let read = |text: &str| text.parse().map_err(|_| Refusal::Invalid(format!("{text:?} is not the id of a delivery")));
    text.map(read).transpose()
}

pub(super) fn error(status: StatusCode, text: impl Into<String>) -> Response {
    (status, Json(ErrorText { error: text.into() })).into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        error(status, self.to_string())
    }
}

/// Nobody changes anything without the transport knowing who it is.
impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        parts.extensions.get().cloned().ok_or_else(|| error(StatusCode::FORBIDDEN, "it is not known who asks"))
    }
}
