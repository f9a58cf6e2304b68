//! The model of bpf/flow.h, netkat's matcher in Rust, on whole frames.

use netkat::kernel::{
    FlowFilter,
    matcher::{self, Addressee, Frame},
};
use std::net::IpAddr;

pub use netkat::kernel::matcher::{KnownFlows as Table, Verdict};

/// Takes a frame's link header apart. Test runs stand for frames that arrive on lo, whose link address is zero.
fn split<'a>(filter: &FlowFilter, frame: &'a [u8]) -> Option<Frame<'a>> {
    let (header, network) = frame.split_first_chunk::<14>()?;
    let to = match filter.assumed_mac.unwrap_or_default().0 {
        own if header.starts_with(&own) => Addressee::Us,
        _ if header[0] & 1 != 0 => Addressee::Group,
        _ => Addressee::Others,
    };
    Some(Frame { to, ethertype: u16::from_be_bytes([header[12], header[13]]), network })
}

/// Returns the verdict on an arriving frame.
pub fn arriving(filter: &FlowFilter, table: &Table, frame: &[u8]) -> Verdict {
    split(filter, frame).map_or(Verdict::Foreign, |frame| matcher::arriving(filter, table, &frame))
}

/// Returns whether a departing frame is an IPv4 packet of the flow.
pub fn departing(filter: &FlowFilter, frame: &[u8]) -> bool {
    split(filter, frame).is_some_and(|frame| matcher::departing(filter, &frame))
}

/// Returns whether the loopback program gives a departing frame a route. Frames to groups keep theirs.
#[allow(dead_code, reason = "the fuzzer calls departing() alone")]
pub fn redirected(filter: &FlowFilter, frame: &[u8]) -> bool {
    let group = |to: IpAddr| to.is_multicast() || to == IpAddr::from([127, 255, 255, 255]);
    let destination = frame.get(30..34).and_then(<[u8]>::first_chunk::<4>);
    departing(filter, frame) && !destination.is_some_and(|to| group(IpAddr::from(*to)))
}
