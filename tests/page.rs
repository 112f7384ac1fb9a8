//! The web page in a real browser: what it shows, that it is live, each action with its question, and who may use it how.
//!
//! Where there is no ChromeDriver the tests pass with a note; `tests/run` installs one and requires it. The accessibility rules are axe-core's
//! (`tests/axe`, MPL-2.0), which is injected into the page here and is no part of the relay.

mod support;

use std::net::SocketAddr;

use hve_relay::intake::PasswordHash;
use hve_relay::secret::Secret;
use hve_relay::sim::{Fault, Step};
use serde_json::Value;
use support::browser::{Browser, is_installed};
use support::http::get;
use support::relay::{Relay, Setup};
use support::secure::put;
use support::{World, mail, until};

const AXE: &str = include_str!("axe/axe.min.js");
const TO: &[&str] = &["anna@contoso.com"];
const TOKEN: &str = "a-t0ken-of-some-length-for-the-page";
const PASSWORD: &str = "hunter2 Pa55word";

fn with_token(setup: Setup) -> Setup {
    let file = setup.folder().join("admin.token");
    put(&file, TOKEN);
    setup.with("[admin]\nlisten = \"127.0.0.1:0\"").with(&format!("[[admin.token]]\nname = \"page\"\ntoken_file = \"{}\"", file.display()))
}

/// A relay with a page, and a browser that shows it; none without a browser.
struct Shown {
    world: World,
    browser: Browser,
    page: SocketAddr,
}

impl Shown {
    fn new(accounts: usize, adapt: impl FnOnce(Setup) -> Setup) -> Option<Self> {
        is_installed().then(|| {
            let world = World::with(accounts, |_| {}, |setup| adapt(with_token(setup)));
            let (browser, page) = (Browser::start(), world.relay.page());
            Self { world, browser, page }
        })
    }

    /// Opens a part of the page, and waits until it is live.
    fn open(&self, part: &str) -> &Browser {
        self.browser.go("about:blank");
        self.browser.go(&format!("http://{}/{part}", self.page));
        self.browser.says("#connection", "Live");
        &self.browser
    }

    /// The same by a link that logs in.
    fn open_as_operator(&self) -> &Browser {
        let browser = self.open(&format!("#token={TOKEN}"));
        browser.says("#operator", "token page");
        browser
    }

    fn account(&self, number: usize) -> Value {
        get(self.page, "/v1/accounts", &[]).json()["accounts"][number - 1].clone()
    }

    fn queue(&self) -> Vec<Value> {
        get(self.page, "/v1/queue", &[]).json()["entries"].as_array().expect("entries").clone()
    }

    /// Nothing was said in the console, and nobody else was asked for anything.
    fn is_clean(&self) {
        assert_eq!(self.browser.console(), [] as [String; 0]);
        let own = format!("http://{}/", self.page);
        let requests = self.browser.requests();
        assert!(requests.iter().any(|url| url.starts_with(&own)), "{requests:?}");
        // Chromium draws its own controls with what it carries itself.
        let inner = [own.as_str(), "about:", "data:", "chrome"];
        let foreign: Vec<&String> = requests.iter().filter(|url| !inner.iter().any(|inner| url.starts_with(inner))).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
    }
}

#[test]
fn the_page_shows_the_state_and_follows_it_without_being_asked() {
    let Some(shown) = Shown::new(2, |setup| setup) else { return };
    let browser = shown.open("");
    browser.says("#sentence", "Nothing waits.");
    browser.says("#waiting", "Nothing waits.");
    browser.says("#failures", "Nothing has failed since");
    browser.says("#accounts", "hve02@contoso.com");
    assert_eq!(browser.run("return document.querySelectorAll('[role=meter]').length > 0"), true, "budgets are gauges");
    let mut client = shown.world.client();
    let sent = client.accepted("app@contoso.com", TO, &mail("hello", b"text\r\n"));
    shown.world.removed(&sent);
    browser.until(
        "a minute with a message",
        "document.querySelector('#chart svg')?.getAttribute('aria-label').includes('1 accepted, 1 sent')",
    );
    browser.says("#figures", "Sent in an hour\n1");
    client.accepted("app@contoso.com", &["nobody.here@contoso.com"], &mail("fails", b"text\r\n"));
    browser.says("#failures", "nobody.here@contoso.com");
    browser.says("#failures", "550 5.1.10");
    shown.world.faults([Fault::reply(Step::Rcpt, "451 4.7.999 Not now")]);
    client.accepted("app@contoso.com", TO, &mail("waits", b"text\r\n"));
    browser.says("#waiting", "1 delivery to 1 recipient");
    shown.world.faults([]);
    browser.says("#waiting", "Nothing waits.");
    shown.is_clean();
}

