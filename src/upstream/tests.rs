//! The dialogue with scripted servers, over real TCP and real TLS.

mod chunking;
mod server;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::mail::{AccountName, Content, Recipient};
use crate::reply::{Cause, End, Report, Step, Trouble};
use crate::secret::Secret;
use crate::smtp::{MessageDsn, Notify, Orcpt, RecipientDsn, Ret};

use super::*;
use server::{Act, Ca, LOCKSTEP, PIPELINED, Rule, Script, Server, at};

const HEADER: &[u8] = b"From: hve01@contoso.com\r\nSubject: test\r\n\r\n";

fn login() -> Login {
    Login {
        user: "hve01@contoso.com".to_owned(),
        credential: Credential::Password(Secret::new("hunter2".to_owned())),
        turns: Turns::default(),
    }
}

fn mailboxes(texts: &[&str]) -> Vec<Recipient> {
    let recipient =
        |(i, text): (usize, &&str)| Recipient { ordinal: i as u16, address: text.parse().expect(text), dsn: RecipientDsn::default() };
    texts.iter().enumerate().map(recipient).collect()
}

const NO_DSN: &MessageDsn = &MessageDsn { ret: None, envid: None };

fn transaction<'a>(recipients: &'a [Recipient], content: &'a Content) -> Transaction<'a> {
    Transaction {
        reverse_path: "hve01@contoso.com".to_owned(),
        recipients,
        header: Bytes::from_static(HEADER),
        content,
        body_offset: 0,
        eight_bit: false,
        smtputf8: false,
        dsn: NO_DSN,
    }
}

fn hello() -> Content {
    Content::Inline(Bytes::from_static(b"Hello.\r\n"))
}

async fn open(server: &Server, ca: &Ca) -> Result<Connection, Trouble> {
    Connection::open(&server.endpoint(ca), Some((&login(), 0))).await
}

async fn opened(server: &Server, ca: &Ca) -> Connection {
    open(server, ca).await.expect("a connection")
}

async fn trouble(server: &Server, ca: &Ca) -> Trouble {
    open(server, ca).await.err().expect("trouble")
}

/// Neither the user name nor the password, in any form, has reached the server.
fn kept_secret(server: &Server) -> bool {
    let seen = server.seen();
    let mut lines = seen.clear.iter().chain(&seen.commands);
    !lines.any(|line| ["AUTH", "hunter2", "aHVudGVyMg", "aHZlMDF", "AGh2ZTAx"].iter().any(|part| line.contains(part)))
}

#[tokio::test]
async fn sends_a_message_with_all_that_is_offered() {
    let ca = Ca::new();
    let server = Server::start(Script::new(&ca, PIPELINED)).await;
    let mut connection = opened(&server, &ca).await;
    assert_eq!(connection.offers().size, Some(157_286_400));
    assert!(!connection.is_reused() && connection.is_alive());
    let (recipients, content) = (mailboxes(&["a@contoso.com", "jürgen@contoso.com"]), hello());
    let report = connection.transact(&Transaction { eight_bit: true, smtputf8: true, ..transaction(&recipients, &content) }).await;
    let replies: Vec<String> = report.recipients.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(replies, ["250 2.1.5 Recipient OK"; 2]);
    assert!(matches!(&report.end, End::Accepted(reply) if reply.to_string() == "250 2.6.0 <id> [InternalId=7] Queued mail for delivery"));
    assert!(connection.is_alive() && connection.is_reused());
    connection.quit().await;
    let seen = server.seen();
    assert_eq!(seen.clear, ["EHLO relay.contoso.com", "STARTTLS"]);
    let commands = [
        "EHLO relay.contoso.com",
        "AUTH PLAIN AGh2ZTAxQGNvbnRvc28uY29tAGh1bnRlcjI=",
        "MAIL FROM:<hve01@contoso.com> SIZE=50 BODY=8BITMIME SMTPUTF8",
        "RCPT TO:<a@contoso.com>",
        "RCPT TO:<jürgen@contoso.com>",
        "DATA",
        "QUIT",
    ];
    assert_eq!(seen.commands, commands);
    assert_eq!(seen.contents, [[HEADER, b"Hello.\r\n"].concat()]);
}

