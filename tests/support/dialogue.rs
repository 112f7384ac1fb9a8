//! Dialogues: scripts of what a client says and what the relay must answer, and the player that goes through one.
//!
//! A script is a file of lines; `#` begins a comment. First come the settings that differ from the usual ones:
//!
//! ```text
//! set message_size 100            # a key of the session's or the policy's settings; see `Setup::set`
//! ```
//!
//! then the steps. These can be played against anything that speaks SMTP:
//!
//! ```text
//! c -> EHLO mfp.example           # the client sends this line and CRLF
//! c => "a\r\n.\r\n" "x" * 1000    # the client sends exactly these octets: strings, each perhaps repeated; escapes \r \n \t \0 \" \\ \xNN
//! s <- 250-relay.example Hello *  # the relay's next line; `*` and `…` stand for any text
//! s <= 250 HELP                   # the relay's next reply, of which only the last line is looked at
//! s closes                        # the relay closes the connection, having said nothing more
//! c hangs up                      # the client closes its side
//! ```
//!
//! and these only against the session itself. Some look at what is beyond the connection and can be left out elsewhere:
//!
//! ```text
//! s says nothing                  # the relay has no more to say for now
//! store keeps                     # the next message that was kept is …
//! store from <a@b>                # … of this sender,
//! store to a@b internal           # … for this recipient of this class (one line each, all of them),
//! store helo mfp.example          # … from a client of this name (`-`: none),
//! store with ESMTP                # … over this protocol,
//! store declares 8bit smtputf8    # … with these declarations (`-`: none),
//! store content "a\r\n"           # … and has exactly this content
//! store drops                     # a message that was begun was dropped
//! store reserves 1000             # so many octets were asked for at the last DATA
//! log RCPT TO:<x@y> | 550 *       # the next refusal in the log: what was asked for, and the reply
//! habits no-quit loose-paths      # what was noticed of the client until now, and no step before this one named (`-`: nothing)
//! ```
//!
//! others arrange something there:
//!
//! ```text
//! tick 5m                         # time passes
//! handshake                       # the TLS handshake that STARTTLS asked for is done
//! shutdown                        # the relay is told to stop
//! disk full                       # the next message finds no room; `disk full at commit`: it cannot be kept; `disk free`: all is well again
//! store waits                     # the store takes its time from here; `store answers`: one answer
//! ```
//!
//! When a script is over, the relay must have said no more than was expected. If the script looks at the store, nothing else may have been
//! kept or dropped; if it looks at the log, nothing else may have been refused. A script without expectations is no script.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::collections::VecDeque;
use std::fs;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use hve_relay::intake::{LineEndings, Pattern, RouteSettings};
use hve_relay::mail::{Class, ClientName, RouteName};
use hve_relay::session::{Auth, Tls};
use hve_relay::smtp::EnhancedStatus;
use hve_relay::units::parse_duration;
use hve_relay::{intake, session};

/// A parsed script.
pub struct Script {
    /// The file's name without its ending: a claim.
    pub name: String,
    pub setup: Setup,
    pub steps: Vec<Step>,
}

/// What differs from the usual, and the settings that come of it.
pub struct Setup {
    /// The keys that were set, as written.
    pub changed: Vec<(String, String)>,
    pub peer: IpAddr,
    pub session: session::Settings,
    pub intake: intake::Settings,
    /// Who may log in: names, passwords and clients.
    pub users: Vec<[String; 3]>,
}

/// One line of a script.
pub struct Step {
    pub line: usize,
    pub action: Action,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Send(Vec<u8>),
    Expect(String),
    ExpectReply(String),
    ExpectClose,
    HangUp,
    /// Everything that only the session itself can be asked.
    Inside(Inside),
}

/// Steps that arrange or look at what is beyond the connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Inside {
    ExpectNothing,
    Tick(Duration),
    Handshake,
    Shutdown,
    /// All sessions are in use, and this one is to go.
    OthersWait,
    DiskFull,
    DiskFullAtCommit,
    DiskFree,
    StoreWaits,
    StoreAnswers,
    Keeps,
    From(String),
    To(String),
    Helo(String),
    With(String),
    Declares(String),
    Content(Vec<u8>),
    Drops,
    Reserves(u64),
    Log(String, String),
    Habits(String),
}

