//! Measures the recovery layer's cost per segment, from the user's write to the acknowledgment:
//! without loss, and with one loss in a hundred segments, which SACK repairs.
mod common;

use std::{convert::Infallible, time::Duration};

use common::measure;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netkat::{
    recovery::{Algorithm, Config, INITIAL_WINDOW, Instant, RTO_MIN, Recovery, SegmentOutcome},
    segment::Segment,
};

const HEADER: usize = 20;
const MSS: usize = 1448;
const WINDOW_SHIFT: u8 = 10;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// The peer's initial sequence number.
const PEER: u32 = 7;
/// Time from a segment to its acknowledgment.
const ROUND_TRIP: Duration = Duration::from_micros(20);

/// Returns a TCP header with `options`, which must fill whole 32-bit words.
fn segment(seq: u32, ack: u32, flags: u8, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..4].copy_from_slice(&[0x12, 0x34, 0x56, 0x78]);
    bytes[4..8].copy_from_slice(&seq.to_be_bytes());
    bytes[8..12].copy_from_slice(&ack.to_be_bytes());
    bytes[12] = (((HEADER + options.len()) / 4) << 4) as u8;
    bytes[13] = flags;
    bytes[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    bytes.extend_from_slice(options);
    bytes
}

/// A connection with a minimal stack and peer.
struct Sender {
    layer: Recovery,
    now: Instant,
    /// Sequence number of the user's next byte.
    next: u32,
    /// Sequence number that the peer expects.
    acknowledged: u32,
}

impl Sender {
    fn new(algorithm: Algorithm) -> Sender {
        let layer = Recovery::new(Config {
            send_buffer: 4 << 20,
            receive_buffer: 4 << 20,
            link_mss: MSS as u16,
            advertised_mss: None,
            initial_window: INITIAL_WINDOW,
            rto_min: RTO_MIN,
            max_frame: 64_000,
            algorithm,
            user_timeout: None,
            keep_alive: None,
        });
        let mut sender = Sender { layer, now: Instant::ZERO, next: 100, acknowledged: 101 };
        // MSS, SACK permitted, window scale.
        let options = [2, 4, (MSS >> 8) as u8, MSS as u8, 4, 2, 1, 3, 3, WINDOW_SHIFT, 1, 1];
        let syn = Segment::parse(&segment(100, 0, SYN, &options)).expect("a segment");
        sender.layer.send_syn(sender.now, &syn);
        sender.transmit(|_, _| ());
        sender.next += 1;
        sender.now += ROUND_TRIP;
        assert_eq!(sender.hear(&segment(PEER, 101, SYN | ACK, &options)), SegmentOutcome::Handshake);
        sender.transmit(|_, _| ());
        assert!(sender.layer.is_established(), "the handshake is over");
        sender
    }

    /// Takes a segment of the peer.
    fn hear(&mut self, bytes: &[u8]) -> SegmentOutcome {
        let (segment, payload) = Segment::split(bytes).expect("a segment");
        let outcome = self.layer.handle_segment(self.now, &segment, payload);
        while self.layer.poll_event().is_some() {}
        outcome
    }

    /// Transmits all due segments. Passes their sequence number and payload length to `each`.
    fn transmit(&mut self, mut each: impl FnMut(u32, usize)) {
        while let Some(frame) = self.layer.poll_transmit(self.now) {
            let seq =
                u32::from_be_bytes([frame.header[4], frame.header[5], frame.header[6], frame.header[7]]);
            each(seq, frame.payload_len());
        }
    }

    /// Writes `payload` bytes as the user.
    fn send(&mut self, payload: usize) {
        let mut left = payload;
        while left > 0 {
            let Ok(written) = self.layer.write(usize::MAX, |room| Ok::<_, Infallible>(left.min(room.len())));
            assert!(written > 0, "there is room");
            left -= written;
        }
        self.next = self.next.wrapping_add(payload as u32);
    }

    /// Acknowledges as the peer the data in order, and reports the range behind a hole with SACK.
    fn acknowledge(&mut self, sacked: Option<(u32, u32)>) {
        self.now += ROUND_TRIP;
        let mut options = Vec::new();
        if let Some((from, to)) = sacked {
            options.extend_from_slice(&[1, 1, 5, 10]);
            options.extend_from_slice(&from.to_be_bytes());
            options.extend_from_slice(&to.to_be_bytes());
        }
        assert_eq!(
            self.hear(&segment(PEER + 1, self.acknowledged, ACK, &options)),
            SegmentOutcome::Processed
        );
    }

    /// Runs until the peer has acknowledged all data.
    fn settle(&mut self) {
        let mut turns = 0;
        while self.acknowledged != self.next {
            let mut end = self.acknowledged;
            self.transmit(|seq, len| end = seq.wrapping_add(len as u32));
            if end == self.acknowledged {
                // Pacing delays the segment.
                self.now = self.layer.poll_at(self.now).map_or(self.now + ROUND_TRIP, |at| at.max(self.now));
            } else {
                self.acknowledged = end;
                self.acknowledge(None);
            }
            turns += 1;
            assert!(turns < 10_000, "it goes on");
        }
    }

    /// Sends a hundred segments and loses the first. The peer reports the others and receives the
    /// retransmission.
    fn lose_one_of_a_hundred(&mut self) {
        let start = self.acknowledged;
        (0..100).for_each(|_| self.send(MSS));
        let mut end = start;
        self.transmit(|seq, len| end = seq.wrapping_add(len as u32));
        let hole = start.wrapping_add(MSS as u32);
        for turn in 1..=3 {
            let reported = end.wrapping_sub(hole) / 3 * turn;
            if reported > 0 {
                self.acknowledge(Some((hole, hole.wrapping_add(reported))));
            }
        }
        self.transmit(|_, _| ());
        self.acknowledged = end;
        self.acknowledge(None);
        self.settle();
    }
}

fn recovery(criterion: &mut Criterion) {
    for (name, algorithm) in [("bbr", Algorithm::Bbr), ("cubic", Algorithm::Cubic), ("reno", Algorithm::Reno)]
    {
        let mut group = criterion.benchmark_group(format!("recovery, {name}"));
        for (what, payload) in [("a segment", MSS), ("a super-frame", MSS * 44)] {
            let mut sender = Sender::new(algorithm);
            group.throughput(Throughput::Bytes(payload as u64));
            group.bench_function(what, |bencher| {
                measure(bencher, || {
                    sender.send(payload);
                    sender.settle();
                });
            });
        }
        let mut sender = Sender::new(algorithm);
        group.throughput(Throughput::Bytes(100 * MSS as u64));
        group.bench_function("100 segments, one lost", |bencher| {
            measure(bencher, || sender.lose_one_of_a_hundred());
            assert!(sender.layer.stats().segments_retransmitted > 0, "it was a loss");
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = recovery
}
criterion_main!(benches);
