//! Commands and content as another implementation reads them, smtp-proto: where both take a line, both must read the same out of it, and a
//! message must end at the same octet for both. What one takes and the other does not is told by the tests of each.
//!
//! Known faults of the other (0.2.5), which are left out here: a message that begins with a dot neither ends there nor loses the dot; CRLF, dot,
//! CR, CRLF ends a message; the quotes of a local part are dropped, and so is a CR in a command, where a TAB is text.

use std::borrow::Cow;

use hve_relay::smtp::{Command, DataDecoder, Mailbox};
use proptest::prelude::*;
use smtp_proto::request::receiver::DataReceiver;
use smtp_proto::{MAIL_BODY_8BITMIME, MAIL_RET_FULL, MAIL_RET_HDRS, MAIL_SMTPUTF8, MailFrom, Request};

/// What the other reads in a command line, if it takes it.
fn other(line: &[u8]) -> Option<Request<Cow<'static, str>>> {
    let ended = [line, b"\r\n"].concat();
    Request::parse(&mut ended.iter()).ok().map(|request| into_static(&request))
}

fn into_static(request: &Request<Cow<'_, str>>) -> Request<Cow<'static, str>> {
    let own = |text: &Cow<'_, str>| Cow::Owned(text.to_string());
    match request {
        Request::Mail { from } => Request::Mail {
            from: MailFrom {
                address: own(&from.address),
                flags: from.flags,
                size: from.size,
                env_id: from.env_id.as_ref().map(own),
                ..MailFrom::default()
            },
        },
        Request::Rcpt { to } => {
            Request::Rcpt { to: smtp_proto::RcptTo { address: own(&to.address), orcpt: None, rrvs: 0, flags: to.flags } }
        }
        Request::Ehlo { host } => Request::Ehlo { host: own(host) },
        Request::Helo { host } => Request::Helo { host: own(host) },
        Request::Data => Request::Data,
        Request::Rset => Request::Rset,
        Request::Quit => Request::Quit,
        Request::StartTls => Request::StartTls,
        _ => Request::Noop { value: Cow::Borrowed("") },
    }
}

/// A path without what only writes it: quotes, and the backslashes in them.
fn unquoted(path: &str) -> String {
    let mut out = String::new();
    let mut chars = path.chars();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

/// Whether both say the same of a line that both take.
fn agree(line: &[u8]) -> Result<bool, TestCaseError> {
    let (Ok(ours), Some(theirs)) = (Command::parse(line), other(line)) else { return Ok(false) };
    let same_path = |ours: &str, theirs: &str| {
        // What is no address is refused by the session, and needs no meaning.
        ours.parse::<Mailbox>().is_err() || unquoted(ours) == unquoted(theirs)
    };
    match (&ours, &theirs) {
        (Command::Mail { path, parameters, .. }, Request::Mail { from }) => {
            prop_assert!(same_path(path, &from.address), "{} {}", path, from.address);
            prop_assert_eq!(path.is_empty(), from.address.is_empty());
            prop_assert_eq!(parameters.size.unwrap_or(0), from.size as u64);
            prop_assert_eq!(parameters.eight_bit, from.flags & MAIL_BODY_8BITMIME != 0);
            prop_assert_eq!(parameters.smtputf8, from.flags & MAIL_SMTPUTF8 != 0);
            prop_assert_eq!(parameters.dsn.ret.is_some(), from.flags & (MAIL_RET_FULL | MAIL_RET_HDRS) != 0);
            prop_assert_eq!(parameters.dsn.envid.as_deref(), from.env_id.as_deref());
        }
        (Command::Rcpt { path, .. }, Request::Rcpt { to }) => {
            prop_assert!(same_path(path, &to.address), "{} {}", path, to.address);
        }
        (Command::Helo(name), Request::Helo { host }) | (Command::Ehlo(name), Request::Ehlo { host }) => {
            // The other reads the first word.
            prop_assert_eq!(name.split_ascii_whitespace().next(), host.split_ascii_whitespace().next());
        }
        (Command::Data, Request::Data) | (Command::Rset, Request::Rset) | (Command::Quit, Request::Quit) => {}
        (Command::Mail { .. } | Command::Rcpt { .. } | Command::Data, _) => prop_assert!(false, "{:?} {:?}", ours, theirs),
        _ => {}
    }
    Ok(true)
}

/// Whether the other takes something in there for an end of data that is none.
fn deceives_the_other(wire: &[u8]) -> bool {
    wire.windows(5).any(|five| five == b"\r\n.\r\r")
}

/// A path as RFC 5321 §4.1.2 has it.
fn path() -> impl Strategy<Value = String> {
    let domain = || "[a-z0-9]{1,8}(\\.[a-z0-9]{2,8}){0,3}";
    let local = prop_oneof!["[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,10}(\\.[a-z0-9]{1,5}){0,2}", "\"[A-Za-z0-9 .,:;@()]{1,12}\""];
    let route = prop_oneof![4 => Just(String::new()), 1 => domain().prop_map(|hop| format!("@{hop}:"))];
    (route, local, domain()).prop_map(|(route, local, domain)| format!("<{route}{local}@{domain}>"))
}

fn proper() -> impl Strategy<Value = String> {
    let parameter = prop_oneof![
        (0_u32..u32::MAX).prop_map(|size| format!(" SIZE={size}")),
        Just(" BODY=8BITMIME".to_owned()),
        Just(" BODY=7BIT".to_owned()),
        Just(" SMTPUTF8".to_owned()),
        Just(" RET=HDRS".to_owned()),
        "[A-Za-z0-9]{1,10}".prop_map(|id| format!(" ENVID={id}")),
    ];
    // Each keyword once: what a second one means, nobody says.
    let parameters = proptest::collection::vec(parameter, 0..4).prop_map(|mut all: Vec<String>| {
        let keyword = |text: &String| text.trim_start().split('=').next().unwrap_or_default().to_owned();
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|text| seen.insert(keyword(text)));
        all.concat()
    });
    let verb = |upper: &'static str| prop::sample::select(vec![upper.to_owned(), upper.to_lowercase()]);
    prop_oneof![
        4 => (verb("MAIL FROM:"), path(), parameters).prop_map(|(verb, path, parameters)| format!("{verb}{path}{parameters}")),
        1 => (verb("MAIL FROM:<>"), Just(String::new())).prop_map(|(verb, rest)| verb + &rest),
        3 => (verb("RCPT TO:"), path()).prop_map(|(verb, path)| format!("{verb}{path}")),
        1 => (verb("EHLO "), "[a-z0-9.-]{1,20}").prop_map(|(verb, name)| verb + &name),
        1 => (verb("HELO "), "[a-z0-9.-]{1,20}").prop_map(|(verb, name)| verb + &name),
        1 => prop::sample::select(vec!["DATA", "RSET", "QUIT", "data", "rset", "quit"]).prop_map(str::to_owned),
    ]
}

fn end_for_us(wire: &[u8]) -> (Vec<u8>, Option<usize>) {
    let mut content = Vec::new();
    let end = DataDecoder::new().decode(wire, &mut content);
    (content, end)
}

fn end_for_the_other(wire: &[u8]) -> (Vec<u8>, Option<usize>) {
    let (mut content, mut octets) = (Vec::new(), wire.iter());
    let ended = DataReceiver::new().ingest(&mut octets, &mut content);
    (content, ended.then(|| wire.len() - octets.as_slice().len()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_proper_command_is_taken_by_both_and_means_the_same(line in proper()) {
        prop_assert!(agree(line.as_bytes())?, "{:?} {:?}", Command::parse(line.as_bytes()), other(line.as_bytes()));
    }

    #[test]
    fn a_command_that_both_take_means_the_same_whatever_became_of_it(
        line in proper(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"<>@:,\"\\ =a.\0\x7f".to_vec()), 0..3_u8), 1..4),
    ) {
        let mut line = line.into_bytes();
        for (at, octet, change) in changes {
            let at = at.index(line.len());
            match change {
                0 => line[at] = octet,
                1 => line.insert(at, octet),
                _ if line.len() > 1 => drop(line.remove(at)),
                _ => {}
            }
        }
        agree(&line)?;
    }

    #[test]
    fn content_with_proper_line_ends_is_read_alike(lines in proptest::collection::vec("[.a]{0,4}", 0..8)) {
        let mut wire: Vec<u8> = b"x\r\n".to_vec();
        for line in lines {
            wire.extend_from_slice(if line.starts_with('.') { b"." } else { b"" });
            wire.extend_from_slice(line.as_bytes());
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b".\r\nNOOP\r\n");
        prop_assert_eq!(end_for_us(&wire), end_for_the_other(&wire));
    }

    #[test]
    fn a_message_ends_at_the_same_octet_for_both(wire in proptest::collection::vec(prop::sample::select(b"\r\n.a\r\n".to_vec()), 0..40)) {
        let wire = [b"x", &wire[..], b"\r\n.\r\nNOOP\r\n"].concat();
        prop_assume!(!deceives_the_other(&wire));
        prop_assert_eq!(end_for_us(&wire).1, end_for_the_other(&wire).1, "{}", wire.escape_ascii());
    }
}

#[test]
fn every_short_message_ends_at_the_same_octet_for_both() {
    for length in 0..=8_u32 {
        for number in 0..4_usize.pow(length) {
            let inside: Vec<u8> = (0..length).map(|i| b"\r\n.a"[number >> (2 * i) & 3]).collect();
            let wire = [b"x", &inside[..], b"a"].concat();
            if deceives_the_other(&wire) {
                continue;
            }
            assert_eq!(end_for_us(&wire).1, end_for_the_other(&wire).1, "{}", wire.escape_ascii());
        }
    }
}
