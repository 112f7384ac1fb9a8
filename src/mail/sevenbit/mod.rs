//! A message for a server that takes only ASCII: parts with other octets become quoted-printable or base64 (RFC 6152 §3, RFC 2045 §6).
//!
//! The body is read twice, in pieces of any size, so that memory does not grow with it: a [`Survey`] finds out what must become of each part and
//! ends in a [`Plan`]; with it, each [`Conversion`] turns the same octets into those to send. Text becomes quoted-printable, or base64 where that
//! is shorter; what is not text becomes base64. Headers become ASCII by RFC 2047 and RFC 2231. Parts in ASCII stay octet for octet, but for a
//! label of 8bit or binary, which becomes 7bit. A part whose lines are too long to be sent, or that has a NUL, is encoded too.
//!
//! Invariants: what is decoded from a part is the same before and after; what comes out is ASCII; what is signed or encrypted
//! (RFC 1847) is not touched, and where it is not in ASCII the message is not converted.

mod entity;
mod fields;
mod transfer;
mod walk;

use crate::mail::header::Header;

use entity::{Encoding, Entity, Level, Shape};
use transfer::{Base64, Encoder, QuotedPrintable};
use walk::{Visit, Walk};

/// Entities of one message.
const ENTITIES: usize = 10_000;
/// RFC 5322 §2.1.1: octets of a line, without its end.
const LINE: usize = 998;

/// Why a message cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A signed or encrypted part has octets beyond ASCII.
    #[error("a part that is signed or encrypted has characters beyond ASCII, and converting it would break it")]
    Sealed,
    /// A part that may not be encoded, or in an encoding that is not known, has octets beyond ASCII.
    #[error("a part has characters beyond ASCII and is of a kind that cannot be converted")]
    Opaque,
    /// A field has an address beyond ASCII.
    #[error("an address in the header's {0} field has characters beyond ASCII")]
    International(String),
    /// There are too many parts, they are too deep within each other, or one has a header that is too large.
    #[error("the message has too many parts to be converted")]
    TooComplex,
}

/// A header block in ASCII.
///
/// # Errors
/// [`Unfit::International`].
pub fn header_in_ascii(block: &[u8]) -> Result<Vec<u8>, Unfit> {
    let header = Header::scan(block);
    let mut out = Vec::with_capacity(block.len() + 1_024);
    for field in header.fields() {
        fields::write_in_ascii(&field, &mut out)?;
    }
    out.extend_from_slice(&block[header.octets().len()..header.body()]);
    Ok(out)
}

/// The first reading of a message.
#[derive(Debug)]
pub struct Survey {
    header: Vec<u8>,
    walk: Walk,
    seen: Seen,
}

/// What is to become of each part of a message.
#[derive(Debug, Clone)]
pub struct Plan {
    header: Vec<u8>,
    message: Entity,
    treatments: Vec<Treatment>,
}

/// The second reading of the same body.
#[derive(Debug)]
pub struct Conversion {
    walk: Walk,
    writer: Writer,
    /// What came out last was not the end of a line.
    within_line: bool,
}

impl Survey {
    /// Begins with the message's header.
    ///
    /// # Errors
    /// If it has no form in ASCII.
    pub fn new(header: &[u8]) -> Result<Self, Unfit> {
        let message = Entity::read(Header::scan(header), Level::Message);
        let walk = Walk::new(&message);
        let mut seen = Seen::default();
        seen.header(header, message)?;
        Ok(Self { header: header.to_vec(), walk, seen })
    }

    /// Takes octets of the body.
    ///
    /// # Errors
    /// If the message cannot be converted.
    pub fn push(&mut self, octets: &[u8]) -> Result<(), Unfit> {
        self.walk.push(octets, &mut self.seen)
    }

    /// The body has ended.
    ///
    /// # Errors
    /// If the message cannot be converted.
    pub fn finish(mut self) -> Result<Plan, Unfit> {
        self.walk.finish(&mut self.seen)?;
        let treatments = self.seen.parts.iter().map(Part::treatment).collect::<Result<Vec<_>, _>>()?;
        let mut header = Vec::with_capacity(self.header.len() + 1_024);
        let message = self.seen.parts.swap_remove(0).entity;
        treatments[0].write_header(&self.header, message.level, &mut header)?;
        Ok(Plan { header, message, treatments })
    }
}