#[tokio::test]
async fn asks_for_nothing_that_is_not_offered() {
    let ca = Ca::new();
    let server = Server::start(Script::new(&ca, &["AUTH LOGIN XOAUTH2", "  "])).await;
    let mut connection = opened(&server, &ca).await;
    let (recipients, content) = (mailboxes(&["a@contoso.com", "jürgen@contoso.com"]), hello());
    let report = connection.transact(&Transaction { eight_bit: true, smtputf8: true, ..transaction(&recipients, &content) }).await;
    assert!(matches!(report.end, End::Accepted(_)));
    assert_eq!(report.recipients[1].as_ref().map(|reply| reply.code), Some(553));
    let null = Transaction { reverse_path: String::new(), ..transaction(&recipients[..1], &content) };
    assert!(matches!(connection.transact(&null).await.end, End::Accepted(_)));
    let commands = server.seen().commands;
    let wanted =
        ["AUTH LOGIN", "aHZlMDFAY29udG9zby5jb20=", "aHVudGVyMg==", "MAIL FROM:<hve01@contoso.com>", "RCPT TO:<a@contoso.com>", "DATA"];
    assert_eq!(commands[1..7], wanted);
    assert_eq!(commands[7..], ["MAIL FROM:<>", "RCPT TO:<a@contoso.com>", "DATA"]);
}

#[tokio::test]
async fn passes_on_what_is_asked_of_notices_where_that_is_offered() {
    let ca = Ca::new();
    let mut recipients = mailboxes(&["a@contoso.com", "b@contoso.com", "c@contoso.com"]);
    let orcpt = |address_type: &str, address: &str| Some(Orcpt { address_type: address_type.to_owned(), address: address.to_owned() });
    let failure = Notify { failure: true, delay: true, ..Notify::NEVER };
    recipients[0].dsn = RecipientDsn { notify: Some(failure), orcpt: orcpt("rfc822", "a+b=c@contoso.com") };
    recipients[1].dsn = RecipientDsn { notify: Some(Notify::NEVER), orcpt: orcpt("utf-8", "jürgen@contoso.com") };
    let (content, dsn) = (hello(), MessageDsn { ret: Some(Ret::Headers), envid: Some("run 7+1".to_owned()) });
    let commands = [
        "MAIL FROM:<hve01@contoso.com> SIZE=50 RET=HDRS ENVID=run+207+2B1",
        "RCPT TO:<a@contoso.com> NOTIFY=FAILURE,DELAY ORCPT=rfc822;a+2Bb+3Dc@contoso.com",
        "RCPT TO:<b@contoso.com> NOTIFY=NEVER ORCPT=utf-8;j\\x{FC}rgen@contoso.com",
        "RCPT TO:<c@contoso.com>",
    ];
    for offers in [PIPELINED, LOCKSTEP] {
        let server = Server::start(Script::new(&ca, offers)).await;
        let report = opened(&server, &ca).await.transact(&Transaction { dsn: &dsn, ..transaction(&recipients, &content) }).await;
        assert!(matches!(report.end, End::Accepted(_)));
        let seen = server.seen().commands;
        let envelope: Vec<&str> =
            seen.iter().map(String::as_str).filter(|line| line.starts_with("MAIL") || line.starts_with("RCPT")).collect();
        let wanted = if offers == PIPELINED {
            commands.to_vec()
        } else {
            vec!["MAIL FROM:<hve01@contoso.com> SIZE=50", "RCPT TO:<a@contoso.com>", "RCPT TO:<b@contoso.com>", "RCPT TO:<c@contoso.com>"]
        };
        assert_eq!(envelope, wanted);
    }
}

