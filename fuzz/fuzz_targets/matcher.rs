//! Compares the eBPF programs' matcher in C with its model in Rust on the same frames.
//!
//! The input chooses a filter and contains a frame. The filter's addresses and ports come from
//! offsets in the frame that the input names, so filter and frame match often. tests/bpf runs this
//! comparison in the kernel.
#![no_main]

#[path = "../../tests/bpf/model.rs"]
mod model;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use model::{Table, Verdict};
use netkat::{
    kernel::FlowFilter,
    net::{FiveTuple, MacAddr, Protocol},
};

unsafe extern "C" {
    fn matcher_flow(
        protocol: u8,
        local_port: u16,
        remote_port: u16,
        remote_family: u8,
        remote: *const u8,
        local4: *const u8,
        count4: u32,
        local6: *const u8,
        count6: u32,
        loopback_net: u8,
        neighbours: u8,
        assumed: *const u8,
    );
    fn matcher_groups(group4: *const u8, count4: u32, group6: *const u8, count6: u32, only: u8);
    fn matcher_table(unsure: i32);
    fn matcher_know(family: u8, remote: *const u8, local: *const u8, remote_port: u16);
    fn matcher_arriving(frame: *const u8, length: u32, tag: u16, control: i32) -> i32;
    fn matcher_departing(frame: *const u8, length: u32) -> i32;
}

/// Returns bytes of the frame at an offset from the input, with zeros beyond the frame's end.
fn piece<const N: usize>(u: &mut Unstructured<'_>, frame: &[u8]) -> Result<[u8; N]> {
    let at = usize::from(u.arbitrary::<u8>()?);
    Ok(frame.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N]))
}

fn address(u: &mut Unstructured<'_>, frame: &[u8]) -> Result<IpAddr> {
    Ok(match u.arbitrary()? {
        false => Ipv4Addr::from(piece::<4>(u, frame)?).into(),
        true => Ipv6Addr::from(piece::<16>(u, frame)?).into(),
    })
}

fn port(u: &mut Unstructured<'_>, frame: &[u8]) -> Result<u16> {
    Ok(u16::from_be_bytes(piece(u, frame)?).max(1))
}

/// Returns a host's link address: netkat refuses a group's.
fn link_address(u: &mut Unstructured<'_>, frame: &[u8]) -> Result<MacAddr> {
    let [first, a, b, c, d, e] = piece(u, frame)?;
    Ok(MacAddr([first & !1, a, b, c, d, e]))
}

fn protocol(u: &mut Unstructured<'_>) -> Result<Protocol> {
    Ok(if u.arbitrary()? { Protocol::Tcp } else { Protocol::Udp })
}

fn maybe<T>(
    u: &mut Unstructured<'_>,
    of: impl FnOnce(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Option<T>> {
    if u.arbitrary()? { of(u).map(Some) } else { Ok(None) }
}

fn number(family: Option<IpAddr>) -> (u8, [u8; 16]) {
    let mut bytes = [0; 16];
    match family {
        None => (0, bytes),
        Some(IpAddr::V4(v4)) => {
            bytes[..4].copy_from_slice(&v4.octets());
            (4, bytes)
        }
        Some(IpAddr::V6(v6)) => (6, v6.octets()),
    }
}

/// Returns the bytes of the IPv4 and of the IPv6 addresses.
fn by_family(addresses: &[IpAddr]) -> (Vec<u8>, Vec<u8>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.extend(address.octets()),
            IpAddr::V6(address) => v6.extend(address.octets()),
        }
    }
    (v4, v6)
}

