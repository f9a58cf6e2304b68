//! The hops of a flow: the answers to its probes, and what they mean together.
#[cfg(test)]
mod tests;

use super::{Change, Label};
use crate::stack::icmp::Reason;
use std::{net::IpAddr, time::Duration};

/// TTLs that hosts begin with (RFC 1700's successor at IANA recommends 64; Windows 128, many routers 255).
const INITIAL_TTLS: [u8; 4] = [32, 64, 128, 255];

/// An answer of the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    SynAck,
    Reset,
    /// An acknowledgment of data that the peer has already.
    Acknowledged,
    Datagram,
    /// The host's own ICMP error for a UDP port without a socket.
    PortUnreachable,
}

impl Reached {
    /// Returns the identifier, and the words for people.
    pub(crate) fn words(self) -> (&'static str, &'static str) {
        match self {
            Reached::SynAck => ("syn_ack", "SYN-ACK"),
            Reached::Reset => ("reset", "RST"),
            Reached::Acknowledged => ("acknowledged", "ACK"),
            Reached::Datagram => ("datagram", "datagram"),
            Reached::PortUnreachable => ("port_unreachable", "port unreachable"),
        }
    }
}

/// The kind of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyKind {
    /// The hop limit was exceeded at this hop.
    Exceeded,
    /// The next link carries only packets of this size, in bytes.
    TooBig(u32),
    /// A router or firewall refuses the packet.
    Rejected(Reason),
    Reached(Reached),
}

/// An answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub from: IpAddr,
    pub kind: ReplyKind,
    pub round_trip: Option<Duration>,
    /// TTL or hop limit with which the answer arrived.
    pub hop_limit: u8,
    /// Changes on the way, as the quoted header shows them.
    pub changes: Vec<Change>,
    pub labels: Vec<Label>,
}

impl Reply {
    fn is_reached(&self) -> bool {
        matches!(self.kind, ReplyKind::Reached(_))
    }
}

/// A hop: its probes in the order of sending, each with its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hop {
    pub probes: Vec<Option<Reply>>,
    /// Of these, the first that were SYNs.
    syns: usize,
}

impl Hop {
    pub(crate) fn replies(&self) -> impl DoubleEndedIterator<Item = &Reply> {
        self.probes.iter().flatten()
    }

    pub(crate) fn answered(&self) -> usize {
        self.replies().count()
    }

    /// Returns the addresses that answered, each once.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for reply in self.replies() {
            if !addresses.contains(&reply.from) {
                addresses.push(reply.from);
            }
        }
        addresses
    }

    fn exceeded(&self) -> Option<&Reply> {
        self.replies().find(|reply| reply.kind == ReplyKind::Exceeded)
    }
}

/// The meaning of the number of a hop's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Answers,
    /// No answer at all, though packets may pass.
    Silent,
    /// Fewer answers than from further hops, to which the packets passed this one: it limits its ICMP errors.
    LimitsIcmp,
    /// Fewer answers than probes, here and further on.
    Loses,
    /// Every answer is about a segment of the established connection, none about a SYN.
    OnlyEstablished,
}

/// The end of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The far end answered; `None` for a hop that no answer tells.
    Reached { by: Reached, hop: u8 },
    /// A reset in the peer's name, which arrives with the TTL of this hop's own errors.
    ResetBy { hop: u8, from: IpAddr },
    /// A router or firewall refuses the packets by an ICMP error.
    Rejected { hop: u8, from: IpAddr, reason: Reason },
    /// No answer comes from beyond this hop.
    DiesAfter { hop: u8, from: IpAddr },
    /// The last hop probed is a router still.
    TooFar { hops: u8 },
    /// No hop answers.
    NoAnswer,
}

/// The hops of one flow.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    target: IpAddr,
    /// The hops by distance; the first is the next hop.
    pub hops: Vec<Hop>,
    /// Answers of the far end that do not tell to which probe.
    unplaced: Vec<Reply>,
    /// The first SYN-ACK.
    syn_ack: Option<Reply>,
}

