//! End to end: kill -9, restarts, orderly ends, full disks. Nothing acknowledged is lost.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hve_relay::sim::{Action, Fault, Step};
use support::client::{Client, stuffed};
use support::relay::{PATIENCE, Relay};
use support::{World, field, mail, resident};

const TO: &[&str] = &["you@contoso.com"];

#[test]
fn every_message_acknowledged_before_kill_9_arrives_after_the_restart() {
    let mut world = World::new(3);
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    for round in 0..3 {
        let address = world.relay.address;
        let over = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..8)
            .map(|sender| {
                let (acknowledged, over) = (acknowledged.clone(), over.clone());
                std::thread::spawn(move || {
                    let mut client = Client::hello(address);
                    for n in 0.. {
                        let subject = format!("r{round}s{sender}n{n}");
                        // Small ones live in the database, large ones in files.
                        let size = if n % 5 == 0 { 60_000 } else { 500 };
                        let content = mail(&subject, &[b"k".repeat(size), b"\r\n".to_vec()].concat());
                        match client.try_send("app@contoso.com", TO, &content) {
                            Some(reply) if reply.starts_with("250 ") => {
                                acknowledged.lock().expect("set").insert(subject);
                            }
                            Some(reply) => panic!("{reply}"),
                            None => return,
                        }
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                })
            })
            .collect();
        let wanted = 150 * (round + 1);
        support::until("a burst", || acknowledged.lock().expect("set").len() >= wanted);
        world = world.crash_and_restart(|_| {});
        over.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|sender| sender.join().expect("a sender"));
    }
    let expected = acknowledged.lock().expect("set").clone();
    let mut arrived = BTreeSet::new();
    support::until("all of them", || {
        arrived = world.sim.taken().iter().flat_map(|taken| field(taken, "Subject")).collect();
        expected.is_subset(&arrived)
    });
    world.relay.stop();
}

#[test]
fn an_attempt_cut_off_by_kill_9_is_in_doubt_and_made_again() {
    let world = World::new(1);
    world.faults([Fault::new(Step::EndOfData, Action::Silence)]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("cut", b"text\r\n"));
    world.runtime.block_on(world.sim.wait_until(|seen| seen.command("DATA") == 1, PATIENCE)).expect("the attempt is under way");
    let world = world.crash_and_restart(|world| world.faults([]));
    world.relay.wait_for("the doubt", |line| line["event"] == "in-doubt" && line["queue_id"] == id.as_str());
    assert_eq!(field(&world.taken(1)[0], "Subject"), ["cut"]);
    world.removed(&id);
}

#[test]
fn an_orderly_end_keeps_what_is_queued_and_says_so() {
    let mut world = World::new(1);
    world.runtime.block_on(world.sim.down());
    let mut client = world.client();
    for n in 0..5 {
        client.accepted("app@contoso.com", TO, &mail(&format!("n{n}"), b"text\r\n"));
    }
    world.relay.signal("TERM");
    assert!(world.relay.ended().success());
    assert_eq!(world.relay.wait_for("the end", |line| line["event"] == "stopped")["queued"], 5);
    world.runtime.block_on(world.sim.up()).expect("up");
    world.relay = Relay::start(&world.setup.folder().join("hve-relay.toml"));
    world.taken(5);
    world.relay.stop();
}

#[test]
fn when_stopping_an_open_transaction_ends_and_the_next_gets_421() {
    let mut world = World::new(1);
    let mut busy = world.client();
    let mut idle = world.client();
    busy.expect("MAIL FROM:<app@contoso.com>", "250");
    busy.expect("RCPT TO:<you@contoso.com>", "250");
    busy.expect("DATA", "354");
    busy.raw(b"Subject: last\r\n\r\nhalf");
    world.relay.signal("INT");
    world.relay.wait_for("the signal", |line| line["event"] == "stopping");
    let farewell = idle.reply();
    assert!(farewell.starts_with("421 4.3.2"), "{farewell}");
    busy.raw(b" and half\r\n.\r\n");
    let kept = busy.reply();
    assert!(kept.starts_with("250 2.0.0"), "{kept}");
    let farewell = busy.reply();
    assert!(farewell.starts_with("421 4.3.2"), "{farewell}");
    assert!(world.relay.ended().success());
    world.relay = Relay::start(&world.setup.folder().join("hve-relay.toml"));
    assert_eq!(field(&world.taken(1)[0], "Subject"), ["last"]);
}

