//! Parses any bytes as the kernel's answer on rtnetlink, with its interfaces, addresses, neighbours
//! and tc filters, on ctnetlink, with its connections, and nf_tables' traces. The first byte is the expected sequence
//! number.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netkat::{
    host::{
        conntrack,
        interface::{Address, Interface},
        neighbour::NeighbourEntry,
        netlink::read,
        nf_trace::TraceEvent,
        nfnetlink,
    },
    kernel::filter_names,
};

fuzz_target!(|input: &[u8]| {
    let [sequence, datagram @ ..] = input else { return };
    let mut messages = Vec::new();
    let _ = read(datagram, u32::from(*sequence), |message| messages.push(message));
    assert!(filter_names(2, messages.clone()).iter().all(|name| name.len() <= datagram.len().max(100)));
    for message in messages {
        if let Some(interface) = Interface::from_reply(message.clone()) {
            let _ = interface.framing();
        }
        if let Some(address) = Address::from_reply(message.clone()) {
            assert!(!address.usable() || !address.duplicate);
            let _ = address.on_link(address.ip);
        }
        if let Some(neighbour) = NeighbourEntry::from_reply(message) {
            let _ = neighbour.valid();
        }
    }
    let _ = read(datagram, u32::from(*sequence), |message: nfnetlink::Message| {
        let _ = TraceEvent::parse(message.family, &message.attributes);
        if let Some(entry) = conntrack::Connection::parse(&message.attributes) {
            assert!(!entry.to_string().is_empty());
        }
    });
});
