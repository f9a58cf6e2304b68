//! The answers to a path's probes: which probe each is for.
use super::tracer::{STAMPS, Sent, Tracer};
use crate::{
    link::Passed,
    path::{Headers, IcmpQuote, Reached, Reply, ReplyKind, changes, in_the_name_of},
    segment::{ACK, RST, SYN, SeqNumber},
    stack::icmp::Reason,
};
use std::{net::SocketAddr, time::Duration};

impl Tracer<'_> {
    /// Handles a packet that has passed.
    pub(super) fn note(&mut self, passed: &Passed) {
        let Passed { outgoing, time, bytes } = passed;
        if *outgoing {
            let headers = Headers::read(bytes);
            // Until the kernel stamps packets (net_enable_timestamp() in net/core/dev.c), they have the time of reading.
            let found = self.sent.iter_mut().find(|sent| Some(sent.headers) == headers);
            if let Some(sent) = found.filter(|sent| (sent.at..=sent.until).contains(time)) {
                sent.at = *time;
            }
        } else if let Some(quote) = IcmpQuote::parse(bytes) {
            self.note_error(*time, quote);
        } else if let Some(answer) = Headers::read(bytes) {
            let bare = |end: SocketAddr| SocketAddr::new(end.ip(), end.port());
            if (answer.source, answer.destination) == (bare(self.tuple.remote), bare(self.tuple.local)) {
                self.note_answer(*time, &answer);
            }
        }
    }

    fn note_error(&mut self, time: Duration, quote: IcmpQuote) {
        let Some(sent) = self.quoted(&quote.quoted) else { return };
        let remote = self.tuple.remote.ip();
        let kind = match quote.reason {
            Reason::HopLimitExceeded => ReplyKind::Exceeded,
            Reason::PacketTooBig(mtu) => ReplyKind::TooBig(mtu),
            Reason::PortUnreachable if quote.from == remote && self.syn.is_none() => {
                ReplyKind::Reached(Reached::PortUnreachable)
            }
            reason => ReplyKind::Rejected(reason),
        };
        let mut changes = changes(&sent.headers, &quote.quoted, kind == ReplyKind::Exceeded);
        if kind == ReplyKind::Exceeded && quote.from == remote {
            changes.push(in_the_name_of(remote));
        }
        let reply = Reply {
            from: quote.from,
            kind,
            round_trip: time.checked_sub(sent.at),
            hop_limit: quote.hop_limit,
            changes,
            labels: quote.labels,
        };
        let (hop_limit, place) = (sent.hop_limit, sent.place);
        self.trace.answered(hop_limit, place, reply);
    }

    /// Returns the probe that an error quotes: by its identification, length or timestamp.
    fn quoted(&self, quoted: &Headers) -> Option<&Sent> {
        let ours = || self.sent.iter().filter(|sent| quoted.is_of(&sent.headers));
        let stamp = |headers: &Headers| headers.segment?.options.timestamps.map(|stamps| stamps.value);
        let len = quoted.payload_len().filter(|len| *len > 0);
        ours()
            .find(|sent| quoted.id.is_some() && sent.headers.id == quoted.id)
            .or_else(|| ours().find(|sent| len.is_some() && sent.headers.payload_len() == len))
            .or_else(|| ours().find(|sent| stamp(quoted).is_some() && stamp(&sent.headers) == stamp(quoted)))
    }

    /// Notes an answer of the far end.
    fn note_answer(&mut self, time: Duration, answer: &Headers) {
        let by_number = |number: u32| usize::try_from(number).ok()?.checked_sub(1);
        let (by, number) = match (&self.syn, &answer.segment) {
            (None, _) => (Reached::Datagram, None),
            (Some(syn), Some(segment)) if segment.is(RST) => {
                let offset = segment.ack - 1 - syn.segment.seq.0;
                self.refused |= self.connected.is_none();
                (Reached::Reset, by_number(offset.0))
            }
            (Some(syn), Some(segment)) if segment.is(SYN) && segment.ack == syn.segment.seq + 1 => {
                self.peer_mss = segment.options.mss;
                let base =
                    syn.segment.options.timestamps.map_or(0, |stamps| stamps.value.wrapping_sub(STAMPS));
                let echo = segment.options.timestamps.map(|stamps| stamps.echo.wrapping_sub(base));
                (Reached::SynAck, echo.and_then(by_number))
            }
            (Some(syn), Some(segment)) if segment.is(ACK) && segment.seq_len() == 0 => {
                // The duplicate that a D-SACK reports (RFC 2883) is as long as the probe's number says. Without SACK, an
                // acknowledgment is for the only probe of the round that reaches the peer.
                let end: SeqNumber = syn.segment.seq + 1;
                let reported = segment.options.sack.iter().next().filter(|(_, right)| *right == end);
                let length = reported.and_then(|(left, _)| u32::try_from(end.distance_from(left)).ok());
                let distance = self.trace.distance();
                let last = || {
                    let is_last =
                        |sent: &Sent| sent.round + 1 == self.rounds && Some(sent.hop_limit) == distance;
                    self.sent.iter().position(is_last).filter(|_| self.rounds > 1)
                };
                let Some(number) = length.and_then(by_number).or_else(last) else { return };
                (Reached::Acknowledged, Some(number))
            }
            _ => return,
        };
        let sent = number.and_then(|at| self.sent.get(at));
        // A retransmitted SYN has no number; the first that could reach the peer is the probe behind the last router.
        let behind = || {
            let reach = self.trace.hops.iter().rposition(|hop| hop.answered() > 0).map_or(0, |at| at + 1);
            let current = |sent: &&Sent| sent.round + 1 == self.rounds && usize::from(sent.hop_limit) > reach;
            self.sent.iter().find(current)
        };
        let first = self.sent.first().map(|sent| sent.at);
        let round_trip = sent.or_else(behind).and_then(|sent| time.checked_sub(sent.at));
        if by == Reached::SynAck && self.connected.is_none() {
            self.connected = first.and_then(|first| time.checked_sub(first));
        }
        let (changes, labels) = (Vec::new(), Vec::new());
        let reply = Reply {
            from: self.tuple.remote.ip(),
            kind: ReplyKind::Reached(by),
            round_trip,
            hop_limit: answer.hop_limit,
            changes,
            labels,
        };
        match sent.map(|sent| (sent.hop_limit, sent.place)) {
            Some((hop_limit, place)) => self.trace.answered(hop_limit, place, reply),
            None => self.trace.reached(reply),
        }
    }
}
