//! The listener of the web page: whether it can be had, or the relay answers there, and how long its certificate lasts.

use std::net::SocketAddr;

use super::findings::{Finding, Level};
use super::listeners;
use crate::cli::dialogue;
use crate::clock::Timestamp;
use crate::config::Config;

/// Looks at each of its addresses.
pub(super) async fn look(config: &Config, running: bool, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for address in &config.admin.listen {
        findings.extend(listeners::certificate(&format!("page {address}"), config.admin.certificate.as_ref(), now));
        findings.push(one(config, *address, running).await);
    }
    findings
}

async fn one(config: &Config, address: SocketAddr, running: bool) -> Finding {
    let about = format!("page {address}");
    if address.port() == 0 {
        return Finding::pass(about, "port 0 is a free port of the system's choice, another one at each start");
    }
    let answer = dialogue::asked(address, config.admin.certificate.as_ref(), &config.session.hostname, "/livez").await;
    let finding = match answer {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nalive\n") => {
            return Finding::pass(about, "the relay answers there");
        }
        Ok(_) => {
            let to_do = "if it is not the relay, `ss -ltnp` names it: write another address below [admin]; if it is, its log says more";
            Finding::fail(about, "somebody answers there, and not as a relay that is well", to_do)
        }
        Err(why) if dialogue::answers(address).await => {
            let to_do = "`ss -ltnp` says who listens there: if it is the relay, have it read this configuration; else write another address below [admin]";
            Finding::fail(about, format!("connections are taken there, and nobody answers: {why}"), to_do)
        }
        Err(_) if running => {
            let to_do = "is this the configuration that it runs with? After a change of [admin] it must read it again";
            Finding::fail(about, "the relay runs, and nobody answers there", to_do)
        }
        Err(_) => listeners::bound(about, address),
    };
    // An address that nobody has written is a courtesy.
    let level = if config.admin.is_written { finding.level } else { finding.level.min(Level::Warn) };
    Finding { level, ..finding }
}
