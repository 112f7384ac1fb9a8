//! End to end, HTTP for operators: who may read and change, what other web sites get (nothing), TLS, limits, and the live events.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use hve_relay::admin::LISTENERS;
use hve_relay::intake::PasswordHash;
use hve_relay::secret::Secret;
use support::http::{Answer, Events, get, post, request, request_over_tls};
use support::relay::{Relay, Setup};
use support::secure::{Shown, put};
use support::{World, mail};

const NAME: &str = "relay.contoso.com";
/// No log and no answer may show them.
const PASSWORD: &str = "hunter2 Pa55word";
const TOKEN: &str = "a-t0ken-of-some-length-Pa55word";

fn open(setup: Setup) -> Setup {
    setup.with("[admin]\nlisten = \"127.0.0.1:0\"")
}

fn with_token(setup: Setup) -> Setup {
    let file = setup.folder().join("admin.token");
    put(&file, TOKEN);
    setup.with(&format!("[[admin.token]]\nname = \"deploy\"\ntoken_file = \"{}\"", file.display()))
}

fn with_user(setup: Setup) -> Setup {
    let hash = PasswordHash::of(&Secret::new(PASSWORD.to_owned()), b"salt for a test").expect("hashed");
    setup.with(&format!("[[admin.user]]\nname = \"Anna\"\npassword_hash = \"{}\"", hash.as_str()))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

fn log_in(page: SocketAddr) -> Answer {
    let own = format!("Origin: http://{page}");
    post(page, "/v1/session", &[&own], &format!("{{\"user\": \"anna\", \"password\": \"{PASSWORD}\"}}"))
}

#[test]
fn on_loopback_everybody_may_read_and_a_token_is_needed_to_change() {
    let world = World::with(1, |_| {}, |setup| with_token(open(setup)));
    let page = world.relay.page();
    assert_eq!(get(page, "/v1/status", &[]).json()["queue"]["ready"], 0);
    let session = get(page, "/v1/session", &[]).json();
    assert_eq!(session, serde_json::json!({"operator": null, "may_read": true, "may_change": false, "can_log_in": true}));
    let suspend = "/v1/accounts/hve01@contoso.com/suspend";
    let refused = post(page, suspend, &[], "");
    assert_eq!((refused.status, refused.json()["error"].clone()), (401, "log in first".into()));
    assert_eq!(get(page, "/v1/accounts", &[]).json()["accounts"][0]["state"], "ready", "nothing was changed");
    assert_eq!(post(page, suspend, &[&bearer(TOKEN)], "{\"reason\": \"audit\"}").json()["state"], "suspended");
    let line = world.relay.wait_for("the suspension", |line| line["event"] == "account-suspended");
    assert_eq!(line["by"], "token deploy");
    let begun = Instant::now();
    let refused = post(page, "/v1/accounts/hve01@contoso.com/resume", &[&bearer("another token that is wrong")], "");
    assert!(refused.status == 401 && begun.elapsed() >= Duration::from_millis(500), "{refused:?}");
    world.relay.wait_for("the refusal", |line| line["event"] == "operator-refused" && line["peer"] == "127.0.0.1");
    assert_eq!(get(page, "/v1/accounts", &[]).json()["accounts"][0]["state"], "suspended");
    assert!(!world.relay.log_text().contains("Pa55word"));
}

#[test]
fn with_users_everything_takes_a_login_and_a_cookie_is_for_the_page_alone() {
    let world = World::with(1, |_| {}, |setup| with_user(open(setup)));
    let page = world.relay.page();
    for path in ["/v1/status", "/v1/queue", "/v1/trace", "/v1/overview", "/v1/events", "/v1/nothing"] {
        assert_eq!(get(page, path, &[]).status, 401, "{path}");
    }
    let begun = Instant::now();
    assert_eq!(post(page, "/v1/session", &[], "{\"user\": \"anna\", \"password\": \"hunter3\"}").status, 401);
    assert!(begun.elapsed() >= Duration::from_millis(500), "a wrong password costs time");
    let answer = log_in(page);
    assert_eq!(answer.json()["operator"], "user Anna");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(answer.header("set-cookie").contains(part), "{answer:?}");
    }
    let cookie = format!("Cookie: {}", answer.cookie());
    assert_eq!(get(page, "/v1/status", &[&cookie]).status, 200);
    let suspend = "/v1/accounts/hve01@contoso.com/suspend";
    let own = format!("Origin: http://{page}");
    for (lines, status) in [
        (vec![cookie.as_str()], 403),
        (vec![&cookie, "Origin: http://evil.example"], 403),
        (vec![&cookie, "Origin: null"], 403),
        (vec![&cookie, "Sec-Fetch-Site: cross-site"], 403),
        (vec![&cookie, &own, "Sec-Fetch-Site: same-site"], 403),
        (vec![own.as_str(), "Cookie: hve-relay-1=x"], 401),
    ] {
        assert_eq!(post(page, suspend, &lines, "").status, status, "{lines:?}");
    }
    assert_eq!(get(page, "/v1/accounts", &[&cookie]).json()["accounts"][0]["state"], "ready", "nothing was changed");
    assert_eq!(post(page, suspend, &[&cookie, &own], "").status, 200);
    world.relay.wait_for("the suspension", |line| line["event"] == "account-suspended" && line["by"] == "user Anna");
    assert_eq!(request(page, "DELETE", "/v1/session", &[&cookie, &own], "").json()["operator"], serde_json::Value::Null);
    assert_eq!(get(page, "/v1/status", &[&cookie]).status, 401);
    assert!(!world.relay.log_text().contains("Pa55word"));
}

