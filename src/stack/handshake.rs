//! Handshakes of a listener: the SYN was answered with a SYN-ACK, and the ACK is still to come.
//!
//! A flow with its buffers is made only when the ACK comes, so a flood of SYNs costs a small record
//! each. The record keeps the SYN and the future flow's seed. The flow is made with that seed and
//! then shown the SYN, so its own SYN-ACK equals the one that was sent.
//!
//! When there are too many records, none is kept. The seed is then a keyed hash of the five-tuple
//! and the SYN's sequence number, so the ACK proves itself (SYN cookies, RFC 4987, section 3.6).
//! Such a connection has only the options that the hash can remember: one of four MSS values, no
//! window scale, no SACK, no timestamps.
use super::state_machine;
use crate::{
    host::metrics::Metrics,
    link::NextHop,
    neighbour::Neighbour,
    net::FiveTuple,
    recovery::{is_acceptable, window_shift},
    segment::{ACK, Options, RST, SYN, Segment, SeqNumber, Timestamps},
};
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Intervals between transmissions of a SYN-ACK: 1 s (RFC 6298, section 2.1), then doubling. After
/// the last one the record is dropped.
const REPEATS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// Minimum interval between challenge ACKs of one handshake (RFC 5961, section 7; Linux's
/// tcp_invalid_ratelimit).
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum stale timer entries that are always tolerated.
const SLACK: usize = 1024;

/// A handshake whose SYN was answered.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    /// The next hop of the SYN-ACK and of the future flow.
    pub next_hop: NextHop,
    /// The neighbour whose link address the next hop carries.
    pub neighbour: Neighbour,
    /// The metrics of the route back.
    pub metrics: Metrics,
    /// The future flow's seed.
    pub seed: u64,
    /// The peer's SYN.
    pub syn: Segment,
    /// When the SYN was first answered.
    pub answered: Duration,
    /// The timestamp clock's value when the SYN was first answered.
    pub clock: u32,
    /// Our initial sequence number.
    ours: SeqNumber,
    /// When the SYN-ACK is to be retransmitted.
    due: Duration,
    /// When the last challenge ACK was sent.
    challenged: Option<Duration>,
}

/// The meaning of a segment to a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The SYN was retransmitted.
    Repeated,
    /// Another SYN came: the peer has started over.
    Replaced,
    /// The ACK completes the handshake.
    Completed,
    /// A reset with the expected sequence number ends the handshake.
    Abandoned,
    /// The ACK acknowledges something other than our SYN. It is answered with a reset.
    Wrong,
    /// The segment is not acceptable. It is answered with a challenge ACK.
    Challenged,
    /// The segment gets no answer.
    Nothing,
}

impl Handshake {
    /// Returns the handshake that `syn` begins.
    pub(crate) fn new(now: Duration, next_hop: NextHop, seed: u64, syn: &Segment) -> Handshake {
        Handshake {
            next_hop,
            neighbour: Neighbour::Sender(None),
            metrics: Metrics::default(),
            seed,
            syn: *syn,
            answered: now,
            clock: state_machine::timestamp(),
            ours: state_machine::initial_sequence(seed),
            due: now,
            challenged: None,
        }
    }

    /// Returns the handshake with the neighbour and the metrics of a route back.
    pub(crate) fn with(self, neighbour: Neighbour, metrics: Metrics) -> Handshake {
        Handshake { neighbour, metrics, ..self }
    }

    /// Classifies `segment`, where the SYN-ACK has announced `window` (RFC 9293, section 3.10.7.4,
    /// for SYN-RECEIVED).
    ///
    /// As in Linux's tcp_check_req() (net/ipv4/tcp_minisocks.c), a retransmitted SYN is answered
    /// with the SYN-ACK. A wrong acknowledgment is answered with a reset wherever the segment lies
    /// (section 3.5.2, group 2).
    pub(crate) fn classify(&self, segment: &Segment, window: u16) -> Reply {
        let distance = segment.seq.distance_from(self.syn.seq + 1);
        let acceptable = is_acceptable(distance.into(), segment.seq_len().into(), window.into());
        match (segment.is(RST), segment.is(SYN), segment.is(ACK)) {
            (true, _, _) if distance == 0 => Reply::Abandoned,
            (true, _, _) if acceptable => Reply::Challenged,
            (true, _, _) => Reply::Nothing,
            (_, true, false) if segment.seq == self.syn.seq => Reply::Repeated,
            (_, _, true) if segment.ack != self.ours + 1 => Reply::Wrong,
            _ if !acceptable => Reply::Challenged,
            (_, true, false) => Reply::Replaced,
            (_, true, true) => Reply::Challenged,
            (_, false, true) => Reply::Completed,
            _ => Reply::Nothing,
        }
    }

