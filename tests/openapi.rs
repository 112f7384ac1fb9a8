//! `deploy/openapi.json` says what the interface is: every route is in it, every route of it is there, and what the running relay answers is as
//! it says, field by field.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use hve_relay::sim::{Fault, Step};
use serde_json::{Value, json};
use support::http::{Answer, Events, get, request};
use support::relay::Setup;
use support::secure::put;
use support::{World, mail, until};

const TOKEN: &str = "a-t0ken-of-some-length-for-a-program";

fn document() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/openapi.json");
    serde_json::from_str(&fs::read_to_string(path).expect("readable")).expect("JSON")
}

/// Whether a value is as a schema says: the part of JSON Schema that the file uses. What an object has and the schema does not name is a fault.
fn check(document: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{place}: {what}: {value} against {schema}"));
    if let Some(name) = schema["$ref"].as_str() {
        let known = document.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} is not in the file"));
        return check(document, known, value, place);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        return if any.iter().any(|one| check(document, one, value, place).is_ok()) { Ok(()) } else { wrong("none of these") };
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => return wrong("a schema without a type"),
    };
    let of = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = types.contains(&of) || (of == "integer" && types.contains(&"number"));
    if !fits {
        return wrong("another type");
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return wrong("none of the words");
    }
    if schema["minimum"].as_f64().zip(value.as_f64()).is_some_and(|(least, value)| value < least) {
        return wrong("too small");
    }
    if schema["format"] == "date-time" && value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_err()) {
        return wrong("no time");
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        check(document, &schema["items"], item, &format!("{place}[{i}]"))?;
    }
    if let (Some(object), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                return wrong(&format!("{name} is missing"));
            }
        }
        for (name, value) in object {
            match properties.get(name) {
                Some(schema) => check(document, schema, value, &format!("{place}.{name}"))?,
                None => return wrong(&format!("{name} is not in the schema")),
            }
        }
    }
    Ok(())
}

/// Every operation of the file: method, path, description.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let of = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().expect("methods").clone();
        methods.into_iter().map(|(method, operation)| (method.to_uppercase(), path.clone(), operation)).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of).collect()
}

fn alike(one: &str, other: &str) -> bool {
    let (one, other): (Vec<&str>, Vec<&str>) = (one.split('/').collect(), other.split('/').collect());
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| *one == other || one.starts_with('{') || other.starts_with('{'))
}

#[test]
fn every_route_is_in_the_file() {
    let document = document();
    let operations = operations(&document);
    let mut found = 0;
    for file in ["src/admin/routes.rs", "src/admin/gate.rs", "src/admin/log.rs", "src/admin/monitor.rs"] {
        let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("readable");
        for route in source.split(".route(\"").skip(1) {
            let (path, rest) = route.split_once('"').expect("a path");
            let handlers = rest.lines().next().unwrap_or_default();
            for method in ["get", "post", "delete"].into_iter().filter(|method| handlers.contains(&format!("{method}("))) {
                let is_there = operations.iter().any(|(known, of, _)| known.eq_ignore_ascii_case(method) && alike(of, path));
                assert!(is_there, "{method} {path} of {file} is not in the file");
                found += 1;
            }
        }
    }
    assert!(found >= 25, "only {found} routes were found");
}

#[test]
fn the_file_names_nothing_that_it_does_not_say() {
    let document = document();
    let text = document.to_string();
    let names: BTreeSet<&str> = document["components"]["schemas"].as_object().expect("schemas").keys().map(String::as_str).collect();
    let used: BTreeSet<&str> = text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(names, used);
    let ids: Vec<Value> = operations(&document).into_iter().map(|(.., operation)| operation["operationId"].clone()).collect();
    let once: BTreeSet<String> = ids.iter().map(Value::to_string).collect();
    assert!(!once.contains("null") && once.len() == ids.len(), "{ids:?}");
}

