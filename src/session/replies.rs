//! Every refusal that a session can give, in one place.
//!
//! A refusal is read by the owner of a device or an application, often on a tiny display or in a log: it says what is wrong and what to
//! change, on one line, in ASCII as long as the client did not ask for SMTPUTF8.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use crate::mail::ClientName;
use crate::smtp::{AddressError, CommandError, EnhancedStatus, Mechanism, NotOffered, Reply};
use crate::units::{ByteSize, format_duration};

fn reply(code: u16, status: (u8, u16, u16), text: impl AsRef<str>) -> Reply {
    let (class, subject, detail) = status;
    Reply::new(code, EnhancedStatus::new(class, subject, detail), text)
}

pub(super) fn not_served(peer: IpAddr, client: Option<&ClientName>) -> Reply {
    match client {
        None => reply(
            554,
            (5, 7, 1),
            format!("{peer} is not a client of this relay: add its network to a [[client]] in the relay's configuration"),
        ),
        Some(client) => client_not_served_here(client),
    }
}

pub(super) fn client_not_served_here(client: &ClientName) -> Reply {
    reply(554, (5, 7, 1), format!("The client {client} is not served on this port: use another, or add it to the listener's \"clients\""))
}

pub(super) fn too_many_commands(limit: usize) -> Reply {
    reply(421, (4, 7, 0), format!("{limit} commands came in a row and no message: connect again when there is one"))
}

pub(super) fn login_timed_out(after: Duration) -> Reply {
    reply(421, (4, 7, 0), format!("Nobody logged in within {}: connect again", format_duration(after)))
}

pub(super) fn shutting_down() -> Reply {
    reply(421, (4, 3, 2), "The relay is about to stop: connect again in a minute")
}

pub(super) fn makes_room() -> Reply {
    reply(421, (4, 7, 0), "All sessions are in use and others wait, and in this one came nothing, or very little: connect again")
}

pub(super) fn too_many_errors(limit: usize) -> Reply {
    reply(421, (4, 7, 0), format!("{limit} commands were refused in this session, the most that may be: see the replies before this one"))
}

pub(super) fn too_many_transactions(limit: usize) -> Reply {
    reply(421, (4, 7, 0), format!("{limit} messages were sent in this session, the most that may be: connect again for more"))
}

pub(super) fn command_timed_out(after: Duration) -> Reply {
    reply(421, (4, 4, 2), format!("No command came within {}: connect again", format_duration(after)))
}

pub(super) fn content_timed_out(after: Duration, has_lone_dot: bool) -> Reply {
    let hint = if has_lone_dot {
        "the message seems to end in a dot on a line of its own, but its line ends are not CR LF, without which no message ends"
    } else {
        "the message was not kept, send it again"
    };
    reply(421, (4, 4, 2), format!("No content came within {}: {hint}", format_duration(after)))
}

pub(super) fn line_too_long(limit: usize) -> Reply {
    reply(500, (5, 5, 2), format!("The command is longer than {limit} octets, the most that it may be"))
}

pub(super) fn bare_lf_in_command() -> Reply {
    reply(500, (5, 5, 2), format!("The command does not end in CR LF: {BARE}"))
}

pub(super) fn bare_line_ends() -> Reply {
    reply(554, (5, 6, 0), format!("The message has line ends that are not CR LF: {BARE}"))
}

const BARE: &str = "have the device write CR LF, or set line_endings = \"normalize\" for this client";

pub(super) fn tls_on_plain_port(has_starttls: bool) -> Reply {
    let text = if has_starttls {
        "This port does not begin with TLS: set the device to STARTTLS, not to SSL/TLS"
    } else {
        "This port does not begin with TLS: set the device to plain SMTP, encryption off"
    };
    reply(500, (5, 5, 1), text)
}

pub(super) fn tls_not_offered() -> Reply {
    reply(502, (5, 5, 1), "TLS is not offered on this port: turn encryption off in the device's settings")
}

