//! Every odd From that devices write, and the sender that comes out.

use mail_parser::MessageParser;
use proptest::prelude::*;

use super::*;

const ACCOUNT: &str = "hve01@contoso.com";

fn mailbox(text: &str) -> Mailbox {
    text.parse().expect(text)
}

/// How a message is rewritten; by default as a client's that goes out as the account.
struct Way {
    sender: Option<Mailbox>,
    display_name: DisplayName,
    signatures: Signatures,
    reverse_path: ReversePath,
    kind: Kind,
}

impl Default for Way {
    fn default() -> Self {
        let reverse_path = ReversePath::Mailbox(mailbox("scan@contoso.com"));
        let (display_name, signatures) = (DisplayName::default(), Signatures::Remove);
        Self { sender: Some(mailbox(ACCOUNT)), display_name, signatures, reverse_path, kind: Kind::Mail }
    }
}

impl Way {
    fn rewrite(&self, block: &[u8]) -> Rewritten {
        let (account, client) = (AccountName::new(ACCOUNT), ClientName::new("erp"));
        let with = Rewrite {
            sender: self.sender.as_ref(),
            display_name: &self.display_name,
            signatures: self.signatures,
            account: &account,
            client: &client,
            reverse_path: &self.reverse_path,
            kind: self.kind,
        };
        rewrite(block, &with)
    }

    fn text(&self, block: &str) -> String {
        String::from_utf8(self.rewrite(block.as_bytes()).header).expect("UTF-8")
    }
}

fn path(text: &str) -> ReversePath {
    if text.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(mailbox(text)) }
}

fn rewritten(block: &[u8], reverse_path: &str, kind: Kind) -> Vec<u8> {
    Way { reverse_path: path(reverse_path), kind, ..Way::default() }.rewrite(block).header
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
        ("", "\"scan@contoso.com\" <hve01@contoso.com>"),
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
        let found: Vec<_> = Header::scan(out.as_bytes()).named("Reply-To").map(|field| one_line(&unfolded(field.value()), 200)).collect();
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
    for from in ["From: <hve01@contoso.com>, x\r\n", "From: <x@y> <hve01@contoso.com>\r\n", "From: hve01@contoso.com\r\nFrom: x@y\r\n"] {
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
         Resent-From: r@s\r\nSubject : =?x?=  ü \r\n\r\n"
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
            let fold = matches!(&folded[i..], [b'\r', b'\n', b' ', ..]) || (i > 0 && matches!(&folded[i - 1..], [b'\r', b'\n', b' ', ..]));
            if fold || !matches!(octet, b'\r' | b'\n') {
                canonical.push(*octet);
            }
        }
        canonical
    })
}

fn block() -> impl Strategy<Value = Vec<u8>> {
    let known = vec!["DKIM-Signature", "From", "FROM ", "Reply-To", "Sender", "Bcc", "To", "Subject", "X-Original-From", "Message-ID"];
    let name = prop_oneof![3 => prop::sample::select(known).prop_map(str::to_owned), 1 => "[!-9;-~]{1,20}"];
    proptest::collection::vec((name, value()), 0..12).prop_map(|fields| {
        let mut block: Vec<u8> = fields.into_iter().flat_map(|(name, value)| [name.as_bytes(), b":", &value, b"\r\n"].concat()).collect();
        block.extend_from_slice(b"\r\n");
        block
    })
}

proptest! {
    #[test]
    fn whatever_came_the_account_is_the_only_author(block in block(), path in prop::sample::select(vec!["", "scan@contoso.com", ACCOUNT]), notice: bool, template: bool) {
        let kind = if notice { Kind::Notice } else { Kind::Mail };
        let display_name = if template { "{author_name}\", {author} {{".parse().expect("a name") } else { DisplayName::default() };
        let out = Way { reverse_path: self::path(path), kind, display_name, ..Way::default() }.rewrite(&block).header;

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
        let others = |octets: &[u8]| Header::scan(octets).fields().filter(|f| !ours.iter().any(|n| f.is(n)) && !f.is("DKIM-Signature") && (notice || !is_dropped(f, true)))
            .flat_map(|f| f.whole().to_vec()).collect::<Vec<u8>>();
        prop_assert_eq!(others(&block), others(&out));

        prop_assert!(out.len() as u64 <= block.len() as u64 + growth_bound(&block, &self::path(path)));
        for field in header.fields().filter(|f| ours.iter().any(|n| f.is(n)) && !block.windows(f.whole().len()).any(|w| w == f.whole())) {
            prop_assert!(field.whole().split(|o| *o == b'\n').all(|line| line.len() < 998));
        }
    }
}

