//! BDAT (RFC 3030): the same reports as with DATA, one round trip for what is small, and doubt where doubt is due.

use super::server::{CHUNKED, CHUNKED_LOCKSTEP};
use super::*;

const BOTH: [&[&str]; 2] = [CHUNKED, CHUNKED_LOCKSTEP];

/// The verbs since the login, each that was waited for behind a `|`.
fn rounds(server: &Server) -> String {
    let seen = server.seen();
    let commands = seen.commands.iter().zip(&seen.waited).skip_while(|(line, _)| !line.starts_with("MAIL"));
    commands.map(|(line, waited)| format!("{}{}", if *waited { "|" } else { " " }, line.split(' ').next().unwrap_or(""))).collect()
}

fn lines(octets: usize) -> Content {
    Content::Inline(b"1234567\r\n".repeat(octets / 9).into())
}

#[tokio::test]
async fn a_small_message_takes_one_round_trip() {
    let ca = Ca::new();
    let (recipients, content) = (mailboxes(&["a@contoso.com", "b@contoso.com"]), hello());
    for (offers, wanted) in [
        (LOCKSTEP, "|MAIL|RCPT|RCPT|DATA|MAIL|RCPT|RCPT|DATA"),
        (PIPELINED, "|MAIL RCPT RCPT DATA|MAIL RCPT RCPT DATA"),
        (CHUNKED_LOCKSTEP, "|MAIL|RCPT|RCPT|BDAT|MAIL|RCPT|RCPT|BDAT"),
        (CHUNKED, "|MAIL RCPT RCPT BDAT|MAIL RCPT RCPT BDAT"),
    ] {
        let server = Server::start(Script::new(&ca, offers)).await;
        let mut connection = opened(&server, &ca).await;
        for _ in 0..2 {
            assert!(matches!(connection.transact(&transaction(&recipients, &content)).await.end, End::Accepted(_)));
        }
        assert_eq!(rounds(&server), wanted);
        assert_eq!(server.seen().contents, [[HEADER, b"Hello.\r\n"].concat(), [HEADER, b"Hello.\r\n"].concat()]);
    }
}

#[tokio::test]
async fn an_extension_that_is_ignored_is_not_used() {
    let ca = Ca::new();
    let (recipients, content) = (mailboxes(&["a@contoso.com"]), hello());
    for (ignored, wanted) in [
        (vec![], "|MAIL RCPT BDAT"),
        (vec![Extension::Chunking], "|MAIL RCPT DATA"),
        (vec![Extension::Pipelining], "|MAIL|RCPT|BDAT"),
        (vec![Extension::Chunking, Extension::Pipelining], "|MAIL|RCPT|DATA"),
    ] {
        let server = Server::start(Script::new(&ca, CHUNKED)).await;
        let endpoint = Endpoint { ignored, ..server.endpoint(&ca) };
        let mut connection = Connection::open(&endpoint, Some((&login(), 0))).await.expect("a connection");
        assert!(matches!(connection.transact(&transaction(&recipients, &content)).await.end, End::Accepted(_)));
        assert_eq!(rounds(&server), wanted);
    }
}

#[tokio::test]
async fn a_large_message_waits_for_the_envelope() {
    let ca = Ca::new();
    let (recipients, content) = (mailboxes(&["a@contoso.com"]), lines(1 << 20));
    for (offers, wanted) in [(CHUNKED, "|MAIL RCPT|BDAT"), (CHUNKED_LOCKSTEP, "|MAIL|RCPT|BDAT")] {
        let server = Server::start(Script::new(&ca, offers)).await;
        let report = opened(&server, &ca).await.transact(&transaction(&recipients, &content)).await;
        assert!(matches!(report.end, End::Accepted(_)));
        assert_eq!(rounds(&server), wanted);
        // Nobody wants it: then it is not sent.
        for on in ["MAIL", "RCPT"] {
            let server = Server::start(Script::new(&ca, offers).with(&[at(on, Act::Say(b"550 5.1.8 no\r\n"))])).await;
            let mut connection = opened(&server, &ca).await;
            connection.transact(&transaction(&recipients, &content)).await;
            assert!(connection.usable() && !rounds(&server).contains("BDAT"), "{}", rounds(&server));
        }
    }
}

