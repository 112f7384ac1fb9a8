//! Header fields in ASCII: what stands in them beyond it becomes encoded words (RFC 2047) or encoded parameters (RFC 2231).
//!
//! A field that is ASCII is not touched. In the others, octets that are not UTF-8 are taken for Latin-1, as everywhere here. Where addresses
//! stand, display names, comments and names of groups are encoded. An address itself has no form in ASCII (RFC 6531 §3.2): such a field cannot
//! be written for a server without SMTPUTF8.

use super::Unfit;
use super::entity::{Parameter, parameters, semicolons};
use crate::mail::header::Field;
use crate::mail::words::{decoded, encoded_words, one_line, phrase, unfolded, write_field};

/// Fields of addresses (RFC 5322 §3.6, RFC 8098 §2.1, and some that never were a standard).
const ADDRESSES: [&str; 18] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Resent-From",
    "Resent-Sender",
    "Resent-Reply-To",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
    "Return-Path",
    "Errors-To",
    "Disposition-Notification-To",
    "Return-Receipt-To",
    "Delivered-To",
    "Mail-Followup-To",
];
/// Fields with parameters (RFC 2231 §3, §4).
const PARAMETERS: [&str; 2] = ["Content-Type", "Content-Disposition"];

/// Characters of a parameter's section, so that it fits a line behind its name.
const SECTION: usize = 50;

/// Appends a field in ASCII.
///
/// # Errors
/// If it has no such form.
pub(super) fn write_in_ascii(field: &Field<'_>, out: &mut Vec<u8>) -> Result<(), Unfit> {
    if field.whole().is_ascii() {
        out.extend_from_slice(field.whole());
        return Ok(());
    }
    let name = String::from_utf8_lossy(field.name());
    let text = unfolded(field.value());
    let is_one_of = |names: &[&str]| names.iter().any(|name| field.is(name));
    let words = if is_one_of(&ADDRESSES) {
        addresses(&text).ok_or_else(|| Unfit::International(name.clone().into_owned()))?
    } else if is_one_of(&PARAMETERS) {
        with_parameters(&text)
    } else {
        unstructured(&text)
    };
    write_field(out, &name, &words);
    Ok(())
}

/// A value without structure. Words in ASCII stay as they are; between two encoded words a reader drops the blanks, so whole runs are encoded.
fn unstructured(text: &str) -> Vec<String> {
    let is_encoded = |word: &str| word.starts_with("=?") && word.ends_with("?=") && word.matches('?').count() >= 4;
    let all: Vec<&str> = text.split_whitespace().collect();
    let mut words: Vec<String> = Vec::new();
    for run in all.chunk_by(|a, b| (!a.is_ascii() || is_encoded(a)) == (!b.is_ascii() || is_encoded(b))) {
        if run.iter().all(|word| word.is_ascii()) {
            words.extend(run.iter().map(|word| (*word).to_owned()));
        } else {
            let mut plain = String::new();
            for part in run.chunk_by(|a, b| is_encoded(a) == is_encoded(b)) {
                let text = decoded(&part.join(" "));
                plain = if plain.is_empty() { text } else { format!("{plain} {text}") };
            }
            words.extend(encoded_words(&plain));
        }
    }
    words
}

/// A list of addresses; none if one of the addresses is beyond ASCII.
fn addresses(text: &str) -> Option<Vec<String>> {
    let mut list = List { words: Vec::new(), phrase: String::new(), apart: true };
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '"' => closing(rest, '"'),
            '(' => closing(rest, ')'),
            '<' => rest.find('>').map_or(rest.len(), |end| end + 1),
            ',' | ';' | ':' => 1,
            _ => rest.find(['"', '(', '<', ',', ';', ':']).unwrap_or(rest.len()),
        };
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        match c {
            '(' => {
                list.end_address()?;
                list.comment(piece);
            }
            '<' => {
                list.end_name();
                list.add(piece.is_ascii().then_some(piece)?);
            }
            ':' => {
                list.end_name();
                list.glue(piece);
            }
            // Nobody quoted the name: `Müller, J <a@b>` is one address.
            ',' if !list.phrase.is_ascii() && !list.phrase.contains('@') => list.phrase.push_str(piece),
            ',' | ';' => {
                list.end_address()?;
                list.glue(piece);
            }
            _ => list.phrase.push_str(piece),
        }
    }
    list.end_address()?;
    Some(list.words)
}

/// A list of addresses as it is written.
struct List {
    words: Vec<String>,
    /// A name or an address, not known yet which.
    phrase: String,
    /// What comes next is a word of its own.
    apart: bool,
}

impl List {
    /// What was read is the name of the address, or of the group, that follows.
    fn end_name(&mut self) {
        let phrase = std::mem::take(&mut self.phrase);
        if phrase.is_ascii() {
            self.add(&phrase);
        } else {
            let plain = phrase.replace("\\\"", "\u{0}").replace('"', "").replace('\u{0}', "\"");
            self.words.extend(self::phrase(&decoded(plain.trim())));
            self.apart = true;
        }
    }

