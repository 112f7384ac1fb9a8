//! The name that an upstream server has given to a message that it took, as its reply says it: the key into that server's own records.

/// The name, as far as there is one in the reply to the end of data.
///
/// Exchange Online writes `250 2.6.0 <message-id> [InternalId=31847, Hostname=X] … Queued mail for delivery`: the number is the key. Postfix
/// writes `queued as 4XyZ`, and others put a name in angle brackets, or say nothing.
pub fn upstream_id(reply: &str) -> Option<&str> {
    let word = |text: &'static str, end: &'static [char]| {
        let begin = find(reply, text)? + text.len();
        let word = reply[begin..].split(end).next().unwrap_or_default();
        let named = !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic());
        named.then_some(word)
    };
    word("InternalId=", &[',', ']', ' ']).or_else(|| word("queued as ", &[' ', ';', ',', ')'])).or_else(|| word("<", &['>', ' ']))
}

/// Where the text stands, in capitals or not.
fn find(reply: &str, text: &str) -> Option<usize> {
    reply.as_bytes().windows(text.len()).position(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_name_is_found_in_its_reply() {
        for (reply, id) in [
            (
                "250 2.6.0 <1@contoso.com> [InternalId=4664334, Hostname=X.prod.outlook.com] 900 bytes in 0.1, Queued mail for delivery",
                Some("4664334"),
            ),
            ("250 2.6.0 <id> [InternalId=7] Queued mail for delivery", Some("7")),
            ("250 2.0.0 Ok: queued as 4XyZ1234", Some("4XyZ1234")),
            ("250 2.0.0 OK Queued as 4XyZ1234; thanks", Some("4XyZ1234")),
            ("250 OK <a1b2@mx.example>", Some("a1b2@mx.example")),
            ("250 OK", None),
            ("250 [InternalId=]", None),
            ("250 queued as ", None),
            ("250 <", None),
            ("250 <ü>", None),
            ("", None),
        ] {
            assert_eq!(upstream_id(reply), id, "{reply}");
        }
    }
}
