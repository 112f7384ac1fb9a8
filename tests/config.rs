//! The configuration from outside: the reference is complete, the example works, and every mistake is told as it should be.
//!
//! `tests/config/*.toml` are configurations with something wrong. Each ends with what the relay says about it, one line behind `#> ` for each
//! problem or warning; `@DIR@` stands for a folder that the test fills (see [`folder`]).

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hve_relay::budget::Share;
use hve_relay::budget::{Limits, Unit};
use hve_relay::clock::Clock;
use hve_relay::config::{Config, Credentials, Form, HVE_GA, HVE_PREVIEW, Problems, Proof, SCHEMA, Tls};
use hve_relay::intake::{ClientSettings, LineEndings, Pattern};
use hve_relay::mail::{AccountName, AppName, Class, ClientName, DisplayName, Priority, Sender, SenderPolicy, Signatures};
use hve_relay::schedule::{Affinity, OnDoubt};
use hve_relay::session::{self, Auth, Entrance};
use hve_relay::upstream::oauth::{ClientProof, SecretPlace};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

const REFERENCE: &str = include_str!("../config/hve-relay.toml");
/// The RSA key of an application's certificate: making one takes too long.
const APP_KEY: &str = include_str!("support/app.key");
/// In every secret of these tests; it must never be in an output.
const MARKER: &str = "Pa55word";

/// The example that the documentation gives as the least that works.
const LEAST: &str = r#"
data_dir = "/var/lib/hve-relay"
[tenant]
profile = "hve-preview"
accepted_domains = ["contoso.com"]
[[listener]]
address = "0.0.0.0:25"
[[client]]
name = "devices"
networks = ["10.20.0.0/16", "127.0.0.0/8"]
[[account]]
address = "hve01@contoso.com"
password_file = "/etc/hve-relay/hve01.password"
"#;

/// A folder with the files that configurations name.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode set");
    };
    write("good.password", &format!("{MARKER}-1\n"), 0o600);
    write("group.password", &format!("{MARKER}-2\r\n"), 0o640);
    write("open.password", &format!("{MARKER}-3\n"), 0o644);
    write("empty.password", "\n", 0o600);
    write("two-lines.password", &format!("{MARKER}\n{MARKER}\n"), 0o600);
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    write("ca.pem", &key.cert.pem(), 0o644);
    write("client.pem", &key.cert.pem(), 0o644);
    write("client.key", &key.signing_key.serialize_pem(), 0o640);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    write("other.key", &other.signing_key.serialize_pem(), 0o600);
    write("relay.pem", &format!("{}{}", key.cert.pem(), key.signing_key.serialize_pem()), 0o640);
    write("relay.key", &key.signing_key.serialize_pem(), 0o600);
    write("open.key", &key.signing_key.serialize_pem(), 0o644);
    write("foreign.key", &rcgen::KeyPair::generate().expect("a key").serialize_pem(), 0o600);
    write("not-pem.pem", "no certificate\n", 0o644);
    write("admin.token", &format!("{MARKER}-of-a-program-6\n"), 0o600);
    write("short.token", &format!("{MARKER}-7\n"), 0o600);
    write("app.secret", &format!("{MARKER}-5\n"), 0o600);
    write("app.key", APP_KEY, 0o600);
    write("open.key", APP_KEY, 0o644);
    write("curve.key", &key.signing_key.serialize_pem(), 0o600);
    write("app.pem", &app_certificate((2099, 1, 1)), 0o644);
    write("ended.pem", &app_certificate((2021, 1, 1)), 0o644);
    for sub in ["conf.d", "wrong.d", "open.d"] {
        fs::create_dir(folder.path().join(sub)).expect("a folder");
    }
    write("conf.d/10-erp.toml", "[[client]]\nname = \"erp\"\nnetworks = [\"10.30.0.0/16\"]\n", 0o644);
    write("conf.d/.20-hidden.toml", "nonsense\n", 0o644);
    write("conf.d/10-erp.toml~", "nonsense\n", 0o644);
    write("wrong.d/10-top.toml", "data_dir = \"/x\"\ninclude = [\"more.toml\"]\n[tenant]\nprofile = \"hve-ga\"\n", 0o644);
    write("wrong.d/20-list.toml", "[client]\nname = \"one\"\n", 0o644);
    write("wrong.d/30-text.toml", "[[client]]\nname = Pa55word\n", 0o644);
    write("open.d/10-client.toml", "# ok\n", 0o644);
    write("double.toml", "# more of the same\n\n[[client]]\nname = \"devices\"\nnetworks = [\"10.20.0.0/33\"]\n", 0o644);
    write("open.toml", "\n", 0o646);
    fs::write(folder.path().join("latin1.toml"), b"# ok\n# M\xfcnchen\n").expect("written");
    fs::set_permissions(folder.path().join("open.d"), Permissions::from_mode(0o777)).expect("mode set");
    write("bad.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o644);
    folder
}

/// For the application's key, until the beginning of a day.
fn app_certificate((year, month, day): (i32, u8, u8)) -> String {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(year, month, day));
    params.self_signed(&KeyPair::from_pem(APP_KEY).expect("a key")).expect("a certificate").pem()
}

fn password(credentials: &Credentials) -> &str {
    match &credentials.proof {
        Proof::Password(password) => password.expose(),
        Proof::App(app) => panic!("{app} in place of a password"),
    }
}

