//! The words of header fields: reading text that others encoded, and writing text so that it can do no harm.
//!
//! Reading ends in a `String` without controls, whatever came: octets that are not UTF-8 are taken for Latin-1, which never fails and is what
//! devices without a charset write. Decoding encoded words (RFC 2047) is mail-parser's part. Writing is ASCII only, except for international
//! addresses, for which there is no other form (RFC 6532): a name becomes atoms, a quoted string or encoded words in UTF-8, and a field is
//! folded between words. As no word that is written has a control in it, no value can start a field of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;

/// RFC 2047 §2: a line with an encoded word has at most 76 characters.
const LINE: usize = 76;
/// Octets of text in an encoded word: 27 become 36 characters of base 64, so that the word fits a line even behind the longest name of ours.
const OCTETS_PER_WORD: usize = 27;
/// A word beyond this cannot stand in a line as it is: RFC 5322 §2.1.1 ends lines at 998 octets, and the field's name comes on top.
const LONGEST_WORD: usize = 900;
/// How much of a value is decoded; far more than is shown of any.
const DECODED: usize = 4_096;

/// The value of a field as text on one line. Runs of blanks stay as they are.
pub fn unfolded(value: &[u8]) -> String {
    // Most values are one plain line.
    if value.iter().all(|octet| matches!(octet, b' '..=b'~')) {
        return String::from_utf8_lossy(value).into_owned();
    }
    let text = match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().map(|octet| char::from(*octet)).collect(),
    };
    text.chars().map(|c| if harmless(c) { c } else { ' ' }).collect()
}

/// The text with its encoded words decoded; only the first 4,096 octets of one that has any.
pub fn decoded(text: &str) -> String {
    if !text.contains("=?") {
        return text.to_owned();
    }
    let mut line: String = text[..text.floor_char_boundary(DECODED)].chars().filter(|c| harmless(*c)).collect();
    line.push('\n');
    match MessageStream::new(line.as_bytes()).parse_unstructured() {
        HeaderValue::Text(text) => text.into_owned(),
        _ => String::new(),
    }
}

/// The text without controls, with single blanks, cut to `limit` characters.
pub fn one_line(text: &str, limit: usize) -> String {
    // Most texts are so already.
    let trimmed = text.trim_matches(' ');
    if trimmed.len() <= limit && trimmed.bytes().all(|octet| matches!(octet, b' '..=b'~')) && !trimmed.contains("  ") {
        return trimmed.to_owned();
    }
    let mut line = String::new();
    let (mut length, mut gap) = (0, false);
    for c in text.chars() {
        if c.is_whitespace() || !harmless(c) {
            gap = !line.is_empty();
            continue;
        }
        // A blank is written only with the character behind it, so none is left at the end.
        if length + usize::from(gap) >= limit {
            break;
        }
        if gap {
            line.push(' ');
        }
        line.push(c);
        length += 1 + usize::from(std::mem::take(&mut gap));
    }
    line
}

/// Controls end lines and drive terminals; line separators and direction overrides make a text look like another.
fn harmless(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A display name as words: atoms, a quoted string, or encoded words (RFC 5322 §3.2.5, RFC 2047 §5).
pub fn phrase(name: &str) -> Vec<String> {
    let name = one_line(name, usize::MAX);
    let atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~ ".contains(c);
    // What looks like an encoded word would be read as one, and careless readers do so inside quotes too.
    if !name.is_ascii() || name.contains("=?") || name.split(' ').any(|word| word.len() > LONGEST_WORD / 2) {
        return encoded_words(&name);
    }
    if name.chars().all(atom) {
        return name.split_whitespace().map(str::to_owned).collect();
    }
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for c in name.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted.split(' ').map(str::to_owned).collect()
}

/// Text for a field without structure, as words; encoded if it is not ASCII or could be read as encoded.
pub fn unstructured(text: &str) -> Vec<String> {
    if text.contains("=?") { encoded_words(&one_line(text, usize::MAX)) } else { verbatim(text) }
}

/// A value as somebody wrote it, for a field without structure: its encoded words stay; encoded only if it is not ASCII or has a word too
/// long for a line.
pub fn verbatim(value: &str) -> Vec<String> {
    let value = one_line(value, usize::MAX);
    if value.is_ascii() && value.split(' ').all(|word| word.len() <= LONGEST_WORD) {
        value.split_whitespace().map(str::to_owned).collect()
    } else {
        encoded_words(&value)
    }
}

/// Appends a field, folded between words so that its lines stay within 76 characters where words allow it.
pub fn write_field(out: &mut Vec<u8>, name: &str, words: &[String]) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    let mut column = name.len() + 1;
    for (i, word) in words.iter().enumerate() {
        if i > 0 && column + 1 + word.len() > LINE {
            out.extend_from_slice(b"\r\n");
            column = 0;
        }
        out.push(b' ');
        out.extend_from_slice(word.as_bytes());
        column += 1 + word.len();
    }
    out.extend_from_slice(b"\r\n");
}