/// The relay's end of a dialogue.
pub trait Relay {
    /// The client sends these, in one piece.
    fn send(&mut self, octets: &[u8]);
    /// The client closes its side.
    fn hang_up(&mut self);
    /// The next line that the relay says, without its line end.
    ///
    /// # Errors
    /// If there is none.
    fn line(&mut self) -> Result<String, String>;
    /// Everything has been said, and the connection is closed.
    fn is_closed(&mut self) -> bool;
    /// Does what a step asks.
    ///
    /// # Errors
    /// If the claim does not hold, or cannot be looked at here.
    fn inside(&mut self, step: &Inside) -> Result<(), String>;
    /// The script is over.
    ///
    /// # Errors
    /// If something happened that no step spoke of.
    fn finish(&mut self) -> Result<(), String>;
}

/// How the client's octets are cut into pieces.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// Each step is a piece.
    Steps,
    /// Steps that follow each other without an expectation between them are one piece.
    Joined,
    /// As `Steps`, but the piece with this octet of the whole script ends before it.
    Before(usize),
    /// Each octet is a piece.
    Octets,
}

impl Script {
    /// Reads a script.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut script = Self { name: name.to_owned(), setup: Setup::usual(), steps: Vec::new() };
        for (i, line) in text.lines().enumerate() {
            let line_number = i + 1;
            script.line(line_number, line).map_err(|why| format!("{name}:{line_number}: {why}: {line}"))?;
        }
        if !script.steps.iter().any(|step| step.action.is_expectation()) {
            return Err(format!("{name}: the script expects nothing"));
        }
        Ok(script)
    }

    /// Whether it can be played over a connection to a relay that has its settings, where steps that only look inside are passed over.
    pub fn needs_only_a_connection(&self) -> bool {
        let arranges = |step: &Step| matches!(&step.action, Action::Inside(inside) if !inside.only_looks());
        !self.steps.iter().any(arranges) && !self.setup.changed.iter().any(|(key, _)| key == "peer")
    }

    /// How many octets the client sends.
    pub fn octets(&self) -> usize {
        self.steps.iter().map(|step| if let Action::Send(octets) = &step.action { octets.len() } else { 0 }).sum()
    }

    /// Plays the script; the first thing that does not go as written is the error.
    pub fn play(&self, relay: &mut impl Relay, cut: Cut) -> Result<(), String> {
        let mut sent = 0;
        let mut held = Vec::new();
        for (i, step) in self.steps.iter().enumerate() {
            let outcome = match &step.action {
                Action::Send(octets) => {
                    let next_is_more = matches!(self.steps.get(i + 1), Some(Step { action: Action::Send(_), .. }));
                    match cut {
                        Cut::Joined => {
                            held.extend_from_slice(octets);
                            if !next_is_more {
                                relay.send(&std::mem::take(&mut held));
                            }
                        }
                        Cut::Octets => octets.chunks(1).for_each(|octet| relay.send(octet)),
                        Cut::Before(at) if at > sent && at < sent + octets.len() => {
                            relay.send(&octets[..at - sent]);
                            relay.send(&octets[at - sent..]);
                        }
                        Cut::Steps | Cut::Before(_) => relay.send(octets),
                    }
                    sent += octets.len();
                    Ok(())
                }
                Action::Expect(pattern) => relay.line().and_then(|line| {
                    if matches(pattern, &line) { Ok(()) } else { Err(format!("expected: {pattern}\n       got: {line}")) }
                }),
                Action::ExpectReply(pattern) => loop {
                    match relay.line() {
                        Ok(line) if line.as_bytes().get(3) == Some(&b'-') => {}
                        Ok(line) if matches(pattern, &line) => break Ok(()),
                        Ok(line) => break Err(format!("expected: {pattern}\n       got: {line}")),
                        Err(why) => break Err(why),
                    }
                },
                Action::ExpectClose => match relay.line() {
                    Ok(line) => Err(format!("expected the end, got: {line}")),
                    Err(_) if relay.is_closed() => Ok(()),
                    Err(_) => Err("the connection is still open".to_owned()),
                },
                Action::HangUp => {
                    relay.hang_up();
                    Ok(())
                }
                Action::Inside(step) => relay.inside(step),
            };
            outcome.map_err(|why| format!("{}:{} ({cut:?}): {why}", self.name, step.line))?;
        }
        relay.finish().map_err(|why| format!("{} ({cut:?}), in the end: {why}", self.name))
    }

    fn line(&mut self, line_number: usize, line: &str) -> Result<(), String> {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(setting) = line.strip_prefix("set ") {
            let (key, value) = setting.trim().split_once(' ').ok_or("a key and a value")?;
            return self.setup.set(key, value.trim());
        }
        let is = |wanted: &str| (line.trim_end() == wanted).then_some(());
        let after = |start: &str| line.strip_prefix(start);
        let action = if let Some(text) = after("c -> ").or(is("c ->").map(|()| "")) {
            Action::Send(format!("{text}\r\n").into_bytes())
        } else if let Some(text) = after("c => ") {
            Action::Send(octets(text)?)
        } else if let Some(text) = after("s <- ") {
            Action::Expect(text.to_owned())
        } else if let Some(text) = after("s <= ") {
            Action::ExpectReply(text.to_owned())
        } else if is("s closes").is_some() {
            Action::ExpectClose
        } else if is("c hangs up").is_some() {
            Action::HangUp
        } else {
            Action::Inside(Inside::parse(line.trim_end())?)
        };
        self.steps.push(Step { line: line_number, action });
        Ok(())
    }
}

