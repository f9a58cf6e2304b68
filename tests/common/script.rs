//! Packet scripts: the layer alone, with the test as its state machine, its peer and its clock.
//!
//! Data offsets count from the first byte of the stream: offset 0 is the initial sequence number plus one.
use std::time::Duration;

use netkat::{
    recovery::{
        Algorithm, Config, Event, INITIAL_WINDOW, Instant, MemoryPool, RTO_MIN, Recovery, SegmentOutcome,
    },
    segment::Segment,
};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;
/// The peer's first sequence number after its SYN.
pub const PEER: u32 = 9_001;

/// A segment that the layer sent, as on the wire (super-frames uncut).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Time since the script's start, in microseconds.
    pub at: Duration,
    pub seq: u32,
    pub offset: i64,
    pub len: usize,
    pub flags: u8,
    pub ack: u32,
    pub window: u16,
    pub timestamp: Option<u32>,
    pub gso: Option<u16>,
    pub header: Vec<u8>,
    pub payload: Vec<u8>,
}

/// The connection's terms.
#[derive(Clone, Debug)]
pub struct Terms {
    pub config: Config,
    /// Sizes of the buffers, in bytes.
    pub pool: MemoryPool,
    pub iss: u32,
    pub sack: bool,
    pub timestamps: bool,
    pub shift: u8,
    pub window: u16,
    pub rtt: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Terms {
            config: Config {
                send_buffer: 1 << 20,
                receive_buffer: 64_000,
                link_mss: 1012,
                advertised_mss: None,
                initial_window: INITIAL_WINDOW,
                rto_min: RTO_MIN,
                max_frame: 1000,
                algorithm: Algorithm::Cubic,
                user_timeout: None,
                keep_alive: None,
            },
            pool: MemoryPool::unlimited(),
            iss: u32::MAX - 2_500,
            sack: true,
            timestamps: true,
            shift: 7,
            window: 10_000,
            rtt: Duration::from_millis(40),
        }
    }
}

/// Returns terms with full segments of 1000 bytes and sequence numbers that wrap at offset 2500.
pub struct Script {
    pub layer: Recovery,
    pub terms: Terms,
    pub now: Instant,
    began: Instant,
    /// Sequence number of the stack's next byte.
    pub written: i64,
    /// The peer's next sequence number and clock.
    pub peer_seq: u32,
    pub peer_time: u32,
    /// The peer's timestamp echo: the last timestamp received, unless a script sets another.
    pub echo: Option<u32>,
    last_timestamp: u32,
}

impl Script {
    pub fn established(terms: Terms) -> Self {
        let mut script = Script::unconnected(terms);
        script.stack_segment(script.terms.iss, 0, SYN, &script.syn_options(), &[]);
        script.sent();
        script.advance(script.terms.rtt);
        let answer = script.syn_options();
        let shown =
            script.peer_sends(PEER - 1, script.terms.iss.wrapping_add(1), SYN | ACK, u16::MAX, &answer, &[]);
        assert_eq!(shown, SegmentOutcome::Handshake);
        script.events();
        let acks: Vec<_> = script.sent().iter().map(|s| (s.flags, s.ack)).collect();
        assert_eq!(acks, [(ACK, PEER)]);
        let window = script.terms.window;
        script.ack_with(0, &[], window);
        script.began = script.now;
        script
    }

    pub fn unconnected(terms: Terms) -> Self {
        let began = Instant::from_millis(1_000);
        Script {
            layer: Recovery::sharing(terms.config.clone(), &terms.pool),
            terms,
            now: began,
            began,
            written: 0,
            peer_seq: PEER,
            peer_time: 70_000,
            echo: None,
            last_timestamp: 0,
        }
    }

    /// Options of a SYN, as both sides offer them.
    pub fn syn_options(&self) -> Vec<u8> {
        let mut options = vec![2, 4, 0x05, 0xb4, 1, 3, 3, self.terms.shift];
        if self.terms.sack {
            options.extend([1, 1, 4, 2]);
        }
        if self.terms.timestamps {
            options.extend([1, 1, 8, 10]);
            options.extend(5_000u32.to_be_bytes());
            options.extend(0u32.to_be_bytes());
        }
        options
    }

    pub fn seq(&self, offset: i64) -> u32 {
        self.terms.iss.wrapping_add(1).wrapping_add(offset as u32)
    }

