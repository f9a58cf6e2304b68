//! The expressions of the trace table's rules (linux/netfilter/nf_tables.h).
use super::{ALIVE, ARP, INET, layout};
use crate::{
    host::nfnetlink::{push, push_name, push_nested},
    net::ip_protocol,
};
use std::net::{IpAddr, SocketAddr};

/// NFT_REG_1, the only register that is used.
const REGISTER: u32 = 1;
/// enum nft_payload_bases.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// enum nft_meta_keys.
const PROTOCOL: u32 = 1;
const NFTRACE: u32 = 12;
const NFPROTO: u32 = 15;
const L4PROTO: u32 = 16;
/// Length of an ICMP error's header, behind which it quotes the packet.
const ICMP_HEADER: u32 = 8;

/// A list of expressions, as NFTA_RULE_EXPRESSIONS holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Expressions(Vec<u8>);

impl Expressions {
    /// Returns the conditions of the rules for a watched end: its packets, those to it, and ICMP errors
    /// that quote either.
    pub(crate) fn watching(family: u8, end: SocketAddr) -> [Expressions; 4] {
        let (source, destination, header, icmp) = layout(end.ip());
        let address = octets(end.ip());
        let port = end.port().to_be_bytes();
        let own = |port_offset, address_offset| {
            let mut list = Expressions::default();
            list.compare_payload(TRANSPORT, port_offset, &port);
            list.compare_meta(L4PROTO, &[ip_protocol::TCP]);
            list.compare_family(family, end.ip());
            list.compare_payload(NETWORK, address_offset, &address);
            list
        };
        let quoted = |port_offset, address_offset| {
            let mut list = Expressions::default();
            list.compare_meta(L4PROTO, &[icmp]);
            list.compare_payload(TRANSPORT, ICMP_HEADER + header + port_offset, &port);
            list.compare_payload(TRANSPORT, ICMP_HEADER + address_offset, &address);
            list
        };
        [own(0, source), own(2, destination), quoted(0, source), quoted(2, destination)]
    }

    /// Returns the conditions of the rules for the questions to a neighbour and its answers: ARP from or for it
    /// (RFC 826), neighbour solicitations and advertisements that name it (RFC 4861, sections 4.3 and 4.4).
    pub(crate) fn watching_neighbour(family: u8, neighbour: IpAddr) -> Vec<Expressions> {
        let address = octets(neighbour);
        match neighbour {
            IpAddr::V4(_) if family == ARP => [14, 24]
                .into_iter()
                .map(|offset| {
                    let mut list = Expressions::default();
                    list.compare_payload(NETWORK, offset, &address);
                    list
                })
                .collect(),
            IpAddr::V6(_) if family == INET => [135, 136]
                .into_iter()
                .map(|kind| {
                    let mut list = Expressions::default();
                    list.compare_meta(L4PROTO, &[ip_protocol::ICMPV6]);
                    list.compare_payload(TRANSPORT, 0, &[kind]);
                    list.compare_payload(TRANSPORT, ICMP_HEADER, &address);
                    list
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Adds the condition that the set holds the port.
    pub(crate) fn while_alive(mut self, port: u16) -> Expressions {
        self.immediate(&port.to_be_bytes());
        let mut lookup = Vec::new();
        push_name(&mut lookup, 1, ALIVE);
        push(&mut lookup, 2, &REGISTER.to_be_bytes());
        self.add(b"lookup", &lookup);
        self
    }

    /// Adds the mark for tracing, and returns the list.
    pub(crate) fn mark(mut self) -> Vec<u8> {
        self.immediate(&1_u32.to_ne_bytes());
        self.numbers(b"meta", &[(2, NFTRACE), (3, REGISTER)]);
        self.0
    }

    fn add(&mut self, name: &[u8], data: &[u8]) {
        let mut element = Vec::new();
        push_name(&mut element, 1, name);
        push_nested(&mut element, 2, data);
        push_nested(&mut self.0, 1, &element);
    }

    fn numbers(&mut self, name: &[u8], numbers: &[(u16, u32)]) {
        let mut data = Vec::new();
        for (kind, number) in numbers {
            push(&mut data, *kind, &number.to_be_bytes());
        }
        self.add(name, &data);
    }

    fn immediate(&mut self, value: &[u8]) {
        let (mut inner, mut data) = (Vec::new(), Vec::new());
        push(&mut inner, 1, value);
        push(&mut data, 1, &REGISTER.to_be_bytes());
        push_nested(&mut data, 2, &inner);
        self.add(b"immediate", &data);
    }

    fn compare(&mut self, value: &[u8]) {
        let (mut inner, mut data) = (Vec::new(), Vec::new());
        push(&mut inner, 1, value);
        push(&mut data, 1, &REGISTER.to_be_bytes());
        // NFT_CMP_EQ.
        push(&mut data, 2, &0_u32.to_be_bytes());
        push_nested(&mut data, 3, &inner);
        self.add(b"cmp", &data);
    }

    fn compare_payload(&mut self, base: u32, offset: u32, value: &[u8]) {
        let length = value.len() as u32;
        self.numbers(b"payload", &[(1, REGISTER), (2, base), (3, offset), (4, length)]);
        self.compare(value);
    }

    fn compare_meta(&mut self, key: u32, value: &[u8]) {
        self.numbers(b"meta", &[(2, key), (1, REGISTER)]);
        self.compare(value);
    }

    /// Compares the IP version, as a chain's family tells it.
    fn compare_family(&mut self, family: u8, address: IpAddr) {
        match (family, address.is_ipv4()) {
            (INET, v4) => {
                self.compare_meta(NFPROTO, &[if v4 { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 } as u8])
            }
            (_, true) => self.compare_meta(PROTOCOL, &(libc::ETH_P_IP as u16).to_be_bytes()),
            (_, false) => self.compare_meta(PROTOCOL, &(libc::ETH_P_IPV6 as u16).to_be_bytes()),
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