fn load(text: &str, folder: &TempDir) -> Result<(Config, Vec<String>), Problems> {
    let dir = folder.path().to_str().expect("UTF-8");
    let text = text.replace("@DIR@", dir).replace("/etc/hve-relay/hve01.password", &format!("{dir}/good.password"));
    let (config, warnings) = Config::from_str(&text, Path::new("hve-relay.toml"))?;
    Ok((config, warnings.iter().map(ToString::to_string).collect()))
}

/// The reference line by line: (table, key, line) for live and commented keys; headers have an empty key.
fn reference_keys() -> Vec<(String, String, &'static str)> {
    let mut table = String::new();
    let mut keys = Vec::new();
    for line in REFERENCE.lines() {
        let text = uncommented(line);
        if let Some(header) = text.strip_prefix('[').map(|header| header.trim_end_matches(EXAMPLE)) {
            table = header.trim_matches(['[', ']']).to_owned();
            keys.push((table.clone(), String::new(), line));
        } else if let Some((key, _)) = text.split_once(" = ").filter(|_| !text.starts_with('#')) {
            keys.push((table.clone(), key.to_owned(), line));
        }
    }
    keys
}

/// The line without the mark that comments its key or header out; prose stays a comment.
fn uncommented(line: &str) -> &str {
    let word = |text: &str| text.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    line.strip_prefix("# ")
        .filter(|text| word(text) || (text.starts_with('[') && text.trim_end_matches(EXAMPLE).ends_with(']')))
        .unwrap_or(line)
}

/// How a line ends that is not the default.
const EXAMPLE: &str = "  # (example)";

fn is_example(line: &str) -> bool {
    line.ends_with(EXAMPLE)
}

#[test]
fn the_example_works() {
    let (config, _) = load(LEAST, &folder()).expect("no problem");
    let listener = &config.listeners[0];
    assert_eq!((listener.address, &listener.entrance), ("0.0.0.0:25".parse().expect("address"), &Entrance::default()));
    assert_eq!(config.intake.accepted_domains, ["contoso.com"]);
    assert_eq!(config.intake.clients.len(), 1);
    assert_eq!(config.intake.routes.len(), 1);
    assert_eq!(config.intake.routes[0].takes, [Class::Internal, Class::External]);
    let route = &config.routes[0];
    assert_eq!((route.host.as_str(), route.port), (HVE_PREVIEW.host, 587));
    let login = &config.logins[&AccountName::new("hve01@contoso.com")];
    assert_eq!((login.user.as_str(), password(login)), ("hve01@contoso.com", "Pa55word-1"));
    assert_eq!(
        config.to_string(),
        "1 listener, 1 client, 1 account; internal and external mail goes to smtp-hve.office365.com:587. \
         Internal is contoso.com. Messages up to 10 MiB are kept in /var/lib/hve-relay for at most 5d."
    );
}

#[test]
fn the_live_lines_of_the_reference_are_the_example() {
    let live = |text: &'static str| text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect::<Vec<_>>();
    assert_eq!(live(REFERENCE), live(LEAST));
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let known: BTreeSet<(String, String)> =
        SCHEMA.iter().flat_map(|table| table.keys.iter().map(|key| (table.name.to_owned(), (*key).to_owned()))).collect();
    let shown: Vec<(String, String)> =
        reference_keys().into_iter().filter(|(_, key, _)| !key.is_empty()).map(|(table, key, _)| (table, key)).collect();
    let once: BTreeSet<(String, String)> = shown.iter().cloned().collect();
    assert_eq!(once.len(), shown.len(), "a key stands in the reference twice");
    assert_eq!(once, known);
    for (table, key, line) in reference_keys() {
        let Some(schema) = SCHEMA.iter().find(|schema| schema.name == table && key.is_empty()) else { continue };
        let header = if schema.form == Form::Many { format!("[[{table}]]") } else { format!("[{table}]") };
        assert_eq!(uncommented(line).trim_end_matches(EXAMPLE), header);
    }
}

#[test]
fn the_defaults_of_the_reference_are_the_real_ones() {
    let folder = folder();
    let reference = REFERENCE.replace(app_of_the_reference(), "");
    let all: Vec<&str> = reference.lines().map(|line| if is_example(line) { line } else { uncommented(line) }).collect();
    let (spelled_out, warnings) = load(&all.join("\n"), &folder).expect("no problem");
    let (least, _) = load(LEAST, &folder).expect("no problem");
    assert_eq!(spelled_out, least);
    assert!(!warnings.iter().any(|warning| !warning.contains("hostname")), "{warnings:?}");
    let (without_profile, _) = load(&LEAST.replace("profile = \"hve-preview\"\n", ""), &folder).expect("no problem");
    assert_eq!(without_profile, least);
}

