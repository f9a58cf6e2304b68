//! Handshakes that a listener has answered: a SYN, a SYN-ACK, and the ACK still to come.
//!
//! A flow with its buffers is made only for the ACK, so that a flood of SYNs costs a small record each. The
//! record keeps the SYN and the seed of the flow to be; the flow is made with that seed and shown the SYN
//! then, so that it has sent, as far as it can tell, the very SYN-ACK that was sent for it here.
//!
//! When there are too many records, none is kept: the seed is a keyed hash of who asks, so that the ACK proves
//! itself (SYN cookies, RFC 4987, section 3.6). Such a connection has only what the hash can remember: an MSS
//! of four, no window scale, no SACK, no timestamps.
use super::{
    bare::MAX_TCP_HEADER,
    endpoint,
    next_hop::Neighbour,
    segment::{self, Segment},
};
use crate::{
    link::NextHop,
    net::FiveTuple,
    recovery::{blank_malformed_options, is_acceptable, window_shift},
};
use arrayvec::ArrayVec;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{IpAddress, Ipv4Address, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr},
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
    /// The peer's SYN: its header with options.
    pub syn: ArrayVec<u8, MAX_TCP_HEADER>,
    /// When the SYN was answered first, and what the timestamp clock said then.
    pub answered: Duration,
    pub clock: u32,
    /// The sequence numbers of the two SYNs.
    ours: u32,
    theirs: u32,
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
    pub fn new(now: Duration, next_hop: NextHop, seed: u64, segment: &Segment, bytes: &[u8]) -> Handshake {
        let header = bytes.get(..segment.header_len).unwrap_or_default();
        let mut syn: ArrayVec<u8, MAX_TCP_HEADER> = header.iter().copied().take(MAX_TCP_HEADER).collect();
        blank_malformed_options(&mut syn);
        Handshake {
            next_hop,
            neighbour: Neighbour::Sender(None),
            seed,
            syn,
            answered: now,
            clock: endpoint::timestamp(),
            ours: endpoint::initial_sequence(seed),
            theirs: segment.sequence,
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
        let distance = segment.sequence.wrapping_sub(self.theirs.wrapping_add(1)) as i32;
        let acceptable = is_acceptable(distance.into(), segment.len().into(), window.into());
        match (segment.is(segment::RST), segment.is(segment::SYN), segment.is(segment::ACK)) {
            (true, _, _) if distance == 0 => Reply::Abandoned,
            (true, _, _) if acceptable => Reply::Challenged,
            (true, _, _) => Reply::Nothing,
            (_, true, false) if segment.sequence == self.theirs => Reply::Repeated,
            (_, _, true) if segment.acknowledgment != self.ours.wrapping_add(1) => Reply::Wrong,
            _ if !acceptable => Reply::Challenged,
            (_, true, false) => Reply::Replaced,
            (_, true, true) => Reply::Challenged,
            (_, false, true) => Reply::Completed,
            _ => Reply::Nothing,
        }
    }

    /// The SYN-ACK, as the flow's endpoint will believe to have sent it; `None` for a SYN that makes no sense.
    /// `mss` and `receive_buffer` are the flow's, in bytes.
    pub fn syn_ack(
        &self,
        now: Duration,
        mss: usize,
        receive_buffer: usize,
    ) -> Option<ArrayVec<u8, MAX_TCP_HEADER>> {
        let answer = self.answer(now, receive_buffer)?;
        Some(emit(&TcpRepr { max_seg_size: Some(u16::try_from(mss).unwrap_or(u16::MAX)), ..answer }))
    }

    /// The ACK that tells the peer where we are (RFC 9293, section 3.10.7.4, first; RFC 5961, section 3.2).
    pub fn challenge(&self, now: Duration, receive_buffer: usize) -> Option<ArrayVec<u8, MAX_TCP_HEADER>> {
        let answer = self.answer(now, receive_buffer)?;
        let window = receive_buffer >> answer.window_scale.unwrap_or(0);
        Some(emit(&TcpRepr {
            control: TcpControl::None,
            seq_number: answer.seq_number + 1,
            window_len: u16::try_from(window).unwrap_or(u16::MAX),
            window_scale: None,
            sack_permitted: false,
            ..answer
        }))
    }

    /// A SYN-ACK without a maximum segment size.
    fn answer(&self, now: Duration, receive_buffer: usize) -> Option<TcpRepr<'static>> {
        let packet = TcpPacket::new_checked(self.syn.as_slice()).ok()?;
        let syn =
            TcpRepr::parse(&packet, &UNSPECIFIED, &UNSPECIFIED, &ChecksumCapabilities::ignored()).ok()?;
        let since = now.saturating_sub(self.answered).as_millis() as u32;
        Some(TcpRepr {
            src_port: syn.dst_port,
            dst_port: syn.src_port,
            control: TcpControl::Syn,
            seq_number: TcpSeqNumber(self.ours as i32),
            ack_number: Some(syn.seq_number + 1),
            window_len: syn_window(receive_buffer),
            window_scale: syn.window_scale.map(|_| window_shift(receive_buffer)),
            max_seg_size: None,
            sack_permitted: syn.sack_permitted,
            sack_ranges: [None; 3],
            timestamp: syn.timestamp.map(|theirs| TcpTimestampRepr {
                tsval: self.clock.wrapping_add(since),
                tsecr: theirs.tsval,
            }),
            payload: &[],
        })
    }
}

