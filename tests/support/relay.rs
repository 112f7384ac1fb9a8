//! The real binary as a child process: its configuration, its log lines as they come, and its end.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use hve_relay::telemetry;
use serde_json::Value;

/// How long a test waits for what must come. Far beyond what it takes; reached only when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running relay. Dropping it kills it.
pub struct Relay {
    child: Child,
    log: Arc<Log>,
    /// Where it listens.
    pub address: SocketAddr,
}

/// The log lines so far, and a bell that rings with each.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<Value>, bool)>,
    bell: Condvar,
}

impl Relay {
    /// Starts the binary with this configuration and waits until it is ready for mail.
    pub fn start(config: &Path) -> Self {
        Self::start_in(config, &[])
    }

    /// The same with these variables in its environment.
    pub fn start_in(config: &Path, variables: &[(&str, &str)]) -> Self {
        Self::spawn_in(config, variables).ready()
    }

    /// Waits until it is ready for mail.
    pub fn ready(self) -> Self {
        let mut relay = self;
        let started = relay.wait_for("started", |line| line["event"] == "started");
        let first = started["listeners"].as_str().and_then(|text| text.split(", ").next()).expect("a listener");
        relay.address = first.parse().expect("an address");
        relay
    }

    /// Starts the binary and waits for nothing.
    pub fn spawn(config: &Path) -> Self {
        Self::spawn_in(config, &[])
    }

    fn spawn_in(config: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hve-relay"));
        command.stdin(Stdio::null()).envs(variables.iter().copied());
        Self::spawn_by(command, config)
    }

    /// The same with a command of one's own that is the binary, or becomes it.
    pub fn spawn_by(mut command: Command, config: &Path) -> Self {
        // A proxy of the machine that runs the tests is not meant for them.
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"] {
            if !command.get_envs().any(|(set, value)| set == name && value.is_some()) {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(["run", "--log", "json", "--config"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Log::default());
        let (stderr, writer) = (child.stderr.take().expect("piped"), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // What is no JSON is a message for people; it is kept as text.
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                writer.lines.lock().expect("log").0.push(value);
                writer.bell.notify_all();
            }
            writer.lines.lock().expect("log").1 = true;
            writer.bell.notify_all();
        });
        Self { child, log, address: SocketAddr::from(([127, 0, 0, 1], 0)) }
    }

    /// The first log line that fits, as soon as there is one.
    pub fn wait_for(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_all(what, 1, fits).remove(0)
    }

    /// The log lines that fit, as soon as there are `count`.
    pub fn wait_for_all(&self, what: &str, count: usize, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.log.lines.lock().expect("log");
        loop {
            let found: Vec<Value> = guard.0.iter().filter(|line| fits(line)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !guard.1, "waited in vain for {count} × {what}; the log says:\n{}", shown(&guard.0));
            guard = self.log.bell.wait_timeout(guard, left).expect("log").0;
        }
    }

    /// The log lines so far that fit.
    pub fn logged(&self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.log.lines.lock().expect("log").0.iter().filter(|line| fits(line)).cloned().collect()
    }

    /// Where its page is.
    pub fn page(&self) -> SocketAddr {
        let listening = self.wait_for("the page's listener", |line| line["event"] == "admin-listening");
        listening["listener"].as_str().and_then(|text| text.parse().ok()).expect("an address")
    }

