//! Routes, end to end: what goes where, over which protection, and what clients are told where there is no way.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use hve_relay::mail::QueueId;
use hve_relay::sim::{
    Account, Action, Extension, Fault, Identity, Limits, Mechanism, Profile, Security, Senders, Settings, Sim, Step, Taken,
};
use support::client::Client;
use support::relay::{PATIENCE, Relay, Setup};
use support::{PASSWORD, World, body, field, mail, runtime};
use tokio::runtime::Runtime;

/// Another server than High Volume Email.
struct Other {
    // In this order, so that it stops before its runtime does.
    sim: Sim,
    runtime: Runtime,
}

impl Other {
    /// One that knows its clients by their address and takes any sender; `change` adapts it.
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            mechanisms: Vec::new(),
            senders: Senders::Anybody,
            limits: Limits::NONE,
            size_limit: 36 << 20,
            max_recipients: 500,
            extensions: vec![Extension::Pipelining, Extension::EightBitMime, Extension::SmtpUtf8],
            ..Settings::default()
        };
        change(&mut settings);
        let runtime = runtime();
        let sim = runtime.block_on(Sim::start(settings)).expect("the endpoint starts");
        Self { sim, runtime }
    }

    /// The beginning of its `[[route]]`: name, kind and server.
    fn route(&self, setup: &Setup, name: &str, kind: &str) -> String {
        let ca = file(setup, &format!("{name}-ca.pem"), self.sim.ca_pem());
        format!("{}tls_ca_file = \"{ca}\"\n", self.route_in_clear(name, kind))
    }

    /// The same without certificates.
    fn route_in_clear(&self, name: &str, kind: &str) -> String {
        format!("[[route]]\nname = \"{name}\"\nkind = \"{kind}\"\nhost = \"127.0.0.1\"\nport = {}\n", self.sim.address().port())
    }

    fn taken(&self, messages: u64, relay: &Relay) -> Vec<Taken> {
        match self.runtime.block_on(self.sim.wait_for(messages, PATIENCE)) {
            Ok(taken) => taken,
            Err(error) => panic!("{error}\n{}", relay.log_text()),
        }
    }
}

/// Writes a file that only the relay can read.
fn file(setup: &Setup, name: &str, text: &str) -> String {
    let path = setup.folder().join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode set");
    path.display().to_string()
}

fn recipients(taken: &[Taken]) -> Vec<String> {
    let mut all: Vec<String> = taken.iter().flat_map(|taken| &taken.recipients).map(ToString::to_string).collect();
    all.sort();
    all
}

fn of_size(octets: usize) -> Vec<u8> {
    let mut content = mail("large", b"");
    while content.len() < octets {
        content.extend_from_slice(b"all work and no play makes a dull scan, and all work and no play makes\r\n");
    }
    content
}

#[test]
fn one_message_travels_both_ways_and_each_recipient_gets_it_once() {
    let other = Other::new(|_| {});
    let world = World::with(
        2,
        |_| {},
        |setup| {
            let connector = other.route(&setup, "connector", "connector");
            setup.takes("internal").with(&connector)
        },
    );
    let to = ["a@contoso.com", "b@fabrikam.example", "c@contoso.com", "d@northwind.example"];
    let id = world.client().accepted("app@contoso.com", &to, &mail("mixed", b"text\r\n"));
    world.removed(&id);
    let (inside, outside) = (world.taken(1), other.taken(1, &world.relay));
    assert_eq!(recipients(&inside), ["a@contoso.com", "c@contoso.com"]);
    assert_eq!(recipients(&outside), ["b@fabrikam.example", "d@northwind.example"]);
    assert_eq!((inside.len(), outside.len()), (1, 1));

    // The connector keeps the sender, wants no login and gets none.
    assert_eq!(inside[0].reverse_path.to_string(), inside[0].account);
    assert_eq!(outside[0].reverse_path.to_string(), "app@contoso.com");
    assert_eq!(field(&outside[0], "From"), ["App <app@contoso.com>"]);
    assert_eq!(field(&outside[0], "X-Original-From"), [""; 0]);
    assert_eq!(body(&outside[0]), b"text\r\n");
    assert_eq!(other.sim.counters().logins, []);
    for (to, account) in [("a@contoso.com", inside[0].account.as_str()), ("d@northwind.example", "connector")] {
        let line = world.relay.wait_for("delivery", |line| line["event"] == "delivery" && line["to"] == to);
        assert_eq!((&line["account"], &line["tls"], &line["status"]), (&account.into(), &"verified".into(), &"sent".into()), "{line}");
    }
}

