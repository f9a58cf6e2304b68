//! The names of addresses (RFC 1035, section 3.5; RFC 3596, section 2.5), asked once everything else is done.
//!
//! The sandbox leaves no file and no new socket by then, so /etc/hosts is read, and a socket to the first name
//! server opened, before. As the resolver's, these questions go through the kernel, and so through the host's firewall.
use crate::text::one_line;
use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

/// Time for all answers, and after which what is missing is asked again.
const PATIENCE: Duration = Duration::from_secs(1);
const REPEAT: Duration = Duration::from_millis(400);
/// Maximum addresses to ask for.
const MAX_ADDRESSES: usize = 256;
/// Maximum length of a name, in bytes, and jumps in one (RFC 1035, sections 2.3.4 and 4.1.4).
const MAX_NAME: usize = 255;
const MAX_JUMPS: usize = 16;
/// The type PTR, and the class IN.
const PTR: u16 = 12;
const IN: u16 = 1;

/// The means to look up names.
#[derive(Debug)]
pub(crate) struct ReverseNames {
    hosts: HashMap<IpAddr, String>,
    socket: Option<UdpSocket>,
}

impl ReverseNames {
    /// Opens what looking up takes; `None` where this host has neither a name server nor names of its own.
    pub(crate) fn open() -> Option<ReverseNames> {
        let hosts = hosts(&fs::read_to_string("/etc/hosts").unwrap_or_default());
        let servers = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let socket = name_server(&servers).and_then(|server| {
            let any: IpAddr =
                if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0)).ok()?;
            socket
                .connect(server)
                .and_then(|()| socket.set_read_timeout(Some(Duration::from_millis(50))))
                .ok()?;
            Some(socket)
        });
        (socket.is_some() || !hosts.is_empty()).then_some(ReverseNames { hosts, socket })
    }

    /// Returns the names of these addresses, as far as they have any.
    pub(crate) fn look_up(&mut self, addresses: impl Iterator<Item = IpAddr>) -> HashMap<IpAddr, String> {
        let mut names = HashMap::new();
        let mut asked: Vec<IpAddr> = Vec::new();
        for address in addresses.take(MAX_ADDRESSES) {
            match self.hosts.get(&address) {
                Some(name) => drop(names.insert(address, name.clone())),
                None if asked.contains(&address) => {}
                None => asked.push(address),
            }
        }
        let Some(socket) = &self.socket else { return names };
        let base = getrandom::u64().unwrap_or_default() as u16;
        let (start, mut repeat) = (Instant::now(), Duration::ZERO);
        let mut open = asked.len();
        let mut buffer = [0; 1500];
        while open > 0 && start.elapsed() < PATIENCE {
            if start.elapsed() >= repeat {
                repeat += REPEAT;
                for (number, address) in
                    (0..).zip(&asked).filter(|(_, address)| !names.contains_key(*address))
                {
                    // A lost question is asked again.
                    let _ = socket.send(&question(base.wrapping_add(number), *address));
                }
            }
            let Ok(length) = socket.recv(&mut buffer) else { continue };
            let Some((id, name)) = answer(buffer.get(..length).unwrap_or_default()) else { continue };
            let Some(address) = asked.get(usize::from(id.wrapping_sub(base))) else { continue };
            if !names.contains_key(address) {
                open -= 1;
                names.insert(*address, name);
            }
        }
        names.retain(|_, name| !name.is_empty());
        names
    }
}

/// Returns the addresses of hosts(5) with their first names.
fn hosts(text: &str) -> HashMap<IpAddr, String> {
    let lines = text.lines().filter_map(|line| line.split('#').next());
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, one_line(words.next()?)))
        })
        .collect()
}

/// Returns the first name server of resolv.conf(5).
fn name_server(text: &str) -> Option<SocketAddr> {
    let servers = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    servers.filter_map(|server| server.trim().parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, 53)).next()
}

