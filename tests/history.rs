//! End to end: what became of mail is told for as long as it is kept, whatever happens to the relay meanwhile.

mod support;

use std::process::{Command, Stdio};

use hve_relay::sim::{Action, Fault, Step};
use serde_json::Value;
use support::relay::PATIENCE;
use support::{World, mail, until};

const TO: &[&str] = &["you@contoso.com"];

/// Runs a command of the operator's: its exit status and what it said on standard output.
fn operate(world: &World, line: &[&str]) -> (i32, String) {
    let config = world.setup.folder().join("hve-relay.toml").display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_hve-relay"))
        .args(line)
        .args(["--config", &config])
        .stdin(Stdio::null())
        .output()
        .expect("the binary");
    let said = String::from_utf8(output.stdout).expect("text");
    (output.status.code().expect("an exit status"), said + &String::from_utf8_lossy(&output.stderr))
}

fn stories(world: &World, what: &[&str]) -> Vec<Value> {
    let (_, said) = operate(world, &[&["trace", "--json"], what].concat());
    let trace: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    trace["stories"].as_array().expect("stories").clone()
}

/// The one story that fits, as soon as it is as wanted.
fn story(world: &World, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    until(&format!("the story of {what}"), || {
        found = stories(world, &[what]).pop().unwrap_or_default();
        wanted(&found)
    });
    found
}

fn results(story: &Value) -> Vec<&str> {
    let attempts = story["deliveries"].as_array().into_iter().flatten().flat_map(|delivery| delivery["attempts"].as_array());
    attempts.flatten().filter_map(|attempt| attempt["result"].as_str()).collect()
}