#[test]
fn size_decides_where_it_is_said_to() {
    let other = Other::new(|_| {});
    let world = World::with(
        1,
        |_| {},
        |setup| {
            let connector = other.route(&setup, "connector", "connector");
            setup
                .takes("internal")
                .route("size_over = \"64 KiB\"\nmessage_size = \"256 KiB\"")
                .with(&format!("{connector}message_size = \"1 MiB\""))
        },
    );
    let mut client = world.client();
    let hello = client.expect("EHLO scanner.contoso.com", "250");
    assert!(hello.contains("SIZE 1048576"), "what the largest route takes is announced: {hello}");
    for (octets, messages, others) in [(1_000, 0, 1), (100_000, 1, 1), (300_000, 1, 2)] {
        let id = client.accepted("app@contoso.com", &["you@contoso.com"], &of_size(octets));
        world.removed(&id);
        assert_eq!((world.sim.counters().messages, other.sim.counters().messages), (messages, others), "{octets} octets");
    }
}

#[test]
fn what_high_volume_email_turns_out_not_to_take_goes_by_the_next_route() {
    // The tenant has moved to general availability, and the configuration has not: mail for both classes goes to the accounts first.
    let other = Other::new(|_| {});
    let world = World::with(
        2,
        |sim| (sim.profile, sim.size_limit) = (Profile::Ga, 100_000),
        |setup| {
            let connector = other.route(&setup, "connector", "connector");
            setup.with(&connector)
        },
    );
    let mut client = world.client();
    let to = ["a@contoso.com", "b@fabrikam.example", "unknown@contoso.com", "c@northwind.example"];
    let id = client.accepted("app@contoso.com", &to, &mail("mixed", b"text\r\n"));
    world.removed(&id);
    assert_eq!(recipients(&world.taken(2)), ["a@contoso.com", "app@contoso.com"], "the second tells of the one that does not exist");
    assert_eq!(recipients(&other.taken(1, &world.relay)), ["b@fabrikam.example", "c@northwind.example"], "and each once");
    for (to, statuses) in
        [("b@fabrikam.example", &["deferred", "sent"][..]), ("a@contoso.com", &["sent"]), ("unknown@contoso.com", &["bounced"])]
    {
        let told = world.relay.logged(|line| line["event"] == "delivery" && line["queue_id"] == id.as_str() && line["to"] == to);
        assert_eq!(told.iter().map(|line| line["status"].as_str().unwrap_or_default()).collect::<Vec<_>>(), statuses, "{to}");
    }
    let parted = world.relay.wait_for("parted", |line| line["event"] == "parted" && line["queue_id"] == id.as_str());
    assert_eq!((&parted["route"], &parted["nrcpt"], &parted["into"]), (&"connector".into(), &2.into(), &3.into()), "{parted}");

    // Nor does the server take as much as was thought.
    let id = client.accepted("app@contoso.com", &["you@contoso.com"], &of_size(200_000));
    world.removed(&id);
    assert_eq!(recipients(&other.taken(2, &world.relay)[1..]), ["you@contoso.com"]);
    let seen = world.sim.counters();
    assert_eq!(
        (seen.refused("5.5.105"), seen.command("MAIL"), seen.refused("5.3.4")),
        (2, 3, 0),
        "the size was enough to know: {:?}",
        seen.commands
    );
}