#[test]
fn a_foreign_name_or_site_gets_no_answer_and_every_answer_binds_the_browser() {
    let world = World::with(1, |_| {}, open);
    let page = world.relay.page();
    let foreign = get(page, "/v1/status", &["Host: rebound.example"]);
    assert!(foreign.status == 403 && !foreign.body.contains("queue"), "{foreign:?}");
    for lines in [["Sec-Fetch-Site: cross-site"], ["Origin: http://evil.example"]] {
        assert_eq!(get(page, "/v1/status", &lines).status, 403, "{lines:?}");
    }
    assert_eq!(get(page, "/v1/status", &[&format!("Host: {NAME}:8025"), "Sec-Fetch-Site: same-origin"]).status, 200);
    for path in ["/v1/status", "/v1/nothing", "/v1/session"] {
        let answer = get(page, path, &[]);
        let policy = answer.header("content-security-policy");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{answer:?}"
        );
        assert_eq!((answer.header("x-content-type-options"), answer.header("cache-control")), ("nosniff", "no-store"), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
    }
}

#[test]
fn beyond_loopback_it_speaks_tls_and_nobody_reads_without_a_login() {
    let shown = Shown::make(NAME);
    let world = World::with(
        1,
        |_| {},
        |setup| {
            shown.install(setup.folder());
            let folder = setup.folder().display().to_string();
            let admin =
                format!("[admin]\nlisten = \"0.0.0.0:0\"\ncertificate_file = \"{folder}/relay.pem\"\nkey_file = \"{folder}/relay.key\"");
            with_token(setup.with(&admin))
        },
    );
    let page = SocketAddr::from(([127, 0, 0, 1], world.relay.page().port()));
    let ask = |lines: &[&str], method: &str, path: &str, body: &str| {
        request_over_tls(page, (NAME, &shown), method, path, lines, body).expect("its certificate")
    };
    assert_eq!(ask(&[], "GET", "/v1/status", "").status, 401);
    assert_eq!(ask(&[&bearer(TOKEN)], "GET", "/v1/status", "").status, 200);
    let set = ask(&[], "POST", "/v1/session", &format!("{{\"token\": \"{TOKEN}\"}}"));
    assert!(set.header("set-cookie").ends_with("; Secure"), "{set:?}");
    let (own, plain) = (format!("Origin: https://{page}"), format!("Origin: http://{page}"));
    let cookie = format!("Cookie: {}", set.cookie());
    assert_eq!(ask(&[&cookie, &plain], "POST", "/v1/queue/count", "{\"all\": true}").status, 403);
    assert_eq!(ask(&[&cookie, &own], "POST", "/v1/queue/count", "{\"all\": true}").json()["deliveries"], 0);
}

#[test]
fn the_usual_address_is_no_reason_to_refuse_mail_and_a_written_one_is_had_or_nothing() {
    // Whether this test or somebody else has it: it is taken.
    let _taken = TcpListener::bind("127.0.0.1:8025");
    let world = World::with(1, |_| {}, |setup| setup.with("# [admin]"));
    let line = world.relay.wait_for("the warning", |line| line["event"] == "admin-unavailable");
    assert_eq!(line["listener"], "127.0.0.1:8025");
    let id = world.client().accepted("app@contoso.com", &["you@contoso.com"], &mail("all the same", b"text\r\n"));
    world.removed(&id);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let setup = support::setup(&world.sim, 1).with(&format!("[admin]\nlisten = \"{address}\""));
    let mut relay = Relay::spawn(&setup.write());
    assert_eq!(relay.ended().code(), Some(74));
    assert!(relay.log_text().contains(&format!("cannot listen on {address}")), "{}", relay.log_text());
}

