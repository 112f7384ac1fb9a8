//! The walk through the body of a message: where its parts begin and end (RFC 2046 §5.1.1), octets in pieces of any size.
//!
//! A line is a delimiter if it is `--`, the boundary of a multipart that is open, perhaps `--`, and then at most blanks: as most readers see it.
//! A delimiter of an outer multipart ends the inner ones. The line end before a delimiter is the delimiter's and not the body's. What is sealed
//! or encoded is not walked into. Held in memory are at most the header of one part and the beginning of one line, both with a limit.

use memchr::memchr;

use super::Unfit;
use super::entity::{Entity, Level, Shape};
use crate::mail::header::{Header, Line};

/// Octets of a line that may be a delimiter: the longest boundary, and more blanks than anybody writes.
const HELD: usize = 1_024;
/// Octets of the header of one part.
const HEADER: usize = 256 << 10;
/// Multiparts and messages within each other.
const DEPTH: usize = 100;

/// Whoever is told of what comes.
pub(super) trait Visit {
    /// A part or a message within this one begins: its header, with the empty line behind it if there is one.
    ///
    /// # Errors
    /// If there is nothing to go on for.
    fn header(&mut self, block: &[u8], entity: Entity) -> Result<(), Unfit>;
    /// Octets of the body of the last entity that began.
    fn body(&mut self, octets: &[u8]);
    /// That body has ended.
    fn end(&mut self);
    /// Delimiters, and what stands before the first and behind the last one of a multipart, which means nothing.
    fn between(&mut self, octets: &[u8]);
}

/// How far the walk has come.
#[derive(Debug)]
pub(super) struct Walk {
    /// The multiparts that are open, the innermost last.
    open: Vec<Open>,
    place: Place,
    /// How many messages the place lies in, besides the whole one.
    nested: usize,
    /// The header so far.
    block: Vec<u8>,
    /// The line so far, as long as it may be a delimiter.
    line: Vec<u8>,
    /// What more comes of the line belongs where its beginning went.
    going_on: bool,
    withheld: Withheld,
}

#[derive(Debug)]
struct Open {
    boundary: Vec<u8>,
    digest: bool,
    /// How many messages it lies in.
    nested: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header(Level),
    Body,
    /// Before the first or behind the last delimiter of a multipart.
    Between,
}

/// The end of the last line, of which it is not known yet whether it belongs to a delimiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Withheld {
    Nothing,
    /// In the middle of a line: LF may follow.
    Cr,
    CrLf,
}

impl Walk {
    /// Behind the header of the message.
    pub fn new(message: &Entity) -> Self {
        let mut walk = Self {
            open: Vec::new(),
            place: Place::Body,
            nested: 0,
            block: Vec::new(),
            line: Vec::new(),
            going_on: false,
            withheld: Withheld::Nothing,
        };
        walk.enter(&message.shape);
        walk
    }

