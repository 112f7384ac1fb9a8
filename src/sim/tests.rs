//! The endpoint over real sockets and real TLS, driven by a raw client, and once by lettre as an independent witness.

mod client;

use std::time::{Duration, Instant};

use super::*;
use client::{Client, LIMIT, PASSWORD, USER, mail, settings, sim};

mod behaviour {
    use super::*;

    #[tokio::test]
    async fn says_what_hve_says_before_and_after_tls() {
        let sim = sim(Settings { mechanisms: vec![Mechanism::Login, Mechanism::Xoauth2], ..settings() }).await;
        let mut client = Client::connect(&sim).await;
        let greeting = client.reply().await;
        let host = "ic3-transport-smtp-lob-deployment-878945f44-7brv5";
        assert!(greeting.starts_with(&format!("220 {host} Microsoft ESMTP MAIL Service ready at ")), "{greeting}");
        assert!(greeting.ends_with(" +0000 (08DC2DE600000001)"), "{greeting}");
        assert_eq!(client.command("MAIL FROM:<a@b>").await, "503 5.5.2 Send hello first");
        assert_eq!(client.command("EHLO test").await, format!("250-{host} Hello [127.0.0.1]\n250-SIZE 10485760\n250 STARTTLS"));
        assert_eq!(client.command("MAIL FROM:<a@b>").await, "451 5.7.3 STARTTLS is required to send mail");
        assert_eq!(client.command("AUTH LOGIN").await, "504 5.7.4 Unrecognized authentication type");
        assert_eq!(client.command("STARTTLS").await, "220 2.0.0 SMTP server ready");
        let mut client = client.handshake(sim.ca_pem(), "smtp-hve.office365.com").await.expect("a handshake");
        assert_eq!(client.command("MAIL FROM:<a@b>").await, "503 5.5.2 Send hello first", "what was said in plain text is forgotten");
        let lines =
            ["SIZE 10485760", "PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8"].map(|offer| format!("250-{offer}\n")).concat();
        assert_eq!(client.command("EHLO test").await, format!("250-{host} Hello [127.0.0.1]\n{lines}250 AUTH LOGIN XOAUTH2"));
        assert_eq!(client.command("STARTTLS").await, "503 5.5.1 Bad sequence of commands");
        assert_eq!(client.command("QUIT").await, "221 2.0.0 Service closing transmission channel");
        assert_eq!(client.rest().await, b"");
        assert_eq!(sim.counters().handshakes, 1);
    }