#[test]
fn the_bound_holds_for_the_longest_account_and_hostile_authors() {
    let longest = mailbox(&format!("{}@{}", "x".repeat(64), "y".repeat(189)));
    let display_name = "{author_name}{client}{author}{account}".repeat(50).parse().expect("a name");
    let way = Way { sender: Some(longest), display_name, reverse_path: ReversePath::Null, ..Way::default() };
    let froms = ["\u{fc}".repeat(5_000), "\u{10ffff}".repeat(300), "\"x, ".repeat(5_000), format!("{} <a@b>", "\\".repeat(50_000))];
    for from in froms.into_iter().chain(["\u{e9} <a@b>,".repeat(3_000)]) {
        let block = format!("From: {from}\r\n\r\n");
        let out = way.rewrite(block.as_bytes()).header;
        let bound = growth_bound(block.as_bytes(), &ReversePath::Null);
        assert!(out.len() as u64 <= block.len() as u64 + bound && bound < 20_000, "{bound}");
    }
}

#[test]
fn whatever_devices_write_one_reader_sees_one_sender() {
    // Each as it came, and the name that mail-parser finds before the sender's address.
    for (from, name) in [
        (&b"From: scan@contoso.com (scan@contoso.com) <scan@contoso.com>"[..], "scan@contoso.com"),
        (b"From: scan@contoso.com <scan@contoso.com>", "scan@contoso.com"),
        (b"From: Scanner, 3rd floor <scan@contoso.com>", "Scanner, 3rd floor"),
        (b"From: Scanner [3] <scan@contoso.com>", "Scanner [3]"),
        (b"From: Scan:er <scan@contoso.com>", "er"),
        (b"From: \"Scan \\\"3\\\"\" <scan@contoso.com>", "Scan \"3\""),
        (b"From: \"Open quote <scan@contoso.com>", "Open quote"),
        (b"From: A <a@b>, B <c@d>", "A"),
        (b"From: A <a@b>\r\nfrom: B <c@d>\r\nFROM : <e@f>", "A"),
        (b"From: Floor 3: A <a@b>, B <c@d>;", "A"),
        (b"From: undisclosed-recipients:;", "scan@contoso.com"),
        (b"From: nobody", "nobody"),
        (b"From:", "scan@contoso.com"),
        (b"From: <>", "scan@contoso.com"),
        (b"Subject: none at all", "scan@contoso.com"),
        (b"From: =?iso-8859-1?Q?M=FCller=2C_J=FCrgen?= <j@b>", "M\u{fc}ller, J\u{fc}rgen"),
        (b"From: =?utf-8?B?TcO8?= =?utf-8?B?bGxlcg==?= <j@b>", "M\u{fc}ller"),
        (b"From: \"=?utf-8?B?TcO8bGxlcg==?=\" <j@b>", "M\u{fc}ller"),
        (b"From: =?utf-8?Q?x=0D=0ABcc:_y@z?= <j@b>", "x Bcc: y@z"),
        (b"From:\r\n Scanner\r\n\t3rd floor\r\n <scan@contoso.com>", "Scanner 3rd floor"),
        (b"From: J\xfcrgen <j@b>", "J\u{fc}rgen"),
        (b"From: J\xc3\xbcrgen <j@b>", "J\u{fc}rgen"),
        (b"From: \xff\xfe\x00 <j@b>", "\u{ff}\u{fe}"),
        (b"From: A\0B <j@b>", "A B"),
        (b"From: <@hop.example:scan@contoso.com>", "scan@contoso.com"),
    ] {
        let out = Way::default().rewrite(&[from, b"\r\nTo: you@contoso.com\r\n\r\n"].concat()).header;
        let (shown, text) = (from.escape_ascii(), String::from_utf8_lossy(&out));
        let parsed = MessageParser::default().parse(&out).expect("a message");
        let found: Vec<_> = parsed.from().expect("a From").iter().map(|address| (address.name(), address.address())).collect();
        assert_eq!(found, [(Some(name), Some(ACCOUNT))], "{shown} became\n{text}");
        assert_eq!(Header::scan(&out).named("From").count(), 1, "{shown}");
        assert_eq!(parsed.to().and_then(|to| to.first()).and_then(|to| to.address()), Some("you@contoso.com"), "{shown}");
        assert!(parsed.reply_to().is_some(), "{shown} became\n{text}");
    }
}

