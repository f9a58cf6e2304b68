//! Decides what a value means under its qualifiers (libpcap's gencode.c: gen_scode, gen_ncode, gen_mcode,
//! gen_ecode).
use super::{
    syntax::{Addresses, Direction, IpVersion, Layer, Network, Primitive, Protocol, Scope},
    token::Token,
    words::{self, ethertype},
};
use crate::{
    host::resolve,
    net::{self, MacAddr},
};
use std::net::Ipv6Addr;

/// The words before a value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Qualifiers {
    pub protocol: Option<Protocol>,
    pub direction: Option<Direction>,
    pub kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Host,
    Net,
    Port,
    PortRange,
    Protocol,
}

impl Qualifiers {
    /// Returns the kind of value that these qualifiers want.
    pub(super) fn wanted(&self) -> &'static str {
        match self.kind {
            None | Some(Kind::Host) => "a host: an address or a name",
            Some(Kind::Net) => "a network as 192.0.2.0/24",
            Some(Kind::Port) => "a port",
            Some(Kind::PortRange) => "a range of ports as 8000-8100",
            Some(Kind::Protocol) => "a protocol: a number or a name",
        }
    }

    /// Returns the primitive that a protocol alone is.
    pub(super) fn bare(&self, protocol: Protocol) -> Option<Primitive> {
        Some(match protocol.layer {
            Layer::Link => return None,
            Layer::Ethertype(number) => Primitive::LinkProtocol(number),
            Layer::Transport(number, family) => Primitive::IpProtocol(number, family),
            Layer::Osi(number) => Primitive::OsiProtocol(number),
        })
    }

    fn direction(&self) -> Direction {
        self.direction.unwrap_or_default()
    }

    fn misplaced(&self, what: &str) -> String {
        format!("{what} can't stand behind \"{}\"", self.protocol.map_or("", |protocol| protocol.word))
    }
}

/// Returns the primitive of a value with its qualifiers. `suffix` is what stands behind "/" or "mask".
pub(super) fn primitive(
    qualifiers: Qualifiers,
    token: Token,
    suffix: Option<Token>,
) -> Result<Primitive, String> {
    match (qualifiers.kind, token) {
        (Some(Kind::Port | Kind::PortRange), token) => ports(qualifiers, &token),
        (Some(Kind::Protocol), token) => protocol(qualifiers, &token),
        (None | Some(Kind::Host), Token::Mac(mac)) => ether_host(qualifiers, mac),
        (Some(Kind::Net), Token::Name(name)) => {
            Err(format!("names of networks are not looked up; write \"{name}\" as 192.0.2.0/24"))
        }
        (kind, token) => {
            let scope = scope(qualifiers)?;
            let addresses = match token {
                Token::Name(name) => Addresses::Name(name),
                token => {
                    let network = network(kind == Some(Kind::Net), token, suffix)
                        .ok_or_else(|| format!("expected {}", qualifiers.wanted()))??;
                    check_family(scope, network)?;
                    Addresses::Networks(vec![network])
                }
            };
            Ok(Primitive::Host { scope, direction: qualifiers.direction(), addresses })
        }
    }
}

fn ether_host(qualifiers: Qualifiers, mac: MacAddr) -> Result<Primitive, String> {
    match qualifiers.protocol.map(|protocol| protocol.layer) {
        Some(Layer::Link) => Ok(Primitive::EtherHost { direction: qualifiers.direction(), mac }),
        _ => Err(format!("a MAC address needs \"ether\": ether host {mac}")),
    }
}

