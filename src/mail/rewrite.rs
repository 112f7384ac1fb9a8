//! The header as it goes out on an account: High Volume Email has no Send As, so the From must be the account that carries the message.
//!
//! The From field is replaced in its place and the fields that keep the original follow it:
//!
//! * `From`: the author's display name (of several authors the first one's; for one without a name the address) and the account's address.
//! * `X-Original-From`: the value as it came, on one line; encoded where it is not ASCII.
//! * `X-Original-Envelope-From`: the reverse-path in angle brackets, unless it is the account.
//! * `Reply-To`: the authors, if the message has none; the reverse-path if no author has an address.
//!
//! An author who is the account keeps the From as it is. Further From fields, Sender, Return-Path, Bcc (a blind copy must not be disclosed)
//! and `X-Original-*` from outside are dropped. All other fields stay octet for octet and in their order; Message-ID never changes, so retries
//! remain recognisable as the same message. Of a notice of ours only the From is replaced.
//!
//! Whatever came in, exactly one From goes out, its only mailbox is the account's, and what is added is bounded (see [`growth_bound`]).

use super::Kind;
use super::author::{Author, Authors, authors};
use super::header::{Field, Header};
use super::words::{one_line, phrase, unfolded, unstructured, verbatim, write_field};
use crate::smtp::{Mailbox, ReversePath};

/// Characters of the original From that are kept.
const ORIGINAL_FROM: usize = 2_000;
/// Fields that never leave with a client's message.
const DROPPED: [&str; 6] = ["From", "Sender", "Return-Path", "Bcc", "X-Original-From", "X-Original-Envelope-From"];

/// Whose message it is to become.
#[derive(Debug, Clone, Copy)]
pub struct Rewrite<'a> {
    /// The account that was chosen.
    pub account: &'a Mailbox,
    /// MAIL FROM as the client gave it.
    pub reverse_path: &'a ReversePath,
    /// A client's message or a notice of ours.
    pub kind: Kind,
}

/// The header block to send in place of `header_block`, with its empty line. What follows the header in `header_block` is not looked at.
pub fn rewrite(header_block: &[u8], with: &Rewrite<'_>) -> Vec<u8> {
    let header = Header::scan(header_block);
    let account = with.account.as_str();
    let originals = Originals::of(header);
    let stays = originals.are_only(account);
    let mut written = Vec::new();
    match with.kind {
        Kind::Notice if stays => {}
        Kind::Notice => originals.write_from(account, &mut written),
        Kind::Mail => {
            if !stays {
                originals.write_from(account, &mut written);
                originals.write_original(&mut written);
            }
            if !with.reverse_path.mailbox().is_some_and(|path| same(path.as_str(), account)) {
                write_envelope(with.reverse_path, &mut written);
            }
            if !stays && !header.named("Reply-To").any(|field| !field.is_blank()) {
                originals.write_reply_to(with.reverse_path, &mut written);
            }
        }
    }

    let mut out = Vec::with_capacity(header.octets().len() + written.len() + 4);
    let mut at_from = Some(written);
    for field in header.fields() {
        if field.is("From") {
            if stays {
                out.extend_from_slice(field.whole());
            }
            // The place of the first From; later ones are gone.
            out.append(&mut at_from.take().unwrap_or_default());
        } else if with.kind == Kind::Notice || !is_dropped(&field) {
            out.extend_from_slice(field.whole());
        }
    }
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.append(&mut at_from.unwrap_or_default());
    out.extend_from_slice(b"\r\n");
    out
}

/// The most octets that [`rewrite`] adds to this header, for any account with an address of up to 254 octets.
pub fn growth_bound(header_block: &[u8], reverse_path: &ReversePath) -> u64 {
    let originals = Originals::of(Header::scan(header_block));
    // The longest address that a path can carry (RFC 5321 §4.5.3.1.3, less its brackets).
    let longest = "x".repeat(254);
    let mut written = Vec::new();
    originals.write_from(&longest, &mut written);
    originals.write_original(&mut written);
    write_envelope(reverse_path, &mut written);
    originals.write_reply_to(reverse_path, &mut written);
    // Two line ends, where the block came without them.
    written.len() as u64 + 4
}

fn is_dropped(field: &Field<'_>) -> bool {
    DROPPED.iter().any(|name| field.is(name)) || (field.is("Reply-To") && field.is_blank())
}

/// Accounts are mailboxes of Exchange, whose local parts know no case.
fn same(address: &str, account: &str) -> bool {
    address.eq_ignore_ascii_case(account)
}

fn write_envelope(reverse_path: &ReversePath, out: &mut Vec<u8>) {
    let path = format!("<{reverse_path}>");
    // Not split into words: a quoted local part may have blanks, which must neither be folded nor merged.
    let words = if path.is_ascii() { vec![path] } else { unstructured(&path) };
    write_field(out, "X-Original-Envelope-From", &words);
}

