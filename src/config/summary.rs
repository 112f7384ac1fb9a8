//! What a configuration will do, in one paragraph for the person who checks it.

use std::fmt;

use super::Config;
use crate::{
    mail::Class,
    units::{ByteSize, format_duration},
};

/// The paragraph; it holds no secret.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts = self.schedule.accounts.len();
        let clients = self.intake.clients.len();
        write!(f, "{}, {}, {}", counted(self.listeners.len(), "listener"), counted(clients, "client"), counted(accounts, "account"))?;
        for route in &self.routes {
            let classes: Vec<&str> = route.takes.iter().map(|class| class.as_str()).collect();
            write!(f, "; {} mail goes to {}:{}", classes.join(" and "), route.host, route.port)?;
            if route.server_name.to_str() != route.host {
                write!(f, " (certificate for {})", route.server_name.to_str())?;
            }
            if let Some(file) = &route.tls_ca_file {
                write!(f, ", verified against {}", file.display())?;
            }
        }
        for class in self.unrouted() {
            let whom = if class == Class::Internal { "the tenant" } else { "anywhere else" };
            write!(f, "; mail to {whom} is refused, for no route takes {class} mail")?;
        }
        write!(
            f,
            ". Internal is {}. Messages up to {} are kept in {} for at most {}.",
            self.intake.accepted_domains.join(", "),
            ByteSize(self.session.message_size),
            self.store.data_dir.display(),
            format_duration(self.schedule.lifetime),
        )
    }
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