#[test]
fn the_examples_of_the_reference_can_be_written() {
    let folder = folder();
    let reference = REFERENCE.replace(app_of_the_reference(), "");
    let keys: Vec<_> = reference_keys().into_iter().filter(|(.., line)| reference.contains(line)).collect();
    // A table that is an example itself is one with all its lines.
    let whole: BTreeSet<&str> =
        keys.iter().filter(|(_, key, line)| key.is_empty() && is_example(line)).map(|(table, ..)| table.as_str()).collect();
    // The same line may stand in several tables.
    let mut place = String::new();
    let lines: Vec<(String, &str)> = reference
        .lines()
        .map(|line| {
            if let Some(header) = uncommented(line).trim_end_matches(EXAMPLE).strip_prefix('[') {
                place = header.trim_matches(['[', ']']).to_owned();
            }
            (place.clone(), line)
        })
        .collect();
    for (table, key, line) in keys.iter().filter(|(.., line)| is_example(line)) {
        let text: Vec<&str> = lines
            .iter()
            .map(|(place, other)| {
                let is_wanted = place == table && (other == line || whole.contains(table.as_str()));
                let together = is_wanted
                    || (key.starts_with("client_") && other.starts_with("# client_"))
                    || (place == table && table == "admin" && key == "key_file" && other.starts_with("# certificate_file"));
                if together || (matches!(table.as_str(), "route" | "notices" | "log" | "admin") && !is_example(other)) {
                    uncommented(other)
                } else {
                    other
                }
            })
            // A password has one place.
            .filter(|other| {
                let is_of_account = table == "account" && (key.starts_with("password_") || key == "app");
                !(is_of_account && other.starts_with("password_file"))
            })
            // So has a token.
            .filter(|other| {
                let wanted = if key.starts_with("token_") { key.as_str() } else { "token_file" };
                !(table == "admin.token" && other.starts_with("token_") && !other.starts_with(wanted))
            })
            .collect();
        // The files of a certificate are looked at where TLS uses them.
        let tls = match key.as_str() {
            _ if table != "listener" => "",
            "certificate_file" => "\ntls = \"starttls\"",
            "key_file" => "\ntls = \"starttls\"\ncertificate_file = \"@DIR@/relay.pem\"",
            _ => "",
        };
        let app = if key == "app" { uncommented_app(&["tenant_id", "client_secret_file"]) } else { String::new() };
        let text = format!("{}\n{app}", text.join("\n"))
            .replace("/etc/hve-relay/c", "@DIR@/c")
            .replace("/etc/hve-relay/relay.", "@DIR@/relay.")
            .replace("/etc/hve-relay/admin.", "@DIR@/admin.");
        let text = text.replacen("address = \"0.0.0.0:25\"", &format!("address = \"0.0.0.0:25\"{tls}"), 1);
        let problems = load(&text, &folder).err().map(|problems| problems.to_string()).unwrap_or_default();
        let only_not_here = problems.is_empty() || problems.contains("is not set");
        assert!(only_not_here && problems.lines().count() <= 1, "{line}: {problems}");
    }
}

/// The lines of `[[app]]`: it has no default, and says how it is written in several ways.
fn app_of_the_reference() -> &'static str {
    let start = REFERENCE.find("# [[app]]\n").expect("an app");
    &REFERENCE[start..start + REFERENCE[start..].find("\n\n").expect("an end")]
}

/// The same without the marks, and of the keys that exclude each other only these.
fn uncommented_app(chosen: &[&str]) -> String {
    const ALTERNATIVES: &[&str] = &[
        "tenant_id",
        "token_url",
        "client_secret_file",
        "client_secret_credential",
        "client_secret_env",
        "client_secret_expires",
        "certificate_file",
        "key_file",
    ];
    let key = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
    let lines = app_of_the_reference().lines().map(uncommented).filter(|line| !line.starts_with('#'));
    let lines: Vec<&str> =
        lines.filter(|line| !ALTERNATIVES.contains(&key(line).as_str()) || chosen.contains(&key(line).as_str())).collect();
    let files = [("app.secret", "app.secret"), ("app.pem", "app.pem"), ("app.key", "app.key"), ("login-ca.pem", "ca.pem")];
    files.iter().fold(lines.join("\n"), |text, (name, file)| text.replace(&format!("/etc/hve-relay/{name}"), &format!("@DIR@/{file}")))
}

#[test]
fn an_app_is_written_in_each_way_that_the_reference_shows() {
    let folder = folder();
    let account = LEAST.replace("password_file = \"/etc/hve-relay/hve01.password\"", "app = \"hve\"");
    let app = |chosen: &[&str]| {
        let (mut config, _) = load(&format!("{account}{}", uncommented_app(chosen)), &folder).expect("no problem");
        assert_eq!(config.logins.values().next().map(|login| login.proof.clone()), Some(Proof::App(AppName::new("hve"))));
        assert_eq!(config.schedule.accounts[0].app, Some(AppName::new("hve")));
        config.apps.remove(0)
    };
    let secret = app(&["tenant_id", "client_secret_file", "client_secret_expires"]);
    assert!(matches!(&secret.proof, ClientProof::Secret(SecretPlace::File(path)) if path.ends_with("app.secret")), "{secret:?}");
    assert_eq!(secret.token_url.to_string(), "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token");
    assert_eq!(secret.secret_ends.map(|end| end.date()), Some("2099-01-31".to_owned()));
    assert!(matches!(app(&["token_url", "certificate_file", "key_file"]).proof, ClientProof::Certificate { .. }));
    let least =
        "[[app]]\nname = \"hve\"\ntenant_id = \"contoso.onmicrosoft.com\"\nclient_id = \"x\"\nclient_secret_file = \"@DIR@/app.secret\"";
    let (least, _) = load(&format!("{account}{least}"), &folder).expect("no problem");
    assert_eq!(
        (&least.apps[0].scope, least.apps[0].renew_before),
        (&secret.scope, secret.renew_before),
        "the defaults are those that are told"
    );
}

#[test]
fn a_certificate_that_ends_soon_is_a_warning_with_its_day() {
    let folder = folder();
    let (end, date) = in_days(10);
    fs::write(folder.path().join("app.pem"), app_certificate(end)).expect("written");
    let account = LEAST.replace("password_file = \"/etc/hve-relay/hve01.password\"", "app = \"hve\"");
    let app = uncommented_app(&["tenant_id", "certificate_file", "key_file"]);
    let (_, warnings) = load(&format!("{account}{app}"), &folder).expect("no problem");
    assert!(warnings.iter().any(|warning| warning.contains(&format!("ends within 10 days, on {date}"))), "{warnings:?}");
}

