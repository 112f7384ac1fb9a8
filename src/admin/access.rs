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
//! *Another configuration* ([`Access::change`]) holds from the next request on. Whoever has a session that began with a password or a token that
//! does not stand any more is logged out; all others stay as they are, and so do the failures that were counted.
//!
//! *Limits.* [`SESSIONS`] at a time; beyond, the one that was idle longest ends. A session ends [`IDLE`] after its last request, and with the
//! relay. A failed login or token costs time, and after some an address is shut out for ten minutes ([`Failures`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
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
    rules: RwLock<Arc<Rules>>,
    sessions: Mutex<HashMap<Digest, Session>>,
    failures: Mutex<Failures>,
    random: SystemRandom,
    clock: Clock,
}

/// What is configured.
#[derive(Debug)]
struct Rules {
    users: Vec<User>,
    tokens: Vec<Token>,
    names: Vec<String>,
    reading_is_open: bool,
    secure: bool,
    cookie: String,
}

#[derive(Debug)]
struct User {
    name: String,
    hash: PasswordHash,
    proof: Digest,
}

#[derive(Debug)]
struct Token {
    name: String,
    shown: Digest,
    proof: Digest,
}

/// Secrets are compared by their hashes: that takes as long wherever they differ.
type Digest = [u8; SHA256_OUTPUT_LEN];

#[derive(Debug)]
struct Session {
    of: Proven,
    last: Timestamp,
}

/// Somebody who has proved to be an operator, and by what: a name with its password's hash, or a token with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Who it is.
    pub operator: Operator,
    proof: Digest,
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

impl Rules {
    fn new(settings: AccessSettings) -> Self {
        let AccessSettings { users, tokens, names, on_loopback, secure, port } = settings;
        let user = |(name, hash): (String, PasswordHash)| {
            let proof = digest_of(&format!("user {name} {}", hash.as_str()));
            User { name, hash, proof }
        };
        let token = |(name, token): (String, Secret)| {
            let shown = digest_of(token.expose());
            let proof = digest_of(&format!("token {name} {shown:?}"));
            Token { name, shown, proof }
        };
        Self {
            reading_is_open: on_loopback && users.is_empty(),
            users: users.into_iter().map(user).collect(),
            tokens: tokens.into_iter().map(token).collect(),
            names,
            secure,
            cookie: format!("hve-relay-{port}"),
        }
    }

    fn stands(&self, proven: &Proven) -> bool {
        let (users, tokens) = (self.users.iter().map(|user| &user.proof), self.tokens.iter().map(|token| &token.proof));
        users.chain(tokens).any(|proof| *proof == proven.proof)
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

    fn own_cookie<'a>(&self, cookies: &'a str) -> Option<&'a str> {
        cookies.split(';').find_map(|pair| pair.trim().strip_prefix(&self.cookie)?.strip_prefix('='))
    }

    fn set_cookie(&self, value: &str, seconds: u64) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}", self.cookie)
    }
}

impl Access {
    /// As configured.
    pub fn new(settings: AccessSettings, clock: Clock) -> Self {
        Self {
            rules: RwLock::new(Arc::new(Rules::new(settings))),
            sessions: Mutex::default(),
            failures: Mutex::new(Failures::new(FAILURES)),
            random: SystemRandom::new(),
            clock,
        }
    }

    /// As configured from now on.
    pub fn change(&self, settings: AccessSettings) {
        let rules = Arc::new(Rules::new(settings));
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules.clone();
        // Behind the rules: see `begin_session`.
        self.sessions().retain(|_, session| rules.stands(&session.of));
    }

    /// Whether somebody there may read without a login: on this machine alone, also while another address is only just being closed.
    pub fn is_reading_open(&self, peer: IpAddr) -> bool {
        self.rules().reading_is_open && peer.is_loopback()
    }

    /// Whether there is anybody who could log in.
    pub fn has_operators(&self) -> bool {
        let rules = self.rules();
        !rules.users.is_empty() || !rules.tokens.is_empty()
    }

