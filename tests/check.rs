//! `hve-relay check` as an operator runs it: what would fail on this machine, and where each value comes from.

mod support;

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hve_relay::config::{Config, Examined};
use support::World;
use tempfile::TempDir;

/// In the secret of these tests; it must never be in an output.
const MARKER: &str = "Pa55word";
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$y3jCvE+mWJn/bnWbTJhQFbMGD3FgpUTI7xLLv7XhyMw";

/// A configuration that works, with the address to listen on and what comes at its end.
fn configuration(address: &str, more: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().display();
    let text = format!(
        "data_dir = \"{dir}/data\"\nhostname = \"relay.contoso.com\"\n[tenant]\naccepted_domains = [\"contoso.com\"]\n\
         [[listener]]\naddress = \"{address}\"\n[[client]]\nname = \"devices\"\nnetworks = [\"127.0.0.0/8\"]\n\
         [[account]]\naddress = \"hve01@contoso.com\"\npassword_file = \"{dir}/hve01.password\"\n{more}"
    );
    fs::create_dir(folder.path().join("data")).expect("a folder");
    secret(&folder.path().join("hve01.password"));
    let path = folder.path().join("hve-relay.toml");
    fs::write(&path, text).expect("written");
    (folder, path)
}

fn secret(path: &Path) {
    fs::write(path, format!("{MARKER}\n")).expect("written");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("mode set");
}

fn check(config: &Path, more: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_hve-relay"))
        .args(["check", "--config"])
        .arg(config)
        .args(more)
        .env_remove("CREDENTIALS_DIRECTORY")
        .output()
        .expect("it runs");
    let all = [output.stdout.as_slice(), &output.stderr].concat();
    assert!(!String::from_utf8_lossy(&all).contains(MARKER), "a secret is shown");
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_address_of_no_interface_is_a_problem() {
    // RFC 5737: nobody has it.
    let (_folder, path) = configuration("192.0.2.1:25", "");
    let output = check(&path, &[]);
    let said = said(&output);
    assert!(said.starts_with("listener 192.0.2.1:25: no interface of this machine has that address"), "{said}");
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn an_address_in_use_is_a_warning_unless_the_relay_itself_is_there() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("bound");
    let (_folder, path) = configuration(&address.to_string(), "");
    let output = check(&path, &[]);
    let expected = format!("warning: listener {address}: another program listens there");
    assert!(said(&output).starts_with(&expected), "{}", said(&output));
    assert!(output.status.success());

    let World { relay, setup, .. } = World::new(1);
    let (config, address) = (setup.folder().join("hve-relay.toml"), relay.address.to_string());
    let text = fs::read_to_string(&config).expect("readable").replace("127.0.0.1:0", &address);
    fs::write(&config, text).expect("written");
    let output = check(&config, &[]);
    assert!(output.status.success() && !said(&output).contains("listener"), "{}", said(&output));
}

#[test]
fn a_credential_of_systemd_need_not_be_there_for_a_look() {
    let more = "[[account]]\naddress = \"hve02@contoso.com\"\npassword_credential = \"hve02\"\n";
    let (_folder, path) = configuration("127.0.0.1:0", more);
    let output = check(&path, &[]);
    let said = said(&output);
    let line = format!("{}:15: warning: account[1].password_credential: is a credential of systemd", path.display());
    assert!(output.status.success() && said.starts_with(&line), "{said}");
    // The relay itself needs it.
    let problems = Config::load(&path).expect_err("no credentials");
    assert!(problems.to_string().contains("there are no credentials here"), "{problems}");
}

#[test]
fn a_file_that_only_the_one_who_looks_can_read_is_told() {
    let (folder, path) = configuration("127.0.0.1:0", "");
    let root = rustix_is_root();
    if root {
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("mode set");
        chown(folder.path().join("data"), Some(12_345), Some(12_346)).expect("owner set");
    }
    let output = check(&path, &[]);
    let file = folder.path().join("hve01.password").display().to_string();
    let told = said(&output).contains(&format!("warning: {file} cannot be read by user 12345"));
    assert_eq!((told, output.status.success()), (root, true), "{}", said(&output));
    if root {
        assert!(said(&output).contains(&format!("run: chgrp 12346 {file} && chmod g+r {file}")), "{}", said(&output));
        chown(&file, None, Some(12_346)).expect("owner set");
        fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("mode set");
        assert_eq!(said(&check(&path, &[])), "");
    }
}

/// Whether others' files can be made here.
fn rustix_is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("it runs");
    output.stdout == b"0\n"
}