    #[tokio::test]
    async fn takes_tls_of_both_versions_but_no_stranger() {
        let expired = Identity::expired(&["localhost"]).expect("an identity");
        let other = Identity::make(&["localhost"]).expect("an identity");
        let right = sim(settings()).await;
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let client = Client::until_starttls(&right).await.handshake_with(right.ca_pem(), "localhost", &[version]).await;
            assert!(client.expect("a handshake").command("EHLO test").await.starts_with("250-"));
        }
        assert!(Client::until_starttls(&right).await.handshake(right.ca_pem(), "example.com").await.is_err(), "wrong name");
        assert!(Client::until_starttls(&right).await.handshake(other.ca_pem(), "localhost").await.is_err(), "another CA");
        let stale = sim(Settings { identity: Some(expired), ..settings() }).await;
        assert!(Client::until_starttls(&stale).await.handshake(stale.ca_pem(), "localhost").await.is_err(), "expired");
        right.wait_until(|counters| counters.failed_handshakes == 2 && counters.open == 0, LIMIT).await.expect("two failures");
        assert_eq!(right.counters().handshakes, 2);
        assert!(right.counters().logins.is_empty());
    }

    #[tokio::test]
    async fn takes_mail_in_clear_and_without_a_login_only_where_it_is_set_so() {
        for (security, offers_starttls) in [(Security::Offered, true), (Security::None, false)] {
            let open = Settings { security, mechanisms: Vec::new(), senders: Senders::Anybody, limits: Limits::NONE, ..settings() };
            let sim = sim(open).await;
            let mut client = Client::connect(&sim).await;
            assert!(client.reply().await.starts_with("220 "));
            let hello = client.command("EHLO test").await;
            assert_eq!(hello.contains("STARTTLS"), offers_starttls, "{hello}");
            assert!(hello.contains("PIPELINING") && !hello.contains("AUTH"), "{hello}");
            for (command, reply) in [("MAIL FROM:<any@body.example>", "250"), ("RCPT TO:<a@contoso.com>", "250"), ("DATA", "354")] {
                assert!(client.command(command).await.starts_with(reply), "{command}");
            }
            assert!(client.command("From: any@body.example\r\n\r\ntext\r\n.").await.starts_with("250 2.6.0 "));
            let taken = sim.taken();
            assert_eq!((taken[0].encrypted, taken[0].account.as_str()), (false, ""));
            if security == Security::None {
                assert_eq!(client.command("STARTTLS").await, "500 5.3.3 Unrecognized command");
            }
        }
    }

    #[tokio::test]
    async fn begins_with_tls_and_asks_for_a_certificate_where_it_is_set_so() {
        let sim = sim(Settings { security: Security::Implicit, ..settings() }).await;
        let mut client = Client::connect(&sim).await.handshake(sim.ca_pem(), "localhost").await.expect("a handshake");
        assert!(client.reply().await.starts_with("220 "));
        assert!(client.command("EHLO test").await.contains("AUTH LOGIN"));
        let ca = rcgen::generate_simple_self_signed(["client.example".to_owned()]).expect("a certificate").cert.pem();
        let strict = super::sim(Settings { security: Security::Implicit, client_ca: Some(ca), ..settings() }).await;
        let client = Client::connect(&strict).await.handshake(strict.ca_pem(), "localhost").await;
        // With TLS 1.3 the client hears of it only behind the handshake.
        if let Ok(mut client) = client {
            assert!(client.rest().await.is_empty());
        }
        strict.wait_until(|counters| counters.failed_handshakes == 1, LIMIT).await.expect("refused");
    }

    #[tokio::test]
    async fn lets_in_only_who_proves_it() {
        let token = crate::secret::Secret::new("t0k".into());
        let accounts = vec![Account { token: Some(token), ..Account::new(USER, PASSWORD) }];
        let mechanisms = vec![Mechanism::Login, Mechanism::Plain, Mechanism::Xoauth2];
        let sim = sim(Settings { accounts, mechanisms, ..Settings::default() }).await;
        let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        let plain = encode(&format!("\0{USER}\0{PASSWORD}"));
        let bearer = encode(&format!("user={USER}\u{1}auth=Bearer t0k\u{1}\u{1}"));
        let good = "235 2.7.0 Authentication successful";
        for script in [
            vec![(format!("AUTH PLAIN {plain}"), good)],
            vec![("auth plain".to_owned(), "334 "), (plain.clone(), good)],
            vec![(format!("AUTH XOAUTH2 {bearer}"), good), (format!("AUTH PLAIN {plain}"), "503 5.5.1 Bad sequence of commands")],
            vec![(format!("AUTH LOGIN {}", encode(USER)), "334 UGFzc3dvcmQ6"), (encode(PASSWORD), good)],
            vec![(format!("AUTH PLAIN {}", encode("\0hve01@contoso.com\0wrong")), "535 5.7.3 Authentication unsuccessful")],
            vec![("AUTH XOAUTH2 dXNlcg==".to_owned(), "501 5.5.121 Invalid XOAUTH2 argument")],
            vec![("AUTH LOGIN".to_owned(), "334 VXNlcm5hbWU6"), ("*".to_owned(), "501 5.5.4 Invalid arguments")],
            vec![("AUTH NTLM".to_owned(), "504 5.7.4 Unrecognized authentication type")],
        ] {
            let mut client = Client::encrypted(&sim).await;
            for (line, reply) in script {
                assert_eq!(client.command(&line).await, reply, "{line}");
            }
        }
        let mut client = Client::encrypted(&sim).await;
        assert_eq!(client.command(&format!("MAIL FROM:<{USER}>")).await, "530 5.7.57 Client was not authenticated to send mail");
        assert_eq!(client.login(USER, "wrong").await, "535 5.7.3 Authentication unsuccessful");
        assert_eq!(client.login("nobody@contoso.com", PASSWORD).await, "535 5.7.3 Authentication unsuccessful");
        assert_eq!(client.login("HVE01@Contoso.com", PASSWORD).await, good);
        let logins = sim.counters().logins;
        assert_eq!(logins.iter().filter(|login| login.accepted).count(), 5);
        assert!(logins.iter().all(|login| login.encrypted));
        assert_eq!(logins.last().map(|login| login.user.as_str()), Some("HVE01@Contoso.com"));
    }

    #[tokio::test]
    async fn notices_credentials_in_plain_text() {
        let sim = sim(settings()).await;
        let mut client = Client::connect(&sim).await;
        client.reply().await;
        client.command("EHLO test").await;
        assert_eq!(client.command("AUTH LOGIN aHZlMDE=").await, "504 5.7.4 Unrecognized authentication type");
        let attempt =
            LoginAttempt { connection: 1, user: "hve01".into(), mechanism: Some(Mechanism::Login), encrypted: false, accepted: false };
        assert_eq!(sim.counters().logins, [attempt]);
    }

    #[tokio::test]
    async fn takes_a_message_as_it_was_sent() {
        let sim = sim(settings()).await;
        let mut client = Client::ready(&sim).await;
        let reply = client.transaction(&["a@contoso.com", "B@Contoso.Com"], mail("..\r\n...x\r\n")).await;
        assert!(reply.starts_with("250 2.6.0 <1@contoso.com> [InternalId=4664334, Hostname=ic3"), "{reply}");
        assert!(reply.ends_with("Queued mail for delivery"), "{reply}");
        let taken = sim.wait_for(1, LIMIT).await.expect("a message");
        let content = mail(".\r\n..x\r\n");
        assert_eq!(taken[0].content, content);
        assert_eq!((taken[0].size, taken[0].sha256), (content.len() as u64, sha256(content.as_bytes())));
        assert_eq!((taken[0].account.as_str(), taken[0].reverse_path.to_string().as_str(), taken[0].connection), (USER, USER, 1));
        assert_eq!(taken[0].recipients.iter().map(|r| r.as_str()).collect::<Vec<_>>(), ["a@contoso.com", "B@Contoso.Com"]);
        assert_eq!((&taken[0].reply, taken[0].violations.len()), (&reply, 0));
        let counters = sim.counters();
        assert_eq!((counters.messages, counters.recipients, counters.octets), (1, 2, content.len() as u64));
        assert_eq!((counters.command("RCPT"), counters.refused("")), (2, 0));
    }

    #[tokio::test]
    async fn keeps_what_it_was_told_to_keep() {
        for (keep, count, octets) in [(Keep::Nothing, 0, 0), (Keep::Hash, 1, 0), (Keep::All, 1, mail("x\r\n").len())] {
            let sim = sim(Settings { keep, ..settings() }).await;
            Client::ready(&sim).await.transaction(&["a@contoso.com"], mail("x\r\n")).await;
            let taken = sim.wait_for(1, LIMIT).await.expect("a message");
            assert_eq!(taken.len(), count, "{keep:?}");
            assert_eq!(taken.first().map_or(0, |taken| taken.content.len()), octets, "{keep:?}");
            assert!(taken.iter().all(|taken| taken.sha256 == sha256(mail("x\r\n").as_bytes())));
        }
    }

    #[tokio::test]
    async fn answers_pipelined_commands_in_order_and_in_one_piece() {
        let sim = sim(settings()).await;
        let mut client = Client::ready(&sim).await;
        client.send(format!("MAIL FROM:<{USER}>\r\nRCPT TO:<a@contoso.com>\r\nRCPT TO:<nobody@contoso.com>\r\nDATA\r\n")).await;
        for code in ["250 2.1.0", "250 2.1.5", "550 5.1.10", "354"] {
            assert!(client.reply().await.starts_with(code), "{code}");
        }
        client.send(format!("{}.\r\nMAIL FROM:<{USER}>\r\nRSET\r\nQUIT\r\n", mail("x\r\n"))).await;
        for code in ["250 2.6.0", "250 2.1.0", "250 2.0.0", "221 2.0.0"] {
            assert!(client.reply().await.starts_with(code), "{code}");
        }
        assert!(sim.counters().violations.is_empty());
    }

    #[tokio::test]
    async fn takes_chunks_as_rfc_3030_has_them() {
        let extensions = vec![Extension::Pipelining, Extension::Chunking];
        let sim = sim(Settings { extensions, size_limit: 1_000, ..settings() }).await;
        let mut client = Client::ready(&sim).await;
        let begin = |recipient: &str| format!("MAIL FROM:<{USER}>\r\nRCPT TO:<{recipient}>\r\n");
        let content = mail(".\r\nQUIT\r\n");
        let whole = format!("BDAT {} LAST\r\n{content}", content.len());
        let (head, tail) = content.split_at(20);
        let pieces = format!("BDAT 20\r\n{head}BDAT {}\r\n{tail}BDAT 0 LAST\r\n", tail.len());
        let large = "x".repeat(1_001);
        for (group, replies) in [
            (begin("a@contoso.com") + &whole, vec!["250 2.1.0", "250 2.1.5", "250 2.6.0 <1@contoso.com>"]),
            (
                begin("a@contoso.com") + &pieces,
                vec!["250 2.1.0", "250 2.1.5", "250 2.6.0 20 octets", "250 2.6.0", "250 2.6.0 <1@contoso.com>"],
            ),
            // Nobody wants it: it is read and refused.
            (whole.clone(), vec!["503 5.5.2 Need mail command"]),
            (begin("nobody@contoso.com") + &whole + "RSET\r\n", vec!["250", "550 5.1.10", "503 5.5.2 Need rcpt command", "250"]),
            // One or the other, and nothing behind the last.
            (begin("a@contoso.com") + "BDAT 1\r\nxDATA\r\n", vec!["250", "250", "250", "503 5.5.1 Bad sequence"]),
            (
                "RSET\r\n".to_owned() + &begin("a@contoso.com") + &whole + "BDAT 0 LAST\r\n",
                vec!["250", "250", "250", "250", "503 5.5.2 Need mail command"],
            ),
            // Too large: the rest is refused too, until RSET.
            (
                begin("a@contoso.com") + &format!("BDAT 1001\r\n{large}BDAT 1 LAST\r\nxRSET\r\n"),
                vec!["250", "250", "552 5.3.4 Message size", "503 5.5.1 Bad sequence", "250"],
            ),
            (begin("a@contoso.com") + &format!("BDAT 1001 LAST\r\n{large}"), vec!["250", "250", "552 5.3.4 Message size"]),
            // RSET between two chunks drops the first.
            (
                begin("a@contoso.com") + "BDAT 1\r\nxRSET\r\n" + &begin("a@contoso.com") + &whole,
                vec!["250", "250", "250", "250 2.0.0", "250", "250", "250 2.6.0 <1@contoso.com>"],
            ),
        ] {
            client.send(&group).await;
            for wanted in replies {
                let reply = client.reply().await;
                assert!(reply.starts_with(wanted), "{wanted}: {reply} in {group:?}");
            }
        }
        // What stands behind a length that is none is not taken for commands.
        client.send("BDAT x LAST\r\nMAIL FROM:<a@b>\r\n").await;
        assert_eq!(client.rest().await, b"501 5.5.4 Invalid arguments\r\n");
        let taken = sim.taken();
        assert!(taken.len() == 4 && taken.iter().all(|taken| taken.content == content && taken.violations.is_empty()));
        assert_eq!(sim.counters().violations.len(), 0);
    }

    #[tokio::test]
    async fn counts_who_does_not_wait_for_replies() {
        let sim = sim(Settings { extensions: vec![], ..settings() }).await;
        let mut client = Client::ready(&sim).await;
        client.send(format!("MAIL FROM:<{USER}>\r\nRCPT TO:<a@contoso.com>\r\n")).await;
        client.reply().await;
        client.reply().await;
        assert_eq!(sim.counters().violations.get(&Violation::Pipelined), Some(&1));
        client.send(format!("DATA\r\n{}.\r\n", mail(""))).await;
        assert_eq!(client.reply().await, "354 Start mail input; end with <CRLF>.<CRLF>");
        assert!(client.reply().await.starts_with("250 2.6.0"));
        assert_eq!(sim.counters().violations.get(&Violation::Pipelined), Some(&2));
    }

    #[tokio::test]
    async fn refuses_what_is_no_command() {
        let sim = sim(settings()).await;
        let mut client = Client::ready(&sim).await;
        for (line, reply) in [
            ("XYZZY", "500 5.3.3 Unrecognized command"),
            ("BDAT 10 LAST", "500 5.3.3 Unrecognized command"),
            ("NOOP\rNOOP", "500 5.3.3 Unrecognized command"),
            ("RCPT TO:<a@contoso.com>", "503 5.5.2 Need mail command"),
            ("DATA", "503 5.5.2 Need mail command"),
            ("MAIL FROM: <hve01@contoso.com>", "501 5.5.4 Invalid arguments"),
            ("MAIL FROM:<hve01@contoso.com> BODY=BINARYMIME", "501 5.5.4 Invalid arguments"),
            ("MAIL FROM:<hve01@contoso.com> RET=FULL", "501 5.5.4 Invalid arguments"),
            ("MAIL FROM:<hve01>", "501 5.1.7 Invalid address"),
            ("MAIL FROM:<jürgen@contoso.com>", "501 5.1.7 Invalid address"),
            ("MAIL FROM:<hve01@contoso.com> SIZE=10485761", "552 5.3.4 Message size exceeds fixed maximum message size"),
            ("mail from:<hve01@contoso.com> size=10485760 body=8bitmime smtputf8", "250 2.1.0 Sender OK"),
            ("MAIL FROM:<hve01@contoso.com>", "503 5.5.2 Sender already specified"),
            ("DATA", "503 5.5.2 Need rcpt command"),
            ("RCPT TO:a@contoso.com", "501 5.5.4 Invalid arguments"),
            ("RCPT TO:<a@contoso.com> NOTIFY=NEVER", "501 5.5.4 Invalid arguments"),
            ("NOOP", "250 2.0.0 OK"),
            ("VRFY a", "252 2.1.5 Cannot VRFY user"),
        ] {
            assert_eq!(client.command(line).await, reply, "{line}");
        }
        client.send("NOOP\n").await;
        assert_eq!(client.reply().await, "500 5.3.3 Unrecognized command", "a bare LF ends no command");
        client.send(vec![b'x'; 13_000]).await;
        assert_eq!(client.reply().await, "500 5.3.3 Line too long");
        assert_eq!(client.rest().await, b"");
        assert_eq!(sim.counters().violations.get(&Violation::BadLine), Some(&3));
    }
}

