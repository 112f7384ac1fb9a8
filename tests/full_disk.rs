//! End to end: the disk is full at each point of a message's way. Clients hear 452, nothing that was acknowledged is lost or sent twice, what
//! the endpoint took is recorded, and service resumes by itself.
//!
//! The data directory is a small file system of the relay's own, in a mount namespace that the test fills and empties from outside.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::client::Client;
use support::relay::Relay;
use support::{World, endpoint, field, mail, runtime, setup, until};

/// A file system in memory. It lasts as long as this does, however many relays come and go.
struct Disk {
    /// Holds the namespace.
    holder: Child,
    dir: PathBuf,
}

impl Disk {
    /// Mounts one at `dir`, if this system lets users mount.
    fn mount(dir: &Path, options: &str) -> Option<Self> {
        fs::create_dir(dir).expect("a new directory");
        let script = "mount -t tmpfs -o \"$1,mode=0700\" tmpfs \"$0\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .arg(dir)
            .arg(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = String::new();
        let read = BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut said);
        let disk = Self { holder, dir: dir.to_owned() };
        (read.is_ok() && said == "mounted\n").then_some(disk)
    }

    /// The relay's binary, inside.
    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "--user", "--mount", "--target", &self.holder.id().to_string()]);
        command.arg(env!("CARGO_BIN_EXE_hve-relay")).stdin(Stdio::null());
        command
    }

    /// Where it is seen from outside.
    fn root(&self) -> PathBuf {
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(self.dir.strip_prefix("/").expect("absolute"))
    }

    /// Leaves so many octets.
    fn fill(&self, left: u64) {
        let mut filler = fs::OpenOptions::new().create(true).append(true).open(self.root().join("filler")).expect("a file");
        while filler.write_all(&[0; 64 << 10]).is_ok() {}
        while filler.write_all(&[0; 512]).is_ok() {}
        let filled = filler.metadata().expect("its size").len();
        filler.set_len(filled - left).expect("cut");
    }

    fn empty(&self) {
        fs::remove_file(self.root().join("filler")).expect("there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A world whose relay keeps its mail on a small disk.
fn world(options: &str, reserve: &str) -> Option<(World, Disk)> {
    let runtime = runtime();
    let sim = endpoint(&runtime, 1, |_| {});
    let setup =
        setup(&sim, 1).queue(&format!("free_space_reserve = \"{reserve}\"")).with("[limits]\nerrors = 10000\ntransactions = 1000000");
    let config = setup.write();
    let Some(disk) = Disk::mount(&setup.data_dir(), options) else {
        eprintln!("this system does not let users mount; the unit tests of the store cover a full disk");
        return None;
    };
    let relay = Relay::spawn_by(disk.command(), &config).ready();
    Some((World { runtime, sim, setup, relay }, disk))
}

/// What was answered with 250.
#[derive(Default)]
struct Acknowledged(BTreeSet<String>);

impl Acknowledged {
    /// Sends a message; returns where it was refused, if it was.
    fn send(&mut self, client: &mut Client, subject: &str, body: &[u8]) -> Result<(), String> {
        let begun = begin(client);
        if !begun.starts_with("354") {
            return Err(format!("DATA: {begun}"));
        }
        client.raw(&mail(subject, body));
        self.end(client, subject)
    }

    /// Ends a message that was begun.
    fn end(&mut self, client: &mut Client, subject: &str) -> Result<(), String> {
        let reply = client.command(".");
        if reply.starts_with("250 2.0.0") {
            self.0.insert(subject.to_owned());
            return Ok(());
        }
        Err(format!("end: {reply}"))
    }

    /// Until a message is taken, and the first answer that was no refusal for want of room.
    fn until_taken(&mut self, client: &mut Client, subject: &str) {
        until("room", || match self.send(client, subject, b"text\r\n") {
            Ok(()) => true,
            Err(refusal) => {
                assert!(refusal.contains(": 452 4.3.1"), "{refusal}");
                false
            }
        });
    }

    /// Until the relay knows that there is no room: it looks once a second.
    fn until_refused_at_data(&mut self, client: &mut Client, subject: &str) {
        let mut number = 0;
        until("the refusal", || {
            number += 1;
            match self.send(client, &format!("{subject}{number}"), b"text\r\n") {
                Ok(()) => false,
                Err(refusal) if refusal.starts_with("DATA: 452 4.3.1") => true,
                Err(refusal) => {
                    assert!(refusal.starts_with("end: 452 4.3.1"), "{refusal}");
                    false
                }
            }
        });
    }

    /// Each of them has arrived, and nothing else has, and nothing twice.
    fn arrived(&self, world: &World) {
        world.taken(self.0.len() as u64);
        world.relay.wait_for_all("the ends", self.0.len(), |line| line["event"] == "removed");
        let subjects: Vec<String> = world.sim.taken().iter().flat_map(|taken| field(taken, "Subject")).collect();
        assert_eq!(subjects.len(), self.0.len(), "{subjects:?}");
        assert_eq!(subjects.into_iter().collect::<BTreeSet<_>>(), self.0);
    }
}

/// Up to the reply to DATA.
fn begin(client: &mut Client) -> String {
    client.expect("MAIL FROM:<app@contoso.com>", "250");
    client.expect("RCPT TO:<you@contoso.com>", "250");
    client.command("DATA")
}

#[test]
fn a_disk_that_fills_at_any_point_of_a_message_refuses_it_and_loses_nothing() {
    let Some((world, disk)) = world("size=64m", "1 MiB") else { return };
    let mut acknowledged = Acknowledged::default();
    let (mut client, mut other) = (world.client(), world.client());
    acknowledged.until_taken(&mut client, "first");

    // Before MAIL: nothing but DATA minds.
    disk.fill(0);
    acknowledged.until_refused_at_data(&mut other, "probe");
    let refused = acknowledged.send(&mut client, "before", b"text\r\n").expect_err("a full disk");
    assert!(refused.starts_with("DATA: 452 4.3.1 Not enough disk space"), "{refused}");
    client.expect("NOOP", "250");
    world.relay.wait_for("the alarm", |line| line["event"] == "disk-low");
    disk.empty();
    acknowledged.until_taken(&mut client, "after-it");

    // In the middle of a content that is held in memory, and of one that is not.
    for (subject, before, after) in [("small", 1, 100), ("large", 50_000, 50_000)] {
        let begun = begin(&mut client);
        assert!(begun.starts_with("354"), "{begun}");
        client.raw(&mail(subject, &b"0123456789\r\n".repeat(before)));
        disk.fill(0);
        acknowledged.until_refused_at_data(&mut other, &format!("{subject}-probe"));
        client.raw(&b"0123456789\r\n".repeat(after));
        let refused = acknowledged.end(&mut client, subject).expect_err("a full disk");
        assert!(refused.starts_with("end: 452 4.3.1"), "{subject}: {refused}");
        disk.empty();
        acknowledged.until_taken(&mut client, &format!("{subject}-again"));
    }
    acknowledged.arrived(&world);
    until("an empty directory", || {
        let shelves = fs::read_dir(disk.root().join("content")).expect("the directory").flatten();
        shelves.flat_map(|shelf| fs::read_dir(shelf.path()).expect("a shelf")).count() == 0
    });
    // What became of it all is known again too.
    until("the past", || {
        let traced = disk.command().args(["trace", "large-again", "--config"]).arg(world.setup.folder().join("hve-relay.toml")).output();
        traced.is_ok_and(|traced| traced.status.success())
    });
    world.relay.stop();
}

#[test]
fn a_disk_that_is_full_at_the_commit_refuses_the_message_and_the_next_is_taken() {
    // Nothing is kept free, so that nothing but the commit itself finds out.
    let Some((world, disk)) = world("size=64m", "0") else { return };
    let mut acknowledged = Acknowledged::default();
    let mut client = world.client();
    world.runtime.block_on(world.sim.down());
    let mut refusals = BTreeSet::new();
    for left in (0..40).map(|pages| pages * 4_096) {
        disk.fill(left);
        let subject = format!("left-{left}");
        let body = b"0123456789\r\n".repeat(2_000);
        if let Err(refusal) = acknowledged.send(&mut client, &subject, &body) {
            assert!(refusal.contains(": 452 4.3.1"), "{left}: {refusal}");
            refusals.insert(refusal.split_once(':').expect("a place").0.to_owned());
        }
        disk.empty();
    }
    assert!(refusals.contains("end"), "{refusals:?}");
    acknowledged.until_taken(&mut client, "room-again");
    world.runtime.block_on(world.sim.up()).expect("up");
    acknowledged.arrived(&world);
    world.relay.stop();
}

#[test]
fn deliveries_are_recorded_on_a_full_disk_and_nothing_is_sent_twice_after_a_crash() {
    let Some((mut world, disk)) = world("size=64m", "1 MiB") else { return };
    let mut acknowledged = Acknowledged::default();
    world.runtime.block_on(world.sim.down());
    let mut client = world.client();
    for n in 0..300 {
        let body = b"0123456789\r\n".repeat(if n % 10 == 0 { 5_000 } else { 50 });
        acknowledged.send(&mut client, &format!("queued-{n}"), &body).expect("room");
    }
    disk.fill(0);
    world.runtime.block_on(world.sim.up()).expect("up");
    acknowledged.arrived(&world);
    // What has left gives its room back; that is taken as well.
    disk.fill(0);
    world.relay.kill();
    world.relay = Relay::spawn_by(disk.command(), &world.setup.folder().join("hve-relay.toml")).ready();
    let started = world.relay.wait_for("started", |line| line["event"] == "started");
    assert_eq!((&started["queued"], &started["in_doubt"]), (&0.into(), &0.into()), "{started}");
    let mut client = world.client();
    disk.empty();
    acknowledged.until_taken(&mut client, "after-the-crash");
    world.taken(acknowledged.0.len() as u64);
    world.relay.stop();
}

#[test]
fn without_inodes_mail_is_refused_and_deliveries_go_on() {
    let Some((world, disk)) = world("size=64m,nr_inodes=600", "1 MiB") else { return };
    let mut acknowledged = Acknowledged::default();
    let mut client = world.client();
    world.runtime.block_on(world.sim.down());
    let large = b"0123456789\r\n".repeat(10_000);
    acknowledged.send(&mut client, "queued", &large).expect("room");
    let made = (0..).take_while(|n| fs::File::create(disk.root().join(format!("empty-{n}"))).is_ok()).count();
    acknowledged.until_refused_at_data(&mut client, "probe");
    world.runtime.block_on(world.sim.up()).expect("up");
    acknowledged.arrived(&world);
    for n in 0..made {
        fs::remove_file(disk.root().join(format!("empty-{n}"))).expect("there");
    }
    acknowledged.until_taken(&mut client, "after-it");
    acknowledged.send(&mut client, "large-after-it", &large).expect("room");
    acknowledged.arrived(&world);
    world.relay.stop();
}

#[test]
fn what_is_brought_in_waits_for_room_and_comes_by_the_same_command() {
    let Some((world, disk)) = world("size=64m", "1 MiB") else { return };
    let config = world.setup.folder().join("hve-relay.toml");
    let run = |line: &str| disk.command().args(line.split(' ')).arg("--config").arg(&config).output().expect("it runs");
    let mut acknowledged = Acknowledged::default();
    world.runtime.block_on(world.sim.down());
    let mut client = world.client();
    for n in 0..20 {
        let body = b"0123456789\r\n".repeat(if n % 2 == 0 { 5_000 } else { 50 });
        acknowledged.send(&mut client, &format!("queued-{n}"), &body).expect("room");
    }
    // On the other side of the small disk.
    let folder = world.setup.folder().join("mail").display().to_string();
    assert!(run(&format!("queue export --all --to {folder}")).status.success());
    assert!(run("queue remove --all --yes").status.success());
    disk.fill(0);
    acknowledged.until_refused_at_data(&mut client, "probe");
    let refused = |line: &str| {
        let output = run(line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(69), "{said}");
        assert!(said.contains("not enough disk space") && said.contains("the same command once more"), "{said}");
    };
    let line = format!("queue import {folder} --in-doubt resend");
    refused(&line);
    disk.empty();
    until("room", || run(&line).status.success());
    world.runtime.block_on(world.sim.up()).expect("up");
    acknowledged.arrived(&world);
    world.relay.stop();
}