    /// Returns the SYN-ACK, equal to the one that the flow's state machine will generate; `None`
    /// for a SYN from port 0, which no state machine takes. `mss` is the one to announce, and
    /// `receive_buffer` the flow's, in bytes.
    pub(crate) fn syn_ack(&self, now: Duration, mss: u16, receive_buffer: usize) -> Option<Segment> {
        let mut answer = self.answer(now, receive_buffer)?;
        answer.options.mss = Some(mss);
        Some(answer)
    }

    /// Returns a challenge ACK, which tells the peer the expected sequence number (RFC 9293,
    /// section 3.10.7.4, first; RFC 5961, section 3.2).
    pub(crate) fn challenge(&self, now: Duration, receive_buffer: usize) -> Option<Segment> {
        let answer = self.answer(now, receive_buffer)?;
        let window = receive_buffer >> answer.options.window_scale.unwrap_or(0);
        Some(Segment {
            flags: ACK,
            seq: answer.seq + 1,
            window: u16::try_from(window).unwrap_or(u16::MAX),
            options: Options { timestamps: answer.options.timestamps, ..Options::default() },
            ..answer
        })
    }

    /// Returns a SYN-ACK without a maximum segment size.
    fn answer(&self, now: Duration, receive_buffer: usize) -> Option<Segment> {
        let syn = &self.syn;
        let since = now.saturating_sub(self.answered).as_millis() as u32;
        let options = Options {
            window_scale: syn.options.window_scale.map(|_| window_shift(receive_buffer)),
            sack_permitted: syn.options.sack_permitted,
            timestamps: syn
                .options
                .timestamps
                .map(|theirs| Timestamps { value: self.clock.wrapping_add(since), echo: theirs.value }),
            ..Options::default()
        };
        let answer = Segment {
            source: syn.destination,
            destination: syn.source,
            seq: self.ours,
            ack: syn.seq + 1,
            flags: SYN | ACK,
            window: syn_window(receive_buffer),
            options,
            payload_len: 0,
        };
        (syn.source != 0).then_some(answer)
    }
}

/// Returns the window field of a SYN-ACK, which is never scaled (RFC 7323, section 2.2).
/// `receive_buffer` is in bytes.
pub(crate) fn syn_window(receive_buffer: usize) -> u16 {
    u16::try_from(receive_buffer).unwrap_or(u16::MAX)
}

/// A table of the handshakes under way.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    pending: HashMap<FiveTuple, Handshake>,
    /// Times of the next retransmission, soonest first, by the number of retransmissions so far. An
    /// entry whose time differs from its handshake's is stale.
    due: [VecDeque<(Duration, FiveTuple)>; REPEATS.len()],
    /// Handshakes added or dropped: see [`Handshakes::take_changed`].
    changed: Vec<FiveTuple>,
}

impl Handshakes {
    /// Adds a handshake that is being answered.
    pub(crate) fn insert(&mut self, tuple: FiveTuple, mut handshake: Handshake) {
        handshake.due = handshake.answered + REPEATS[0];
        if self.due[0].len() > 2 * self.pending.len() + SLACK {
            // SYNs followed by their own resets leave only stale entries, faster than those expire.
            let pending = &self.pending;
            self.due[0].retain(|(at, tuple)| pending.get(tuple).is_some_and(|h| h.due == *at));
        }
        self.due[0].push_back((handshake.due, tuple));
        self.pending.insert(tuple, handshake);
        self.changed.push(tuple);
    }