#[tokio::test]
async fn believes_nothing_that_came_before_the_handshake() {
    let ca = Ca::new();
    for injected in
        [&b"250 injected.example\r\n"[..], b"250-x\r\n250 AUTH PLAIN\r\n235 fake\r\n250 fake\r\n250 fake\r\n354 fake\r\n250 fake\r\n", b"x"]
    {
        let server = Server::start(Script { injected, ..Script::new(&ca, PIPELINED) }).await;
        let trouble = trouble(&server, &ca).await;
        assert!(matches!(trouble, Trouble { step: Step::StartTls, cause: Cause::Protocol(_) }), "{trouble}");
        assert!(kept_secret(&server));
    }
}

#[tokio::test]
async fn sends_no_credential_to_a_server_that_is_not_the_right_one() {
    let ca = Ca::new();
    let signed_by_nobody = rcgen::generate_simple_self_signed(vec![server::NAME.to_owned()]).expect("a certificate");
    let self_signed = crate::tls::server_config(signed_by_nobody.cert.pem(), signed_by_nobody.signing_key.serialize_pem());
    for (certificate, wanted) in [
        (self_signed.expect("a configuration"), "smtp.hve.example: the server's certificate was not issued by a CA that is trusted here"),
        (ca.issue("other.example", 2035), "smtp.hve.example: the server's certificate is not for this name but for "),
        (ca.issue(server::NAME, 2021), "smtp.hve.example: the server's certificate has expired"),
        (Ca::new().issue(server::NAME, 2035), "smtp.hve.example: the server's certificate was not signed by the CA that is trusted here"),
    ] {
        let server = Server::start(Script { certificate, ..Script::new(&ca, PIPELINED) }).await;
        let trouble = trouble(&server, &ca).await;
        assert_eq!(trouble.step, Step::Tls);
        assert!(matches!(&trouble.cause, Cause::Tls(text) if text.starts_with(wanted)), "{trouble}");
        assert!(kept_secret(&server) && server.seen().commands.is_empty());
    }
}

#[tokio::test]
async fn sends_no_credential_and_no_mail_in_clear() {
    let ca = Ca::new();
    for rules in [vec![], vec![at("STARTTLS", Act::Say(b"454 4.7.0 TLS not available\r\n"))]] {
        let offers: &[&str] = if rules.is_empty() { &["AUTH PLAIN LOGIN"] } else { &["STARTTLS", "AUTH PLAIN LOGIN"] };
        let server = Server::start(Script { plain_offers: offers, ..Script::new(&ca, PIPELINED) }.with(&rules)).await;
        assert_eq!(trouble(&server, &ca).await.step, Step::StartTls);
        assert!(kept_secret(&server));
    }
}

#[tokio::test]
async fn a_refused_login_is_the_reply_and_a_missing_auth_is_trouble() {
    let ca = Ca::new();
    let refusal = Act::Say(b"535-5.7.3 Authentication unsuccessful\r\n535 5.7.3 [AM0PR01CA0123.eurprd01.prod.exchangelabs.com]\r\n");
    for (offers, on) in [(PIPELINED, "AUTH PLAIN"), (LOCKSTEP, "AUTH LOGIN"), (LOCKSTEP, "aHZlMDF"), (LOCKSTEP, "aHVudGVyMg")] {
        let server = Server::start(Script::new(&ca, offers).with(&[at(on, refusal)])).await;
        let trouble = trouble(&server, &ca).await;
        let wanted = "AUTH: 535 5.7.3 Authentication unsuccessful [AM0PR01CA0123.eurprd01.prod.exchangelabs.com]";
        assert_eq!(trouble.to_string(), wanted, "at {on}");
    }
    for offers in [&["PIPELINING"][..], &["AUTH XOAUTH2"]] {
        let server = Server::start(Script::new(&ca, offers)).await;
        assert!(matches!(trouble(&server, &ca).await, Trouble { step: Step::Auth, cause: Cause::Protocol(_) }));
        assert!(kept_secret(&server));
    }
}

/// Where a dialogue can end before MAIL, and at which step that is.
const OPENING: &[(&str, Step)] = &[
    ("greeting", Step::Greeting),
    ("EHLO", Step::Ehlo),
    ("STARTTLS", Step::StartTls),
    ("handshake", Step::Tls),
    ("AUTH LOGIN", Step::Auth),
    ("aHVudGVyMg", Step::Auth),
];