impl Inside {
    /// Whether the step changes nothing.
    pub fn only_looks(&self) -> bool {
        use Inside::*;
        !matches!(self, Tick(_) | Handshake | Shutdown | OthersWait | DiskFull | DiskFullAtCommit | DiskFree | StoreWaits | StoreAnswers)
    }

    fn parse(line: &str) -> Result<Self, String> {
        let (subject, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (verb, object) = rest.split_once(' ').unwrap_or((rest, ""));
        Ok(match (subject, verb, object.trim()) {
            ("s", "says", "nothing") => Self::ExpectNothing,
            ("tick", ..) => Self::Tick(parse_duration(rest).map_err(|error| error.to_string())?),
            ("handshake", "", "") => Self::Handshake,
            ("shutdown", "", "") => Self::Shutdown,
            ("others", "wait", "") => Self::OthersWait,
            ("disk", "full", "") => Self::DiskFull,
            ("disk", "full", "at commit") => Self::DiskFullAtCommit,
            ("disk", "free", "") => Self::DiskFree,
            ("store", "waits", "") => Self::StoreWaits,
            ("store", "answers", "") => Self::StoreAnswers,
            ("store", "keeps", "") => Self::Keeps,
            ("store", "from", path) => Self::From(path.to_owned()),
            ("store", "to", recipient) => Self::To(recipient.to_owned()),
            ("store", "helo", name) => Self::Helo(name.to_owned()),
            ("store", "with", protocol) => Self::With(protocol.to_owned()),
            ("store", "declares", what) => Self::Declares(what.to_owned()),
            ("store", "content", content) => Self::Content(octets(content)?),
            ("store", "drops", "") => Self::Drops,
            ("store", "reserves", octets) => Self::Reserves(octets.parse().map_err(|_| "not a number")?),
            ("habits", ..) => Self::Habits(rest.to_owned()),
            ("log", ..) => {
                let (what, reply) = rest.split_once(" | ").ok_or("write: log WHAT | REPLY")?;
                Self::Log(what.to_owned(), reply.to_owned())
            }
            _ => return Err("not a step".to_owned()),
        })
    }
}

impl Action {
    fn is_expectation(&self) -> bool {
        match self {
            Self::Expect(_) | Self::ExpectReply(_) | Self::ExpectClose => true,
            Self::Send(_) | Self::HangUp => false,
            Self::Inside(inside) => inside.only_looks(),
        }
    }
}

impl Setup {
    /// What a script starts from: one client, one internal domain, one route for everything.
    fn usual() -> Self {
        let mut setup = Self {
            changed: Vec::new(),
            peer: IpAddr::from([10, 20, 1, 7]),
            session: session::Settings { hostname: "relay.example".to_owned(), ..session::Settings::default() },
            intake: intake::Settings {
                accepted_domains: vec!["contoso.com".to_owned()],
                routes: vec![RouteSettings::new(RouteName::new("hve"), vec![Class::Internal, Class::External])],
                sessions: 1_000,
                sessions_per_address: 100,
                ..intake::Settings::default()
            },
            users: Vec::new(),
        };
        setup.client("devices 10.20.0.0/16 127.0.0.0/8").expect("a client");
        setup
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<usize>().map_err(|_| "not a number".to_owned());
        let duration = || parse_duration(value).map_err(|error| error.to_string());
        match key {
            "peer" => self.peer = value.parse().map_err(|_| "not an address")?,
            "client" => self.client(value)?,
            "message_size" => self.session.message_size = number()? as u64,
            "recipients" => self.session.recipients = number()?,
            "transactions" => self.session.transactions = number()?,
            "command_line" => self.session.command_line = number()?,
            "header_size" => self.session.header_size = number()?,
            "errors" => self.session.errors = number()?,
            "commands_without_mail" => self.session.commands_without_mail = number()?,
            "tls" => {
                self.session.entrance.tls = match value {
                    "starttls" => Tls::StartTls,
                    "starttls-required" => Tls::StartTlsRequired,
                    "implicit" => Tls::Implicit,
                    _ => return Err("no way to begin TLS".to_owned()),
                }
            }
            "auth" => self.session.entrance.auth = if value == "required" { Auth::Required } else { Auth::Offered },
            "clients" => self.session.entrance.clients = Some(value.split(' ').map(ClientName::new).collect()),
            "plaintext_auth" => {
                let client = self.intake.clients.iter_mut().find(|client| client.name.as_str() == value).ok_or("no such client")?;
                client.allow_plaintext_auth = true;
            }
            "user" => {
                let words: Vec<String> = value.split(' ').map(str::to_owned).collect();
                self.users.push(words.try_into().map_err(|_| "a name, a password and a client")?);
            }
            "command_timeout" => self.session.command_timeout = duration()?,
            "data_timeout" => self.session.data_timeout = duration()?,
            "client_message_size" => self.last_client().message_size = Some(number()? as u64),
            "line_endings" if value == "refuse" => self.last_client().line_endings = LineEndings::Refuse,
            "ehlo_keywords_hidden" => self.last_client().ehlo_keywords_hidden = value.split(' ').map(str::to_owned).collect(),
            "allowed_senders" => self.last_client().allowed_senders = Some(patterns(value)?),
            "allowed_recipients" => self.last_client().allowed_recipients = Some(patterns(value)?),
            "messages_per_minute" => self.last_client().messages_per_minute = NonZeroU32::new(number()? as u32),
            "recipients_per_minute" => self.last_client().recipients_per_minute = NonZeroU32::new(number()? as u32),
            "accepted_domains" => self.intake.accepted_domains = value.split(' ').map(str::to_owned).collect(),
            "route_takes" if value == "internal" => self.intake.routes[0].takes = vec![Class::Internal],
            _ => return Err("no such setting".to_owned()),
        }
        self.changed.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// The one that settings of a client are about.
    fn last_client(&mut self) -> &mut intake::ClientSettings {
        self.intake.clients.last_mut().expect("a client")
    }

    /// Adds a client: its name, then its networks.
    fn client(&mut self, text: &str) -> Result<(), String> {
        let (name, networks) = text.split_once(' ').ok_or("a name and networks")?;
        let networks = networks.split(' ').map(|network| network.parse().map_err(|_| "not a network")).collect::<Result<_, _>>()?;
        self.intake.clients.push(intake::ClientSettings::new(ClientName::new(name), networks));
        Ok(())
    }
}

/// Addresses and `@domain`s with blanks between them.
fn patterns(text: &str) -> Result<Vec<Pattern>, String> {
    let one = |text: &str| match text.strip_prefix('@') {
        Some(domain) => Ok(Pattern::Domain(domain.to_owned())),
        None => text.parse().map(Pattern::Mailbox).map_err(|_| "not an address".to_owned()),
    };
    text.split(' ').map(one).collect()
}

/// All scripts of `tests/dialogues/`.
pub fn scripts() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut files: Vec<_> = fs::read_dir(folder).expect("the scripts").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let script = |file: &Path| {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        Script::parse(&name, &fs::read_to_string(file).expect("a text")).unwrap_or_else(|why| panic!("{why}"))
    };
    files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "smtp")).map(|file| script(file)).collect()
}

