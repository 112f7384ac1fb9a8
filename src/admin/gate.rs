//! The routes as they are served over TCP: behind [`Access`], with the page in front and with what browsers must be told.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/session` | [`Session`]: who asks, and what that one may do |
//! | `POST /v1/session` with a [`Login`] | the same, and a cookie |
//! | `DELETE /v1/session` | the same, and the cookie is gone |
//!
//! A program needs no session: it sends `Authorization: Bearer` with a token. The page itself, `/livez` and `/readyz` are for everybody who is
//! no foreign web site; they hold no data.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::access::{Access, Denied, Origin, Proven};
use super::page;
use super::routes::{BODY_MAX, error};
use super::{Operator, Refusal};
use crate::secret::Secret;
use crate::telemetry;

/// Passwords that are verified at a time: each takes a processor and the memory that its hash wants.
const TURNS: usize = 2;
/// How long a request's body may take.
const BODY_TIME: Duration = Duration::from_secs(15);
/// For load balancers and the like, which ask without a login.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What browsers are told with every answer. The page is its own files and nothing else: whatever gets into it runs no script, loads nothing, and
/// sends nothing anywhere.
const HEADERS: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// The address that a request has come from; whoever serves the routes puts it into the extensions of each.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// As the log names that one; none: it is not known.
    pub operator: Option<String>,
    /// It may see what there is.
    pub may_read: bool,
    /// It may change something.
    pub may_change: bool,
    /// There is somebody who can log in.
    pub can_log_in: bool,
}

/// What proves who somebody is: name and password of an `[[admin.user]]`, or the token of an `[[admin.token]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub struct Login {
    user: String,
    password: String,
    token: String,
}

struct Gate {
    access: Arc<Access>,
    turns: Semaphore,
}

/// The routes for TCP. Whoever serves them puts a [`Peer`] into the extensions of each request.
pub fn gated(router: Router, access: Arc<Access>) -> Router {
    let gate = Arc::new(Gate { access, turns: Semaphore::new(TURNS) });
    let sessions = Router::new().route("/v1/session", get(tell).post(log_in).delete(log_out)).with_state(gate.clone());
    let guarded = router.layer(from_fn_with_state(gate.clone(), let_in));
    page::routes().merge(sessions).fallback_service(guarded).layer(from_fn_with_state(gate, keep_out)).layer(from_fn(with_headers))
}

async fn with_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Nothing is for foreign web sites, or under a foreign name. A link to the page may stand anywhere.
async fn keep_out(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let mut from = origin(request.headers());
    if request.method() == Method::GET && page::is_part(request.uri().path()) {
        from = Origin { host: from.host, ..Origin::default() };
    }
    match gate.access.admit(from) {
        Ok(()) => next.run(request).await,
        Err(foreign) => error(StatusCode::FORBIDDEN, foreign.to_string()),
    }
}

/// Finds out who asks, and whether that one may.
async fn let_in(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    if reading && PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let operator = match identify(&gate, &parts).await {
        Ok(operator) => operator,
        Err(response) => return response,
    };
    if operator.is_none() && !(reading && gate.access.is_reading_open(peer(&parts.extensions))) {
        let text = if gate.access.has_operators() {
            "log in first"
        } else {
            "nobody can log in: add an [[admin.user]] or an [[admin.token]] to the configuration, or use `hve-relay` on the machine itself"
        };
        return error(StatusCode::UNAUTHORIZED, text);
    }
    // Whoever sends a body slowly holds up nobody but a place among the connections, and that not for long.
    let body = match tokio::time::timeout(BODY_TIME, to_bytes(body, BODY_MAX)).await {
        Ok(Ok(body)) => Body::from(body),
        Ok(Err(_)) => return error(StatusCode::PAYLOAD_TOO_LARGE, format!("a request has at most {BODY_MAX} octets")),
        Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the request took too long"),
    };
    if let Some(operator) = operator {
        parts.extensions.insert(operator);
    }
    next.run(Request::from_parts(parts, body)).await
}