mod rules {
    use super::*;

    #[tokio::test]
    async fn the_sender_is_the_account_in_the_envelope_and_in_the_header() {
        let sim = sim(settings()).await;
        let mut client = Client::ready(&sim).await;
        for sender in ["", "scanner@contoso.com", "hve02@contoso.com"] {
            assert!(client.command(&format!("MAIL FROM:<{sender}>")).await.starts_with("550 5.7.62 "), "{sender}");
        }
        for (from, code) in [
            ("From: Scanner <scanner@contoso.com>\r\n", "550 5.6.241 "),
            ("From: hve01@contoso.com, b@contoso.com\r\nSender: hve01@contoso.com\r\n", "550 5.6.241 "),
            ("From: hve01@contoso.com, b@contoso.com\r\n", "550 5.1.20 Multiple From addresses"),
            ("From: hve01@contoso.com\r\nFrom: hve01@contoso.com\r\n", "550 5.1.20 "),
            ("To: b@contoso.com\r\n", "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant"),
            ("From: \"scanner@contoso.com\" <HVE01@contoso.com>\r\n", "250 2.6.0 <"),
        ] {
            let reply = client.transaction(&["a@contoso.com"], format!("{from}\r\nFrom: x@y\r\n")).await;
            assert!(reply.starts_with(code), "{from:?}: {reply}");
        }
        assert_eq!((sim.counters().messages, sim.counters().refused("")), (1, 8));
    }