#[test]
fn events_tell_what_changes_and_begin_with_what_is() {
    let world = World::with(1, |_| {}, |setup| with_token(open(setup)));
    let page = world.relay.page();
    let mut events = Events::listen(page, &[]).expect("events");
    let first = events.next().expect("the state");
    assert_eq!((first["flow"].clone(), first["sentence"].clone()), ("idle".into(), "Nothing waits.".into()));
    assert_eq!(first["accounts"][0]["state"], "ready");
    post(page, "/v1/accounts/hve01@contoso.com/suspend", &[&bearer(TOKEN)], "{\"reason\": \"audit\"}");
    let stopped = events.until("the suspension", |event| event["flow"] == "stopped");
    assert_eq!(stopped["sentence"], "The only account takes no mail.");
    assert_eq!(stopped["details"], "hve01@contoso.com is suspended: audit.");
    world.client().accepted("app@contoso.com", &["a@contoso.com", "b@contoso.com"], &mail("waits", b"text\r\n"));
    let waiting = events.until("the mail", |event| event["waiting"][0]["deliveries"] == 1)["waiting"][0].clone();
    assert_eq!((waiting["waits_for"].clone(), waiting["recipients"].clone()), ("suspended".into(), 2.into()));
    // Somebody who comes later hears the same at once.
    assert_eq!(Events::listen(page, &[]).expect("events").next().expect("the state")["waiting"][0], waiting);
    post(page, "/v1/accounts/hve01@contoso.com/resume", &[&bearer(TOKEN)], "");
    let count = |list: &serde_json::Value| list.as_array().expect("minutes").iter().filter_map(serde_json::Value::as_u64).sum::<u64>();
    let gone = events.until("the delivery", |event| count(&event["minutes"]["sent"]) == 1 && event["queue"]["ready"] == 0);
    assert_eq!((gone["flow"].clone(), count(&gone["minutes"]["accepted"])), ("flowing".into(), 1));
    world.client().accepted("app@contoso.com", &["nobody@contoso.com"], &mail("fails", b"text\r\n"));
    let failed = events.until("the failure", |event| event["failures"][0]["to"] == "nobody@contoso.com");
    assert!(failed["failures"][0]["reply"].as_str().is_some_and(|reply| reply.starts_with("550 ")), "{failed}");
    world.relay.stop();
    while events.next().is_some() {}
}

#[test]
fn what_the_page_shows_of_the_last_hours_outlives_a_restart() {
    let count = |list: &serde_json::Value| list.as_array().expect("minutes").iter().filter_map(serde_json::Value::as_u64).sum::<u64>();
    for history in ["1d", "none"] {
        let keep = format!("[history]\nkeep = \"{history}\"");
        let mut world = World::with(1, |_| {}, |setup| open(setup).client("notify = \"none\"").with(&keep));
        world.client().accepted("app@contoso.com", &["a@contoso.com", "nobody@contoso.com"], &mail("both", b"text\r\n"));
        let seen = |page| get(page, "/v1/overview", &[]).json();
        world.relay.wait_for("the end", |line| line["event"] == "removed");
        let before = seen(world.relay.page());
        assert_eq!((count(&before["minutes"]["sent"]), count(&before["minutes"]["failed"])), (1, 1), "{before}");
        world.relay.signal("TERM");
        assert!(world.relay.ended().success());
        world.relay = Relay::start(&world.setup.write());
        let after = seen(world.relay.page());
        for list in ["accepted", "sent", "deferred", "failed"] {
            assert_eq!(count(&before["minutes"][list]), count(&after["minutes"][list]), "{list} with {keep}");
        }
        // Whoever keeps no history wants no address on the disk.
        let failures = after["failures"].as_array().expect("a list");
        assert_eq!(failures.iter().any(|failure| failure["to"] == "nobody@contoso.com"), history != "none", "{failures:?}");
        assert!(after["since"].as_str() > before["since"].as_str(), "it runs since then");
    }
}

#[test]
fn listeners_and_bodies_have_a_limit() {
    let world = World::with(1, |_| {}, |setup| with_token(open(setup)));
    let page = world.relay.page();
    let mut listening: Vec<Events> =
        (0..LISTENERS).map(|n| Events::listen(page, &[]).unwrap_or_else(|status| panic!("{n}: {status}"))).collect();
    assert_eq!(Events::listen(page, &[]).err(), Some(503));
    listening.iter_mut().for_each(|events| assert!(events.next().is_some()));
    listening.pop();
    support::until("the place of the one who left", || Events::listen(page, &[]).is_ok());
    let large = "x".repeat(70_000);
    assert_eq!(post(page, "/v1/queue/count", &[&bearer(TOKEN)], &large).status, 413);
    assert_eq!(get(page, "/v1/status", &[]).status, 200);
}