#[test]
fn the_display_name_may_be_a_template() {
    let way = |template: &str| Way { display_name: template.parse().expect(template), ..Way::default() };
    for (template, from, name) in [
        ("{author_name} via {client}", "J\u{fc}rgen <j@b>", "J\u{fc}rgen via erp"),
        ("{author_name} via {client}", "j@b", "j@b via erp"),
        ("{author_name} via {client}", "", "scan@contoso.com via erp"),
        ("{author_name} ({author})", "A <a@b>, C <c@d>", "A (a@b)"),
        ("{author_name} ({author})", "Scanner", "Scanner (scan@contoso.com)"),
        ("{account}", "A <a@b>", ACCOUNT),
        ("Contoso <noreply@contoso.com>, {{IT}}", "A <a@b>", "Contoso <noreply@contoso.com>, {IT}"),
    ] {
        let out = way(template).text(&format!("From: {from}\r\n\r\n"));
        let parsed = MessageParser::default().parse(out.as_bytes()).expect("a message");
        let found = parsed.from().and_then(|from| from.first()).expect("an author");
        assert_eq!((found.name(), found.address()), (Some(name), Some(ACCOUNT)), "{template} of {from}");
        assert!(out.contains("Reply-To: ") && !out.contains("Reply-To: Contoso"), "{out}");
    }
    let long = way("{author_name}").text(&format!("From: {} <a@b>\r\n\r\n", "x".repeat(500)));
    assert!(long.starts_with(&format!("From: {}\r\n <{ACCOUNT}>\r\n", "x".repeat(NAME))), "{long}");
    let own = "From: HVE <hve01@contoso.com>\r\n";
    assert!(way("{client}").text(&format!("{own}\r\n")).starts_with(own), "an author who is the sender keeps the name");
    let notice = Way { kind: Kind::Notice, ..way("{client}") };
    assert_eq!(notice.text("From: Mail Delivery System <x@y>\r\n\r\n"), "From: Mail Delivery System <hve01@contoso.com>\r\n\r\n");
}

#[test]
fn a_fixed_sender_takes_the_place_of_the_account() {
    let way = Way { sender: Some(mailbox("noreply@contoso.com")), ..Way::default() };
    assert_eq!(
        way.text("From: App <app@contoso.com>\r\nSender: x@y\r\n\r\n"),
        "From: App <noreply@contoso.com>\r\nX-Original-From: App <app@contoso.com>\r\n\
         X-Original-Envelope-From: <scan@contoso.com>\r\nReply-To: App <app@contoso.com>\r\n\r\n"
    );
    let own = "From: NOREPLY@contoso.com\r\n\r\n";
    assert_eq!(Way { reverse_path: path("noreply@contoso.com"), ..way }.text(own), own);
}

#[test]
fn a_kept_sender_is_kept_octet_for_octet() {
    let way = Way { sender: None, ..Way::default() };
    let header = "Received: x\r\nDKIM-Signature: v=1; d=contoso.com\r\nfrom : App <app@contoso.com>,\r\n b@c\r\nFrom: d@e\r\n\
                  Sender: x@y\r\nReply-To:\r\nX-Original-From: z\r\nSubject:  \u{fc}\r\n";
    let rewritten = way.rewrite(format!("Return-Path: <p@q>\r\n{header}bcc: secret@c\r\n\r\n").as_bytes());
    assert_eq!(String::from_utf8_lossy(&rewritten.header), format!("{header}\r\n"));
    assert!(rewritten.unsigned.is_empty());
    let notice = "From: Mail Delivery System <postmaster@relay>\r\nTo: a@b\r\n\r\n";
    assert_eq!(Way { kind: Kind::Notice, reverse_path: path(""), ..way }.text(notice), notice);
}

#[test]
fn signatures_go_with_the_from_that_they_vouch_for_unless_they_are_kept() {
    let signature = "DKIM-Signature: v=1; a=rsa-sha256;\r\n\td = contoso.com; s=k1; b=dGVzdA==\r\n";
    let other = "dkim-signature : v=1; b=x;d=evil\u{fc}.example\u{7f}\r\n";
    let block = format!("{signature}ARC-Seal: i=1; d=x\r\nFrom: a@b\r\n{other}DKIM-Signature: none\r\n\r\n");
    let rewritten = Way::default().rewrite(block.as_bytes());
    assert_eq!(rewritten.unsigned, ["contoso.com", "evil?.example", ""]);
    let text = String::from_utf8_lossy(&rewritten.header);
    assert!(text.starts_with("ARC-Seal: i=1; d=x\r\nFrom: ") && !text.to_lowercase().contains("dkim"), "{text}");

    let kept = Way { signatures: Signatures::Keep, ..Way::default() }.rewrite(block.as_bytes());
    assert!(kept.unsigned.is_empty() && kept.header.starts_with(signature.as_bytes()));
    // A From that stays is vouched for as before.
    let own = format!("{signature}From: {ACCOUNT}\r\n\r\n");
    let stays = Way::default().rewrite(own.as_bytes());
    assert!(stays.unsigned.is_empty() && stays.header.starts_with(own.trim_end().as_bytes()));
    let many = format!("{}From: a@b\r\n\r\n", signature.repeat(1_000));
    assert_eq!(Way::default().rewrite(many.as_bytes()).unsigned.len(), TOLD);
}
