//! Handshakes that a listener has answered: a SYN, a SYN-ACK, and the ACK still to come.
//!
//! A flow with its buffers is made only for the ACK, so that a flood of SYNs costs a small record each. The
//! record keeps the SYN and the seed of the flow to be; the flow is made with that seed and shown the SYN
//! then, so that it has sent, as far as it can tell, the very SYN-ACK that was sent for it here.
//!
//! When there are too many records, none is kept: the seed is a keyed hash of who asks, so that the ACK proves
//! itself (SYN cookies, RFC 4987, section 3.6). Such a connection has only what the hash can remember: an MSS
//! of four, no window scale, no SACK, no timestamps.
use super::{next_hop::Neighbour, state_machine};
use crate::{
    link::NextHop,
    net::FiveTuple,
    recovery::{is_acceptable, window_shift},
    segment::{ACK, Options, RST, SYN, Segment, SeqNumber, Timestamps},
};
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// When a SYN-ACK is repeated: after 1 s (RFC 6298, section 2.1), then doubling. After the last one nothing is
/// kept.
const REPEATS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// One handshake's segments that are not acceptable are answered no more often than this (RFC 5961, section 7; Linux's
/// tcp_invalid_ratelimit).
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

/// Stale entries that may always wait for their time.
const SLACK: usize = 1024;

/// One handshake.
#[derive(Clone, Debug)]
pub struct Handshake {
    pub next_hop: NextHop,
    pub neighbour: Neighbour,
    /// What the flow is to be made with.
    pub seed: u64,
    /// The peer's SYN.
    pub syn: Segment,
    /// When the SYN was answered first, and what the timestamp clock said then.
    pub answered: Duration,
    pub clock: u32,
    /// Our initial sequence number.
    ours: SeqNumber,
    due: Duration,
    /// When something was challenged last.
    challenged: Option<Duration>,
}

/// What a segment is to a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The SYN once more.
    Repeated,
    /// Another SYN: the peer has begun anew.
    Replaced,
    /// The ACK that completes it.
    Completed,
    /// A reset at the right place.
    Abandoned,
    /// An ACK of something else, which is reset.
    Wrong,
    /// It is out of place: an ACK tells where its place is.
    Challenged,
    Nothing,
}

impl Handshake {
    /// The handshake that `syn` begins.
    pub fn new(now: Duration, next_hop: NextHop, seed: u64, syn: &Segment) -> Handshake {
        Handshake {
            next_hop,
            neighbour: Neighbour::Sender(None),
            seed,
            syn: *syn,
            answered: now,
            clock: state_machine::timestamp(),
            ours: state_machine::initial_sequence(seed),
            due: now,
            challenged: None,
        }
    }

    /// The same with whose link address the answers carry.
    pub fn with(self, neighbour: Neighbour) -> Handshake {
        Handshake { neighbour, ..self }
    }

