//! The relay under a service manager: signs of life, and sockets that outlive a restart.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::client::Client;
use support::relay::{PATIENCE, Relay, Setup};
use support::{World, endpoint, mail, runtime, setup, until};

const TO: &[&str] = &["you@contoso.com"];
const BINARY: &str = env!("CARGO_BIN_EXE_hve-relay");

/// Where the relay tells how it is.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(folder: &Path) -> Self {
        let socket = UnixDatagram::bind(folder.join("notify")).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        Self(socket)
    }

    /// Starts a relay that is watched.
    fn start(&self, setup: &Setup, watchdog: Duration) -> Relay {
        let (socket, limit) = (setup.folder().join("notify"), watchdog.as_micros().to_string());
        let variables = [("NOTIFY_SOCKET", socket.to_str().expect("UTF-8")), ("WATCHDOG_USEC", limit.as_str())];
        Relay::start_in(&setup.write(), &variables)
    }

    /// Waits for a message with this line; returns it.
    fn wait_for(&self, line: &str) -> String {
        loop {
            let mut octets = [0; 4_096];
            let read = self.0.recv(&mut octets).unwrap_or_else(|error| panic!("waited in vain for {line}: {error}"));
            let text = String::from_utf8_lossy(&octets[..read]).into_owned();
            if text.lines().any(|found| found == line) {
                return text;
            }
        }
    }

    /// Takes what has come until now.
    fn drain(&self) {
        self.0.set_nonblocking(true).expect("an option");
        while self.0.recv(&mut [0; 4_096]).is_ok() {}
        self.0.set_nonblocking(false).expect("an option");
    }
}

#[test]
fn the_service_manager_hears_that_the_relay_is_ready_alive_and_stopping() {
    let runtime = runtime();
    let sim = endpoint(&runtime, 1, |_| {});
    runtime.block_on(sim.down());
    let setup = setup(&sim, 1);
    let manager = Manager::listen(setup.folder());
    let relay = manager.start(&setup, Duration::from_millis(500));
    manager.wait_for("READY=1");
    let sign = manager.wait_for("WATCHDOG=1");
    assert!(sign.contains("STATUS=0 deliveries queued, 0 sessions"), "{sign}");
    let mut client = Client::hello(relay.address);
    client.accepted("app@contoso.com", TO, &mail("waits", b"text\r\n"));
    until("the status", || manager.wait_for("WATCHDOG=1").contains("STATUS=1 deliveries queued, 1 sessions"));
    client.expect("QUIT", "221");
    relay.signal("TERM");
    manager.wait_for("STOPPING=1");
}

#[test]
fn a_store_that_does_not_answer_is_no_sign_of_life() {
    let runtime = runtime();
    let sim = endpoint(&runtime, 1, |_| {});
    let setup = setup(&sim, 1);
    let manager = Manager::listen(setup.folder());
    let relay = manager.start(&setup, Duration::from_millis(400));
    manager.wait_for("WATCHDOG=1");
    // Somebody else writes to the queue, and does not end.
    let other = rusqlite::Connection::open(setup.data_dir().join("queue.db")).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE; UPDATE message SET size = size").expect("begun");
    relay.wait_for_all("missed signs", 2, |line| line["event"] == "watchdog-missed");
    manager.drain();
    other.execute_batch("ROLLBACK").expect("ended");
    manager.wait_for("WATCHDOG=1");
}

/// A relay that gets `listener` as systemd passes it on: as descriptor 3.
fn activated(listener: &TcpListener, config: &Path) -> Relay {
    let socket: OwnedFd = listener.try_clone().expect("a descriptor").into();
    let mut command = Command::new("sh");
    // In the place of the shell, so that LISTEN_PID is the relay's own.
    command.args(["-c", "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"", BINARY]).stdin(Stdio::from(socket));
    Relay::spawn_by(command, config)
}

#[test]
fn a_restart_refuses_no_connection_where_the_service_manager_holds_the_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let runtime = runtime();
    let sim = endpoint(&runtime, 1, |_| {});
    let setup = setup(&sim, 1).listener(&address.to_string());
    let config = setup.write();
    let mut relay = activated(&listener, &config).ready();
    assert_eq!(relay.address, address);

    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Refused is what no connection may be. One that was accepted by a relay that stops may end, and is made again.
                    let stream = TcpStream::connect(address).expect("no connection is refused");
                    sent.fetch_add(usize::from(greeted(stream)), Ordering::Relaxed);
                }
            });
        }
        for _ in 0..3 {
            let before = sent.load(Ordering::Relaxed);
            until("some sessions", || sent.load(Ordering::Relaxed) > before + 20);
            relay.signal("TERM");
            assert!(relay.ended().success());
            // Nobody is there, and yet somebody will be.
            let mut early = TcpStream::connect(address).expect("no connection is refused");
            early.write_all(b"EHLO early\r\n").expect("it waits");
            relay = activated(&listener, &config).ready();
            let mut client = Client::on(early);
            assert!(client.reply().starts_with("220 "));
            assert!(client.reply().starts_with("250-"));
        }
        stop.store(true, Ordering::Relaxed);
    });
    Client::hello(address).accepted("app@contoso.com", TO, &mail("after", b"text\r\n"));
}

/// Whether somebody greets and takes leave.
fn greeted(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    let mut said = String::new();
    stream.write_all(b"QUIT\r\n").is_ok() && stream.read_to_string(&mut said).is_ok() && said.starts_with("220 ") && said.contains("221 ")
}

#[test]
fn a_socket_that_no_listener_asks_for_is_a_fault_that_says_what_to_write() {
    let world = World::new(1);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address: SocketAddr = listener.local_addr().expect("bound");
    let config = world.setup.folder().join("hve-relay.toml");
    let World { mut relay, setup, .. } = world;
    relay.kill();
    let mut relay = activated(&listener, &config);
    let said = relay.wait_for("the fault", |line| line.as_str().is_some_and(|text| text.starts_with("hve-relay: ")));
    let said = said.as_str().expect("a text").to_owned();
    assert!(said.contains(&format!("passed on a socket on {address}")) && said.contains(&format!("address = \"{address}\"")), "{said}");
    assert_eq!(relay.ended().code(), Some(74));
    drop(setup);
}