#[test]
fn what_no_other_route_takes_fails() {
    let world = World::with(1, |sim| sim.profile = Profile::Ga, |setup| setup);
    let id = world.client().accepted("app@contoso.com", &["b@fabrikam.example"], &mail("hello", b"text\r\n"));
    world.removed(&id);
    let line = world.relay.wait_for("the end", |line| line["event"] == "delivery" && line["queue_id"] == id.as_str());
    assert_eq!((&line["status"], &line["dsn"]), (&"bounced".into(), &"5.5.105".into()), "{line}");
}

#[test]
fn where_one_recipient_spoils_the_message_the_others_get_it() {
    let spoilt = |address: &str| Fault::reply(Step::EndOfData, "550 5.7.703 Message contains a blocked recipient").recipient(address);
    let world = World::with(1, |_| {}, |setup| setup.client("notify = \"none\""));
    world.faults([spoilt("b@contoso.com")]);
    let to = ["a@contoso.com", "b@contoso.com", "c@contoso.com"];
    let id = world.client().accepted("app@contoso.com", &to, &mail("hello", b"text\r\n"));
    world.removed(&id);
    assert_eq!(recipients(&world.taken(2)), ["a@contoso.com", "c@contoso.com"]);
    let line =
        world.relay.wait_for("the end", |line| line["event"] == "delivery" && line["to"] == "b@contoso.com" && line["status"] == "bounced");
    assert_eq!(&line["dsn"], "5.7.703", "{line}");
}

#[test]
fn a_client_goes_its_own_way() {
    let other = Other::new(|_| {});
    let world = World::with(
        1,
        |_| {},
        |setup| {
            let connector = other.route(&setup, "connector", "connector");
            setup
                .takes("internal")
                .with(&format!("{connector}clients = [\"erp\"]"))
                .with("[[client]]\nname = \"erp\"\nnetworks = [\"127.0.0.2\"]\nroute = \"connector\"")
        },
    );
    let mut device = world.client();
    device.expect("MAIL FROM:<scanner@contoso.com>", "250");
    let refusal = device.expect("RCPT TO:<you@fabrikam.example>", "550 5.7.1 <you@fabrikam.example> is external");
    for part in ["client \"devices\"", "clients of [[route]] \"connector\""] {
        assert!(refusal.contains(part), "{refusal}");
    }
    device.expect("RSET", "250");
    let mut erp = Client::hello_from("127.0.0.2", world.relay.address);
    let ids = [
        device.accepted("scanner@contoso.com", &["you@contoso.com"], &mail("scan", b"text\r\n")),
        erp.accepted("erp@contoso.com", &["you@contoso.com", "you@fabrikam.example"], &mail("invoice", b"text\r\n")),
    ];
    ids.iter().for_each(|id| world.removed(id));
    assert_eq!(field(&world.taken(1)[0], "Subject"), ["scan"]);
    let outside = other.taken(2, &world.relay);
    assert_eq!(recipients(&outside), ["you@contoso.com", "you@fabrikam.example"]);
    assert_eq!((world.sim.counters().messages, other.sim.counters().messages), (1, 2));
}

#[test]
fn clients_are_told_where_there_is_no_way_as_soon_as_it_is_known() {
    let other = Other::new(|_| {});
    let world = World::with(
        1,
        |_| {},
        |setup| {
            let connector = other.route(&setup, "connector", "connector");
            setup
                .takes("internal")
                .route("message_size = \"64 KiB\"")
                .with(&format!("{connector}takes = [\"external\"]\nmessage_size = \"128 KiB\""))
        },
    );
    let mut client = world.client();
    // Too large for every route.
    client.expect("MAIL FROM:<app@contoso.com> SIZE=131073", "552 5.3.4 ");
    // Too large for those of this class.
    client.expect("MAIL FROM:<app@contoso.com> SIZE=100000", "250");
    let refusal = client.expect("RCPT TO:<you@contoso.com>", "552 5.3.4 100000 octets");
    assert!(refusal.contains("65536") && refusal.contains("internal") && refusal.contains("message_size"), "{refusal}");
    client.expect("RCPT TO:<you@fabrikam.example>", "250");
    client.expect("RSET", "250");
    // Nobody had said how large it would become.
    let refusal = client.send("app@contoso.com", &["you@fabrikam.example", "you@contoso.com"], &of_size(100_000));
    assert!(refusal.starts_with("552 5.3.4 "), "{refusal}");
    // What relaying adds makes it too large.
    let refusal = client.send("app@contoso.com", &["you@contoso.com"], &of_size(65_400));
    assert!(refusal.starts_with("552 5.3.4 ") && refusal.contains("65536"), "{refusal}");
    let id = client.accepted("app@contoso.com", &["you@fabrikam.example"], &of_size(100_000));
    world.removed(&id);
    assert_eq!((world.sim.counters().messages, other.sim.counters().messages), (0, 1));
}

