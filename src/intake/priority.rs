//! The priority that a message asks for in its own header.
//!
//! Four fields say it, and mailers write several of them at a time. They are looked at in this order: `Priority` (RFC 2156, the only one that is
//! about how fast a message travels), `X-Priority` (1 to 5, of no standard, the one most written), `Importance` (RFC 2156), `Precedence`
//! (RFC 2076 §3.9). The first that asks for something else than normal decides, for many mailers write `X-Priority: 3` into everything; if
//! none does and one says normal, it is normal. A field with another value is as good as none.
//!
//! The fields are only read: recipients see them as they were written. Whether the wish counts is the client's `may_choose_priority`
//! ([`super::Policy::priority`]).

use crate::mail::{Field, Header, Priority, words};

/// Field names, in the order in which they are looked at, and the words in them that mean something, in lower case.
const FIELDS: &[(&str, &[(&str, Priority)])] =
    &[("Priority", WORDS), ("X-Priority", WORDS), ("Importance", WORDS), ("Precedence", PRECEDENCE)];

/// Devices write the words of one field into another, so all are read in each.
const WORDS: &[(&str, Priority)] = &[
    ("1", Priority::High),
    ("2", Priority::High),
    ("highest", Priority::High),
    ("high", Priority::High),
    ("urgent", Priority::High),
    ("3", Priority::Normal),
    ("normal", Priority::Normal),
    ("4", Priority::Bulk),
    ("5", Priority::Bulk),
    ("low", Priority::Bulk),
    ("lowest", Priority::Bulk),
    ("non-urgent", Priority::Bulk),
];

/// What else was ever written there, such as `first-class`, asks for nothing.
const PRECEDENCE: &[(&str, Priority)] = &[("bulk", Priority::Bulk), ("list", Priority::Bulk), ("junk", Priority::Bulk)];

/// The priority that a header asks for, if it does.
pub(super) fn asked(header: Header<'_>) -> Option<Priority> {
    let wishes = FIELDS.iter().filter_map(|(name, words)| header.named(name).find_map(|field| meaning(field, words)));
    let mut normal = None;
    for wish in wishes {
        if wish != Priority::Normal {
            return Some(wish);
        }
        normal = Some(wish);
    }
    normal
}

/// What the first word of a field means: `1 (Highest)` is 1.
fn meaning(field: Field<'_>, words: &[(&str, Priority)]) -> Option<Priority> {
    let value = words::unfolded(field.value());
    let word = value.split(|c: char| c.is_whitespace() || matches!(c, '(' | ';' | ',')).find(|word| !word.is_empty())?;
    words.iter().find(|(known, _)| word.eq_ignore_ascii_case(known)).map(|(_, priority)| *priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_field_that_mailers_write() {
        use Priority::{Bulk, High, Normal};
        for (header, expected) in [
            ("", None),
            ("Subject: urgent\r\n", None),
            ("X-Priority: 1\r\n", Some(High)),
            ("x-priority:2 (High)\r\n", Some(High)),
            ("X-Priority: 1(Highest)\r\n", Some(High)),
            ("X-Priority: 3\r\n", Some(Normal)),
            ("X-Priority: 3 (Normal)\r\n", Some(Normal)),
            ("X-Priority:\r\n 4\r\n", Some(Bulk)),
            ("X-Priority: 5 (Lowest)\r\n", Some(Bulk)),
            ("X-Priority: Low\r\n", Some(Bulk)),
            ("Importance: High\r\n", Some(High)),
            ("Importance: normal\r\n", Some(Normal)),
            ("IMPORTANCE: LOW\r\n", Some(Bulk)),
            ("Priority: urgent\r\n", Some(High)),
            ("Priority: Non-Urgent\r\n", Some(Bulk)),
            ("Precedence: bulk\r\n", Some(Bulk)),
            ("Precedence: list\r\n", Some(Bulk)),
            ("Precedence: junk\r\n", Some(Bulk)),
            ("Precedence: first-class\r\n", None),
            ("Precedence: high\r\n", None),
            ("X-Priority: 0\r\n", None),
            ("X-Priority: 12\r\n", None),
            ("X-Priority: -1\r\n", None),
            ("X-Priority:\r\n", None),
            ("X-Priority: \u{fc}\r\n", None),
            ("Priority: very urgent\r\n", None),
        ] {
            assert_eq!(asked(Header::scan(header.as_bytes())), expected, "{header:?}");
        }
    }

    #[test]
    fn of_several_fields_the_first_that_is_not_normal_decides() {
        use Priority::{Bulk, High, Normal};
        for (header, expected) in [
            ("X-Priority: 3\r\nPrecedence: bulk\r\n", Bulk),
            ("X-Priority: 3\r\nImportance: high\r\n", High),
            ("X-Priority: 3\r\nPrecedence: first-class\r\n", Normal),
            ("Precedence: bulk\r\nImportance: high\r\n", High),
            ("Importance: low\r\nX-Priority: 1\r\n", High),
            ("X-Priority: 1\r\nPriority: non-urgent\r\n", Bulk),
            ("X-Priority: soon\r\nX-Priority: 5\r\n", Bulk),
            ("X-Priority: 1\r\nX-Priority: 5\r\n", High),
        ] {
            assert_eq!(asked(Header::scan(header.as_bytes())), Some(expected), "{header:?}");
        }
    }

    #[test]
    fn the_body_asks_for_nothing() {
        assert_eq!(asked(Header::scan(b"A: b\r\n\r\nX-Priority: 1\r\n")), None);
    }
}