/// The day in so many days, in UTC: its year, month and day, and as it is written.
fn in_days(days: u64) -> ((i32, u8, u8), String) {
    let date = (Clock::wall() + Duration::from_secs(days * 86_400)).date();
    let parts: Vec<i32> = date.split('-').map(|part| part.parse().expect("a number")).collect();
    ((parts[0], parts[1] as u8, parts[2] as u8), date)
}

/// A date is what no key takes: whoever reads the key says so.
#[test]
fn every_known_key_is_read() {
    let folder = folder();
    let date: toml::Value = "d = 1979-05-27".parse::<toml::Table>().expect("TOML")["d"].clone();
    for table in SCHEMA {
        for key in table.keys {
            let mut text: toml::Table = LEAST.parse().expect("TOML");
            match table.form {
                Form::Top => text.insert((*key).to_owned(), date.clone()),
                Form::One => {
                    let entry = text.entry(table.name).or_insert_with(|| toml::Table::new().into());
                    entry.as_table_mut().expect("a table").insert((*key).to_owned(), date.clone())
                }
                Form::Many => {
                    let route: toml::Table = "name = \"hve\"\nhost = \"localhost\"".parse().expect("TOML");
                    // `admin.user` is in `admin`.
                    let (place, name) = match table.name.split_once('.') {
                        None => (&mut text, table.name),
                        Some((outer, name)) => {
                            let outer = text.entry(outer).or_insert_with(|| toml::Table::new().into());
                            (outer.as_table_mut().expect("a table"), name)
                        }
                    };
                    let entry = place.entry(name).or_insert_with(|| vec![route].into());
                    entry[0].as_table_mut().expect("a table").insert((*key).to_owned(), date.clone())
                }
            };
            let dotted = match table.form {
                Form::Top => (*key).to_owned(),
                Form::One => format!("{}.{key}", table.name),
                Form::Many => format!("{}[0].{key}", table.name),
            };
            let problems = load(&text.to_string(), &folder).expect_err(&dotted);
            assert!(problems.list().iter().any(|problem| problem.key == dotted && problem.found != "unknown key"), "{dotted}: {problems}");
        }
    }
}

#[test]
fn every_mistake_is_told_as_it_should_be() {
    let folder = folder();
    let dir = folder.path().to_str().expect("UTF-8");
    let mut wrong = Vec::new();
    let mut files = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("readable");
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#> ")).collect();
        let said: Vec<String> = match load(&text, &folder) {
            Ok((_, warnings)) => warnings,
            Err(problems) => problems.to_string().lines().map(str::to_owned).collect(),
        };
        let said: Vec<String> = said.iter().map(|line| line.replace(dir, "@DIR@")).collect();
        assert!(!said.iter().any(|line| line.contains(MARKER)), "{}: a secret is shown: {said:#?}", path.display());
        if said != expected || said.is_empty() {
            let lines: Vec<String> = said.iter().map(|line| format!("#> {line}")).collect();
            wrong.push(format!("{} says\n{}", path.display(), lines.join("\n")));
        }
        files += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(files >= 30, "only {files} configurations found");
}

#[test]
fn several_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = LEAST.replace("profile", "profil").replace(":25", "").replace("10.20.0.0/16", "10.20.0.0/33").replace("hve01@", "");
    let problems = load(&text, &folder()).expect_err("problems");
    let lines: Vec<(usize, &str)> = problems.list().iter().map(|problem| (problem.line, problem.key.as_str())).collect();
    assert_eq!(lines, [(4, "tenant.profil"), (7, "listener[0].address"), (10, "client[0].networks[0]"), (12, "account[0].address")]);
    assert_eq!(problems.exit_status(), 78);
}

#[test]
fn no_damage_to_a_file_is_the_end_of_the_program() {
    let folder = folder();
    let text = LEAST.replace("devices", "größe");
    let lines: Vec<&str> = text.lines().collect();
    for (at, _) in text.char_indices() {
        let (head, tail) = text.split_at(at);
        let _ = load(head, &folder);
        let _ = load(&format!("{head}[{tail}"), &folder);
        let _ = load(&format!("{head}\"{tail}"), &folder);
    }
    for left_out in 1..lines.len() {
        let rest: Vec<&str> = lines.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, line)| *line).collect();
        let _ = load(&rest.join("\n"), &folder);
    }
}

#[test]
fn a_configuration_never_shows_a_password() {
    let (config, _) = load(LEAST, &folder()).expect("no problem");
    assert!(!format!("{config:?} {config}").contains(MARKER));
}

#[test]
fn general_availability_has_no_external_mail() {
    let (config, _) = load(&LEAST.replace("hve-preview", "hve-ga"), &folder()).expect("no problem");
    assert_eq!(config.intake.routes[0].takes, [Class::Internal]);
    assert_eq!(config.unrouted(), [Class::External]);
    assert_eq!(config.routes[0].host, HVE_GA.host);
    let shown = config.to_string();
    assert!(shown.contains("mail to anywhere else is refused"), "{shown}");
}

