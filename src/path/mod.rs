//! The path beyond this host: what routers' ICMP errors say of a flow's packets, the hops of a trace, and the
//! search of the path's MTU. No I/O.
//!
//! A probe is a packet of the flow with a hop limit or a size of its own. [`Headers`] reads it as it was sent, and
//! as an error quotes it; [`changes`] tells what happened to it on the way. [`Trace`] collects the answers and
//! decides what became of the flow; [`MtuSearch`] says which size to try next. [`Tally`]
//! sums up the pings of a target.
mod extensions;
mod headers;
mod mtu;
mod ping;
mod quote;
mod round_trips;
mod trace;

pub(crate) use extensions::Label;
pub(crate) use headers::{Change, Headers, changes, in_the_name_of};
pub(crate) use mtu::{MtuFinding, MtuSearch, Step, TRIES, TooBig};
pub(crate) use ping::{Pinged, Tally};
pub(crate) use quote::IcmpQuote;
pub(crate) use round_trips::{Bucket, Distribution, RoundTrips};
pub(crate) use trace::{End, Fate, Hop, Reached, Reply, ReplyKind, Trace, part_at};

/// Reads a packet as the answer of a router, and its quote as a packet of ours. For fuzzing.
pub fn read(packet: &[u8], sent: &[u8]) -> usize {
    let Some(quote) = IcmpQuote::parse(packet) else { return 0 };
    let sent = Headers::read(sent).map_or(0, |sent| changes(&sent, &quote.quoted, true).len());
    sent + quote.labels.len()
}
