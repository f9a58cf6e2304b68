//! A network path in memory: delay, jitter, loss, reordering, duplication, and a bottleneck with a
//! queue. Each run with one seed loses the same packets.
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use netkat::recovery::Instant;

/// SplitMix64 (Steele, Lea, Flood 2014), a generator that is small and random enough for losses.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns true with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        ((self.next() >> 11) as f64 / (1u64 << 53) as f64) < probability
    }

    /// Returns a random duration below `limit`.
    pub fn below(&mut self, limit: Duration) -> Duration {
        let nanos = limit.as_nanos() as u64;
        if nanos == 0 { Duration::ZERO } else { Duration::from_nanos(self.next() % nanos) }
    }
}

/// The impairments of one direction of a path.
#[derive(Clone, Debug)]
pub struct PathConfig {
    /// One-way propagation delay.
    pub delay: Duration,
    /// Maximum delay added to each packet, without reordering.
    pub jitter: Duration,
    /// Probabilities for each packet.
    pub loss: f64,
    pub reordering: f64,
    pub duplication: f64,
    /// Maximum time that a reordered packet is held back.
    pub held_back: Duration,
    /// Rate of the bottleneck in bytes a second; 0 for no bottleneck.
    pub rate: u64,
    /// Queue of the bottleneck, in bytes.
    pub queue: u64,
    /// Maximum payload: larger segments vanish (a black hole).
    pub max_payload: usize,
}

impl Default for PathConfig {
    fn default() -> Self {
        PathConfig {
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0.0,
            reordering: 0.0,
            duplication: 0.0,
            held_back: Duration::from_millis(2),
            rate: 0,
            queue: 1 << 20,
            max_payload: usize::MAX,
        }
    }
}

/// Length of link and IP headers around a segment, in bytes.
const OVERHEAD: u64 = 34;

pub struct Path {
    pub config: PathConfig,
    random: Random,
    in_flight: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    count: u64,
    free_at: Instant,
    last_arrival: Instant,
    pub lost: u64,
    pub overflowed: u64,
}

impl Path {
    pub fn new(config: PathConfig, seed: u64) -> Self {
        Path {
            config,
            random: Random::new(seed),
            in_flight: BinaryHeap::new(),
            count: 0,
            free_at: Instant::ZERO,
            last_arrival: Instant::ZERO,
            lost: 0,
            overflowed: 0,
        }
    }

    pub fn send(&mut self, now: Instant, packet: Vec<u8>) {
        let config = &self.config;
        if packet.len() > config.max_payload.saturating_add(32) || self.random.chance(config.loss) {
            self.lost += 1;
            return;
        }
        let mut leaves = now;
        if config.rate > 0 {
            let time = |bytes: u64| Duration::from_nanos(bytes * 1_000_000_000 / config.rate);
            if self.free_at.since(now) > time(config.queue) {
                self.overflowed += 1;
                return;
            }
            self.free_at = self.free_at.max(now) + time(packet.len() as u64 + OVERHEAD);
            leaves = self.free_at;
        }
        if self.random.chance(config.duplication) {
            let extra = self.random.below(config.held_back);
            self.push(leaves + self.config.delay + extra, packet.clone());
        }
        let config = &self.config;
        let arrives = leaves + config.delay;
        if self.random.chance(config.reordering) {
            let extra = self.random.below(config.held_back);
            self.push(arrives + extra, packet);
        } else {
            let arrives = arrives + self.random.below(config.jitter);
            self.last_arrival = self.last_arrival.max(arrives);
            self.push(self.last_arrival, packet);
        }
    }

    fn push(&mut self, at: Instant, packet: Vec<u8>) {
        self.count += 1;
        self.in_flight.push(Reverse((at, self.count, packet)));
    }

    /// Returns the next packet that has arrived.
    pub fn receive(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_at()? > now {
            return None;
        }
        self.in_flight.pop().map(|Reverse((_, _, packet))| packet)
    }

    pub fn next_at(&self) -> Option<Instant> {
        self.in_flight.peek().map(|Reverse((at, _, _))| *at)
    }
}
