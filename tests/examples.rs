//! `config/examples/`: each is a configuration that works, and does what its first line says.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hve_relay::config::{Config, Kind};
use hve_relay::mail::{Class, ClientName, Priority};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

/// The RSA key of an application's certificate: making one takes too long.
const APP_KEY: &str = include_str!("support/app.key");

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")
}

/// An example in a folder of its own, with the files that it names in the place of /etc/hve-relay.
fn placed(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().to_str().expect("UTF-8");
    let text = fs::read_to_string(examples().join(name)).expect("readable").replace("/etc/hve-relay", dir);
    fs::create_dir(folder.path().join("secrets")).expect("a folder");
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("mode set");
    };
    for n in 1..=20 {
        write(&format!("secrets/hve{n:02}.password"), "not-a-real-one\n");
    }
    let relay = rcgen::generate_simple_self_signed(["relay.contoso.com".to_owned()]).expect("a certificate");
    write("relay.pem", &relay.cert.pem());
    write("secrets/relay.key", &relay.signing_key.serialize_pem());
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    write("app.pem", &params.self_signed(&KeyPair::from_pem(APP_KEY).expect("a key")).expect("a certificate").pem());
    write("secrets/app.key", APP_KEY);
    write("hve-relay.toml", &text);
    let path = folder.path().join("hve-relay.toml");
    (folder, path)
}

fn loaded(name: &str) -> Config {
    let (_folder, path) = placed(name);
    let (config, warnings) = Config::load(&path).unwrap_or_else(|problems| panic!("{name}: {problems}"));
    assert!(warnings.is_empty(), "{name}: {warnings:?}");
    config
}

#[test]
fn every_example_passes_check() {
    let names: BTreeSet<String> = fs::read_dir(examples())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert_eq!(names.len(), 5, "{names:?}");
    for name in names {
        let (_folder, path) = placed(&name);
        let output = Command::new(env!("CARGO_BIN_EXE_hve-relay")).args(["check", "--config"]).arg(&path).output().expect("it runs");
        let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // What else listens on this machine, and whether its user may, is no fault of the example.
        let faults: Vec<&str> = said.lines().filter(|line| !line.starts_with("warning: listener ")).collect();
        assert!(output.status.success() && faults.is_empty(), "{name}: {said}");
        assert!(told.contains("Internal is contoso.com"), "{name}: {told}");
    }
}

#[test]
fn one_printer_goes_through_one_account() {
    let config = loaded("one-printer.toml");
    assert_eq!((config.intake.clients.len(), config.logins.len()), (1, 1));
    assert_eq!(config.unrouted(), [Class::External]);
}

#[test]
fn twenty_accounts_carry_mail_of_three_priorities() {
    let config = loaded("twenty-accounts.toml");
    assert_eq!(config.logins.len(), 20);
    let priorities: BTreeSet<&str> = config
        .intake
        .clients
        .iter()
        .map(|client| match client.priority {
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Bulk => "bulk",
        })
        .collect();
    assert_eq!(priorities.len(), 3);
    let newsletter = config.schedule.clients.iter().find(|client| client.name == ClientName::new("newsletter")).expect("a client");
    assert_eq!(newsletter.accounts.as_ref().map(Vec::len), Some(4));
}

#[test]
fn general_availability_logs_in_with_an_application_alone() {
    let config = loaded("ga-oauth.toml");
    assert_eq!((config.apps.len(), config.logins.len()), (1, 3));
    assert!(config.logins.values().all(|login| login.proof.app().is_some()));
    assert_eq!(config.users.len(), 1);
}

#[test]
fn external_mail_of_one_client_leaves_through_a_connector() {
    let config = loaded("external-by-connector.toml");
    let policy = hve_relay::intake::Policy::new(config.intake.clone());
    let way = |client: &str, class, size| policy.way(&ClientName::new(client), class, size).map(|route| route.name.to_string());
    assert_eq!(way("devices", Class::Internal, 1_000).as_deref(), Some("hve"));
    assert_eq!(way("devices", Class::Internal, 20 << 20).as_deref(), Some("large"));
    assert_eq!(way("devices", Class::External, 1_000), None);
    assert_eq!(way("billing", Class::External, 1_000).as_deref(), Some("external"));
    assert_eq!(config.routes.iter().filter(|route| route.kind == Kind::Connector).count(), 2);
}

#[test]
fn a_balancer_is_believed_on_one_port_alone() {
    let config = loaded("behind-a-balancer.toml");
    let ports: Vec<(u16, usize)> = config.listeners.iter().map(|listener| (listener.address.port(), listener.proxy_from.len())).collect();
    assert_eq!(ports, [(2525, 2), (25, 0)]);
    assert_eq!(config.schedule.tenant.recipients_per_day, Some(50_000));
}