    /// Where each of its listeners listens, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let started = self.wait_for("started", |line| line["event"] == "started");
        started["listeners"].as_str().expect("a text").split(", ").map(|address| address.parse().expect("an address")).collect()
    }

    /// The whole log so far, for a message.
    pub fn log_text(&self) -> String {
        shown(&self.log.lines.lock().expect("log").0)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().expect("kill");
        assert!(sent.success(), "kill -{name}");
    }

    /// kill -9, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        let status = self.child.wait().expect("wait");
        assert_eq!(status.signal(), Some(9));
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.log.lines.lock().expect("log");
        // Its standard error ends with it.
        while !guard.1 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the relay does not end; the log says:\n{}", shown(&guard.0));
            guard = self.log.bell.wait_timeout(guard, left).expect("log").0;
        }
        drop(guard);
        self.child.wait().expect("wait")
    }

    /// SIGTERM, and waits for an orderly end.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.ended();
        assert!(status.success(), "{status}; the log says:\n{}", self.log_text());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let lines = self.log.lines.lock().expect("log").0.clone();
            let objections: Vec<String> = lines.iter().filter_map(objection).collect();
            assert!(objections.is_empty(), "the log is not as deploy/events.md has it:\n{}", objections.join("\n"));
        }
    }
}

/// Whether each line of a log's file is an event as the table has it; returns them.
pub fn events_in(text: &str) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    let lines: Vec<Value> = text.lines().map(read).collect();
    let objections: Vec<String> = lines.iter().filter_map(objection).collect();
    assert!(objections.is_empty(), "{}", objections.join("\n"));
    lines
}

/// What in a log line is otherwise than the table of events has it.
fn objection(line: &Value) -> Option<String> {
    // Messages for people are no JSON; and what libraries say is no event.
    let (object, name) = (line.as_object()?, line.get("event")?.as_str().unwrap_or_default());
    let Some(row) = telemetry::event(name) else { return Some(format!("no such event: {line}")) };
    let level = line["level"].as_str().unwrap_or_default().to_ascii_lowercase();
    if !row.levels.iter().any(|known| known.as_str() == level) {
        return Some(format!("`{name}` is not told at this level: {line}"));
    }
    let common = ["timestamp", "level", "event", "message"];
    let foreign = object.keys().find(|key| !common.contains(&key.as_str()) && !row.field_names().any(|field| field == key.as_str()));
    foreign.map(|key| format!("`{name}` has no field {key}: {line}"))
}

