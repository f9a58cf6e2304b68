//! The first sequence numbers of conversations (tcpdump's print-tcp.c, tcp_print).
use crate::sniffer::decode::{Ip, Tcp};
use std::{collections::HashMap, net::IpAddr};

/// Conversations to remember. Beyond that the formatter forgets all of them, and each begins again.
const LIMIT: usize = 65_536;

/// The numbers to subtract from a segment's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    pub sequence: u32,
    pub acknowledgement: u32,
    /// For the blocks of a SACK option.
    pub sack: u32,
}

type End = (IpAddr, u16);

/// The first sequence numbers of both ends, by the ends in their order.
#[derive(Default)]
pub(super) struct Conversations(HashMap<(End, End), (u32, u32)>);

impl Conversations {
    /// Returns the base of a segment with ACK. The first such segment of a conversation, and each SYN,
    /// shows its numbers as they are, and sets the base of the others.
    pub(super) fn base(&mut self, ip: &Ip, tcp: &Tcp) -> Base {
        let (source, destination) = ((ip.source, tcp.source), (ip.destination, tcp.destination));
        let reversed = source > destination;
        let key = if reversed { (destination, source) } else { (source, destination) };
        let known = self.0.get(&key).copied().filter(|_| tcp.flags & Tcp::SYN == 0);
        let before = tcp.acknowledgement.wrapping_sub(1);
        let (first, second) =
            known.unwrap_or(if reversed { (before, tcp.sequence) } else { (tcp.sequence, before) });
        if known.is_none() {
            if self.0.len() >= LIMIT {
                self.0.clear();
            }
            self.0.insert(key, (first, second));
        }
        let (own, other) = if reversed { (second, first) } else { (first, second) };
        match known {
            Some(_) => Base { sequence: own, acknowledgement: other, sack: other },
            None => Base { sack: other, ..Base::default() },
        }
    }
}
