//! What a token endpoint's answer means. Pure.
//!
//! The `error` field of OAuth decides (RFC 6749 §5.2), not Microsoft's numbers: those are quoted, so that they can be looked up, together with
//! the correlation id that Microsoft's support asks for. Whatever an endpoint says, mail stays queued; the only question is whether the trouble
//! passes by itself or somebody must act.

use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::app::{App, ClientProof, SecretPlace};
use crate::mail::words::one_line;
use crate::reply::{PauseLength, TokenFault};
use crate::secret::Secret;

/// What is quoted of a description, in characters.
const QUOTED: usize = 300;
/// The life of a token whose endpoint does not say (RFC 6749 §5.1 only recommends that it does).
const UNTOLD: Duration = Duration::from_secs(600);
/// The longest that `Retry-After` is heeded: an endpoint's slip must not hold mail back for days.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// The longest life that is believed.
const LONGEST_LIFE: u64 = 86_400;

/// An HTTP response, as far as it matters.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub date: Option<String>,
    pub body: Zeroizing<Vec<u8>>,
}

/// A token as it was issued.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub token: Secret,
    pub life: Duration,
}

/// RFC 6749 §5.1.
#[derive(Deserialize)]
struct Issued {
    access_token: String,
    token_type: String,
    expires_in: Option<Seconds>,
}

/// Older endpoints write the number in quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

/// RFC 6749 §5.2, and what Microsoft adds.
#[derive(Deserialize)]
struct Refused {
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    correlation_id: String,
}

/// Judges an answer. `told` is what the endpoint was told in confidence: an answer that repeats it is not quoted.
pub(super) fn judge(app: &App, answer: &Answer, told: &Secret) -> Result<Grant, TokenFault> {
    match answer.status {
        200 => issued(&answer.body),
        300..400 => Err(passing(
            answer,
            format!("the token endpoint redirects to another address (HTTP {}), which is not followed", answer.status),
            "Check the application's token_url, and whether something on the path, such as a proxy, answers in place of the token endpoint.",
        )),
        429 | 500.. => Err(passing(answer, format!("the token endpoint is busy or in trouble ({})", spoken(answer, told)), "")),
        _ => match serde_json::from_slice::<Refused>(&answer.body) {
            Ok(refused) if matches!(refused.error.as_str(), "temporarily_unavailable" | "server_error" | "slow_down") => {
                Err(passing(answer, format!("the token endpoint is busy or in trouble ({})", quoted(&refused, told)), ""))
            }
            Ok(refused) => {
                let reason = format!("the token endpoint refuses: {}", quoted(&refused, told));
                Err(TokenFault { reason, pause: PauseLength::Suspended, advice: advice(app, &refused) })
            }
            Err(_) => Err(passing(
                answer,
                format!("HTTP {} came in place of an answer of the token endpoint", answer.status),
                "Check the application's tenant_id or token_url, and whether something on the path, such as a proxy, answers in its place.",
            )),
        },
    }
}

fn issued(body: &[u8]) -> Result<Grant, TokenFault> {
    let odd = |what: &str| TokenFault {
        reason: format!("the token endpoint's answer {what}"),
        pause: PauseLength::BackOff,
        advice: "Check the application's token_url, and whether something on the path, such as a proxy, answers in its place.".to_owned(),
    };
    let issued: Issued = serde_json::from_slice(body).map_err(|_| odd("holds no token"))?;
    let token = Secret::new(issued.access_token);
    if !issued.token_type.eq_ignore_ascii_case("Bearer") {
        return Err(odd("holds a token that is not a bearer token"));
    }
    // What stands in AUTH XOAUTH2 between two ^A: RFC 6750 §2.1 knows printable ASCII only.
    if token.expose().is_empty() || !token.expose().bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err(odd("holds a token that is not one word of printable characters"));
    }
    let life = match issued.expires_in {
        None => UNTOLD,
        Some(Seconds::Number(seconds)) => Duration::from_secs(seconds.min(LONGEST_LIFE)),
        Some(Seconds::Text(text)) => match text.parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds.min(LONGEST_LIFE)),
            Err(_) => return Err(odd("does not say how long its token lives")),
        },
    };
    if life.is_zero() { Err(odd("holds a token that has ended already")) } else { Ok(Grant { token, life }) }
}

/// Trouble that passes, perhaps with somebody's help.
fn passing(answer: &Answer, reason: String, advice: &str) -> TokenFault {
    let pause = answer.retry_after.map_or(PauseLength::BackOff, |wait| PauseLength::For(wait.min(LONGEST_WAIT)));
    TokenFault { reason, pause, advice: advice.to_owned() }
}

