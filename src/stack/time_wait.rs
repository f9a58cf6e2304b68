//! Connections in TIME-WAIT, whose peer may have missed our last ACK (RFC 9293, section 3.6.1).
//!
//! A record holds only that ACK, ready to be retransmitted. A new SYN from the same port opens a
//! new connection if it cannot be mistaken for an old one: its timestamp is newer (RFC 6191), or
//! its sequence number was not used (RFC 1122, section 4.2.2.13).
use super::header_only::HeaderOnly;
use crate::{
    net::FiveTuple,
    segment::{self, Segment, SeqNumber, is_older},
};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// Lifetime of a record. A peer retransmits its FIN after 200 ms, 400 ms and so on (Linux); 10 s
/// cover five retransmissions.
const LIFETIME: Duration = Duration::from_secs(10);
/// Minimum interval between answers to segments without data: two old connections must not
/// acknowledge each other for ever (Linux's tcp_timewait_check_oow_rate_limit(),
/// net/ipv4/tcp_minisocks.c).
const ANSWER_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum records; a further one replaces the oldest.
pub(crate) const LIMIT: usize = 16_384;

/// The answer to a segment from the peer of a connection in TIME-WAIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TimeWaitAnswer {
    /// The segment gets no answer.
    Nothing,
    /// The last ACK is retransmitted.
    Repeat(HeaderOnly),
    /// A new connection is opened.
    Open {
        /// Sequence number that the new initial sequence number must lie beyond.
        beyond: SeqNumber,
    },
}

/// A connection in TIME-WAIT.
#[derive(Debug)]
struct Record {
    expires: Duration,
    last: HeaderOnly,
    /// When a segment without data was last answered.
    answered: Option<Duration>,
}

/// A table of connections in TIME-WAIT.
#[derive(Debug, Default)]
pub(crate) struct TimeWaits {
    records: HashMap<FiveTuple, Record>,
    /// Expiry times, soonest first. An entry whose time differs from its record's is stale.
    order: VecDeque<(Duration, FiveTuple)>,
    /// Connections dropped from the table: see [`TimeWaits::take_forgotten`].
    forgotten: Vec<FiveTuple>,
}

impl TimeWaits {
    /// Returns whether the connection is in TIME-WAIT.
    pub(crate) fn contains(&self, tuple: &FiveTuple) -> bool {
        self.records.contains_key(tuple)
    }

    /// Returns the connections dropped since the last call.
    pub(crate) fn take_forgotten(&mut self) -> Vec<FiveTuple> {
        std::mem::take(&mut self.forgotten)
    }

    /// Adds a connection by the last ACK that it sent.
    pub(crate) fn insert(&mut self, now: Duration, tuple: FiveTuple, last: HeaderOnly) {
        while self.records.len() >= LIMIT
            && let Some((at, oldest)) = self.order.pop_front()
        {
            self.forget(at, &oldest);
        }
        if self.order.len() > 2 * LIMIT {
            // A peer that retransmits its FIN for ever restarts the timer each time, and leaves a
            // stale entry.
            let records = &self.records;
            self.order.retain(|(at, tuple)| records.get(tuple).is_some_and(|record| record.expires == *at));
        }
        let expires = now + LIFETIME;
        self.records.insert(tuple, Record { expires, last, answered: None });
        self.order.push_back((expires, tuple));
    }

    /// Drops the records whose lifetime is over.
    pub(crate) fn expire(&mut self, now: Duration) {
        while let Some((at, tuple)) = self.order.front().copied().filter(|(at, _)| *at <= now) {
            self.order.pop_front();
            self.forget(at, &tuple);
        }
    }

    /// Drops a connection if its record expires at `at`.
    fn forget(&mut self, at: Duration, tuple: &FiveTuple) {
        if self.records.get(tuple).is_some_and(|record| record.expires == at) {
            self.records.remove(tuple);
            self.forgotten.push(*tuple);
        }
    }

    /// Returns the answer to a segment; `None` if its connection is not in TIME-WAIT.
    pub(crate) fn ingress(
        &mut self,
        now: Duration,
        tuple: &FiveTuple,
        segment: &Segment,
    ) -> Option<TimeWaitAnswer> {
        let Record { last, answered, .. } = self.records.get_mut(tuple)?;
        let (sent, repeat) = (last.segment, TimeWaitAnswer::Repeat(*last));
        if segment.is(segment::RST) {
            // RFC 1337: a reset must not cut TIME-WAIT short.
            return Some(TimeWaitAnswer::Nothing);
        }
        if segment.is(segment::SYN) && !segment.is(segment::ACK) {
            let unused = segment.seq.is_after(sent.ack);
            let newer = match (segment.options.timestamps, sent.options.timestamps) {
                (Some(theirs), Some(ours)) => is_older(ours.echo, theirs.value),
                _ => false,
            };
            if unused || newer {
                self.records.remove(tuple);
                self.forgotten.push(*tuple);
                return Some(TimeWaitAnswer::Open { beyond: sent.seq });
            }
            return Some(repeat);
        }
        if segment.is(segment::FIN) {
            let last = *last;
            self.insert(now, *tuple, last);
        } else if segment.payload_len == 0 {
            // RFC 9293, section 3.10.7.4, first: a segment elsewhere than at RCV.NXT is answered
            // with an ACK.
            let in_place = segment.seq == sent.ack && !segment.is(segment::SYN);
            if in_place || answered.is_some_and(|at| now < at + ANSWER_INTERVAL) {
                return Some(TimeWaitAnswer::Nothing);
            }
            *answered = Some(now);
        }
        Some(repeat)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.records.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        link::{LinkHeader, NextHop},
        net::Protocol,
        stack::ip,
    };
    use std::net::Ipv4Addr;

