//! End to end: the four ways in which a message goes out, by what the endpoint offers, and the doubt that each may leave behind.

mod support;

use hve_relay::sim::{Action, Extension, Fault, Step};
use support::relay::PATIENCE;
use support::{World, body, field, mail};

const TO: &[&str] = &["you@contoso.com", "me@contoso.com"];

/// What is offered, and the verb that the content comes with.
const MODES: &[(&[Extension], &str)] = &[
    (&[], "DATA"),
    (&[Extension::Pipelining], "DATA"),
    (&[Extension::Chunking], "BDAT"),
    (&[Extension::Pipelining, Extension::Chunking], "BDAT"),
];

fn world(offered: &[Extension]) -> World {
    // Without 8BITMIME, 8-bit content would be counted against the relay.
    let offered = [offered, &[Extension::EightBitMime]].concat();
    World::with(1, |settings| settings.extensions = offered, |setup| setup)
}

#[test]
fn content_arrives_octet_for_octet_in_every_mode() {
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"one line\r\n".to_vec(),
        b".\r\n..\r\n.hidden\r\n\r\n.\r\n".to_vec(),
        b"\xe4\xf6\xfc and \xf0\x9f\x93\xa0\r\n".to_vec(),
        // Behind a line with a dot, what looks like a command; in a file; and more than goes along with the envelope.
        [b"x".repeat(40_000), b"\r\n.\r\nQUIT\r\n".to_vec()].concat(),
        b"0123456789\r\n.0123456789\r\n".repeat(60_000),
    ];
    for (offered, verb) in MODES {
        let world = world(offered);
        let mut client = world.client();
        for (n, body) in bodies.iter().enumerate() {
            client.accepted("app@contoso.com", TO, &mail(&format!("n{n}"), body));
        }
        let taken = world.taken(bodies.len() as u64);
        for taken in &taken {
            let n: usize = field(taken, "Subject")[0][1..].parse().expect("a number");
            assert!(body(taken) == bodies[n], "{offered:?}: the body of message {n}");
            assert_eq!(taken.recipients.iter().map(|m| m.as_str()).collect::<Vec<_>>(), TO);
        }
        let counters = world.sim.counters();
        assert_eq!(counters.violations.len(), 0, "{offered:?}: {counters:?}");
        assert_eq!(counters.refused(""), 0, "{offered:?}: {counters:?}");
        assert_eq!((counters.command(verb), counters.command("RSET")), (bodies.len() as u64, 0), "{offered:?}");
    }
}

#[test]
fn an_extension_that_is_ignored_is_not_used() {
    let all = vec![Extension::Pipelining, Extension::Chunking];
    let ignored = "ehlo_keywords_ignored = [\"CHUNKING\"]";
    let world = World::with(1, |settings| settings.extensions = all, |setup| setup.route(ignored));
    world.client().accepted("app@contoso.com", TO, &mail("old", b"text\r\n"));
    world.taken(1);
    assert_eq!((world.sim.counters().command("DATA"), world.sim.counters().command("BDAT")), (1, 0));
}

#[test]
fn a_refused_recipient_fails_alone_although_the_content_went_along() {
    let world = world(MODES[3].0);
    let id = world.client().accepted("app@contoso.com", &["a@contoso.com", "nobody@contoso.com"], &mail("partial", b"text\r\n"));
    let taken = world.taken(2);
    let original = taken.iter().find(|taken| field(taken, "Subject") == ["partial"]).expect("the message");
    assert_eq!(original.recipients.iter().map(|m| m.as_str()).collect::<Vec<_>>(), ["a@contoso.com"]);
    world.removed(&id);

    // Nobody is left: the content is refused, and the connection serves the next message.
    let nobody = world.client().accepted("", &["nobody@contoso.com"], &mail("none", b"text\r\n"));
    world.removed(&nobody);
    let next = world.client().accepted("app@contoso.com", TO, &mail("next", b"text\r\n"));
    world.removed(&next);
    let counters = world.sim.counters();
    assert_eq!((counters.connections, counters.refused("503 5.5.2 Need rcpt command"), counters.messages), (1, 1, 3));
}

#[test]
fn what_is_asked_of_notices_is_passed_on_where_that_is_offered() {
    for (offered, wanted) in [
        (vec![Extension::Pipelining], vec![]),
        (vec![Extension::Dsn], vec!["RET=HDRS", "ENVID=run+207", "NOTIFY=FAILURE", "ORCPT=rfc822;boss+2B1@contoso.com"]),
    ] {
        let world = World::with(1, |settings| settings.extensions = offered, |setup| setup);
        let mut client = world.client();
        client.expect("MAIL FROM:<app@contoso.com> ENVID=run+207 RET=HDRS", "250");
        client.expect("RCPT TO:<you@contoso.com> ORCPT=rfc822;boss+2B1@contoso.com NOTIFY=FAILURE", "250");
        client.expect("RCPT TO:<me@contoso.com>", "250");
        client.expect("DATA", "354");
        client.raw(&[mail("asked", b"text\r\n"), b".\r\n".to_vec()].concat());
        assert!(client.reply().starts_with("250 "));
        assert_eq!(world.taken(1)[0].dsn, wanted);
    }
}

#[test]
fn a_connection_lost_at_any_step_loses_nothing_in_any_mode() {
    for (offered, _) in MODES {
        for step in [Step::Mail, Step::Rcpt, Step::Content { after: 10 }, Step::EndOfData] {
            let world = world(offered);
            world.faults([Fault::new(step, Action::Drop).first(2)]);
            let id = world.client().accepted("app@contoso.com", TO, &mail("kept", b"a text of more than ten octets\r\n"));
            world.taken(1);
            world.removed(&id);
            assert_eq!(world.sim.counters().messages, 1, "{offered:?}, {step:?}: exactly one copy");
            assert_eq!(world.relay.logged(|line| line["status"] == "bounced").len(), 0);
            // With the content on its way behind MAIL, nobody knows what became of it.
            let along = offered.len() == 2;
            let doubtful = (along || step == Step::EndOfData) || matches!(step, Step::Content { .. });
            let doubts = world.relay.logged(|line| line["event"] == "in-doubt").len();
            assert_eq!(doubts, if doubtful { 2 } else { 0 }, "{offered:?}, {step:?}");
        }
    }
}

#[test]
fn an_attempt_cut_off_by_kill_9_is_made_again_in_every_mode() {
    for (offered, verb) in MODES {
        let world = world(offered);
        world.faults([Fault::new(Step::EndOfData, Action::Silence)]);
        let id = world.client().accepted("app@contoso.com", TO, &mail("cut", b"text\r\n"));
        world.runtime.block_on(world.sim.wait_until(|seen| seen.command(verb) == 1, PATIENCE)).expect("the attempt is under way");
        let world = world.crash_and_restart(|world| world.faults([]));
        world.relay.wait_for("the doubt", |line| line["event"] == "in-doubt" && line["queue_id"] == id.as_str());
        assert_eq!(field(&world.taken(1)[0], "Subject"), ["cut"]);
        world.removed(&id);
    }
}
