//! Just enough of RFC 5322 to see who wrote a message: its fields, unfolded, and the addresses in From.

/// The addresses in the From fields of a header, as HVE judges them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Author {
    /// No From, or none with an address.
    Missing,
    /// One field with one address.
    One(String),
    /// More than one, with or without a Sender.
    Several { sender: bool },
}

/// Who wrote it.
pub(super) fn author(header: &[u8]) -> Author {
    let mut found: Vec<String> =
        fields(header).filter(|(name, _)| name.eq_ignore_ascii_case("from")).flat_map(|(_, v)| addresses(&v)).collect();
    match (found.pop(), found.len()) {
        (None, _) => Author::Missing,
        (Some(address), 0) => Author::One(address),
        _ => Author::Several { sender: fields(header).any(|(name, _)| name.eq_ignore_ascii_case("sender")) },
    }
}

/// The Message-ID with its brackets.
pub(super) fn message_id(header: &[u8]) -> Option<String> {
    let (_, value) = fields(header).find(|(name, _)| name.eq_ignore_ascii_case("message-id"))?;
    let id = value.trim();
    // It goes into a reply, which must stay one line of printable text.
    (!id.is_empty() && id.chars().all(|c| c.is_ascii_graphic())).then(|| id.to_owned())
}

/// Name and value of each field. Lines that are no field and belong to none are passed over.
fn fields(header: &[u8]) -> impl Iterator<Item = (String, String)> {
    let text = String::from_utf8_lossy(header);
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.split("\r\n") {
        match (line.starts_with([' ', '\t']), fields.last_mut(), line.split_once(':')) {
            (true, Some((_, value)), _) => value.push_str(line),
            (false, _, Some((name, value))) => fields.push((name.to_owned(), value.to_owned())),
            _ => {}
        }
    }
    fields.into_iter()
}

/// The addr-specs of a mailbox list: what stands in angle brackets, or else the whole without its comments.
fn addresses(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut plain, mut angle) = (String::new(), None::<String>);
    let (mut quoted, mut comment, mut inside) = (false, 0_u32, false);
    let mut chars = value.chars();
    loop {
        let next = chars.next();
        match next {
            Some('\\') if quoted || comment > 0 => drop(chars.next()),
            Some('"') if comment == 0 => {
                quoted = !quoted;
                if inside {
                    angle.get_or_insert_default().push('"');
                }
            }
            Some(_) if quoted && !inside => {}
            Some('(') if !quoted => comment += 1,
            Some(')') if comment > 0 => comment -= 1,
            Some(_) if comment > 0 => {}
            Some('<') if !quoted => {
                inside = true;
                angle.get_or_insert_default();
            }
            Some('>') if !quoted => inside = false,
            Some(c) if inside => angle.get_or_insert_default().push(c),
            Some(',') | None => {
                let address = angle.take().unwrap_or_else(|| plain.clone());
                if address.contains('@') {
                    found.push(address.trim().to_owned());
                }
                plain.clear();
                if next.is_none() {
                    return found;
                }
            }
            Some(c) => plain.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_who_wrote_it() {
        let one = |address: &str| Author::One(address.to_owned());
        for (header, expected) in [
            ("From: a@b\r\n", one("a@b")),
            ("to: x@y\r\nFROM:\t<a@b>\r\n", one("a@b")),
            ("From: \"x@y, \\\" <z@w>\" <a@b>\r\n", one("a@b")),
            ("From: Scan\r\n (3rd, floor)\r\n <a@b>\r\n", one("a@b")),
            ("From: a@b (Scanner, 3)\r\n", one("a@b")),
            ("From: <a@b>, <c@d>\r\n", Author::Several { sender: false }),
            ("From: a@b\r\nFrom: c@d\r\n", Author::Several { sender: false }),
            ("From: a@b, c@d\r\nSender: a@b\r\n", Author::Several { sender: true }),
            ("From: Scanner\r\n", Author::Missing),
            ("X-From: a@b\r\n From: a@b\r\n", Author::Missing),
            ("", Author::Missing),
        ] {
            assert_eq!(author(header.as_bytes()), expected, "{header:?}");
        }
    }

    #[test]
    fn finds_the_message_id() {
        assert_eq!(message_id(b"From: a@b\r\nMessage-Id:\r\n <1@b>\r\n").as_deref(), Some("<1@b>"));
        assert_eq!(message_id(b"Message-ID: a b\r\n"), None);
        assert_eq!(message_id(b"From: a@b\r\n"), None);
    }
}