#[test]
fn routes_share_the_classes_and_the_accounts() {
    let text = format!(
        "{LEAST}{}",
        r#"
        [[account]]
        address = "Relay@Contoso.com"
        password_file = "@DIR@/group.password"
        route = "elsewhere"
        connections = 2
        [[route]]
        name = "hve"
        host = "127.0.0.1"
        port = 2587
        tls_ca_file = "@DIR@/ca.pem"
        tls_server_name = "smtp-hve.office365.com"
        takes = ["internal"]
        [[route]]
        name = "elsewhere"
        host = "smtp.example.net"
        takes = ["external"]
        "#
    );
    let folder = folder();
    let (config, _) = load(&text, &folder).expect("no problem");
    let routes: Vec<(&str, &[Class])> = config.intake.routes.iter().map(|route| (route.name.as_str(), &route.takes[..])).collect();
    assert_eq!(routes, [("hve", &[Class::Internal][..]), ("elsewhere", &[Class::External])]);
    let accounts: Vec<(&str, &str, usize)> =
        config.schedule.accounts.iter().map(|account| (account.name.as_str(), account.route.as_str(), account.connections)).collect();
    assert_eq!(accounts, [("hve01@contoso.com", "hve", 4), ("relay@contoso.com", "elsewhere", 2)]);
    assert_eq!(password(&config.logins[&AccountName::new("relay@contoso.com")]), "Pa55word-2");
    assert_eq!(config.routes[0].server_name.to_str(), "smtp-hve.office365.com");
    assert_eq!((config.routes[1].port, config.routes[1].server_name.to_str()), (587, "smtp.example.net".into()));
}

#[test]
fn a_kind_of_route_says_what_is_known_of_its_server() {
    let text = format!(
        "{}{}",
        LEAST.replace("hve-preview", "hve-ga"),
        r#"
        [[account]]
        address = "relay@contoso.com"
        password_file = "@DIR@/good.password"
        route = "office365"
        [[route]]
        name = "office365"
        kind = "office365"
        clients = ["devices"]
        message_size = "100 KiB"
        [[route]]
        name = "connector"
        kind = "connector"
        host = "contoso-com.mail.protection.outlook.com"
        client_certificate_file = "@DIR@/client.pem"
        client_key_file = "@DIR@/client.key"
        messages_per_minute = 100
        connections = 7
        [[route]]
        name = "smarthost"
        kind = "smarthost"
        host = "smtp.example.net"
        tls = "implicit"
        size_over = "35 MiB"
        message_size = "50 MiB"
        sender = "noreply@contoso.com"
        [account_limits]
        recipients_per_day = 5000
        minute = "30s"
        "#
    );
    let (config, _) = load(&text, &folder()).expect("no problem");
    let servers: Vec<(&str, &str, u16, Tls)> =
        config.routes.iter().map(|route| (route.name.as_str(), route.host.as_str(), route.port, route.tls)).collect();
    assert_eq!(
        servers,
        [
            ("hve", HVE_GA.host, 587, Tls::Required),
            ("office365", "smtp.office365.com", 587, Tls::Required),
            ("connector", "contoso-com.mail.protection.outlook.com", 25, Tls::Required),
            ("smarthost", "smtp.example.net", 465, Tls::Implicit),
        ],
        "HVE is there without being written, and first"
    );
    let accounts: Vec<_> =
        config.schedule.accounts.iter().map(|account| (account.name.as_str(), account.connections, &account.limits)).collect();
    let minute = Limits { minute: Duration::from_secs(30), ..Limits::NONE };
    assert_eq!(
        accounts,
        [
            ("hve01@contoso.com", 4, &Limits { recipients_per_day: Some(5_000), ..minute.clone() }),
            ("relay@contoso.com", 3, &Limits { recipients_per_day: Some(10_000), messages_per_minute: Some(30), ..minute.clone() }),
            ("connector", 7, &Limits { messages_per_minute: Some(100), ..minute.clone() }),
            ("smarthost", 4, &minute),
        ],
        "a route without accounts stands for itself"
    );
    assert_eq!(config.schedule.apart.iter().map(|route| route.as_str()).collect::<Vec<_>>(), ["office365", "connector", "smarthost"]);
    let senders: Vec<&SenderPolicy> = config.routes.iter().map(|route| &route.sender).collect();
    let fixed = SenderPolicy::Fixed("noreply@contoso.com".parse().expect("a mailbox"));
    assert_eq!(senders, [&SenderPolicy::Account, &SenderPolicy::Account, &SenderPolicy::Keep, &fixed]);
    let most: Vec<usize> = config.intake.routes.iter().map(|route| route.most(Class::External)).collect();
    assert_eq!(most, [50, 500, 100, 100]);
    assert_eq!(config.session.message_size, 50 << 20, "the largest that a route takes");
    let shown = config.to_string();
    for part in [
        "route \"hve\": internal mail goes to smtp.hve.mx.microsoft:587;",
        "route \"office365\": internal and external mail from devices up to 100 KiB goes to smtp.office365.com:587;",
        "up to 35 MiB goes to contoso-com.mail.protection.outlook.com:25, showing ",
        "over 35 MiB up to 50 MiB goes to smtp.example.net:465, with TLS from the first octet.",
    ] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
}

#[test]
fn a_relay_without_high_volume_email_needs_no_account() {
    let text = LEAST.split("[[account]]").next().unwrap_or_default();
    let connector = "[[route]]\nname = \"connector\"\nkind = \"connector\"\nhost = \"contoso-com.mail.protection.outlook.com\"\n";
    let (config, _) = load(&format!("{text}{connector}"), &folder()).expect("no problem");
    assert_eq!(config.routes.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(), ["connector"]);
    assert_eq!(config.schedule.accounts.len(), 1);
    assert!(config.logins.is_empty());
}

