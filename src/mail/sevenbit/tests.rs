//! Messages before and after: what a reader decodes is the same.

use mail_parser::{Message, MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;

use super::*;
use crate::mail::header_end;

/// Converts a message that comes in pieces of this length.
fn converted_in(message: &[u8], piece: usize) -> Result<Vec<u8>, Unfit> {
    let (header, body) = message.split_at(header_end(message).expect("a header"));
    let mut survey = Survey::new(header)?;
    for octets in body.chunks(piece) {
        survey.push(octets)?;
    }
    let plan = survey.finish()?;
    let mut out = plan.header().to_vec();
    let mut conversion = plan.conversion();
    for octets in body.chunks(piece) {
        conversion.push(octets, &mut out)?;
    }
    conversion.finish(&mut out)?;
    Ok(out)
}

fn converted(message: &str) -> String {
    String::from_utf8(converted_in(message.as_bytes(), 7).expect("convertible")).expect("ASCII")
}

/// What a reader finds: type, file name and content of each part that holds something.
fn found(message: &Message<'_>) -> Vec<(String, Option<String>, Vec<u8>)> {
    let mut all = Vec::new();
    for part in &message.parts {
        let of = part.content_type().map(|found| format!("{}/{}", found.ctype(), found.subtype().unwrap_or_default()));
        let name = part.attachment_name().map(str::to_owned);
        match &part.body {
            PartType::Text(text) | PartType::Html(text) => all.push((of.unwrap_or_default(), name, text.as_bytes().to_vec())),
            PartType::Binary(octets) | PartType::InlineBinary(octets) => all.push((of.unwrap_or_default(), name, octets.to_vec())),
            PartType::Message(inner) => {
                all.push(("message".to_owned(), inner.subject().map(str::to_owned), Vec::new()));
                all.extend(found(inner));
            }
            PartType::Multipart(_) => {}
        }
    }
    all
}

fn read(message: &[u8]) -> Message<'_> {
    MessageParser::default().parse(message).expect("a message")
}

#[test]
fn a_plain_text_becomes_quoted_printable() {
    assert_eq!(
        converted(
            "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nTo: a@b\r\n\r\nKäse, Brot und Wein \r\n.\r\n"
        ),
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nTo: a@b\r\n\r\n\
         K=C3=A4se, Brot und Wein=20\r\n.\r\n"
    );
}

#[test]
fn a_text_of_which_nothing_is_said_gets_what_it_lacks() {
    assert_eq!(
        converted("Subject: x\r\n\r\nDie Wäsche ist fertig.\r\n"),
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
         Die W=C3=A4sche ist fertig.\r\n"
    );
    let latin1 = converted_in(b"Subject: x\r\n\r\nDie W\xe4sche ist fertig.\r\n", 5).expect("convertible");
    assert!(String::from_utf8_lossy(&latin1).contains("charset=iso-8859-1\r\n"), "{}", latin1.escape_ascii());
    assert_eq!(read(&latin1).body_text(0).as_deref(), Some("Die W\u{e4}sche ist fertig.\r\n"));
    let cut_by_a_line_end =
        converted_in(b"Subject: x\r\n\r\na long line of text \xc3\r\n\xa4 and another one\r\n", 5).expect("convertible");
    assert!(String::from_utf8_lossy(&cut_by_a_line_end).contains("charset=iso-8859-1\r\n"));
}

#[test]
fn text_that_would_grow_too_much_becomes_base64() {
    let text = "Привет, как дела?\r\n".repeat(20);
    let out = converted(&format!("Content-Type: text/plain; charset=utf-8\r\n\r\n{text}"));
    assert!(out.contains("Content-Transfer-Encoding: base64\r\n") && out.len() < 2 * text.len(), "{out}");
    assert_eq!(read(out.as_bytes()).body_text(0).as_deref(), Some(text.as_str()));
}

const MIXED: &str = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"outer\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
    Präambel\r\n--outer\r\nContent-Type: multipart/alternative; boundary=inner\r\nContent-Transfer-Encoding: binary\r\n\r\n--inner\r\n\r\n\
    plain part, ASCII\r\n--inner\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Grüße aus dem Büro, dem einzigen weit und breit</p>\r\n\r\n--inner--\r\nEpilog ä\r\n--outer \t\r\n\
    Content-Type: application/octet-stream; name=\"Übersicht 1.bin\"\r\nContent-Disposition: attachment;\r\n\tfilename=\"Übersicht 1.bin\"; size=3\r\n\
    Content-Transfer-Encoding: binary\r\nContent-Description: die Übersicht\r\n\r\naä\0\r\n--outer\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
    From: \"Jürgen\" <j@b>\r\nSubject: Grüße\r\nMIME-Version: 1.0\r\n\r\nHällo, das ist die Nachricht.\r\n--outer\r\n\
    Content-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n\r\nonly ASCII = 100%  \r\n--outer--\r\nböse\r\n";