/// The window field of a SYN-ACK, which is never scaled (RFC 7323, section 2.2). `receive_buffer` is in bytes.
pub fn syn_window(receive_buffer: usize) -> u16 {
    u16::try_from(receive_buffer).unwrap_or(u16::MAX)
}

/// The addresses stand for the checksum only, which is neither verified nor made here.
const UNSPECIFIED: IpAddress = IpAddress::Ipv4(Ipv4Address::UNSPECIFIED);

fn emit(segment: &TcpRepr<'_>) -> ArrayVec<u8, MAX_TCP_HEADER> {
    let mut header = ArrayVec::from([0; MAX_TCP_HEADER]);
    header.truncate(segment.header_len());
    let mut packet = TcpPacket::new_unchecked(header.as_mut_slice());
    segment.emit(&mut packet, &UNSPECIFIED, &UNSPECIFIED, &ChecksumCapabilities::ignored());
    header
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
    pub fn give(
        &mut self,
        now: Duration,
        tuple: &FiveTuple,
        next_hop: NextHop,
        segment: &Segment,
        bytes: &[u8],
    ) -> Handshake {
        self.given = Some(now);
        let offered = segment::max_segment_size(bytes).unwrap_or(0);
        let class = COOKIE_MSS.iter().rposition(|mss| *mss <= offered).unwrap_or(0);
        self.handshake(now, tuple, next_hop, segment.sequence, epoch(now), class)
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
        if !segment.is(segment::ACK) || segment.is(segment::SYN) || segment.is(segment::RST) {
            return None;
        }
        let theirs = segment.sequence.wrapping_sub(1);
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
        theirs: u32,
        epoch: u64,
        class: usize,
    ) -> Handshake {
        let seed = self.key.hash_one((tuple, theirs, epoch, class));
        let mss = COOKIE_MSS.get(class).copied().unwrap_or(COOKIE_MSS[0]);
        let syn = segment::plain_syn(tuple.remote.port(), tuple.local.port(), theirs, mss);
        Handshake {
            next_hop,
            neighbour: Neighbour::Sender(None),
            seed,
            syn: syn.into_iter().collect(),
            answered,
            // It has no timestamps.
            clock: 0,
            ours: endpoint::initial_sequence(seed),
            theirs,
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
    use crate::{
        link::LinkHeader,
        net::Protocol,
        recovery::{Algorithm, Config, Disposition, Recovery, STACK_HEADER_LEN},
        stack::endpoint::{Endpoint, recovery_time},
    };
    use std::net::Ipv4Addr;

    const WINDOW: u32 = 65_535;

    fn tuple(port: u16) -> FiveTuple {
        let at = |last, port| (Ipv4Addr::new(10, 0, 0, last), port).into();
        FiveTuple { protocol: Protocol::Tcp, local: at(1, 80), remote: at(2, port) }
    }

    fn segment(flags: u8, sequence: u32, acknowledgment: u32) -> Vec<u8> {
        let mut bytes = vec![0; segment::MIN_HEADER];
        bytes[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        bytes[4..8].copy_from_slice(&sequence.to_be_bytes());
        bytes[8..12].copy_from_slice(&acknowledgment.to_be_bytes());
        bytes[12] = 5 << 4;
        bytes[13] = flags;
        bytes
    }

    fn handshake(millis: u64) -> Handshake {
        let syn = segment(segment::SYN, 1000, 0);
        let next_hop = NextHop { interface: 1, header: LinkHeader::None };
        let segment = Segment::parse(&syn).expect("a segment");
        Handshake::new(Duration::from_millis(millis), next_hop, 7, &segment, &syn)
    }

    #[test]
    fn only_the_right_ack_completes() {
        let handshake = handshake(0);
        let ours = endpoint::initial_sequence(7).wrapping_add(1);
        for (flags, sequence, acknowledgment, reply) in [
            (segment::ACK, 1001, ours, Reply::Completed),
            (segment::ACK | segment::FIN, 1001, ours, Reply::Completed),
            (segment::ACK, 1001, ours.wrapping_add(1), Reply::Wrong),
            (segment::ACK, 1000, ours, Reply::Challenged),
            (segment::ACK, 1000 + WINDOW, ours, Reply::Completed),
            (segment::ACK, 1001 + WINDOW, ours, Reply::Challenged),
            (segment::SYN, 1000, 0, Reply::Repeated),
            (segment::SYN, 5000, 0, Reply::Replaced),
            (segment::SYN, 1001 + WINDOW, 0, Reply::Challenged),
            (segment::SYN, 999, 0, Reply::Challenged),
            (segment::RST, 1001, 0, Reply::Abandoned),
            (segment::RST, 1002, 0, Reply::Challenged),
            (segment::RST, 1000 + WINDOW, 0, Reply::Challenged),
            (segment::RST, 1001 + WINDOW, 0, Reply::Nothing),
            (segment::RST, 1000, 0, Reply::Nothing),
            (segment::SYN | segment::ACK, 1000, ours, Reply::Challenged),
            (segment::SYN | segment::ACK, 1001, ours, Reply::Challenged),
            (segment::SYN | segment::ACK, 1000, ours.wrapping_sub(1), Reply::Wrong),
            (0, 1001, 0, Reply::Nothing),
            (0, 1000, 0, Reply::Challenged),
        ] {
            let segment = Segment::parse(&segment(flags, sequence, acknowledgment)).expect("a segment");
            let found = handshake.classify(&segment, WINDOW as u16);
            assert_eq!(found, reply, "{flags:#x} {sequence} {acknowledgment}");
        }
    }

    /// RFC 7323, section 5.4: one clock, whichever segment it stamps.
    #[test]
    fn repeated_answers_and_challenges_are_stamped_by_one_clock() {
        let mut syn = segment(segment::SYN, 1000, 0);
        syn[12] = 8 << 4;
        syn.extend([8, 10, 0, 0, 0, 5, 0, 0, 0, 0, 1, 1]);
        let parsed = Segment::parse(&syn).expect("a segment");
        let next_hop = NextHop { interface: 1, header: LinkHeader::None };
        let at = Duration::from_millis;
        let handshake = Handshake::new(at(100), next_hop, 7, &parsed, &syn);
        let said = |header: Option<ArrayVec<u8, MAX_TCP_HEADER>>| {
            let (value, echo) = segment::timestamp(&header.expect("a header")).expect("a timestamp");
            (value.wrapping_sub(handshake.clock), echo)
        };
        assert_eq!(said(handshake.syn_ack(at(100), 1460, 65_536)), (0, 5));
        assert_eq!(said(handshake.syn_ack(at(1100), 1460, 65_536)), (1000, 5));
        assert_eq!(said(handshake.challenge(at(1350), 65_536)), (1250, 5));
    }

    /// What an endpoint of its own would answer to the same SYN.
    fn answer_of_an_endpoint(syn: &[u8], seed: u64, mss: usize, buffer: usize) -> Vec<u8> {
        let mut recovery = Recovery::new(Config {
            send_buffer: buffer,
            receive_buffer: buffer,
            link_mss: mss as u16,
            max_frame: 60_000,
            algorithm: Algorithm::Cubic,
            user_timeout: None,
            keep_alive: None,
        });
        let now = Duration::from_secs(1);
        let mut endpoint = Endpoint::new(now, mss, seed, &mut recovery);
        endpoint.listen(80);
        let mut packet = [&[0; STACK_HEADER_LEN], syn].concat();
        assert_eq!(
            recovery.from_wire(recovery_time(now), &mut packet[STACK_HEADER_LEN..]),
            Disposition::Show
        );
        endpoint.ingress(now, &mut packet, &mut recovery);
        endpoint.egress(now, &mut recovery);
        recovery.poll_transmit(recovery_time(now)).expect("a SYN-ACK").header.to_vec()
    }

    #[test]
    fn the_answer_is_the_one_that_the_flow_believes_to_have_sent() {
        let options: [&[u8]; 5] = [
            &[],
            &[2, 4, 5, 0xb4],
            &[2, 4, 5, 0xb4, 4, 2, 1, 1],
            &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0, 1, 3, 3, 7],
            &[3, 3, 14, 1],
        ];
        for (seed, options) in (0x1234_5678_9abc_def0..).zip(options) {
            for buffer in [64 << 10, 4 << 20] {
                let mut syn = segment(segment::SYN, 0xffff_ffff, 0);
                syn[12] = (5 + options.len() as u8 / 4) << 4;
                syn.extend(options);
                let next_hop = NextHop { interface: 1, header: LinkHeader::None };
                let parsed = Segment::parse(&syn).expect("a segment");
                let handshake = Handshake::new(Duration::ZERO, next_hop, seed, &parsed, &syn);
                let mut ours = handshake.syn_ack(Duration::ZERO, 1460, buffer).expect("a SYN-ACK").to_vec();
                let mut theirs = answer_of_an_endpoint(&syn, seed, 1460, buffer);
                let length = ours.len();
                for bytes in [&mut ours, &mut theirs] {
                    if let Some((value, _)) = segment::timestamp(bytes) {
                        // The clock goes on between the two.
                        let value = value.to_be_bytes();
                        let at = bytes.windows(4).rposition(|four| four == value).expect("it is there");
                        bytes[at..at + 4].fill(0);
                    }
                }
                assert_eq!(ours, theirs, "{options:?} {length}");
            }
        }
    }

    #[test]
    fn a_cookie_is_redeemed_by_its_own_ack_alone_and_not_for_long() {
        let mut cookies = Cookies::default();
        let next_hop = NextHop { interface: 1, header: LinkHeader::None };
        let mut syn = segment(segment::SYN, 1000, 0);
        syn[12] = 6 << 4;
        syn.extend([2, 4, 5, 0xa0]);
        let parsed = Segment::parse(&syn).expect("a segment");
        let at = Duration::from_secs;
        let given = cookies.give(at(40), &tuple(1), next_hop, &parsed, &syn);
        assert_eq!(segment::max_segment_size(&given.syn), Some(1440));
        let ack = |sequence, acknowledgment| {
            Segment::parse(&segment(segment::ACK, sequence, acknowledgment)).expect("a segment")
        };
        let ours = given.ours.wrapping_add(1);
        let redeem = |seconds, tuple, ack| {
            let found = cookies.redeem(at(seconds), &tuple, next_hop, &ack, WINDOW as u16);
            found.map(|handshake| (handshake.seed, handshake.syn))
        };
        let expected = Some((given.seed, given.syn.clone()));
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