#[test]
fn a_connection_that_is_lost_is_told_and_comes_back() {
    let Some(mut shown) = Shown::new(1, |setup| setup) else { return };
    // On the same port again, as a relay is.
    let config = shown.world.setup.folder().join("hve-relay.toml");
    let text = std::fs::read_to_string(&config).expect("a configuration");
    std::fs::write(&config, text.replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{}\"", shown.page)))
        .expect("written");
    shown.open("");
    shown.world.relay.kill();
    shown.browser.says("#connection", "Not connected since");
    shown.browser.says("#said", "What is shown is as it was then.");
    shown.world.relay = Relay::start(&config);
    shown.browser.says("#connection", "Live");
    shown.browser.says("#said", "Connected again.");
}

#[test]
fn a_message_is_found_by_what_people_know_of_it_and_its_whole_story_is_told() {
    let Some(shown) = Shown::new(1, Setup::patient) else { return };
    shown.world.faults([Fault::reply(Step::Rcpt, "451 4.7.999 <b>Not now</b>").recipient("later@contoso.com")]);
    let subject = "Scan <img src=x onerror=alert(1)> 4711";
    let to = ["anna@contoso.com", "later@contoso.com", "nobody@contoso.com"];
    let content = String::from_utf8(mail("story", b"text\r\n")).expect("text").replace("Subject: story", &format!("Subject: {subject}"));
    let id = shown.world.client().accepted("scanner@contoso.com", &to, content.as_bytes());
    let browser = shown.open("");
    for what in [id.as_str(), "<story@contoso.com>", "later@contoso.com", "devices", "scan 4711"] {
        until("the history to know it", || {
            let found =
                get(shown.page, &format!("/v1/trace?what={}", what.replace(' ', "+").replace('<', "%3C").replace('>', "%3E")), &[]).json();
            let stories = found["stories"].as_array().expect("stories");
            stories.iter().any(|story| story["deliveries"][0]["attempts"].as_array().is_some_and(|attempts| attempts.len() == 3))
        });
        browser.run("document.querySelector('#what').value = ''; location.hash = '#/'");
        browser.write("#what", what);
        browser.press("Enter");
        browser.says("#detail-title", what);
        browser.says("#detail-body", subject);
    }
    browser.click(&format!("#detail-body a[href$='{id}']"));
    browser.says("#detail-title", subject);
    for text in
        ["1 sent", "1 waiting", "1 failed", "scanner@contoso.com", "451 4.7.999 <b>Not now</b>", "550 5.1.10", "250 2", "Goes on in"]
    {
        browser.says("#detail-body", text);
    }
    assert_eq!(browser.run("return document.querySelectorAll('main img, main b').length"), 0, "what strangers write stays text");
    assert_eq!(browser.run("return document.activeElement.id"), "detail-title", "whoever follows a link is where it leads");
    browser.write("#what", "no such thing anywhere");
    browser.click("#search button");
    browser.says("#detail-body", "No message was found");
    shown.is_clean();
}

#[test]
fn nothing_is_changed_without_a_login_and_a_question() {
    let Some(shown) = Shown::new(1, |setup| {
        let hash = PasswordHash::of(&Secret::new(PASSWORD.to_owned()), b"salt for a test").expect("hashed");
        setup.with(&format!("[[admin.user]]\nname = \"anna\"\npassword_hash = \"{}\"", hash.as_str()))
    }) else {
        return;
    };
    let browser = &shown.browser;
    browser.go(&format!("http://{}/", shown.page));
    browser.says("#locked", "Log in to see this relay");
    assert_eq!(browser.run("return document.querySelector('#home').checkVisibility()"), false);
    browser.click("#locked-log-in");
    browser.write("#login-user", "anna");
    browser.write("#login-password", "wrong");
    browser.press("Enter");
    browser.says("#login-error", "Name, password or token is wrong.");
    browser.run("document.querySelector('#login-password').value = ''");
    browser.write("#login-password", PASSWORD);
    browser.press("Enter");
    browser.says("#operator", "anna");
    browser.says("#sentence", "Nothing waits.");
    assert_eq!(browser.run("return document.cookie"), "", "no script can read the session");
    browser.click("#accounts button");
    browser.says("#confirm-title", "Suspend hve01@contoso.com?");
    browser.says("#confirm-text", "0 recipients wait");
    browser.press("Escape");
    browser.until("no dialog", "!document.querySelector('dialog[open]')");
    assert_eq!(browser.run("return document.activeElement.textContent"), "Suspend", "the focus is where it was");
    browser.click("#log-out");
    browser.says("#locked", "Log in to see this relay");
    let refused = browser.until("the refusal", "window.asked ??= fetch('/v1/accounts/hve01@contoso.com/suspend', {method: 'POST'}).then(a => window.answer = a.status), window.answer");
    assert_eq!(refused, 401);
    assert!(shown.world.relay.logged(|line| line["event"] == "account-suspended").is_empty());
}

