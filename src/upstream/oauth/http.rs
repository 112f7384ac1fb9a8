//! One POST to a token endpoint over a TLS connection of its own, through a proxy if the environment names one.
//!
//! A token is asked for once an hour, so nothing is kept open. Redirects are not followed: a secret goes to the configured host alone. The answer
//! has a limit, and all of it together has a time limit. A proxy is asked for a tunnel (CONNECT): it sees the endpoint's name, and nothing of
//! what is said inside.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, DATE, HOST, PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::app::TokenUrl;

/// Octets of an answer. One with a token has 2 to 4 KiB.
const LONGEST_ANSWER: usize = 64 << 10;
/// Octets of an answer's header.
const LONGEST_HEADER: usize = 16 << 10;

/// Why there is no answer, for an operator.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub why: String,
    /// Who must do what; empty if it passes by itself.
    pub advice: &'static str,
}

/// How token endpoints are reached.
pub(super) struct Http {
    tls: Arc<ClientConfig>,
    proxies: Matcher,
    time_limit: Duration,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

const WRONG_CERTIFICATE: &str = "Check the application's token_url and tls_ca_file, and the clock: no secret is sent to a server that cannot prove \
                                 who it is. A proxy that opens TLS connections needs its authority in tls_ca_file.";
const WRONG_PROXY: &str = "Check HTTPS_PROXY and NO_PROXY in the relay's environment, and whether the proxy lets this host through.";

impl Http {
    /// Takes the proxy from `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not.
    pub fn new(tls: Arc<ClientConfig>, time_limit: Duration) -> Self {
        Self { tls, proxies: Matcher::from_env(), time_limit }
    }

    /// Sends a form and waits for the answer.
    pub async fn post(&self, url: &TokenUrl, form: &Zeroizing<String>) -> Result<Answer, Unanswered> {
        match timeout(self.time_limit, self.converse(url, form)).await {
            Ok(answer) => answer,
            Err(_) => {
                let limit = crate::units::format_duration(self.time_limit);
                Err(passing(format!("{} did not answer within {limit}", url.host())))
            }
        }
    }

    async fn converse(&self, url: &TokenUrl, form: &Zeroizing<String>) -> Result<Answer, Unanswered> {
        // Dropped with the future, and with it the connections that it drives.
        let mut connections = JoinSet::new();
        let stream = match self.proxies.intercept(url.uri()) {
            Some(proxy) => tunnel(&proxy, url, &mut connections).await?,
            None => Box::new(dial(url.host(), url.port()).await.map_err(|why| passing(format!("{}: {why}", url.host())))?),
        };
        let name = ServerName::try_from(url.host().to_owned()).map_err(|_| passing(format!("{} is no host name", url.host())))?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(|error| {
            let tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            Unanswered { why: format!("TLS with {}: {error}", url.host()), advice: if tls { WRONG_CERTIFICATE } else { "" } }
        })?;
        let request = Request::post(url.uri().path())
            .header(HOST, authority(url))
            .header(USER_AGENT, concat!("hve-relay/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(CONNECTION, "close")
            .body(Full::new(Bytes::copy_from_slice(form.as_bytes())))
            .map_err(|error| passing(error.to_string()))?;
        let lost = |error: hyper::Error| passing(format!("the conversation with {} failed: {}", url.host(), whole(&error)));
        let response = send(stream, request, &mut connections).await.map_err(lost)?;
        let status = response.status().as_u16();
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let date = response.headers().get(DATE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| passing(format!("the answer of {} could not be read: {error}", url.host())))?;
        let body = Zeroizing::new(body.to_bytes().to_vec());
        Ok(Answer { status, retry_after: seconds.map(Duration::from_secs), date, body })
    }
}

fn passing(why: String) -> Unanswered {
    Unanswered { why, advice: "" }
}

/// An error with what is behind it: hyper's own words stop at its door.
fn whole(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", whole(source)))
}

fn authority(url: &TokenUrl) -> String {
    url.uri().authority().map_or_else(String::new, ToString::to_string)
}

async fn dial(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A stream to the endpoint through a proxy (RFC 9110 §9.3.6).
async fn tunnel(proxy: &Intercept, url: &TokenUrl, connections: &mut JoinSet<()>) -> Result<Box<dyn Stream>, Unanswered> {
    let at = proxy.uri().authority().map_or_else(String::new, ToString::to_string);
    let wrong = |why: String| Unanswered { why: format!("the proxy {at} {why}"), advice: WRONG_PROXY };
    if proxy.uri().scheme_str() != Some("http") {
        return Err(wrong("is not one that is spoken to in plain HTTP, and no other can be used".to_owned()));
    }
    let host = proxy.uri().host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = dial(host, proxy.uri().port_u16().unwrap_or(80)).await.map_err(|error| wrong(format!("cannot be reached: {error}")))?;
    let target = format!("{}:{}", url.uri().host().unwrap_or_default(), url.port());
    let mut request = Request::builder().method(Method::CONNECT).uri(&target).header(HOST, &target);
    if let Some(credentials) = proxy.basic_auth() {
        request = request.header(PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| wrong(error.to_string()))?;
    let response = send(stream, request, connections).await.map_err(|error| wrong(format!("does not answer: {}", whole(&error))))?;
    if response.status() != StatusCode::OK {
        return Err(wrong(format!("does not connect to {target}: HTTP {}", response.status().as_u16())));
    }
    let stream = hyper::upgrade::on(response).await.map_err(|error| wrong(whole(&error)))?;
    Ok(Box::new(TokioIo::new(stream)))
}

/// Sends a request and reads the header of its response; the rest follows as long as `connections` lives.
async fn send<S, B>(stream: S, request: Request<B>, connections: &mut JoinSet<()>) -> hyper::Result<Response<hyper::body::Incoming>>
where
    S: Stream + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) = http1::Builder::new().max_buf_size(LONGEST_HEADER).handshake(TokioIo::new(stream)).await?;
    connections.spawn(async move {
        // How it ends is told to who waits for the response.
        let _ = connection.with_upgrades().await;
    });
    sender.send_request(request).await
}