/// What the tests ask, in this order; `ID` is a message that waits, `GONE` one that is settled.
const ASKED: &[(&str, &str, &str, u16)] = &[
    ("GET", "/v1/openapi.json", "", 200),
    ("GET", "/v1/status", "", 200),
    ("GET", "/v1/overview", "", 200),
    ("GET", "/v1/session", "", 200),
    ("GET", "/v1/accounts", "", 200),
    ("GET", "/v1/habits", "", 200),
    ("DELETE", "/v1/habits", "", 200),
    ("GET", "/v1/log", "", 200),
    ("POST", "/v1/log", r#"{"level": "debug", "room": "admin"}"#, 200),
    ("POST", "/v1/log", r#"{"level": "loud"}"#, 400),
    ("GET", "/v1/log/words/you@contoso.com", "", 200),
    ("GET", "/metrics", "", 200),
    ("GET", "/livez", "", 200),
    // Every account is suspended.
    ("GET", "/readyz", "", 503),
    ("GET", "/v1/queue", "", 200),
    ("GET", "/v1/queue?reason=suspended&class=external&priority=normal&client=devices&limit=1", "", 200),
    ("GET", "/v1/queue?limit=0", "", 400),
    ("GET", "/v1/queue?colour=red", "", 400),
    ("GET", "/v1/queue/ID", "", 200),
    ("GET", "/v1/queue/ID.1", "", 200),
    ("GET", "/v1/queue/GONE", "", 404),
    ("GET", "/v1/trace", "", 200),
    ("GET", "/v1/trace?what=ID&since=1h&failed=false&limit=5", "", 200),
    ("GET", "/v1/trace?since=soon", "", 400),
    ("GET", "/v1/report", "", 200),
    ("GET", "/v1/report?by=day", "", 200),
    ("GET", "/v1/report?by=account", "", 200),
    ("GET", "/v1/report?by=colour", "", 400),
    ("POST", "/v1/queue/count", r#"{"all": true}"#, 200),
    ("POST", "/v1/queue/count", r#"{"class": "external", "after": null, "through": "ID.1"}"#, 200),
    ("POST", "/v1/queue/count", "{}", 400),
    ("POST", "/v1/queue/hold", r#"{"reason": "suspended"}"#, 200),
    ("POST", "/v1/queue/release", r#"{"reason": "held"}"#, 200),
    ("POST", "/v1/queue/retry", r#"{"client": "devices"}"#, 200),
    ("POST", "/v1/queue/remove", r#"{"priority": "bulk"}"#, 200),
    ("POST", "/v1/queue/remove", "no JSON", 400),
    ("POST", "/v1/queue/ID/hold", "", 200),
    ("POST", "/v1/queue/ID/retry", "", 409),
    ("POST", "/v1/queue/ID/release", "", 200),
    ("POST", "/v1/queue/ID/retry", "", 200),
    ("POST", "/v1/queue/ID/remove", "", 200),
    ("DELETE", "/v1/queue/ID", "", 404),
    ("DELETE", "/v1/queue/OTHER", "", 200),
    ("POST", "/v1/accounts/hve02@contoso.com/suspend", r#"{"for": "2h", "reason": "audit"}"#, 200),
    ("POST", "/v1/accounts/hve02@contoso.com/suspend", r#"{"for": "soon"}"#, 400),
    ("POST", "/v1/accounts/hve02@contoso.com/resume", "", 200),
    ("GET", "/readyz", "", 200),
    ("POST", "/v1/accounts/nobody@contoso.com/resume", "", 404),
    ("POST", "/v1/reload", "", 200),
    ("POST", "/v1/session", "no JSON", 400),
    ("POST", "/v1/session", r#"{"token": "TOKEN"}"#, 200),
    ("POST", "/v1/session", r#"{"user": "anna", "password": "x"}"#, 401),
    ("DELETE", "/v1/session", "", 200),
];

#[test]
fn what_the_relay_answers_is_as_the_file_says() {
    let document = document();
    let (world, page) = relay();
    world.faults([Fault::reply(Step::Rcpt, "451 4.7.999 Not now").recipient("later@contoso.com")]);
    let mut client = world.client();
    let gone = client.accepted("app@contoso.com", &["anna@contoso.com", "nobody@contoso.com"], &mail("gone", b"text\r\n"));
    world.removed(&gone);
    client.accepted("app@contoso.com", &["later@contoso.com"], &mail("later", b"text\r\n"));
    let authorized = format!("Authorization: Bearer {TOKEN}");
    let ask = |method: &str, path: &str, body: &str| request(page, method, path, &[&authorized], body);
    until("the deferral", || get(page, "/v1/status", &[]).json()["queue"]["deferred"] == 1);
    for account in ["hve01@contoso.com", "hve02@contoso.com"] {
        assert_eq!(ask("POST", &format!("/v1/accounts/{account}/suspend"), "").status, 200);
    }
    let id = client.accepted("app@contoso.com", &["clerk@fabrikam.example"], &mail("waits", b"text\r\n"));
    let other = client.accepted("app@contoso.com", &["clerk@fabrikam.example"], &mail("waits too", b"text\r\n"));
    until("the history", || {
        get(page, "/v1/trace?failed=true", &[]).json()["stories"].as_array().is_some_and(|stories| !stories.is_empty())
    });
    let event = Events::listen(page, &[]).expect("events").next().expect("an event");
    check(&document, &json!({"$ref": "#/components/schemas/Overview"}), &event, "an event").expect("an overview");

    let mut answered = BTreeSet::new();
    for (method, path, body, status) in ASKED {
        let fill = |text: &str| text.replace("ID", &id).replace("GONE", &gone).replace("OTHER", &other).replace("TOKEN", TOKEN);
        let (asked, body) = (fill(path), fill(body));
        let answer = ask(method, &asked, &body);
        let operation = holds(&document, method, &asked, &answer);
        assert_eq!(answer.status, *status, "{method} {path}: {}", answer.body);
        if *status == 200 {
            answered.insert(operation);
        }
    }
    // What is for the socket alone is not to be had over TCP, whoever asks.
    assert_eq!(ask("POST", "/v1/letters", "{}").status, 404);
    // Without a token, and under a foreign name.
    for (method, path, _) in operations(&document).into_iter().filter(|(method, path, _)| method != "GET" && path != "/v1/session") {
        let path = path.replace("{id}", &id).replace("{name}", "hve01@contoso.com");
        let answer = request(page, &method, &path, &[], "");
        assert_eq!(answer.status, 401, "{method} {path}");
        holds(&document, &method, &path, &answer);
        let answer = request(page, &method, &path, &["Host: evil.example"], "");
        assert_eq!(answer.status, 403, "{method} {path}");
        holds(&document, &method, &path, &answer);
    }
    let all: BTreeSet<String> = operations(&document).iter().map(|(.., operation)| operation["operationId"].to_string()).collect();
    let unasked: Vec<&String> = all.difference(&answered).filter(|id| id.as_str() != "\"events\"").collect();
    assert!(unasked.is_empty(), "nobody has asked for {unasked:?}");
}

fn relay() -> (World, SocketAddr) {
    let with_token = |setup: Setup| {
        let file = setup.folder().join("admin.token");
        put(&file, TOKEN);
        let setup = setup.with("[admin]\nlisten = \"127.0.0.1:0\"").with("[log]\nredact = \"hash\"").patient();
        setup.with(&format!("[[admin.token]]\nname = \"program\"\ntoken_file = \"{}\"", file.display()))
    };
    let world = World::with(2, |_| {}, with_token);
    let page = world.relay.page();
    (world, page)
}

/// An answer is as the file says of its operation and its status; returns the operation's id.
fn holds(document: &Value, method: &str, path: &str, answer: &Answer) -> String {
    let bare = path.split('?').next().unwrap_or_default();
    let mut found: Vec<(String, String, Value)> =
        operations(document).into_iter().filter(|(known, of, _)| known == method && alike(of, bare)).collect();
    // The one that says most of it literally.
    found.sort_by_key(|(_, of, _)| of.matches('{').count());
    let (.., operation) = found.first().unwrap_or_else(|| panic!("{method} {path} is not in the file"));
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{method} {path}: the file does not know status {}: {}", answer.status, answer.body);
    let (media, content) = response["content"].as_object().and_then(|content| content.iter().next()).expect("a content");
    assert!(answer.header("content-type").starts_with(media.as_str()), "{method} {path} is no {media}: {answer:?}");
    if media == "application/json"
        && let Err(why) = check(document, &content["schema"], &answer.json(), &format!("{method} {path}"))
    {
        panic!("{why}");
    }
    operation["operationId"].to_string()
}
