//! The traffic that goes on as long as the demonstration runs, so that the page has something to show: what devices and applications of a small
//! company send in a minute, and now and then a run of newsletters that is more than the minute's budget.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::workload::{Mail, send};

/// Who sends it; nobody else does.
const SENDERS: [&str; 5] =
    ["scanner.2f@contoso.com", "badge@contoso.com", "orders@contoso.com", "monitoring@contoso.com", "newsletter@contoso.com"];
/// Mails of the trickle between two runs.
const BETWEEN: u32 = 110;
/// Newsletters of a run.
const RUN: u32 = 40;

/// Whether a log line's sender is one of these.
pub(super) fn is_from(sender: &str) -> bool {
    SENDERS.iter().any(|own| sender.contains(own))
}

/// Sends until it is dropped, or the relay takes no more.
pub(super) async fn run(relay: SocketAddr) -> io::Result<()> {
    let mut state: u32 = 7;
    // A small generator is random enough.
    let mut random = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    for turn in 1_u32.. {
        if turn % BETWEEN == 10 {
            for number in 1..=RUN {
                send(relay, &newsletter(turn / BETWEEN + 1, number)).await?;
            }
        }
        send(relay, &trifle(turn, random(12), random(9_000) + 1_000)).await?;
        tokio::time::sleep(Duration::from_millis(u64::from(300 + random(1_400)))).await;
    }
    Ok(())
}

fn newsletter(issue: u32, number: u32) -> Mail {
    mail(SENDERS[4], &format!("reader{number:03}@fabrikam.example"), &format!("Newsletter no. {issue}"), "What is new at Contoso.\r\n")
}

fn trifle(turn: u32, kind: u32, number: u32) -> Mail {
    let person = ["anna", "bert", "carla", "dora", "emil", "frieda"][(number % 6) as usize];
    let person = format!("{person}@contoso.com");
    match kind {
        0..4 => mail(SENDERS[0], &person, &format!("Scan {number} from MFP 2nd floor"), "See the attached file.\r\n"),
        4..6 => mail(SENDERS[1], &person, &format!("Door 3 was opened with badge {number}"), "At the usual time.\r\n"),
        6..8 => mail(SENDERS[3], "oncall@contoso.com", &format!("UPS {} is on battery", number % 7 + 1), "It has been told before.\r\n"),
        8..10 => mail(SENDERS[2], &person, &format!("Order {number} waits for you"), "Please approve.\r\n"),
        10 => mail(SENDERS[2], "clerk@fabrikam.example", &format!("Invoice {number}"), "Please find your invoice.\r\n"),
        // Some have left the company.
        _ if turn.is_multiple_of(3) => {
            mail(SENDERS[2], "nobody.here@contoso.com", &format!("Order {number} waits for you"), "Please approve.\r\n")
        }
        _ => mail(SENDERS[1], &person, "Your badge expires", "In thirty days.\r\n"),
    }
}

fn mail(from: &'static str, to: &str, subject: &str, body: &str) -> Mail {
    Mail {
        title: "",
        from,
        to: vec![to.to_owned()],
        parameters: "",
        header: format!("From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\n"),
        body: body.as_bytes().to_vec(),
        taken: 1,
    }
}
