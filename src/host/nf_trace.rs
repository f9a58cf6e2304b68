//! nf_tables' trace of packets: what each rule did with a packet that is marked for tracing, as
//! nft_trace_notify in net/netfilter/nf_tables_trace.c reports it.
//!
//! The kernel reports to every subscriber, for marks of all processes, and only to the network namespace
//! in which the chain ran.
use super::{
    netlink::{Netlink, NetlinkError},
    nfnetlink::{Attributes, Message},
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use std::os::fd::{AsFd, BorrowedFd};

/// NFNLGRP_NFTRACE (linux/netfilter/nfnetlink.h).
const GROUP: u32 = 9;
/// NFNL_SUBSYS_NFTABLES's NFT_MSG_TRACE.
const TRACE: u16 = 10 << 8 | 17;
/// Receive buffer, in bytes: some thousand events.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The kind of a trace event (enum nft_trace_types).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceKind {
    /// A base chain ended without a verdict of its rules.
    Policy,
    /// A chain ended, or returned.
    Return,
    /// A rule matched.
    Rule,
}

/// The verdict of a rule or a policy (enum nft_verdicts).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum TraceVerdict {
    Drop,
    Accept,
    Stolen,
    /// The packet waits for a program that has bound this queue.
    Queue(u16),
    Continue,
    Jump,
    Goto,
    Return,
}

impl TraceVerdict {
    /// Reads NFTA_VERDICT_CODE and the like.
    fn of(code: u32) -> Option<TraceVerdict> {
        Some(match code.cast_signed() {
            -1 | -2 => TraceVerdict::Continue,
            -3 => TraceVerdict::Jump,
            -4 => TraceVerdict::Goto,
            -5 => TraceVerdict::Return,
            ..0 => return None,
            // NF_VERDICT_MASK; above it are a queue's number, or an errno of NF_DROP_ERR.
            _ => match code & 0xff {
                0 => TraceVerdict::Drop,
                1 => TraceVerdict::Accept,
                2 => TraceVerdict::Stolen,
                3 => TraceVerdict::Queue((code >> 16) as u16),
                _ => return None,
            },
        })
    }

    /// Returns whether the packet goes no further through netfilter.
    pub(crate) fn ends_the_packet(self) -> bool {
        matches!(self, TraceVerdict::Drop | TraceVerdict::Stolen | TraceVerdict::Queue(_))
    }
}

/// An event of a trace: one chain's, or one rule's, verdict on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// NFPROTO_* of the table.
    pub family: u8,
    /// The table's name.
    pub table: Vec<u8>,
    /// The chain's name.
    pub chain: Vec<u8>,
    /// The rule's handle. Absent for a policy, and where a chain ends (Linux 6.12).
    pub handle: Option<u64>,
    /// The kind of event.
    pub kind: TraceKind,
    /// The rule's verdict, or the policy.
    pub verdict: Option<TraceVerdict>,
    /// The chain of a jump or goto.
    pub jump: Option<Vec<u8>>,
    /// A hash of the packet's address in memory: packets that follow each other may share it.
    pub id: u32,
    /// The beginning of the network header; only in the first event of each base chain.
    pub network_header: Vec<u8>,
    /// The beginning of the transport header, as for the network header.
    pub transport_header: Vec<u8>,
    /// Index of the input interface.
    pub input: Option<u32>,
    /// Index of the output interface.
    pub output: Option<u32>,
    /// The packet's mark, if it is not 0.
    pub mark: Option<u32>,
}

impl TraceEvent {
    /// Reads the attributes of an NFT_MSG_TRACE (enum nft_trace_attributes).
    pub fn parse(family: u8, attributes: &[u8]) -> Option<TraceEvent> {
        let attributes = Attributes(attributes);
        let kind = match attributes.number(4)? {
            1 => TraceKind::Policy,
            2 => TraceKind::Return,
            3 => TraceKind::Rule,
            _ => return None,
        };
        let verdict = attributes.nested(5);
        let bytes = |kind| attributes.find(kind).unwrap_or_default().to_vec();
        let handle = attributes.find(3).and_then(|bytes| bytes.first_chunk());
        Some(TraceEvent {
            family,
            table: attributes.name(1)?.to_vec(),
            chain: attributes.name(2)?.to_vec(),
            handle: handle.map(|bytes| u64::from_be_bytes(*bytes)),
            kind,
            verdict: verdict.number(1).or(attributes.number(16)).and_then(TraceVerdict::of),
            jump: verdict.name(2).map(<[u8]>::to_vec),
            id: attributes.number(6)?,
            network_header: bytes(8),
            transport_header: bytes(9),
            input: attributes.number(10),
            output: attributes.number(12),
            mark: attributes.number(14),
        })
    }