#[test]
fn what_goes_elsewhere_is_no_part_of_the_tenants_budget() {
    let other = Other::new(|_| {});
    let world = World::with(
        1,
        |_| {},
        |setup| {
            let connector = other.route(&setup, "connector", "connector");
            setup.takes("internal").with(&connector).with("[tenant_limits]\nrecipients_per_day = 1")
        },
    );
    let mut client = world.client();
    for n in 0..3 {
        let id = client.accepted("app@contoso.com", &["you@fabrikam.example"], &mail(&format!("n{n}"), b"text\r\n"));
        world.removed(&id);
    }
    let id = client.accepted("app@contoso.com", &["you@contoso.com"], &mail("inside", b"text\r\n"));
    world.removed(&id);
    client.accepted("app@contoso.com", &["you@contoso.com"], &mail("too-many", b"text\r\n"));
    let id = client.accepted("app@contoso.com", &["you@fabrikam.example"], &mail("behind-it", b"text\r\n"));
    world.removed(&id);
    assert_eq!((world.sim.counters().messages, other.sim.counters().messages), (1, 4));
}

#[test]
fn implicit_tls_carries_a_login() {
    let other = Other::new(|settings| {
        settings.security = Security::Implicit;
        settings.mechanisms = vec![Mechanism::Plain];
        settings.accounts = vec![Account::new("relay@contoso.com", PASSWORD)];
    });
    let world = World::with(
        1,
        |_| {},
        |setup| {
            let smarthost = other.route(&setup, "smarthost", "smarthost");
            let password = file(&setup, "relay.password", PASSWORD);
            let account = format!("[[account]]\naddress = \"relay@contoso.com\"\npassword_file = \"{password}\"\nroute = \"smarthost\"");
            setup.takes("internal").with(&format!("{smarthost}tls = \"implicit\"\nsender = \"account\"")).with(&account)
        },
    );
    let id = world.client().accepted("app@contoso.com", &["you@fabrikam.example"], &mail("hello", b"text\r\n"));
    world.removed(&id);
    let taken = &other.taken(1, &world.relay)[0];
    assert!(taken.encrypted);
    assert_eq!((taken.account.as_str(), taken.reverse_path.to_string().as_str()), ("relay@contoso.com", "relay@contoso.com"));
    let seen = other.sim.counters();
    assert_eq!((seen.logins.len(), seen.handshakes, seen.command("STARTTLS")), (1, 1, 0));
    assert!(seen.logins[0].encrypted && seen.logins[0].accepted);
}

