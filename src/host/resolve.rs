//! Resolution of names to addresses and ports, by the system's resolver and /etc/services.
//!
//! The resolver never sees literals. A zone (`fe80::1%eth0`) is an interface's name or index.

use std::{
    collections::HashSet,
    fmt, fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use super::interface::{self, Interface, InterfaceError};
use crate::net::{
    Protocol,
    zone::{self, ScopedIp},
};

/// The list of services, services(5).
const SERVICES: &str = "/etc/services";

/// The address families to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Both.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl Family {
    /// Returns whether `address` is of this family.
    pub(crate) fn includes(self, address: IpAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Any => "IP",
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// The reason why a host has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The resolver failed.
    #[error("could not resolve \"{name}\": {source}")]
    Unknown {
        /// The name.
        name: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// No name server answered.
    #[error(
        "could not resolve \"{name}\": the name server did not answer{}; look-ups go through the kernel, and so through \
         this host's firewall",
        within(*.waited)
    )]
    NoAnswer {
        /// The name.
        name: String,
        /// Time after which netkat gave up; `None` if the resolver did.
        waited: Option<Duration>,
    },
    /// All addresses are of the other family.
    #[error("\"{name}\" has no {wanted} address; it has: {present}")]
    NoAddressOfFamily {
        /// The name.
        name: String,
        /// The wanted family.
        wanted: Family,
        /// The addresses that it has, with commas.
        present: String,
    },
    /// A name where only literals are allowed.
    #[error("\"{0}\" is not a numeric address, and names are not looked up")]
    NotNumeric(String),
    /// The text before the zone is no IPv6 address.
    #[error("\"{0}\" is not an IPv6 address with a zone; write it as fe80::1%eth0")]
    InvalidZone(String),
    /// The address is neither link-local nor a group.
    #[error(
        "\"{name}\": only link-local addresses (fe80::/10) and groups (ff00::/8) have a zone; leave it out"
    )]
    ZoneOfGlobal {
        /// The address with its zone.
        name: String,
    },
    /// The zone is no interface.
    #[error("\"{name}\": {source}")]
    UnknownZone {
        /// The address with its zone.
        name: String,
        /// The interface's error.
        source: InterfaceError,
    },
}

fn within(waited: Option<Duration>) -> String {
    waited.map_or_else(String::new, |waited| format!(" within {} s", waited.as_secs_f64()))
}

/// The ways to look up a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Names are refused.
    Numeric,
    /// By the system's resolver, within this time; `None` leaves the time to the resolver.
    Resolver(Option<Duration>),
}

/// Returns the addresses of `host`, each with `port`, in the resolver's order of preference (RFC 6724); at
/// least one. IPv4-mapped IPv6 addresses become IPv4 addresses.
///
/// # Errors
/// [`ResolveError`].
pub fn addresses(
    host: &str,
    port: u16,
    family: Family,
    names: Names,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let all = match (literal(host, port), names) {
        (Err(ResolveError::NotNumeric(_)), Names::Resolver(wait)) => look_up(host, port, wait)?,
        (literal, _) => vec![literal?],
    };
    let (wanted, other): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|address| family.includes(address.ip()));
    if wanted.is_empty() {
        let present: Vec<_> = other.iter().map(|address| ScopedIp::from(*address).to_string()).collect();
        return Err(ResolveError::NoAddressOfFamily {
            name: host.to_owned(),
            wanted: family,
            present: present.join(", "),
        });
    }
    Ok(wanted)
}

/// Parses an address that may have a zone. Looks up no name.
///
/// # Errors
/// [`ResolveError::NotNumeric`], and the errors of a zone.
pub(crate) fn literal(host: &str, port: u16) -> Result<SocketAddr, ResolveError> {
    if let Ok(literal) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(literal.to_canonical(), port));
    }
    match host.split_once('%') {
        Some((address, zone)) => zoned(host, address, zone, port),
        None => Err(ResolveError::NotNumeric(host.to_owned())),
    }
}

