//! The relay as a child process: its configuration, and its log line by line.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStderr, Command};

use crate::sim::Sim;

/// How long the relay may take to end before it is killed.
const END: Duration = Duration::from_secs(40);

/// A relay of the same binary.
pub(super) struct Child {
    process: tokio::process::Child,
    log: Lines<BufReader<ChildStderr>>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its page, with what logs in there.
    pub page: String,
}

/// One line of its log.
pub(super) struct LogLine(Value);

impl LogLine {
    /// The event's name.
    pub fn event(&self) -> &str {
        self.text("event")
    }

    /// A field's text; empty if there is none.
    pub fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field's number; zero if there is none.
    pub fn number(&self, field: &str) -> f64 {
        self.0.get(field).and_then(Value::as_f64).unwrap_or_default()
    }
}

impl Child {
    /// Writes its files into `folder`, starts it, and waits until it is ready for mail.
    pub async fn start(folder: &Path, port: u16, sim: &Sim, accounts: &[(&str, &str)]) -> io::Result<Self> {
        let token = token()?;
        let config = write_files(folder, port, sim, accounts, &token)?;
        let mut process = Command::new(std::env::current_exe()?)
            .args(["run", "--log", "json", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            // A Ctrl-C at the terminal is for the demonstration alone, which then stops the relay in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let stderr = process.stderr.take().ok_or_else(|| io::Error::other("no pipe"))?;
        let mut log = BufReader::new(stderr).lines();
        let (mut said, mut page) = (Vec::new(), String::new());
        while let Some(line) = log.next_line().await? {
            let Ok(value) = serde_json::from_str(&line) else {
                said.push(line);
                continue;
            };
            let line = LogLine(value);
            match line.event() {
                "admin-listening" => page = format!("http://{}/#token={token}", line.text("listener")),
                "started" => {
                    let address = line.text("listeners").parse().map_err(io::Error::other)?;
                    return Ok(Self { process, log, address, page });
                }
                _ => {}
            }
        }
        Err(io::Error::other(format!("the relay did not start: {}", said.join("\n"))))
    }

    /// The next line of its log; `None` when it has ended.
    pub async fn next(&mut self) -> Option<LogLine> {
        loop {
            let line = self.log.next_line().await.ok()??;
            if let Ok(value) = serde_json::from_str(&line) {
                return Some(LogLine(value));
            }
        }
    }

    /// Stops it in order.
    pub async fn stop(mut self) -> io::Result<()> {
        if let Some(pid) = self.process.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let drained = async {
            while self.next().await.is_some() {}
            self.process.wait().await
        };
        let status = tokio::time::timeout(END, drained).await.map_err(|_| io::Error::other("the relay does not end"))??;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("the relay ended with {status}"))) }
    }
}

/// Something that nobody can guess.
fn token() -> io::Result<String> {
    let mut octets = [0; 24];
    SystemRandom::new().fill(&mut octets).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(octets))
}

/// The lines of the README, for this endpoint; each author keeps to an account, so that the table shows all of them.
fn write_files(folder: &Path, port: u16, sim: &Sim, accounts: &[(&str, &str)], token: &str) -> io::Result<std::path::PathBuf> {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        Ok::<_, io::Error>(path)
    };
    // Written as TOML strings, in case the temporary folder has an odd name.
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let ca = file("ca.pem", sim.ca_pem())?;
    let token = file("admin.token", token)?;
    let upstream = sim.address();
    let mut toml = format!(
        "data_dir = {}\nhostname = \"relay.contoso.com\"\n\n[tenant]\nprofile = \"hve-preview\"\naccepted_domains = [\"contoso.com\"]\n\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\n[[admin.token]]\nname = \"demo\"\ntoken_file = {}\n\n[[listener]]\naddress = \"127.0.0.1:{port}\"\n\n[[client]]\nname = \"devices\"\nnetworks = [\"127.0.0.0/8\"]\naffinity = \"author\"\n\n\
         [[route]]\nname = \"hve\"\nhost = \"{}\"\nport = {}\ntls_ca_file = {}\ntls_server_name = \"smtp-hve.office365.com\"\n",
        quoted(&folder.join("data")),
        quoted(&token),
        upstream.ip(),
        upstream.port(),
        quoted(&ca)
    );
    for (i, (address, password)) in accounts.iter().enumerate() {
        let password = file(&format!("account{i}.password"), password)?;
        toml.push_str(&format!("\n[[account]]\naddress = \"{address}\"\npassword_file = {}\n", quoted(&password)));
    }
    file("hve-relay.toml", &toml)
}
