//! The path of a frame from the link into the stack: answers the stack's queries for the route back to a
//! source, and queues frames until a neighbour has told its link address.
use super::{
    Setup,
    reverse_path::{ReversePath, ReversePathFilter},
};
use crate::{
    host::{interface::Interface, monitor::Monitor},
    link::Received,
    stack::{FrameResult, InOrder, Stack, UnverifiedSource},
};
use std::{collections::HashMap, net::IpAddr, time::Duration};

/// Longest wait of a frame for the neighbour's answer. A SYN is retransmitted after a second.
const PATIENCE: Duration = Duration::from_secs(1);
/// Maximum queued frames; further ones are dropped.
const MAX_PARKED: usize = 64;
/// Maximum bytes of queued frames. The kernel queues as many for one neighbour
/// (net.ipv4.neigh.default.unres_qlen_bytes).
const MAX_PARKED_BYTES: usize = 256 << 10;

/// The host's interfaces, routes and neighbours, as far as the return path needs them.
pub(super) struct HostTables<'a> {
    /// Answers from the routing and neighbour tables.
    pub monitor: &'a mut Monitor,
    /// Our interfaces, by index.
    pub interfaces: &'a HashMap<u32, Interface>,
}

/// Hands frames to the stack.
pub(super) struct Ingress {
    filter: ReversePathFilter,
    parked: Vec<Parked>,
}

/// A frame that waits for the link address of its source's next hop.
struct Parked {
    /// The frame's metadata; its bytes are in `frame`.
    received: Received<'static>,
    frame: Vec<u8>,
    interface: u32,
    neighbour: IpAddr,
    until: Duration,
}

impl Ingress {
    /// Reads the host's settings. Call it before the sandbox closes the file system.
    pub(crate) fn new(setup: &Setup, port: u16) -> Ingress {
        Ingress { filter: ReversePathFilter::new(setup, port), parked: Vec::new() }
    }

    /// Hands a frame to the stack, and once more if the stack needed the route back first. Returns the data that
    /// the stack has left in the frame.
    pub(crate) fn hand_over(
        &mut self,
        now: Duration,
        received: Received<'_>,
        stack: &mut Stack,
        host: &mut HostTables<'_>,
    ) -> Option<InOrder> {
        let Received { frame, .. } = received;
        let first = Received { frame: &mut *frame, ..received };
        let unverified = match stack.ingress(now, first) {
            FrameResult::Unverified(unverified) => unverified,
            FrameResult::Data(data) => return Some(data),
            FrameResult::Done => return None,
        };
        match self.find(now, &unverified, stack, host) {
            ReversePath::Found(route) => stack.learn_return_route(unverified, Some(route)),
            ReversePath::None(reason) => {
                log::debug!(
                    "no answer to {} on interface {}: {reason}",
                    unverified.remote,
                    unverified.interface
                );
                stack.learn_return_route(unverified, None);
                return None;
            }
            ReversePath::Unresolved { local, from, neighbour } => {
                stack.solicit(now, local, &from, neighbour);
                let waiting: usize = self.parked.iter().map(|parked| parked.frame.len()).sum();
                if self.parked.len() < MAX_PARKED && waiting + frame.len() <= MAX_PARKED_BYTES {
                    let (interface, until) = (from.interface, now + PATIENCE);
                    let received = Received { frame: &mut [], ..received };
                    self.parked.push(Parked { received, frame: frame.to_vec(), interface, neighbour, until });
                }
                return None;
            }
        }
        match stack.ingress(now, Received { frame, ..received }) {
            FrameResult::Data(data) => Some(data),
            // The stack knows the route now and does not ask twice.
            FrameResult::Unverified(_) | FrameResult::Done => None,
        }
    }

    /// Hands on the queued frames whose neighbour has answered, and drops those that have waited too long.
    pub(crate) fn retry_parked(&mut self, now: Duration, stack: &mut Stack, host: &mut HostTables<'_>) {
        for mut parked in std::mem::take(&mut self.parked) {
            match stack.solicited(now, parked.interface, parked.neighbour) {
                _ if now >= parked.until => {}
                None => self.parked.push(parked),
                Some(_) => {
                    let received = Received { frame: &mut parked.frame, ..parked.received };
                    if let Some(data) = self.hand_over(now, received, stack, host) {
                        drop(stack.received_data(now, &data, &parked.frame));
                    }
                }
            }
        }
    }

    fn find(
        &self,
        now: Duration,
        unverified: &UnverifiedSource,
        stack: &Stack,
        host: &mut HostTables<'_>,
    ) -> ReversePath {
        let solicited = |interface, neighbour| stack.solicited(now, interface, neighbour);
        self.filter.find(unverified, host.monitor, host.interfaces, &solicited)
    }
}
