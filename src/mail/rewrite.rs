//! The header as it goes out: in the name of the account that carries the message (High Volume Email has no Send As), in a fixed one, or as it
//! came.
//!
//! Where the sender is replaced, the From field is replaced in its place and the fields that keep the original follow it:
//!
//! * `From`: a display name, by default the author's (of several authors the first one's; for one without a name the address), and the sender's
//!   address.
//! * `X-Original-From`: the value as it came, on one line; encoded where it is not ASCII.
//! * `X-Original-Envelope-From`: the reverse-path in angle brackets, unless it is the sender.
//! * `Reply-To`: the authors, if the message has none; the reverse-path if no author has an address.
//!
//! An author who is the sender keeps the From as it is. Further From fields, Sender, Return-Path, Bcc (a blind copy must not be disclosed),
//! `X-Original-*` from outside and, with a replaced From, DKIM-Signature are dropped. All other fields stay octet for octet and in their order;
//! Message-ID never changes, so retries remain recognisable as the same message. Of a notice of ours only the From is replaced. Where the
//! sender stays, nothing is written and only Return-Path and Bcc are dropped.
//!
//! Whatever came in, if the sender is replaced exactly one From goes out, its only mailbox is the sender's, and what is added is bounded (see
//! [`growth_bound`]).

use std::sync::LazyLock;

use super::author::{Author, Authors, authors};
use super::header::{Field, Header};
use super::sender::Names;
use super::words::{one_line, phrase, unfolded, unstructured, verbatim, write_field};
use super::{AccountName, ClientName, DisplayName, Kind, Signatures, domain};
use crate::smtp::{Mailbox, ReversePath};

/// Characters of the original From that are kept.
const ORIGINAL_FROM: usize = 2_000;
/// Characters of the display name that is written.
const NAME: usize = 200;
/// Signatures of which the log is told.
const TOLD: usize = 10;
/// Fields that never leave with a client's message.
const DROPPED: [&str; 2] = ["Return-Path", "Bcc"];
/// Fields that do not leave where the sender is replaced.
const REPLACED: [&str; 4] = ["From", "Sender", "X-Original-From", "X-Original-Envelope-From"];

/// Whose message it is to become.
#[derive(Debug, Clone, Copy)]
pub struct Rewrite<'a> {
    /// Who takes the sender's place; none where the sender stays.
    pub sender: Option<&'a Mailbox>,
    /// The name that readers see where the From is replaced.
    pub display_name: &'a DisplayName,
    /// What becomes of signatures where the From is replaced.
    pub signatures: Signatures,
    /// The account that was chosen.
    pub account: &'a AccountName,
    /// Who sent us the message.
    pub client: &'a ClientName,
    /// MAIL FROM as the client gave it.
    pub reverse_path: &'a ReversePath,
    /// A client's message or a notice of ours.
    pub kind: Kind,
}

/// What goes out in place of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The header block, with its empty line.
    pub header: Vec<u8>,
    /// The domains (`d=`) of the DKIM signatures that were removed, the first ten.
    pub unsigned: Vec<String>,
}