#[test]
fn no_login_goes_out_where_the_server_cannot_be_verified() {
    // In clear where TLS is wanted from the first octet; in clear where STARTTLS is wanted; another's certificate.
    for (tls, security, identity) in [
        ("implicit", Security::None, None),
        ("required", Security::None, None),
        ("implicit", Security::Implicit, Some(Identity::make(&["smtp.example.net"]).expect("an identity"))),
        ("required", Security::Offered, Some(Identity::make(&["smtp.example.net"]).expect("an identity"))),
    ] {
        let other = Other::new(|settings| {
            (settings.security, settings.identity) = (security, identity);
            settings.mechanisms = vec![Mechanism::Plain];
            settings.accounts = vec![Account::new("relay@contoso.com", PASSWORD)];
        });
        let world = World::with(
            1,
            |_| {},
            |setup| {
                let smarthost = other.route(&setup, "smarthost", "smarthost");
                let password = file(&setup, "relay.password", PASSWORD);
                let account =
                    format!("[[account]]\naddress = \"relay@contoso.com\"\npassword_file = \"{password}\"\nroute = \"smarthost\"");
                // A server that speaks first would otherwise be waited for.
                let timeouts = "[upstream]\nconnect = \"2s\"\ngreeting = \"2s\"";
                setup.takes("internal").with(&format!("{smarthost}tls = \"{tls}\"")).with(&account).with(timeouts)
            },
        );
        let id = world.client().accepted("app@contoso.com", &["you@fabrikam.example"], &mail("hello", b"text\r\n"));
        let case = format!("{tls}, {security:?}");
        let paused = world.relay.wait_for(&case, |line| line["event"] == "route-paused" && line["route"] == "smarthost");
        world.relay.wait_for_all(&case, 2, |line| line["event"] == "delivery" && line["status"] == "deferred");
        let seen = other.sim.counters();
        assert_eq!((seen.logins.len(), seen.command("AUTH"), seen.command("MAIL"), seen.messages), (0, 0, 0, 0), "{case}: {paused}");
        assert_eq!(
            world.relay.logged(|line| line["event"] == "delivery" && line["queue_id"] == id.as_str() && line["tls"] != ""),
            [0; 0],
            "{case}"
        );
    }
}

#[test]
fn opportunistic_tls_takes_what_it_can_get() {
    let make = |names: &[&str]| Some(Identity::make(names).expect("an identity"));
    for (case, security, identity, fault, expected) in [
        ("the right certificate", Security::Offered, None, None, "verified"),
        ("another's certificate", Security::Offered, make(&["mail.example.net"]), None, "unverified"),
        (
            "a certificate that has ended",
            Security::Offered,
            Some(Identity::expired(&["127.0.0.1"]).expect("an identity")),
            None,
            "unverified",
        ),
        ("no STARTTLS", Security::None, None, None, "none"),
        ("STARTTLS refused", Security::Offered, None, Some(Fault::reply(Step::StartTls, "454 4.7.0 TLS not available")), "none"),
        ("a broken handshake", Security::Offered, None, Some(Fault::new(Step::Tls, Action::Drop)), "none"),
    ] {
        let other = Other::new(|settings| (settings.security, settings.identity) = (security, identity));
        other.sim.set_faults(fault.into_iter().collect());
        let world = World::with(
            1,
            |_| {},
            |setup| {
                let smarthost = other.route(&setup, "smarthost", "smarthost");
                setup.takes("internal").with(&format!("{smarthost}tls = \"opportunistic\""))
            },
        );
        let id = world.client().accepted("app@contoso.com", &["you@fabrikam.example"], &mail("hello", b"text\r\n"));
        world.removed(&id);
        let taken = &other.taken(1, &world.relay)[0];
        assert_eq!(taken.encrypted, expected != "none", "{case}");
        let line = world.relay.wait_for(case, |line| line["event"] == "delivery" && line["queue_id"] == id.as_str());
        assert_eq!((&line["tls"], &line["attempt"]), (&expected.into(), &1.into()), "{case}: {line}");
    }
}

#[test]
fn mail_goes_in_clear_only_where_it_is_said() {
    let other = Other::new(|settings| settings.security = Security::Offered);
    let world = World::with(
        1,
        |_| {},
        |setup| {
            let smarthost = other.route_in_clear("smarthost", "smarthost");
            setup.takes("internal").with(&format!("{smarthost}tls = \"none\""))
        },
    );
    let mut client = world.client();
    for n in 0..3 {
        let id =
            client.accepted("app@contoso.com", &["you@fabrikam.example"], &mail(&format!("n{n}"), &b"x\r\n.\r\n.y\r\n".repeat(20_000)));
        world.removed(&id);
    }
    let taken = other.taken(3, &world.relay);
    assert!(taken.iter().all(|taken| !taken.encrypted && taken.violations.is_empty() && body(taken) == b"x\r\n.\r\n.y\r\n".repeat(20_000)));
    let seen = other.sim.counters();
    assert_eq!((seen.connections, seen.command("STARTTLS"), seen.logins.len()), (1, 0, 0), "the connection is kept warm");
}