/// The status, with the endpoint's words if there are any.
fn spoken(answer: &Answer, told: &Secret) -> String {
    match serde_json::from_slice::<Refused>(&answer.body) {
        Ok(refused) => format!("HTTP {}, {}", answer.status, quoted(&refused, told)),
        Err(_) => format!("HTTP {}", answer.status),
    }
}

/// `invalid_client: AADSTS7000215: Invalid client secret provided. (correlation id 8f3e…)`. Microsoft puts its ids and the time behind the text,
/// some of them on lines of their own.
fn quoted(refused: &Refused, told: &Secret) -> String {
    let description = refused.error_description.lines().next().unwrap_or_default();
    let description = description.split(" Trace ID:").next().unwrap_or_default();
    let mut text = one_line(&refused.error, 80);
    if !description.is_empty() {
        text = format!("{text}: {}", one_line(description, QUOTED));
    }
    let id = &refused.correlation_id;
    if !id.is_empty() && id.len() <= 64 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
        text = format!("{text} (correlation id {id})");
    }
    if repeats(refused, told) { "its words are not shown, for they repeat what it was told in confidence".to_owned() } else { text }
}

/// Whether any field holds the secret, or a piece of a longer one as long as no chance makes it.
fn repeats(refused: &Refused, told: &Secret) -> bool {
    const PIECE: usize = 16;
    let told = told.expose();
    let pieces = || told.as_bytes().chunks(PIECE).filter(|piece| piece.len() == PIECE).filter_map(|piece| str::from_utf8(piece).ok());
    [&refused.error, &refused.error_description, &refused.correlation_id]
        .into_iter()
        .any(|text| text.contains(told) || pieces().any(|piece| text.contains(piece)))
}