#[test]
fn each_action_asks_whom_it_concerns_and_does_what_it_says() {
    let Some(shown) = Shown::new(1, Setup::patient) else { return };
    let browser = shown.open_as_operator();
    assert_eq!(browser.run("return location.href.includes('token')"), false, "the link's token is not kept in the address");
    // Suspend: with a reason, and a time.
    browser.click("#accounts button");
    browser.write("#suspend-reason", "audit");
    browser.run("document.querySelector('#suspend-for').value = '4h'");
    browser.click("#confirm-go");
    browser.says("#said", "hve01@contoso.com is suspended.");
    browser.says("#accounts", "audit");
    browser.until("a state that stops", "document.querySelector('#sentence').dataset.flow === 'stopped'");
    assert!(shown.account(1)["until"].is_string() && shown.account(1)["state"] == "suspended");
    shown.world.relay.wait_for("the suspension", |line| line["event"] == "account-suspended" && line["by"] == "token page");
    // Hold and release one message.
    let to: Vec<String> = (0..57).map(|n| format!("u{n}@contoso.com")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mut client = shown.world.client();
    let id = client.accepted("app@contoso.com", &to, &mail("large", b"text\r\n"));
    browser.run(&format!("location.hash = '#/message/{id}'"));
    for (action, said, held) in [("hold", "2 deliveries held.", true), ("release", "2 deliveries released.", false)] {
        browser.click(&format!("[data-action={action}]"));
        browser.says("#confirm-text", "57 recipients in 2 deliveries.");
        browser.click("#confirm-go");
        browser.says("#said", said);
        assert!(shown.queue().iter().all(|entry| entry["held"] == held), "{action}");
    }
    // Remove it.
    browser.click("[data-action=remove]");
    browser.says("#confirm-text", "57 recipients in 2 deliveries. They will not get it, nobody is told, and it cannot be undone.");
    browser.click("#confirm-cancel");
    assert_eq!(shown.queue().len(), 2, "nothing was removed without a word");
    browser.click("[data-action=remove]");
    browser.click("#confirm-go");
    browser.says("#said", "2 deliveries removed; 57 recipients will not get it.");
    assert!(shown.queue().is_empty());
    browser.says("#detail-body", "57 removed");
    // All that a filter lets through, and nothing that came since it was counted.
    for n in 0..3 {
        client.accepted("app@contoso.com", if n == 0 { TO } else { &["x@fabrikam.example"] }, &mail(&format!("n{n}"), b"text\r\n"));
    }
    browser.run("location.hash = '#/waiting?reason=suspended&class=external'");
    browser.until("both", "document.querySelectorAll('#detail-body .row').length === 2");
    browser.click(".doings .danger-plain");
    browser.says("#confirm-text", "2 deliveries to 2 recipients.");
    client.accepted("app@contoso.com", &["y@fabrikam.example"], &mail("late", b"text\r\n"));
    browser.click("#confirm-go");
    browser.says("#said", "2 deliveries removed; 2 recipients will not get it.");
    let left: Vec<String> = shown.queue().iter().map(|entry| entry["subject"].to_string()).collect();
    assert_eq!(left, ["\"n0\"", "\"late\""]);
    // Resume, and try again what was deferred.
    shown.world.faults([Fault::reply(Step::Rcpt, "451 4.7.999 Not now").recipient("anna@contoso.com").first(1)]);
    browser.click(".back a");
    browser.click("#accounts button");
    browser.says("#confirm-title", "Resume hve01@contoso.com?");
    browser.click("#confirm-go");
    browser.says("#said", "hve01@contoso.com is in use.");
    browser.says("#waiting", "The last attempt did not succeed.");
    browser.click("#waiting .row a");
    browser.click("#detail-body .row a");
    browser.click("[data-action=retry]");
    browser.click("#confirm-go");
    browser.says("#said", "1 delivery due now.");
    shown.world.taken(2);
    shown.is_clean();
}

#[test]
fn it_is_for_everybody_by_telephone_by_keyboard_by_ear_and_at_night() {
    let Some(shown) = Shown::new(2, Setup::patient) else { return };
    shown.world.faults([Fault::reply(Step::Rcpt, "451 4.7.999 Not-a-word-that-has-any-blank-to-break-at-and-goes-on-and-on-for-ever")
        .recipient("later@contoso.com")]);
    let mut client = shown.world.client();
    let id = client.accepted(
        "app@contoso.com",
        &["anna@contoso.com", "later@contoso.com", "nobody@contoso.com"],
        &mail("for everybody", b"text\r\n"),
    );
    let browser = shown.open_as_operator();
    browser.says("#waiting", "1 delivery to 1 recipient");
    browser.says("#failures", "nobody@contoso.com");
    let places = ["#/".to_owned(), format!("#/message/{id}"), "#/waiting".to_owned(), "#/find?what=devices".to_owned()];
    let ready = [
        "document.querySelector('#chart svg')",
        "document.querySelector('.steps')",
        "document.querySelector('#detail-body .row')",
        "document.querySelector('#detail-body .row')",
    ];
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)] {
        browser.prefer("prefers-color-scheme", scheme);
        browser.resize(width, 844);
        for (place, ready) in places.iter().zip(ready) {
            browser.run(&format!("location.hash = {place:?}"));
            browser.until(place, ready);
            // Twice is enough: each scheme and each width once.
            if (scheme == "light") == (width == 1280) {
                is_accessible(browser, &format!("{place} {scheme} {width}"));
            }
            let wide = browser.run("return document.documentElement.scrollWidth");
            assert!(wide.as_u64().is_some_and(|wide| wide <= width.into()), "{place} is {wide} wide, on {width}");
        }
        let paper = browser.run("return getComputedStyle(document.body).backgroundColor");
        assert_eq!(paper, if scheme == "dark" { "rgb(19, 21, 25)" } else { "rgb(246, 246, 244)" });
    }
    // With the keyboard alone: to an account's button, into the question, and out of it.
    browser.resize(1280, 900);
    browser.run("location.hash = '#/'; document.querySelector('#what').focus()");
    for _ in 0..40 {
        browser.press("Tab");
        if browser.run("return document.activeElement.textContent") == "Suspend" {
            break;
        }
    }
    browser.press("Enter");
    browser.says("#confirm-title", "Suspend hve01@contoso.com?");
    is_accessible(browser, "the question");
    assert_eq!(browser.run("return document.activeElement.closest('dialog')?.id"), "confirm");
    browser.press("Escape");
    assert_eq!(browser.until("the button", "document.activeElement.textContent === 'Suspend'"), true);
    // What changes all the time is not read out; what somebody has done is.
    let live =
        browser.run("return [...document.querySelectorAll('[aria-live], [role=status], [role=alert]')].map(e => e.id || e.className)");
    assert!(!live.to_string().contains("sentence") && live.to_string().contains("said"), "{live}");
    browser.prefer("prefers-reduced-motion", "reduce");
    assert_eq!(browser.run("return getComputedStyle(document.querySelector('.gauge-bar')).transitionDuration"), "0s");
    shown.is_clean();
}