#[test]
fn a_server_that_asks_for_a_certificate_is_shown_the_relays_own() {
    let own = rcgen::generate_simple_self_signed(["relay.contoso.com".to_owned()]).expect("a certificate");
    let other = Other::new(|settings| settings.client_ca = Some(own.cert.pem()));
    let connector = |setup: Setup, other: &Other| {
        let connector = other.route(&setup, "connector", "connector");
        setup.takes("internal").with(&connector)
    };
    let world = World::with(1, |_| {}, |setup| connector(setup, &other));
    let id = world.client().accepted("app@contoso.com", &["you@fabrikam.example"], &mail("hello", b"text\r\n"));
    world.relay.wait_for("trouble", |line| line["event"] == "route-paused" && line["route"] == "connector");
    assert_eq!(other.sim.counters().messages, 0, "without one nothing is taken");
    let world = world.crash_and_restart(|world| {
        let (chain, key) =
            (file(&world.setup, "own.pem", &own.cert.pem()), file(&world.setup, "own.key", &own.signing_key.serialize_pem()));
        let path = world.setup.folder().join("hve-relay.toml");
        let text = fs::read_to_string(&path).expect("readable");
        let identity = format!("name = \"connector\"\nclient_certificate_file = \"{chain}\"\nclient_key_file = \"{key}\"");
        fs::write(&path, text.replace("name = \"connector\"", &identity)).expect("written");
    });
    world.removed(&id);
    assert_eq!(recipients(&other.taken(1, &world.relay)), ["you@fabrikam.example"]);
}

#[test]
fn a_restart_sends_what_is_queued_for_each_route_and_keeps_what_is_for_one_that_is_gone() {
    let other = Other::new(|_| {});
    let world = World::with(
        1,
        |_| {},
        |setup| {
            let connector = other.route(&setup, "connector", "connector");
            setup.takes("internal").with(&connector)
        },
    );
    world.runtime.block_on(world.sim.down());
    other.runtime.block_on(other.sim.down());
    let mut client = world.client();
    let ids: Vec<String> = (0..5)
        .map(|n| client.accepted("app@contoso.com", &["you@contoso.com", "you@fabrikam.example"], &mail(&format!("n{n}"), b"text\r\n")))
        .collect();
    let path = world.setup.folder().join("hve-relay.toml");
    let whole = fs::read_to_string(&path).expect("readable");
    // One that took the same would get it.
    let without = whole.replace("name = \"connector\"", "name = \"elsewhere\"\ntakes = [\"internal\"]");

    let mut world = world.crash_and_restart(|_| fs::write(&path, &without).expect("written"));
    for id in &ids {
        assert!(id.parse::<QueueId>().is_ok());
        world.relay.wait_for("the route is gone", |line| {
            line["event"] == "route-unknown" && line["queue_id"] == id.as_str() && line["route"] == "connector"
        });
    }
    world.runtime.block_on(world.sim.up()).expect("up");
    other.runtime.block_on(other.sim.up()).expect("up");
    assert_eq!(world.taken(5).len(), 5);

    // In order, so that what was sent is recorded as sent.
    world.relay.signal("TERM");
    assert!(world.relay.ended().success());
    fs::write(&path, &whole).expect("written");
    world.relay = Relay::start(&path);
    ids.iter().for_each(|id| world.removed(id));
    assert_eq!((world.sim.counters().messages, other.sim.counters().messages), (5, 5));
    assert_eq!(recipients(&other.taken(5, &world.relay)), ["you@fabrikam.example"; 5]);
}
