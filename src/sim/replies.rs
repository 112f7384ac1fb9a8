//! The reply texts, as data. Each is marked with how sure it is:
//! **[MS]** Microsoft's own text, **[OBS]** seen in logs of the service or of smtp.office365.com, **[DOC]** the project's own sources on the
//! preview, **[INF]** the code is known, the words are inferred.
//!
//! A multi-line reply separates its lines by `\n`, each with its code.

use std::net::IpAddr;

use crate::clock::Timestamp;

// Exchange's common replies. [OBS]
pub(super) const READY_FOR_TLS: &str = "220 2.0.0 SMTP server ready";
pub(super) const BYE: &str = "221 2.0.0 Service closing transmission channel";
pub(super) const AUTHENTICATED: &str = "235 2.7.0 Authentication successful";
pub(super) const OK: &str = "250 2.0.0 OK";
pub(super) const RESET: &str = "250 2.0.0 Resetting";
pub(super) const SENDER_OK: &str = "250 2.1.0 Sender OK";
pub(super) const RECIPIENT_OK: &str = "250 2.1.5 Recipient OK";
pub(super) const CANNOT_VERIFY: &str = "252 2.1.5 Cannot VRFY user";
pub(super) const HELP: &str =
    "214-This server supports the following commands:\n214 HELO EHLO STARTTLS RCPT DATA RSET MAIL QUIT HELP AUTH NOOP VRFY";
pub(super) const USERNAME: &str = "334 VXNlcm5hbWU6";
pub(super) const PASSWORD: &str = "334 UGFzc3dvcmQ6";
pub(super) const GO_ON: &str = "334 ";
pub(super) const START_INPUT: &str = "354 Start mail input; end with <CRLF>.<CRLF>";
pub(super) const UNKNOWN_COMMAND: &str = "500 5.3.3 Unrecognized command";
pub(super) const LINE_TOO_LONG: &str = "500 5.3.3 Line too long";
pub(super) const BAD_NAME: &str = "501 5.5.4 Invalid domain name";
pub(super) const BAD_ARGUMENTS: &str = "501 5.5.4 Invalid arguments";
pub(super) const BAD_ADDRESS: &str = "501 5.1.7 Invalid address";
pub(super) const HELLO_FIRST: &str = "503 5.5.2 Send hello first";
pub(super) const NEED_MAIL: &str = "503 5.5.2 Need mail command";
pub(super) const NEED_RCPT: &str = "503 5.5.2 Need rcpt command";
pub(super) const SENDER_GIVEN: &str = "503 5.5.2 Sender already specified";
pub(super) const BAD_SEQUENCE: &str = "503 5.5.1 Bad sequence of commands";
pub(super) const UNKNOWN_MECHANISM: &str = "504 5.7.4 Unrecognized authentication type";

/// RFC 3030 §4.1 has such words.
pub(super) fn chunk_received(octets: u64) -> String {
    format!("250 2.6.0 {octets} octets received")
}

/// Before TLS. [OBS]
pub(super) const TLS_REQUIRED: &str = "451 5.7.3 STARTTLS is required to send mail";
/// [MS]
pub(super) const NOT_AUTHENTICATED: &str = "530 5.7.57 Client was not authenticated to send mail";
/// [MS]
pub(super) const AUTHENTICATION_FAILED: &str = "535 5.7.3 Authentication unsuccessful";
/// [INF]
pub(super) const MALFORMED_XOAUTH2: &str = "501 5.5.121 Invalid XOAUTH2 argument";
/// What precedes the refusal of a token: `{"status":"401","schemes":"bearer","scope":"https://outlook.office.com/"}`. [OBS] of the sister service
pub(super) const TOKEN_CHALLENGE: &str =
    "334 eyJzdGF0dXMiOiI0MDEiLCJzY2hlbWVzIjoiYmVhcmVyIiwic2NvcGUiOiJodHRwczovL291dGxvb2sub2ZmaWNlLmNvbS8ifQ==";
