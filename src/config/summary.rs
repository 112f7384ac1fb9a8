//! What a configuration will do, in one paragraph for the person who checks it.

use std::fmt;

use super::{Config, Kind, Route, Tls};
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
            f.write_str("; ")?;
            if self.routes.len() > 1 {
                write!(f, "route \"{}\": ", route.name)?;
            }
            route.fmt(f)?;
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

/// What it takes, where from and where to.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let classes: Vec<&str> = self.takes.iter().map(|class| class.as_str()).collect();
        write!(f, "{} mail", classes.join(" and "))?;
        if let Some(clients) = &self.clients {
            let names: Vec<&str> = clients.iter().map(|client| client.as_str()).collect();
            write!(f, " from {}", names.join(", "))?;
        }
        if self.size_over > 0 {
            write!(f, " over {}", ByteSize(self.size_over))?;
        }
        if self.kind != Kind::Hve {
            write!(f, " up to {}", ByteSize(self.message_size))?;
        }
        write!(f, " goes to {}:{}", self.host, self.port)?;
        match self.tls {
            Tls::Required => {}
            Tls::Implicit => f.write_str(", with TLS from the first octet")?,
            Tls::Opportunistic => f.write_str(", encrypted if it can be")?,
            Tls::None => f.write_str(", in clear")?,
        }
        if self.server_name.to_str() != self.host {
            write!(f, " (certificate for {})", self.server_name.to_str())?;
        }
        if let Some(file) = &self.tls_ca_file {
            write!(f, ", verified against {}", file.display())?;
        }
        if let Some(identity) = &self.identity {
            write!(f, ", showing {}", identity.certificate_file.display())?;
        }
        Ok(())
    }
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