pub(super) fn tls_is_on() -> Reply {
    reply(503, (5, 5, 1), "TLS is on already")
}

pub(super) fn tls_first() -> Reply {
    reply(530, (5, 7, 0), "Say STARTTLS first: turn encryption on in the device's settings")
}

pub(super) fn octets_before_tls() -> Reply {
    reply(503, (5, 5, 1), "Something came behind STARTTLS before the TLS handshake: wait for the reply to STARTTLS")
}

pub(super) fn auth_not_offered() -> Reply {
    let text = "No login is needed, the relay knows its clients by their network: turn SMTP authentication off in the device's settings";
    reply(502, (5, 5, 1), text)
}

pub(super) fn auth_needs_tls(has_starttls: bool) -> Reply {
    let how = if has_starttls { "turn STARTTLS on in the device's settings" } else { "use a port with TLS" };
    // RFC 4954 §6
    reply(538, (5, 7, 11), format!("Passwords are taken over TLS only: {how}"))
}

pub(super) fn auth_within_a_message() -> Reply {
    reply(503, (5, 5, 1), "A message is begun: log in before MAIL FROM, or drop it with RSET")
}

pub(super) fn logged_in_already() -> Reply {
    reply(503, (5, 5, 1), "You are logged in already: connect again to log in as somebody else")
}

pub(super) fn unknown_mechanism() -> Reply {
    reply(504, (5, 5, 4), format!("The mechanisms are {}: choose one of them in the device's settings", Mechanism::ALL))
}

pub(super) fn response_too_long() -> Reply {
    // RFC 4954 §4
    reply(500, (5, 5, 6), "This line is too long for a user name or a password")
}

pub(super) fn login_cancelled() -> Reply {
    reply(501, (5, 7, 0), "Login cancelled")
}

pub(super) fn not_a_response() -> Reply {
    reply(501, (5, 5, 2), "This is no answer to AUTH: user name and password in base64, as RFC 4954 has it")
}

pub(super) fn login_first(peer: IpAddr) -> Reply {
    reply(
        530,
        (5, 7, 0),
        format!("Log in first: turn SMTP authentication on in the device's settings, or add {peer} to a [[client]] of this port"),
    )
}

pub(super) fn command_error(error: CommandError<'_>) -> Reply {
    match error {
        CommandError::Unknown => reply(500, (5, 5, 1), "This is not a command that the relay knows; HELP lists them"),
        CommandError::Http => reply(500, (5, 5, 1), "This is SMTP, not HTTP"),
        CommandError::NotUtf8 => reply(501, (5, 5, 2), "The command is neither ASCII nor UTF-8: use an address in ASCII"),
        CommandError::NotAMailCommand => reply(501, (5, 5, 4), "Write MAIL FROM:<name@domain>, or MAIL FROM:<> for a notice"),
        CommandError::NotARcptCommand => reply(501, (5, 5, 4), "Write RCPT TO:<name@domain>"),
        CommandError::ArgumentOfData => reply(501, (5, 5, 4), "DATA takes no argument"),
        CommandError::UnknownParameter(parameter) => reply(
            555,
            (5, 5, 4),
            format!("The parameter {} is not offered and cannot be passed over: EHLO lists what is", shown(parameter)),
        ),
        CommandError::BadParameter(parameter) => {
            reply(501, (5, 5, 4), format!("The parameter {} cannot be: write {}", shown(parameter), form(parameter)))
        }
        CommandError::RepeatedParameter(parameter) => {
            reply(501, (5, 5, 4), format!("The parameter {} comes a second time: say it once", shown(parameter)))
        }
    }
}