#[tokio::test]
async fn a_connection_that_rested_is_asked_before_it_gets_the_content() {
    let ca = Ca::new();
    let (recipients, content) = (mailboxes(&["a@contoso.com"]), hello());
    let server = Server::start(Script::new(&ca, CHUNKED)).await;
    let mut connection = opened(&server, &ca).await;
    for rest in [Duration::ZERO, Duration::from_secs(2)] {
        connection.idle_since -= rest;
        assert!(matches!(connection.transact(&transaction(&recipients, &content)).await.end, End::Accepted(_)));
    }
    assert_eq!(rounds(&server), "|MAIL RCPT BDAT|MAIL RCPT|BDAT");

    // The server has hung up, which is not seen before MAIL: the message goes by another connection, and there is no doubt.
    let hangs_up = Rule { connection: Some(0), after: 1, ..at("MAIL", Act::Close) };
    let server = Server::start(Script::new(&ca, CHUNKED).with(&[hangs_up])).await;
    let pool = Pool::new(PoolSettings::default());
    assert!(went(&send(&pool, &server, &ca).await));
    let mut connection = pool.take(&account()).expect("warm");
    connection.idle_since -= Duration::from_secs(2);
    pool.put(&account(), connection);
    let second = send(&pool, &server, &ca).await;
    assert!(went(&second) && second.origin == Origin::Replaced, "{second:?}");
    assert_eq!(server.seen().contents.len(), 2);
}

#[tokio::test]
async fn a_server_that_hangs_up_after_each_message_leaves_two_in_doubt_and_no_more() {
    let ca = Ca::new();
    let hangs_up = |connection| Rule { connection: Some(connection), after: 1, ..at("MAIL", Act::Close) };
    let server = Server::start(Script::new(&ca, CHUNKED).with(&[0, 1, 2, 3, 4].map(hangs_up))).await;
    let mut pool = Pool::new(PoolSettings::default());
    let mut shown = Vec::new();
    for number in 0..8 {
        let attempt = send(&pool, &server, &ca).await;
        let in_doubt = matches!(&attempt.result, Ok(report) if hung_up(report));
        assert_eq!((in_doubt, went(&attempt)), ([1, 3].contains(&number), ![1, 3].contains(&number)), "{number}: {attempt:?}");
        shown.push(attempt.shows_hang_ups);
        // A reload forgets nothing of it.
        let next = Pool::new(PoolSettings::default());
        pool.succeeded_by(&next, |_| true);
        pool = next;
    }
    assert_eq!(shown, [false, false, false, true, false, false, false, false]);
    assert_eq!(server.seen().contents.len(), 6);
}

fn hung_up(report: &Report) -> bool {
    matches!(report.end, End::Stopped(Trouble { step: Step::EndOfData, cause: Cause::Lost(_) }))
}

#[tokio::test]
async fn gives_the_reports_of_data() {
    let ca = Ca::new();
    let (recipients, content) = (mailboxes(&["a@contoso.com", "b@contoso.com", "c@contoso.com"]), hello());
    for (course, rules, survives) in COURSES.iter().filter(|(_, rules, _)| rules.iter().all(|rule| rule.on != "DATA")) {
        let once: Vec<Rule> = rules.iter().map(|rule| Rule { connection: Some(0), ..*rule }).collect();
        let mut reports = Vec::new();
        for offers in [LOCKSTEP, CHUNKED_LOCKSTEP, CHUNKED] {
            let server = Server::start(Script::new(&ca, offers).with(&once)).await;
            let mut connection = opened(&server, &ca).await;
            reports.push(connection.transact(&transaction(&recipients, &content)).await);
            assert_eq!(connection.usable(), *survives, "{course}");
            if *survives && rules.iter().all(|rule| rule.on.starts_with("RCPT TO")) {
                let next = connection.transact(&transaction(&mailboxes(&["d@contoso.com"]), &content)).await;
                assert!(matches!(next.end, End::Accepted(_)), "{course}: {next:?}");
            }
        }
        assert_eq!(reports[0], reports[1], "{course}");
        assert_eq!(reports[0].recipients, reports[2].recipients, "{course}");
        match &reports[0].end {
            // The content was on its way with the commands: the server may have taken it.
            End::Stopped(Trouble { cause, .. }) if !matches!(cause, Cause::Reply(_)) => {
                let Trouble { step, cause: other } = stopped(&reports[2]);
                assert_eq!((step, std::mem::discriminant(&other)), (Step::EndOfData, std::mem::discriminant(cause)), "{course}");
            }
            end => assert_eq!(*end, reports[2].end, "{course}"),
        }
    }
}

