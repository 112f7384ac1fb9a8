//! What became of the workload: told by the relay's log, checked against what the endpoint got.

use std::collections::BTreeMap;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};

use super::relay::LogLine;
use super::workload::Mail;
use crate::sim::Taken;

/// Columns of the table where the terminal has more, or there is none.
const WIDTH: u16 = 150;

/// See the head of this file.
pub(super) struct Story {
    titles: Vec<&'static str>,
    ids: BTreeMap<String, usize>,
    /// Queue ids of notices, each with the message it is about.
    notices: BTreeMap<String, usize>,
    rows: Vec<Row>,
    expected: usize,
    /// Log lines about messages whose queue id is not known yet: the log may be faster than the reply.
    unheard: Vec<LogLine>,
}

/// Recipients of one message that had the same end on the same account.
struct Row {
    title: String,
    message: usize,
    notice: bool,
    to: Vec<String>,
    account: String,
    status: String,
    reply: String,
    delay: f64,
}

impl Story {
    pub fn new(mails: &[Mail]) -> Self {
        // Each recipient settles once, and each author of a message with a refused recipient gets one notice.
        let notices = mails.iter().filter(|mail| mail.taken < mail.to.len()).count();
        let expected = mails.iter().map(|mail| mail.to.len()).sum::<usize>() + notices;
        Self {
            titles: mails.iter().map(|mail| mail.title).collect(),
            ids: BTreeMap::new(),
            notices: BTreeMap::new(),
            rows: Vec::new(),
            expected,
            unheard: Vec::new(),
        }
    }

    pub fn accepted(&mut self, mail: usize, id: String) {
        self.ids.insert(id, mail);
        std::mem::take(&mut self.unheard).into_iter().for_each(|line| self.hear(line));
    }

    pub fn expected(&self) -> usize {
        self.expected
    }

    pub fn settled(&self) -> usize {
        self.rows.iter().filter(|row| row.status != "deferred").map(|row| row.to.len()).sum()
    }

    pub fn is_finished(&self) -> bool {
        self.settled() >= self.expected
    }

    /// Takes in one line of the relay's log.
    pub fn hear(&mut self, line: LogLine) {
        let id = line.text("queue_id");
        let (message, notice) = match (self.ids.get(id), self.notices.get(id)) {
            (Some(message), _) => (*message, false),
            (None, Some(message)) => (*message, true),
            (None, None) if id.is_empty() => return,
            (None, None) => return self.unheard.push(line),
        };
        match line.event() {
            "notice-queued" => {
                self.notices.insert(line.text("notice").to_owned(), message);
                std::mem::take(&mut self.unheard).into_iter().for_each(|line| self.hear(line));
            }
            "delivery" => self.hear_delivery(message, notice, &line),
            _ => {}
        }
    }

    fn hear_delivery(&mut self, message: usize, notice: bool, line: &LogLine) {
        let title = if notice { format!("notice to the author of \"{}\"", self.titles[message]) } else { self.titles[message].to_owned() };
        let row = Row {
            title,
            message,
            notice,
            to: vec![line.text("to").to_owned()],
            account: line.text("account").to_owned(),
            status: line.text("status").to_owned(),
            reply: line.text("reply").to_owned(),
            delay: line.number("delay"),
        };
        let same = |other: &&mut Row| {
            (other.message, other.notice, &other.account, &other.status, &other.reply)
                == (row.message, row.notice, &row.account, &row.status, &row.reply)
        };
        match self.rows.iter_mut().find(same) {
            Some(known) => known.to.extend(row.to),
            None => self.rows.push(row),
        }
    }

    /// What became of each message, in the order in which they were sent.
    pub fn table(&self) -> String {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| (row.notice, row.message));
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        if table.width().is_none_or(|width| width > WIDTH) {
            table.set_width(WIDTH);
        }
        table.set_header(["message", "recipients", "account", "status", "the endpoint's reply", "seconds"]);
        for row in rows {
            let to = match &row.to[..] {
                [only] => only.clone(),
                [first, .., last] => format!("{} ({first} … {last})", row.to.len()),
                [] => String::new(),
            };
            table.add_row([&row.title, &to, &row.account, &row.status, &row.reply, &format!("{:.3}", row.delay)]);
        }
        table.to_string()
    }

    /// What is not as it should be: in the relay's words, and in what the endpoint took.
    pub fn complaints(&self, mails: &[Mail], taken: &[Taken]) -> Vec<String> {
        let mut complaints = Vec::new();
        for (i, mail) in mails.iter().enumerate() {
            let count = |status: &str, notice: bool| -> usize {
                self.rows
                    .iter()
                    .filter(|row| (row.message, row.notice, row.status.as_str()) == (i, notice, status))
                    .map(|row| row.to.len())
                    .sum()
            };
            let refused = mail.to.len() - mail.taken;
            for (what, wanted, found) in [
                ("recipients sent", mail.taken, count("sent", false)),
                ("recipients bounced", refused, count("bounced", false)),
                ("notices sent", refused.min(1), count("sent", true)),
            ] {
                if wanted != found {
                    complaints.push(format!("{}: {found} {what}, not {wanted}", mail.title));
                }
            }
            let arrived = |to: &str| {
                taken
                    .iter()
                    .any(|taken| taken.recipients.iter().any(|got| got.as_str() == to) && body(taken).is_some_and(|body| body == mail.body))
            };
            let missing = mail.to.iter().filter(|to| !arrived(to)).count();
            if missing != refused {
                complaints.push(format!("{}: the endpoint got it for all but {missing} recipients, not all but {refused}", mail.title));
            }
        }
        let foreign = taken.iter().filter(|taken| !taken.violations.is_empty()).count();
        if foreign > 0 {
            complaints.push(format!("the endpoint found fault with {foreign} messages"));
        }
        complaints
    }
}

fn body(taken: &Taken) -> Option<&[u8]> {
    let content = &taken.content;
    let end = content.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(&content[end + 4..])
}
