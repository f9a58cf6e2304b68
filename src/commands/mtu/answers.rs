//! The answers to packets of a size: which packet each is for.
use super::prober::{Outstanding, Prober, Sent};
use crate::{
    link::Passed,
    path::{Headers, IcmpQuote, TooBig},
    segment::{ACK, RST, SYN, SeqNumber},
    stack::icmp::Reason,
};
use std::{net::SocketAddr, time::Duration};

impl Prober<'_> {
    /// Handles a packet that has passed.
    pub(super) fn note(&mut self, passed: &Passed) {
        let Passed { outgoing, time, bytes } = passed;
        if let Some(quote) = IcmpQuote::parse(bytes).filter(|_| !outgoing) {
            return self.note_error(*time, &quote);
        }
        let Some(headers) = Headers::read(bytes) else { return };
        let bare = |end: SocketAddr| SocketAddr::new(end.ip(), end.port());
        let ends = (bare(self.tuple.local), bare(self.tuple.remote));
        let syn = headers.segment.filter(|segment| segment.is(SYN)).and_then(|segment| segment.options.mss);
        if *outgoing {
            if (headers.source, headers.destination) == ends {
                self.own_mss = self.own_mss.or(syn);
            }
        } else if (headers.destination, headers.source) == ends {
            self.peer_mss = self.peer_mss.or(syn);
            // A coalesced frame is no packet of the path.
            let size = u32::try_from(headers.total_len).unwrap_or(0);
            if size <= self.link {
                self.largest_received = self.largest_received.max(size);
            }
            self.note_answer(*time, &headers);
        }
    }

    fn note_error(&mut self, time: Duration, quote: &IcmpQuote) {
        let expired = quote.reason == Reason::HopLimitExceeded;
        let Some(sent) = self.sent.iter().find(|sent| {
            let (quoted, own) = (&quote.quoted, &sent.headers);
            // IPv6 has no identification, but quotes more.
            let same = match quoted.id {
                Some(id) => own.id == Some(id),
                None if expired => own.checksum == quoted.checksum,
                None => own.total_len == quoted.total_len,
            };
            quoted.is_of(own) && same && sent.hop_limit.is_some() == expired
        }) else {
            return;
        };
        let size = sent.headers.total_len as u32;
        match quote.reason {
            Reason::PacketTooBig(mtu) => {
                self.search.too_big(TooBig { from: quote.from, mtu, size });
                self.outstanding = None;
            }
            Reason::HopLimitExceeded => {
                let hop = sent.hop_limit.unwrap_or_default();
                if self.lost_after.is_none_or(|(last, _)| hop > last) {
                    self.lost_after = Some((hop, quote.from));
                }
            }
            Reason::PortUnreachable if quote.from == self.tuple.remote.ip() => {
                let at = sent.at;
                self.arrived(time, size, at);
            }
            _ => {}
        }
    }

    fn note_answer(&mut self, time: Duration, answer: &Headers) {
        let Some(Outstanding { size, .. }) = self.outstanding else { return };
        let reported = match answer.segment {
            None => None,
            Some(segment) if segment.is(RST) || !segment.is(ACK) || segment.seq_len() > 0 => return,
            Some(segment) => {
                let end: SeqNumber = segment.ack;
                let block = segment.options.sack.iter().next().filter(|(_, right)| *right == end);
                block.and_then(|(left, _)| u32::try_from(end.distance_from(left)).ok())
            }
        };
        let of = |sent: &&Sent| match reported {
            Some(length) => sent.headers.payload_len() == Some(length as usize),
            None => sent.headers.total_len == size as usize,
        };
        if answer.segment.is_some() && self.reports.is_none() {
            self.reports = Some(reported.is_some());
            self.outstanding = None;
            return;
        }
        if reported.is_none() && self.reports == Some(true) {
            return;
        }
        let found = self.sent.iter().rev().find(of).map(|sent| (sent.headers.total_len as u32, sent.at));
        if let Some((size, at)) = found {
            self.arrived(time, size, at);
        }
    }

    fn arrived(&mut self, time: Duration, size: u32, at: Duration) {
        self.search.arrived(size);
        self.round_trip = self.round_trip.max(time.checked_sub(at));
        self.outstanding = self.outstanding.filter(|outstanding| outstanding.size != size);
    }
}
