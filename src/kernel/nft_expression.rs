//! The expressions of rules (linux/netfilter/nf_tables.h).
use super::owned_table::INET;
use crate::host::nfnetlink::{push, push_name, push_nested};
use std::net::IpAddr;

/// NFT_REG_VERDICT and NFT_REG_1.
const VERDICT: u32 = 0;
const REGISTER: u32 = 1;
/// NFT_REG32_00, the first of the registers of four bytes, which a concatenated key fills in order.
const FIRST_WORD: u32 = 8;
/// enum nft_payload_bases.
pub(super) const LINK: u32 = 0;
pub(super) const NETWORK: u32 = 1;
pub(super) const TRANSPORT: u32 = 2;
/// enum nft_meta_keys.
const PROTOCOL: u32 = 1;
const NFTRACE: u32 = 12;
const NFPROTO: u32 = 15;
pub(super) const L4PROTO: u32 = 16;
pub(super) const PACKET_TYPE: u32 = 19;
/// NFT_OBJECT_COUNTER.
pub(super) const COUNTER: u32 = 1;

/// A field of a packet: base, offset and length in bytes.
pub(super) type Field = (u32, u32, u32);

/// A list of expressions, as NFTA_RULE_EXPRESSIONS holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Expressions(Vec<u8>);

impl Expressions {
    /// Returns the mark for tracing.
    pub(super) fn trace() -> Expressions {
        let mut list = Expressions::default();
        list.immediate(&1_u32.to_ne_bytes());
        list.numbers(b"meta", &[(2, NFTRACE), (3, REGISTER)]);
        list
    }

    /// Returns the mark for tracing of at most `rate` packets a second, and of `burst` at once.
    pub(super) fn trace_some(rate: u64, burst: u32) -> Expressions {
        let mut data = Vec::new();
        push(&mut data, 1, &rate.to_be_bytes());
        // The unit, in seconds.
        push(&mut data, 2, &1_u64.to_be_bytes());
        push(&mut data, 3, &burst.to_be_bytes());
        let mut list = Expressions::default();
        list.add(b"limit", &data);
        list.0.extend(Expressions::trace().0);
        list
    }

    /// Returns a count in a named counter, and the drop.
    pub(super) fn drop_counted(counter: &[u8]) -> Expressions {
        let mut list = Expressions::default();
        let (mut reference, mut code, mut verdict, mut data) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        push(&mut reference, 1, &COUNTER.to_be_bytes());
        push_name(&mut reference, 2, counter);
        list.add(b"objref", &reference);
        // NFTA_VERDICT_CODE: NF_DROP.
        push(&mut code, 1, &0_u32.to_be_bytes());
        push_nested(&mut verdict, 2, &code);
        push(&mut data, 1, &VERDICT.to_be_bytes());
        push_nested(&mut data, 2, &verdict);
        list.add(b"immediate", &data);
        list
    }

    /// Returns the list and then another, as the attribute's bytes.
    pub(super) fn then(mut self, other: Expressions) -> Vec<u8> {
        self.0.extend(other.0);
        self.0
    }

    /// Adds the condition that the set holds a key.
    pub(super) fn within(mut self, set: &[u8], key: &[u8]) -> Expressions {
        self.immediate(key);
        self.look_up(set, REGISTER);
        self
    }

    /// Adds the condition that the set holds the fields, one behind the other, each filled up to whole words.
    pub(super) fn fields_within(&mut self, set: &[u8], fields: &[Field]) {
        let mut register = FIRST_WORD;
        for (base, offset, length) in fields {
            self.numbers(b"payload", &[(1, register), (2, *base), (3, *offset), (4, *length)]);
            register += length.div_ceil(4);
        }
        self.look_up(set, FIRST_WORD);
    }

    fn look_up(&mut self, set: &[u8], register: u32) {
        let mut lookup = Vec::new();
        push_name(&mut lookup, 1, set);
        push(&mut lookup, 2, &register.to_be_bytes());
        self.add(b"lookup", &lookup);
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

    pub(super) fn compare_payload(&mut self, base: u32, offset: u32, value: &[u8]) {
        let length = value.len() as u32;
        self.numbers(b"payload", &[(1, REGISTER), (2, base), (3, offset), (4, length)]);
        self.compare(value);
    }

    /// Compares the bits of a byte of the payload that `mask` names.
    pub(super) fn compare_bits(&mut self, base: u32, offset: u32, mask: u8, value: u8) {
        self.numbers(b"payload", &[(1, REGISTER), (2, base), (3, offset), (4, 1)]);
        let mut data = Vec::new();
        for (kind, number) in [(1, REGISTER), (2, REGISTER), (3, 1)] {
            push(&mut data, kind, &number.to_be_bytes());
        }
        for (kind, bits) in [(4, mask), (5, 0)] {
            let mut inner = Vec::new();
            push(&mut inner, 1, &[bits]);
            push_nested(&mut data, kind, &inner);
        }
        self.add(b"bitwise", &data);
        self.compare(&[value]);
    }

    pub(super) fn compare_meta(&mut self, key: u32, value: &[u8]) {
        self.numbers(b"meta", &[(2, key), (1, REGISTER)]);
        self.compare(value);
    }

    /// Compares the kernel's ethertype of a packet, in host byte order.
    pub(super) fn compare_ethertype(&mut self, ethertype: u16) {
        self.compare_meta(PROTOCOL, &ethertype.to_be_bytes());
    }

    /// Compares the IP version, as a chain's family tells it.
    pub(super) fn compare_family(&mut self, family: u8, address: IpAddr) {
        match (family, address.is_ipv4()) {
            (INET, v4) => {
                self.compare_meta(NFPROTO, &[if v4 { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 } as u8])
            }
            (_, true) => self.compare_ethertype(libc::ETH_P_IP as u16),
            (_, false) => self.compare_ethertype(libc::ETH_P_IPV6 as u16),
        }
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
