//! Programs that people really send mail with, against the relay: what they send arrives, whatever dialect of SMTP they speak.
//!
//! A program that is not installed is passed over with a note; `tests/run` installs them all and sets `HVE_RELAY_REQUIRE_CLIENTS=1`, and then
//! a missing one is a failure.

mod support;

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};

use hve_relay::sim::Taken;
use support::{World, body, field};

/// Whether a program is there to be tried; `args` make it do nothing.
fn is_installed(program: &str, args: &[&str]) -> bool {
    let found = Command::new(program).args(args).stdin(Stdio::null()).output().is_ok_and(|out| out.status.success());
    if !found {
        assert!(
            env::var_os("HVE_RELAY_REQUIRE_CLIENTS").is_none_or(|required| required != "1"),
            "{program} is not installed; tests/run installs it"
        );
        println!("{program} is not installed and so was not tried; tests/run installs it");
    }
    found
}

/// Runs a program to its end; it must be content. Returns what it said.
fn run(command: &mut Command, input: &[u8]) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let written = child.stdin.take().expect("piped").write_all(input);
    let out = child.wait_with_output().expect("it ends");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && written.is_ok(), "{command:?}: {}: {said}", out.status);
    said
}

fn to(taken: &Taken) -> Vec<&str> {
    taken.recipients.iter().map(|to| to.as_str()).collect()
}

/// The message with this subject; nothing may be wrong with any.
fn with_subject<'t>(all: &'t [Taken], subject: &str) -> &'t Taken {
    let taken = all.iter().find(|taken| field(taken, "Subject") == [subject]).unwrap_or_else(|| panic!("{subject} did not arrive"));
    assert_eq!(taken.violations, [], "{subject}");
    taken
}

/// What Python's email package makes of a notice: no defect, a report whose parts it understands, and each recipient with its action and status.
const EMAIL: &str = r#"
import sys
from email import message_from_binary_file, policy

for path in sys.argv[1:]:
    notice = message_from_binary_file(open(path, "rb"), policy=policy.default.clone(raise_on_defect=True))
    assert not any(part.defects for part in notice.walk()), path
    assert notice["Auto-Submitted"] in ("auto-replied", "auto-generated") and notice["Date"].datetime and notice["From"].addresses, path
    text = notice.get_body(("plain",)) or notice
    assert "mail relay relay.contoso.com" in text.get_content(), path
    if notice.get_content_type() == "text/plain":
        continue
    assert notice.get_content_type() == "multipart/report" and notice.get_param("report-type") == "delivery-status", path
    status = notice.get_payload(1)
    assert status.get_content_type() == "message/delivery-status", path
    first, *recipients = status.get_payload()
    assert first["Reporting-MTA"] == "dns; relay.contoso.com" and recipients, path
    for recipient in recipients:
        kind, address = recipient["Final-Recipient"].split("; ")
        assert kind in ("rfc822", "utf-8") and "@" in address, path
        assert (recipient["Action"], recipient["Status"][0]) in (("failed", "5"), ("failed", "4"), ("delayed", "4"), ("relayed", "2")), path
print("read", len(sys.argv) - 1)
"#;