/// The words of a mailbox with its display name.
fn with_name(name: &str, address: &str) -> Vec<String> {
    let mut words = phrase(name);
    words.push(format!("<{address}>"));
    words
}

/// What the From fields said.
struct Originals {
    authors: Authors,
    values: String,
    fields: usize,
}

impl Originals {
    fn of(header: Header<'_>) -> Self {
        let mut all = Self { authors: Authors { list: Vec::new(), certain: true }, values: String::new(), fields: 0 };
        for field in header.named("From") {
            // More than a few are hostile; they are dropped like all others, and the first ones suffice to answer to.
            if all.fields < 10 {
                let found = authors(field.value());
                all.authors.list.extend(found.list);
                all.authors.certain &= found.certain;
                if !all.values.is_empty() {
                    all.values.push_str(", ");
                }
                all.values.push_str(&one_line(&unfolded(field.value()), ORIGINAL_FROM));
            }
            all.fields += 1;
        }
        all.authors.list.truncate(20);
        all
    }

    /// The From is the account already, for every reader.
    fn are_only(&self, account: &str) -> bool {
        let only = |author: &Author| author.address.as_ref().is_some_and(|address| same(address.as_str(), account));
        self.fields == 1 && self.authors.certain && matches!(&self.authors.list[..], [author] if only(author))
    }

    fn write_from(&self, account: &str, out: &mut Vec<u8>) {
        let name = self.authors.list.first().map_or("", |first| match &first.address {
            Some(address) if first.name.is_empty() => address.as_str(),
            _ => &first.name,
        });
        write_field(out, "From", &with_name(name, account));
    }

    fn write_original(&self, out: &mut Vec<u8>) {
        let words = verbatim(&one_line(&self.values, ORIGINAL_FROM));
        if !words.is_empty() {
            write_field(out, "X-Original-From", &words);
        }
    }

    fn write_reply_to(&self, reverse_path: &ReversePath, out: &mut Vec<u8>) {
        let mut words: Vec<String> = Vec::new();
        for author in &self.authors.list {
            let Some(address) = &author.address else { continue };
            if let Some(last) = words.last_mut() {
                last.push(',');
            }
            words.extend(with_name(&author.name, address.as_str()));
        }
        if let (true, Some(path)) = (words.is_empty(), reverse_path.mailbox()) {
            words.push(format!("<{path}>"));
        }
        if !words.is_empty() {
            write_field(out, "Reply-To", &words);
        }
    }
}

#[cfg(test)]
mod tests {
    use mail_parser::MessageParser;
    use proptest::prelude::*;

    use super::*;

    const ACCOUNT: &str = "hve01@contoso.com";

    fn mailbox(text: &str) -> Mailbox {
        text.parse().expect(text)
    }

