//! End to end: `hve-relay sim`, the endpoint alone, with the real relay and with Python's smtplib as its clients.

mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;
use support::client::Client;
use support::relay::{PATIENCE, Relay, Setup};
use support::{mail, until};

/// A running `hve-relay sim`; dropping it kills it.
struct Rehearsal {
    child: Child,
    lines: Receiver<String>,
    address: SocketAddr,
}

impl Rehearsal {
    fn start(keep: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hve-relay"))
            .args(["sim", "--listen", "127.0.0.1:0", "--keep"])
            .arg(keep)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (sender, lines) = channel();
        let stdout = child.stdout.take().expect("piped");
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut started = Self { child, lines, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let first = started.line("simulated HVE endpoint");
        started.address = first.split_whitespace().nth(3).and_then(|text| text.parse().ok()).expect("an address");
        started
    }

    /// The next line that begins so.
    fn line(&self, beginning: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line begins with {beginning:?}"));
            if line.starts_with(beginning) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(done.success());
    }

    /// Ends it with Ctrl-C.
    fn stop(mut self) {
        self.signal("INT");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn index(keep: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(keep.join("taken.jsonl")).expect("an index");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn relay(rehearsal: &Rehearsal, keep: &Path) -> (Setup, Relay) {
    let ca = std::fs::read_to_string(keep.join("ca.pem")).expect("the CA");
    let setup = Setup::new(rehearsal.address, &ca).account("hve01@contoso.com", "rehearsal").account("hve02@contoso.com", "rehearsal");
    let relay = Relay::start(&setup.write());
    (setup, relay)
}

#[test]
fn a_message_that_it_took_is_a_file_and_a_line_of_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let keep = folder.path().join("kept");
    let rehearsal = Rehearsal::start(&keep, &[]);
    let (_setup, relay) = relay(&rehearsal, &keep);
    Client::hello(relay.address).accepted("scanner@contoso.com", &["you@contoso.com", "me@contoso.com"], &mail("Scan", b"page 1\r\n"));
    rehearsal.line("taken 000001.eml: from hve0");
    let lines = index(&keep);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["recipients"], serde_json::json!(["you@contoso.com", "me@contoso.com"]));
    let content = std::fs::read(keep.join(lines[0]["file"].as_str().expect("a file"))).expect("the message");
    assert!(content.ends_with(b"\r\n\r\npage 1\r\n"), "{}", String::from_utf8_lossy(&content));
    assert_eq!(lines[0]["size"], content.len());
    rehearsal.stop();
}

#[test]
fn a_folder_is_gone_on_with_and_its_ca_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let keep = folder.path().join("kept");
    let first = Rehearsal::start(&keep, &[]);
    let (_setup, relay_before) = relay(&first, &keep);
    Client::hello(relay_before.address).accepted("a@contoso.com", &["you@contoso.com"], &mail("One", b"1\r\n"));
    first.line("taken 000001.eml");
    first.stop();
    relay_before.stop();
    let ca = std::fs::read(keep.join("ca.pem")).expect("the CA");

    let second = Rehearsal::start(&keep, &[]);
    assert_eq!(std::fs::read(keep.join("ca.pem")).expect("the CA"), ca);
    let (_setup, relay) = relay(&second, &keep);
    Client::hello(relay.address).accepted("a@contoso.com", &["you@contoso.com"], &mail("Two", b"2\r\n"));
    second.line("taken 000002.eml");
    assert_eq!(index(&keep).len(), 2);
}

#[test]
fn faults_come_from_a_file_that_is_read_again_on_sighup() {
    let folder = tempfile::tempdir().expect("a folder");
    let (keep, faults) = (folder.path().join("kept"), folder.path().join("faults.toml"));
    let write = |text: &str| std::fs::write(&faults, text).expect("written");
    write("[[fault]]\nat = \"rcpt\"\nrecipient = \"full@contoso.com\"\nreply = \"452 4.2.2 Mailbox full\"\nfirst = 2\n");
    let rehearsal = Rehearsal::start(&keep, &["--faults", faults.to_str().expect("a path")]);
    let (_setup, relay) = relay(&rehearsal, &keep);
    let mut client = Client::hello(relay.address);
    client.accepted("a@contoso.com", &["full@contoso.com"], &mail("Twice refused", b"x\r\n"));
    rehearsal.line("refused: 452 4.2.2 Mailbox full");
    rehearsal.line("refused: 452 4.2.2 Mailbox full");
    rehearsal.line("taken 000001.eml");

    write("[[fault]]\nat = \"end-of-data\"\nreply = \"550 5.7.1 Not today\"\n");
    rehearsal.signal("HUP");
    rehearsal.line("faults read again: 1");
    client.accepted("a@contoso.com", &["you@contoso.com"], &mail("Refused", b"x\r\n"));
    rehearsal.line("refused: 550 5.7.1 Not today");

    write("[[fault]]\nat = \"nowhere\"\n");
    rehearsal.signal("HUP");
    client.accepted("a@contoso.com", &["you@contoso.com"], &mail("Still refused", b"x\r\n"));
    rehearsal.line("refused: 550 5.7.1 Not today");
}

#[test]
fn an_application_gets_tokens_with_what_it_says_to_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let keep = folder.path().join("kept");
    let (id, secret) = ("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "rehearsed~secret");
    let rehearsal = Rehearsal::start(&keep, &["--app", &format!("{id}={secret}"), "--token-listen", "127.0.0.1:0"]);
    // What it prints is a configuration.
    let app = rehearsal.line("an application").split_once("[[app]]").map(|_| "[[app]]\n".to_owned()).expect("a table");
    let app = (0..5).fold(app, |app, _| app + rehearsal.line(" ").trim() + "\n");
    assert!(!app.contains(secret), "{app}");
    let ca = std::fs::read_to_string(keep.join("ca.pem")).expect("the CA");
    let setup = Setup::new(rehearsal.address, &ca).with(&app).with("[[account]]\naddress = \"hve01@contoso.com\"\napp = \"rehearsal\"");
    let config = setup.write();
    let relay = Relay::start(&config);
    Client::hello(relay.address).accepted("scanner@contoso.com", &["you@contoso.com"], &mail("Scan", b"page 1\r\n"));
    rehearsal.line(&format!("token issued to {id}"));
    rehearsal.line("taken 000001.eml: from hve01@contoso.com");
    relay.stop();

    std::fs::write(keep.join(format!("{id}.secret")), "another").expect("written");
    let relay = Relay::start(&config);
    Client::hello(relay.address).accepted("scanner@contoso.com", &["you@contoso.com"], &mail("Scan", b"page 2\r\n"));
    rehearsal.line(&format!("token refused to {id}: invalid_client"));
    relay.wait_for("the fault", |line| line["event"] == "token-refused");
    rehearsal.stop();
}

#[test]
fn a_file_of_faults_that_is_wrong_is_told_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let faults = folder.path().join("faults.toml");
    std::fs::write(&faults, "\n[[fault]]\nat = \"nowhere\"\nreply = \"451 x\"\n").expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_hve-relay")).arg("sim").arg("--faults").arg(&faults).output().expect("it runs");
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("faults.toml:2: at = \"nowhere\": write one of \"greeting\""), "{said}");
}