    /// Takes octets of the body.
    pub fn push(&mut self, octets: &[u8], visit: &mut impl Visit) -> Result<(), Unfit> {
        let mut rest = octets;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest).map(|end| end + 1);
            let (piece, behind) = rest.split_at(end.unwrap_or(rest.len()));
            rest = behind;
            if self.going_on {
                self.go_on(piece, visit)?;
                self.going_on = end.is_none();
            } else if self.line.is_empty() && end.is_some() {
                self.begin(piece, visit)?;
            } else {
                self.line.extend_from_slice(piece);
                if end.is_some() || self.line.len() > HELD {
                    let line = std::mem::take(&mut self.line);
                    self.begin(&line, visit)?;
                    self.going_on = end.is_none();
                }
            }
        }
        Ok(())
    }

    /// The body has ended.
    pub fn finish(&mut self, visit: &mut impl Visit) -> Result<(), Unfit> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.begin(&line, visit)?;
        }
        self.end_header(visit)?;
        self.release(visit);
        if self.place == Place::Body {
            visit.end();
        }
        Ok(())
    }

    /// A line, or as much of one as cannot be a delimiter any more.
    fn begin(&mut self, line: &[u8], visit: &mut impl Visit) -> Result<(), Unfit> {
        if let Some((depth, closes)) = self.delimiter(line) {
            return self.delimit(depth, closes, line, visit);
        }
        if let Place::Header(_) = self.place {
            match Line::of(line) {
                Line::Field => return self.hold(line),
                Line::Continuation if !self.block.is_empty() => return self.hold(line),
                Line::Blank => {
                    self.hold(line)?;
                    return self.end_header(visit);
                }
                // The header is over without an empty line.
                Line::Continuation | Line::Other | Line::Undecided => {
                    self.end_header(visit)?;
                    // A message within begins with a header that it does not have.
                    return self.begin(line, visit);
                }
            }
        }
        self.text(line, visit);
        Ok(())
    }

    fn go_on(&mut self, piece: &[u8], visit: &mut impl Visit) -> Result<(), Unfit> {
        if let Place::Header(_) = self.place {
            return self.hold(piece);
        }
        self.text(piece, visit);
        Ok(())
    }

    fn hold(&mut self, octets: &[u8]) -> Result<(), Unfit> {
        self.block.extend_from_slice(octets);
        if self.block.len() > HEADER { Err(Unfit::TooComplex) } else { Ok(()) }
    }

    /// The header is complete, if one was being read.
    fn end_header(&mut self, visit: &mut impl Visit) -> Result<(), Unfit> {
        let Place::Header(level) = self.place else { return Ok(()) };
        let block = std::mem::take(&mut self.block);
        let entity = Entity::read(Header::scan(&block), level);
        let shape = entity.shape.clone();
        visit.header(&block, entity)?;
        self.nested += usize::from(shape == Shape::Message);
        if self.open.len() + self.nested > DEPTH {
            return Err(Unfit::TooComplex);
        }
        self.enter(&shape);
        Ok(())
    }

    fn enter(&mut self, shape: &Shape) {
        self.place = match shape {
            Shape::Multipart { boundary, digest } => {
                self.open.push(Open { boundary: boundary.clone(), digest: *digest, nested: self.nested });
                Place::Between
            }
            Shape::Message => Place::Header(Level::Message),
            Shape::Text | Shape::Octets | Shape::Sealed | Shape::Opaque => Place::Body,
        };
    }

    /// Which of the open multiparts the line delimits, and whether it closes it.
    fn delimiter(&self, line: &[u8]) -> Option<(usize, bool)> {
        let text = line.strip_prefix(b"--").filter(|_| line.len() <= HELD)?;
        let text = text.strip_suffix(b"\r\n").or_else(|| text.strip_suffix(b"\n")).unwrap_or(text);
        let text = &text[..text.iter().rposition(|octet| !matches!(octet, b' ' | b'\t')).map_or(0, |last| last + 1)];
        self.open.iter().enumerate().rev().find_map(|(depth, open)| match text.strip_prefix(open.boundary.as_slice())? {
            b"" => Some((depth, false)),
            b"--" => Some((depth, true)),
            _ => None,
        })
    }

    fn delimit(&mut self, depth: usize, closes: bool, line: &[u8], visit: &mut impl Visit) -> Result<(), Unfit> {
        self.end_header_before_delimiter(visit)?;
        let withheld = std::mem::replace(&mut self.withheld, Withheld::Nothing);
        if self.place == Place::Body {
            visit.end();
        }
        if withheld == Withheld::CrLf {
            visit.between(b"\r\n");
        }
        visit.between(line);
        let Open { digest, nested, .. } = self.open[depth];
        self.nested = nested;
        self.open.truncate(if closes { depth } else { depth + 1 });
        self.place = match (closes, digest) {
            (true, _) => Place::Between,
            (false, true) => Place::Header(Level::Digested),
            (false, false) => Place::Header(Level::Part),
        };
        Ok(())
    }

    /// A part may end in its header. What it says it contains is then not there.
    fn end_header_before_delimiter(&mut self, visit: &mut impl Visit) -> Result<(), Unfit> {
        let Place::Header(level) = self.place else { return Ok(()) };
        let block = std::mem::take(&mut self.block);
        let entity = Entity { shape: Shape::Text, ..Entity::read(Header::scan(&block), level) };
        visit.header(&block, entity)?;
        self.place = Place::Body;
        Ok(())
    }

    fn text(&mut self, piece: &[u8], visit: &mut impl Visit) {
        if self.withheld == Withheld::Cr && piece == b"\n" {
            self.withheld = Withheld::CrLf;
            return;
        }
        self.release(visit);
        let (text, withheld) = match piece {
            [text @ .., b'\r', b'\n'] => (text, Withheld::CrLf),
            [text @ .., b'\r'] => (text, Withheld::Cr),
            text => (text, Withheld::Nothing),
        };
        self.withheld = withheld;
        self.pass(text, visit);
    }

    fn release(&mut self, visit: &mut impl Visit) {
        match std::mem::replace(&mut self.withheld, Withheld::Nothing) {
            Withheld::Nothing => {}
            Withheld::Cr => self.pass(b"\r", visit),
            Withheld::CrLf => self.pass(b"\r\n", visit),
        }
    }

    fn pass(&self, octets: &[u8], visit: &mut impl Visit) {
        match self.place {
            _ if octets.is_empty() => {}
            Place::Body => visit.body(octets),
            Place::Between | Place::Header(_) => visit.between(octets),
        }
    }
}