#[test]
fn each_profile_has_its_own_limits() {
    let limits = |text: &str| {
        let (config, _) = load(text, &folder()).expect("no problem");
        (config.schedule.accounts[0].limits.clone(), config.schedule.tenant)
    };
    let preview = Limits {
        recipients_per_day: Some(100_000),
        external_recipients_per_day: Some(2_000),
        external_per_minute: Some((10, Unit::Messages)),
        ..Limits::NONE
    };
    assert_eq!(limits(LEAST), (preview, Limits { recipients_per_day: Some(100_000), ..Limits::NONE }));
    assert_eq!(limits(&LEAST.replace("hve-preview", "hve-ga")), (Limits::NONE, Limits::NONE));
}

#[test]
fn an_account_starts_from_the_limits_of_all_accounts() {
    let text = format!(
        "{LEAST}{}",
        r#"
        [[account]]
        address = "hve02@contoso.com"
        password_file = "@DIR@/good.password"
        external_recipients_per_day = "none"
        external_per_minute = 4
        minimum_pause = "none"
        [account_limits]
        recipients_per_day = 500
        external_per_minute_unit = "recipients"
        messages_per_minute = 30
        minimum_pause = "200ms"
        day = "2h"
        minute = "5s"
        [tenant_limits]
        recipients_per_day = "none"
        external_per_minute = 100
        day = "3h"
        "#
    );
    let (config, _) = load(&text, &folder()).expect("no problem");
    let every = Limits {
        recipients_per_day: Some(500),
        external_recipients_per_day: Some(2_000),
        external_per_minute: Some((10, Unit::Recipients)),
        messages_per_minute: Some(30),
        minimum_pause: Some(Duration::from_millis(200)),
        day: Duration::from_secs(7_200),
        minute: Duration::from_secs(5),
    };
    let own = Limits {
        external_recipients_per_day: None,
        external_per_minute: Some((4, Unit::Recipients)),
        minimum_pause: None,
        ..every.clone()
    };
    let limits: Vec<Limits> = config.schedule.accounts.iter().map(|account| account.limits.clone()).collect();
    assert_eq!(limits, [every, own]);
    let tenant = Limits { external_per_minute: Some((100, Unit::Messages)), day: Duration::from_secs(10_800), ..Limits::NONE };
    assert_eq!(config.schedule.tenant, tenant);
    // What is counted in recipients sets the size of external deliveries, so that the strictest account can take each of them.
    let route = &config.intake.routes[0];
    assert_eq!((route.most(Class::Internal), route.most(Class::External)), (50, 4));
}

#[test]
fn only_accounts_that_send_outside_set_the_size_of_external_deliveries() {
    let text = format!(
        "{LEAST}external_per_minute_unit = \"recipients\"{}",
        r#"
        [[account]]
        address = "relay@contoso.com"
        password_file = "@DIR@/good.password"
        route = "elsewhere"
        [[route]]
        name = "hve"
        host = "smtp-hve.office365.com"
        takes = ["internal"]
        [[route]]
        name = "elsewhere"
        host = "smtp.example.net"
        takes = ["external"]
        "#
    );
    let size = |text: &str| load(text, &folder()).expect("no problem").0.intake.routes[1].external_recipients_per_delivery;
    assert_eq!(size(&text), None);
    assert_eq!(size(&format!("{text}\n[account_limits]\nexternal_per_minute_unit = \"recipients\"")), Some(10));
    assert_eq!(size(&format!("{text}\n[tenant_limits]\nexternal_per_minute_unit = \"recipients\"\nexternal_per_minute = 7")), Some(7));
}

#[test]
fn clients_are_treated_as_it_is_written() {
    let client = r#"
        priority = "high"
        may_choose_priority = true
        weight = 7
        accounts = ["HVE01@contoso.com"]
        affinity = "author"
        in_doubt = "hold"
    "#;
    let text = LEAST.replace("[[account]]", &format!("{client}[[account]]")).replace("[tenant]", "[tenant]\nreserve = \"15%\"");
    let (config, _) = load(&text, &folder()).expect("no problem");
    let (intake, schedule) = (&config.intake.clients[0], &config.schedule.clients[0]);
    assert_eq!((intake.priority, intake.may_choose_priority), (Priority::High, true));
    assert_eq!((&schedule.name, schedule.weight, schedule.affinity), (&intake.name, 7, Affinity::Author));
    assert_eq!(schedule.accounts, Some(vec![AccountName::new("hve01@contoso.com")]));
    assert_eq!(config.schedule.reserve, Share::percent(15));
    assert_eq!(config.schedule.in_doubt(&schedule.name), OnDoubt::Hold);

    let (config, _) = load(LEAST, &folder()).expect("no problem");
    let (intake, schedule) = (&config.intake.clients[0], &config.schedule.clients[0]);
    assert_eq!((intake.priority, intake.may_choose_priority), (Priority::Normal, false));
    assert_eq!((schedule.weight, schedule.affinity, &schedule.accounts), (1, Affinity::Client, &None));
    assert_eq!(config.schedule.reserve, Share::NONE);
    assert_eq!(config.schedule.in_doubt(&schedule.name), OnDoubt::Resend);
    let (config, _) = load(&format!("{LEAST}[queue]\nin_doubt = \"hold\""), &folder()).expect("no problem");
    assert_eq!(config.schedule.in_doubt(&config.schedule.clients[0].name), OnDoubt::Hold);
}