/// No rule of WCAG 2.2 A and AA, and none of good practice, is broken.
fn is_accessible(browser: &Browser, place: &str) {
    if browser.run("return !window.axe") == true {
        browser.run(AXE);
    }
    let found = browser.until(
        "axe",
        "(window.ran ??= (window.verdict = null, axe.run({resultTypes: ['violations']}).then(r => window.verdict = {broken: r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html + ' ' + n.failureSummary).join(' | '))})), window.verdict)",
    );
    browser.run("delete window.ran");
    assert_eq!(found["broken"], Value::Array(Vec::new()), "{place}");
}

#[test]
fn whatever_gets_into_the_page_runs_nothing_and_sends_nothing() {
    let Some(shown) = Shown::new(1, |setup| setup) else { return };
    let browser = shown.open("");
    browser.run(
        "window.ran = []; window.blocked = [];
         document.addEventListener('securitypolicyviolation', e => window.blocked.push(e.effectiveDirective));
         const add = (name, set) => { const e = document.createElement(name); set(e); document.body.append(e); };
         add('img', e => { e.src = 'http://127.0.0.1:9/x.png'; });
         try { add('div', e => { e.setAttribute('onclick', 'window.ran.push(1)'); e.click(); }); } catch { window.blocked.push('handler'); }
         add('iframe', e => { e.src = '/'; });
         try { add('script', e => { e.textContent = 'window.ran.push(2)'; }); } catch { window.blocked.push('script'); }
         try { document.body.insertAdjacentHTML('beforeend', '<b>x</b>'); } catch { window.blocked.push('sink'); }
         fetch('http://127.0.0.1:9/').catch(() => {});",
    );
    for directive in ["img-src", "handler", "script", "frame-src", "connect-src", "sink"] {
        browser.until(directive, &format!("window.blocked.includes('{directive}')"));
    }
    assert_eq!(browser.run("return window.ran"), Value::Array(Vec::new()));
}