/// Encoded words of whole characters (RFC 2047 §5 (3)); a reader joins them without the blanks between.
pub fn encoded_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(rest.floor_char_boundary(OCTETS_PER_WORD));
        words.push(format!("=?utf-8?B?{}?=", STANDARD.encode(word)));
        rest = behind;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_others_wrote() {
        for (value, text) in [
            (&b"plain"[..], "plain"),
            (b" folded\r\n here", "folded here"),
            (b"=?utf-8?Q?J=C3=BCrgen?=", "J\u{fc}rgen"),
            (b"=?iso-8859-1?Q?J=FCrgen?= =?utf-8?B?IMO8?=", "J\u{fc}rgen \u{fc}"),
            (b"J\xc3\xbcrgen", "J\u{fc}rgen"),
            (b"J\xfcrgen", "J\u{fc}rgen"),
            (b"=?utf-8?B?DQpCY2M6IHhAeQ==?=", "Bcc: x@y"),
            (b"=?utf-8?Q?open", "=?utf-8?Q?open"),
            (b"a\0b\x1b[31m", "a b [31m"),
            (b"\xe2\x80\xaeevil", "evil"),
            (b"", ""),
        ] {
            assert_eq!(one_line(&decoded(&unfolded(value)), 200), text, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn cuts_at_characters_and_never_leaves_blanks_at_the_end() {
        for (text, limit, cut) in
            [("äöü", 2, "äö"), ("a b", 2, "a"), ("  a \t\r\n b  ", 9, "a b"), ("abc def", 5, "abc d"), ("abc", 3, "abc"), ("", 3, "")]
        {
            assert_eq!(one_line(text, limit), cut, "{text:?}");
        }
    }

    #[test]
    fn writes_names_as_atoms_quoted_or_encoded() {
        for (name, written) in [
            ("Scanner 3rd floor", "Scanner 3rd floor"),
            ("a@b", "\"a@b\""),
            ("O\"Neil, \\ (x)", "\"O\\\"Neil, \\\\ (x)\""),
            ("Jürgen", "=?utf-8?B?SsO8cmdlbg==?="),
            ("=?utf-8?Q?x?=", "=?utf-8?B?PT91dGYtOD9RP3g/PQ==?="),
            ("a\r\nBcc: x@y", "\"a Bcc: x@y\""),
            ("", ""),
        ] {
            assert_eq!(phrase(name).join(" "), written, "{name:?}");
        }
    }

    #[test]
    fn folded_fields_read_as_they_were_meant() {
        for text in ["ü".repeat(150), "word ".repeat(40), "x".repeat(3_000), "日本語".repeat(30), "=?utf-8?Q?x?=".to_owned()] {
            let mut out = Vec::new();
            write_field(&mut out, "X-Original-Envelope-From", &unstructured(&text));
            assert!(out.is_ascii() && out.ends_with(b"\r\n"));
            let field = String::from_utf8(out).expect("ASCII");
            assert!(field.lines().all(|line| line.len() <= LINE), "{field}");
            let value = unfolded(field.split_once(':').expect("a colon").1.as_bytes());
            assert_eq!(one_line(&decoded(&value), 900), one_line(&text, 900));
        }
    }
}