/// The operator behind a request, if one is named.
async fn identify(gate: &Gate, request: &Parts) -> Result<Option<Operator>, Response> {
    let headers = &request.headers;
    if let Some(token) = text(headers, AUTHORIZATION).and_then(|field| field.strip_prefix("Bearer ")) {
        let peer = peer(&request.extensions);
        return match gate.access.by_token(peer, token.trim()) {
            Ok(Proven { operator, .. }) => Ok(Some(operator)),
            Err(denied) => Err(refuse(peer, denied).await),
        };
    }
    let Some(operator) = text(headers, COOKIE).and_then(|cookies| gate.access.by_cookie(cookies)) else { return Ok(None) };
    let changes = !matches!(request.method, Method::GET | Method::HEAD);
    let from = origin(headers);
    if changes && from.origin.is_none() && from.fetch_site.is_none() {
        return Err(error(StatusCode::FORBIDDEN, "a change with a cookie says where it comes from (Origin); programs use a token"));
    }
    Ok(Some(operator))
}

async fn tell(State(gate): State<Arc<Gate>>, request: Parts) -> Json<Session> {
    let operator = text(&request.headers, COOKIE).and_then(|cookies| gate.access.by_cookie(cookies));
    Json(session(&gate.access, peer(&request.extensions), operator))
}

async fn log_in(State(gate): State<Arc<Gate>>, request: Request) -> Response {
    let peer = peer(request.extensions());
    let body = match tokio::time::timeout(BODY_TIME, to_bytes(request.into_body(), BODY_MAX)).await {
        Ok(Ok(body)) => body,
        _ => return error(StatusCode::BAD_REQUEST, "the request did not come whole"),
    };
    let Ok(Login { user, password, token }) = serde_json::from_slice(&body) else {
        // What was written is not quoted: it may be a password.
        return Refusal::Invalid("write {\"user\": …, \"password\": …} or {\"token\": …}".to_owned()).into_response();
    };
    let proven = if token.is_empty() {
        let password = Secret::new(password);
        // The semaphore is never closed.
        let turn = gate.turns.acquire().await;
        let access = gate.access.clone();
        let verified = tokio::task::spawn_blocking(move || access.by_password(peer, &user, &password)).await;
        drop(turn);
        let Ok(verified) = verified else { return error(StatusCode::SERVICE_UNAVAILABLE, "passwords cannot be verified now") };
        verified
    } else {
        gate.access.by_token(peer, &token)
    };
    let proven = match proven {
        Ok(proven) => proven,
        Err(denied) => return refuse(peer, denied).await,
    };
    let operator = proven.operator.clone();
    telemetry::operator_logged_in(peer, &operator.0);
    match gate.access.begin_session(proven).and_then(|cookie| cookie.parse::<HeaderValue>().ok()) {
        Some(cookie) => ([(SET_COOKIE, cookie)], Json(session(&gate.access, peer, Some(operator)))).into_response(),
        None => error(StatusCode::SERVICE_UNAVAILABLE, "no session can be begun now; log in again"),
    }
}

async fn log_out(State(gate): State<Arc<Gate>>, request: Parts) -> Response {
    let cookie = gate.access.end_session(text(&request.headers, COOKIE).unwrap_or_default());
    ([(SET_COOKIE, cookie)], Json(session(&gate.access, peer(&request.extensions), None))).into_response()
}

fn session(access: &Access, peer: IpAddr, operator: Option<Operator>) -> Session {
    Session {
        may_read: operator.is_some() || access.is_reading_open(peer),
        may_change: operator.is_some(),
        can_log_in: access.has_operators(),
        operator: operator.map(|Operator(name)| name),
    }
}

/// Says so, and not at once.
async fn refuse(peer: IpAddr, denied: Denied) -> Response {
    telemetry::operator_refused(peer);
    match denied {
        Denied::Wrong(after) => {
            tokio::time::sleep(after).await;
            error(StatusCode::UNAUTHORIZED, "name, password or token is wrong")
        }
        Denied::Barred => {
            error(StatusCode::TOO_MANY_REQUESTS, "too many logins from your address have failed; wait ten minutes after the last")
        }
    }
}

fn origin(headers: &HeaderMap) -> Origin<'_> {
    Origin { host: text(headers, HOST), origin: text(headers, ORIGIN), fetch_site: text(headers, FETCH_SITE) }
}

/// A field that is there once, as text.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

/// Where nobody has said it, the strictest count is for all together.
fn peer(extensions: &Extensions) -> IpAddr {
    extensions.get().map_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), |Peer(peer)| *peer)
}