/// The header block to send in place of `header_block`. What follows the header in `header_block` is not looked at.
pub fn rewrite(header_block: &[u8], with: &Rewrite<'_>) -> Rewritten {
    let header = Header::scan(header_block);
    let mut written = Vec::new();
    let mut replaced = false;
    if let Some(sender) = with.sender.map(Mailbox::as_str) {
        let originals = Originals::of(header);
        replaced = !originals.are_only(sender);
        if replaced {
            originals.write_from(sender, with, &mut written);
        }
        if with.kind == Kind::Mail {
            if replaced {
                originals.write_original(&mut written);
            }
            if !with.reverse_path.mailbox().is_some_and(|path| same(path.as_str(), sender)) {
                write_envelope(with.reverse_path, &mut written);
            }
            if replaced && !header.named("Reply-To").any(|field| !field.is_blank()) {
                originals.write_reply_to(with.reverse_path, &mut written);
            }
        }
    }

    let mut out = Vec::with_capacity(header.octets().len() + written.len() + 4);
    let mut unsigned = Vec::new();
    let mut at_from = Some(written);
    for field in header.fields() {
        if with.sender.is_some() && field.is("From") {
            if !replaced {
                out.extend_from_slice(field.whole());
            }
            // The place of the first From; later ones are gone.
            out.append(&mut at_from.take().unwrap_or_default());
        } else if replaced && with.signatures == Signatures::Remove && field.is("DKIM-Signature") {
            if unsigned.len() < TOLD {
                unsigned.push(signing_domain(field.value()));
            }
        } else if with.kind == Kind::Notice || !is_dropped(&field, with.sender.is_some()) {
            out.extend_from_slice(field.whole());
        }
    }
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.append(&mut at_from.unwrap_or_default());
    out.extend_from_slice(b"\r\n");
    Rewritten { header: out, unsigned }
}

/// The most octets that [`rewrite`] adds to this header, for any sender with an address of up to 254 octets and any display name.
pub fn growth_bound(header_block: &[u8], reverse_path: &ReversePath) -> u64 {
    /// The longest From that is written.
    static FROM: LazyLock<usize> = LazyLock::new(|| {
        // The longest address that a path can carry (RFC 5321 §4.5.3.1.3, less its brackets).
        let longest = "x".repeat(254);
        // No characters take more room in encoded words than those of four octets.
        let widest = "\u{10000}".repeat(NAME);
        let mut written = Vec::new();
        write_field(&mut written, "From", &with_name(&widest, &longest));
        written.len()
    });
    let originals = Originals::of(Header::scan(header_block));
    let mut written = Vec::new();
    originals.write_original(&mut written);
    write_envelope(reverse_path, &mut written);
    originals.write_reply_to(reverse_path, &mut written);
    // Two line ends, where the block came without them.
    (*FROM + written.len()) as u64 + 4
}

fn is_dropped(field: &Field<'_>, sender_replaced: bool) -> bool {
    let replaced = || REPLACED.iter().any(|name| field.is(name)) || (field.is("Reply-To") && field.is_blank());
    DROPPED.iter().any(|name| field.is(name)) || (sender_replaced && replaced())
}

/// The domain that a DKIM-Signature speaks for (RFC 6376 §3.5), made harmless.
fn signing_domain(value: &[u8]) -> String {
    let text = unfolded(value);
    let tag = |tag: &str| tag.split_once('=').filter(|(name, _)| name.trim() == "d").map(|(_, value)| domain(value));
    text.split(';').find_map(tag).unwrap_or_default()
}

/// Senders are mailboxes of Exchange, whose local parts know no case.
fn same(address: &str, sender: &str) -> bool {
    address.eq_ignore_ascii_case(sender)
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

    /// The From is the sender already, for every reader.
    fn are_only(&self, sender: &str) -> bool {
        let only = |author: &Author| author.address.as_ref().is_some_and(|address| same(address.as_str(), sender));
        self.fields == 1 && self.authors.certain && matches!(&self.authors.list[..], [author] if only(author))
    }

    fn write_from(&self, sender: &str, with: &Rewrite<'_>, out: &mut Vec<u8>) {
        let first = self.authors.list.first();
        let address = self.authors.list.iter().find_map(|author| author.address.as_ref()).or(with.reverse_path.mailbox());
        let name = first.map_or("", |first| match &first.address {
            Some(address) if first.name.is_empty() => address.as_str(),
            _ => &first.name,
        });
        let author = address.map_or("", Mailbox::as_str);
        let author_name = if name.is_empty() { author } else { name };
        let name = match with.kind {
            Kind::Mail => with.display_name.fill(Names { author_name, author, client: with.client, account: with.account }),
            Kind::Notice => name.to_owned(),
        };
        write_field(out, "From", &with_name(&one_line(&name, NAME), sender));
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
mod tests;