/// Logs in as the account, sends, and prints the refusal of MAIL, RCPT or DATA, or `sent`.
const SENDER: &str = "
import smtplib, ssl, sys
port, ca, password, sender, author, recipient = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
smtp = smtplib.SMTP('127.0.0.1', int(port))
smtp.starttls(context=context)
try:
    smtp.login('hve01@contoso.com', password)
    smtp.sendmail(sender, [recipient], f'From: {author}\\r\\nSubject: x\\r\\n\\r\\nx\\r\\n')
    print('sent')
except smtplib.SMTPRecipientsRefused as error:
    print(list(error.recipients.values())[0])
except smtplib.SMTPResponseException as error:
    print(error.smtp_code, error.smtp_error)
";

#[test]
fn another_sender_meets_the_profiles_rules_in_its_own_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let keep = folder.path().join("kept");
    let rehearsal = Rehearsal::start(&keep, &["--profile", "hve-ga"]);
    let own = "hve01@contoso.com";
    for (password, sender, author, recipient, wanted) in [
        ("rehearsal", own, own, "you@contoso.com", "sent"),
        ("wrong", own, own, "you@contoso.com", "535 b'5.7.3 Authentication unsuccessful"),
        ("rehearsal", "scanner@contoso.com", own, "you@contoso.com", "550 b'5.7.62"),
        ("rehearsal", own, "scanner@contoso.com", "you@contoso.com", "550 b'5.6.241"),
        ("rehearsal", own, own, "you@fabrikam.example", "(550, b'5.5.105 External sending is not supported"),
        ("rehearsal", own, own, "nobody1@contoso.com", "(550, b'5.1.10"),
    ] {
        let output = Command::new("python3")
            .args(["-c", SENDER, &rehearsal.address.port().to_string()])
            .arg(keep.join("ca.pem"))
            .args([password, sender, author, recipient])
            .output()
            .expect("python3 runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.starts_with(wanted), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    rehearsal.line("refused: 535 5.7.3");
    until("the one message is kept", || index(&keep).len() == 1);
}