    /// What was read is an address, or nothing; `None` if it is beyond ASCII.
    fn end_address(&mut self) -> Option<()> {
        let phrase = std::mem::take(&mut self.phrase);
        if phrase.is_ascii() {
            self.add(&phrase);
            return Some(());
        }
        let (name, address) = phrase.trim().rsplit_once(char::is_whitespace).unwrap_or(("", phrase.trim()));
        if !address.is_ascii() && address.contains('@') {
            return None;
        }
        self.phrase = if address.contains('@') { name.to_owned() } else { phrase.clone() };
        self.end_name();
        if address.contains('@') {
            self.add(address);
        }
        Some(())
    }

    fn comment(&mut self, written: &str) {
        if written.is_ascii() {
            return self.add(written);
        }
        let inside = written.trim_start_matches('(').trim_end_matches(')');
        let mut words = encoded_words(&one_line(&decoded(inside), usize::MAX));
        if let Some(first) = words.first_mut() {
            first.insert(0, '(');
        }
        if let Some(last) = words.last_mut() {
            last.push(')');
        }
        self.words.extend(words);
        self.apart = true;
    }

    /// Adds words in ASCII, folded at their blanks.
    fn add(&mut self, written: &str) {
        self.apart |= written.starts_with(char::is_whitespace);
        for word in written.split_whitespace() {
            match self.words.last_mut() {
                Some(last) if !self.apart => last.push_str(word),
                _ => self.words.push(word.to_owned()),
            }
            self.apart = true;
        }
        if !written.trim().is_empty() {
            self.apart = written.ends_with(char::is_whitespace);
        }
    }

    /// Adds a mark that belongs to what stands before it.
    fn glue(&mut self, mark: &str) {
        match self.words.last_mut() {
            // RFC 2047 §5 (3): an encoded word has blanks around it.
            Some(last) if !last.ends_with("?=") => last.push_str(mark),
            _ => self.words.push(mark.to_owned()),
        }
        self.apart = true;
    }
}

/// Behind the mark that closes what the text opens: a quoted string, or a comment with others in it.
fn closing(text: &str, close: char) -> usize {
    let (mut escaped, mut depth) = (false, 0_u32);
    for (i, c) in text.char_indices() {
        match c {
            _ if std::mem::take(&mut escaped) => {}
            '\\' => escaped = true,
            '(' if close == ')' => depth += 1,
            _ if c == close && i > 0 => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + c.len_utf8();
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// A value with parameters, those beyond ASCII as RFC 2231 has them.
fn with_parameters(text: &str) -> Vec<String> {
    let plain: String = semicolons(text)[0].trim().chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
    let all = parameters(text);
    let mut words: Vec<String> = plain.split_whitespace().map(str::to_owned).collect();
    for parameter in &all {
        let Parameter { name, value, raw } = parameter;
        let extended = format!("{name}*");
        if !raw.is_ascii() && !name.ends_with('*') && all.iter().any(|other| other.name.starts_with(&extended)) {
            // The same is there in a form that can be read, for readers of that form.
            continue;
        }
        if let Some(last) = words.last_mut() {
            last.push(';');
        }
        if raw.is_ascii() {
            words.extend(raw.split_whitespace().map(str::to_owned));
        } else {
            words.extend(encoded_parameter(name, value));
        }
    }
    words
}

/// The parameter, in several sections if it is long; all but the last end in a semicolon.
fn encoded_parameter(name: &str, value: &str) -> Vec<String> {
    let name: String = name.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    if name.ends_with('*') {
        // Encoded already, but not all of it.
        let value: String = value.chars().map(|c| if c.is_ascii_graphic() { c.to_string() } else { percent(c) }).collect();
        return vec![format!("{name}={value}")];
    }
    // RFC 2231 §7: attribute-char.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "!#$&+-.^_`{|}~".contains(c);
    let mut sections = vec![String::new()];
    for c in value.chars() {
        let c = if is_plain(c) { c.to_string() } else { percent(c) };
        match sections.last_mut() {
            Some(last) if last.len() + c.len() <= SECTION => last.push_str(&c),
            _ => sections.push(c),
        }
    }
    // A continuation says its charset once, in its first section (RFC 2231 §4.1).
    if name.rsplit_once('*').is_some_and(|(_, number)| number != "0") {
        return vec![format!("{name}*={}", sections.concat())];
    }
    match sections.as_slice() {
        [only] => vec![format!("{name}*=utf-8''{only}")],
        _ if name.contains('*') => vec![format!("{name}*=utf-8''{}", sections.concat())],
        _ => {
            let last = sections.len() - 1;
            let mark = |i| if i < last { ";" } else { "" };
            let charset = |i| if i == 0 { "utf-8''" } else { "" };
            sections.iter().enumerate().map(|(i, text)| format!("{name}*{i}*={}{text}{}", charset(i), mark(i))).collect()
        }
    }
}

fn percent(c: char) -> String {
    c.encode_utf8(&mut [0; 4]).bytes().map(|octet| format!("%{octet:02X}")).collect()
}