#[test]
fn a_client_sends_as_it_says_or_as_all_do() {
    let route = "[[route]]\nname = \"hve\"\nhost = \"smtp.example.net\"\nsender = \"keep\"\n";
    let second =
        "[[client]]\nname = \"erp\"\nnetworks = [\"10.30.0.0/16\"]\nsender = \"noreply@contoso.com\"\ndkim_signature = \"remove\"\n";
    let every = "[sender]\ndisplay_name = \"{author_name} via {client}\"\ndkim_signature = \"keep\"\n";
    let (config, warnings) = load(&format!("{LEAST}{route}{second}{every}"), &folder()).expect("no problem");
    assert!(!warnings.iter().any(|warning| warning.contains("sender")), "{warnings:?}");
    assert_eq!(config.routes[0].sender, SenderPolicy::Keep);
    let display_name: DisplayName = "{author_name} via {client}".parse().expect("a name");
    let every = Sender { policy: None, display_name, signatures: Signatures::Keep };
    for name in ["devices", "gone"] {
        assert_eq!(config.senders.of(&ClientName::new(name)), &every, "{name}");
    }
    let fixed = SenderPolicy::Fixed("noreply@contoso.com".parse().expect("a mailbox"));
    assert_eq!(config.senders.of(&ClientName::new("erp")), &Sender { policy: Some(fixed), signatures: Signatures::Remove, ..every });

    let (config, _) = load(LEAST, &folder()).expect("no problem");
    assert_eq!(config.routes[0].sender, SenderPolicy::Account);
    assert_eq!(config.senders.of(&ClientName::new("devices")), &Sender::default());
}

#[test]
fn clients_keep_to_the_rules_that_are_written_for_them() {
    let rules = r#"
        allowed_senders = ["Scan@contoso.com", "@Printers.contoso.com"]
        allowed_recipients = ["@contoso.com"]
        required_from_domain = "Contoso.com"
        connections_per_minute = 60
        messages_per_minute = 30
        recipients_per_minute = "none"
        message_size = "1 MiB"
        line_endings = "refuse"
        ehlo_keywords_hidden = ["smtputf8", "PIPELINING"]
    "#;
    let (config, warnings) = load(&LEAST.replace("[[account]]", &format!("{rules}[[account]]")), &folder()).expect("no problem");
    assert!(!warnings.iter().any(|warning| warning.contains("client")), "{warnings:?}");
    let client = &config.intake.clients[0];
    let expected = ClientSettings {
        allowed_senders: Some(vec![
            Pattern::Mailbox("Scan@contoso.com".parse().expect("a mailbox")),
            Pattern::Domain("printers.contoso.com".to_owned()),
        ]),
        allowed_recipients: Some(vec![Pattern::Domain("contoso.com".to_owned())]),
        required_from_domain: Some(vec!["contoso.com".to_owned()]),
        connections_per_minute: NonZeroU32::new(60),
        messages_per_minute: NonZeroU32::new(30),
        message_size: Some(1 << 20),
        line_endings: LineEndings::Refuse,
        ehlo_keywords_hidden: vec!["SMTPUTF8".to_owned(), "PIPELINING".to_owned()],
        ..ClientSettings::new(client.name.clone(), client.networks.clone())
    };
    assert_eq!(*client, expected);
    let several = LEAST.replace("[[account]]", "required_from_domain = [\"a.example\", \"b.example\"]\n[[account]]");
    let (config, _) = load(&several, &folder()).expect("no problem");
    assert_eq!(config.intake.clients[0].required_from_domain, Some(vec!["a.example".to_owned(), "b.example".to_owned()]));
}

#[test]
fn listeners_have_rules_of_their_own() {
    let text = LEAST.replace(
        "[[client]]",
        r#"
        proxy_from = ["10.0.0.5", "2001:db8::/64"]
        [[listener]]
        address = "[::]:465"
        tls = "implicit"
        certificate_file = "@DIR@/relay.pem"
        auth = "required"
        clients = ["erp"]
        [[listener]]
        address = "127.0.0.1:587"
        tls = "starttls-required"
        certificate_file = "@DIR@/ca.pem"
        key_file = "@DIR@/relay.key"
        auth = "offered"
        [[user]]
        name = "SAP"
        password_hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$y3jCvE+mWJn/bnWbTJhQFbMGD3FgpUTI7xLLv7XhyMw"
        client = "erp"
        [[client]]
        name = "erp"
        allow_plaintext_auth = true
        [[client]]"#,
    );
    let folder = folder();
    let (config, warnings) = load(&text, &folder).expect("no problem");
    use session::Tls;
    let rules: Vec<(Tls, Auth)> = config.listeners.iter().map(|listener| (listener.entrance.tls, listener.entrance.auth)).collect();
    assert_eq!(rules, [(Tls::None, Auth::None), (Tls::Implicit, Auth::Required), (Tls::StartTlsRequired, Auth::Offered)]);
    assert_eq!(config.listeners[0].proxy_from.len(), 2);
    assert_eq!(config.listeners[1].entrance.clients, Some(vec![ClientName::new("erp")]));
    let files = |i: usize| config.listeners[i].certificate.as_ref().map(|files| (files.chain.clone(), files.key.clone()));
    let file = |name: &str| folder.path().join(name);
    assert_eq!(files(0), None);
    assert_eq!(files(1), Some((file("relay.pem"), file("relay.pem"))));
    assert_eq!(files(2), Some((file("ca.pem"), file("relay.key"))));
    assert_eq!((config.users[0].name.as_str(), config.users[0].client.as_str()), ("SAP", "erp"));
    let erp = &config.intake.clients[0];
    assert!(erp.allow_plaintext_auth && erp.networks.is_empty() && !config.intake.clients[1].allow_plaintext_auth);
    assert!(!warnings.iter().any(|warning| !warning.contains("hostname")), "{warnings:?}");
}