impl Trace {
    /// Returns a trace of at most `hops` hops.
    pub(crate) fn new(target: IpAddr, hops: u8) -> Trace {
        Trace { target, hops: vec![Hop::default(); hops.into()], unplaced: Vec::new(), syn_ack: None }
    }

    /// Notes a probe with this hop limit, which may be a SYN. Returns its place among those of the hop.
    pub(crate) fn sent(&mut self, hop_limit: u8, syn: bool) -> usize {
        let Some(hop) = self.hop_mut(hop_limit) else { return 0 };
        hop.syns += usize::from(syn);
        hop.probes.push(None);
        hop.probes.len() - 1
    }

    /// Notes the answer to a probe; the first one counts.
    pub(crate) fn answered(&mut self, hop_limit: u8, place: usize, reply: Reply) {
        self.note_syn_ack(&reply);
        let probe = self.hop_mut(hop_limit).and_then(|hop| hop.probes.get_mut(place));
        if let Some(probe) = probe.filter(|probe| probe.is_none()) {
            *probe = Some(reply);
        }
    }

    /// Notes an answer of the far end to any of the probes.
    pub(crate) fn reached(&mut self, reply: Reply) {
        self.note_syn_ack(&reply);
        self.unplaced.push(reply);
    }

    fn note_syn_ack(&mut self, reply: &Reply) {
        if reply.kind == ReplyKind::Reached(Reached::SynAck) {
            self.syn_ack.get_or_insert_with(|| reply.clone());
        }
    }

    fn hop_mut(&mut self, hop_limit: u8) -> Option<&mut Hop> {
        self.hops.get_mut(usize::from(hop_limit).checked_sub(1)?)
    }

    /// Returns the hops with their distance.
    fn numbered(&self) -> impl DoubleEndedIterator<Item = (u8, &Hop)> {
        (1..=u8::MAX).zip(&self.hops).collect::<Vec<_>>().into_iter()
    }

    fn last_exceeded(&self) -> Option<(u8, &Reply)> {
        self.numbered().rev().find_map(|(number, hop)| Some((number, hop.exceeded()?)))
    }

    /// Returns the distance of the far end: the least hop limit that it answered; else, if it answered at all, that behind
    /// the last router.
    pub(crate) fn distance(&self) -> Option<u8> {
        let told = self.numbered().find(|(_, hop)| hop.replies().any(Reply::is_reached));
        let behind = || self.last_exceeded().map_or(1, |(number, _)| number.saturating_add(1));
        told.map(|(number, _)| number).or_else(|| (!self.unplaced.is_empty()).then(behind))
    }

    /// Returns the number of the hop, if any, from which on nothing else answers: that of the far end, of the router that
    /// rejects, or of the last one that answers.
    pub(crate) fn last(&self) -> Option<u8> {
        let answering =
            || self.numbered().rev().find(|(_, hop)| hop.answered() > 0).map(|(number, _)| number);
        let rejecting = || match self.end() {
            End::Rejected { hop, .. } => Some(hop),
            _ => None,
        };
        self.distance().or_else(rejecting).or_else(answering)
    }

    /// Gives an answer that does not tell its probe to the first one of the far end's hop, and drops what was sent
    /// further. Call it when no more answers are wanted.
    pub(crate) fn conclude(&mut self) {
        let Some(distance) = self.distance() else { return };
        self.hops.truncate(distance.into());
        for reply in std::mem::take(&mut self.unplaced) {
            let open =
                self.hop_mut(distance).and_then(|hop| hop.probes.iter_mut().find(|probe| probe.is_none()));
            match open {
                Some(probe) => *probe = Some(reply),
                None => break,
            }
        }
    }

