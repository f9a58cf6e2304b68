//! The value of --proxy-protocol: versions, and the source that a client claims.
use crate::proxy_protocol::{Version, Versions};
use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
};

const FLAG: &str = "--proxy-protocol";
const ADVICE: &str = "write 1 or 2; with a source to claim, 2:192.0.2.7:4000 or 2:[2001:db8::7]:4000; of a listener, the \
                      versions that it takes, as 1,2";

/// The value of --proxy-protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// The versions.
    pub versions: Versions,
    /// The source that a client claims.
    pub source: Option<SocketAddr>,
}

/// Joins the flag with a value in a word of its own. The value is optional, so the parser takes it behind an equals sign
/// alone: in `-l --proxy-protocol 5000` the number is the port. No port and no host has the form of a value but the
/// ports 1 and 2.
pub(super) fn joined(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::with_capacity(arguments.len());
    let mut flags = true;
    for word in arguments {
        flags &= word != "--";
        let value = word.to_str().filter(|text| flags && has_form(text));
        match (words.last_mut().filter(|last| **last == FLAG), value) {
            (Some(last), Some(value)) => last.push(format!("={value}")),
            _ => words.push(word),
        }
    }
    words
}

fn has_form(text: &str) -> bool {
    matches!(text.split([':', ',']).next(), Some("1" | "2"))
}

/// Parses the value.
///
/// # Errors
/// Advice on what to write.
pub(super) fn value(text: &str) -> Result<ProxyProtocol, String> {
    let (versions, source) = match text.split_once(':') {
        Some((versions, source)) => (versions, Some(source)),
        None => (text, None),
    };
    let versions = match (versions, source) {
        ("1", _) => Versions::Only(Version::One),
        ("2", _) => Versions::Only(Version::Two),
        ("1,2" | "2,1", None) => Versions::Both,
        _ => return Err(ADVICE.to_owned()),
    };
    let source = source.map(|text| end(text).ok_or_else(|| ADVICE.to_owned())).transpose()?;
    Ok(ProxyProtocol { versions, source })
}

/// Parses an address, in brackets if it is one of IPv6, and a port, which may be 0.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let ip: IpAddr = match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => IpAddr::V6(inner.parse().ok()?),
        None => IpAddr::V4(address.parse().ok()?),
    };
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())??;
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_versions_and_a_source() {
        let parsed =
            |text| value(text).map(|value| (value.versions, value.source.map(|source| source.to_string())));
        let (one, two) = (Versions::Only(Version::One), Versions::Only(Version::Two));
        assert_eq!(parsed("1"), Ok((one, None)));
        assert_eq!(parsed("2,1"), Ok((Versions::Both, None)));
        assert_eq!(parsed("1:192.0.2.7:0"), Ok((one, Some("192.0.2.7:0".to_owned()))));
        assert_eq!(parsed("2:[2001:db8::7]:65535"), Ok((two, Some("[2001:db8::7]:65535".to_owned()))));
        for text in [
            "",
            "3",
            "1,",
            "1,2:192.0.2.7:1",
            "2:",
            "2:192.0.2.7",
            "2:2001:db8::7:1",
            "2:[192.0.2.7]:1",
            "2:192.0.2.7:+1",
            "2:192.0.2.7:65536",
            "2:[fe80::1%eth0]:1",
            "2:host:1",
            "2:192.0.2.7:",
        ] {
            assert_eq!(value(text), Err(ADVICE.to_owned()), "{text}");
        }
    }

    #[test]
    fn only_what_has_the_form_of_a_value_is_joined() {
        for (line, expected) in [
            ("-l --proxy-protocol 5000", "-l --proxy-protocol 5000"),
            ("-l --proxy-protocol 1 5000", "-l --proxy-protocol=1 5000"),
            ("--proxy-protocol 2:192.0.2.7:1 192.0.2.1 80", "--proxy-protocol=2:192.0.2.7:1 192.0.2.1 80"),
            ("--proxy-protocol 192.0.2.1 80", "--proxy-protocol 192.0.2.1 80"),
            ("--proxy-protocol 1.example 80", "--proxy-protocol 1.example 80"),
            ("--proxy-protocol=1 2 80", "--proxy-protocol=1 2 80"),
            ("2 80 --proxy-protocol", "2 80 --proxy-protocol"),
            ("-- --proxy-protocol 2", "-- --proxy-protocol 2"),
        ] {
            let words = joined(line.split(' ').map(Into::into).collect());
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            assert_eq!(words.join(" "), expected);
        }
    }
}
