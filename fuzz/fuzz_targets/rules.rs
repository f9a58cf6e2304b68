//! Parses any bytes as netfilter's rules: as a legacy table of iptables, and as answers of nf_tables
//! with the chains, sets and elements that a walk reads. Walks a packet through both.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netkat::{
    host::{
        netlink::read,
        nfnetlink::Message,
        rules::{
            Budget, Family, LegacyTable, Packet,
            nftables::{self, Chain, Element, Rule, Ruleset, Set, Table},
            xtables,
        },
    },
    net::Protocol,
};
use std::{io, rc::Rc};

/// A source that gives every chain all rules of the input, and every set all elements.
struct Fed<'a>(&'a [u8]);

impl Fed<'_> {
    fn each(&self, mut each: impl FnMut(u8, &[u8])) {
        // Parses messages up to a truncation or the end.
        let _ = read(self.0, 0, |message: Message| each(message.family, &message.attributes));
        each(nftables::IPV4, self.0);
    }
}

impl Ruleset for Fed<'_> {
    fn rules(&mut self, _: &Table, _: &[u8]) -> io::Result<Rc<[Rule]>> {
        let mut rules = Vec::new();
        self.each(|family, attributes| rules.push(Rule::parse(family, attributes)));
        Ok(rules.into())
    }

    fn set(&mut self, _: &Table, _: &[u8]) -> io::Result<Option<Set>> {
        let mut sets = Vec::new();
        self.each(|_, attributes| sets.extend(Set::parse(attributes)));
        Ok(sets.pop().map(|(_, set)| set))
    }

    fn find(&mut self, table: &Table, name: &[u8], _: &Set, key: &[u8]) -> io::Result<Rc<[Element]>> {
        let all = self.elements(table, name)?;
        Ok(all.iter().filter(|element| element.key == key).cloned().collect())
    }

    fn elements(&mut self, _: &Table, _: &[u8]) -> io::Result<Rc<[Element]>> {
        let mut elements = Vec::new();
        self.each(|_, attributes| elements.extend(Element::parse_all(attributes)));
        Ok(elements.into())
    }
}

fuzz_target!(|input: &[u8]| {
    let [choice, input @ ..] = input else { return };
    let v6 = choice & 1 != 0;
    let at = if v6 { "[2001:db8::1]:80" } else { "192.0.2.1:80" };
    let protocol = if choice & 2 != 0 { Protocol::Udp } else { Protocol::Tcp };
    let interfaces = [(2, "eth0".to_owned()), (3, "eth1".to_owned())];
    let Ok(destination) = at.parse() else { return };
    let packet = Packet { protocol, destination, interfaces: &interfaces };

    let family = if v6 { Family::V6 } else { Family::V4 };
    let table = LegacyTable::new(family, input.to_vec(), 0);
    let legacy = xtables::walk::translation(&table, &packet, &mut Budget::of(10_000));

    let base = Chain {
        table: Table { family: nftables::INET, name: b"t".to_vec() },
        name: b"pre".to_vec(),
        hook: Some(0),
        kind: b"nat".to_vec(),
    };
    let mut chains = vec![base];
    let mut fed = Fed(input);
    fed.each(|family, attributes| chains.extend(Chain::parse(family, attributes)));
    chains.truncate(4);
    let native = nftables::translation(&mut fed, &chains, &packet, &mut Budget::of(200));
    for rule in [legacy, native.ok().flatten()].into_iter().flatten() {
        let words = rule.to_string();
        assert!(!words.contains(char::is_control) && words.chars().count() < 600, "{words:?}");
    }
});