    fn rewritten(block: &[u8], reverse_path: &str, kind: Kind) -> Vec<u8> {
        let path = if reverse_path.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(mailbox(reverse_path)) };
        rewrite(block, &Rewrite { account: &mailbox(ACCOUNT), reverse_path: &path, kind })
    }

    fn mail(block: &str) -> String {
        String::from_utf8(rewritten(block.as_bytes(), "scan@contoso.com", Kind::Mail)).expect("UTF-8")
    }

    #[test]
    fn the_account_sends_and_the_author_is_answered() {
        assert_eq!(
            mail("Received: x\r\nFrom: Scanner 3rd floor <scan@contoso.com>\r\nTo: b@c\r\nMessage-ID: <1@x>\r\n\r\n"),
            "Received: x\r\nFrom: Scanner 3rd floor <hve01@contoso.com>\r\n\
             X-Original-From: Scanner 3rd floor <scan@contoso.com>\r\nX-Original-Envelope-From: <scan@contoso.com>\r\n\
             Reply-To: Scanner 3rd floor <scan@contoso.com>\r\nTo: b@c\r\nMessage-ID: <1@x>\r\n\r\n"
        );
    }

    #[test]
    fn the_name_that_readers_see_is_the_authors() {
        for (from, written) in [
            ("a@b", "\"a@b\" <hve01@contoso.com>"),
            ("<a@b>", "\"a@b\" <hve01@contoso.com>"),
            ("a@b <a@b>", "\"a@b\" <hve01@contoso.com>"),
            ("\"a@b\" <a@b>", "\"a@b\" <hve01@contoso.com>"),
            ("=?iso-8859-1?Q?J=FCrgen?= <j@b>", "=?utf-8?B?SsO8cmdlbg==?= <hve01@contoso.com>"),
            ("jürgen@müller.example", "=?utf-8?B?asO8cmdlbkBtw7xsbGVyLmV4YW1wbGU=?= <hve01@contoso.com>"),
            ("A <a@b>, B <c@d>", "A <hve01@contoso.com>"),
            ("A <a@b>\r\nFrom : B <c@d>", "A <hve01@contoso.com>"),
            ("Scanner", "Scanner <hve01@contoso.com>"),
            ("", "<hve01@contoso.com>"),
            ("\"x\\\" <evil@y>\\\"\" <a@b>", "\"x\\\" <evil@y>\\\"\" <hve01@contoso.com>"),
            ("=?utf-8?B?DQpCY2M6IHhAeQ==?= <a@b>", "\"Bcc: x@y\" <hve01@contoso.com>"),
        ] {
            let out = mail(&format!("From: {from}\r\n\r\n"));
            let found: Vec<_> = Header::scan(out.as_bytes()).named("From").map(|field| unfolded(field.value())).collect();
            assert_eq!(found, [format!(" {written}")], "{from}");
        }
    }

    #[test]
    fn replies_go_to_all_authors_unless_told_otherwise() {
        for (fields, reply_to) in [
            ("From: A <a@b>, c@d", "A <a@b>, <c@d>"),
            ("From: A <a@b>\r\nFrom: c@d", "A <a@b>, <c@d>"),
            ("From: a@b\r\nReply-To: X <x@y>", "X <x@y>"),
            ("From: a@b\r\nReply-To: ", "<a@b>"),
            ("From: Scanner", "<scan@contoso.com>"),
            ("Subject: none", "<scan@contoso.com>"),
        ] {
            let out = mail(&format!("{fields}\r\n\r\n"));
            let found: Vec<_> =
                Header::scan(out.as_bytes()).named("Reply-To").map(|field| one_line(&unfolded(field.value()), 200)).collect();
            assert_eq!(found, [reply_to], "{fields}");
        }
    }

    #[test]
    fn an_author_who_is_the_account_stays() {
        let from = "From: \"HVE\" (x) <HVE01@Contoso.com>\r\n";
        let out = mail(&format!("{from}Sender: x@y\r\n\r\n"));
        assert_eq!(out, format!("{from}X-Original-Envelope-From: <scan@contoso.com>\r\n\r\n"));
        assert_eq!(rewritten(format!("{from}\r\n").as_bytes(), ACCOUNT, Kind::Mail), format!("{from}\r\n").as_bytes());
        // What another reader may read as another mailbox is not left to that reader.
        for from in ["From: <hve01@contoso.com>, x\r\n", "From: <x@y> <hve01@contoso.com>\r\n", "From: hve01@contoso.com\r\nFrom: x@y\r\n"]
        {
            assert!(mail(&format!("{from}\r\n")).contains("X-Original-From: "), "{from}");
        }
    }

    #[test]
    fn what_must_not_leave_is_dropped_and_the_rest_keeps_its_octets() {
        let out = mail(
            "Return-Path: <x@y>\r\nFrom: a@b\r\nBcc: secret@c,\r\n secret@d\r\nX-Original-From: forged\r\nsender: e@f\r\n\
             X-Original-Envelope-From: forged\r\nResent-From: r@s\r\nDKIM-Signature: v=1;\r\n\tb=abc\r\nSubject : =?x?=  ü \r\n\r\n",
        );
        assert_eq!(
            out,
            "From: \"a@b\" <hve01@contoso.com>\r\nX-Original-From: a@b\r\nX-Original-Envelope-From: <scan@contoso.com>\r\nReply-To: <a@b>\r\n\
             Resent-From: r@s\r\nDKIM-Signature: v=1;\r\n\tb=abc\r\nSubject : =?x?=  ü \r\n\r\n"
        );
    }

    #[test]
    fn a_notice_changes_only_its_from() {
        let block = b"From: Mail Delivery System <postmaster@relay>\r\nTo: a@b\r\n\r\n";
        let out = rewritten(block, "", Kind::Notice);
        assert_eq!(String::from_utf8_lossy(&out), "From: Mail Delivery System <hve01@contoso.com>\r\nTo: a@b\r\n\r\n");
    }

    #[test]
    fn octets_beyond_ascii_come_through_and_none_are_added() {
        let out = rewritten(b"Subject: \xfc\r\nFrom: J\xfcrgen <a@b>\r\n\r\n", "j\u{fc}@b", Kind::Mail);
        assert!(out.starts_with(b"Subject: \xfc\r\nFrom: =?utf-8?B?SsO8cmdlbg==?= <hve01@contoso.com>\r\n"));
        assert!(out["Subject: x\r\n".len()..].is_ascii());
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            3 => "[ -~]{0,40}".prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..40),
            1 => Just(b"\r\n ".to_vec()),
            1 => Just("Jürgen".as_bytes().to_vec()),
            1 => Just(b"=?utf-8?B?DQpCY2M6IHhAeQ==?=".to_vec()),
            2 => Just(b" <a@b>".to_vec()),
            1 => Just(b" <hve01@contoso.com> ".to_vec()),
            1 => Just(b",".to_vec()),
            1 => "[a-z\"<>(),;:@. ]{0,300}".prop_map(String::into_bytes),
        ];
        proptest::collection::vec(word, 0..8).prop_map(|words| {
            let folded = words.concat();
            let mut canonical = Vec::new();
            for (i, octet) in folded.iter().enumerate() {
                let fold =
                    matches!(&folded[i..], [b'\r', b'\n', b' ', ..]) || (i > 0 && matches!(&folded[i - 1..], [b'\r', b'\n', b' ', ..]));
                if fold || !matches!(octet, b'\r' | b'\n') {
                    canonical.push(*octet);
                }
            }
            canonical
        })
    }

    fn block() -> impl Strategy<Value = Vec<u8>> {
        let known = vec!["From", "FROM ", "Reply-To", "Sender", "Bcc", "To", "Subject", "X-Original-From", "Message-ID"];
        let name = prop_oneof![3 => prop::sample::select(known).prop_map(str::to_owned), 1 => "[!-9;-~]{1,20}"];
        proptest::collection::vec((name, value()), 0..12).prop_map(|fields| {
            let mut block: Vec<u8> =
                fields.into_iter().flat_map(|(name, value)| [name.as_bytes(), b":", &value, b"\r\n"].concat()).collect();
            block.extend_from_slice(b"\r\n");
            block
        })
    }

    proptest! {
        #[test]
        fn whatever_came_the_account_is_the_only_author(block in block(), path in prop::sample::select(vec!["", "scan@contoso.com", ACCOUNT]), notice: bool) {
            let kind = if notice { Kind::Notice } else { Kind::Mail };
            let out = rewritten(&block, path, kind);

            let header = Header::scan(&out);
            prop_assert_eq!(header.body(), out.len());
            let own: Vec<_> = header.named("From").flat_map(|field| authors(field.value()).list).collect();
            prop_assert_eq!(header.named("From").count(), 1);
            prop_assert!(own.len() == 1 && own[0].address.as_ref().is_some_and(|a| same(a.as_str(), ACCOUNT)), "{:?}", own);

            let parsed = MessageParser::default().parse_headers(&out).expect("a header");
            let froms: Vec<_> = parsed.root_part().headers.iter().filter(|h| h.name.as_str().eq_ignore_ascii_case("from")).collect();
            prop_assert_eq!(froms.len(), 1);
            let addresses: Vec<_> = froms[0].value.as_address().expect("addresses").iter().filter_map(|a| a.address.as_deref()).collect();
            prop_assert!(addresses.len() == 1 && same(addresses[0], ACCOUNT), "{:?} in {}", addresses, out.escape_ascii());

            // Nothing but the fields that are ours is new, and what stays keeps its order and its octets.
            let ours = ["From", "Reply-To", "X-Original-From", "X-Original-Envelope-From"];
            let others = |octets: &[u8]| Header::scan(octets).fields().filter(|f| !ours.iter().any(|n| f.is(n)) && (notice || !is_dropped(f)))
                .flat_map(|f| f.whole().to_vec()).collect::<Vec<u8>>();
            prop_assert_eq!(others(&block), others(&out));

            let path = if path.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(mailbox(path)) };
            prop_assert!(out.len() as u64 <= block.len() as u64 + growth_bound(&block, &path));
            for field in header.fields().filter(|f| ours.iter().any(|n| f.is(n)) && !block.windows(f.whole().len()).any(|w| w == f.whole())) {
                prop_assert!(field.whole().split(|o| *o == b'\n').all(|line| line.len() < 998));
            }
        }
    }

    #[test]
    fn the_bound_holds_for_the_longest_account_and_hostile_authors() {
        let longest = mailbox(&format!("{}@{}", "x".repeat(64), "y".repeat(189)));
        for from in ["ü".repeat(5_000), "\"x, ".repeat(5_000), format!("{} <a@b>", "\\".repeat(50_000)), "é <a@b>,".repeat(3_000)] {
            let block = format!("From: {from}\r\n\r\n");
            let out = rewrite(block.as_bytes(), &Rewrite { account: &longest, reverse_path: &ReversePath::Null, kind: Kind::Mail });
            let bound = growth_bound(block.as_bytes(), &ReversePath::Null);
            assert!(out.len() as u64 <= block.len() as u64 + bound && bound < 20_000, "{bound}");
        }
    }
}
