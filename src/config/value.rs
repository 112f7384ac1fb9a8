//! Single values of the configuration: from what TOML knows (text, numbers, truth) to what the relay means (a size, a network, a domain).
//!
//! Each reader takes a TOML value and returns the meaning or [`Wrong`]: what was found there and what to write instead.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::ServerName;
use toml::de::DeValue;

use super::effective::Shown;
use super::reader::{Read, Show};
use crate::clock::Timestamp;
use crate::intake::Pattern;
use crate::smtp::Mailbox;
use crate::units::{ByteSize, format_duration, parse_duration};
use crate::upstream::oauth::TokenUrl;

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub found: String,
    pub hint: String,
}

impl Wrong {
    /// `"10.20.0.0/33" is not a network`
    pub fn is_not(value: &DeValue<'_>, what: impl Display, hint: impl Into<String>) -> Self {
        Self { found: format!("{} is not {what}", shown(value)), hint: hint.into() }
    }

    /// `"{athor}" has {athor} in it, which stands for nothing`
    pub fn because(value: &DeValue<'_>, why: impl Display, hint: impl Into<String>) -> Self {
        Self { found: format!("{} {why}", shown(value)), hint: hint.into() }
    }
}

/// A value as a message quotes it, at most 80 characters of it.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() > 80 => format!("{:?}…", text.chars().take(80).collect::<String>()),
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

pub(super) fn truth(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| Wrong::is_not(value, "true or false", "write true or false, without quotes"))
}

/// A whole number within a range.
pub(super) fn number(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, Wrong> {
    move |value| {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        let number = value.as_integer().and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok());
        let hint = if value.is_str() { "write it without quotes" } else { "write one in that range" };
        number.filter(|number| range.contains(number)).ok_or_else(|| Wrong::is_not(value, what, hint))
    }
}

/// A number of things that are counted in memory.
pub(super) fn count(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<usize, Wrong> {
    let number = number(range);
    move |value| number(value).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
}

/// A TCP port to connect to.
pub(super) fn port(value: &DeValue<'_>) -> Result<u16, Wrong> {
    let number = number(1..=65_535)(value)?;
    u16::try_from(number).map_err(|_| Wrong::is_not(value, "a port", "write one from 1 to 65535"))
}

/// A number of octets within a range.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, Wrong> {
    move |value| {
        let octets = match value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(text) => text.parse().ok().map(|ByteSize(octets)| octets),
            _ => None,
        };
        let Some(octets) = octets else {
            return Err(Wrong::is_not(
                value,
                "a size",
                "write a number of octets, or one with KiB, MiB or GiB, such as 10485760 or \"10 MiB\"",
            ));
        };
        if range.contains(&octets) {
            return Ok(octets);
        }
        let what = format!("a size from {} to {}", ByteSize(*range.start()), ByteSize(*range.end()));
        Err(Wrong::is_not(value, what, "write one in that range"))
    }
}

/// A number of octets that are held in memory.
pub(super) fn octets(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<usize, Wrong> {
    let size = size(range);
    move |value| size(value).map(|octets| usize::try_from(octets).unwrap_or(usize::MAX))
}

/// A duration within a range.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&DeValue<'_>) -> Result<Duration, Wrong> {
    move |value| {
        let Some(duration) = value.as_str().and_then(|text| parse_duration(text).ok()) else {
            return Err(Wrong::is_not(
                value,
                "a duration",
                "write a number with ms, s, m, h or d, in quotes, such as \"30s\" or \"1h 30m\"",
            ));
        };
        if range.contains(&duration) {
            return Ok(duration);
        }
        let what = format!("a duration from {} to {}", format_duration(*range.start()), format_duration(*range.end()));
        Err(Wrong::is_not(value, what, "write one in that range"))
    }
}

/// A value, or `"none"`: the word for no limit, so that a limit of nothing cannot be mistaken for none.
pub(super) fn or_none<T>(read: impl Fn(&DeValue<'_>) -> Result<T, Wrong>) -> impl Fn(&DeValue<'_>) -> Result<Option<T>, Wrong> {
    move |value| match value.as_str() {
        Some("none") => Ok(None),
        _ => {
            read(value).map(Some).map_err(|Wrong { found, hint }| Wrong { found, hint: format!("{hint}; or write \"none\" for no limit") })
        }
    }
}

/// An amount of money.
pub(super) fn price(value: &DeValue<'_>) -> Result<f64, Wrong> {
    let number = match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number as f64),
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => None,
    };
    let fits = number.filter(|number| (0.0..=1e9).contains(number));
    fits.ok_or_else(|| Wrong::is_not(value, "an amount of money", "write a number without a currency, such as 42 or 39.90"))
}