/// Messages of EAI_AGAIN, no answer from a name server, in glibc and musl (gai_strerror(3)).
const NO_ANSWER: [&str; 2] = ["Temporary failure in name resolution", "Try again"];

/// Looks up a name within `wait`.
fn look_up(name: &str, port: u16, wait: Option<Duration>) -> Result<Vec<SocketAddr>, ResolveError> {
    log::info!("looking up {name}");
    let all = match wait {
        None => ask_resolver(name, port),
        Some(wait) => match ask_resolver_within(name, port, wait) {
            Some(answer) => answer,
            None => return Err(ResolveError::NoAnswer { name: name.to_owned(), waited: Some(wait) }),
        },
    };
    let unknown = |source: io::Error| match NO_ANSWER.iter().any(|words| source.to_string().contains(words)) {
        true => ResolveError::NoAnswer { name: name.to_owned(), waited: None },
        false => ResolveError::Unknown { name: name.to_owned(), source },
    };
    let mut found = Vec::new();
    for address in all.map_err(unknown)? {
        let address = match address.ip().to_canonical() {
            IpAddr::V4(v4) => SocketAddr::new(v4.into(), port),
            IpAddr::V6(_) => address,
        };
        if !found.contains(&address) {
            found.push(address);
        }
    }
    if found.is_empty() {
        return Err(unknown(io::Error::new(io::ErrorKind::NotFound, "the name exists but has no address")));
    }
    Ok(found)
}

fn ask_resolver(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((name, port).to_socket_addrs()?.collect())
}

/// Asks the resolver; `None` if it takes longer than `wait`. getaddrinfo(3) cannot be cancelled, so a thread waits for
/// it. Where that is left behind, the run ends, and the thread with it: a thread would keep capabilities that its process
/// drops. A signal ends the process at once, since nothing is open yet.
fn ask_resolver_within(name: &str, port: u16, wait: Duration) -> Option<io::Result<Vec<SocketAddr>>> {
    let (answer, answered) = mpsc::channel();
    let owned = name.to_owned();
    let resolver = thread::Builder::new().name("resolver".to_owned());
    let resolver = match resolver.spawn(move || answer.send(ask_resolver(&owned, port))) {
        Ok(resolver) => resolver,
        Err(error) => return Some(Err(error)),
    };
    match answered.recv_timeout(wait) {
        Ok(answer) => {
            // It has sent its answer, so this takes no time.
            let _ = resolver.join();
            Some(answer)
        }
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Err(io::Error::other("the resolver failed"))),
    }
}

fn zoned(host: &str, address: &str, zone: &str, port: u16) -> Result<SocketAddr, ResolveError> {
    let ip: Ipv6Addr = address.parse().map_err(|_| ResolveError::InvalidZone(host.to_owned()))?;
    // A wider group has a zone, too (RFC 4007, section 6): here, the interface that datagrams leave by.
    if !zone::may_have_zone(ip.into()) {
        return Err(ResolveError::ZoneOfGlobal { name: host.to_owned() });
    }
    let scope = interface_of(zone)
        .map_err(|source| ResolveError::UnknownZone { name: host.to_owned(), source })?
        .index;
    Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
}

/// Returns the interface that a zone names, by name or index (RFC 4007, section 11.2).
///
/// # Errors
/// [`InterfaceError`].
pub(crate) fn interface_of(zone: &str) -> Result<Interface, InterfaceError> {
    match interface::by_name(zone) {
        Err(InterfaceError::UnknownName { .. }) if is_number(zone) => {
            interface::by_index(zone.parse().unwrap_or_default())
        }
        named => named,
    }
}