fn flow(u: &mut Unstructured<'_>, frame: &[u8], tag: u16) -> Result<()> {
    let mut filter = FlowFilter {
        protocol: protocol(u)?,
        local_addresses: Vec::new(),
        groups: Vec::new(),
        groups_only: false,
        local_port: port(u, frame)?,
        remote_address: maybe(u, |u| address(u, frame))?,
        remote_port: maybe(u, |u| port(u, frame))?,
        loopback_network: u.arbitrary()?,
        neighbour_discovery: u.arbitrary()?,
        table: 0,
        assumed_mac: maybe(u, |u| link_address(u, frame))?,
    };
    for _ in 0..u.int_in_range(1..=4)? {
        let address = address(u, frame)?;
        // netkat never matches an unspecified address.
        if !address.is_unspecified() {
            filter.local_addresses.push(address);
        }
    }
    let (local4, local6) = by_family(&filter.local_addresses);
    let mut table = Table::default();
    if u.arbitrary().unwrap_or(false) {
        filter.table = 1;
        table.unsure = u.arbitrary().unwrap_or(false);
        let flow = FiveTuple {
            protocol: filter.protocol,
            local: SocketAddr::new(address(u, frame)?, filter.local_port),
            remote: SocketAddr::new(address(u, frame)?, port(u, frame)?),
        };
        if flow.local.is_ipv4() == flow.remote.is_ipv4() {
            table.flows.insert(flow);
        }
    }
    for _ in 0..u.int_in_range(0..=2)? {
        let group = address(u, frame)?;
        // A group is no address of a host.
        if !filter.local_addresses.contains(&group) {
            filter.groups.push(group);
        }
    }
    filter.groups_only = u.arbitrary()?;
    let (group4, group6) = by_family(&filter.groups);
    let (family, remote) = number(filter.remote_address);
    let length = frame.len() as u32;
    // SAFETY: each pointer is valid for the length beside it, and `frame` has an Ethernet header.
    let (capture, guard, departing, tagged) = unsafe {
        matcher_flow(
            filter.protocol.number(),
            filter.local_port,
            filter.remote_port.unwrap_or(0),
            family,
            remote.as_ptr(),
            local4.as_ptr(),
            local4.len() as u32 / 4,
            local6.as_ptr(),
            local6.len() as u32 / 16,
            filter.loopback_network.into(),
            filter.neighbour_discovery.into(),
            filter.assumed_mac.as_ref().map_or(std::ptr::null(), |mac| mac.0.as_ptr()),
        );
        matcher_groups(
            group4.as_ptr(),
            group4.len() as u32 / 4,
            group6.as_ptr(),
            group6.len() as u32 / 16,
            filter.groups_only.into(),
        );
        if filter.table > 0 {
            matcher_table(table.unsure.into());
        }
        for flow in &table.flows {
            let ((family, remote), (_, local)) = (number(Some(flow.remote.ip())), number(Some(flow.local.ip())));
            matcher_know(family, remote.as_ptr(), local.as_ptr(), flow.remote.port());
        }
        (
            matcher_arriving(frame.as_ptr(), length, 0, 1),
            matcher_arriving(frame.as_ptr(), length, 0, 0),
            matcher_departing(frame.as_ptr(), length) != 0,
            matcher_arriving(frame.as_ptr(), length, tag, 1),
        )
    };
    let expected = model::arriving(&filter, &table, frame);
    assert_eq!(capture, expected as i32, "capture: {expected:?} {filter:?} {frame:02x?}");
    // The guard drops the flow's packets and no others.
    assert_eq!(guard == Verdict::Flow as i32, expected == Verdict::Flow, "guard: {filter:?} {frame:02x?}");
    assert_eq!(departing, model::departing(&filter, frame), "departing: {filter:?} {frame:02x?}");
    let other_network = tag & 0x0fff != 0;
    assert_eq!(tagged, if other_network { Verdict::Foreign as i32 } else { capture }, "tag {tag:04x}");
    Ok(())
}

// The first 32 bytes are choices, the others the frame.
fuzz_target!(|input: &[u8]| {
    let Some((choices, frame)) = input.split_first_chunk::<32>() else { return };
    if frame.len() < 14 {
        return;
    }
    let mut u = Unstructured::new(choices);
    let tag = u.arbitrary().unwrap_or(0);
    let _ = flow(&mut u, frame, tag);
});
