//! For those who watch the relay: `/metrics`, `/livez` and `/readyz`. They are asked several times a minute, and log nothing.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Refusal, Relay};
use crate::telemetry;

/// How long an answer may take: whoever watches gives up after ten seconds (Prometheus) or sooner.
const PATIENCE: Duration = Duration::from_secs(5);
/// The media type of OpenMetrics 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The three routes.
pub(super) fn routes<R: Relay>() -> Router<R> {
    Router::new().route("/metrics", get(metrics::<R>)).route("/livez", get(livez::<R>)).route("/readyz", get(readyz::<R>))
}

async fn metrics<R: Relay>(State(relay): State<R>) -> Result<Response, Refusal> {
    let late = |_| Refusal::Unavailable("the relay did not answer in time".to_owned());
    let state = tokio::time::timeout(PATIENCE, relay.state()).await.map_err(late)??;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], telemetry::scrape(&state)).into_response())
}

async fn livez<R: Relay>(State(relay): State<R>) -> Response {
    match tokio::time::timeout(PATIENCE, relay.status()).await {
        Ok(Ok(_)) => said(StatusCode::OK, "alive"),
        Ok(Err(refusal)) => said(StatusCode::SERVICE_UNAVAILABLE, &refusal.to_string()),
        Err(_) => said(StatusCode::SERVICE_UNAVAILABLE, "the dispatcher did not answer in time"),
    }
}

async fn readyz<R: Relay>(State(relay): State<R>) -> Response {
    let late = |_| vec!["the relay did not answer in time".to_owned()];
    let obstacles = tokio::time::timeout(PATIENCE, relay.obstacles()).await.unwrap_or_else(late);
    if obstacles.is_empty() { said(StatusCode::OK, "ready") } else { said(StatusCode::SERVICE_UNAVAILABLE, &obstacles.join("\n")) }
}

fn said(status: StatusCode, text: &str) -> Response {
    (status, format!("{text}\n")).into_response()
}