#[test]
fn pythons_email_package_reads_every_notice() {
    if !is_installed("python3", &["-c", "import email"]) {
        return;
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/notice/golden");
    let files: Vec<_> = std::fs::read_dir(golden).expect("notices").map(|file| file.expect("a file").path()).collect();
    assert!(files.len() >= 5);
    let said = run(Command::new("python3").args(["-c", EMAIL]).args(&files), b"");
    assert_eq!(said.trim(), format!("read {}", files.len()));
}

/// Messages of an application in Python: one connection for many, dots, content beyond ASCII, recipients that are refused, addresses beyond ASCII.
const SMTPLIB: &str = r#"
import smtplib, sys
from email.message import EmailMessage
from email.headerregistry import Address

host, port = "127.0.0.1", int(sys.argv[1])

def message(subject, text):
    m = EmailMessage()
    m["From"], m["To"], m["Subject"] = "app@contoso.com", "ann@contoso.com", subject
    m.set_content(text)
    return m

with smtplib.SMTP(host, port, timeout=60) as s:
    assert not s.send_message(message("plain", "one\n.\n..two\n\n.three\n"))
    assert not s.send_message(message("to-many", "text\n"), to_addrs=["user%d@contoso.com" % n for n in range(60)])
    assert s.does_esmtp and int(s.esmtp_features["size"]) > 1000000

    scan = message("attachment", "see below\n")
    scan.add_attachment(bytes(range(256)) * 4096, maintype="application", subtype="octet-stream", filename="scan.bin")
    assert not s.send_message(scan)

    # Some of the recipients cannot be; the others get it.
    refused = s.sendmail("app@contoso.com", ["ann@contoso.com", "not an address"], "Subject: partly\n\ntext\n")
    assert list(refused) == ["not an address"] and refused["not an address"][0] == 553, refused
    try:
        s.sendmail("app@contoso.com", ["not an address"], "Subject: never\n\ntext\n")
        sys.exit("a message without recipients was taken")
    except smtplib.SMTPRecipientsRefused:
        pass

    # Octets as they are: smtplib leaves the line ends in them alone, and only sees to it that the last one is proper.
    s.sendmail("app@contoso.com", "ann@contoso.com", b"Subject: octets\r\rK\xe4se\n\xff\r", mail_options=["BODY=8BITMIME"])

    international = message("international", "Gr\u00fc\u00dfe\n")
    international.replace_header("To", Address("J\u00fcrgen", "j\u00fcrgen", "contoso.com"))
    assert not s.send_message(international)

# A library that knows no EHLO.
s = smtplib.SMTP(host, port, timeout=60)
s.helo("old.example")
s.sendmail("app@contoso.com", "ann@contoso.com", "Subject: after-helo\n\ntext\n")
assert s.noop()[0] == 250 and s.rset()[0] == 250 and s.verify("ann")[0] == 252
s.quit()
"#;

#[test]
fn python_sends_whatever_smtplib_can() {
    if !is_installed("python3", &["-c", "import smtplib"]) {
        return;
    }
    let world = World::new(2);
    run(Command::new("python3").arg("-").arg(world.relay.address.port().to_string()), SMTPLIB.as_bytes());
    // Sixty recipients are two deliveries.
    let all = world.taken(8);
    let plain = with_subject(&all, "plain");
    assert_eq!(body(plain), b"one\r\n.\r\n..two\r\n\r\n.three\r\n");
    assert_eq!(field(plain, "Reply-To"), ["<app@contoso.com>"]);
    let mut sizes: Vec<usize> =
        all.iter().filter(|taken| field(taken, "Subject") == ["to-many"]).map(|taken| taken.recipients.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [10, 50]);
    assert!(body(with_subject(&all, "attachment")).len() > 1 << 20);
    assert_eq!(to(with_subject(&all, "partly")), ["ann@contoso.com"]);
    assert_eq!(body(with_subject(&all, "octets")), b"K\xe4se\r\n\xff\r\n\r\n");
    assert_eq!(to(with_subject(&all, "international")), ["jürgen@contoso.com"]);
    assert!(field(with_subject(&all, "after-helo"), "Received")[0].contains(" with SMTP id "));
    assert_eq!(world.sim.counters().messages, 8);
}

/// Reads two messages as an application would, and compares all that it finds in them.
const READER: &str = r#"
import email, email.policy, sys

def found(path):
    with open(path, "rb") as file:
        message = email.message_from_binary_file(file, policy=email.policy.default)
    parts = [(part.get_content_type(), part.get_filename(), part.get_payload(decode=True).replace(b"\r\n", b"\n")) for part in message.walk() if not part.is_multipart()]
    assert all(not part.defects for part in message.walk()), path
    inner = [part.get_content()["Subject"] for part in message.walk() if part.get_content_type() == "message/rfc822"]
    return message["Subject"], message["To"].addresses, inner, parts

came, went = found(sys.argv[1]), found(sys.argv[2])
assert len(came[3]) == 4 and came[3] == went[3], (came, went)
assert (went[0], went[2]) == ("Gr\u00f6\u00dfe", ["Gr\u00fc\u00dfe aus dem B\u00fcro"]), went
assert [(to.display_name, to.addr_spec) for to in went[1]] == [("M\u00fcller, J", "ann@contoso.com")], went
"#;

#[test]
fn python_reads_converted_mail_as_it_was_meant() {
    if !is_installed("python3", &["-c", "import email"]) {
        return;
    }
    let world = World::with(1, |settings| settings.extensions = Vec::new(), |setup| setup);
    let content = "From: app@contoso.com\r\nTo: \"Müller, J\" <ann@contoso.com>\r\nSubject: Größe\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=o\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--o\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n\
        --i\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße = 100 % \r\n--\r\n.\r\n\r\n--i\r\n\
        Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n<p>Привет</p>\r\n--i--\r\n--o\r\n\
        Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"Übersicht; 1.bin\"\r\n\
        Content-Transfer-Encoding: binary\r\n\r\n\0\u{1}ä\r\n\u{7f}\r\n--o\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
        Subject: Grüße aus dem Büro\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nJürgen\r\n--o--\r\n";
    world.client().accepted("app@contoso.com", &["ann@contoso.com"], content.as_bytes());
    let taken = world.taken(1).remove(0);
    assert!(taken.content.is_ascii() && taken.violations.is_empty());
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, octets: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, octets).expect("written");
        path
    };
    let (came, went) = (file("came.eml", content.as_bytes()), file("went.eml", &taken.content));
    run(Command::new("python3").arg("-").args([came, went]), READER.as_bytes());
}