    /// Whether the request is for this relay and no other web site is behind it.
    ///
    /// # Errors
    /// Which of the two it is not.
    pub fn admit(&self, from: Origin<'_>) -> Result<(), Foreign> {
        let rules = self.rules();
        let host = from.host.filter(|host| rules.is_own(host)).ok_or(Foreign::Name)?;
        let scheme = if rules.secure { "https" } else { "http" };
        let same = |origin: &str| origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) == Some(host);
        // `none`: a person has typed the address.
        let from_here = from.fetch_site.is_none_or(|site| matches!(site, "same-origin" | "none")) && from.origin.is_none_or(same);
        if from_here { Ok(()) } else { Err(Foreign::Site) }
    }

    /// The operator whose token this is.
    ///
    /// # Errors
    /// If it is nobody's, or nobody is heard from there any more.
    pub fn by_token(&self, peer: IpAddr, token: &str) -> Result<Proven, Denied> {
        self.is_heard(peer)?;
        let shown = digest_of(token);
        match self.rules().tokens.iter().find(|token| token.shown == shown) {
            Some(Token { name, proof, .. }) => Ok(self.succeeded(peer, format!("token {name}"), *proof)),
            None => Err(self.failed(peer)),
        }
    }

    /// The operator with this name and password. Takes tens of milliseconds of a processor: to be called where that may be.
    ///
    /// # Errors
    /// If there is none, or nobody is heard from there any more.
    pub fn by_password(&self, peer: IpAddr, name: &str, password: &Secret) -> Result<Proven, Denied> {
        self.is_heard(peer)?;
        let rules = self.rules();
        let known = rules.users.iter().find(|user| user.name.to_lowercase() == name.to_lowercase());
        // Somebody whom nobody knows takes as long as a wrong password.
        let is_right = known.or(rules.users.first()).is_some_and(|user| user.hash.is_of(password));
        match known.filter(|_| is_right) {
            Some(User { name, proof, .. }) => Ok(self.succeeded(peer, format!("user {name}"), *proof)),
            None => Err(self.failed(peer)),
        }
    }

    /// The operator whose session a `Cookie` field names.
    pub fn by_cookie(&self, cookies: &str) -> Option<Operator> {
        let digest = digest_of(self.rules().own_cookie(cookies)?);
        let now = self.clock.now();
        let mut sessions = self.sessions();
        let session = sessions.get_mut(&digest).filter(|session| now.since(session.last) < IDLE)?;
        session.last = now;
        Some(session.of.operator.clone())
    }

    /// Begins a session; returns the `Set-Cookie` that names it. None if the system has no random numbers, or if what was proved has ceased to
    /// stand meanwhile.
    pub fn begin_session(&self, of: Proven) -> Option<String> {
        let mut octets = [0; 32];
        self.random.fill(&mut octets).ok()?;
        let value = URL_SAFE_NO_PAD.encode(octets);
        let now = self.clock.now();
        let mut sessions = self.sessions();
        // Under the lock, so that rules that come later find the session, and those that came before it are these.
        let rules = self.rules();
        if !rules.stands(&of) {
            return None;
        }
        sessions.retain(|_, session| now.since(session.last) < IDLE);
        if sessions.len() >= SESSIONS
            && let Some(oldest) = sessions.iter().min_by_key(|(_, session)| session.last).map(|(digest, _)| *digest)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(digest_of(&value), Session { of, last: now });
        Some(rules.set_cookie(&value, IDLE.as_secs()))
    }

    /// Ends the session that a `Cookie` field names; returns the `Set-Cookie` that makes the browser forget it.
    pub fn end_session(&self, cookies: &str) -> String {
        let rules = self.rules();
        if let Some(value) = rules.own_cookie(cookies) {
            self.sessions().remove(&digest_of(value));
        }
        rules.set_cookie("", 0)
    }

    fn is_heard(&self, peer: IpAddr) -> Result<(), Denied> {
        self.failures().admit(peer, self.clock.now()).map_err(|_| Denied::Barred)
    }

    fn succeeded(&self, peer: IpAddr, name: String, proof: Digest) -> Proven {
        self.failures().succeeded(peer);
        Proven { operator: Operator(name), proof }
    }

    fn failed(&self, peer: IpAddr) -> Denied {
        Denied::Wrong(self.failures().failed(peer, self.clock.now()).0)
    }

    fn rules(&self) -> Arc<Rules> {
        // They are replaced as a whole.
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
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
        Access::new(settings(change), Clock::start())
    }

    fn settings(change: impl FnOnce(&mut AccessSettings)) -> AccessSettings {
        let mut settings = AccessSettings {
            tokens: vec![("deploy".to_owned(), Secret::new("a-token-of-some-length".to_owned()))],
            names: vec!["relay.contoso.com".to_owned()],
            on_loopback: true,
            port: 8025,
            ..AccessSettings::default()
        };
        change(&mut settings);
        settings
    }

    fn user() -> (String, PasswordHash) {
        ("Anna".to_owned(), PasswordHash::of(&Secret::new("hunter2".to_owned()), b"a salt of one").expect("hashed"))
    }

    fn deploy(access: &Access) -> Proven {
        access.by_token(PEER, "a-token-of-some-length").expect("a token")
    }

    #[test]
    fn a_session_ends_with_what_it_was_begun_with_and_with_nothing_else() {
        let access = access(|settings| settings.users.push(user()));
        let anna = access.by_password(PEER, "anna", &Secret::new("hunter2".to_owned())).expect("the password");
        let begin = |of: Proven| access.begin_session(of).and_then(|set| Some(set.split(';').next()?.to_owned())).expect("a cookie");
        let cookies = [begin(anna.clone()), begin(deploy(&access))];
        let stand = || cookies.each_ref().map(|cookie| access.by_cookie(cookie).is_some());
        access.by_token(PEER, "a-token").expect_err("wrong");
        let changed = |hash: PasswordHash, token: &str| {
            access.change(settings(|settings| {
                settings.users = vec![("Anna".to_owned(), hash)];
                settings.tokens = vec![("deploy".to_owned(), Secret::new(token.to_owned()))];
                settings.names.clear();
            }));
        };
        let again = PasswordHash::of(&Secret::new("hunter2".to_owned()), b"another salt").expect("hashed");
        changed(user().1, "a-token-of-some-length");
        assert_eq!(stand(), [true, true], "a name of the relay is nobody's password");
        assert_eq!(access.failures().failed(PEER, access.clock.now()).1, 2, "the failure from before counts");
        changed(again, "a-token-of-some-length");
        assert_eq!(stand(), [false, true]);
        assert_eq!(access.begin_session(anna), None, "what was verified by the rules from before");
        changed(user().1, "another-token-of-some-length");
        assert_eq!(stand(), [false, false], "what has ended does not come back");
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
        assert!(access(|_| {}).is_reading_open(PEER));
        assert!(!access(|_| {}).is_reading_open([192, 0, 2, 7].into()));
        assert!(!access(|settings| settings.users.push(user())).is_reading_open(PEER));
        assert!(!access(|settings| settings.on_loopback = false).is_reading_open(PEER));
    }

    #[test]
    fn lets_in_who_has_the_password_or_a_token_and_slows_the_others_down() {
        let access = access(|settings| settings.users.push(user()));
        let password = |text: &str| Secret::new(text.to_owned());
        let operator = |proven: Result<Proven, Denied>| proven.map(|Proven { operator: Operator(name), .. }| name);
        assert_eq!(operator(access.by_password(PEER, "anna", &password("hunter2"))), Ok("user Anna".to_owned()));
        assert_eq!(operator(access.by_token(PEER, "a-token-of-some-length")), Ok("token deploy".to_owned()));
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
        let set = access.begin_session(deploy(&access)).expect("a cookie");
        assert!(set.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"), "{set}");
        let cookie = format!("other=1; {}", set.split(';').next().expect("a pair"));
        assert_eq!(access.by_cookie(&cookie), Some(Operator("token deploy".to_owned())));
        assert_eq!(access.by_cookie("hve-relay-8025=x"), None);
        assert!(access.end_session(&cookie).starts_with("hve-relay-8025=; Path=/; Max-Age=0"));
        assert_eq!(access.by_cookie(&cookie), None);
    }

    #[test]
    fn sessions_take_no_more_room_than_they_may() {
        let access = access(|_| {});
        for _ in 0..SESSIONS + 10 {
            access.begin_session(deploy(&access)).expect("a cookie");
        }
        assert_eq!(access.sessions().len(), SESSIONS);
    }
}
