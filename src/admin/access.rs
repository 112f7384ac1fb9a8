//! Who may do what over TCP: operators by their password or a token, sessions of browsers, and what a request must have on it so that no other
//! web site is behind it.
//!
//! [`Access`] is asked by `gate` and knows nothing of HTTP but the header fields that matter. Reading is open to whoever reaches the listener if
//! that is on loopback and no `[[admin.user]]` is configured; changes always want a login or a token.
//!
//! *Against other web sites.* A site that a browser shows can send requests to the relay too, and have its own name lead to the relay's address.
//! So the name that is asked for must be one of ours (`Host`: `localhost`, an address, or one of `admin.names`), nothing is answered that a
//! foreign page has asked for (`Sec-Fetch-Site`, `Origin`), and the cookie is `SameSite=Strict`. A change that comes with a cookie must
//! say where it comes from; all browsers do.
//!
//! *Limits.* [`SESSIONS`] at a time; beyond, the one that was idle longest ends. A session ends [`IDLE`] after its last request, and with the
//! relay. A failed login or token costs time, and after some an address is shut out for ten minutes ([`Failures`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::Operator;
use crate::clock::{Clock, Timestamp};
use crate::intake::{Failures, PasswordHash};
use crate::secret::Secret;

/// Sessions at a time.
pub const SESSIONS: usize = 256;
/// How long a session lasts without a request.
pub const IDLE: Duration = Duration::from_secs(12 * 3_600);
/// Failures after which an address is shut out for a while.
const FAILURES: usize = 10;

/// Who may ask, and under which names.
#[derive(Debug, Clone, Default)]
pub struct AccessSettings {
    /// Each with the hash of the password; case does not count.
    pub users: Vec<(String, PasswordHash)>,
    /// What programs show, each with its name.
    pub tokens: Vec<(String, Secret)>,
    /// Names of the relay, in lower case, besides `localhost` and addresses.
    pub names: Vec<String>,
    /// It can be reached from this machine alone.
    pub on_loopback: bool,
    /// Over TLS.
    pub secure: bool,
    /// The port, for the cookie's name: cookies of one host are shared by all its ports.
    pub port: u16,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Access {
    users: Arc<Vec<(String, PasswordHash)>>,
    tokens: Vec<(String, Digest)>,
    names: Vec<String>,
    reading_is_open: bool,
    secure: bool,
    cookie: String,
    sessions: Mutex<HashMap<Digest, Session>>,
    failures: Mutex<Failures>,
    random: SystemRandom,
    clock: Clock,
}

/// Secrets are compared by their hashes: that takes as long wherever they differ.
type Digest = [u8; SHA256_OUTPUT_LEN];

#[derive(Debug)]
struct Session {
    operator: Operator,
    last: Timestamp,
}

/// What a request says of where it comes from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin<'a> {
    /// `Host`.
    pub host: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `Sec-Fetch-Site`.
    pub fetch_site: Option<&'a str>,
}

/// Why a request is not even looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// It is for somebody else, or pretends to be.
    #[error("the relay is not known by that name; `names` below [admin] says under which ones it may be asked")]
    Name,
    /// Another web site is behind it.
    #[error("another web site has asked for this")]
    Site,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Name, password or token is wrong; the answer is to wait so long.
    Wrong(Duration),
    /// Too many failures from that address.
    Barred,
}

impl Access {
    /// As configured.
    pub fn new(settings: AccessSettings, clock: Clock) -> Self {
        let AccessSettings { users, tokens, names, on_loopback, secure, port } = settings;
        Self {
            reading_is_open: on_loopback && users.is_empty(),
            users: Arc::new(users),
            tokens: tokens.into_iter().map(|(name, token)| (name, digest_of(token.expose()))).collect(),
            names,
            secure,
            cookie: format!("hve-relay-{port}"),
            sessions: Mutex::default(),
            failures: Mutex::new(Failures::new(FAILURES)),
            random: SystemRandom::new(),
            clock,
        }
    }

    /// Whether reading needs no login.
    pub fn is_reading_open(&self) -> bool {
        self.reading_is_open
    }

    /// Whether there is anybody who could log in.
    pub fn has_operators(&self) -> bool {
        !self.users.is_empty() || !self.tokens.is_empty()
    }

