//! The answers to pings: which ping each is for.
use super::{
    in_flight::State,
    pinger::{MARK, Pinger, without_zone},
};
use crate::{
    link::Passed,
    net::{Protocol, ip_protocol},
    path::{Headers, IcmpQuote, Pinged, Reached},
    report::PingPath,
    segment::{ACK, RST, SYN},
    stack::icmp::Reason,
};
use std::time::Duration;

/// Digits of a key.
const DIGITS: usize = 8;

impl Pinger<'_> {
    /// Handles a packet that has passed.
    pub(super) fn take(&mut self, passed: &Passed) {
        let Passed { outgoing, time, bytes } = passed;
        if *outgoing {
            return self.note_departure(*time, bytes);
        }
        if let Some(quote) = IcmpQuote::parse(bytes) {
            return self.note_error(*time, &quote);
        }
        let Some(answer) = Headers::read(bytes) else { return };
        let Some(place) = self.places.get(&answer.source).copied() else { return };
        let Some(target) = self.targets.get(place) else { return };
        if answer.destination != without_zone(target.tuple.local) {
            return;
        }
        match (target.syn, answer.segment) {
            (Some(syn), Some(segment)) => {
                self.resets.extend(syn.reset(&segment));
                let reached = match (segment.is(RST), segment.is(SYN)) {
                    _ if !segment.is(ACK) => return,
                    (true, _) => Reached::Reset,
                    (false, true) => Reached::SynAck,
                    (false, false) => return self.repeat(place),
                };
                self.note_answer(*time, (segment.ack - 1).0, Pinged::Reached(reached));
            }
            (None, None) => {
                // An answer that does not repeat the key is for the last ping.
                let key = key_in(bytes).or(target.last);
                if let Some(key) = key {
                    self.note_answer(*time, key, Pinged::Reached(Reached::Datagram));
                }
            }
            _ => {}
        }
    }

    /// Sends the last ping of a target once more, since it met a half-open connection whose reset was lost: a peer
    /// acknowledges that one then (RFC 9293, section 3.10.7.4, fourth).
    fn repeat(&mut self, place: usize) {
        let Some(key) = self.targets.get(place).and_then(|target| target.last) else { return };
        if let Some(sent) =
            self.in_flight.get_mut(key).filter(|sent| sent.state == State::Waiting && !sent.again)
        {
            sent.again = true;
            self.again.push(key);
        }
    }

    /// Takes the kernel's time of a ping's departure.
    fn note_departure(&mut self, time: Duration, bytes: &[u8]) {
        let Some(headers) = Headers::read(bytes) else { return };
        // On lo, this host's answers depart, too.
        let target = self.places.get(&headers.destination).and_then(|place| self.targets.get(*place));
        if target.is_none_or(|target| headers.source != without_zone(target.tuple.local)) {
            return;
        }
        let key = match headers.segment {
            Some(segment) if segment.flags == SYN => Some(segment.seq.0),
            Some(_) => None,
            None => key_in(bytes),
        };
        // Until the kernel stamps packets (net_enable_timestamp() in net/core/dev.c), they have the time of reading.
        if let Some(sent) = key.and_then(|key| self.in_flight.get_mut(key))
            && (sent.at..=sent.until).contains(&time)
        {
            sent.at = time;
        }
    }

    fn note_error(&mut self, time: Duration, quote: &IcmpQuote) {
        let quoted = &quote.quoted;
        let is_tcp = quoted.protocol == ip_protocol::TCP;
        let place = self.places.get(&quoted.destination).copied();
        let key = match quoted.seq {
            Some(seq) => Some(seq.0),
            // A NAT leaves the identification, IPv6 has none.
            None if !is_tcp => self.in_flight.find(|sent| {
                let same = match quoted.id {
                    Some(id) => sent.id == id,
                    None => sent.checksum == quoted.checksum,
                };
                same && place.is_none_or(|place| place == sent.target)
            }),
            None => None,
        };
        let Some((key, sent)) = key.and_then(|key| Some((key, *self.in_flight.get(key)?))) else { return };
        let Some(target) = self.targets.get(sent.target) else { return };
        let (local, remote) = (without_zone(target.tuple.local), without_zone(target.tuple.remote));
        // A NAT on the way leaves one end of the quoted packet, at least.
        let is_ours = quoted.source == local || quoted.destination == remote;
        if !is_ours || is_tcp != (target.tuple.protocol == Protocol::Tcp) {
            return;
        }
        let from_target = quote.from == remote.ip() || target.is_here;
        let pinged = match quote.reason {
            Reason::PortUnreachable if !is_tcp && from_target => Pinged::Reached(Reached::PortUnreachable),
            reason => Pinged::Rejected { reason, from: quote.from },
        };
        self.note_answer(time, key, pinged);
    }

    fn note_answer(&mut self, time: Duration, key: u32, pinged: Pinged) {
        let Some(sent) = self.in_flight.get(key).copied() else { return };
        let Some(before) = self.in_flight.answer(key) else { return };
        let Some(target) = self.targets.get_mut(sent.target) else { return };
        if pinged == Pinged::Reached(Reached::Reset) {
            target.doubtful.clear();
        } else if target.last == Some(key) {
            target.doubt(key, true);
        }
        match before {
            State::Waiting => {
                let round_trip = time.checked_sub(sent.at);
                self.note(PingPath::Netkat, sent.target, sent.number, &pinged, round_trip);
            }
            State::Answered => target.tally.duplicates += 1,
            State::Lost => target.tally.late += 1,
        }
    }
}

/// Returns the key in a datagram that repeats a ping's.
fn key_in(packet: &[u8]) -> Option<u32> {
    let at = packet.windows(MARK.len()).position(|part| part == MARK)? + MARK.len();
    let digits = std::str::from_utf8(packet.get(at..at + DIGITS)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}