/// Reads what the relay sent as one line of a reply, which ends in CRLF.
///
/// # Errors
/// If it is not a line as a relay may send it.
pub fn reply_line(octets: Vec<u8>) -> Result<String, String> {
    let line = String::from_utf8(octets).map_err(|_| "not UTF-8")?;
    let line = line.strip_suffix("\r\n").ok_or_else(|| format!("half a line: {line:?}"))?;
    if line.contains(['\r', '\n']) || line.len() > 510 {
        return Err(format!("not a reply line: {line:?}"));
    }
    // RFC 2034 §4: every reply but those to greet, and 354, has an enhanced status of the class of its code.
    let text = line.get(4..).unwrap_or("");
    let greets = ["220 ", "354 ", "334 "].iter().any(|start| line.starts_with(start)) || text.contains(" Hello ");
    let offers = ["SIZE ", "PIPELINING", "8BITMIME", "SMTPUTF8", "STARTTLS", "AUTH ", "ENHANCEDSTATUSCODES", "DSN", "HELP"]
        .iter()
        .any(|word| text.starts_with(word));
    let status = text.split(' ').next().and_then(|word| word.parse::<EnhancedStatus>().ok());
    if !greets && !offers && !status.is_some_and(|status| line.starts_with(char::from(b'0' + status.class))) {
        return Err(format!("no enhanced status: {line}"));
    }
    Ok(line.to_owned())
}

