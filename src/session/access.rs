//! Access control (`--allow`, `--deny`): decides about each client before anything is answered.
use crate::{
    net::{
        count,
        zone::{ScopedIp, zone_of},
    },
    stack::{Admission, Gate},
};
use ipnet::IpNet;
use std::{
    cell::RefCell,
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Time in which a client that may not connect is named once.
const PERIOD: Duration = Duration::from_secs(10);
/// Maximum clients that are named in that time.
const NAMED: usize = 10;

/// A network, or a single host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub net: IpNet,
    /// The zone of a link-local network; `None` for all zones.
    pub zone: Option<u32>,
}

impl Network {
    fn contains(&self, address: &SocketAddr) -> bool {
        self.net.contains(&address.ip()) && self.zone.is_none_or(|zone| zone_of(address) == Some(zone))
    }
}

/// The hosts and networks that may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// Only these may connect; all may if the list is empty.
    pub allow: Vec<Network>,
    /// These may not connect, even if `allow` has them.
    pub deny: Vec<Network>,
    /// Answer hosts that may not connect with a reset instead of silence.
    pub reject: bool,
}

impl Access {
    /// Returns the gate that decides, and logs whom it keeps out.
    pub(crate) fn gate(self) -> Gate {
        let denials = RefCell::new(Denials::default());
        Box::new(move |address| {
            let admission = self.admit(address);
            if admission != Admission::Accept {
                let client = ScopedIp::new(address.ip(), zone_of(&address).unwrap_or_default());
                let words = denials.borrow_mut().note(Instant::now(), client);
                words.into_iter().for_each(|words| log::info!("{words}"));
            }
            admission
        })
    }

    /// Decides about a client by its address.
    pub(crate) fn admit(&self, address: SocketAddr) -> Admission {
        let within = |networks: &[Network]| networks.iter().any(|network| network.contains(&address));
        let allowed = self.allow.is_empty() || within(&self.allow);
        match (allowed && !within(&self.deny), self.reject) {
            (true, _) => Admission::Accept,
            (false, false) => Admission::Ignore,
            (false, true) => Admission::Refuse,
        }
    }
}

/// The clients that were kept out lately. A flood from many addresses fills neither the log nor memory.
#[derive(Debug, Default)]
struct Denials {
    since: Option<Instant>,
    named: HashSet<ScopedIp>,
    /// Attempts of clients that were not named.
    others: u64,
}

impl Denials {
    /// Notes an attempt. Returns the lines to log.
    fn note(&mut self, now: Instant, address: ScopedIp) -> Vec<String> {
        let mut lines = Vec::new();
        if self.since.is_none_or(|since| now.duration_since(since) >= PERIOD) {
            if self.others > 0 {
                lines.push(format!("{} of others that may not connect", count(self.others, "attempt")));
            }
            *self = Denials { since: Some(now), ..Denials::default() };
        }
        if self.named.len() < NAMED && self.named.insert(address) {
            lines.push(format!("{address} may not connect: refused by --allow or --deny"));
        } else if !self.named.contains(&address) {
            self.others += 1;
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::zone::scoped;

    #[test]
    fn a_denied_client_is_named_once_and_a_flood_is_counted() {
        let (mut denials, start) = (Denials::default(), Instant::now());
        let address = |last: u8| ScopedIp::new([192, 0, 2, last].into(), 0);
        let lines: usize =
            (0..3).flat_map(|_| 0..100).map(|last| denials.note(start, address(last)).len()).sum();
        assert_eq!(lines, NAMED);
        let later = denials.note(start + PERIOD, address(1));
        let expected = [
            "270 attempts of others that may not connect",
            "192.0.2.1 may not connect: refused by --allow or --deny",
        ];
        assert_eq!(later, expected);
    }

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| Network { net: text.parse().expect("a network"), zone: None }).collect()
    }

    fn admit(access: &Access, address: &str) -> Admission {
        access.admit(SocketAddr::new(address.parse().expect("an address"), 80))
    }

    #[test]
    fn a_zone_narrows_a_network() {
        let network = |zone| Network { net: "fe80::/10".parse().expect("a network"), zone };
        for (zone, here, there) in
            [(None, Admission::Accept, Admission::Accept), (Some(2), Admission::Accept, Admission::Ignore)]
        {
            let access = Access { allow: vec![network(zone)], ..Access::default() };
            for (interface, expected) in [(2, here), (3, there)] {
                let address = scoped("fe80::9".parse().expect("an address"), 80, interface);
                assert_eq!(access.admit(address), expected, "{zone:?} {interface}");
            }
        }
    }

    #[test]
    fn a_denied_host_is_refused_even_if_allowed() {
        let mut access = Access {
            allow: networks(&["10.0.0.0/8", "fd00::2/128"]),
            deny: networks(&["10.1.0.0/16"]),
            reject: false,
        };
        for (address, expected) in [
            ("10.0.0.1", Admission::Accept),
            ("10.1.2.3", Admission::Ignore),
            ("11.0.0.1", Admission::Ignore),
            ("fd00::2", Admission::Accept),
            ("fd00::3", Admission::Ignore),
        ] {
            assert_eq!(admit(&access, address), expected, "{address}");
        }
        access.reject = true;
        assert_eq!(admit(&access, "11.0.0.1"), Admission::Refuse);
    }

    #[test]
    fn without_allow_every_host_may_connect_that_is_not_denied() {
        assert_eq!(admit(&Access::default(), "192.0.2.1"), Admission::Accept);
        let access = Access { deny: networks(&["0.0.0.0/0"]), ..Access::default() };
        assert_eq!(admit(&access, "192.0.2.1"), Admission::Ignore);
        assert_eq!(admit(&access, "fd00::1"), Admission::Accept);
    }
}