#[test]
fn a_message_that_was_deferred_twice_and_sent_has_its_whole_story_also_after_kill_9() {
    let world = World::new(1);
    world.faults([Fault::reply(Step::EndOfData, "451 4.7.999 Insufficient patience").first(2)]);
    let id = world.client().accepted("Scan@contoso.com", TO, &mail("quarterly-figures", b"text\r\n"));
    world.removed(&id);
    let told = story(&world, &id, |story| story["sent"] == 1);
    assert_eq!(results(&told), ["deferred", "deferred", "sent"]);
    let message = &told["message"];
    for (field, value) in [
        ("id", id.as_str()),
        ("client", "devices"),
        ("peer", "127.0.0.1"),
        ("from", "Scan@contoso.com"),
        ("author", "app@contoso.com"),
        ("subject", "quarterly-figures"),
        ("message_id", "<quarterly-figures@contoso.com>"),
    ] {
        assert_eq!(message[field], value, "{field}");
    }
    let attempts = told["deliveries"][0]["attempts"].as_array().expect("attempts");
    assert!(attempts[0]["reply"].as_str().expect("a reply").contains("Insufficient patience"), "{told:#}");
    assert!(attempts[0]["retry"].is_string() && attempts[2]["retry"].is_null(), "{told:#}");
    for attempt in attempts {
        assert_eq!((&attempt["account"], &attempt["sender"]), (&"hve01@contoso.com".into(), &"hve01@contoso.com".into()));
        assert_eq!(attempt["recipients"], serde_json::json!(TO));
        assert!(attempt["started"].as_str() <= attempt["ended"].as_str());
    }
    let (status, text) = operate(&world, &["trace", &id]);
    assert_eq!(status, 0, "{text}");
    for part in ["deferred on hve01@contoso.com", "sent on hve01@contoso.com", "next attempt not before", "quarterly-figures"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    let world = world.crash_and_restart(|_| {});
    assert_eq!(results(&story(&world, "quarterly-figures you@contoso.com", |story| story["sent"] == 1)), results(&told));
    for what in ["<quarterly-figures@contoso.com>", "scan@contoso.com", "127.0.0.1", "QUARTERLY", &format!("{id}.1")] {
        assert_eq!(stories(&world, &[what])[0]["message"]["id"], id.as_str(), "{what}");
    }
    assert_eq!(operate(&world, &["trace", "nothing-of-the-kind"]).0, 1);
}

#[test]
fn what_failed_is_told_with_the_reply_and_what_waits_with_the_reason() {
    let world = World::new(1);
    let mut client = world.client();
    world.faults([
        Fault::reply(Step::Rcpt, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup").first(1)
    ]);
    let failed = client.accepted("app@contoso.com", TO, &mail("failing", b"text\r\n"));
    world.removed(&failed);
    let told = story(&world, &failed, |story| story["failed"] == 1);
    assert_eq!(results(&told), ["failed"]);
    assert_eq!(told["deliveries"][0]["attempts"][0]["status"], "5.1.10");
    world.faults([Fault::reply(Step::EndOfData, "451 4.7.999 Not now")]);
    let waiting = client.accepted("app@contoso.com", TO, &mail("waiting", b"text\r\n"));
    let told = story(&world, &waiting, |story| story["waiting"] == 1 && !results(story).is_empty());
    assert_eq!(told["queued"][0]["id"], format!("{waiting}.1"));
    assert!(told["queued"][0]["reason"].is_string(), "{told:#}");

    let all: Vec<Value> = stories(&world, &["--failed", "--since", "1d"]);
    let ids: Vec<&str> = all.iter().filter_map(|story| story["message"]["id"].as_str()).collect();
    assert_eq!(ids, [failed.as_str()]);
    // A hold, so that no attempt is under way for ever, and then an operator's word.
    operate(&world, &["queue", "hold", &waiting]);
    until("the removal", || operate(&world, &["queue", "remove", "--yes", &waiting]).0 == 0);
    let told = story(&world, &waiting, |story| story["removed"] == 1);
    assert_eq!(results(&told).last(), Some(&"removed"));
    let (_, text) = operate(&world, &["trace", "--limit", "1"]);
    assert!(text.contains("There may be more: --before"), "{text}");
    let (status, text) = operate(&world, &["trace", "--since", "yesterday"]);
    assert!(status == 1 && text.contains("2026-11-21"), "{text}");
}

#[test]
fn an_attempt_that_was_cut_off_is_told_as_in_doubt() {
    let world = World::new(1);
    world.faults([Fault::new(Step::EndOfData, Action::Silence)]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("cut", b"text\r\n"));
    world.runtime.block_on(world.sim.wait_until(|seen| seen.command("DATA") == 1, PATIENCE)).expect("the attempt is under way");
    let world = world.crash_and_restart(|world| world.faults([]));
    let told = story(&world, &id, |story| story["sent"] == 1);
    assert_eq!(results(&told), ["in-doubt", "sent"]);
}

#[test]
fn a_month_is_reported_with_what_it_cost() {
    let world = World::with(1, |_| {}, |setup| setup.with("[history]\nprice_per_million = 1000000"));
    let id = world.client().accepted("app@contoso.com", &["you@contoso.com", "me@contoso.com"], &mail("n", b"text\r\n"));
    story(&world, &id, |story| story["sent"] == 2);
    for by in ["client", "account", "sender", "day", "class"] {
        let (status, said) = operate(&world, &["report", "--by", by, "--json"]);
        assert_eq!(status, 0, "{said}");
        let report: Value = serde_json::from_str(&said).expect("JSON");
        let line = &report["lines"][0];
        assert_eq!((&line["messages"], &line["recipients"], &line["cost"]), (&1.into(), &2.into(), &2.0.into()), "{by}: {report:#}");
        assert!(line["median"].as_f64().is_some_and(|median| median > 0.0));
    }
    let (_, table) = operate(&world, &["report"]);
    assert!(table.contains("devices") && table.contains("2.00"), "{table}");
    let (_, csv) = operate(&world, &["report", "--csv", "--by", "sender"]);
    assert!(csv.lines().nth(1).is_some_and(|line| line.contains(",\"app@contoso.com\",1,2,")), "{csv}");
    assert_eq!(operate(&world, &["report", "--by", "moon"]).0, 1);
    assert_eq!(operate(&world, &["report", "--month", "2026-13"]).0, 1);
}

#[test]
fn without_a_history_mail_goes_all_the_same() {
    let world = World::with(1, |_| {}, |setup| setup.with("[history]\nkeep = \"none\""));
    let id = world.client().accepted("app@contoso.com", TO, &mail("unkept", b"text\r\n"));
    world.removed(&id);
    let (status, said) = operate(&world, &["trace", &id]);
    assert!(status == 1 && said.contains("no history is kept"), "{said}");
    assert!(!world.setup.data_dir().join("history.db").exists());

    let world = world.crash_and_restart(|world| {
        let config = world.setup.folder().join("hve-relay.toml");
        let text = std::fs::read_to_string(&config).expect("a configuration").replace("keep = \"none\"", "keep = \"1d\"");
        std::fs::write(&config, text).expect("written");
        std::fs::write(world.setup.data_dir().join("history.db"), "this is no database".repeat(100)).expect("written");
    });
    world.relay.wait_for("the damage", |line| line["event"] == "history-unavailable");
    let id = world.client().accepted("app@contoso.com", TO, &mail("damaged", b"text\r\n"));
    world.removed(&id);
}
