//! A host: a connection's states above its recovery layer, and an application above both.
use std::{collections::VecDeque, time::Duration};

use netkat::{
    recovery::{Config, Instant, MemoryPool, Recovery, SegmentOutcome},
    segment::{MAX_HEADER_LEN, SYN, Segment},
    stack::{State, StateMachine},
};

const PORT: u16 = 7;
/// The stream that every sender sends: a table whose length is prime to the length of every buffer.
const PATTERN: usize = 65_521;

/// A host's behaviour.
#[derive(Clone, Debug)]
pub struct Behaviour {
    pub config: Config,
    /// Sizes of the buffers, in bytes.
    pub pool: MemoryPool,
    /// Bytes to send before the close.
    pub to_send: u64,
    /// Echo received bytes instead, and close after the peer.
    pub echo: bool,
    /// Maximum bytes of one read by the application, and the interval of reads: a slow reader.
    pub read_chunk: usize,
    pub read_every: std::time::Duration,
    pub timestamps: bool,
    pub seed: u64,
}

pub struct Endpoint {
    pub behaviour: Behaviour,
    pub layer: Recovery,
    states: StateMachine,
    now: Instant,
    /// The timestamp clock has been set.
    clocked: bool,
    pattern: Vec<u8>,
    pub sent: u64,
    pub received: u64,
    pub echoed: VecDeque<u8>,
    next_read: Instant,
    pub finished_reading: Option<Instant>,
    /// Segments that wait for the next paced frame, and the time until which they do.
    waiting: Vec<Vec<u8>>,
    rests_until: Instant,
    /// Times at which the host had something to do.
    pub wake_ups: u64,
    due: Instant,
}

/// Start of the timestamp clock, so close to its end that the clock wraps soon.
const TIMESTAMP: u32 = 0xffff_fff0;

impl Endpoint {
    /// Connects host 0 to host 1, which listens; with `active`, both connect.
    pub fn new(active: bool, behaviour: Behaviour) -> Self {
        let mut layer = Recovery::sharing(behaviour.config.clone(), &behaviour.pool);
        let mss = behaviour.config.link_mss.into();
        let mut states = StateMachine::new(Duration::ZERO, mss, behaviour.seed, &mut layer);
        match active {
            true => states.connect(PORT, PORT),
            false => states.listen(PORT),
        }
        let pattern =
            (0..2 * PATTERN as u64).map(|n| (((n % PATTERN as u64) * 0x9e37_79b9) >> 7) as u8).collect();
        Endpoint {
            behaviour,
            layer,
            states,
            now: Instant::ZERO,
            clocked: false,
            pattern,
            sent: 0,
            received: 0,
            echoed: VecDeque::new(),
            next_read: Instant::ZERO,
            finished_reading: None,
            waiting: Vec::new(),
            rests_until: Instant::ZERO,
            wake_ups: 0,
            due: Instant::ZERO,
        }
    }

    pub fn state(&self) -> State {
        self.states.state()
    }

    /// Returns whether everything was sent, acknowledged and received.
    pub fn is_done(&self) -> bool {
        matches!(self.state(), State::Closed | State::TimeWait) && self.finished_reading.is_some()
    }

    pub fn abort(&mut self) {
        self.states.abort();
    }

    /// Takes the segments that have arrived, and runs the states and the application. As the event
    /// loop does, lets segments wait while pacing alone delays the next frame.
    pub fn run(&mut self, now: Instant, arrived: impl Iterator<Item = Vec<u8>>) {
        self.waiting.extend(arrived);
        if now < self.rests_until {
            return;
        }
        self.wake_ups += u64::from(!self.waiting.is_empty() || now >= self.due);
        self.now = now;
        std::mem::take(&mut self.waiting).iter().for_each(|bytes| self.hear(bytes));
        self.egress();
        self.application();
        self.egress();
    }

    fn hear(&mut self, bytes: &[u8]) {
        let Some((mut segment, payload)) = Segment::split(bytes) else { return };
        if segment.is(SYN) && !self.behaviour.timestamps {
            segment.options.timestamps = None;
        }
        let outcome = self.layer.handle_segment(self.now, &segment, payload);
        if outcome == SegmentOutcome::InOrder {
            self.layer.keep(self.now, &segment, payload, 0);
        }
        self.states.ingress(time(self.now), &segment, outcome, &mut self.layer);
    }

    fn egress(&mut self) {
        self.states.egress(time(self.now), &mut self.layer);
        if !self.clocked && matches!(self.state(), State::SynSent | State::SynReceived) {
            self.clocked = true;
            self.layer.set_clock(self.now, TIMESTAMP);
        }
    }