    fn stamp(&self, value: u32, echo: u32) -> Vec<u8> {
        if !self.terms.timestamps {
            return vec![];
        }
        let mut option = vec![1, 1, 8, 10];
        option.extend(value.to_be_bytes());
        option.extend(echo.to_be_bytes());
        option
    }

    /// Sends a segment of the state machine.
    pub fn stack_segment(&mut self, seq: u32, ack: u32, flags: u8, options: &[u8], payload: &[u8]) {
        let bytes = segment(seq, ack, flags, 64, options, payload, (1000, 2000));
        let Some(segment) = Segment::parse(&bytes) else { return };
        match (segment.is(SYN), segment.is(RST), segment.is(FIN)) {
            (true, _, _) => self.layer.send_syn(self.now, &segment),
            (_, true, _) => self.layer.send_reset(&segment),
            (_, _, true) => self.layer.send_fin(),
            _ => {}
        }
    }

    /// Writes the next `len` bytes of the stream as the user.
    pub fn write(&mut self, len: usize) {
        self.write_some(len, 1);
    }

    /// Writes `len` bytes as a user who has more to write.
    pub fn write_and_more(&mut self, len: usize) {
        self.write_some(len, 0);
    }

    /// Writes bytes so that `spare` bytes of room are left.
    fn write_some(&mut self, len: usize, spare: usize) {
        let end = self.written + len as i64;
        while self.written < end {
            let rest = stream(self.written, (end - self.written) as usize);
            let wrote = self.layer.write(rest.len() + spare, |room| {
                let len = rest.len().min(room.len());
                room[..len].copy_from_slice(&rest[..len]);
                Ok::<_, ()>(len)
            });
            assert!(wrote.is_ok_and(|len| len > 0), "there is room for what the script writes");
            self.written += wrote.unwrap_or(0) as i64;
        }
    }

    /// Ends the stream as the user.
    pub fn fin(&mut self) {
        let options = self.stamp(1, 1);
        self.stack_segment(self.seq(0), PEER, ACK | FIN, &options, &[]);
        self.written += 1;
    }

    /// Hands any segment of the peer to the layer.
    pub fn peer_sends(
        &mut self,
        seq: u32,
        ack: u32,
        flags: u8,
        window: u16,
        options: &[u8],
        payload: &[u8],
    ) -> SegmentOutcome {
        self.hear(&segment(seq, ack, flags, window, options, payload, (2000, 1000)))
    }

    /// Hands anything of the peer to the layer, and keeps the data in order.
    pub fn hear(&mut self, bytes: &[u8]) -> SegmentOutcome {
        let Some((segment, payload)) = Segment::split(bytes) else { return SegmentOutcome::Processed };
        match self.layer.handle_segment(self.now, &segment, payload) {
            SegmentOutcome::InOrder => {
                self.layer.keep(self.now, &segment, payload, 0);
                SegmentOutcome::Processed
            }
            outcome => outcome,
        }
    }

    /// Sends data in order as the peer, and acknowledges everything below `offset`.
    pub fn peer_data(&mut self, offset: i64, payload: &[u8]) {
        let options = self.stamp(self.peer_time, self.echo.unwrap_or(self.last_timestamp));
        let shown =
            self.peer_sends(self.peer_seq, self.seq(offset), ACK, self.terms.window, &options, payload);
        assert_eq!(shown, SegmentOutcome::Processed);
        self.peer_seq = self.peer_seq.wrapping_add(payload.len() as u32);
    }

    /// Reads everything as the user.
    pub fn read(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while self.layer.readable() > 0 {
            let taken = self.layer.read(usize::MAX, |bytes| {
                all.extend_from_slice(bytes);
                Ok::<_, ()>(bytes.len())
            });
            assert!(taken.is_ok_and(|len| len > 0), "there is something");
        }
        all
    }

    /// Returns the last timestamp that the layer sent.
    pub fn timestamp(&self) -> u32 {
        self.last_timestamp
    }

    /// Acknowledges everything below `offset` as the peer, with SACK blocks.
    pub fn ack_with(&mut self, offset: i64, blocks: &[(i64, i64)], window: u16) -> SegmentOutcome {
        let mut options = self.stamp(self.peer_time, self.echo.unwrap_or(self.last_timestamp));
        if !blocks.is_empty() {
            options.extend([1, 1, 5, 2 + 8 * blocks.len() as u8]);
            for (left, right) in blocks {
                options.extend(self.seq(*left).to_be_bytes());
                options.extend(self.seq(*right).to_be_bytes());
            }
        }
        self.peer_sends(self.peer_seq, self.seq(offset), ACK, window, &options, &[])
    }