#[test]
fn each_part_is_converted_as_it_needs() {
    let out = converted(MIXED);
    assert_eq!(
        out,
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"outer\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
         Pr??ambel\r\n--outer\r\nContent-Type: multipart/alternative; boundary=inner\r\nContent-Transfer-Encoding: 7bit\r\n\r\n--inner\r\n\r\n\
         plain part, ASCII\r\n--inner\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
         <p>Gr=C3=BC=C3=9Fe aus dem B=C3=BCro, dem einzigen weit und breit</p>\r\n\r\n--inner--\r\nEpilog ??\r\n--outer \t\r\n\
         Content-Type: application/octet-stream; name*=utf-8''%C3%9Cbersicht%201.bin\r\n\
         Content-Disposition: attachment; filename*=utf-8''%C3%9Cbersicht%201.bin;\r\n size=3\r\n\
         Content-Transfer-Encoding: base64\r\nContent-Description: die =?utf-8?B?w5xiZXJzaWNodA==?=\r\n\r\nYcOkAA==\r\n--outer\r\n\
         Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
         From: =?utf-8?B?SsO8cmdlbg==?= <j@b>\r\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
         H=C3=A4llo, das ist die Nachricht.\r\n--outer\r\n\
         Content-Type: text/plain\r\nContent-Transfer-Encoding: 7bit\r\n\r\nonly ASCII = 100%  \r\n--outer--\r\nb??se\r\n"
    );
    let names = |message: &[u8]| found(&read(message)).into_iter().map(|(_, name, content)| (name, content)).collect::<Vec<_>>();
    assert_eq!(names(out.as_bytes()), names(MIXED.as_bytes()));
}

#[test]
fn what_is_ascii_stays_octet_for_octet() {
    let signed = "MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain \r\n\
                  Content-Transfer-Encoding: 8bit\r\n\r\n trailing  \r\n\t\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\nMIIB\r\n--b--\r\n";
    let broken = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nA: b\r\nno field: x\r\n\r\n--b\r\nContent-Type: text/plain\r\n--b\r\n\r\n--b \r\ntext\r\n--bb\r\n--b--x\r\n-- b\r\n--b--\r\n--b--\r\n";
    for message in ["A: b\r\n\r\n", "A: b\r\n\r\n\r\n", "A: b\r\nnot a field\r\n", signed, broken] {
        for piece in [1, 3, 10_000] {
            let out = converted_in(message.as_bytes(), piece).expect("convertible");
            assert_eq!(String::from_utf8_lossy(&out), message, "in pieces of {piece}");
        }
    }
}

#[test]
fn what_cannot_be_converted_is_told() {
    let part =
        |header: &str, body: &str| format!("Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n{header}\r\n\r\n{body}\r\n--o--\r\n");
    for (message, why) in [
        (part("Content-Type: multipart/signed; boundary=b", "--b\r\n\r\nä\r\n--b--"), Unfit::Sealed),
        (part("Content-Type: multipart/encrypted; boundary=b", "--b\r\nX: ä\r\n\r\n--b--"), Unfit::Sealed),
        (part("Content-Type: multipart/mixed", "ä"), Unfit::Opaque),
        (part("Content-Type: message/partial", "ä"), Unfit::Opaque),
        (part("Content-Transfer-Encoding: x-uuencode", "ä"), Unfit::Opaque),
        ("To: Jürgen <jürgen@b>\r\n\r\n".to_owned(), Unfit::International("To".to_owned())),
        (part("Content-Type: message/rfc822", "From: ä@b\r\n\r\n"), Unfit::International("From".to_owned())),
        (part(&format!("X: {}", "x".repeat(300_000)), "ä"), Unfit::TooComplex),
        ("Content-Type: message/rfc822\r\n\r\n".to_owned() + &"Content-Type: message/rfc822\r\n\r\n".repeat(200), Unfit::TooComplex),
        (format!("Content-Type: multipart/mixed; boundary=o\r\n\r\n{}", "--o\r\n\r\n".repeat(20_000)), Unfit::TooComplex),
    ] {
        assert_eq!(converted_in(message.as_bytes(), 999), Err(why), "{:.200}", message);
    }
    // A hundred messages beside each other are not within each other.
    let beside = "--o\r\nContent-Type: message/rfc822\r\n\r\nSubject: ä\r\n\r\nx\r\n".repeat(300);
    assert!(converted_in(format!("Content-Type: multipart/mixed; boundary=o\r\n\r\n{beside}--o--\r\n").as_bytes(), 999).is_ok());
}

