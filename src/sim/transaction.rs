//! A mail transaction: the arguments of MAIL and RCPT, read strictly (RFC 5321 §4.1.1.2, §4.1.1.3), and the verdict on the whole.

use std::time::Instant;

use super::content::{Content, Finished};
use super::endpoint::Service;
use super::endpoint::Tenant;
use super::header::{Author, author};
use super::record::{Violation, lock};
use super::replies;
use super::settings::{Extension, Senders};
use super::windows::Exceeded;
use crate::smtp::{Mailbox, ReversePath};

/// What MAIL and RCPT have given, and BDAT so far.
pub(super) struct Transaction {
    pub(super) reverse_path: ReversePath,
    pub(super) recipients: Vec<Mailbox>,
    pub(super) external: u64,
    /// BODY=8BITMIME or SMTPUTF8 was said.
    pub(super) eight_bit: bool,
    /// What was asked of notices: RET and ENVID, then NOTIFY and ORCPT of each recipient, as they were said.
    pub(super) dsn: Vec<String>,
    pub(super) chunks: Chunks,
}

/// What BDAT has brought.
pub(super) enum Chunks {
    None,
    /// More are to come.
    Open(Box<Content>),
    /// One was refused: only RSET helps.
    Refused,
}

/// The argument of MAIL or RCPT, cut up: what stands between the angle brackets, and the parameters.
pub(super) fn path<'a>(argument: &'a str, keyword: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let rest = argument.split_at_checked(keyword.len()).filter(|(found, _)| found.eq_ignore_ascii_case(keyword))?.1;
    let (path, rest) = rest.strip_prefix('<')?.split_once('>')?;
    let parameters = match rest.strip_prefix(' ') {
        Some(parameters) => parameters.split(' ').collect(),
        None if rest.is_empty() => Vec::new(),
        None => return None,
    };
    Some((path, parameters))
}

impl Transaction {
    /// Reads the argument of MAIL; `Err` is the reply.
    pub(super) fn begin(argument: &str, service: &Service, esmtp: bool) -> Result<Self, &'static str> {
        let (path, parameters) = path(argument, "FROM:").ok_or(replies::BAD_ARGUMENTS)?;
        let reverse_path = match path {
            "" => ReversePath::Null,
            path => ReversePath::Mailbox(path.parse().map_err(|_| replies::BAD_ADDRESS)?),
        };
        let (mut eight_bit, mut utf8, mut dsn) = (false, false, Vec::new());
        for parameter in parameters {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let offers = |extension| esmtp && service.settings.extensions.contains(&extension);
            match (name.to_ascii_uppercase().as_str(), value.to_ascii_uppercase().as_str()) {
                ("SIZE", size) if esmtp && !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit()) => {
                    // More digits than fit are more than any limit.
                    if size.parse().unwrap_or(u64::MAX) > service.settings.size_limit {
                        return Err(replies::TOO_LARGE);
                    }
                }
                ("BODY", "7BIT") if offers(Extension::EightBitMime) => {}
                ("BODY", "8BITMIME") if offers(Extension::EightBitMime) => eight_bit = true,
                ("SMTPUTF8", "") if offers(Extension::SmtpUtf8) => utf8 = true,
                ("AUTH", _) if esmtp && !value.is_empty() => {}
                ("RET" | "ENVID", _) if offers(Extension::Dsn) && !value.is_empty() => dsn.push(parameter.to_owned()),
                _ => return Err(replies::BAD_ARGUMENTS),
            }
        }
        if !utf8 && reverse_path.mailbox().is_some_and(Mailbox::is_international) {
            return Err(replies::BAD_ADDRESS);
        }
        Ok(Self { reverse_path, recipients: Vec::new(), external: 0, eight_bit: eight_bit || utf8, dsn, chunks: Chunks::None })
    }
}

/// Reads the argument of RCPT: the recipient, and what is asked of notices about it. `Err` is the reply.
pub(super) fn recipient<'a>(argument: &'a str, service: &Service) -> Result<(Mailbox, Vec<&'a str>), &'static str> {
    let (path, parameters) = path(argument, "TO:").ok_or(replies::BAD_ARGUMENTS)?;
    let dsn = service.settings.extensions.contains(&Extension::Dsn);
    let known = |parameter: &str| {
        let name = parameter.split_once('=').map(|(name, _)| name.to_ascii_uppercase());
        dsn && matches!(name.as_deref(), Some("NOTIFY" | "ORCPT"))
    };
    if !parameters.iter().copied().all(known) {
        return Err(replies::BAD_ARGUMENTS);
    }
    let mailbox = path.parse().map_err(|_| replies::BAD_ADDRESS)?;
    Ok((mailbox, parameters))
}

/// What any server may have against a message that is complete.
pub(super) fn judge_size(service: &Service, content: &Finished) -> Result<(), String> {
    if content.size > service.settings.size_limit { Err(replies::TOO_LARGE.to_owned()) } else { Ok(()) }
}

/// What HVE has against a message that is complete; `Err` is the reply. Nothing: it is charged to the tenant's account.
pub(super) fn judge(service: &Service, tenant: &Tenant, seated: bool, transaction: &Transaction, content: &Finished) -> Result<(), String> {
    if !seated {
        return Err(replies::too_many_connections(&service.settings.hostname));
    }
    judge_size(service, content)?;
    if content.bare_line_ends {
        return Err(replies::BARE_LINE_END.to_owned());
    }
    match author(&content.header) {
        Author::One(address) if address.eq_ignore_ascii_case(&tenant.account.user) => {}
        Author::One(_) | Author::Several { sender: true } if service.settings.senders == Senders::Anybody => {}
        Author::One(_) | Author::Several { sender: true } => return Err(replies::NOT_THE_AUTHOR.to_owned()),
        Author::Several { sender: false } => return Err(replies::SEVERAL_AUTHORS.to_owned()),
        Author::Missing => return Err(replies::NO_AUTHOR.to_owned()),
    }
    let recipients = transaction.recipients.len() as u64;
    // The clock is read under the lock, so that the log's stamps never go back.
    let mut budgets = lock(&tenant.budgets);
    budgets.charge(Instant::now(), recipients, transaction.external).map_err(|exceeded| {
        let text = match exceeded {
            Exceeded::ExternalMessages => replies::EXTERNAL_RATE,
            Exceeded::ExternalRecipients => replies::EXTERNAL_QUOTA,
            Exceeded::Recipients => replies::QUOTA,
        };
        text.to_owned()
    })
}

/// What is wrong with a content, although it would be taken.
pub(super) fn violations(transaction: &Transaction, content: &Finished) -> Vec<Violation> {
    let undeclared = content.eight_bit && !transaction.eight_bit;
    content.violations.iter().copied().chain(undeclared.then_some(Violation::Undeclared8Bit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_in_brackets_right_behind_its_colon() {
        assert_eq!(path("FROM:<a@b>", "FROM:"), Some(("a@b", vec![])));
        assert_eq!(path("from:<> SIZE=1 BODY=7BIT", "FROM:"), Some(("", vec!["SIZE=1", "BODY=7BIT"])));
        for bad in ["", "FROM", "FROM: <a@b>", "FROM:a@b", "FROM:<a@b", "FROM:<a@b>x", "TO:<a@b>", "FROM:<a@b>\tSIZE=1", "FRÖM:<a@b>"] {
            assert_eq!(path(bad, "FROM:"), None, "{bad}");
        }
    }
}
