//! What went wrong, for someone who has never heard of SMTP: a sentence, and what can be done.
//!
//! Told from the enhanced status (RFC 3463) alone: its subject and detail have a meaning that does not depend on the server's words, which
//! are quoted besides. Statuses that only this service uses are from what is documented about High Volume Email.

use crate::smtp::EnhancedStatus;

/// A reason in plain words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// What went wrong, as a sentence.
    pub what: &'static str,
    /// What the author can do about it.
    pub advice: &'static str,
}

const ASK: &str = "Ask your help desk and show them this message.";
const NO_SUCH_ADDRESS: Explanation = Explanation {
    what: "There is no such address.",
    advice: "Check the address for typing errors. The person may have left or may have a new address.",
};
const TOO_LARGE: Explanation = Explanation {
    what: "The message is too large.",
    advice: "Send it in smaller parts, or scan with a lower resolution or without colour.",
};
const NOT_ALLOWED: Explanation = Explanation {
    what: "The recipient does not take mail from this sender.",
    advice: "Ask the recipient, or the owner of the group or distribution list, to allow this sender.",
};

/// The reason that a status stands for.
pub fn explain(status: EnhancedStatus) -> Explanation {
    match (status.subject, status.detail) {
        (1, 1 | 6 | 10) | (4, 1) => NO_SUCH_ADDRESS,
        (1, 2) => Explanation {
            what: "The part of the address behind the @ does not exist, or takes no mail.",
            advice: "Check the address for typing errors.",
        },
        (1, 3) => Explanation { what: "The address is not written correctly.", advice: "Check the address for typing errors." },
        (2, 1) => Explanation {
            what: "The recipient's mailbox is switched off.",
            advice: "Reach the recipient in another way, or ask your help desk.",
        },
        (2, 2) => Explanation {
            what: "The recipient's mailbox is full.",
            advice: "Tell the recipient in another way, and send the message again later.",
        },
        (2, 3) | (3, 4) => TOO_LARGE,
        (4, 7) => Explanation {
            what: "It could not be delivered in time.",
            advice: "Send it again if it still matters. If this happens again, ask your help desk.",
        },
        (5, 105) => Explanation {
            what: "Mail to addresses outside the organisation cannot be sent this way.",
            advice: "Send the message from your own mailbox, or ask your help desk whether this device or application may send to the outside.",
        },
        (5, 3) => Explanation { what: "The message has too many recipients.", advice: "Send it to fewer recipients at a time." },
        (6, 3) => Explanation {
            what: "The message is signed or encrypted in a form that the mail server does not take.",
            advice: "Send it without signing or encrypting it, or ask your help desk and show them this message.",
        },
        (6, 7) => Explanation {
            what: "An address has characters that the mail server does not take.",
            advice: "Use an address without letters such as \u{e4}, \u{e9} or \u{f1} in it, your own or the recipient's.",
        },
        (6, _) => Explanation { what: "The message has a form that the mail server does not take.", advice: ASK },
        (7, 1 | 12 | 124 | 133 | 134 | 136) => NOT_ALLOWED,
        (7, _) => Explanation { what: "The rules of the mail server do not allow this message.", advice: ASK },
        (4, _) => Explanation { what: "The recipient's mail system could not be reached.", advice: ASK },
        _ => Explanation { what: "The mail server did not take the message for this recipient.", advice: ASK },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explains_what_is_common_and_never_says_nothing() {
        for (status, word) in [
            ("5.1.10", "no such address"),
            ("5.4.1", "no such address"),
            ("5.2.2", "full"),
            ("5.3.4", "too large"),
            ("5.6.3", "signed"),
            ("5.6.7", "characters"),
            ("4.4.7", "in time"),
            ("5.5.105", "outside"),
            ("5.7.124", "this sender"),
            ("5.7.512", "rules"),
            ("5.0.0", "did not take"),
        ] {
            let said = explain(status.parse().expect(status));
            assert!(said.what.contains(word) && said.what.ends_with('.') && said.advice.ends_with('.'), "{status}: {}", said.what);
        }
    }
}