    #[tokio::test]
    async fn bare_line_ends_are_refused_and_end_nothing() {
        let sim = sim(settings()).await;
        let mut client = Client::ready(&sim).await;
        for body in ["a\nb\r\n", "a\rb\r\n", "a\n.\nMAIL FROM:<x@y>\r\n", "a\r\n.\nRSET\r\n", "a\n.\r\nRSET\r\n", "a\r.\r\nRSET\r\n"] {
            let reply = client.transaction(&["a@contoso.com"], mail(body)).await;
            assert!(reply.starts_with("550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal"), "{body:?}: {reply}");
        }
        let counters = sim.counters();
        assert_eq!((counters.violations[&Violation::BareLf], counters.violations[&Violation::BareCr]), (4, 2));
        assert_eq!((counters.command("RSET"), counters.messages), (0, 0));
    }

    #[tokio::test]
    async fn eight_bit_content_must_be_declared() {
        let sim = sim(settings()).await;
        let mut client = Client::ready(&sim).await;
        client.transaction(&["a@contoso.com"], mail("Grüße\r\n")).await;
        assert_eq!(client.command(&format!("MAIL FROM:<{USER}> BODY=8BITMIME")).await, "250 2.1.0 Sender OK");
        client.command("RCPT TO:<jürgen@contoso.com>").await;
        client.command("DATA").await;
        client.send(format!("{}.\r\n", mail("Grüße\r\n"))).await;
        client.reply().await;
        let violations: Vec<_> = sim.taken().into_iter().map(|taken| taken.violations).collect();
        assert_eq!(violations, [vec![Violation::Undeclared8Bit], vec![]]);
    }