/// How a parameter is to be written.
fn form(parameter: &str) -> &'static str {
    let keyword = parameter.split('=').next().unwrap_or_default();
    match keyword.to_ascii_uppercase().as_str() {
        "NOTIFY" => "NOTIFY=NEVER, or NOTIFY= and one or more of SUCCESS, FAILURE and DELAY with commas between them (RFC 3461)",
        "ORCPT" => "ORCPT=rfc822;name@domain, at most 500 characters, with a + in the address as +2B and a = as +3D (RFC 3461)",
        "RET" => "RET=FULL or RET=HDRS (RFC 3461)",
        "ENVID" => "ENVID= and at most 100 printable characters, with a + as +2B, a = as +3D and a blank as +20 (RFC 3461)",
        _ => "SIZE=octets, BODY=7BIT, BODY=8BITMIME or SMTPUTF8",
    }
}

pub(super) fn not_offered(command: NotOffered) -> Reply {
    let text = match command {
        NotOffered::Expn => "Lists are not expanded here",
        NotOffered::Bdat => "CHUNKING is not offered: use DATA",
    };
    reply(502, (5, 5, 1), text)
}

pub(super) fn hello_first() -> Reply {
    reply(503, (5, 5, 1), "Say EHLO or HELO first")
}

pub(super) fn nested_mail() -> Reply {
    reply(503, (5, 5, 1), "A message is already begun: go on with RCPT or DATA, or drop it with RSET")
}

pub(super) fn mail_first() -> Reply {
    reply(503, (5, 5, 1), "Say MAIL FROM first")
}

pub(super) fn recipients_first() -> Reply {
    reply(503, (5, 5, 1), "Say RCPT TO first")
}

pub(super) fn no_recipients_left() -> Reply {
    reply(554, (5, 5, 1), "Every recipient was refused: see the replies to RCPT")
}

pub(super) fn recipients_deferred() -> Reply {
    reply(451, (4, 5, 1), "No recipient was accepted yet, some may be later: see the replies to RCPT and send the message again")
}

pub(super) fn announced_too_large(announced: u64, limit: u64) -> Reply {
    reply(552, (5, 3, 4), format!("The message is announced with {announced} octets and the limit is {}: {SMALLER}", octets(limit)))
}

pub(super) fn content_too_large(limit: u64) -> Reply {
    reply(552, (5, 3, 4), format!("The message is larger than the limit of {}: {SMALLER}", octets(limit)))
}

const SMALLER: &str = "send less in one message, or scan at a lower resolution";

pub(super) fn header_too_large(limit: usize) -> Reply {
    reply(552, (5, 3, 4), format!("The message's header is larger than {limit} octets: is there an empty line between header and text?"))
}

pub(super) fn too_many_recipients(limit: usize) -> Reply {
    reply(452, (4, 5, 3), format!("{limit} recipients are the most for one message: send it to the others in another"))
}

pub(super) fn bad_sender(error: AddressError) -> Reply {
    reply(553, (5, 1, 7), format!("The sender cannot be used, {error}: set a sender of the form name@domain in the device"))
}

pub(super) fn bad_recipient(error: AddressError) -> Reply {
    reply(553, (5, 1, 3), format!("The recipient cannot be used, {error}: write it as name@domain"))
}

pub(super) fn needs_smtputf8() -> Reply {
    reply(553, (5, 6, 7), "An address beyond ASCII needs the parameter SMTPUTF8 in MAIL FROM, after EHLO: use an address in ASCII")
}

/// What HELP says.
pub(super) fn help() -> Reply {
    reply(
        214,
        (2, 0, 0),
        "hve-relay takes mail from its clients and sends it through Microsoft 365 High Volume Email.\n\
         Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT; STARTTLS and AUTH where EHLO offers them.\n\
         A message: EHLO name, MAIL FROM:<sender>, RCPT TO:<recipient>, DATA, the content, a line with only a dot.",
    )
}

fn octets(limit: u64) -> impl Display {
    let size = ByteSize(limit).to_string();
    if size.ends_with('B') { format!("{limit} octets ({size})") } else { format!("{limit} octets") }
}

/// A piece of what the client sent, fit for a reply.
fn shown(text: &str) -> String {
    text.chars().take(40).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}