/// A share in whole hundredths, such as `"10%"`.
pub(super) fn percentage(range: RangeInclusive<u8>) -> impl Fn(&DeValue<'_>) -> Result<u8, Wrong> {
    move |value| {
        let number = value.as_str().and_then(|text| text.trim().strip_suffix('%')).map(str::trim_end);
        // `parse` would take a sign as well.
        let number = number.filter(|digits| digits.bytes().all(|octet| octet.is_ascii_digit())).and_then(|digits| digits.parse().ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let what = format!("a share from {}% to {}%", range.start(), range.end());
            Wrong::is_not(value, what, "write a whole number with %, in quotes, such as \"10%\"")
        })
    }
}

/// One of a few words.
pub(super) struct Choice<T: 'static> {
    what: &'static str,
    words: &'static [(&'static str, T)],
}

/// One of these words.
pub(super) fn choice<T>(what: &'static str, words: &'static [(&'static str, T)]) -> Choice<T> {
    Choice { what, words }
}

impl<T: Copy> Read<T> for Choice<T> {
    fn read(&self, value: &DeValue<'_>) -> Result<T, Wrong> {
        self.words.iter().find(|(word, _)| value.as_str() == Some(word)).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<String> = self.words.iter().map(|(word, _)| format!("{word:?}")).collect();
            let (last, others) = words.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
            Wrong::is_not(value, self.what, format!("write {} or {last}", others.join(", ")))
        })
    }
}

impl<T: PartialEq> Show<T> for Choice<T> {
    fn show(&self, value: &T) -> String {
        self.words.iter().find(|(_, meaning)| meaning == value).map_or("", |(word, _)| word).shown()
    }
}

/// The name of a client or a route: it stands in log lines as `client=NAME`, hence no blanks.
pub(super) fn name(value: &DeValue<'_>) -> Result<String, Wrong> {
    let fits =
        |text: &&str| (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    value
        .as_str()
        .filter(fits)
        .map(str::to_owned)
        .ok_or_else(|| Wrong::is_not(value, "a name", "write up to 64 letters, digits, hyphens, dots or underscores, such as \"devices\""))
}

/// An id, or anything else of visible ASCII characters without blanks.
pub(super) fn word(value: &DeValue<'_>) -> Result<String, Wrong> {
    let fits = |text: &&str| (1..=512).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_graphic());
    let hint = "write it in quotes, without blanks";
    value.as_str().filter(fits).map(str::to_owned).ok_or_else(|| Wrong::is_not(value, "a word", hint))
}

/// A tenant of Microsoft Entra, as the address of its token endpoint.
pub(super) fn tenant(value: &DeValue<'_>) -> Result<TokenUrl, Wrong> {
    let hint = "write its id as Entra shows it, or one of its domains, such as \"contoso.onmicrosoft.com\"";
    value.as_str().and_then(|text| TokenUrl::of_tenant(text).ok()).ok_or_else(|| Wrong::is_not(value, "a tenant", hint))
}

/// The address of a token endpoint.
pub(super) fn token_url(value: &DeValue<'_>) -> Result<TokenUrl, Wrong> {
    let hint = "write one that begins with https:// and has no user, query or fragment, such as \"https://login.example.com/oauth2/token\"";
    value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| Wrong::is_not(value, "the address of a token endpoint", hint))
}

/// The beginning of a day, in UTC.
pub(super) fn date(value: &DeValue<'_>) -> Result<Timestamp, Wrong> {
    let hint = "write year, month and day in quotes, such as \"2027-01-31\"";
    value.as_str().and_then(Timestamp::from_date).ok_or_else(|| Wrong::is_not(value, "a date", hint))
}

/// A path that means the same whatever the current directory.
pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    value
        .as_str()
        .filter(|text| text.starts_with('/') && !text.contains('\0'))
        .map(PathBuf::from)
        .ok_or_else(|| Wrong::is_not(value, "an absolute path", "write it from the root: it begins with /"))
}