    #[tokio::test]
    async fn the_size_limit_is_exact() {
        let sim = sim(Settings { size_limit: 300_000, ..settings() }).await;
        let mut client = Client::ready(&sim).await;
        let body = |size: usize| "x".repeat(size - mail("").len() - 2) + "\r\n";
        assert!(client.transaction(&["a@contoso.com"], mail(&body(300_000))).await.starts_with("250 2.6.0"));
        let refused = "552 5.3.4 Message size exceeds fixed maximum message size";
        assert_eq!(client.transaction(&["a@contoso.com"], mail(&body(300_001))).await, refused);
        assert!(client.transaction(&["a@contoso.com"], mail("..\r\n")).await.starts_with("250 2.6.0"), "the connection goes on");
    }

    #[tokio::test]
    async fn fifty_recipients_and_those_that_exist() {
        let sim = sim(settings()).await;
        let mut client = Client::ready(&sim).await;
        client.command(&format!("MAIL FROM:<{USER}>")).await;
        for unknown in ["nobody@contoso.com", "Unknown.7@contoso.com"] {
            let expected = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup";
            assert_eq!(client.command(&format!("RCPT TO:<{unknown}>")).await, expected);
        }
        for n in 0..50 {
            assert_eq!(client.command(&format!("RCPT TO:<r{n}@contoso.com>")).await, "250 2.1.5 Recipient OK");
        }
        assert_eq!(client.command("RCPT TO:<r50@contoso.com>").await, "452 4.5.3 Too many recipients");
        assert!(client.command("DATA").await.starts_with("354"));
        client.send(format!("{}.\r\n", mail(""))).await;
        assert!(client.reply().await.starts_with("250 2.6.0"));
        assert_eq!(sim.counters().recipients, 50);
    }

    #[tokio::test]
    async fn general_availability_takes_no_external_recipient() {
        let sim = sim(Settings { profile: Profile::Ga, limits: Limits::NONE, ..settings() }).await;
        let mut client = Client::ready(&sim).await;
        client.command(&format!("MAIL FROM:<{USER}>")).await;
        let refused = "550 5.5.105 External sending is not supported for High Volume Email accounts";
        assert_eq!(client.command("RCPT TO:<a@example.com>").await, refused);
        assert_eq!(client.command("RCPT TO:<nobody@example.com>").await, refused);
        assert_eq!(client.command("RCPT TO:<a@contoso.com>").await, "250 2.1.5 Recipient OK");
    }

    #[tokio::test]
    async fn budgets_are_refused_in_hves_words_and_free_when_their_window_has_passed() {
        let window = Duration::from_millis(400);
        let limit = |count| Some(Limit { count, window });
        let external_messages = Limits { external_messages: limit(2), ..Limits::NONE };
        let external_recipients = Limits { external_recipients: limit(2), ..Limits::NONE };
        let recipients = Limits { recipients: limit(2), ..Limits::NONE };
        for (limits, refusal) in [
            (
                external_messages,
                "450 4.5.104 Message rejected. Excessive message rate from sender. The HVE message can't be submitted because the rate limit for external emails has been exceeded.",
            ),
            (
                external_recipients,
                "450 4.5.102 Message rejected. Excessive message rate from sender. The HVE message can't be submitted because the sender's submission tenant quota for external recipients was exceeded.",
            ),
            (recipients, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"),
        ] {
            let sim = sim(Settings { limits, ..settings() }).await;
            let mut client = Client::ready(&sim).await;
            let begun = Instant::now();
            for _ in 0..2 {
                assert!(client.transaction(&["a@example.com"], mail("")).await.starts_with("250"));
            }
            loop {
                let reply = client.transaction(&["a@example.com"], mail("")).await;
                if reply.starts_with("250") {
                    break;
                }
                assert!(reply.starts_with(refusal), "{reply}");
            }
            assert!(begun.elapsed() >= window, "{refusal}");
            assert!(sim.counters().refused(refusal) > 0, "{refusal}");
        }
    }

    #[tokio::test]
    async fn each_account_has_its_own_budget() {
        let limits = Limits { external_messages: Some(Limit { count: 1, window: LIMIT * 10 }), ..Limits::NONE };
        let sim = sim(Settings { limits, ..settings() }).await;
        let mut first = Client::ready(&sim).await;
        assert!(first.transaction(&["a@example.com"], mail("")).await.starts_with("250"));
        assert!(first.transaction(&["a@example.com"], mail("")).await.starts_with("450 4.5.104"));
        assert!(first.transaction(&["a@contoso.com"], mail("")).await.starts_with("250"));
        let mut second = Client::encrypted(&sim).await;
        second.login("hve02@contoso.com", "battery").await;
        assert_eq!(second.command("MAIL FROM:<hve02@contoso.com>").await, "250 2.1.0 Sender OK");
        second.command("RCPT TO:<a@example.com>").await;
        second.command("DATA").await;
        second.send("From: hve02@contoso.com\r\n\r\n.\r\n").await;
        assert!(second.reply().await.starts_with("250"));
    }

    #[tokio::test]
    async fn a_connection_too_many_may_not_submit_until_another_has_ended() {
        let sim = sim(Settings { limits: Limits { connections: Some(1), ..Limits::NONE }, ..settings() }).await;
        let mut first = Client::ready(&sim).await;
        let mut second = Client::ready(&sim).await;
        let reply = second.transaction(&["a@contoso.com"], mail("")).await;
        assert!(reply.starts_with("432 4.3.2 Concurrent connections limit exceeded."), "{reply}");
        assert!(first.transaction(&["a@contoso.com"], mail("")).await.starts_with("250"));
        first.command("QUIT").await;
        sim.wait_until(|counters| counters.open == 1, LIMIT).await.expect("the first has ended");
        assert!(second.transaction(&["a@contoso.com"], mail("")).await.starts_with("250"));
        assert_eq!(sim.counters().most_open, 2);
    }
}

mod faults {
    use super::*;

