//! The real binary as a child process, and what it takes of the machine.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Linux shows processor times in hundredths of a second, whatever its timer (proc(5), USER_HZ).
const TICK: Duration = Duration::from_millis(10);
/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running relay. Dropping it kills it.
pub struct Relay {
    child: Mutex<Child>,
    pid: u32,
    log: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What a process has taken since its start.
pub struct Usage {
    pub processor: Duration,
    /// KiB, at its peak and now.
    pub peak: u64,
    pub resident: u64,
}

impl Relay {
    /// Starts the binary with this configuration, its log in `folder`, and waits until it is ready for mail.
    ///
    /// # Errors
    /// If it does not start; with its log.
    pub fn start(folder: &Path, configuration: &str) -> io::Result<Self> {
        let configuration = private_file(&folder.join("hve-relay.toml"), configuration)?;
        let log = folder.join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_hve-relay"))
            .args(["run", "--log", "json", "--config", &configuration])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let mut relay = Self { pid: child.id(), child: Mutex::new(child), log, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let deadline = Instant::now() + PATIENCE;
        while !relay.has_ended() && Instant::now() < deadline {
            let log = fs::read_to_string(&relay.log)?;
            let started = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|line| line["event"] == "started");
            if let Some(address) = started.as_ref().and_then(|line| line["listeners"].as_str()?.parse().ok()) {
                relay.address = address;
                return Ok(relay);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::Error::other(format!("the relay does not start:\n{}", fs::read_to_string(&relay.log)?)))
    }

    /// Whether it is gone.
    pub fn has_ended(&self) -> bool {
        self.with(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// What it has taken so far.
    ///
    /// # Errors
    /// If it is gone.
    pub fn usage(&self) -> io::Result<Usage> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
            line.and_then(|number| number.parse().ok()).ok_or_else(|| io::Error::other(format!("/proc/…/status has no {name}")))
        };
        Ok(Usage { processor: processor_time(&self.pid.to_string())?, peak: kib("VmHWM:")?, resident: kib("VmRSS:")? })
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// If it does not end well: then its log says why.
    pub fn stop(self) -> io::Result<()> {
        Command::new("kill").args(["-TERM", &self.pid.to_string()]).status()?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.with(|child| child.try_wait())? {
                return if status.success() { Ok(()) } else { Err(io::Error::other(format!("the relay ended with {status}"))) };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::Error::other("the relay does not stop"))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Child) -> T) -> T {
        act(&mut self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.with(|child| {
            let _ = child.kill();
            let _ = child.wait();
        });
    }
}

/// Processor time of this process.
///
/// # Errors
/// If there is no /proc.
pub fn own_processor_time() -> io::Result<Duration> {
    processor_time("self")
}

fn processor_time(pid: &str) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may have anything in it; utime and stime are the 12th and 13th field behind it (proc(5)).
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<u32>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Ok(TICK * (user + system)),
        _ => Err(io::Error::other(format!("/proc/{pid}/stat is not as expected: {stat}"))),
    }
}

/// Writes a file that only its owner may read; returns its path as the configuration has it.
///
/// # Errors
/// As the file system has them.
pub fn private_file(path: &Path, text: &str) -> io::Result<String> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(path.display().to_string())
}