/// Whether a text is what a pattern says; `*` and `…` stand for any text.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts: VecDeque<&str> = pattern.split(['*', '…']).collect();
    let (Some(first), last) = (parts.pop_front(), parts.pop_back()) else { return false };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = last else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Reads `"text\r\n" "x" * 1000`.
fn octets(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let mut piece = Vec::new();
        let mut chars = rest.strip_prefix('"').ok_or("a string in quotes")?.chars();
        loop {
            let c = chars.next().ok_or("the string has no end")?;
            let octet = match c {
                '"' => break,
                '\\' => match chars.next() {
                    Some('r') => b'\r',
                    Some('n') => b'\n',
                    Some('t') => b'\t',
                    Some('0') => 0,
                    Some(c @ ('"' | '\\')) => c as u8,
                    Some('x') => {
                        let hex: String = chars.by_ref().take(2).collect();
                        u8::from_str_radix(&hex, 16).map_err(|_| "two hexadecimal digits")?
                    }
                    _ => return Err("no such escape".to_owned()),
                },
                c => {
                    piece.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            piece.push(octet);
        }
        rest = chars.as_str().trim_start();
        let mut times = 1;
        if let Some(factor) = rest.strip_prefix('*') {
            let factor = factor.trim_start();
            let digits = factor.find(|c: char| !c.is_ascii_digit()).unwrap_or(factor.len());
            times = factor[..digits].parse().map_err(|_| "a number behind *")?;
            rest = factor[digits..].trim_start();
        }
        out.extend(piece.repeat(times));
    }
    Ok(out)
}