/// Returns the headers in which a host is looked for.
fn scope(qualifiers: Qualifiers) -> Result<Scope, String> {
    let what = if qualifiers.kind == Some(Kind::Net) { "a network" } else { "a host" };
    match qualifiers.protocol.map(|protocol| protocol.layer) {
        None => Ok(Scope::All),
        Some(Layer::Ethertype(ethertype::IP)) => Ok(Scope::Ip),
        Some(Layer::Ethertype(ethertype::ARP)) => Ok(Scope::Arp),
        Some(Layer::Ethertype(ethertype::RARP)) => Ok(Scope::Rarp),
        Some(Layer::Ethertype(ethertype::IP6)) => Ok(Scope::Ip6),
        Some(Layer::Link) => Err("a MAC address is six hexadecimal bytes, as 02:00:5e:10:00:01".to_owned()),
        Some(Layer::Transport(..)) => Err(format!(
            "{}; connect them by and: {} and host ADDRESS",
            qualifiers.misplaced(what),
            qualifiers.protocol.map_or("", |protocol| protocol.word)
        )),
        Some(_) => Err(qualifiers.misplaced(what)),
    }
}

/// Returns the network that a token names; `None` if it names none.
fn network(net: bool, token: Token, suffix: Option<Token>) -> Option<Result<Network, String>> {
    if suffix.is_some() && !net {
        return Some(Err("a network needs \"net\": net 192.0.2.0/24".to_owned()));
    }
    match (token, suffix) {
        (Token::Number(mut address), _) => {
            let mut mask = u32::MAX;
            // "net 10" is 10.0.0.0/8.
            while net && address != 0 && address >> 24 == 0 {
                (address, mask) = (address << 8, mask << 8);
            }
            Some(Ok(Network::V4 { address, mask }))
        }
        (Token::Dotted { address, bits }, suffix) => Some(dotted(address, bits, suffix)),
        (Token::Ip6(address), Some(Token::Number(prefix))) => Some(network6(address, prefix)),
        (Token::Ip6(address), _) => Some(Ok(Network::V6 { address, prefix: 128 })),
        _ => None,
    }
}

/// Returns the network of an address with `bits` bits, and of a prefix or mask.
fn dotted(address: u32, bits: u32, suffix: Option<Token>) -> Result<Network, String> {
    let left = |number: u32, bits: u32| number << 32u32.saturating_sub(bits).min(31);
    let address = left(address, bits);
    let mask = match suffix {
        None => left(u32::MAX, bits),
        Some(Token::Number(length @ 0..=32)) => u32::MAX.checked_shl(32 - length).unwrap_or(0),
        Some(Token::Dotted { address, bits }) => left(address, bits),
        Some(_) => return Err("the prefix of an IPv4 network has 32 bits at most".to_owned()),
    };
    if address & !mask != 0 {
        let network = std::net::Ipv4Addr::from(address & mask);
        return Err(match mask.leading_ones() + mask.trailing_zeros() {
            32 => {
                format!("the address has bits beyond the prefix; write net {network}/{}", mask.leading_ones())
            }
            _ => format!("the address has bits beyond the mask; write net {network} mask …"),
        });
    }
    Ok(Network::V4 { address, mask })
}

fn network6(address: Ipv6Addr, prefix: u32) -> Result<Network, String> {
    if prefix > 128 {
        return Err("the prefix of an IPv6 network has 128 bits at most".to_owned());
    }
    let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
    if u128::from(address) & !mask != 0 {
        let network = Ipv6Addr::from(u128::from(address) & mask);
        return Err(format!("the address has bits beyond the prefix; write net {network}/{prefix}"));
    }
    Ok(Network::V6 { address, prefix })
}

fn check_family(scope: Scope, network: Network) -> Result<(), String> {
    match (scope, network) {
        (Scope::Ip6, Network::V4 { .. }) => Err("an IPv4 address can't stand behind \"ip6\"".to_owned()),
        (Scope::Ip | Scope::Arp | Scope::Rarp, Network::V6 { .. }) => {
            Err("an IPv6 address can only stand behind \"ip6\"".to_owned())
        }
        _ => Ok(()),
    }
}