    #[tokio::test]
    async fn each_step_can_be_refused() {
        let sim = sim(settings()).await;
        sim.set_faults(vec![
            Fault::reply(Step::Greeting, "554 5.3.2 no").nth(1),
            Fault::reply(Step::Ehlo, "421 4.3.2 later").nth(1),
            Fault::reply(Step::StartTls, "454 4.7.0 not now").nth(1),
            Fault::reply(Step::EhloInTls, "250-me\n250 AUTH PLAIN").nth(1),
            Fault::reply(Step::Auth, "535 5.7.139 blocked").account(USER).nth(1),
            Fault::reply(Step::Mail, "451 4.7.500 busy").nth(1),
            Fault::reply(Step::Rcpt, "451 4.7.500 busy").recipient("x@contoso.com").first(2),
            Fault::reply(Step::Data, "450 4.5.102 no").nth(1),
            Fault::reply(Step::EndOfData, "550 5.7.1 no").nth(1),
        ]);
        let mut client = Client::connect(&sim).await;
        assert_eq!(client.reply().await, "554 5.3.2 no");
        assert_eq!(client.command("EHLO test").await, "421 4.3.2 later");
        assert_eq!(client.rest().await, b"", "421 closes");
        let mut client = Client::connect(&sim).await;
        client.reply().await;
        client.command("EHLO test").await;
        assert_eq!(client.command("STARTTLS").await, "454 4.7.0 not now");
        assert_eq!(client.command("STARTTLS").await, "220 2.0.0 SMTP server ready");
        let mut client = client.handshake(sim.ca_pem(), "localhost").await.expect("a handshake");
        assert_eq!(client.command("EHLO test").await, "250-me\n250 AUTH PLAIN");
        assert_eq!(client.login(USER, PASSWORD).await, "535 5.7.139 blocked");
        assert!(client.login(USER, PASSWORD).await.starts_with("235"));
        let mail_from = format!("MAIL FROM:<{USER}>");
        assert_eq!(client.command(&mail_from).await, "451 4.7.500 busy");
        assert!(client.command(&mail_from).await.starts_with("250"));
        for (recipient, code) in [("y", "250"), ("x", "451"), ("x", "451"), ("x", "250")] {
            assert!(client.command(&format!("RCPT TO:<{recipient}@contoso.com>")).await.starts_with(code), "{recipient} {code}");
        }
        assert_eq!(client.command("DATA").await, "450 4.5.102 no");
        assert_eq!(client.command(&mail_from).await, "503 5.5.2 Sender already specified");
        assert_eq!(client.command("RSET").await, "250 2.0.0 Resetting");
        assert_eq!(client.transaction(&["x@contoso.com"], mail("")).await, "550 5.7.1 no");
        assert!(sim.taken().is_empty());
    }

    #[tokio::test]
    async fn a_reply_that_agrees_stands_for_the_endpoints_own() {
        let sim = sim(settings()).await;
        let mut client = Client::ready(&sim).await;
        sim.set_faults(vec![
            Fault::reply(Step::Mail, "250 any sender"),
            Fault::reply(Step::Rcpt, "251 will forward"),
            Fault::reply(Step::EndOfData, "250 taken unseen"),
        ]);
        assert_eq!(client.command("MAIL FROM:<>").await, "250 any sender");
        assert_eq!(client.command("RCPT TO:<nobody@contoso.com>").await, "251 will forward");
        client.command("DATA").await;
        client.send("no header\r\n.\r\n").await;
        assert_eq!(client.reply().await, "250 taken unseen");
        assert_eq!(sim.taken()[0].reply, "250 taken unseen");
        assert_eq!(sim.taken()[0].recipients.len(), 1);
    }

    #[tokio::test]
    async fn each_step_can_end_the_connection() {
        let sim = sim(settings()).await;
        let steps =
            [Step::Greeting, Step::Ehlo, Step::StartTls, Step::EhloInTls, Step::Auth, Step::Mail, Step::Rcpt, Step::Data, Step::EndOfData];
        for step in steps {
            sim.set_faults(vec![Fault::new(step, Action::Drop)]);
            assert_eq!(reached(&sim).await, Some(step));
        }
        let logins = sim.counters().logins;
        assert_eq!((logins.len(), logins.iter().filter(|login| login.accepted).count()), (5, 4), "the one that was cut short counts");
        sim.set_faults(vec![]);
        assert_eq!(reached(&sim).await, None);
        assert_eq!(sim.counters().messages, 1);
    }