#[test]
fn what_is_encoded_already_but_not_quite_decodes_as_before() {
    let quoted = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nK=C3=A4se Käse=\r\n!\r\n";
    let out = converted(quoted);
    assert!(out.ends_with("\r\n\r\nK=C3=A4se K=C3=A4se=\r\n!\r\n"), "{out}");
    assert_eq!(found(&read(out.as_bytes())), found(&read(quoted.as_bytes())));
}

#[test]
fn long_lines_and_nul_are_made_fit_to_be_sent() {
    for text in ["x".repeat(5_000) + "ä\r\n", "ä".repeat(999) + "\r\n", "a\0ä\r\n".to_owned(), format!("{}-- b\r\n", "x".repeat(70_000))]
    {
        let message = format!("Content-Type: text/plain; charset=utf-8\r\n\r\n{text}");
        let out = converted(&message);
        assert!(out.lines().all(|line| line.len() <= LINE) && !out.contains('\0'), "{out}");
        assert_eq!(read(out.as_bytes()).body_text(0).as_deref(), Some(text.as_str()));
    }
}

#[test]
fn fields_become_ascii_and_mean_the_same() {
    for (field, written) in [
        ("Subject:  Grüße", "Subject: =?utf-8?B?R3LDvMOfZQ==?="),
        ("Subject: Re: die Grüße von gestern", "Subject: Re: die =?utf-8?B?R3LDvMOfZQ==?= von gestern"),
        ("Subject: =?utf-8?Q?=C3=A4?= ö =?utf-8?Q?=C3=BC?= x", "Subject: =?utf-8?B?w6Qgw7Ygw7w=?= x"),
        ("Message-ID: <1@Büro>", "Message-ID: =?utf-8?B?PDFAQsO8cm8+?="),
        ("To: Müller, J <a@b>, c@d", "To: =?utf-8?B?TcO8bGxlciwgSg==?= <a@b>, c@d"),
        ("To: \"Müller, \\\"J\\\"\" <a@b>,\r\n\t\"plain  x\" <c@d>", "To: =?utf-8?B?TcO8bGxlciwgIkoi?= <a@b>, \"plain x\" <c@d>"),
        ("Cc: a@b (Jürgen (im Büro)), c@d", "Cc: a@b (=?utf-8?B?SsO8cmdlbiAoaW0gQsO8cm8=?=), c@d"),
        ("Reply-To: Größe: a@b, Ä <c@d>;", "Reply-To: =?utf-8?B?R3LDtsOfZQ==?= : a@b, =?utf-8?B?w4Q=?= <c@d>;"),
        ("From: =?utf-8?Q?J=C3=BC?= ö <a@b>", "From: =?utf-8?B?SsO8IMO2?= <a@b>"),
        ("From: Jürgen a@b", "From: =?utf-8?B?SsO8cmdlbg==?= a@b"),
        ("Content-Type: text/plain; charset=utf-8; name=ä.txt", "Content-Type: text/plain; charset=utf-8; name*=utf-8''%C3%A4.txt"),
        (
            "Content-Disposition: attachment; filename=\"ä\\\"b\"; filename*=utf-8''%C3%A4",
            "Content-Disposition: attachment; filename*=utf-8''%C3%A4",
        ),
        ("Content-Disposition: attachment; filename*=utf-8''ä b", "Content-Disposition: attachment; filename*=utf-8''%C3%A4"),
        ("Content-Disposition: äh; x=y", "Content-Disposition: ?h; x=y"),
        ("Subject: a  b  ", "Subject: a  b  "),
    ] {
        let out = header_in_ascii(format!("{field}\r\n\r\n").as_bytes()).expect(field);
        assert_eq!(String::from_utf8_lossy(&out), format!("{written}\r\n\r\n"), "{field}");
    }
    for field in ["To: jürgen@b", "To: a@b, J <j@bücher.example>", "From: J\u{fc}rgen j\u{fc}rgen@b", "Reply-To: <\u{fc}@b>"] {
        assert!(matches!(header_in_ascii(format!("{field}\r\n\r\n").as_bytes()), Err(Unfit::International(_))), "{field}");
    }
    let long = format!("Content-Disposition: attachment; filename=\"{}.pdf\"\r\n\r\n", "Ü".repeat(120));
    let out = header_in_ascii(long.as_bytes()).expect("encodable");
    assert!(out.split(|octet| *octet == b'\n').all(|line| line.len() < 90), "{}", String::from_utf8_lossy(&out));
    assert_eq!(read(&out).parts[0].attachment_name(), Some(format!("{}.pdf", "Ü".repeat(120)).as_str()));
}