    pub fn ack(&mut self, offset: i64) -> SegmentOutcome {
        self.ack_with(offset, &[], self.terms.window)
    }

    pub fn sack(&mut self, offset: i64, blocks: &[(i64, i64)]) -> SegmentOutcome {
        self.ack_with(offset, blocks, self.terms.window)
    }

    /// Returns the segments that the layer sends now.
    pub fn sent(&mut self) -> Vec<Sent> {
        let (at, base) = (self.now.since(self.began), self.seq(0));
        let mut all = Vec::new();
        while let Some(frame) = self.layer.poll_transmit(self.now) {
            let header = frame.header.to_vec();
            let field = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
            let timestamp = (header.len() >= 32 && header[22] == 8).then(|| field(24));
            self.last_timestamp = timestamp.unwrap_or(self.last_timestamp);
            let payload = frame.payload.concat();
            let offset = i64::from(field(4).wrapping_sub(base) as i32);
            if !payload.is_empty() {
                assert!(payload == stream(offset, payload.len()), "the stream is wrong at {offset}");
            }
            all.push(Sent {
                at,
                seq: field(4),
                offset,
                len: payload.len(),
                flags: header[13],
                ack: field(8),
                window: u16::from_be_bytes([header[14], header[15]]),
                timestamp,
                gso: frame.gso_size,
                payload,
                header,
            });
            assert!(all.len() < 10_000, "it never stops");
        }
        all
    }

    /// Returns offsets and lengths of the data and FINs sent now.
    pub fn data(&mut self) -> Vec<(i64, usize)> {
        self.sent().iter().filter(|s| s.len > 0 || s.flags & FIN != 0).map(|s| (s.offset, s.len)).collect()
    }

    /// Lets time pass without running the layer.
    pub fn advance(&mut self, time: Duration) {
        self.now += time;
    }

    /// Runs the layer by its own timers for `time`. Returns the segments sent.
    pub fn run(&mut self, time: Duration) -> Vec<Sent> {
        let end = self.now + time;
        let mut all: Vec<Sent> = self.sent();
        let mut turns = 0;
        while let Some(at) =
            self.layer.poll_at(self.now).filter(|at| *at <= end && !self.layer.timed_out(self.now))
        {
            self.now = self.now.max(at);
            self.events();
            all.extend(self.sent());
            turns += 1;
            assert!(turns < 10_000, "it spins: {:?}", self.layer);
        }
        self.now = end;
        all.extend(self.sent());
        all
    }

    /// Returns what the layer tells the state machine.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.layer.poll_event()).collect()
    }

    /// Returns the time since the script's start.
    pub fn sent_at(&self) -> Duration {
        self.now.since(self.began)
    }

    /// Returns the layer's timestamp clock, which goes on from the SYN's 5000.
    pub fn clock(&self) -> u32 {
        5_000 + (self.now.since(Instant::from_millis(1_000)).as_millis() as u32)
    }

    /// Measures one round trip: sends one segment, acknowledged after `rtt`. The stream then stands
    /// at 1000.
    pub fn measured(terms: Terms) -> Self {
        let mut script = Script::established(terms);
        script.write(1000);
        assert_eq!(script.data(), [(0, 1000)]);
        script.advance(script.terms.rtt);
        script.ack(1000);
        script.sent();
        script.began = script.now;
        script
    }
}

/// Returns the stream's bytes from `offset`.
pub fn stream(offset: i64, len: usize) -> Vec<u8> {
    (offset..offset + len as i64).map(|n| (n * 31 % 251) as u8).collect()
}

pub fn segment(
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: &[u8],
    payload: &[u8],
    (source, destination): (u16, u16),
) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let mut bytes = Vec::with_capacity(20 + options.len() + payload.len());
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.push(((20 + options.len()) / 4 * 16) as u8);
    bytes.push(flags);
    bytes.extend(window.to_be_bytes());
    bytes.extend([0xde, 0xad, 0, 0]);
    bytes.extend(options);
    bytes.extend(payload);
    bytes
}