    /// Goes through a whole dialogue; the step at which the connection ended.
    async fn reached(sim: &Sim) -> Option<Step> {
        let mut client = Client::connect(sim).await;
        if client.reply().await.is_empty() {
            return Some(Step::Greeting);
        }
        for (step, line) in [(Step::Ehlo, "EHLO test"), (Step::StartTls, "STARTTLS")] {
            if client.command(line).await.is_empty() {
                return Some(step);
            }
        }
        let mut client = client.handshake(sim.ca_pem(), "localhost").await.expect("a handshake");
        if client.command("EHLO test").await.is_empty() {
            return Some(Step::EhloInTls);
        }
        if client.login(USER, PASSWORD).await.is_empty() {
            return Some(Step::Auth);
        }
        let content = mail("") + ".";
        let from = format!("MAIL FROM:<{USER}>");
        let lines =
            [(Step::Mail, from.as_str()), (Step::Rcpt, "RCPT TO:<a@contoso.com>"), (Step::Data, "DATA"), (Step::EndOfData, &content)];
        for (step, line) in lines {
            if client.command(line).await.is_empty() {
                return Some(step);
            }
        }
        None
    }

    #[tokio::test]
    async fn the_handshake_can_fail_in_every_way() {
        let sim = sim(settings()).await;
        for action in [Action::Drop, Action::Reply("421 4.3.2 no TLS today".into())] {
            sim.set_faults(vec![Fault::new(Step::Tls, action.clone())]);
            assert!(Client::until_starttls(&sim).await.handshake(sim.ca_pem(), "localhost").await.is_err(), "{action:?}");
        }
        sim.set_faults(vec![Fault::new(Step::Tls, Action::Silence)]);
        let client = Client::until_starttls(&sim).await;
        let silent = tokio::time::timeout(Duration::from_millis(50), client.handshake(sim.ca_pem(), "localhost")).await;
        assert!(silent.is_err());
        sim.wait_until(|counters| counters.open == 0, LIMIT).await.expect("it ends with the client");
        assert_eq!((sim.counters().handshakes, sim.counters().logins.len()), (0, 0));
    }

    #[tokio::test]
    async fn plain_text_can_be_injected_behind_the_220() {
        let sim = sim(settings()).await;
        sim.set_faults(vec![Fault::new(Step::StartTls, Action::Inject(b"250-evil\r\n250 AUTH PLAIN\r\n".to_vec()))]);
        let mut client = Client::until_starttls(&sim).await;
        assert_eq!(client.reply().await, "250-evil\n250 AUTH PLAIN");
        let mut client = client.handshake(sim.ca_pem(), "localhost").await.expect("the handshake itself works");
        assert!(client.command("EHLO test").await.starts_with("250-ic3"));
    }

    #[tokio::test]
    async fn plain_text_behind_starttls_is_not_heard() {
        let sim = sim(settings()).await;
        let mut client = Client::connect(&sim).await;
        client.reply().await;
        client.command("EHLO test").await;
        client.send("STARTTLS\r\nEHLO evil\r\n").await;
        assert_eq!(client.rest().await, b"");
        assert_eq!(sim.counters().violations.get(&Violation::PlaintextBehindStartTls), Some(&1));
    }

    #[tokio::test]
    async fn the_connection_ends_within_the_content_at_the_octet() {
        let sim = sim(settings()).await;
        for (after, ends) in [(0, true), (1, true), (100_000, true), (200_000, false)] {
            sim.set_faults(vec![Fault::new(Step::Content { after }, Action::Drop)]);
            let mut client = Client::ready(&sim).await;
            let reply = client.transaction(&["a@contoso.com"], mail(&("x".repeat(150_000) + "\r\n"))).await;
            assert_eq!(reply.is_empty(), ends, "{after}: {reply}");
        }
        assert_eq!(sim.counters().messages, 1);
    }

    #[tokio::test]
    async fn the_content_can_be_cut_short_by_words_or_by_silence() {
        let sim = sim(settings()).await;
        let mut client = Client::ready(&sim).await;
        sim.set_faults(vec![Fault::reply(Step::Content { after: 10 }, "452 4.3.1 disk full")]);
        client.until_content(&["a@contoso.com"]).await;
        client.send(mail("")).await;
        assert_eq!(client.reply().await, "452 4.3.1 disk full");
        assert_eq!(client.rest().await, b"");
        sim.set_faults(vec![Fault::new(Step::Content { after: 10 }, Action::Silence)]);
        let mut client = Client::ready(&sim).await;
        client.until_content(&["a@contoso.com"]).await;
        // More than the sockets' buffers hold: the write cannot end, because nobody reads.
        let blocked = tokio::time::timeout(Duration::from_millis(200), client.send(vec![b'x'; 64 << 20])).await;
        assert!(blocked.is_err());
        sim.down().await;
        assert_eq!(sim.counters().open, 0);
    }

    #[tokio::test]
    async fn a_message_can_be_taken_without_a_reply() {
        let sim = sim(settings()).await;
        sim.set_faults(vec![Fault::new(Step::EndOfData, Action::TakeAndDrop).recipient("x@contoso.com").first(1)]);
        let mut client = Client::ready(&sim).await;
        assert!(client.transaction(&["a@contoso.com"], mail("")).await.starts_with("250"));
        assert_eq!(client.transaction(&["a@contoso.com", "x@contoso.com"], mail("")).await, "");
        assert_eq!(sim.wait_for(2, LIMIT).await.expect("both").len(), 2);
        let mut client = Client::ready(&sim).await;
        assert!(client.transaction(&["x@contoso.com"], mail("")).await.starts_with("250"));
    }