#[tokio::test]
async fn what_is_refused_is_heard_although_the_content_was_on_its_way() {
    let ca = Ca::new();
    let bye = b"421 4.3.2 bye\r\n";
    for octets in [100, 10_000, 120_000] {
        let (recipients, content) = (mailboxes(&["a@contoso.com"]), lines(octets));
        for (on, step) in [("MAIL", Step::Mail), ("RCPT", Step::Rcpt), (".", Step::EndOfData)] {
            let server = Server::start(Script::new(&ca, CHUNKED).with(&[at(on, Act::SayAndClose(bye))])).await;
            let mut connection = opened(&server, &ca).await;
            let trouble = stopped(&connection.transact(&transaction(&recipients, &content)).await);
            assert_eq!(trouble.to_string(), format!("{step}: 421 4.3.2 bye"), "{octets} octets");
            assert!(!connection.usable());
        }
    }
    // A warm connection whose server says good-bye to MAIL has not taken the content behind it.
    let rule = Rule { connection: Some(0), after: 1, ..at("MAIL", Act::SayAndClose(bye)) };
    let server = Server::start(Script::new(&ca, CHUNKED).with(&[rule])).await;
    let pool = Pool::new(PoolSettings::default());
    assert!(went(&send(&pool, &server, &ca).await));
    let second = send(&pool, &server, &ca).await;
    assert_eq!((went(&second), second.origin, server.seen().contents.len()), (true, Origin::Replaced, 2));
}

#[tokio::test]
async fn what_was_handed_over_and_not_answered_is_never_repeated_at_once() {
    let ca = Ca::new();
    for on in ["MAIL", "RCPT", "content", "."] {
        let rule = Rule { after: 1, ..at(on, Act::Close) };
        let server = Server::start(Script::new(&ca, CHUNKED).with(&[rule])).await;
        let pool = Pool::new(PoolSettings::default());
        assert!(went(&send(&pool, &server, &ca).await));
        let second = send(&pool, &server, &ca).await;
        assert_eq!(second.result.map(|report| stopped(&report).step), Ok(Step::EndOfData), "{on}");
        assert_eq!((pool.len(), server.seen().connections), (0, 1), "{on}");
    }
}

#[tokio::test]
async fn a_content_that_did_not_get_out_whole_is_not_in_doubt() {
    let ca = Ca::new();
    let (recipients, content) = (mailboxes(&["a@contoso.com"]), lines(24 << 20));
    for offers in BOTH {
        let server = Server::start(Script::new(&ca, offers).with(&[at("content", Act::Close)])).await;
        let mut connection = opened(&server, &ca).await;
        let report = connection.transact(&transaction(&recipients, &content)).await;
        assert!(matches!(stopped(&report), Trouble { step: Step::Content, cause: Cause::Lost(_) }), "{:?}", report.end);
        assert!(!connection.usable());

        let too_large = Act::SayAndClose(b"552 5.3.4 Message size exceeds fixed maximum message size\r\n");
        let server = Server::start(Script::new(&ca, offers).with(&[at("content", too_large)])).await;
        let trouble = stopped(&opened(&server, &ca).await.transact(&transaction(&recipients, &content)).await);
        assert_eq!(trouble.to_string(), "sending the content: 552 5.3.4 Message size exceeds fixed maximum message size");
    }
}

#[tokio::test]
async fn a_silent_server_is_waited_for_as_long_as_each_step_may_take() {
    let ca = Ca::new();
    let short = Duration::from_millis(300);
    let (recipients, content) = (mailboxes(&["a@contoso.com"]), hello());
    for (offers, on, step) in [
        (CHUNKED, "MAIL", Step::EndOfData),
        (CHUNKED, ".", Step::EndOfData),
        (CHUNKED_LOCKSTEP, "RCPT", Step::Rcpt),
        (CHUNKED_LOCKSTEP, ".", Step::EndOfData),
    ] {
        let server = Server::start(Script::new(&ca, offers).with(&[at(on, Act::Hang)])).await;
        let mut endpoint = server.endpoint(&ca);
        *(if on == "." { &mut endpoint.timeouts.end_of_data } else { &mut endpoint.timeouts.command }) = short;
        let mut connection = Connection::open(&endpoint, Some((&login(), 0))).await.expect("a connection");
        let trouble = stopped(&connection.transact(&transaction(&recipients, &content)).await);
        assert_eq!(trouble, Trouble { step, cause: Cause::TimedOut(short) }, "{on}");
        assert!(!connection.usable());
    }
}