impl Plan {
    /// The header to send, with its empty line.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Whether a part is to be sent otherwise than it came.
    pub fn converts_anything(&self) -> bool {
        self.treatments.iter().any(|treatment| treatment.body != Body::AsItIs)
    }

    /// Begins to convert the body.
    pub fn conversion(&self) -> Conversion {
        let mut treatments = self.treatments.clone().into_iter();
        let encoder = treatments.next().map_or(Encoder::None, Treatment::encoder);
        Conversion { walk: Walk::new(&self.message), writer: Writer { treatments, encoder, out: Vec::new() }, within_line: false }
    }
}

impl Conversion {
    /// Takes octets of the body, and appends what they become.
    ///
    /// # Errors
    /// Only if it is another body than the survey has seen.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
        self.walk.push(octets, &mut self.writer)?;
        self.give_out(out);
        Ok(())
    }

    /// The body has ended.
    ///
    /// # Errors
    /// As of [`Self::push`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Unfit> {
        self.walk.finish(&mut self.writer)?;
        self.give_out(out);
        if self.within_line {
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    fn give_out(&mut self, out: &mut Vec<u8>) {
        if let Some(last) = self.writer.out.last() {
            self.within_line = *last != b'\n';
        }
        out.append(&mut self.writer.out);
    }
}

/// What a survey has seen so far.
#[derive(Debug, Default)]
struct Seen {
    parts: Vec<Part>,
}

/// An entity and what is known of its body.
#[derive(Debug)]
struct Part {
    entity: Entity,
    octets: u64,
    /// Those that quoted-printable writes as three.
    quoted: u64,
    eight_bit: bool,
    nul: bool,
    /// Octets of the line so far, and whether one was too long.
    column: usize,
    long: bool,
    utf8: Utf8,
}

impl Visit for Seen {
    fn header(&mut self, block: &[u8], entity: Entity) -> Result<(), Unfit> {
        if self.parts.len() == ENTITIES {
            return Err(Unfit::TooComplex);
        }
        if !block.is_ascii() {
            header_in_ascii(block)?;
        }
        let utf8 = Utf8::default();
        self.parts.push(Part { entity, octets: 0, quoted: 0, eight_bit: false, nul: false, column: 0, long: false, utf8 });
        Ok(())
    }

    fn body(&mut self, octets: &[u8]) {
        if let Some(part) = self.parts.last_mut() {
            part.look_at(octets);
        }
    }

    fn end(&mut self) {}

    fn between(&mut self, _: &[u8]) {}
}

impl Part {
    /// Takes the text of a line, or a part of it, or its end.
    fn look_at(&mut self, octets: &[u8]) {
        self.octets += octets.len() as u64;
        if self.entity.shape == Shape::Text {
            self.utf8.push(octets);
        }
        if octets == b"\r\n" {
            self.column = 0;
            return;
        }
        self.column += octets.len();
        self.long |= self.column > LINE;
        self.eight_bit |= !octets.is_ascii();
        self.nul |= memchr::memchr(0, octets).is_some();
        if self.entity.shape == Shape::Text {
            self.quoted += octets.iter().filter(|octet| !matches!(octet, b'\t' | 32..=126) || **octet == b'=').count() as u64;
        }
    }

    fn treatment(&self) -> Result<Treatment, Unfit> {
        let Entity { shape, encoding, typed, .. } = &self.entity;
        let body = match (shape, encoding) {
            (Shape::Sealed, _) if self.eight_bit => return Err(Unfit::Sealed),
            (Shape::Opaque, _) if self.eight_bit => return Err(Unfit::Opaque),
            (Shape::Text | Shape::Octets, Encoding::Other) if self.eight_bit => return Err(Unfit::Opaque),
            (Shape::Text | Shape::Octets, Encoding::QuotedPrintable) if self.eight_bit => Body::Requoted,
            (Shape::Text | Shape::Octets, Encoding::Base64) if self.eight_bit => Body::Stripped,
            (Shape::Text, Encoding::None | Encoding::EightBit) if self.is_unfit() => {
                // Three octets for one against four for three.
                let longer_than_base64 = 6 * self.quoted > self.octets;
                if longer_than_base64 || self.nul { Body::Base64 } else { Body::QuotedPrintable }
            }
            (Shape::Octets, Encoding::None | Encoding::EightBit) if self.is_unfit() => Body::Base64,
            _ => Body::AsItIs,
        };
        let label = match body {
            Body::QuotedPrintable => Some("quoted-printable"),
            Body::Base64 => Some("base64"),
            Body::AsItIs if *encoding == Encoding::EightBit => Some("7bit"),
            Body::AsItIs | Body::Requoted | Body::Stripped => None,
        };
        let encoded = matches!(body, Body::QuotedPrintable | Body::Base64);
        let charset = (encoded && !typed).then_some(if self.utf8.is_valid() { "utf-8" } else { "iso-8859-1" });
        Ok(Treatment { body, label, charset })
    }

