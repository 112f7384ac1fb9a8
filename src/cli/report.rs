//! `hve-relay report`: a month of mail, added up for charging departments and for seeing what is slow.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::control::{Contact, Failure, query};
use super::show::{self, Lines, line, size, span, table};
use crate::admin::{Report, ReportLine, ReportQuery};

/// What is asked for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    contact: Contact,
    /// By what it is added up: client, account, sender, day or class.
    #[arg(long, default_value = "client", value_name = "GROUP")]
    by: String,
    /// Of which month, such as 2026-11; without it of the present one. Months are in UTC.
    #[arg(long, value_name = "MONTH")]
    month: Option<String>,
    /// As comma-separated values (RFC 4180).
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// As JSON, as the relay gives it.
    #[arg(long)]
    json: bool,
}

/// Shows it and returns the exit status.
pub(super) fn run(arguments: Arguments) -> ExitCode {
    show(arguments).map_or_else(|failure| failure.tell(), |()| ExitCode::SUCCESS)
}

fn show(Arguments { contact, by, month, csv, json }: Arguments) -> Result<(), Failure> {
    let report: Report = contact.get(&query("/v1/report", &ReportQuery { by: Some(by), month }))?;
    if json {
        show::json(&report);
    } else if csv {
        line(as_csv(&report).trim_end());
    } else {
        show_table(&report);
    }
    Ok(())
}

fn show_table(report: &Report) {
    if report.lines.is_empty() {
        return line(format_args!("nothing came in in {} that is remembered", report.month));
    }
    let seconds = |seconds: Option<f64>| seconds.map_or_else(String::new, |seconds| span(Duration::from_secs_f64(seconds)));
    let row = |one: &ReportLine| {
        let name = if one.name.is_empty() { "(none)".to_owned() } else { one.name.clone() };
        let counts = [one.messages, one.recipients, one.failed, one.deferrals].map(|count| count.to_string());
        let [messages, recipients, failed, deferrals] = counts;
        [name, messages, recipients, size(one.bytes), failed, deferrals, seconds(one.median), seconds(one.p99), format!("{:.2}", one.cost)]
    };
    let sum = |field: fn(&ReportLine) -> u64| report.lines.iter().map(field).sum::<u64>();
    let total = ReportLine {
        name: "all".to_owned(),
        messages: sum(|one| one.messages),
        recipients: sum(|one| one.recipients),
        bytes: sum(|one| one.bytes),
        failed: sum(|one| one.failed),
        deferrals: sum(|one| one.deferrals),
        median: None,
        p99: None,
        cost: report.lines.iter().map(|one| one.cost).sum(),
    };
    // A message with recipients of both classes, or on two accounts, counts in both lines.
    let adds_up = matches!(report.by.as_str(), "client" | "sender" | "day");
    let rows = report.lines.iter().chain(adds_up.then_some(&total)).map(row);
    line(format_args!("{}, at {} for a million recipients", report.month, report.price_per_million));
    let header = [report.by.as_str(), "messages", "recipients", "size", "failed", "deferrals", "median", "p99", "cost"];
    line(table(Lines::None, header, rows));
}

fn as_csv(report: &Report) -> String {
    let mut text = format!("month,{},messages,recipients,bytes,failed,deferrals,median_seconds,p99_seconds,cost\r\n", report.by);
    let seconds = |seconds: Option<f64>| seconds.map_or_else(String::new, |seconds| format!("{seconds:.3}"));
    for one in &report.lines {
        let ReportLine { name, messages, recipients, bytes, failed, deferrals, median, p99, cost } = one;
        let (month, name, median, p99) = (&report.month, quoted(name), seconds(*median), seconds(*p99));
        text.push_str(&format!("{month},{name},{messages},{recipients},{bytes},{failed},{deferrals},{median},{p99},{cost:.6}\r\n"));
    }
    text
}

/// A text that came in with mail: in quotes, and such that no spreadsheet takes it for a formula.
fn quoted(text: &str) -> String {
    let apostrophe = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    format!("\"{apostrophe}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Time;
    use crate::clock::Timestamp;

    #[test]
    fn a_spreadsheet_gets_what_is_meant_and_no_formula() {
        let one = ReportLine {
            name: "=cmd|\"x\"@contoso.com".to_owned(),
            messages: 2,
            recipients: 3,
            bytes: 4_096,
            failed: 1,
            deferrals: 5,
            median: Some(0.25),
            p99: None,
            cost: 0.000_126,
        };
        let now = Time(Timestamp::from_millis(0));
        let report = Report { now, month: "2026-11".to_owned(), by: "sender".to_owned(), price_per_million: 42.0, lines: vec![one] };
        let text = as_csv(&report);
        assert_eq!(
            text,
            "month,sender,messages,recipients,bytes,failed,deferrals,median_seconds,p99_seconds,cost\r\n\
             2026-11,\"'=cmd|\"\"x\"\"@contoso.com\",2,3,4096,1,5,0.250,,0.000126\r\n"
        );
    }
}
