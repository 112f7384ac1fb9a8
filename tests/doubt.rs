//! End to end: mail that the endpoint may have although it did not say so is never sent again before that is recorded, and not at all before
//! an operator says so where it is to be held.

mod support;

use std::process::{Command, Output};

use hve_relay::sim::{Action, Fault, Step};
use serde_json::Value;
use support::relay::PATIENCE;
use support::{World, field, mail, until};

const TO: &[&str] = &["you@contoso.com"];

fn operate(world: &World, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hve-relay"));
    command.args(line.split(' ')).arg("--config").arg(world.setup.folder().join("hve-relay.toml"));
    command.output().expect("the binary")
}

fn json(world: &World, line: &str) -> Value {
    let said = operate(world, &format!("{line} --json"));
    assert!(said.status.success(), "{said:?}");
    serde_json::from_slice(&said.stdout).expect("JSON")
}

fn done(world: &World, line: &str) {
    let said = operate(world, line);
    assert!(said.status.success(), "{said:?}");
}

/// The one delivery of a message, once it waits for that.
fn waiting(world: &World, id: &str, reason: &str) -> Value {
    let mut found = Value::Null;
    until(reason, || {
        found = json(world, &format!("queue show {id}"))["deliveries"][0].clone();
        found["waits_for"] == reason
    });
    found
}

fn counted(world: &World) -> u64 {
    json(world, "status")["in_doubt"].as_u64().expect("a number")
}

fn about(event: &str, id: &str) -> impl Fn(&Value) -> bool {
    let (event, id) = (event.to_owned(), id.to_owned());
    move |line| line["event"] == event.as_str() && line["queue_id"] == id.as_str()
}

#[test]
fn what_is_in_doubt_is_sent_again_and_its_trace_stays() {
    let world = World::with(1, |_| {}, |setup| setup.patient());
    world.faults([Fault::new(Step::EndOfData, Action::TakeAndDrop).first(1)]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("twice", b"text\r\n"));
    world.relay.wait_for("the doubt", about("in-doubt", &id));
    let delivery = waiting(&world, &id, "deferred");
    assert_eq!((delivery["doubts"].as_u64(), delivery["held"].as_bool()), (Some(1), Some(false)), "{delivery}");
    assert!(delivery["last_reply"].as_str().is_some_and(|text| text.starts_with("in doubt: ")), "{delivery}");
    assert!(String::from_utf8_lossy(&operate(&world, &format!("queue show {id}")).stdout).contains("1 attempt may have delivered it"));
    assert_eq!(counted(&world), 1);
    assert!(String::from_utf8_lossy(&operate(&world, "status").stdout).contains("in doubt: 1 attempt since the start"));
    done(&world, &format!("queue retry {id}"));
    let taken = world.taken(2);
    assert_eq!(field(&taken[0], "Message-ID"), field(&taken[1], "Message-ID"));
    world.removed(&id);
}

#[test]
fn what_is_in_doubt_is_held_until_an_operator_releases_or_removes_it() {
    let world = World::with(1, |_| {}, |setup| setup.queue("in_doubt = \"hold\""));
    world.faults([Fault::new(Step::EndOfData, Action::TakeAndDrop).first(2)]);
    let ids = ["one", "two"].map(|subject| world.client().accepted("app@contoso.com", TO, &mail(subject, b"text\r\n")));
    for id in &ids {
        world.relay.wait_for("the doubt", about("in-doubt-held", id));
        let delivery = waiting(&world, id, "held");
        assert!(delivery["reason"].as_str().is_some_and(|text| text.starts_with("in doubt: the attempt on hve01@")), "{delivery}");
        assert!(delivery["advice"].as_str().is_some_and(|text| text.contains("queue release")), "{delivery}");
        assert_eq!(delivery["doubts"], 1);
    }
    // It stays so over a restart, and no other mail waits for it.
    let world = world.crash_and_restart(|_| {});
    let next = world.client().accepted("app@contoso.com", TO, &mail("next", b"text\r\n"));
    world.removed(&next);
    assert_eq!(world.sim.counters().messages, 3, "the two were taken once");
    assert_eq!(world.relay.logged(about("in-doubt-held", &ids[0])).len(), 0, "it is known");
    waiting(&world, &ids[0], "held");
    done(&world, &format!("queue release {}", ids[0]));
    world.removed(&ids[0]);
    assert_eq!(field(&world.taken(4)[3], "Subject"), ["one"]);
    done(&world, &format!("queue remove {} --yes", ids[1]));
    assert_eq!(json(&world, "status")["queue"]["held"], 0);
    assert_eq!(world.sim.counters().messages, 4);
}

#[test]
fn an_attempt_that_a_crash_cut_off_is_held_until_it_is_released() {
    let world = World::with(1, |_| {}, |setup| setup.queue("in_doubt = \"hold\""));
    world.faults([Fault::new(Step::EndOfData, Action::Silence)]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("cut", b"text\r\n"));
    world.runtime.block_on(world.sim.wait_until(|seen| seen.command("DATA") == 1, PATIENCE)).expect("the attempt is under way");
    let world = world.crash_and_restart(|world| world.faults([]));
    world.relay.wait_for("the doubt", about("in-doubt-held", &id));
    assert_eq!(world.relay.wait_for("the start", |line| line["event"] == "started")["in_doubt"], 1);
    assert_eq!((waiting(&world, &id, "held")["doubts"].as_u64(), counted(&world)), (Some(1), 1));
    // Once more: it is held, not in doubt again.
    let world = world.crash_and_restart(|_| {});
    assert_eq!(world.relay.wait_for("the start", |line| line["event"] == "started")["in_doubt"], 0);
    assert_eq!((waiting(&world, &id, "held")["doubts"].as_u64(), counted(&world)), (Some(1), 0));
    assert_eq!(world.sim.counters().messages, 0);
    done(&world, &format!("queue release {id}"));
    assert_eq!(field(&world.taken(1)[0], "Subject"), ["cut"]);
    world.removed(&id);
}

#[test]
fn a_client_may_have_its_own_way_with_doubt() {
    let world = World::with(1, |_| {}, |setup| setup.queue("in_doubt = \"hold\"").client("in_doubt = \"resend\""));
    world.faults([Fault::new(Step::EndOfData, Action::TakeAndDrop).first(1)]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("twice", b"text\r\n"));
    world.taken(2);
    world.removed(&id);
    assert_eq!((world.relay.logged(about("in-doubt", &id)).len(), world.relay.logged(about("in-doubt-held", &id)).len()), (1, 0));
}