/// What the relay calls itself: a host name without a final dot, in ASCII, for it stands in the greeting (RFC 5321 §4.2).
pub(super) fn host_name(value: &DeValue<'_>) -> Result<String, Wrong> {
    value
        .as_str()
        .filter(|text| text.is_ascii() && is_host_name(text))
        .map(str::to_owned)
        .ok_or_else(|| Wrong::is_not(value, "a host name", "write a name such as \"relay.contoso.com\""))
}

/// A mail domain, in lower case.
pub(super) fn domain(value: &DeValue<'_>) -> Result<String, Wrong> {
    value
        .as_str()
        .filter(|text| text.contains('.') && is_host_name(text))
        .map(str::to_lowercase)
        .ok_or_else(|| Wrong::is_not(value, "a domain", "write the part behind the @ of your addresses, such as \"contoso.com\""))
}

/// Labels of RFC 1123 §2.1; underscores and letters beyond ASCII are let through, for both are met in the field.
pub(super) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Where an upstream server is: a name or an address.
pub(super) fn host(value: &DeValue<'_>) -> Result<String, Wrong> {
    server_name(value)?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}

/// What a certificate is issued to: a name or an address.
pub(super) fn server_name(value: &DeValue<'_>) -> Result<ServerName<'static>, Wrong> {
    value.as_str().and_then(|text| ServerName::try_from(text.to_owned()).ok()).ok_or_else(|| {
        Wrong::is_not(
            value,
            "a host name or an address",
            "write it without a port, such as \"smtp-hve.office365.com\"; the port has its own key",
        )
    })
}

pub(super) fn mailbox(value: &DeValue<'_>) -> Result<Mailbox, Wrong> {
    let hint = "write it as name@domain, such as \"hve01@contoso.com\"";
    value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| Wrong::is_not(value, "a mail address", hint))
}

/// An address, or all of a domain.
pub(super) fn pattern(value: &DeValue<'_>) -> Result<Pattern, Wrong> {
    let text = value.as_str().unwrap_or_default();
    let pattern = match text.strip_prefix('@') {
        Some(domain) => is_host_name(domain).then(|| Pattern::Domain(domain.to_lowercase())),
        None => text.parse().ok().map(Pattern::Mailbox),
    };
    let hint = "write name@domain, or @domain for all of a domain, such as \"@contoso.com\"";
    pattern.ok_or_else(|| Wrong::is_not(value, "an address or a domain", hint))
}

/// What a line of the reply to EHLO begins with (RFC 5321 §4.1.1.1), in capitals.
pub(super) fn keyword(value: &DeValue<'_>) -> Result<String, Wrong> {
    let hint = "write the first word of a line of the relay's reply to EHLO, such as \"SMTPUTF8\"";
    let fits = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    value.as_str().filter(fits).map(str::to_uppercase).ok_or_else(|| Wrong::is_not(value, "a keyword of EHLO", hint))
}

/// A network, or a single address.
pub(super) fn network(value: &DeValue<'_>) -> Result<IpNet, Wrong> {
    let hint = "write an address with a prefix length, such as \"10.20.0.0/16\"";
    let text = value.as_str().map(str::trim).unwrap_or_default();
    let network: IpNet =
        text.parse().or_else(|_| text.parse().map(|host: IpAddr| host.into())).map_err(|_| Wrong::is_not(value, "a network", hint))?;
    if let IpNet::V6(v6) = network
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err(Wrong::is_not(value, "a network that clients come from", "write the IPv4 network itself, without ::ffff:"));
    }
    if network != network.trunc() {
        let (found, trunc, addr) = (shown(value), network.trunc(), network.addr());
        return Err(Wrong {
            found: format!("{found} has address bits behind its prefix"),
            hint: format!("write \"{trunc}\" for the network, or \"{addr}\" for the one host"),
        });
    }
    Ok(network)
}