#[test]
fn hostile_messages_take_linear_time() {
    let header = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    for unit in ["--b", "--b\r", "-", "\r\n", "--b\r\nTo: \"ä", "--b\r\nTo: (", "--b\r\nTo: <ä,", ";=\"", "ä", "=?", "\r"] {
        let _ = converted_in(format!("{header}{}", unit.repeat(1_000_000 / unit.len())).as_bytes(), 4_096);
        let _ = converted_in(format!("{header}--b\r\nContent-Type: ä{}", unit.repeat(200_000 / unit.len())).as_bytes(), 4_096);
        let _ = header_in_ascii(format!("To: ä {}\r\n\r\n", unit.replace(['\r', '\n'], "").repeat(200_000 / unit.len())).as_bytes());
    }
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,90}",
        "[ -~äöüß€]{0,120}",
        "[\u{400}-\u{4ff} ]{0,60}",
        "-{0,3}[a-c]{0,4} {0,2}",
        Just(String::new()),
        "[ -~ä]{1000,1200}"
    ]
}

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(line(), 0..8).prop_map(|lines| lines.join("\r\n"))
}

/// An entity with its header.
fn entity(depth: u32) -> BoxedStrategy<String> {
    let label = prop::sample::select(vec!["", "Content-Transfer-Encoding: 8bit\r\n", "content-transfer-encoding : Binary\r\n"]);
    let of = prop::sample::select(vec![
        "text/plain; charset=utf-8",
        "text/html; charset=\"utf-8\"",
        "application/pdf; name=\"ä.pdf\"",
        "image/x",
    ]);
    let leaf = (of, label.clone(), text()).prop_map(|(of, label, text)| format!("Content-Type: {of}\r\n{label}\r\n{text}"));
    if depth == 0 {
        return leaf.boxed();
    }
    let parts = proptest::collection::vec(entity(depth - 1), 1..4);
    let multipart =
        (label.clone(), parts, prop::sample::select(vec!["mixed", "alternative", "related"])).prop_map(move |(label, parts, kind)| {
            let boundary = format!("=_{depth}");
            let parts: String = parts.iter().map(|part| format!("\r\n--{boundary}\r\n{part}")).collect();
            format!("Content-Type: multipart/{kind}; boundary=\"{boundary}\"\r\n{label}\r\npreämble{parts}\r\n--{boundary}--\r\nepilog ü")
        });
    // mail-parser 0.11.9 panics where a message is nothing but another message.
    let inner = entity(depth - 1).prop_filter("no bare message", |inner| !inner.starts_with("Content-Type: message"));
    let message = (label, inner)
        .prop_map(|(label, inner)| format!("Content-Type: message/rfc822\r\n{label}\r\nSubject: Grüße\r\nMIME-Version: 1.0\r\n{inner}"));
    prop_oneof![2 => leaf, 3 => multipart, 1 => message].boxed()
}

proptest! {
    #[test]
    fn a_reader_finds_the_same_before_and_after(entity in entity(3), piece in 1_usize..3_000) {
        let message = format!("MIME-Version: 1.0\r\n{entity}\r\n");
        let out = converted_in(message.as_bytes(), piece).expect("convertible");
        prop_assert!(out.is_ascii());
        prop_assert!(out.split(|octet| *octet == b'\n').all(|line| line.len() <= LINE + 1));
        prop_assert_eq!(found(&read(&out)), found(&read(message.as_bytes())), "\n{}\n{}", message, String::from_utf8_lossy(&out));
        prop_assert_eq!(&converted_in(&out, piece).expect("convertible"), &out, "what is converted needs nothing more");
    }

    #[test]
    fn whatever_comes_ascii_goes_and_pieces_make_no_difference(
        lines in proptest::collection::vec(prop_oneof![
            2 => proptest::collection::vec(any::<u8>(), 0..80),
            2 => prop::sample::select(vec!["--b", "--b--", "--c", "", "Content-Type: multipart/mixed; boundary=c", "Content-Type: message/rfc822", "Content-Type: multipart/digest; boundary=\"b\"",
                "Content-Transfer-Encoding: base64", "Content-Transfer-Encoding: quoted-printable", "Content-Type: text/plain; name=\"\u{e4}", "To: \"\u{e4}\" (x", " folded \u{fc}"]).prop_map(|line| line.as_bytes().to_vec()),
        ], 0..30),
        piece in 1_usize..60,
    ) {
        let body: Vec<u8> = lines.iter().flat_map(|line| [line.as_slice(), b"\r\n"].concat()).collect();
        let message = [b"Content-Type: multipart/mixed; boundary=b\r\n\r\n".as_slice(), &body].concat();
        let whole = converted_in(&message, message.len());
        prop_assert_eq!(&converted_in(&message, piece), &whole);
        if let Ok(out) = whole {
            prop_assert!(out.is_ascii() && out.ends_with(b"\n"));
            if message.is_ascii() {
                prop_assert!(out.len() >= message.len());
            }
        }
    }
}