#[tokio::test]
async fn after_a_refusal_the_transaction_is_reset() {
    let ca = Ca::new();
    let (recipients, content) = (mailboxes(&["a@contoso.com"]), hello());
    for (offers, on, wanted) in [
        (CHUNKED, "MAIL", "|MAIL RCPT BDAT|RSET MAIL RCPT BDAT"),
        (CHUNKED, "RCPT", "|MAIL RCPT BDAT|RSET MAIL RCPT BDAT"),
        (CHUNKED, ".", "|MAIL RCPT BDAT|RSET MAIL RCPT BDAT"),
        // Nothing is open after a refused MAIL, and no chunk was sent.
        (CHUNKED_LOCKSTEP, "MAIL", "|MAIL|MAIL"),
        (CHUNKED_LOCKSTEP, "RCPT", "|MAIL|RCPT|RSET|MAIL|RCPT"),
        (CHUNKED_LOCKSTEP, ".", "|MAIL|RCPT|BDAT|RSET|MAIL|RCPT|BDAT"),
    ] {
        let server = Server::start(Script::new(&ca, offers).with(&[at(on, Act::Say(b"451 4.3.2 later\r\n"))])).await;
        let mut connection = opened(&server, &ca).await;
        for _ in 0..2 {
            let refused = connection.transact(&transaction(&recipients, &content)).await;
            assert!(!matches!(refused.end, End::Accepted(_)) && connection.usable());
        }
        assert_eq!(rounds(&server), wanted);
    }
}

#[tokio::test]
async fn content_arrives_octet_for_octet() {
    let ca = Ca::new();
    let recipients = mailboxes(&["a@contoso.com"]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("1.eml");
    let long = b"x".repeat(300_000);
    let bodies: &[&[u8]] = &[b"", b"\r\n", b"a\r\n", b".\r\n", b"..\r\n.\r\n", b"\r\n.\r\n.\r\nQUIT\r\n", b"\xff\xfe8-bit \xe4\r\n", &long];
    for offers in BOTH {
        let server = Server::start(Script::new(&ca, offers)).await;
        let mut connection = opened(&server, &ca).await;
        for body in bodies {
            let stored = [&b"Subject: stored\r\n\r\n"[..], body].concat();
            std::fs::write(&path, &stored).expect("written");
            for content in [Content::File { path: path.clone(), len: stored.len() as u64 }, Content::Inline(stored.clone().into())] {
                let report = connection.transact(&Transaction { body_offset: 19, ..transaction(&recipients, &content) }).await;
                assert!(matches!(report.end, End::Accepted(_)), "{report:?}");
                assert!(server.seen().contents.pop().expect("a content") == [HEADER, body].concat(), "{} octets", body.len());
            }
        }
        // A file that is not whole never comes to its end.
        let cut = Content::File { path: path.clone(), len: long.len() as u64 + 20 };
        let trouble = stopped(&connection.transact(&transaction(&recipients, &cut)).await);
        assert!(matches!(trouble, Trouble { step: Step::Content, cause: Cause::Local(_) }), "{trouble}");
        assert!(!connection.usable());
    }
}

#[tokio::test]
async fn many_recipients_and_a_content_do_not_block_each_other() {
    let ca = Ca::new();
    let texts: Vec<String> = (0..333).map(|i| format!("{}{i}@contoso.com", if i % 7 == 0 { "bad" } else { "good" })).collect();
    let recipients = mailboxes(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let content = lines(120_000);
    let server = Server::start(Script::new(&ca, CHUNKED).with(&[at("RCPT TO:<bad", Act::Say(b"550 5.1.1 no\r\n"))])).await;
    let report = opened(&server, &ca).await.transact(&transaction(&recipients, &content)).await;
    assert!(matches!(report.end, End::Accepted(_)));
    let codes: Vec<u16> = report.recipients.iter().flatten().map(|reply| reply.code).collect();
    assert_eq!(codes, (0..333).map(|i| if i % 7 == 0 { 550 } else { 250 }).collect::<Vec<_>>());
}