/// Returns the ports that a number, a range or the name of a service names.
fn ports(qualifiers: Qualifiers, token: &Token) -> Result<Primitive, String> {
    let mut protocol = match qualifiers.protocol.map(|protocol| protocol.layer) {
        None => None,
        Some(Layer::Transport(number @ (6 | 17 | 132), _)) => Some(number),
        Some(_) => return Err(qualifiers.misplaced("a port")),
    };
    let range = match token {
        Token::Number(number) => {
            let port = u16::try_from(*number).map_err(|_| "ports go up to 65535".to_owned())?;
            (port, port)
        }
        Token::Name(name) => named_ports(qualifiers.kind == Some(Kind::PortRange), name, &mut protocol)?,
        _ => return Err(format!("expected {}", qualifiers.wanted())),
    };
    let range = (range.0.min(range.1), range.0.max(range.1));
    Ok(Primitive::Ports { protocol, direction: qualifiers.direction(), ranges: vec![range] })
}

/// Looks up ports in /etc/services. A service of one protocol alone decides the protocol.
fn named_ports(range: bool, name: &str, protocol: &mut Option<u32>) -> Result<(u16, u16), String> {
    if range && let Some((first, last)) = name.split_once('-') {
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) => Ok(port),
            Err(_) => resolve::port(text, net::Protocol::Tcp).map_err(|error| error.to_string()),
        };
        return Ok((port(first)?, port(last)?));
    }
    let [tcp, udp] = [net::Protocol::Tcp, net::Protocol::Udp].map(|one| resolve::port(name, one));
    let port = match (*protocol, tcp, udp) {
        (Some(17), _, udp) => udp,
        (Some(_), tcp, _) => tcp,
        (None, Ok(tcp), Ok(udp)) if tcp == udp => Ok(tcp),
        (None, Err(_), Ok(udp)) => {
            *protocol = Some(17);
            Ok(udp)
        }
        (None, tcp, Err(_) | Ok(_)) => {
            *protocol = Some(6);
            tcp
        }
    };
    let hint = if name.contains('-') && !range { "; a range of ports is portrange" } else { "" };
    let port = port.map_err(|error| format!("{error}{hint}"))?;
    Ok((port, port))
}

/// Returns the test for a protocol, by number or name.
fn protocol(qualifiers: Qualifiers, token: &Token) -> Result<Primitive, String> {
    if qualifiers.direction.is_some() {
        return Err("a protocol has no direction".to_owned());
    }
    let layer = qualifiers.protocol.map(|protocol| (protocol.word, protocol.layer));
    let (name, number) = match token {
        Token::Number(number) => ("", Some(*number)),
        // tcpdump wants \tcp, since tcp is a keyword, too.
        Token::Name(name) => (name.as_str(), None),
        Token::Keyword(word) => (*word, None),
        _ => return Err(format!("expected {}", qualifiers.wanted())),
    };
    let unknown =
        |what: &str| format!("\"{name}\" is no {what} protocol that netkat knows; write its number");
    match layer {
        None | Some(("ip" | "ip6", _)) => {
            let number = number.or_else(|| words::ip_protocol(name)).ok_or_else(|| unknown("IP"))?;
            let family = match layer {
                None => None,
                Some(("ip", _)) => Some(IpVersion::V4),
                Some(_) => Some(IpVersion::V6),
            };
            Ok(Primitive::IpProtocol(number, family))
        }
        Some((_, Layer::Link)) => {
            let number = number.or_else(|| words::link_protocol(name));
            Ok(Primitive::LinkProtocol(number.ok_or_else(|| unknown("link-layer"))?))
        }
        Some(("iso", _)) => {
            let named = words::protocol(name).and_then(|protocol| match protocol.layer {
                Layer::Osi(number) => Some(number),
                _ => None,
            });
            Ok(Primitive::OsiProtocol(number.or(named).ok_or_else(|| unknown("OSI"))?))
        }
        Some((word, _)) => {
            Err(format!("\"{word} proto\" makes no sense; write ip proto, ip6 proto or ether proto"))
        }
    }
}