    /// Returns the number of handshakes.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Returns the handshake of a five-tuple.
    pub(crate) fn get(&self, tuple: &FiveTuple) -> Option<&Handshake> {
        self.pending.get(tuple)
    }

    /// Returns the handshake to send a challenge ACK for; `None` if one was sent just before.
    pub(crate) fn challenged(&mut self, now: Duration, tuple: &FiveTuple) -> Option<&Handshake> {
        let handshake = self.pending.get_mut(tuple)?;
        if handshake.challenged.is_some_and(|at| now < at + CHALLENGE_INTERVAL) {
            return None;
        }
        handshake.challenged = Some(now);
        Some(handshake)
    }

    /// Drops a handshake, and returns it.
    pub(crate) fn remove(&mut self, tuple: &FiveTuple) -> Option<Handshake> {
        self.changed.push(*tuple);
        self.pending.remove(tuple)
    }

    /// Drops all handshakes, and returns their five-tuples.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = FiveTuple> + use<> {
        std::mem::take(self).pending.into_keys()
    }

    /// Returns the handshakes added or dropped since the last call; some may be as before.
    pub(crate) fn take_changed(&mut self) -> Vec<FiveTuple> {
        std::mem::take(&mut self.changed)
    }

    /// Returns the next handshake whose SYN-ACK is due for retransmission. Handshakes whose last
    /// retransmission has timed out are dropped.
    pub(crate) fn due(&mut self, now: Duration) -> Option<FiveTuple> {
        for stage in 0..REPEATS.len() {
            while let Some((at, tuple)) = self.due[stage].front().copied().filter(|(at, _)| *at <= now) {
                self.due[stage].pop_front();
                let Some(handshake) = self.pending.get_mut(&tuple).filter(|h| h.due == at) else { continue };
                match (REPEATS.get(stage + 1), self.due.get_mut(stage + 1)) {
                    (Some(delay), Some(next)) => {
                        handshake.due = now + *delay;
                        next.push_back((handshake.due, tuple));
                        return Some(tuple);
                    }
                    _ => drop(self.remove(&tuple)),
                }
            }
        }
        None
    }

    /// Returns when [`Handshakes::due`] has to be called next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.due.iter().filter_map(|stage| stage.front()).map(|(at, _)| *at).min()
    }
}

/// MSS values that a cookie can hold, in bytes. The largest that is not above the peer's is taken
/// (Linux: net/ipv4/syncookies.c, msstab).
const COOKIE_MSS: [u16; 4] = [536, 1300, 1440, 1460];
/// Length of an epoch. A cookie is valid in the epoch it was made in and in the next one.
const COOKIE_EPOCH: Duration = Duration::from_secs(32);

/// A generator of SYN cookies: handshakes without a record.
#[derive(Debug, Default)]
pub(crate) struct Cookies {
    key: RandomState,
    /// When the last cookie was given. No ACK is checked once that cookie has expired.
    given: Option<Duration>,
}

impl Cookies {
    /// Returns a handshake without a record for a SYN; [`Cookies::redeem`] rebuilds it from the
    /// ACK.
    pub(crate) fn give(
        &mut self,
        now: Duration,
        tuple: &FiveTuple,
        next_hop: NextHop,
        syn: &Segment,
    ) -> Handshake {
        self.given = Some(now);
        let offered = syn.options.mss.unwrap_or(0);
        let class = COOKIE_MSS.iter().rposition(|mss| *mss <= offered).unwrap_or(0);
        self.handshake(now, tuple, next_hop, syn.seq, epoch(now), class)
    }

    /// Returns whether a cookie was ever given.
    pub(crate) fn were_given(&self) -> bool {
        self.given.is_some()
    }