#[test]
fn the_control_socket_is_in_the_data_directory_unless_it_is_written() {
    let socket = |text: &str| load(text, &folder()).expect("no problem").0.control_socket;
    assert_eq!(socket(LEAST), Path::new("/var/lib/hve-relay/control.sock"));
    assert_eq!(socket(&format!("control_socket = \"/run/x.sock\"\n{LEAST}")), Path::new("/run/x.sock"));
}

#[test]
fn a_file_that_cannot_be_read_is_no_configuration() {
    let folder = folder();
    for (path, reason) in [(folder.path().join("none.toml"), "no such file or directory"), (folder.path().into(), "is a directory")] {
        let problems = Config::load(&path).expect_err("unreadable");
        assert_eq!(problems.to_string(), format!("{}: cannot be read: {reason}", path.display()));
        assert_eq!(problems.exit_status(), 66);
    }
    let path = folder.path().join("latin1.toml");
    fs::write(&path, b"# ok\n# M\xfcnchen\n").expect("written");
    let problems = Config::load(&path).expect_err("not UTF-8");
    assert_eq!(problems.to_string(), format!("{}:2: this is not UTF-8 text: save the file as UTF-8", path.display()));
    assert_eq!(problems.exit_status(), 78);
}

#[test]
fn tables_of_included_files_stand_behind_those_of_the_file_that_includes_them() {
    let folder = folder();
    let file = |name: &str| folder.path().join(name);
    let main = LEAST.replace("/etc/hve-relay/hve01.password", file("good.password").to_str().expect("UTF-8"));
    let text =
        format!("include = [\"b.toml\", \"conf.d/*.toml\", \"*.toml\"]\n{}", main.replace("[tenant]\n", "[tenant]\nreserve = \"5%\"\n"));
    fs::create_dir(file("etc")).expect("a folder");
    let etc = |name: &str, text: &str| fs::write(file("etc").join(name), text).expect("written");
    fs::create_dir(file("etc/conf.d")).expect("a folder");
    etc("hve-relay.toml", &text);
    etc("b.toml", "[[client]]\nname = \"b\"\nnetworks = [\"10.31.0.0/16\"]\n");
    etc("a.toml", "[limits]\nrecipients = 200\n");
    etc("conf.d/20.toml", "[[client]]\nname = \"d\"\nnetworks = [\"10.33.0.0/16\"]\npriority = \"high\"\n");
    etc("conf.d/10.toml", "[[client]]\nname = \"c\"\nnetworks = [\"10.32.0.0/16\"]\n");
    let (config, _) = Config::load(&file("etc/hve-relay.toml")).expect("no problem");
    let names: Vec<&str> = config.intake.clients.iter().map(|client| client.name.as_str()).collect();
    assert_eq!(names, ["devices", "b", "c", "d"]);
    assert_eq!(config.session.recipients, 200);
    // The operator's commands need none of them.
    etc("a.toml", "[limits\n");
    assert!(Config::control_socket(&file("etc/hve-relay.toml")).is_ok());
    let problems = Config::load(&file("etc/hve-relay.toml")).expect_err("no TOML");
    assert!(problems.to_string().starts_with(&format!("{}:1: this is not TOML", file("etc/a.toml").display())), "{problems}");
    // A mistake in one of them is told with its own line.
    etc("a.toml", "\n[limits]\nrecipient = 200\n");
    let problems = Config::load(&file("etc/hve-relay.toml")).expect_err("a problem");
    assert_eq!(
        problems.to_string(),
        format!("{}:3: limits.recipient: unknown key: did you mean \"recipients\"?", file("etc/a.toml").display())
    );
}

#[test]
fn a_configuration_that_everybody_can_write_is_refused() {
    let folder = folder();
    let path = folder.path().join("open.toml");
    let problems = Config::load(&path).expect_err("a problem");
    let expected = format!("{0}:1: this file can be written by every user of this machine (mode 0646): run: chmod o-w {0}", path.display());
    assert_eq!((problems.to_string(), problems.exit_status()), (expected, 78));
}

/// The environment belongs to the whole process, so the test runs itself once more in an environment of its own.
#[test]
fn passwords_come_from_credentials_and_the_environment_too() {
    const OWN: &str = "HVE_RELAY_TEST_PASSWORD";
    let folder = folder();
    if std::env::var_os(OWN).is_none() {
        let itself = std::env::current_exe().expect("a path");
        let name = "passwords_come_from_credentials_and_the_environment_too";
        let out = Command::new(itself)
            .args(["--exact", name, "--nocapture"])
            .env(OWN, format!("{MARKER}-4"))
            .env("CREDENTIALS_DIRECTORY", folder.path())
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&out.stderr));
        return;
    }
    let password = |line: &str| {
        let (config, _) = load(&LEAST.replace("password_file = \"/etc/hve-relay/hve01.password\"", line), &folder).expect("no problem");
        self::password(config.logins.values().next().expect("a login")).to_owned()
    };
    assert_eq!(password(&format!("password_env = {OWN:?}")), "Pa55word-4");
    assert_eq!(password("password_credential = \"group.password\""), "Pa55word-2");
}