    #[tokio::test]
    async fn silence_lasts_until_the_client_goes() {
        let sim = sim(settings()).await;
        for step in [Step::Mail, Step::EndOfData] {
            let mut client = Client::ready(&sim).await;
            sim.set_faults(vec![Fault::new(step, Action::Silence)]);
            client.send(format!("MAIL FROM:<{USER}>\r\nRCPT TO:<a@contoso.com>\r\nDATA\r\n{}.\r\n", mail(""))).await;
            if step == Step::EndOfData {
                for code in ["250", "250", "354"] {
                    assert!(client.reply().await.starts_with(code));
                }
            }
            assert!(tokio::time::timeout(Duration::from_millis(50), client.reply()).await.is_err());
            drop(client);
            sim.wait_until(|counters| counters.open == 0, LIMIT).await.expect("it ends with the client");
        }
        assert_eq!(sim.counters().messages, 0);
    }

    #[tokio::test]
    async fn a_step_can_take_its_time() {
        let sim = sim(settings()).await;
        let mut client = Client::ready(&sim).await;
        let pause = Duration::from_millis(60);
        sim.set_faults(vec![
            Fault::new(Step::Mail, Action::Delay(pause)).first(1),
            Fault::new(Step::Content { after: 3 }, Action::Delay(pause)),
        ]);
        let begun = Instant::now();
        assert!(client.transaction(&["a@contoso.com"], mail("")).await.starts_with("250"));
        assert!(begun.elapsed() >= pause * 2);
    }
}

mod running {
    use super::*;

    #[tokio::test]
    async fn goes_down_and_comes_back_on_the_same_port() {
        let sim = sim(settings()).await;
        let mut client = Client::ready(&sim).await;
        client.transaction(&["a@contoso.com"], mail("")).await;
        for _ in 0..3 {
            let mut client = Client::ready(&sim).await;
            sim.down().await;
            assert_eq!(client.rest().await, b"");
            assert!(tokio::net::TcpStream::connect(sim.address()).await.is_err());
            assert_eq!(sim.counters().open, 0);
            sim.up().await.expect("the port");
            sim.up().await.expect("nothing to do");
        }
        let mut client = Client::ready(&sim).await;
        assert!(client.transaction(&["a@contoso.com"], mail("")).await.starts_with("250"));
        assert_eq!(sim.taken().len(), 2);
    }

    #[tokio::test]
    async fn stops_when_it_is_dropped() {
        let sim = sim(settings()).await;
        let address = sim.address();
        let mut client = Client::ready(&sim).await;
        drop(sim);
        assert_eq!(client.rest().await, b"");
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn waiting_ends_when_nothing_comes() {
        let sim = sim(settings()).await;
        let limit = Duration::from_millis(5);
        assert_eq!(sim.wait_for(1, limit).await.expect_err("nothing").limit, limit);
    }

    #[tokio::test]
    async fn the_delay_is_that_of_a_network() {
        let delay = Duration::from_millis(30);
        let sim = sim(Settings { delay, ..settings() }).await;
        let mut client = Client::ready(&sim).await;
        let begun = Instant::now();
        for _ in 0..10 {
            client.command("NOOP").await;
        }
        let single = begun.elapsed();
        assert!(single > delay * 10 - Duration::from_millis(4), "{single:?}");
        let begun = Instant::now();
        client.send("RSET\r\n".repeat(10)).await;
        for _ in 0..10 {
            client.reply().await;
        }
        let together = begun.elapsed();
        assert!(together > delay - Duration::from_millis(4) && together < single, "{together:?} for ten, {single:?} one by one");
    }

    #[tokio::test]
    async fn lettre_finds_a_server_that_it_can_use() {
        use lettre::transport::smtp::authentication::{Credentials, Mechanism as Sasl};
        use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
        use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor, address::Envelope};

        let sim = sim(settings()).await;
        let certificate = Certificate::from_pem(sim.ca_pem().as_bytes()).expect("a certificate");
        let tls = TlsParameters::builder("localhost".into()).add_root_certificate(certificate).build_rustls().expect("TLS");
        let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
            .port(sim.address().port())
            .tls(Tls::Required(tls))
            .authentication(vec![Sasl::Login])
            .credentials(Credentials::new(USER.into(), PASSWORD.into()))
            .build();
        let recipients = vec!["a@contoso.com".parse().expect("an address"), "b@example.com".parse().expect("an address")];
        let envelope = Envelope::new(Some(USER.parse().expect("an address")), recipients).expect("an envelope");
        let content = mail(".\r\n..\r\nlast");
        let response = transport.send_raw(&envelope, content.as_bytes()).await.expect("a 250");
        assert!(response.message().any(|line| line.contains("Queued mail for delivery")));
        let taken = sim.wait_for(1, LIMIT).await.expect("a message");
        assert_eq!((taken[0].content.as_ref(), taken[0].recipients.len()), ((content + "\r\n").as_bytes(), 2));
        assert!(taken[0].violations.is_empty());
        assert_eq!(sim.counters().refused(""), 0);
    }
}