    /// Returns how much longer the last cookie is valid; `None` if no cookie is valid.
    pub(crate) fn open_for(&self, now: Duration) -> Option<Duration> {
        (self.given? + 2 * COOKIE_EPOCH).checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Returns the handshake that a segment completes, if the segment acknowledges a cookie of ours
    /// that announced `window`.
    pub(crate) fn redeem(
        &self,
        now: Duration,
        tuple: &FiveTuple,
        next_hop: NextHop,
        segment: &Segment,
        window: u16,
    ) -> Option<Handshake> {
        self.open_for(now)?;
        if !segment.is(ACK) || segment.is(SYN | RST) {
            return None;
        }
        let theirs = segment.seq - 1;
        // The cookie does not hold the time of its SYN-ACK. Overestimating the round trip does less
        // harm than underestimating it.
        let answered = now.saturating_sub(COOKIE_ROUND_TRIP);
        let epochs = [Some(epoch(now)), epoch(now).checked_sub(1)].into_iter().flatten();
        epochs
            .flat_map(|epoch| (0..COOKIE_MSS.len()).map(move |class| (epoch, class)))
            .map(|(epoch, class)| self.handshake(answered, tuple, next_hop, theirs, epoch, class))
            .find(|handshake| handshake.classify(segment, window) == Reply::Completed)
    }

    fn handshake(
        &self,
        answered: Duration,
        tuple: &FiveTuple,
        next_hop: NextHop,
        theirs: SeqNumber,
        epoch: u64,
        class: usize,
    ) -> Handshake {
        let seed = self.key.hash_one((tuple, theirs, epoch, class));
        let mss = COOKIE_MSS.get(class).copied().unwrap_or(COOKIE_MSS[0]);
        let syn = Segment {
            source: tuple.remote.port(),
            destination: tuple.local.port(),
            seq: theirs,
            flags: SYN,
            window: u16::MAX,
            options: Options { mss: Some(mss), ..Options::default() },
            ..Segment::default()
        };
        Handshake {
            next_hop,
            neighbour: Neighbour::Sender(None),
            metrics: Metrics::default(),
            seed,
            syn,
            answered,
            // A cookie's connection has no timestamps.
            clock: 0,
            ours: state_machine::initial_sequence(seed),
            due: answered,
            challenged: None,
        }
    }
}

/// Assumed round trip of a handshake by cookie.
const COOKIE_ROUND_TRIP: Duration = Duration::from_millis(100);

/// Returns the epoch's number.
fn epoch(now: Duration) -> u64 {
    now.as_secs() / COOKIE_EPOCH.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{link::LinkHeader, net::Protocol, segment::FIN};
    use std::net::Ipv4Addr;

    const WINDOW: u32 = 65_535;

    fn tuple(port: u16) -> FiveTuple {
        let at = |last, port| (Ipv4Addr::new(10, 0, 0, last), port).into();
        FiveTuple { protocol: Protocol::Tcp, local: at(1, 80), remote: at(2, port) }
    }

    fn segment(flags: u8, seq: u32, ack: u32) -> Segment {
        let (seq, ack) = (SeqNumber(seq), SeqNumber(ack));
        Segment { source: 40_000, destination: 80, seq, ack, flags, ..Segment::default() }
    }

    fn handshake(millis: u64) -> Handshake {
        let next_hop = NextHop { interface: 1, header: LinkHeader::None };
        Handshake::new(Duration::from_millis(millis), next_hop, 7, &segment(SYN, 1000, 0))
    }

    #[test]
    fn only_the_right_ack_completes() {
        let handshake = handshake(0);
        let ours = state_machine::initial_sequence(7).0.wrapping_add(1);
        for (flags, sequence, acknowledgment, reply) in [
            (ACK, 1001, ours, Reply::Completed),
            (ACK | FIN, 1001, ours, Reply::Completed),
            (ACK, 1001, ours.wrapping_add(1), Reply::Wrong),
            (ACK, 1000, ours, Reply::Challenged),
            (ACK, 1000 + WINDOW, ours, Reply::Completed),
            (ACK, 1001 + WINDOW, ours, Reply::Challenged),
            (SYN, 1000, 0, Reply::Repeated),
            (SYN, 5000, 0, Reply::Replaced),
            (SYN, 1001 + WINDOW, 0, Reply::Challenged),
            (SYN, 999, 0, Reply::Challenged),
            (RST, 1001, 0, Reply::Abandoned),
            (RST, 1002, 0, Reply::Challenged),
            (RST, 1000 + WINDOW, 0, Reply::Challenged),
            (RST, 1001 + WINDOW, 0, Reply::Nothing),
            (RST, 1000, 0, Reply::Nothing),
            (SYN | ACK, 1000, ours, Reply::Challenged),
            (SYN | ACK, 1001, ours, Reply::Challenged),
            (SYN | ACK, 1000, ours.wrapping_sub(1), Reply::Wrong),
            (0, 1001, 0, Reply::Nothing),
            (0, 1000, 0, Reply::Challenged),
        ] {
            let segment = segment(flags, sequence, acknowledgment);
            let found = handshake.classify(&segment, WINDOW as u16);
            assert_eq!(found, reply, "{flags:#x} {sequence} {acknowledgment}");
        }
    }

    /// Checks that all segments of a handshake use one timestamp clock (RFC 7323, section 5.4).
    #[test]
    fn repeated_answers_and_challenges_are_stamped_by_one_clock() {
        let mut syn = segment(SYN, 1000, 0);
        syn.options.timestamps = Some(Timestamps { value: 5, echo: 0 });
        let next_hop = NextHop { interface: 1, header: LinkHeader::None };
        let at = Duration::from_millis;
        let handshake = Handshake::new(at(100), next_hop, 7, &syn);
        let said = |answer: Option<Segment>| {
            let timestamps = answer.expect("an answer").options.timestamps.expect("a timestamp");
            (timestamps.value.wrapping_sub(handshake.clock), timestamps.echo)
        };
        assert_eq!(said(handshake.syn_ack(at(100), 1460, 65_536)), (0, 5));
        assert_eq!(said(handshake.syn_ack(at(1100), 1460, 65_536)), (1000, 5));
        assert_eq!(said(handshake.challenge(at(1350), 65_536)), (1250, 5));
    }

    #[test]
    fn a_cookie_is_redeemed_by_its_own_ack_alone_and_not_for_long() {
        let mut cookies = Cookies::default();
        let next_hop = NextHop { interface: 1, header: LinkHeader::None };
        let mut syn = segment(SYN, 1000, 0);
        syn.options.mss = Some(1440);
        let at = Duration::from_secs;
        let given = cookies.give(at(40), &tuple(1), next_hop, &syn);
        assert_eq!(given.syn.options.mss, Some(1440));
        let ack = |sequence, acknowledgment| segment(ACK, sequence, acknowledgment);
        let ours = given.ours.0.wrapping_add(1);
        let redeem = |seconds, tuple, ack| {
            let found = cookies.redeem(at(seconds), &tuple, next_hop, &ack, WINDOW as u16);
            found.map(|handshake| (handshake.seed, handshake.syn))
        };
        let expected = Some((given.seed, given.syn));
        assert_eq!(redeem(40, tuple(1), ack(1001, ours)), expected);
        assert_eq!(redeem(70, tuple(1), ack(1001, ours)), expected);
        assert_eq!(redeem(100, tuple(1), ack(1001, ours)), None);
        assert_eq!(redeem(41, tuple(2), ack(1001, ours)), None);
        assert_eq!(redeem(41, tuple(1), ack(1002, ours)), None);
        assert_eq!(redeem(41, tuple(1), ack(1001, ours.wrapping_add(1))), None);
    }

    #[test]
    fn answers_are_repeated_and_then_given_up() {
        let mut handshakes = Handshakes::default();
        handshakes.insert(tuple(1), handshake(0));
        handshakes.insert(tuple(2), handshake(0));
        handshakes.remove(&tuple(2));
        let mut times = Vec::new();
        while let Some(at) = handshakes.deadline() {
            if handshakes.due(at).is_some() {
                times.push(at.as_secs());
            }
        }
        assert_eq!(times, [1, 3, 7]);
        assert_eq!(handshakes.len(), 0);
    }

    #[test]
    fn syns_that_are_taken_back_at_once_fill_nothing() {
        let mut handshakes = Handshakes::default();
        handshakes.insert(tuple(1), handshake(0));
        for micros in 0..100_000 {
            let mut next = handshake(0);
            next.answered = Duration::from_micros(micros);
            handshakes.insert(tuple(2), next);
            handshakes.remove(&tuple(2));
            assert!(handshakes.due[0].len() <= SLACK + 4);
        }
        assert_eq!(handshakes.due(Duration::from_secs(1)), Some(tuple(1)));
    }
}