/// Where to listen: an address with a port, or a name with a port for all addresses that the name has now.
pub(super) fn listen(value: &DeValue<'_>) -> Result<Vec<SocketAddr>, Wrong> {
    let hint = "write an address and a port, such as \"0.0.0.0:25\", \"[::]:25\" or \"127.0.0.1:2525\"";
    let wrong = || Wrong::is_not(value, "an address to listen on", hint);
    let text = value.as_str().ok_or_else(wrong)?;
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    let (host, port) = text.rsplit_once(':').filter(|(host, _)| is_host_name(host)).ok_or_else(wrong)?;
    // A name of digits and dots alone is an address with a slip in it: nothing for a resolver to guess at.
    if host.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(wrong());
    }
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    if found.is_empty() {
        let hint = "write the address itself, or give the name one".to_owned();
        return Err(Wrong { found: format!("the name in {} has no address", shown(value)), hint });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(text: &str, reader: impl Fn(&DeValue<'_>) -> Result<T, Wrong>) -> Result<T, String> {
        let value = DeValue::parse(text).expect(text);
        reader(value.get_ref()).map_err(|wrong| format!("{}: {}", wrong.found, wrong.hint))
    }

    #[test]
    fn reads_numbers_in_their_range() {
        for (text, number) in [("1", 1), ("1_000", 1_000), ("0x10", 16), ("0", 0)] {
            assert_eq!(read(text, super::number(0..=1_000)), Ok(number), "{text}");
        }
        for text in ["-1", "1001", "\"5\"", "1.0", "[1]", "99999999999999999999999", "true"] {
            assert!(read(text, super::number(0..=1_000)).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_sizes_and_durations() {
        assert_eq!(read("10485760", size(0..=u64::MAX)), read("\"10 MiB\"", size(0..=u64::MAX)));
        assert!(read("\"10 MiB\"", size(0..=1_000)).is_err());
        let up_to_a_day = || duration(Duration::from_secs(1)..=Duration::from_secs(86_400));
        assert_eq!(read("\"1h 30m\"", up_to_a_day()), Ok(Duration::from_secs(5_400)));
        for text in ["30", "\"30\"", "\"0s\"", "\"2d\""] {
            assert!(read(text, up_to_a_day()).is_err(), "{text}");
        }
    }

    #[test]
    fn no_limit_is_a_word_of_its_own() {
        let limit = || or_none(super::number(1..=1_000));
        assert_eq!(read("\"none\"", limit()), Ok(None));
        assert_eq!(read("7", limit()), Ok(Some(7)));
        for text in ["0", "\"\"", "\"7\"", "\"None\"", "false"] {
            let found = read(text, limit()).expect_err(text);
            assert!(found.contains("\"none\" for no limit"), "{found}");
        }
    }

    #[test]
    fn reads_shares() {
        for (text, share) in [("0%", 0), ("10%", 10), (" 7 % ", 7), ("090%", 90)] {
            assert_eq!(read(&format!("{text:?}"), percentage(0..=90)), Ok(share), "{text}");
        }
        for text in ["10", "\"10\"", "0.1", "\"91%\"", "\"+5%\"", "\"-5%\"", "\"%\"", "\"1.5%\"", "\"5%%\"", "\"999%\""] {
            assert!(read(text, percentage(0..=90)).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_networks() {
        for (text, network) in
            [("10.20.0.0/16", "10.20.0.0/16"), ("10.1.2.3", "10.1.2.3/32"), ("::1", "::1/128"), ("2001:db8::/32", "2001:db8::/32")]
        {
            assert_eq!(read(&format!("{text:?}"), super::network).map(|n| n.to_string()), Ok(network.to_owned()));
        }
        for text in ["10.20.0.0/33", "10.20.0.1/16", "contoso.com", "", "::ffff:10.0.0.0/104", "10.20/16"] {
            assert!(read(&format!("{text:?}"), super::network).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_names_that_hosts_and_domains_have() {
        for text in ["contoso.com", "Contoso.COM", "x-1.mfp_3.local", "müller.example"] {
            assert_eq!(read(&format!("{text:?}"), domain), Ok(text.to_lowercase()));
        }
        for text in ["contoso", "@contoso.com", "*.contoso.com", "a..b", "contoso.com.", "-a.b", "a b.c", ""] {
            assert!(read(&format!("{text:?}"), domain).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_where_to_listen() {
        for text in ["0.0.0.0:25", "[::]:25", "127.0.0.1:0", "localhost:2525"] {
            assert!(read(&format!("{text:?}"), listen).is_ok_and(|found| !found.is_empty()), "{text}");
        }
        for text in ["25", ":25", "0.0.0.0", "::", "0.0.0.0:70000", "1.2.3.4.5:25", "256.0.0.1:25", "host:", "no such:25"] {
            assert!(read(&format!("{text:?}"), listen).is_err(), "{text}");
        }
    }

    #[test]
    fn quotes_only_the_beginning_of_a_long_value() {
        let found = read(&format!("{:?}", "x".repeat(5_000)), name).expect_err("too long");
        assert!(found.len() < 300, "{found}");
    }
}