#[tokio::test]
async fn trouble_while_opening_is_at_the_step_where_it_came() {
    let ca = Ca::new();
    for (on, step) in OPENING {
        let server = Server::start(Script::new(&ca, LOCKSTEP).with(&[at(on, Act::Close)])).await;
        let trouble = trouble(&server, &ca).await;
        assert!(trouble.step == *step && matches!(trouble.cause, Cause::Lost(_)), "{on}: {trouble}");
        let server = Server::start(Script::new(&ca, LOCKSTEP).with(&[at(on, Act::Say(b"hello\r\n"))])).await;
        let trouble = open(&server, &ca).await.err().expect("trouble");
        let broken = matches!(trouble.cause, Cause::Protocol(_)) || (*step == Step::Tls && matches!(trouble.cause, Cause::Tls(_)));
        // Whether what follows the 220 is still read with it is a matter of timing: either way nothing of it is believed.
        let there = trouble.step == *step || (*on == "handshake" && trouble.step == Step::StartTls);
        assert!(there && broken, "{on}: {trouble}");
    }
    let closed = Server::start(Script::new(&ca, LOCKSTEP)).await.endpoint(&ca);
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let nobody = Endpoint { port: free.port(), ..closed };
    let trouble = Connection::open(&nobody, None).await.err().expect("trouble");
    assert!(matches!(&trouble, Trouble { step: Step::Connect, cause: Cause::Lost(text) } if text.contains("127.0.0.1")), "{trouble}");
}

#[tokio::test]
async fn every_step_has_its_time_limit() {
    let ca = Arc::new(Ca::new());
    let transaction_steps = [
        ("MAIL", Step::Mail, PIPELINED),
        ("RCPT", Step::Rcpt, LOCKSTEP),
        ("DATA", Step::Data, PIPELINED),
        ("content", Step::Content, PIPELINED),
        (".", Step::EndOfData, LOCKSTEP),
    ];
    let steps = OPENING.iter().map(|(on, step)| (*on, *step, LOCKSTEP)).chain(transaction_steps);
    let mut waiting: JoinSet<_> = steps.map(|(on, step, offers)| hangs_at(ca.clone(), on, step, offers)).collect();
    while let Some(done) = waiting.join_next().await {
        done.expect("as it should");
    }
}