    /// Whether the request is for this relay and no other web site is behind it.
    ///
    /// # Errors
    /// Which of the two it is not.
    pub fn admit(&self, from: Origin<'_>) -> Result<(), Foreign> {
        let host = from.host.filter(|host| self.is_own(host)).ok_or(Foreign::Name)?;
        let scheme = if self.secure { "https" } else { "http" };
        let same = |origin: &str| origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) == Some(host);
        // `none`: a person has typed the address.
        let from_here = from.fetch_site.is_none_or(|site| matches!(site, "same-origin" | "none")) && from.origin.is_none_or(same);
        if from_here { Ok(()) } else { Err(Foreign::Site) }
    }

    /// Whether the name in `Host` is one of the relay's. A name that leads here from elsewhere is no address, so addresses need no list.
    fn is_own(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_address = bare.unwrap_or(name).parse::<IpAddr>().is_ok();
        let name = name.to_ascii_lowercase();
        is_address || name == "localhost" || self.names.contains(&name)
    }

    /// The operator whose token this is.
    ///
    /// # Errors
    /// If it is nobody's, or nobody is heard from there any more.
    pub fn by_token(&self, peer: IpAddr, token: &str) -> Result<Operator, Denied> {
        self.is_heard(peer)?;
        let shown = digest_of(token);
        match self.tokens.iter().find(|(_, token)| *token == shown) {
            Some((name, _)) => Ok(self.succeeded(peer, format!("token {name}"))),
            None => Err(self.failed(peer)),
        }
    }

    /// The operator with this name and password. Takes tens of milliseconds of a processor: to be called where that may be.
    ///
    /// # Errors
    /// If there is none, or nobody is heard from there any more.
    pub fn by_password(&self, peer: IpAddr, name: &str, password: &Secret) -> Result<Operator, Denied> {
        self.is_heard(peer)?;
        let known = self.users.iter().find(|(user, _)| user.to_lowercase() == name.to_lowercase());
        // Somebody whom nobody knows takes as long as a wrong password.
        let is_right = known.or(self.users.first()).is_some_and(|(_, hash)| hash.is_of(password));
        match known.filter(|_| is_right) {
            Some((name, _)) => Ok(self.succeeded(peer, format!("user {name}"))),
            None => Err(self.failed(peer)),
        }
    }

    /// The operator whose session a `Cookie` field names.
    pub fn by_cookie(&self, cookies: &str) -> Option<Operator> {
        let digest = digest_of(self.own_cookie(cookies)?);
        let now = self.clock.now();
        let mut sessions = self.sessions();
        let session = sessions.get_mut(&digest).filter(|session| now.since(session.last) < IDLE)?;
        session.last = now;
        Some(session.operator.clone())
    }

    /// Begins a session; returns the `Set-Cookie` that names it. None if the system has no random numbers.
    pub fn begin_session(&self, operator: Operator) -> Option<String> {
        let mut octets = [0; 32];
        self.random.fill(&mut octets).ok()?;
        let value = URL_SAFE_NO_PAD.encode(octets);
        let now = self.clock.now();
        let mut sessions = self.sessions();
        sessions.retain(|_, session| now.since(session.last) < IDLE);
        if sessions.len() >= SESSIONS
            && let Some(oldest) = sessions.iter().min_by_key(|(_, session)| session.last).map(|(digest, _)| *digest)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(digest_of(&value), Session { operator, last: now });
        Some(self.set_cookie(&value, IDLE.as_secs()))
    }

    /// Ends the session that a `Cookie` field names; returns the `Set-Cookie` that makes the browser forget it.
    pub fn end_session(&self, cookies: &str) -> String {
        if let Some(value) = self.own_cookie(cookies) {
            self.sessions().remove(&digest_of(value));
        }
        self.set_cookie("", 0)
    }

    fn own_cookie<'a>(&self, cookies: &'a str) -> Option<&'a str> {
        cookies.split(';').find_map(|pair| pair.trim().strip_prefix(&self.cookie)?.strip_prefix('='))
    }

    fn set_cookie(&self, value: &str, seconds: u64) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}", self.cookie)
    }

    fn is_heard(&self, peer: IpAddr) -> Result<(), Denied> {
        self.failures().admit(peer, self.clock.now()).map_err(|_| Denied::Barred)
    }

    fn succeeded(&self, peer: IpAddr, name: String) -> Operator {
        self.failures().succeeded(peer);
        Operator(name)
    }

    fn failed(&self, peer: IpAddr) -> Denied {
        Denied::Wrong(self.failures().failed(peer, self.clock.now()).0)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Digest, Session>> {
        // No step leaves the table half changed.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        // As above.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest_of(text: &str) -> Digest {
    let mut own = [0; SHA256_OUTPUT_LEN];
    own.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn access(change: impl FnOnce(&mut AccessSettings)) -> Access {
        let mut settings = AccessSettings {
            tokens: vec![("deploy".to_owned(), Secret::new("a-token-of-some-length".to_owned()))],
            names: vec!["relay.contoso.com".to_owned()],
            on_loopback: true,
            port: 8025,
            ..AccessSettings::default()
        };
        change(&mut settings);
        Access::new(settings, Clock::start())
    }

    fn user() -> (String, PasswordHash) {
        ("Anna".to_owned(), PasswordHash::of(&Secret::new("hunter2".to_owned()), b"a salt of one").expect("hashed"))
    }

    #[test]
    fn a_name_that_somebody_else_has_made_lead_here_is_not_answered() {
        let access = access(|_| {});
        for (host, is_own) in [
            (Some("127.0.0.1:8025"), true),
            (Some("[::1]:8025"), true),
            (Some("localhost"), true),
            (Some("LOCALHOST:9000"), true),
            (Some("relay.contoso.com:8025"), true),
            (Some("192.0.2.7"), true),
            (Some("evil.example:8025"), false),
            (Some("127.0.0.1.evil.example"), false),
            (Some("localhost.evil.example:8025"), false),
            (Some(""), false),
            (None, false),
        ] {
            let answer = access.admit(Origin { host, ..Origin::default() });
            assert_eq!(answer, if is_own { Ok(()) } else { Err(Foreign::Name) }, "{host:?}");
        }
    }

    #[test]
    fn another_web_site_gets_nothing() {
        let access = access(|_| {});
        for (origin, fetch_site, is_ours) in [
            (None, None, true),
            (Some("http://127.0.0.1:8025"), Some("same-origin"), true),
            (None, Some("none"), true),
            (Some("http://127.0.0.1:8026"), Some("same-site"), false),
            (Some("http://127.0.0.1:8026"), None, false),
            (Some("https://127.0.0.1:8025"), None, false),
            (Some("http://127.0.0.1:8025.evil.example"), None, false),
            (Some("null"), None, false),
            (None, Some("cross-site"), false),
        ] {
            let answer = access.admit(Origin { host: Some("127.0.0.1:8025"), origin, fetch_site });
            assert_eq!(answer, if is_ours { Ok(()) } else { Err(Foreign::Site) }, "{origin:?} {fetch_site:?}");
        }
    }

    #[test]
    fn reading_is_open_on_loopback_until_there_are_users() {
        assert!(access(|_| {}).is_reading_open());
        assert!(!access(|settings| settings.users.push(user())).is_reading_open());
        assert!(!access(|settings| settings.on_loopback = false).is_reading_open());
    }

    #[test]
    fn lets_in_who_has_the_password_or_a_token_and_slows_the_others_down() {
        let access = access(|settings| settings.users.push(user()));
        let password = |text: &str| Secret::new(text.to_owned());
        assert_eq!(access.by_password(PEER, "anna", &password("hunter2")), Ok(Operator("user Anna".to_owned())));
        assert_eq!(access.by_token(PEER, "a-token-of-some-length"), Ok(Operator("token deploy".to_owned())));
        for n in 0..FAILURES / 2 {
            let wrong = access.by_password(PEER, if n == 0 { "nobody" } else { "anna" }, &password("hunter3"));
            // Twice as much with each; of which the other half are tokens.
            let longest = Duration::from_secs(16);
            let least = (Duration::from_millis(500) * 4_u32.pow(n as u32)).min(longest);
            assert!(matches!(wrong, Err(Denied::Wrong(after)) if (least..=longest).contains(&after)), "{n}: {wrong:?}");
            assert!(matches!(access.by_token(PEER, "a-token"), Err(Denied::Wrong(_))));
        }
        assert_eq!(access.by_token(PEER, "a-token-of-some-length"), Err(Denied::Barred));
    }

    #[test]
    fn a_session_is_its_cookie_until_it_is_ended() {
        let access = access(|settings| settings.secure = true);
        let set = access.begin_session(Operator("user anna".to_owned())).expect("a cookie");
        assert!(set.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"), "{set}");
        let cookie = format!("other=1; {}", set.split(';').next().expect("a pair"));
        assert_eq!(access.by_cookie(&cookie), Some(Operator("user anna".to_owned())));
        assert_eq!(access.by_cookie("hve-relay-8025=x"), None);
        assert!(access.end_session(&cookie).starts_with("hve-relay-8025=; Path=/; Max-Age=0"));
        assert_eq!(access.by_cookie(&cookie), None);
    }

    #[test]
    fn sessions_take_no_more_room_than_they_may() {
        let access = access(|_| {});
        for _ in 0..SESSIONS + 10 {
            access.begin_session(Operator("user anna".to_owned())).expect("a cookie");
        }
        assert_eq!(access.sessions().len(), SESSIONS);
    }
}