/// The code [OBS], the words [INF].
pub(super) const TOKEN_ENDED: &str = "535 5.7.142 Authentication unsuccessful, token expired";
/// [OBS]
pub(super) const TOKEN_ENDS_SOON: &str = "501 5.5.127 Invalid XOAUTH2 argument. Token will expire soon";
/// [OBS]
pub(super) const APP_NOT_PERMITTED: &str = "535 5.7.144 Authentication unsuccessful, Invalid API permissions";
/// [OBS]
pub(super) const APP_NOT_ALLOWED: &str = "550 5.7.240 The application is not allowed for use with this High Volume Email account";
/// MAIL FROM is not the account. [INF]
pub(super) const NOT_THE_ACCOUNT: &str = "550 5.7.62 Client does not have permissions to send as this sender";
/// The header's From is not the account. [INF]
pub(super) const NOT_THE_AUTHOR: &str = "550 5.6.241 The From header does not match the High Volume Email account";
/// [MS]
pub(super) const SEVERAL_AUTHORS: &str = "550 5.1.20 Multiple From addresses are not allowed without Sender address";
/// [MS]
pub(super) const NO_AUTHOR: &str =
    "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant and include a valid From address";
/// [MS]
pub(super) const BARE_LINE_END: &str =
    "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal; message contains bare linefeeds, which cannot be sent via DATA";
/// [MS]
pub(super) const RECIPIENT_NOT_FOUND: &str = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup";
/// The service since general availability. [OBS]
pub(super) const NO_EXTERNAL: &str = "550 5.5.105 External sending is not supported for High Volume Email accounts";
/// [MS]
pub(super) const TOO_MANY_RECIPIENTS: &str = "452 4.5.3 Too many recipients";
/// [OBS]
pub(super) const TOO_LARGE: &str = "552 5.3.4 Message size exceeds fixed maximum message size";
/// The enhanced code and the words [DOC], the basic code [INF].
pub(super) const EXTERNAL_RATE: &str = "450 4.5.104 Message rejected. Excessive message rate from sender. The HVE message can't be submitted because the rate limit for external emails has been exceeded.";
/// The enhanced code and the words [DOC], the basic code [INF].
pub(super) const EXTERNAL_QUOTA: &str = "450 4.5.102 Message rejected. Excessive message rate from sender. The HVE message can't be submitted because the sender's submission tenant quota for external recipients was exceeded.";
/// A daily quota, although its code is permanent. [MS]
pub(super) const QUOTA: &str = "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message due to a permanent exception with message The message can't be submitted because the sender's submission quota was exceeded.";

/// Comes in reply to the final dot. [OBS]
pub(super) fn too_many_connections(host: &str) -> String {
    format!(
        "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information. [Hostname={host}]"
    )
}

/// [DOC]
pub(super) fn greeting(host: &str, now: Timestamp, connection: u64) -> String {
    // The number in brackets is the session's; eight digits of it are the server's.
    format!("220 {host} Microsoft ESMTP MAIL Service ready at {} (08DC2DE6{:08X})", now.rfc5322(), connection & 0xFFFF_FFFF)
}

/// [DOC]
pub(super) fn hello(host: &str, peer: IpAddr, offers: &[String]) -> String {
    let first = format!("{host} Hello [{peer}]");
    let mut text = String::new();
    for (i, offer) in std::iter::once(&first).chain(offers).enumerate() {
        let mark = if i == offers.len() { "250 " } else { "250-" };
        text.push_str(if i == 0 { "" } else { "\n" });
        text.push_str(mark);
        text.push_str(offer);
    }
    text
}

/// What Exchange answers for a message that it took: its Message-ID, its internal id, and where it is. [OBS]
pub(super) fn queued(message_id: &str, internal_id: u64, host: &str, size: u64) -> String {
    format!("250 2.6.0 {message_id} [InternalId={internal_id}, Hostname={host}] {size} bytes in 0.010, Queued mail for delivery")
}