    fn tuple(port: u16) -> FiveTuple {
        let at = |last, port| (Ipv4Addr::new(10, 0, 0, last), port).into();
        FiveTuple { protocol: Protocol::Tcp, local: at(1, 80), remote: at(2, port) }
    }

    /// Builds a TCP header with a timestamp option.
    fn segment(flags: u8, sequence: u32, acknowledgment: u32, timestamps: (u32, u32)) -> Vec<u8> {
        let mut bytes = vec![0; 32];
        bytes[4..8].copy_from_slice(&sequence.to_be_bytes());
        bytes[8..12].copy_from_slice(&acknowledgment.to_be_bytes());
        bytes[12] = 8 << 4;
        bytes[13] = flags;
        bytes[20..24].copy_from_slice(&[1, 1, 8, 10]);
        bytes[24..28].copy_from_slice(&timestamps.0.to_be_bytes());
        bytes[28..32].copy_from_slice(&timestamps.1.to_be_bytes());
        bytes
    }

    fn last() -> HeaderOnly {
        HeaderOnly {
            next_hop: NextHop { interface: 1, header: LinkHeader::None },
            template: ip::Template {
                source: tuple(1).local.ip(),
                destination: tuple(1).remote.ip(),
                protocol: ip::TCP,
                hop_limit: 64,
                traffic_class: 0,
                flow_label: 0,
            },
            segment: Segment::parse(&segment(segment::ACK, 5000, 900, (70, 60))).expect("a segment"),
        }
    }

    fn ask(waits: &mut TimeWaits, seconds: u64, bytes: &[u8]) -> Option<TimeWaitAnswer> {
        let now = Duration::from_secs(seconds);
        waits.expire(now);
        waits.ingress(now, &tuple(1), &Segment::parse(bytes).expect("a segment"))
    }

    #[test]
    fn a_repeated_fin_is_acknowledged_again_and_starts_the_time_anew() {
        let mut waits = TimeWaits::default();
        waits.insert(Duration::ZERO, tuple(1), last());
        let fin = segment(segment::FIN | segment::ACK, 899, 5000, (60, 69));
        assert_eq!(ask(&mut waits, 9, &fin), Some(TimeWaitAnswer::Repeat(last())));
        assert_eq!(ask(&mut waits, 18, &fin), Some(TimeWaitAnswer::Repeat(last())));
        assert_eq!(ask(&mut waits, 28, &fin), None);
        assert_eq!(waits.len(), 0);
    }

    #[test]
    fn resets_and_bare_acks_change_nothing() {
        let mut waits = TimeWaits::default();
        waits.insert(Duration::ZERO, tuple(1), last());
        for flags in [segment::RST, segment::ACK] {
            assert_eq!(
                ask(&mut waits, 1, &segment(flags, 900, 5000, (61, 70))),
                Some(TimeWaitAnswer::Nothing)
            );
        }
        assert_eq!(waits.len(), 1);
    }

    /// Checks RFC 9293, section 3.10.7.4, first. Each row has the time, the flags, the sequence
    /// number, and whether the segment is answered.
    #[test]
    fn what_lies_elsewhere_is_answered_now_and_then() {
        let mut waits = TimeWaits::default();
        waits.insert(Duration::ZERO, tuple(1), last());
        for (second, flags, sequence, answered) in [
            (1, segment::ACK, 900, false),
            (1, segment::ACK, 899, true),
            (1, segment::ACK, 899, false),
            (2, segment::ACK, 901, true),
            (3, segment::ACK, 900 + (1 << 31), true),
            (4, 0, 900, false),
            (4, 0, 1000, true),
            (5, segment::SYN | segment::ACK, 900, true),
            (6, segment::RST, 899, false),
        ] {
            let expected = if answered { TimeWaitAnswer::Repeat(last()) } else { TimeWaitAnswer::Nothing };
            let segment = segment(flags, sequence, 5000, (61, 70));
            assert_eq!(ask(&mut waits, second, &segment), Some(expected), "{second} {flags:#x} {sequence}");
        }
    }

    #[test]
    fn only_a_syn_that_is_new_opens_a_connection() {
        for (sequence, timestamp, opens) in [(901, 10, true), (100, 61, true), (100, 60, false)] {
            let mut waits = TimeWaits::default();
            waits.insert(Duration::ZERO, tuple(1), last());
            let expected = if opens {
                TimeWaitAnswer::Open { beyond: SeqNumber(5000) }
            } else {
                TimeWaitAnswer::Repeat(last())
            };
            let syn = segment(segment::SYN, sequence, 0, (timestamp, 0));
            assert_eq!(ask(&mut waits, 1, &syn), Some(expected), "{sequence} {timestamp}");
        }
    }

    #[test]
    fn their_number_is_bounded() {
        let mut waits = TimeWaits::default();
        for port in 0..(LIMIT + 100) as u32 {
            waits.insert(Duration::ZERO, tuple(port as u16), last());
        }
        assert_eq!(waits.len(), LIMIT);
    }

    #[test]
    fn a_fin_that_is_repeated_without_end_fills_nothing() {
        let mut waits = TimeWaits::default();
        waits.insert(Duration::ZERO, tuple(1), last());
        let fin = segment(segment::FIN | segment::ACK, 899, 5000, (60, 69));
        for micros in 0..200_000 {
            let parsed = Segment::parse(&fin).expect("a segment");
            waits.ingress(Duration::from_micros(micros), &tuple(1), &parsed);
            assert!(waits.order.len() <= 2 * LIMIT + 1);
        }
        waits.expire(Duration::from_secs(1));
        assert_eq!(waits.len(), 1);
        waits.expire(Duration::from_secs(11));
        assert_eq!((waits.len(), waits.order.len()), (0, 0));
    }
}