    /// What `segment` is to the handshake, where the SYN-ACK has announced `window` (RFC 9293, section 3.10.7.4, for
    /// SYN-RECEIVED).
    ///
    /// As in Linux's tcp_check_req() (net/ipv4/tcp_minisocks.c), the SYN once more has the SYN-ACK once more for its
    /// answer, and what acknowledges something else is reset (section 3.5.2, group 2) wherever it lies.
    pub fn classify(&self, segment: &Segment, window: u16) -> Reply {
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

    /// Returns the SYN-ACK that the flow's state machine will believe to have sent; `None` for a SYN from port 0, which no
    /// state machine takes. `mss` and `receive_buffer` are the flow's, in bytes.
    pub fn syn_ack(&self, now: Duration, mss: usize, receive_buffer: usize) -> Option<Segment> {
        let mut answer = self.answer(now, receive_buffer)?;
        answer.options.mss = Some(u16::try_from(mss).unwrap_or(u16::MAX));
        Some(answer)
    }

    /// Returns the ACK that tells the peer what is expected of it (RFC 9293, section 3.10.7.4, first; RFC 5961, section
    /// 3.2).
    pub fn challenge(&self, now: Duration, receive_buffer: usize) -> Option<Segment> {
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

/// The window field of a SYN-ACK, which is never scaled (RFC 7323, section 2.2). `receive_buffer` is in bytes.
pub fn syn_window(receive_buffer: usize) -> u16 {
    u16::try_from(receive_buffer).unwrap_or(u16::MAX)
}

/// The handshakes under way.
#[derive(Debug, Default)]
pub struct Handshakes {
    pending: HashMap<FiveTuple, Handshake>,
    /// By how often the SYN-ACK was repeated: when it is due again, soonest first. An entry whose time is not
    /// its handshake's is stale.
    due: [VecDeque<(Duration, FiveTuple)>; REPEATS.len()],
    /// Handshakes that have come or gone: see [`Handshakes::take_changed`].
    changed: Vec<FiveTuple>,
}

impl Handshakes {
    /// Adds a handshake that is being answered.
    pub fn insert(&mut self, tuple: FiveTuple, mut handshake: Handshake) {
        handshake.due = handshake.answered + REPEATS[0];
        if self.due[0].len() > 2 * self.pending.len() + SLACK {
            // SYNs that their own resets follow leave nothing but stale entries, faster than those come of age.
            let pending = &self.pending;
            self.due[0].retain(|(at, tuple)| pending.get(tuple).is_some_and(|h| h.due == *at));
        }
        self.due[0].push_back((handshake.due, tuple));
        self.pending.insert(tuple, handshake);
        self.changed.push(tuple);
    }

    pub fn len(&self) -> usize {
        self.pending.len()
    }

    pub fn get(&self, tuple: &FiveTuple) -> Option<&Handshake> {
        self.pending.get(tuple)
    }

    /// A handshake of which a segment is to be challenged, unless one just was.
    pub fn challenged(&mut self, now: Duration, tuple: &FiveTuple) -> Option<&Handshake> {
        let handshake = self.pending.get_mut(tuple)?;
        if handshake.challenged.is_some_and(|at| now < at + CHALLENGE_INTERVAL) {
            return None;
        }
        handshake.challenged = Some(now);
        Some(handshake)
    }

    pub fn remove(&mut self, tuple: &FiveTuple) -> Option<Handshake> {
        self.changed.push(*tuple);
        self.pending.remove(tuple)
    }

    /// Forgets all handshakes, and returns whose they were.
    pub fn clear(&mut self) -> impl Iterator<Item = FiveTuple> + use<> {
        std::mem::take(self).pending.into_keys()
    }

    /// The handshakes that have come or gone since the last call, or neither.
    pub fn take_changed(&mut self) -> Vec<FiveTuple> {
        std::mem::take(&mut self.changed)
    }

    /// The next handshake whose SYN-ACK is to be repeated by now; those that were repeated often enough go.
    pub fn due(&mut self, now: Duration) -> Option<FiveTuple> {
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

    /// When [`Handshakes::due`] is to be called next.
    pub fn deadline(&self) -> Option<Duration> {
        self.due.iter().filter_map(|stage| stage.front()).map(|(at, _)| *at).min()
    }
}

/// The MSS that a cookie remembers: the largest of these that is not above the peer's, in bytes (as Linux's
/// net/ipv4/syncookies.c, msstab).
const COOKIE_MSS: [u16; 4] = [536, 1300, 1440, 1460];
/// A cookie holds in the epoch it was made in and the one after.
const COOKIE_EPOCH: Duration = Duration::from_secs(32);

/// Handshakes of which nothing is kept.
#[derive(Debug, Default)]
pub struct Cookies {
    key: RandomState,
    /// When a cookie was last given: no ACK is taken for one if none can be due.
    given: Option<Duration>,
}

impl Cookies {
    /// The handshake that answers a SYN and that [`Cookies::redeem`] will find again.
    pub fn give(&mut self, now: Duration, tuple: &FiveTuple, next_hop: NextHop, syn: &Segment) -> Handshake {
        self.given = Some(now);
        let offered = syn.options.mss.unwrap_or(0);
        let class = COOKIE_MSS.iter().rposition(|mss| *mss <= offered).unwrap_or(0);
        self.handshake(now, tuple, next_hop, syn.seq, epoch(now), class)
    }

    /// Whether a cookie was ever given.
    pub fn were_given(&self) -> bool {
        self.given.is_some()
    }

    /// How much longer an ACK may come that completes a handshake of which nothing is kept; `None` when none can.
    pub fn open_for(&self, now: Duration) -> Option<Duration> {
        (self.given? + 2 * COOKIE_EPOCH).checked_sub(now).filter(|left| !left.is_zero())
    }

    /// The handshake that a segment completes, if it acknowledges a cookie of ours, which has announced `window`.
    pub fn redeem(
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
        // When it was sent is not known: a round trip that is too long does less harm than one too short.
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
            seed,
            syn,
            answered,
            // It has no timestamps.
            clock: 0,
            ours: state_machine::initial_sequence(seed),
            due: answered,
            challenged: None,
        }
    }
}

/// What a round trip is taken for where a cookie has forgotten when it began.
const COOKIE_ROUND_TRIP: Duration = Duration::from_millis(100);

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

    /// RFC 7323, section 5.4: one clock, whichever segment it stamps.
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