#[test]
fn a_second_signal_ends_at_once_without_loss() {
    let mut world = World::new(1);
    world.faults([Fault::new(Step::EndOfData, Action::Silence)]);
    let _open = world.client();
    world.client().accepted("app@contoso.com", TO, &mail("kept", b"text\r\n"));
    world.runtime.block_on(world.sim.wait_until(|seen| seen.command("DATA") == 1, PATIENCE)).expect("the attempt is under way");
    world.relay.signal("TERM");
    world.relay.wait_for("the signal", |line| line["event"] == "stopping");
    world.relay.signal("TERM");
    let status = world.relay.ended();
    assert!(status.success(), "{status}");
    world.faults([]);
    world.relay = Relay::start(&world.setup.folder().join("hve-relay.toml"));
    assert_eq!(field(&world.taken(1)[0], "Subject"), ["kept"]);
}

#[test]
fn of_two_relays_on_one_data_directory_the_second_names_the_first() {
    let world = World::new(1);
    let mut second = Relay::spawn(&world.setup.folder().join("hve-relay.toml"));
    assert_eq!(second.ended().code(), Some(74));
    let said = second.log_text();
    assert!(said.contains(&world.relay.pid().to_string()) && said.contains("data"), "{said}");
    world.relay.stop();
}

#[test]
fn a_disk_without_room_refuses_before_data_and_loses_nothing() {
    let world = World::with(1, |_| {}, |setup| setup.queue("free_space_reserve = \"1024 GiB\""));
    let mut client = world.client();
    client.expect("MAIL FROM:<app@contoso.com>", "250");
    client.expect("RCPT TO:<you@contoso.com>", "250");
    client.expect("DATA", "452 4.3.1");
    client.expect("NOOP", "250");
    world.relay.wait_for("the alarm", |line| line["event"] == "disk-low");
}

#[test]
fn a_stranger_is_told_once_and_let_go() {
    let world = World::with(1, |_| {}, |setup| setup.networks("10.0.0.0/8"));
    let (mut client, greeting) = Client::greeted(world.relay.address);
    assert!(greeting.starts_with("554 5.7.1 ") && greeting.contains("127.0.0.1"), "{greeting}");
    assert!(client.closed());
}

#[test]
fn memory_does_not_grow_with_a_messages_size() {
    let world = World::new(1);
    world.runtime.block_on(world.sim.down());
    let scan = mail("scan", &b"0123456789012345678901234567890123456789012345678901234567890123456789012345\r\n".repeat(120_000));
    world.client().accepted("app@contoso.com", TO, &mail("warm-up", &b"w\r\n".repeat(40_000)));
    let before = resident(world.relay.pid());
    // Twenty at once, each held open before its last line.
    let mut clients: Vec<Client> = (0..20).map(|_| world.client()).collect();
    let octets = stuffed(&scan);
    for client in &mut clients {
        client.expect("MAIL FROM:<app@contoso.com>", "250");
        client.expect("RCPT TO:<you@contoso.com>", "250");
        client.expect("DATA", "354");
        client.raw(&octets[..octets.len() - 5]);
    }
    let during = resident(world.relay.pid());
    for client in &mut clients {
        client.raw(&octets[octets.len() - 5..]);
        let reply = client.reply();
        assert!(reply.starts_with("250 "), "{reply}");
    }
    let grown = during.saturating_sub(before);
    assert!(grown < 20 * 1_500_000, "twenty messages of 9 MB took {grown} octets of memory");
}

#[test]
fn a_burst_of_short_lived_connections_is_served() {
    let world = World::new(2);
    let address = world.relay.address;
    let threads: Vec<_> = (0..10)
        .map(|sender| {
            std::thread::spawn(move || {
                for n in 0..20 {
                    // One message a connection, and gone without QUIT.
                    Client::hello(address).accepted("app@contoso.com", TO, &mail(&format!("s{sender}n{n}"), b"text\r\n"));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a sender"));
    let taken = world.taken(200);
    let subjects: BTreeSet<String> = taken.iter().flat_map(|taken| field(taken, "Subject")).collect();
    assert_eq!(subjects.len(), 200);
}