/// Returns the question for an address's name.
fn question(id: u16, address: IpAddr) -> Vec<u8> {
    let labels: Vec<String> = match address {
        IpAddr::V4(v4) => v4.octets().iter().rev().map(u8::to_string).chain(["in-addr".into()]).collect(),
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}")).chain(["ip6".into()]).collect()
        }
    };
    // Recursion desired; one question.
    let mut message = [id.to_be_bytes(), [1, 0], [0, 1], [0, 0], [0, 0], [0, 0]].concat();
    for label in labels.iter().map(String::as_str).chain(["arpa"]) {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend([PTR.to_be_bytes(), IN.to_be_bytes()].concat());
    message
}

/// Returns the number of the question that a message answers, and the name; an empty one where there is none.
fn answer(message: &[u8]) -> Option<(u16, String)> {
    let half = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let (id, flags, questions, answers) = (half(0)?, half(2)?, half(4)?, half(6)?);
    if flags & 0x8000 == 0 {
        return None;
    }
    let mut at = 12;
    for _ in 0..questions.min(1) {
        at = name(message, at)?.1 + 4;
    }
    for _ in 0..answers.min(16) {
        let data = name(message, at)?.1 + 10;
        let (kind, length) = (half(data - 10)?, usize::from(half(data - 2)?));
        if kind == PTR {
            return Some((id, one_line(&name(message, data)?.0)));
        }
        at = data + length;
    }
    Some((id, String::new()))
}

/// Reads a name at this place. Returns it with the place behind it.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut text, mut behind, mut jumps) = (String::new(), None, 0);
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some((text, behind.unwrap_or(at + 1))),
            high if high >= 0xc0 => {
                jumps += 1;
                behind = behind.or(Some(at + 2));
                at = (high & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                if jumps > MAX_JUMPS {
                    return None;
                }
            }
            length => {
                let label = message.get(at + 1..at + 1 + length)?;
                if text.len() + length >= MAX_NAME {
                    return None;
                }
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&String::from_utf8_lossy(label));
                at += 1 + length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_question_names_the_address_backwards() {
        let v4 = question(7, "192.0.2.1".parse().expect("an address"));
        assert_eq!(name(&v4, 12), Some(("1.2.0.192.in-addr.arpa".to_owned(), v4.len() - 4)));
        let v6 = question(7, "2001:db8::1".parse().expect("an address"));
        let (text, _) = name(&v6, 12).expect("a name");
        assert!(text.starts_with("1.0.0.0.") && text.ends_with(".8.b.d.0.1.0.0.2.ip6.arpa"), "{text}");
    }

    #[test]
    fn an_answer_has_the_name() {
        let mut message = question(7, "192.0.2.1".parse().expect("an address"));
        message[2] = 0x81;
        message[7] = 1;
        // The question's name, PTR, IN, a TTL, and a name that ends as the question's does.
        let arpa = 12 + 2 + 2 + 2 + 4 + 8;
        let data = [&[2, b'r', b'\x1b', 0xc0, arpa as u8][..]].concat();
        message.extend([0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 9, 0, data.len() as u8]);
        message.extend(data);
        assert_eq!(answer(&message), Some((7, "r\u{fffd}.arpa".to_owned())));
        message[7] = 0;
        assert_eq!(answer(&message), Some((7, String::new())));
    }

    #[test]
    fn hosts_and_name_servers_are_read() {
        let own = hosts("# names\n192.0.2.1 router.test r # the first\nfd00::1\tr6\nwrong x\n");
        assert_eq!(own.len(), 2);
        assert_eq!(own.get(&IpAddr::from([192, 0, 2, 1])).map(String::as_str), Some("router.test"));
        assert_eq!(name_server("search x\nnameserver 192.0.2.53\n"), Some(([192, 0, 2, 53], 53).into()));
    }

    proptest! {
        #[test]
        fn hostile_answers_do_not_panic(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&message);
        }
    }
}