#[test]
fn swaks_sends_step_by_step_and_pipelined_and_after_helo() {
    if !is_installed("swaks", &["--version"]) {
        return;
    }
    let world = World::new(1);
    let server = world.relay.address.to_string();
    for (subject, more) in [
        ("step-by-step", &[][..]),
        ("pipelined", &["--pipeline"]),
        ("after-helo", &["--protocol", "SMTP"]),
        ("from-nobody", &["--from", "<>"]),
    ] {
        let subject = format!("Subject: {subject}");
        let common =
            ["--server", &server, "--helo", "swaks.example", "--from", "app@contoso.com", "--to", "ann@contoso.com,bob@contoso.com"];
        let said = run(Command::new("swaks").args(common).args(["--header", &subject, "--body", "one\n.\n..two\n"]).args(more), b"");
        assert!(said.contains("queued as"), "{said}");
    }
    let all = world.taken(4);
    for subject in ["step-by-step", "pipelined", "after-helo", "from-nobody"] {
        let taken = with_subject(&all, subject);
        assert_eq!(to(taken), ["ann@contoso.com", "bob@contoso.com"]);
        assert!(body(taken).starts_with(b"one\r\n.\r\n..two\r\n"), "{}", body(taken).escape_ascii());
        let protocol = if subject == "after-helo" { " with SMTP id " } else { " with ESMTP id " };
        assert!(field(taken, "Received")[0].contains(protocol));
    }
}

#[test]
fn curl_sends_a_file() {
    if !is_installed("curl", &["--version"]) {
        return;
    }
    let world = World::new(1);
    let url = format!("smtp://{}/curl.example", world.relay.address);
    let common =
        ["--silent", "--show-error", "--mail-from", "app@contoso.com", "--mail-rcpt", "ann@contoso.com", "--mail-rcpt", "bob@contoso.com"];
    run(
        Command::new("curl").args(common).args(["--crlf", "--upload-file", "-", &url]),
        b"From: App <app@contoso.com>\nTo: ann@contoso.com\nSubject: from-a-file\n\none\n.\n..two\n",
    );
    let all = world.taken(1);
    let taken = with_subject(&all, "from-a-file");
    assert_eq!(to(taken), ["ann@contoso.com", "bob@contoso.com"]);
    assert_eq!(body(taken), b"one\r\n.\r\n..two\r\n");
    assert_eq!(field(taken, "X-Original-From"), ["App <app@contoso.com>"]);
}