/// Who must do what.
fn advice(app: &App, refused: &Refused) -> String {
    let name = app.name.as_str();
    match refused.error.as_str() {
        "invalid_client" => match &app.proof {
            ClientProof::Secret(place) => format!(
                "The client secret of app {name} is wrong or has ended: make a new one in Entra (App registrations, Certificates & secrets) and put \
                 its value into {}.",
                match place {
                    SecretPlace::File(path) => format!("{}; it is read at every try, a restart is not needed", path.display()),
                    SecretPlace::Variable(_) => "the environment variable of its client_secret_env, and restart".to_owned(),
                }
            ),
            ClientProof::Certificate { certificate, .. } => format!(
                "Entra does not accept the certificate of app {name}: upload {} to the app registration (Certificates & secrets), and check that it \
                 has not ended and that this machine's clock is right. Files that are replaced are read at the next try.",
                certificate.display()
            ),
        },
        "unauthorized_client" | "invalid_request" => {
            format!(
                "Entra does not know app {name} in this tenant: check its client_id and tenant_id against the app registration in Entra."
            )
        }
        "invalid_scope" | "invalid_resource" | "invalid_target" => {
            format!("Entra does not know what app {name} asks for: leave its scope out, or correct it.")
        }
        "invalid_grant" | "consent_required" | "interaction_required" | "access_denied" => format!(
            "Entra does not let app {name} in: give it the application permission Mail.Send of Office 365 Exchange Online with admin consent, and \
             look for a Conditional Access policy that blocks it."
        ),
        _ => format!("Look at the app registration of {name} in Entra, and at its client_id, tenant_id and token_url here."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::AppName;

    fn app(proof: ClientProof) -> App {
        App {
            name: AppName::new("hve"),
            client_id: "client".to_owned(),
            token_url: "https://login.example/t".parse().expect("an address"),
            scope: "s".to_owned(),
            proof,
            secret_ends: None,
            renew_before: Duration::from_secs(1_200),
            tls_ca_file: None,
            time_limit: Duration::from_secs(30),
            remember_passing: Duration::from_secs(5),
            remember_refusal: Duration::from_secs(30),
        }
    }

    fn answer(status: u16, body: &str) -> Result<Grant, TokenFault> {
        let answer = Answer { status, retry_after: None, date: None, body: Zeroizing::new(body.as_bytes().to_vec()) };
        let app = app(ClientProof::Secret(SecretPlace::File("/etc/hve-relay/app.secret".into())));
        judge(&app, &answer, &Secret::new("hunter2-hunter2-hunter2".to_owned()))
    }

    #[test]
    fn takes_a_bearer_token_and_its_life() {
        for (body, life) in [
            (r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"eyJ.a-b_c~+/="}"#, 3_599),
            (r#"{"token_type":"bearer","expires_in":"60","access_token":"eyJ.a-b_c~+/="}"#, 60),
            (r#"{"token_type":"bearer","access_token":"eyJ.a-b_c~+/="}"#, 600),
            (r#"{"token_type":"bearer","expires_in":99999999999,"access_token":"eyJ.a-b_c~+/="}"#, 86_400),
        ] {
            let grant = Grant { token: Secret::new("eyJ.a-b_c~+/=".to_owned()), life: Duration::from_secs(life) };
            assert_eq!(answer(200, body), Ok(grant), "{body}");
        }
    }

    #[test]
    fn takes_nothing_that_is_no_token() {
        for body in [
            "",
            "<html>",
            "[]",
            r#"{"error":"invalid_client"}"#,
            r#"{"token_type":"mac","expires_in":3599,"access_token":"t"}"#,
            r#"{"token_type":"Bearer","expires_in":0,"access_token":"t"}"#,
            r#"{"token_type":"Bearer","expires_in":"soon","access_token":"t"}"#,
            r#"{"token_type":"Bearer","expires_in":-1,"access_token":"t"}"#,
            r#"{"token_type":"Bearer","expires_in":3599,"access_token":""}"#,
            r#"{"token_type":"Bearer","expires_in":3599,"access_token":"a\u0001\u0001b"}"#,
            r#"{"token_type":"Bearer","expires_in":3599,"access_token":"a b"}"#,
        ] {
            let fault = answer(200, body).expect_err(body);
            assert_eq!(fault.pause, PauseLength::BackOff, "{body}");
        }
    }

    #[test]
    fn the_error_field_says_whether_somebody_must_act() {
        for (status, error, acts) in [
            (401, "invalid_client", true),
            (400, "unauthorized_client", true),
            (400, "invalid_grant", true),
            (400, "invalid_scope", true),
            (400, "invalid_request", true),
            (400, "consent_required", true),
            (403, "access_denied", true),
            (400, "something_new", true),
            (400, "temporarily_unavailable", false),
            (503, "temporarily_unavailable", false),
            (500, "invalid_client", false),
            (429, "invalid_client", false),
        ] {
            let fault = answer(status, &format!(r#"{{"error":"{error}"}}"#)).expect_err(error);
            let wanted = if acts { PauseLength::Suspended } else { PauseLength::BackOff };
            assert_eq!((fault.pause, fault.advice.is_empty()), (wanted, !acts), "{status} {error}");
            assert!(fault.reason.contains(error), "{}", fault.reason);
        }
        for status in [301, 302, 307, 308, 404, 407, 403, 418, 502, 204] {
            let fault = answer(status, "<html>").expect_err("a fault");
            assert_eq!(fault.pause, PauseLength::BackOff);
            assert!(fault.reason.contains(&status.to_string()), "{}", fault.reason);
        }
    }

    #[test]
    fn quotes_what_can_be_looked_up() {
        let body = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Trace ID: 1 Correlation ID: 2\r\nTimestamp: 3","error_codes":[7000215],"correlation_id":"8f3e-01"}"#;
        let fault = answer(401, body).expect_err("a fault");
        assert_eq!(
            fault.reason,
            "the token endpoint refuses: invalid_client: AADSTS7000215: Invalid client secret provided. (correlation id 8f3e-01)"
        );
        assert!(fault.advice.contains("/etc/hve-relay/app.secret"), "{}", fault.advice);
        let long = format!(r#"{{"error":"e\n\u001b[31m","error_description":"{}"}}"#, "x".repeat(5_000));
        let fault = answer(400, &long).expect_err("a fault");
        assert!(fault.reason.len() < 500 && !fault.reason.contains(char::is_control), "{}", fault.reason);
    }

    #[test]
    fn repeats_no_secret_that_the_endpoint_repeats() {
        for body in [
            r#"{"error":"hunter2-hunter2-hunter2"}"#,
            r#"{"error":"invalid_client","error_description":"secret hunter2-hunter2-hunter2 is wrong"}"#,
            r#"{"error":"invalid_client","error_description":"secret hunter2-hunter2-... is wrong"}"#,
        ] {
            for status in [400, 401, 500] {
                let fault = answer(status, body).expect_err(body);
                assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
            }
        }
    }

    #[test]
    fn waits_as_long_as_it_is_told_within_reason() {
        let fault = |status, seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            let answer = Answer { status, retry_after, date: None, body: Zeroizing::new(Vec::new()) };
            let app = app(ClientProof::Secret(SecretPlace::Variable("X".to_owned())));
            judge(&app, &answer, &Secret::new("x".to_owned())).expect_err("a fault").pause
        };
        assert_eq!(fault(429, 17), PauseLength::For(Duration::from_secs(17)));
        assert_eq!(fault(503, 999_999), PauseLength::For(LONGEST_WAIT));
    }
}