    /// Returns whether the packet ends here.
    pub(crate) fn ends_the_packet(&self) -> bool {
        self.verdict.is_some_and(TraceVerdict::ends_the_packet)
    }
}

/// A subscription to the traces of the calling thread's network namespace.
pub(crate) struct TraceMonitor {
    netlink: Netlink<Message>,
    /// The kernel dropped events, because the receive buffer was full.
    pub lost: bool,
    /// Events received.
    pub events: u64,
}

impl TraceMonitor {
    /// Subscribes. Traces from now on are received.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`], without CAP_NET_ADMIN among others.
    pub(crate) fn open() -> Result<TraceMonitor, NetlinkError> {
        let netlink = Netlink::of(NETLINK_NETFILTER)?;
        netlink.enlarge_receive_buffer(RECEIVE_BUFFER)?;
        netlink.join(GROUP)?;
        Ok(TraceMonitor { netlink, lost: false, events: 0 })
    }

    /// Returns the events that have arrived. Does not wait.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`] or [`NetlinkError::Malformed`].
    pub(crate) fn take(&mut self) -> Result<Vec<TraceEvent>, NetlinkError> {
        self.take_some(usize::MAX)
    }

    /// Returns events that have arrived, of at most so many datagrams: others may trace more than a caller can take.
    /// Does not wait.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`] or [`NetlinkError::Malformed`].
    pub(crate) fn take_some(&mut self, datagrams: usize) -> Result<Vec<TraceEvent>, NetlinkError> {
        let mut events = Vec::new();
        loop {
            match self.netlink.some_notifications(datagrams)? {
                Some(messages) => {
                    let traces = messages.iter().filter(|message| message.kind == TRACE);
                    events.extend(traces.filter_map(|m| TraceEvent::parse(m.family, &m.attributes)));
                    self.events += events.len() as u64;
                    return Ok(events);
                }
                None => self.lost = true,
            }
        }
    }
}

impl AsFd for TraceMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::nfnetlink::{push, push_name, push_nested};

    #[test]
    fn an_event_is_read() {
        let (mut attributes, mut verdict) = (Vec::new(), Vec::new());
        push_name(&mut attributes, 1, b"filter");
        push_name(&mut attributes, 2, b"OUTPUT");
        push(&mut attributes, 3, &7_u64.to_be_bytes());
        push(&mut attributes, 4, &3_u32.to_be_bytes());
        push(&mut verdict, 1, &(9_u32 << 16 | 3).to_be_bytes());
        push_nested(&mut attributes, 5, &verdict);
        push(&mut attributes, 6, &5_u32.to_be_bytes());
        let event = TraceEvent::parse(2, &attributes).expect("an event");
        assert_eq!((event.handle, event.verdict), (Some(7), Some(TraceVerdict::Queue(9))));
        assert!(event.ends_the_packet());
        assert_eq!(TraceEvent::parse(2, &attributes[..20]), None);
    }

    #[test]
    fn verdicts_have_the_kernels_numbers() {
        for (code, verdict) in [
            (0_i32, Some(TraceVerdict::Drop)),
            // NF_DROP_ERR(-ECONNREFUSED).
            ((111 << 16), Some(TraceVerdict::Drop)),
            (1, Some(TraceVerdict::Accept)),
            (-3, Some(TraceVerdict::Jump)),
            (-9, None),
        ] {
            assert_eq!(TraceVerdict::of(code.cast_unsigned()), verdict, "{code}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_events_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = TraceEvent::parse(2, &bytes);
        }
    }
}