#[test]
fn msmtp_sends_a_message_and_asks_for_notices() {
    if !is_installed("msmtp", &["--version"]) {
        return;
    }
    let world = World::new(1);
    let (host, port) = (world.relay.address.ip().to_string(), world.relay.address.port().to_string());
    let server = ["--file=/dev/null", "--tls=off", "--auth=off", "--host", &host, "--port", &port, "--from", "app@contoso.com"];
    let message = b"From: App <app@contoso.com>\nTo: ann@contoso.com\nSubject: by-msmtp\n\none\n.\n..two\n";
    run(Command::new("msmtp").args(server).args(["ann@contoso.com", "bob@contoso.com"]), message);
    let all = world.taken(1);
    let taken = with_subject(&all, "by-msmtp");
    assert_eq!(to(taken), ["ann@contoso.com", "bob@contoso.com"]);
    assert_eq!(body(taken), b"one\r\n.\r\n..two\r\n");
    // What the client asks of notices is understood.
    run(
        Command::new("msmtp").args(server).args(["--dsn-notify=failure,delay", "--dsn-return=headers", "ann@contoso.com"]),
        b"Subject: with-notices\n\ntext\n",
    );
    with_subject(&world.taken(2), "with-notices");
}

#[test]
fn s_nail_sends_what_was_typed_and_a_file_with_it() {
    if !is_installed("s-nail", &["-V"]) {
        return;
    }
    let world = World::new(1);
    let attached = world.setup.folder().join("scan.bin");
    std::fs::write(&attached, (0..=255).cycle().take(100_000).collect::<Vec<u8>>()).expect("written");
    let relay = format!("mta=smtp://{}", world.relay.address);
    let mut command = Command::new("s-nail");
    // No configuration of the machine's, and no signatures of the user's.
    command.args(["-:/", "-S", &relay, "-S", "v15-compat", "-S", "smtp-auth=none", "-S", "hostname=contoso.com"]);
    command.args(["-S", "ttycharset=utf-8", "-r", "app@contoso.com", "-s", "by-s-nail", "-a"]).arg(&attached);
    run(command.arg("ann@contoso.com"), "Käse\n.\n..two\n".as_bytes());
    let all = world.taken(1);
    let taken = with_subject(&all, "by-s-nail");
    assert_eq!(to(taken), ["ann@contoso.com"]);
    assert!(body(taken).len() > 100_000);
    assert_eq!(field(taken, "X-Original-From"), ["app@contoso.com"]);
}

/// Several messages over one connection; recipients that are refused; a message that is thought better of.
const NET_SMTP: &str = r#"
use strict; use warnings; use Net::SMTP;
my $smtp = Net::SMTP->new("127.0.0.1", Port => $ARGV[0], Hello => "perl.example", Timeout => 60) or die "no connection: $@";
for my $subject ("one", "two") {
    $smtp->mail('app@contoso.com', Size => 100, Bits => "8") or die $smtp->message;
    my @taken = $smtp->recipient('ann@contoso.com', 'not an address', 'bob@contoso.com', { SkipBad => 1, Notify => ["FAILURE"] });
    @taken == 2 or die "taken: @taken";
    $smtp->data("Subject: by-perl-$subject\n", "\n", "one\n", ".\n", "..two\n", "K\xe4se\n") or die $smtp->message;
    $smtp->mail('app@contoso.com') && $smtp->reset or die $smtp->message;
}
$smtp->quit or die $smtp->message;
"#;

#[test]
fn net_smtp_sends_several_messages_over_one_connection() {
    if !is_installed("perl", &["-MNet::SMTP", "-e", "1"]) {
        return;
    }
    let world = World::new(1);
    run(Command::new("perl").args(["-e", NET_SMTP, &world.relay.address.port().to_string()]), b"");
    let all = world.taken(2);
    for subject in ["by-perl-one", "by-perl-two"] {
        let taken = with_subject(&all, subject);
        assert_eq!(to(taken), ["ann@contoso.com", "bob@contoso.com"]);
        assert_eq!(body(taken), b"one\r\n.\r\n..two\r\nK\xe4se\r\n");
    }
    assert_eq!(world.sim.counters().messages, 2);
}