/// The reason why a text names no port.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortError {
    /// A number that is 0 or above 65535.
    #[error("port {0} is out of range; ports go from 1 to 65535")]
    OutOfRange(String),
    /// No service has this name.
    #[error(
        "\"{name}\" is not a port: {SERVICES} lists no such {protocol} service; write a number from 1 to 65535"
    )]
    UnknownService {
        /// The name.
        name: String,
        /// The wanted protocol.
        protocol: Protocol,
    },
    /// The list of services cannot be read.
    #[error(
        "\"{name}\" is not a number, and {SERVICES} could not be read: {reason}; write the port's number"
    )]
    NoServices {
        /// The name.
        name: String,
        /// The system call's error.
        reason: String,
    },
}

/// Parses a port, a number or the name of a service ("http").
///
/// # Errors
/// [`PortError`].
pub(crate) fn port(text: &str, protocol: Protocol) -> Result<u16, PortError> {
    if is_number(text) {
        return match text.parse() {
            Ok(0) | Err(_) => Err(PortError::OutOfRange(text.to_owned())),
            Ok(port) => Ok(port),
        };
    }
    let services = fs::read_to_string(SERVICES)
        .map_err(|error| PortError::NoServices { name: text.to_owned(), reason: error.to_string() })?;
    service(&services, text, protocol)
        .ok_or_else(|| PortError::UnknownService { name: text.to_owned(), protocol })
}

/// Parses a local port: as [`port`], or 0 for any free one.
///
/// # Errors
/// [`PortError`].
pub(crate) fn local_port(text: &str, protocol: Protocol) -> Result<u16, PortError> {
    match text.parse() {
        Ok(0) if is_number(text) => Ok(0),
        _ => port(text, protocol),
    }
}