#[test]
fn the_effective_configuration_says_where_each_value_comes_from() {
    let more = format!(
        "recipients_per_day = 5000\n[[user]]\nname = \"erp\"\npassword_hash = \"{HASH}\"\nclient = \"devices\"\n\
         [account_limits]\nmessages_per_minute = 30\n"
    );
    let (_folder, path) = configuration("127.0.0.1:0", &more);
    let text = fs::read_to_string(&path).expect("readable").replacen("data_dir", "include = [\"more.toml\"]\ndata_dir", 1);
    let token = path.with_file_name("admin.token");
    secret(&token);
    fs::write(&token, format!("{MARKER}-which-is-long-enough")).expect("written");
    let text = format!("{text}[[admin.token]]\nname = \"monitoring\"\ntoken_file = \"{}\"\n", token.display());
    fs::write(&path, text).expect("written");
    fs::write(path.with_file_name("more.toml"), "# more\n[limits]\nrecipients = 200\n").expect("written");
    let output = check(&path, &["--effective"]);
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let (main, more) = (path.display(), path.with_file_name("more.toml"));
    let token_file = format!("{:?}", token.display().to_string());
    let table = |header: &str| {
        let start = text.find(&format!("{header}\n")).unwrap_or_else(|| panic!("no {header} in {text}"));
        text[start..].split("\n\n").next().unwrap_or_default().to_owned()
    };
    for (header, key, value, origin) in [
        ("[tenant]", "profile", "\"hve-preview\"", "default".to_owned()),
        ("[tenant]", "accepted_domains", "[\"contoso.com\"]", format!("{main}:5")),
        ("[[client]]", "networks", "[\"127.0.0.0/8\"]", format!("{main}:10")),
        ("[[client]]", "in_doubt", "\"resend\"", "as queue.in_doubt, default".to_owned()),
        ("[[user]]", "password_hash", "\"(hidden)\"", format!("{main}:17")),
        ("[[account]]", "recipients_per_day", "5000", format!("{main}:14")),
        ("[[account]]", "external_per_minute", "10", "as account_limits.external_per_minute, hve-preview".to_owned()),
        ("[[account]]", "messages_per_minute", "30", format!("as account_limits.messages_per_minute, {main}:20")),
        ("[[route]]", "host", "\"smtp-hve.office365.com\"", "hve-preview".to_owned()),
        ("[limits]", "recipients", "200", format!("{}:3", more.display())),
        ("[limits]", "message_size", "10485760", "the largest that a route takes".to_owned()),
        ("[queue]", "lifetime", "\"5d\"", "default".to_owned()),
        ("[admin]", "names", "[\"relay.contoso.com\"]", "the hostname".to_owned()),
        ("[admin]", "# listen", "\"127.0.0.1:8025\"", "where it can be had, default".to_owned()),
        ("[[admin.token]]", "token_file", &token_file, format!("{main}:23; the secret itself: (hidden)")),
    ] {
        let table = table(header);
        let line = table.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap_or_else(|| panic!("no {key} in {table}"));
        let (found, from) = line.split_once("  # ").expect("an origin");
        assert_eq!((found.trim_end(), from), (format!("{key} = {value}").as_str(), origin.as_str()), "{header}");
    }
    assert!(text.contains("; the secret itself: (hidden)\n"), "{text}");
}

/// With what a client leaves to the queue written out, which is the same.
fn meant(mut config: Config) -> Config {
    let in_doubt = config.schedule.in_doubt;
    config.schedule.clients.iter_mut().for_each(|client| client.in_doubt = client.in_doubt.or(Some(in_doubt)));
    config
}

/// What is printed says everything: read again, it means the same.
#[test]
fn the_effective_configuration_is_a_configuration_with_the_same_meaning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = vec![fs::read_to_string(root.join("config/hve-relay.toml")).expect("readable")];
    for entry in fs::read_dir(root.join("config/examples")).expect("a folder") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("readable");
        // With files that would have to be made; `tests/examples.rs` does.
        texts.extend((!text.contains("[[app]]")).then_some(text));
    }
    let more = r#"
        [[route]]
        name = "elsewhere"
        kind = "smarthost"
        host = "smtp.example.net"
        tls = "implicit"
        sender = "noreply@contoso.com"
        size_over = "10 MiB"
        message_size = "50 MiB"
        clients = ["devices"]
        [[reply]]
        name = "mine"
        match = [{ code = [550, 554], status = "5.7.3", text = "say \"no\"" }, { text = "x" }]
        scope = "account"
        action = "wait"
        for = "90m"
        [sender]
        display_name = "{author_name} via {client}"
        [notices]
        delay_warning = "none"
        operators = ["ops@contoso.com"]
        [history]
        price_per_million = 41.5
    "#;
    texts.push(format!("{}{more}", texts[0]));
    assert!(texts.len() >= 5);
    for text in texts {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().to_str().expect("UTF-8");
        secret(&folder.path().join("password"));
        let lines: Vec<String> = text
            .lines()
            .map(|line| match line.strip_prefix("password_file") {
                Some(_) => format!("password_file = \"{dir}/password\""),
                None => line.to_owned(),
            })
            .collect();
        let path = folder.path().join("hve-relay.toml");
        fs::write(&path, lines.join("\n")).expect("written");
        let Examined { config, effective, .. } = Config::examine(&path).unwrap_or_else(|problems| panic!("{problems}"));
        fs::write(&path, &effective).expect("written");
        let (again, _) = Config::load(&path).unwrap_or_else(|problems| panic!("{problems}\n{effective}"));
        assert_eq!(meant(again), meant(config), "{effective}");
        let Examined { effective: all_written, .. } = Config::examine(&path).expect("no problem");
        assert!(!all_written.contains("# default"), "a default is not one that can be written: {all_written}");
    }
}