/// Only the step's own limit is short, so that no other can be meant.
async fn hangs_at(ca: Arc<Ca>, on: &'static str, step: Step, offers: &'static [&'static str]) {
    // Long enough for all other steps of a busy machine.
    let short = Duration::from_secs(2);
    let server = Server::start(Script::new(&ca, offers).with(&[at(on, Act::Hang)])).await;
    let mut endpoint = server.endpoint(&ca);
    let timeouts = &mut endpoint.timeouts;
    *match step {
        Step::Tls => &mut timeouts.connect,
        Step::Greeting => &mut timeouts.greeting,
        Step::Data => &mut timeouts.data,
        Step::Content => &mut timeouts.block,
        Step::EndOfData => &mut timeouts.end_of_data,
        _ => &mut timeouts.command,
    } = short;
    let trouble = match Connection::open(&endpoint, Some((&login(), 0))).await {
        Err(trouble) => trouble,
        Ok(mut connection) => {
            let recipients = mailboxes(&["a@contoso.com"]);
            let content = if step == Step::Content { Content::Inline(b"line\r\n".repeat(4_000_000).into()) } else { hello() };
            let report = connection.transact(&transaction(&recipients, &content)).await;
            assert!(!connection.usable(), "{on}");
            stopped(&report)
        }
    };
    assert_eq!(trouble, Trouble { step, cause: Cause::TimedOut(short) }, "{on}");
}

fn stopped(report: &Report) -> Trouble {
    match &report.end {
        End::Stopped(trouble) => trouble.clone(),
        end => panic!("it did not stop: {end:?}"),
    }
}

/// Courses of a transaction with three recipients, and whether the connection survives.
const COURSES: &[(&str, &[Rule], bool)] = &[
    ("all accepted", &[], true),
    ("MAIL refused", &[at("MAIL", Act::Say(b"550 5.1.8 Access denied, bad outbound sender\r\n"))], true),
    ("MAIL deferred", &[at("MAIL", Act::Say(b"451 4.7.500 Access denied, please try again later\r\n"))], true),
    ("one refused", &[at("RCPT TO:<b@", Act::Say(b"550-5.1.10 RESOLVER.ADR.RecipientNotFound;\r\n550 5.1.10 not found\r\n"))], true),
    ("two refused", &[at("RCPT TO:<a@", Act::Say(b"451 4.7.0 later\r\n")), at("RCPT TO:<c@", Act::Say(b"550 5.5.105 External\r\n"))], true),
    ("all refused", &[at("RCPT", Act::Say(b"550 5.1.1 no\r\n"))], true),
    ("all refused, and yet 354", &[at("RCPT", Act::Say(b"550 5.1.1 no\r\n")), at("DATA", Act::Say(b"354 go on\r\n"))], true),
    ("DATA refused", &[at("DATA", Act::Say(b"452 4.3.1 Insufficient system resources\r\n"))], true),
    ("DATA answered with 250", &[at("DATA", Act::Say(b"250 fine\r\n"))], false),
    ("content refused", &[at(".", Act::Say(b"550 4.5.104 Message rejected.\r\n"))], true),
    ("end of data answered with 354", &[at(".", Act::Say(b"354 more\r\n"))], false),
    ("421 to MAIL", &[at("MAIL", Act::SayAndClose(b"421 4.3.2 bye\r\n"))], false),
    ("421 to a recipient", &[at("RCPT TO:<b@", Act::SayAndClose(b"421 4.3.2 bye\r\n"))], false),
    ("421 to DATA", &[at("DATA", Act::SayAndClose(b"421 4.3.2 bye\r\n"))], false),
    ("421 to the end of data", &[at(".", Act::SayAndClose(b"421 4.3.2 bye\r\n"))], false),
    ("lost at MAIL", &[at("MAIL", Act::Close)], false),
    ("lost at a recipient", &[at("RCPT TO:<b@", Act::Close)], false),
    ("lost at DATA", &[at("DATA", Act::Close)], false),
    ("lost at the end of data", &[at(".", Act::Close)], false),
    ("text that is not UTF-8", &[at("RCPT TO:<b@", Act::Say(b"550 5.1.1 unbekannter Empf\xe4nger\r\n"))], true),
    ("a reply of two codes", &[at("RCPT TO:<b@", Act::Say(b"250-a\r\n550 b\r\n"))], false),
    ("a reply with a bare LF", &[at("RCPT TO:<b@", Act::Say(b"250 a\n250 b\r\n"))], false),
    ("no reply at all", &[at("MAIL", Act::Say(b"HTTP/1.1 400 Bad Request\r\n"))], false),
];

#[tokio::test]
async fn pipelining_changes_nothing_but_the_time() {
    let ca = Ca::new();
    let (recipients, content) = (mailboxes(&["a@contoso.com", "b@contoso.com", "c@contoso.com"]), hello());
    for (course, rules, survives) in COURSES {
        let mut reports = Vec::new();
        for offers in [PIPELINED, LOCKSTEP] {
            let once: Vec<Rule> = rules.iter().map(|rule| Rule { connection: Some(0), ..*rule }).collect();
            let server = Server::start(Script::new(&ca, offers).with(&once)).await;
            let mut connection = opened(&server, &ca).await;
            reports.push(connection.transact(&transaction(&recipients, &content)).await);
            assert_eq!(connection.usable(), *survives, "{course}");
            let unharmed = mailboxes(&["d@contoso.com"]);
            if *survives && rules.iter().all(|rule| rule.on.starts_with("RCPT TO")) {
                let next = connection.transact(&transaction(&unharmed, &content)).await;
                assert!(matches!(next.end, End::Accepted(_)), "{course}: {next:?}");
            }
        }
        assert_eq!(reports[0], reports[1], "{course}");
    }
}

#[tokio::test]
async fn a_transaction_that_was_left_open_is_reset_before_the_next() {
    let ca = Ca::new();
    let (refused, good, content) = (mailboxes(&["x@contoso.com"]), mailboxes(&["a@contoso.com"]), hello());
    for (offers, wanted) in
        [(LOCKSTEP, "MAIL RCPT RSET MAIL RCPT DATA MAIL RCPT DATA"), (PIPELINED, "MAIL RCPT DATA RSET MAIL RCPT DATA MAIL RCPT DATA")]
    {
        let server = Server::start(Script::new(&ca, offers).with(&[at("RCPT TO:<x@", Act::Say(b"550 5.1.1 no\r\n"))])).await;
        let mut connection = opened(&server, &ca).await;
        assert_eq!(connection.transact(&transaction(&refused, &content)).await.end, End::NoRecipient);
        for _ in 0..2 {
            assert!(matches!(connection.transact(&transaction(&good, &content)).await.end, End::Accepted(_)));
        }
        let verbs = server.seen().commands.into_iter().map(|line| line[..4].to_owned()).collect::<Vec<_>>().join(" ");
        assert!(verbs.ends_with(wanted), "{verbs}");
    }
}

#[tokio::test]
async fn many_recipients_get_their_replies_in_order() {
    let ca = Ca::new();
    let texts: Vec<String> = (0..333).map(|i| format!("{}{i}@contoso.com", if i % 7 == 0 { "bad" } else { "good" })).collect();
    let recipients = mailboxes(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let content = hello();
    let server = Server::start(Script::new(&ca, PIPELINED).with(&[at("RCPT TO:<bad", Act::Say(b"550 5.1.1 no\r\n"))])).await;
    let report = opened(&server, &ca).await.transact(&transaction(&recipients, &content)).await;
    assert!(matches!(report.end, End::Accepted(_)));
    let codes: Vec<u16> = report.recipients.iter().flatten().map(|reply| reply.code).collect();
    assert_eq!(codes, (0..333).map(|i| if i % 7 == 0 { 550 } else { 250 }).collect::<Vec<_>>());
    assert_eq!(server.seen().commands.iter().filter(|line| line.starts_with("RCPT")).count(), 333);
}

#[tokio::test]
async fn content_arrives_as_it_was() {
    let ca = Ca::new();
    let server = Server::start(Script::new(&ca, PIPELINED)).await;
    let mut connection = opened(&server, &ca).await;
    let recipients = mailboxes(&["a@contoso.com"]);
    let folder = tempfile::tempdir().expect("a folder");
    let large: Vec<u8> =
        (0..5 << 20).map(|i: u32| if i.is_multiple_of(997) { b'.' } else { (i.wrapping_mul(2_654_435_761) >> 24) as u8 }).collect();
    let large: Vec<u8> = large.into_iter().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    let large = large.chunks(900).collect::<Vec<_>>().join(&b"\r\n"[..]);
    let long_line = [&[b'x'; 100_000][..], b"\r\n", &[b'.'; 100_000], b"\r\n"].concat();
    let bodies: &[&[u8]] = &[
        b"",
        b"\r\n",
        b"a",
        b".",
        b".\r\n",
        b"..\r\n.\r\n",
        b"\r\n.\r\n.\r\n\r\n",
        b"a\r\n.b",
        b"\xff\xfe8-bit \xe4\r\n",
        &long_line,
        &large,
    ];
    for body in bodies {
        let stored = [&b"Subject: stored\r\n\r\n"[..], body].concat();
        let path = folder.path().join("1.eml");
        std::fs::write(&path, &stored).expect("written");
        let mut wanted = [HEADER, body].concat();
        if !wanted.ends_with(b"\r\n") {
            wanted.extend_from_slice(b"\r\n");
        }
        for content in [Content::File { path: path.clone(), len: stored.len() as u64 }, Content::Inline(stored.clone().into())] {
            let report = connection.transact(&Transaction { body_offset: 19, ..transaction(&recipients, &content) }).await;
            assert!(matches!(report.end, End::Accepted(_)), "{report:?}");
            let arrived = server.seen().contents.pop().expect("a content");
            assert!(arrived == wanted, "{} octets arrived of {}", arrived.len(), wanted.len());
        }
    }
}

#[tokio::test]
async fn lost_before_the_final_dot_is_not_in_doubt() {
    let ca = Ca::new();
    let recipients = mailboxes(&["a@contoso.com"]);
    let content = Content::Inline(b"line\r\n".repeat(4_000_000).into());
    let server = Server::start(Script::new(&ca, PIPELINED).with(&[at("content", Act::Close)])).await;
    let mut connection = opened(&server, &ca).await;
    let report = connection.transact(&transaction(&recipients, &content)).await;
    assert!(matches!(stopped(&report), Trouble { step: Step::Content, cause: Cause::Lost(_) }), "{:?}", report.end);
    assert!(!connection.usable());
}

#[tokio::test]
async fn a_server_that_hangs_up_on_the_content_is_heard_out() {
    let ca = Ca::new();
    let recipients = mailboxes(&["a@contoso.com"]);
    let content = Content::Inline(b"line\r\n".repeat(4_000_000).into());
    let too_large = Act::SayAndClose(b"552 5.3.4 Message size exceeds fixed maximum message size\r\n");
    let server = Server::start(Script::new(&ca, PIPELINED).with(&[at("content", too_large)])).await;
    let mut connection = opened(&server, &ca).await;
    let trouble = stopped(&connection.transact(&transaction(&recipients, &content)).await);
    assert_eq!(trouble.to_string(), "sending the content: 552 5.3.4 Message size exceeds fixed maximum message size");
    assert!(!connection.usable());
}

#[tokio::test]
async fn content_that_cannot_be_read_is_our_own_trouble() {
    let ca = Ca::new();
    let recipients = mailboxes(&["a@contoso.com"]);
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(Script::new(&ca, PIPELINED)).await;
    let mut connection = opened(&server, &ca).await;
    let missing = Content::File { path: folder.path().join("none"), len: 7 };
    let report = connection.transact(&transaction(&recipients, &missing)).await;
    assert!(matches!(stopped(&report), Trouble { step: Step::Content, cause: Cause::Local(_) }));
    assert!(connection.usable(), "nothing was said to the server");
    let path = folder.path().join("cut.eml");
    std::fs::write(&path, b"line\r\n".repeat(100_000)).expect("written");
    let cut = Content::File { path, len: 600_001 };
    let report = connection.transact(&transaction(&recipients, &cut)).await;
    assert!(matches!(stopped(&report), Trouble { step: Step::Content, cause: Cause::Local(_) }));
    assert!(!connection.usable(), "the server waits for the rest");
    drop(connection);
    assert!(server.seen().contents.is_empty());
}

fn account() -> AccountName {
    AccountName::new("hve01@contoso.com")
}

async fn send(pool: &Pool, server: &Server, ca: &Ca) -> Attempt {
    let (recipients, content) = (mailboxes(&["a@contoso.com"]), hello());
    deliver(pool, &server.endpoint(ca), Some((&login(), 0)), &account(), &transaction(&recipients, &content)).await
}

fn went(attempt: &Attempt) -> bool {
    matches!(&attempt.result, Ok(Report { end: End::Accepted(_), .. }))
}

#[tokio::test]
async fn a_warm_connection_carries_many_messages() {
    let ca = Ca::new();
    let server = Server::start(Script::new(&ca, PIPELINED)).await;
    let pool = Pool::new(PoolSettings { transactions: 3, ..PoolSettings::default() });
    let mut origins = Vec::new();
    for _ in 0..5 {
        let attempt = send(&pool, &server, &ca).await;
        assert!(went(&attempt));
        origins.push(attempt.origin);
    }
    assert_eq!(origins, [Origin::Fresh, Origin::Warm, Origin::Warm, Origin::Fresh, Origin::Warm]);
    assert_eq!((pool.len(), server.seen().connections), (1, 2));
    assert!(pool.take(&AccountName::new("other@contoso.com")).is_none());
    pool.close_all().await;
    assert!(pool.is_empty());
    server.sees(|seen| seen.commands.iter().filter(|line| *line == "QUIT").count() == 2).await;
}

#[tokio::test]
async fn a_connection_that_died_meanwhile_costs_no_attempt() {
    let ca = Ca::new();
    for act in [Act::Close, Act::SayAndClose(b"421 4.4.2 Connection timed out\r\n")] {
        let rule = Rule { connection: Some(0), after: 1, ..at("MAIL", act) };
        let server = Server::start(Script::new(&ca, PIPELINED).with(&[rule])).await;
        let pool = Pool::new(PoolSettings::default());
        assert!(went(&send(&pool, &server, &ca).await));
        let second = send(&pool, &server, &ca).await;
        assert!(went(&second), "{second:?}");
        assert_eq!((second.origin, server.seen().connections, server.seen().contents.len()), (Origin::Replaced, 2, 2));
    }
}

#[tokio::test]
async fn what_ended_later_than_mail_is_not_repeated() {
    let ca = Ca::new();
    for (on, step) in [("RCPT", Step::Rcpt), ("DATA", Step::Data), (".", Step::EndOfData)] {
        let rule = Rule { after: 1, ..at(on, Act::Close) };
        let server = Server::start(Script::new(&ca, PIPELINED).with(&[rule])).await;
        let pool = Pool::new(PoolSettings::default());
        assert!(went(&send(&pool, &server, &ca).await));
        let second = send(&pool, &server, &ca).await;
        assert_eq!(second.result.map(|report| stopped(&report).step), Ok(step));
        assert_eq!((pool.len(), server.seen().connections), (0, 1));
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_not_handed_out() {
    let ca = Ca::new();
    // Two replies in one: the second is what an idle connection hears.
    for act in [
        Act::SayAndClose(b"250 2.6.0 Queued\r\n"),
        Act::SayAndClose(b"250 2.6.0 Queued\r\n421 4.4.2 bye\r\n"),
        Act::Say(b"250 2.6.0 Queued\r\n421 4.4.2 bye\r\n"),
    ] {
        let server = Server::start(Script::new(&ca, PIPELINED).with(&[at(".", act)])).await;
        let mut connection = opened(&server, &ca).await;
        let (recipients, content) = (mailboxes(&["a@contoso.com"]), hello());
        assert!(matches!(connection.transact(&transaction(&recipients, &content)).await.end, End::Accepted(_)));
        let noticed = async {
            while connection.is_alive() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), noticed).await.expect("noticed");
        let pool = Pool::new(PoolSettings::default());
        pool.put(&account(), connection);
        assert!(pool.take(&account()).is_none());
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_politely() {
    let ca = Ca::new();
    let server = Server::start(Script::new(&ca, PIPELINED)).await;
    let pool = Pool::new(PoolSettings { idle: Duration::from_millis(30), ..PoolSettings::default() });
    assert!(went(&send(&pool, &server, &ca).await));
    server.sees(|seen| seen.commands.last().is_some_and(|line| line == "QUIT")).await;
    assert!(pool.is_empty());
    assert_eq!(send(&pool, &server, &ca).await.origin, Origin::Fresh);
}

#[tokio::test]
async fn another_pool_takes_over_what_stays_and_the_rest_is_closed() {
    let ca = Ca::new();
    for stays in [true, false] {
        let server = Server::start(Script::new(&ca, PIPELINED)).await;
        let (former, pool) = (Pool::new(PoolSettings::default()), Pool::new(PoolSettings::default()));
        assert!(went(&send(&former, &server, &ca).await));
        let in_use = opened(&server, &ca).await;
        former.succeeded_by(&pool, |name| stays && *name == account());
        assert_eq!((former.len(), pool.len()), (0, usize::from(stays)));
        // Who still has one of the former pool gives it back to be closed.
        former.put(&account(), in_use);
        assert!(former.is_empty());
        let closed = if stays { 1 } else { 2 };
        server.sees(|seen| seen.commands.iter().filter(|line| *line == "QUIT").count() == closed).await;
        let expected = if stays { Origin::Warm } else { Origin::Fresh };
        assert_eq!(send(&pool, &server, &ca).await.origin, expected);
    }
}