fn shown(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

/// A configuration for a relay in a folder of its own that sends to an endpoint on loopback.
pub struct Setup {
    folder: tempfile::TempDir,
    accounts: Vec<(String, String)>,
    extra: String,
    ca_pem: String,
    upstream: SocketAddr,
    server_name: String,
    hostname: String,
    listener: String,
    accepted_domains: String,
    route: String,
    networks: String,
    queue: String,
    client: String,
}

/// How quickly the relay of a test retries: so that nothing waits for a minute.
const BRISK: &str = "retry_min = \"100ms\"\nretry_max = \"400ms\"\npause_min = \"100ms\"\npause_max = \"400ms\"\nprobe = \"400ms\"\n";

impl Setup {
    /// For the endpoint at `upstream`, whose certificate `ca_pem` vouches for.
    pub fn new(upstream: SocketAddr, ca_pem: &str) -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            accounts: Vec::new(),
            extra: String::new(),
            ca_pem: ca_pem.to_owned(),
            upstream,
            server_name: "smtp-hve.office365.com".to_owned(),
            hostname: "relay.contoso.com".to_owned(),
            listener: "127.0.0.1:0".to_owned(),
            accepted_domains: "contoso.com".to_owned(),
            route: String::new(),
            networks: "127.0.0.0/8".to_owned(),
            queue: BRISK.to_owned(),
            client: String::new(),
        }
    }

    /// Adds an account.
    pub fn account(mut self, address: &str, password: &str) -> Self {
        self.accounts.push((address.to_owned(), password.to_owned()));
        self
    }

    /// Adds lines of TOML: whole tables.
    pub fn with(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self.extra.push('\n');
        self
    }

    /// Nothing is tried again while a test looks at it.
    pub fn patient(mut self) -> Self {
        self.queue = self.queue.replace("retry_min = \"100ms\"\nretry_max = \"400ms\"", "retry_min = \"1h\"\nretry_max = \"1h\"");
        self
    }

    /// How often a suspended account is tried.
    pub fn probe(mut self, interval: &str) -> Self {
        self.queue = self.queue.replace("probe = \"400ms\"", &format!("probe = \"{interval}\""));
        self
    }

    /// The shortest pause.
    pub fn pause_min(mut self, shortest: &str) -> Self {
        self.queue = self.queue.replace("pause_min = \"100ms\"", &format!("pause_min = \"{shortest}\""));
        self
    }

    /// The longest pause.
    pub fn pause_max(mut self, longest: &str) -> Self {
        self.queue = self.queue.replace("pause_max = \"400ms\"", &format!("pause_max = \"{longest}\""));
        self
    }

    /// Adds a line to `[queue]`.
    pub fn queue(mut self, line: &str) -> Self {
        self.queue.push_str(line);
        self.queue.push('\n');
        self
    }

    /// The lifetime of messages.
    pub fn lifetime(self, lifetime: &str) -> Self {
        self.queue(&format!("lifetime = \"{lifetime}\""))
    }

    /// The network that is served.
    pub fn networks(mut self, network: &str) -> Self {
        self.networks = network.to_owned();
        self
    }

    /// Adds a line to `[[client]]`.
    pub fn client(mut self, line: &str) -> Self {
        self.client.push_str(line);
        self.client.push('\n');
        self
    }

    /// What the relay calls itself.
    pub fn hostname(mut self, hostname: &str) -> Self {
        self.hostname = hostname.to_owned();
        self
    }

    /// Where the relay listens.
    pub fn listener(mut self, address: &str) -> Self {
        self.listener = address.to_owned();
        self
    }

    /// The tenant's domains, with blanks between them.
    pub fn accepted_domains(mut self, domains: &str) -> Self {
        self.accepted_domains = domains.replace(' ', "\", \"");
        self
    }

    /// The one class of recipients that the route takes.
    pub fn takes(self, class: &str) -> Self {
        self.route(&format!("takes = [\"{class}\"]"))
    }

    /// Adds a line to `[[route]]`.
    pub fn route(mut self, line: &str) -> Self {
        self.route.push_str(line);
        self.route.push('\n');
        self
    }

    /// The CA that is trusted.
    pub fn trust(&mut self, ca_pem: &str) {
        self.ca_pem = ca_pem.to_owned();
    }

    /// The folder that holds everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// Writes the files and returns the configuration's path.
    pub fn write(&self) -> PathBuf {
        use std::fmt::Write;
        use std::os::unix::fs::PermissionsExt;
        let file = |name: &str, text: &str| {
            let path = self.folder().join(name);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode set");
            path.display().to_string()
        };
        let ca = file("ca.pem", &self.ca_pem);
        let mut toml = format!(
            "data_dir = \"{}\"\nhostname = \"{}\"\n\
             [tenant]\nprofile = \"hve-preview\"\naccepted_domains = [\"{}\"]\n\
             [[listener]]\naddress = \"{}\"\n\
             [[client]]\nname = \"devices\"\nnetworks = [\"{}\"]\n{}\
             [[route]]\nname = \"hve\"\nhost = \"{}\"\nport = {}\ntls_ca_file = \"{ca}\"\ntls_server_name = \"{}\"\n{}",
            self.data_dir().display(),
            self.hostname,
            self.accepted_domains,
            self.listener,
            self.networks,
            self.client,
            self.upstream.ip(),
            self.upstream.port(),
            self.server_name,
            self.route
        );
        for (i, (address, password)) in self.accounts.iter().enumerate() {
            let password = file(&format!("account{i}.password"), password);
            writeln!(toml, "[[account]]\naddress = \"{address}\"\npassword_file = \"{password}\"").expect("written");
        }
        write!(toml, "[queue]\n{}{}", self.queue, self.extra).expect("written");
        if !self.extra.contains("[admin]") {
            // The usual address is one for all relays of a machine.
            toml.push_str("[admin]\nlisten = \"none\"\n");
        }
        PathBuf::from(file("hve-relay.toml", &toml))
    }
}