    fn application(&mut self) {
        if self.now >= self.next_read {
            let mut left = self.behaviour.read_chunk;
            while left > 0 && self.layer.readable() > 0 {
                let (received, echo) = (self.received, self.behaviour.echo);
                let taken = self.layer.read(left, |bytes| {
                    let len = bytes.len();
                    // A pure reader checks every byte; an echo's sender checks the bytes that come
                    // back.
                    let at = received as usize % PATTERN;
                    let len = len.min(PATTERN);
                    assert!(
                        bytes[..len] == self.pattern[at..at + len],
                        "the stream is wrong near byte {received}"
                    );
                    if echo {
                        self.echoed.extend(&bytes[..len]);
                    }
                    Ok::<_, std::convert::Infallible>(len)
                });
                let taken = taken.unwrap_or(0);
                self.received += taken as u64;
                left -= taken;
                self.next_read = self.now + self.behaviour.read_every;
                if echo && self.echoed.len() > 1 << 16 {
                    break;
                }
            }
        }
        if !self.states.may_receive()
            && self.layer.readable() == 0
            && self.states.state() != State::SynSent
            && self.states.state() != State::Listen
            && self.states.state() != State::SynReceived
        {
            self.finished_reading.get_or_insert(self.now);
        }
        if self.behaviour.echo {
            while !self.echoed.is_empty() && self.states.may_send() {
                let (front, _) = self.echoed.as_slices();
                let sent = send_slice(&mut self.layer, front);
                if sent == 0 {
                    break;
                }
                self.echoed.drain(..sent);
                self.sent += sent as u64;
            }
            if self.echoed.is_empty() && self.states.state() == State::CloseWait && self.layer.readable() == 0
            {
                self.states.close();
            }
            return;
        }
        while self.sent < self.behaviour.to_send && self.states.may_send() {
            let at = self.sent as usize % PATTERN;
            let len = (self.behaviour.to_send - self.sent).min(PATTERN as u64) as usize;
            let sent = send_slice(&mut self.layer, &self.pattern[at..at + len]);
            if sent == 0 {
                break;
            }
            self.sent += sent as u64;
        }
        let open = matches!(self.states.state(), State::Established | State::CloseWait);
        if open && self.sent == self.behaviour.to_send {
            self.states.close();
        }
    }

    /// Returns the time at which the host is due next.
    pub fn next_at(&mut self) -> Option<Instant> {
        let states = self.states.poll_at(time(self.now)).map(|at| Instant::from_nanos(at.as_nanos() as u64));
        let layer = self.layer.poll_at(self.now);
        let read = (self.layer.readable() > 0).then_some(self.next_read);
        [states, layer, read].into_iter().flatten().min()
    }

    /// Returns the segments to send now, super-frames cut as the link would cut them.
    pub fn transmit(&mut self, now: Instant, mut send: impl FnMut(Vec<u8>)) {
        if now < self.rests_until {
            return;
        }
        while let Some(frame) = self.layer.poll_transmit(now) {
            let payload = frame.payload.concat();
            let size = frame.gso_size.map_or(payload.len().max(1), usize::from);
            assert!(payload.len() <= size.max(self.behaviour.config.max_frame), "a frame is too large");
            let last = payload.len().div_ceil(size).max(1) - 1;
            for index in 0..=last {
                let part = &payload[index * size..((index + 1) * size).min(payload.len())];
                let mut segment = without_timestamps(frame.header, !self.behaviour.timestamps);
                let seq = u32::from_be_bytes(segment[4..8].try_into().expect("four bytes"));
                let seq = seq.wrapping_add((index * size) as u32);
                segment[4..8].copy_from_slice(&seq.to_be_bytes());
                if index < last {
                    segment[13] &= !0x09;
                }
                segment.extend_from_slice(part);
                send(segment);
            }
        }
        let next = self.next_at();
        self.due = next.unwrap_or(Instant::from_nanos(u64::MAX));
        self.rests_until = self.layer.quantum_at(now).map_or(Instant::ZERO, |at| at.min(self.due));
    }
}

fn send_slice(layer: &mut Recovery, bytes: &[u8]) -> usize {
    let sent = layer.write(usize::MAX, |room| {
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        Ok::<_, std::convert::Infallible>(len)
    });
    sent.unwrap_or(0)
}

/// Returns a header unchanged or, with `strip`, a SYN's header without timestamps.
fn without_timestamps(header: &[u8], strip: bool) -> Vec<u8> {
    match Segment::parse(header).filter(|segment| strip && segment.is(SYN)) {
        Some(mut syn) => {
            syn.options.timestamps = None;
            let mut out = [0; MAX_HEADER_LEN];
            let len = syn.write(&mut out);
            out[..len].to_vec()
        }
        None => header.to_vec(),
    }
}

fn time(now: Instant) -> Duration {
    Duration::from_nanos(now.nanos())
}