/// Parses a list of port numbers, service names and ranges, as `22,80,8000-8100,https`. Returns each port
/// once, in the order of the list. As with nc, a range may go from high to low.
///
/// # Errors
/// [`PortError`], for any part of the list.
pub(crate) fn ports(text: &str, protocol: Protocol) -> Result<Vec<u16>, PortError> {
    let mut ports = Vec::new();
    let mut seen = HashSet::new();
    for part in text.split(',').map(str::trim) {
        // Service names may have hyphens: ftp-data.
        let (from, to) = match part.split_once('-') {
            Some((from, to)) if is_number(from) && is_number(to) => {
                let (a, b) = (port(from, protocol)?, port(to, protocol)?);
                (a.min(b), a.max(b))
            }
            _ => {
                let single = port(part, protocol)?;
                (single, single)
            }
        };
        ports.extend((from..=to).filter(|port| seen.insert(*port)));
    }
    Ok(ports)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Finds a service in the text of services(5): `name port/protocol aliases... # comment`.
fn service(services: &str, wanted: &str, protocol: Protocol) -> Option<u16> {
    let protocol = protocol.to_string();
    services.lines().find_map(|line| {
        let entry = line.split('#').next()?;
        let mut words = entry.split_whitespace();
        let (name, target) = (words.next()?, words.next()?);
        let (port, of) = target.split_once('/')?;
        let named = name == wanted || words.any(|alias| alias == wanted);
        if named && of == protocol { port.parse().ok().filter(|port| *port != 0) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXCERPT: &str = "\
# a comment: http 1/tcp
domain\t53/tcp
domain\t53/udp
http\t80/tcp\twww\t# WorldWideWeb HTTP
ntp\t\t123/udp # http 9/tcp
broken
worse 99999/tcp
";

    #[test]
    fn services_are_found_by_name_alias_and_protocol() {
        assert_eq!(service(EXCERPT, "http", Protocol::Tcp), Some(80));
        assert_eq!(service(EXCERPT, "www", Protocol::Tcp), Some(80));
        assert_eq!(service(EXCERPT, "domain", Protocol::Udp), Some(53));
        assert_eq!(service(EXCERPT, "ntp", Protocol::Tcp), None);
        assert_eq!(service(EXCERPT, "http", Protocol::Udp), None);
        assert_eq!(service(EXCERPT, "WorldWideWeb", Protocol::Tcp), None);
        assert_eq!(service(EXCERPT, "worse", Protocol::Tcp), None);
    }

    #[test]
    fn ports_are_numbers_from_1_to_65535() {
        assert_eq!(port("1", Protocol::Tcp), Ok(1));
        assert_eq!(port("65535", Protocol::Udp), Ok(65535));
        for text in ["0", "00", "65536", "99999999999999999999"] {
            assert_eq!(port(text, Protocol::Tcp), Err(PortError::OutOfRange(text.to_owned())));
        }
        assert_eq!(local_port("0", Protocol::Tcp), Ok(0));
        assert_eq!(local_port("80", Protocol::Tcp), Ok(80));
        assert!(local_port("+0", Protocol::Tcp).is_err() && local_port("", Protocol::Tcp).is_err());
        for text in ["", "-1", "+80", "80x"] {
            assert!(port(text, Protocol::Tcp).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_come_in_lists_and_ranges() {
        let read = |text| ports(text, Protocol::Tcp);
        assert_eq!(read("22"), Ok(vec![22]));
        assert_eq!(read("80, 22,8000-8002,22"), Ok(vec![80, 22, 8000, 8001, 8002]));
        assert_eq!(read("3-1"), Ok(vec![1, 2, 3]));
        assert_eq!(read("1-65535").map(|all| all.len()), Ok(65_535));
        for text in ["", ",", "22,", "0-3", "1-65536", "1-2-3", "-5", "5-", "22;23"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn literals_need_no_resolver() {
        let one = |host, family| addresses(host, 80, family, Names::Numeric);
        assert_eq!(one("192.0.2.1", Family::V4).expect("v4"), ["192.0.2.1:80".parse().expect("literal")]);
        assert_eq!(
            one("2001:db8::1", Family::Any).expect("v6"),
            ["[2001:db8::1]:80".parse().expect("literal")]
        );
        assert_eq!(
            one("::ffff:192.0.2.1", Family::V4).expect("mapped"),
            ["192.0.2.1:80".parse().expect("literal")]
        );
        let error = one("192.0.2.1", Family::V6).expect_err("wrong family");
        assert_eq!(error.to_string(), "\"192.0.2.1\" has no IPv6 address; it has: 192.0.2.1");
        let error = one("localhost", Family::Any).expect_err("a name");
        assert_eq!(error.to_string(), "\"localhost\" is not a numeric address, and names are not looked up");
    }

    #[test]
    fn zones_name_interfaces() {
        let lo = |host| addresses(host, 80, Family::Any, Names::Numeric);
        for host in ["fe80::1%lo", "fe80::1%1", "ff02::1%lo", "ff05::1%lo"] {
            let found = lo(host).expect(host);
            assert!(
                matches!(found.as_slice(), [SocketAddr::V6(v6)] if v6.scope_id() == 1),
                "{host}: {found:?}"
            );
        }
        assert!(matches!(lo("2001:db8::1%lo"), Err(ResolveError::ZoneOfGlobal { .. })));
        assert!(matches!(lo("192.0.2.1%lo"), Err(ResolveError::InvalidZone(_))));
        let error = lo("fe80::1%nosuch0").expect_err("no such interface").to_string();
        assert!(error.contains("there is no interface \"nosuch0\" here; there are: lo"), "{error}");
    }

    #[test]
    fn names_are_looked_up() {
        for wait in [None, Some(Duration::from_secs(60))] {
            let names = Names::Resolver(wait);
            let found = addresses("localhost", 80, Family::V4, names).expect("localhost");
            assert_eq!(found, ["127.0.0.1:80".parse().expect("literal")]);
            let error = addresses("no-such-host.invalid", 80, Family::Any, names).expect_err("RFC 6761");
            assert!(matches!(error, ResolveError::Unknown { .. } | ResolveError::NoAnswer { .. }), "{error}");
        }
    }
}
