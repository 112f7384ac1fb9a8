//! A real browser, driven over WebDriver: Debian's Chromium and its ChromeDriver, without a window.
//!
//! One browser runs at a time, so that a machine with two cores has some left for the relay. Conditions are waited for inside the page. When a
//! browser is done, the console must have been silent, and every request must have gone to the relay's own address.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::http::request;
use super::relay::PATIENCE;

static ONE: Mutex<()> = Mutex::new(());

/// A browser with one page.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

/// Whether there is one to be tried.
pub fn is_installed() -> bool {
    let found = Command::new("chromedriver").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !found {
        let required = std::env::var_os("HVE_RELAY_REQUIRE_CLIENTS").is_some_and(|required| required == "1");
        assert!(!required, "chromedriver is not installed; tests/run installs it");
        println!("chromedriver is not installed, so the page was not tried; tests/run installs it");
    }
    found
}

impl Browser {
    /// Starts one.
    pub fn start() -> Self {
        // A test that failed has left nothing that matters.
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = tempfile::tempdir().expect("a folder");
        let mut driver =
            Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let said = BufReader::new(driver.stdout.take().expect("piped"));
        let port = said
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split("started successfully on port ").nth(1)?.trim_end_matches('.').parse::<u16>().ok());
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("a port")));
        let mut browser = Self { driver, address, session: String::new(), _profile: profile, _one: one };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let args = [
            "--headless",
            // The sandbox wants more than a container allows; the only page is the relay's own.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-features=OptimizationHints,MediaRouter,Translate",
            "--window-size=1280,900",
            &profile,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": args},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "timeouts": {"script": PATIENCE.as_millis() as u64, "pageLoad": PATIENCE.as_millis() as u64},
        }}});
        let made = browser.call("POST", "/session", &wanted);
        browser.session = made["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "GET" || method == "DELETE" { String::new() } else { body.to_string() };
        let answer = request(self.address, method, path, &["Content-Type: application/json"], &body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.json()["value"].clone()
    }

    fn post(&self, path: &str, body: Value) -> Value {
        self.call("POST", &format!("/session/{}{path}", self.session), &body)
    }

    /// Goes to an address.
    pub fn go(&self, url: &str) {
        self.post("/url", json!({"url": url}));
    }

    /// What a function's body returns in the page.
    pub fn run(&self, body: &str) -> Value {
        self.post("/execute/sync", json!({"script": body, "args": []}))
    }

    /// Waits in the page until an expression is true; returns its value.
    pub fn until(&self, what: &str, expression: &str) -> Value {
        // Looked at with every frame, and in a page that shows none all the same.
        let script = format!(
            "const done = arguments[0], end = Date.now() + {};
             const look = () => {{
                 let value; try {{ value = ({expression}); }} catch (error) {{ value = null; }}
                 if (value) done({{value}}); else if (Date.now() > end) done({{late: document.body.innerText}}); else setTimeout(look, 20);
             }}; look();",
            PATIENCE.as_millis() / 2
        );
        let found = self.post("/execute/async", json!({"script": script, "args": []}));
        assert!(found["value"] != Value::Null, "waited in vain for {what}; the page says:\n{}", found["late"].as_str().unwrap_or_default());
        found["value"].clone()
    }

    /// Waits until an element, or one of them, is seen and has this in its text.
    pub fn says(&self, css: &str, text: &str) {
        self.until(
            &format!("{text:?} in {css}"),
            &format!("[...document.querySelectorAll({css:?})].some(e => e.checkVisibility() && e.innerText.includes({text:?}))"),
        );
    }

    /// Clicks an element as a person does: it must be there and be seen.
    pub fn click(&self, css: &str) {
        self.until(css, &format!("document.querySelector({css:?})?.checkVisibility() && !document.querySelector({css:?}).disabled"));
        let element = self.element(css);
        self.post(&format!("/element/{element}/click"), json!({}));
    }

    /// Types into an element.
    pub fn write(&self, css: &str, text: &str) {
        self.until(css, &format!("document.querySelector({css:?})?.checkVisibility()"));
        let element = self.element(css);
        self.post(&format!("/element/{element}/value"), json!({"text": text}));
    }

    fn element(&self, css: &str) -> String {
        let found = self.post("/element", json!({"using": "css selector", "value": css}));
        found.as_object().and_then(|object| object.values().next()).and_then(Value::as_str).expect("an element").to_owned()
    }

    /// Presses a key: `Tab`, `Enter`, `Escape`.
    pub fn press(&self, key: &str) {
        let value = match key {
            "Tab" => "\u{e004}",
            "Enter" => "\u{e007}",
            "Escape" => "\u{e00c}",
            other => other,
        };
        let actions = json!([{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]);
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// A command of Chromium's own protocol.
    pub fn cdp(&self, command: &str, params: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": params}))
    }

    /// As wide as a telephone, or as something else.
    pub fn resize(&self, width: u32, height: u32) {
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}),
        );
    }

    /// Whoever looks at it prefers this: `prefers-color-scheme: dark`.
    pub fn prefer(&self, feature: &str, value: &str) {
        self.cdp("Emulation.setEmulatedMedia", json!({"features": [{"name": feature, "value": value}]}));
    }

    /// What the console was told since the last time, by level and text.
    pub fn console(&self) -> Vec<String> {
        let lines = self.post("/se/log", json!({"type": "browser"}));
        lines.as_array().into_iter().flatten().map(|line| format!("{}: {}", line["level"], line["message"])).collect()
    }

    /// The address of every request since the last time.
    pub fn requests(&self) -> Vec<String> {
        let lines = self.post("/se/log", json!({"type": "performance"}));
        let of = |line: &Value| {
            let message: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
            let message = &message["message"];
            (message["method"] == "Network.requestWillBeSent").then(|| message["params"]["request"]["url"].as_str().map(str::to_owned))?
        };
        lines.as_array().into_iter().flatten().filter_map(of).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // It ends the browser; a test that has failed says its own words.
            let _ = request(self.address, "DELETE", &format!("/session/{}", self.session), &[], "");
        }
        let _ = Command::new("kill").arg(self.driver.id().to_string()).status();
        let _ = self.driver.wait();
    }
}