    /// Returns the first answer of the far end, or the SYN-ACK, if one came.
    pub(crate) fn first_reached(&self) -> Option<(Reached, &Reply)> {
        let placed = self.hops.iter().flat_map(Hop::replies);
        let mut answers = placed.chain(&self.unplaced).filter_map(|reply| match reply.kind {
            ReplyKind::Reached(by) => Some((by, reply)),
            _ => None,
        });
        // A SYN-ACK to a probe that went further than needed counts.
        let syn_ack = self.syn_ack.as_ref().map(|reply| (Reached::SynAck, reply));
        syn_ack.or_else(|| answers.next())
    }

    /// Returns what the number of a hop's answers means, where `number` counts from 1.
    pub(crate) fn fate(&self, number: u8) -> Fate {
        let share = |hop: &Hop| (hop.answered(), hop.probes.len());
        let Some(hop) = self.hops.get(usize::from(number).saturating_sub(1)) else { return Fate::Silent };
        let (answered, sent) = share(hop);
        if answered == 0 {
            return Fate::Silent;
        }
        if answered == sent {
            return Fate::Answers;
        }
        if hop.syns > 0
            && answered == sent - hop.syns
            && hop.probes.iter().take(hop.syns).all(Option::is_none)
        {
            return Fate::OnlyEstablished;
        }
        let beyond = self.distance().map_or(self.hops.len(), usize::from);
        let more = |(theirs, of): (usize, usize)| theirs * sent > answered * of;
        // The far end of UDP answers by ICMP, too, and lies behind the routers that the packets have passed.
        let of_host = hop.replies().any(|reply| reply.kind == ReplyKind::Reached(Reached::PortUnreachable));
        let further = self.hops.iter().take(beyond).skip(number.into()).map(share).any(more);
        match further || of_host && self.hops.iter().take(usize::from(number) - 1).map(share).any(more) {
            true => Fate::LimitsIcmp,
            false => Fate::Loses,
        }
    }

    /// Decides what became of the flow.
    pub(crate) fn end(&self) -> End {
        if let (Some((by, reply)), Some(hop)) = (self.first_reached(), self.distance()) {
            return match self.last_exceeded() {
                Some((last, router))
                    if by == Reached::Reset
                        && last + 1 == hop
                        && router.from != self.target
                        && steps(router.hop_limit) == steps(reply.hop_limit) =>
                {
                    End::ResetBy { hop: last, from: router.from }
                }
                _ => End::Reached { by, hop },
            };
        }
        let rejection = self.numbered().find_map(|(number, hop)| {
            hop.replies().find_map(|reply| match reply.kind {
                ReplyKind::Rejected(reason) => Some((number, reply.from, reason)),
                _ => None,
            })
        });
        if let Some((number, from, reason)) = rejection {
            // A router rejects what it would forward, and so the probe that it does not count the last hop of.
            let own = self.numbered().find(|(_, hop)| hop.exceeded().is_some_and(|reply| reply.from == from));
            return End::Rejected { hop: own.map_or(number, |(own, _)| own), from, reason };
        }
        match self.last_exceeded() {
            Some((hop, _)) if usize::from(hop) == self.hops.len() => End::TooFar { hops: hop },
            Some((hop, reply)) => End::DiesAfter { hop, from: reply.from },
            None => End::NoAnswer,
        }
    }
}

/// Returns the routers that a packet has passed, if it began with one of the usual TTLs.
fn steps(hop_limit: u8) -> Option<u8> {
    INITIAL_TTLS.into_iter().find(|initial| *initial >= hop_limit).map(|initial| initial - hop_limit)
}

/// Returns the first hop, counted from 1, at which two of the paths have different addresses.
pub(crate) fn part_at(paths: &[&Trace]) -> Option<u8> {
    let longest = paths.iter().map(|path| path.hops.len()).max()?;
    (0..longest).zip(1..=u8::MAX).find_map(|(at, number)| {
        let mut known = paths.iter().filter_map(|path| path.hops.get(at)?.addresses().first().copied());
        let first = known.next()?;
        known.any(|other| other != first).then_some(number)
    })
}