    /// Whether a body that is not encoded must be.
    fn is_unfit(&self) -> bool {
        self.eight_bit || self.nul || self.long
    }
}

/// What is to become of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Treatment {
    body: Body,
    /// The Content-Transfer-Encoding, if it becomes another.
    label: Option<&'static str>,
    /// The charset of a text of which nothing was said.
    charset: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    AsItIs,
    QuotedPrintable,
    Base64,
    Requoted,
    Stripped,
}

impl Treatment {
    fn encoder(self) -> Encoder {
        match self.body {
            Body::AsItIs => Encoder::None,
            Body::QuotedPrintable => Encoder::QuotedPrintable(QuotedPrintable::default()),
            Body::Base64 => Encoder::Base64(Base64::default()),
            Body::Requoted => Encoder::Requote,
            Body::Stripped => Encoder::Strip,
        }
    }

    /// Appends the header of the entity as it becomes.
    fn write_header(self, block: &[u8], level: Level, out: &mut Vec<u8>) -> Result<(), Unfit> {
        const ENCODING: &str = "Content-Transfer-Encoding";
        let header = Header::scan(block);
        let mut label = self.label;
        for field in header.fields() {
            if self.label.is_none() || !field.is(ENCODING) {
                fields::write_in_ascii(&field, out)?;
            } else if let Some(label) = label.take() {
                out.extend_from_slice(format!("{ENCODING}: {label}\r\n").as_bytes());
            }
        }
        if let Some(label) = label {
            // Without it nobody looks at the other fields (RFC 2045 §4).
            if level == Level::Message && header.named("MIME-Version").next().is_none() {
                out.extend_from_slice(b"MIME-Version: 1.0\r\n");
            }
            if let Some(charset) = self.charset {
                out.extend_from_slice(format!("Content-Type: text/plain; charset={charset}\r\n").as_bytes());
            }
            out.extend_from_slice(format!("{ENCODING}: {label}\r\n").as_bytes());
        }
        let empty_line = &block[header.octets().len()..header.body()];
        // A header that ended in a line of text does not end there any more if it was empty or that line is encoded.
        out.extend_from_slice(if self.label.is_some() { b"\r\n" } else { empty_line });
        Ok(())
    }
}

/// Writes what the body becomes.
#[derive(Debug)]
struct Writer {
    /// Of the entities that are still to come.
    treatments: std::vec::IntoIter<Treatment>,
    encoder: Encoder,
    out: Vec<u8>,
}

impl Visit for Writer {
    fn header(&mut self, block: &[u8], entity: Entity) -> Result<(), Unfit> {
        let treatment = self.treatments.next().ok_or(Unfit::TooComplex)?;
        treatment.write_header(block, entity.level, &mut self.out)?;
        self.encoder = treatment.encoder();
        Ok(())
    }

    fn body(&mut self, octets: &[u8]) {
        self.encoder.push(octets, &mut self.out);
    }

    fn end(&mut self) {
        self.encoder.finish(&mut self.out);
    }

    fn between(&mut self, octets: &[u8]) {
        self.out.extend(octets.iter().map(|octet| if octet.is_ascii() { *octet } else { b'?' }));
    }
}

/// Whether octets in pieces are UTF-8.
#[derive(Debug, Default)]
struct Utf8 {
    /// The beginning of a character that the last piece ended in.
    held: Vec<u8>,
    broken: bool,
}

impl Utf8 {
    fn push(&mut self, octets: &[u8]) {
        if self.broken || (self.held.is_empty() && octets.is_ascii()) {
            return;
        }
        self.held.extend_from_slice(octets);
        let (valid, broken) = match std::str::from_utf8(&self.held) {
            Ok(_) => (self.held.len(), false),
            Err(error) => (error.valid_up_to(), error.error_len().is_some()),
        };
        self.broken = broken;
        self.held.drain(..valid);
    }

    fn is_valid(&self) -> bool {
        !self.broken && self.held.is_empty()
    }
}

#[cfg(test)]
mod tests;
