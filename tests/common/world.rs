//! Two endpoints, two paths, one clock.
use std::time::Duration;

use netkat::recovery::{Algorithm, Config, INITIAL_WINDOW, Instant, MemoryPool, RTO_MIN};

use super::{
    endpoint::{Behaviour, Endpoint},
    path::{Path, PathConfig},
};

/// The parts of a simulation.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The path from host 0 to host 1, and the path back.
    pub paths: [PathConfig; 2],
    pub hosts: [Behaviour; 2],
    pub seed: u64,
    /// Both hosts open at once.
    pub simultaneous: bool,
}

impl Scenario {
    /// Returns a world in which host 0 sends `bytes` and host 1 reads them, over equal paths.
    pub fn transfer(algorithm: Algorithm, path: PathConfig, bytes: u64, seed: u64) -> Self {
        let config = Config {
            send_buffer: 4 << 20,
            receive_buffer: 6 << 20,
            link_mss: 1460,
            advertised_mss: None,
            initial_window: INITIAL_WINDOW,
            rto_min: RTO_MIN,
            max_frame: 64_000,
            algorithm,
            user_timeout: None,
            keep_alive: None,
        };
        let host = Behaviour {
            config,
            pool: MemoryPool::unlimited(),
            to_send: 0,
            echo: false,
            read_chunk: usize::MAX,
            read_every: Duration::ZERO,
            timestamps: true,
            seed,
        };
        let sender = Behaviour { to_send: bytes, ..host.clone() };
        let receiver = Behaviour { seed: seed ^ 0x5555, ..host };
        Scenario { paths: [path.clone(), path], hosts: [sender, receiver], seed, simultaneous: false }
    }
}

pub struct World {
    pub hosts: [Endpoint; 2],
    pub paths: [Path; 2],
    pub now: Instant,
    /// Highest acknowledgment that each host has received: no byte below may be retransmitted.
    acknowledged: [Option<u32>; 2],
    pub segments: [u64; 2],
}

impl World {
    pub fn new(scenario: &Scenario) -> Self {
        let [a, b] = scenario.hosts.clone();
        let [there, back] = scenario.paths.clone();
        World {
            hosts: [Endpoint::new(true, a), Endpoint::new(scenario.simultaneous, b)],
            paths: [Path::new(there, scenario.seed), Path::new(back, !scenario.seed)],
            now: Instant::ZERO,
            acknowledged: [None; 2],
            segments: [0; 2],
        }
    }

    /// Runs until both hosts are done, at most `limit` of simulated time. Returns whether they are
    /// done.
    pub fn run(&mut self, limit: Duration) -> bool {
        let end = self.now + limit;
        self.run_until(end, |world| world.hosts.iter().all(Endpoint::is_done))
    }

    pub fn run_until(&mut self, end: Instant, done: impl Fn(&World) -> bool) -> bool {
        let mut stuck = 0;
        loop {
            let before = self.segments;
            for index in 0..2 {
                let arrived = drain(&mut self.paths[1 - index], self.now);
                let now = self.now;
                let sent = self.step(index, now, arrived);
                sent.into_iter().for_each(|segment| self.paths[index].send(now, segment));
            }
            if done(self) {
                return true;
            }
            let hosts = self.hosts.iter_mut().filter_map(|host| host.next_at()).min();
            let paths = self.paths.iter().filter_map(|path| path.next_at()).min();
            let Some(next) = hosts.into_iter().chain(paths).min() else { return false };
            if next >= end {
                self.now = end;
                return false;
            }
            if next <= self.now && before == self.segments {
                stuck += 1;
                assert!(stuck < 1000, "something wants to run and does nothing: {:?}", self.hosts[0].layer);
                // smoltcp counts microseconds.
                self.now += Duration::from_micros(1);
            } else {
                stuck = 0;
                self.now = self.now.max(next);
            }
        }
    }

    /// Lets one host take its arrived segments. Returns the segments it sends.
    fn step(&mut self, index: usize, now: Instant, arrived: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        for segment in &arrived {
            if segment[13] & 0x10 != 0 {
                let ack = u32::from_be_bytes(segment[8..12].try_into().expect("four bytes"));
                let highest = self.acknowledged[index].get_or_insert(ack);
                if ack.wrapping_sub(*highest) as i32 > 0 {
                    *highest = ack;
                }
            }
        }
        self.hosts[index].run(now, arrived.into_iter());
        let acknowledged = self.acknowledged[index];
        let mut sent = Vec::new();
        self.hosts[index].transmit(now, |segment| {
            let seq = u32::from_be_bytes(segment[4..8].try_into().expect("four bytes"));
            let header = usize::from(segment[12] >> 4) * 4;
            if let Some(acknowledged) = acknowledged.filter(|_| segment.len() > header) {
                assert!(seq.wrapping_sub(acknowledged) as i32 >= 0, "an acknowledged byte is sent again");
            }
            sent.push(segment);
        });
        self.segments[index] += sent.len() as u64;
        sent
    }

    /// Returns host 1's receive rate until the end of the stream, in bytes a second.
    pub fn goodput(&self) -> f64 {
        let time = self.hosts[1].finished_reading.unwrap_or(self.now);
        self.hosts[1].received as f64 / time.since(Instant::ZERO).as_secs_f64()
    }
}

fn drain(path: &mut Path, now: Instant) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| path.receive(now)).collect()
}

/// Runs several connections through the first one's forward path as their common bottleneck, each
/// from its start time on. Returns the bytes that each delivered between `from` and `to`.
pub fn share(scenarios: &[(Scenario, Instant)], from: Instant, to: Instant) -> Vec<u64> {
    let mut worlds: Vec<_> = scenarios.iter().map(|(scenario, _)| World::new(scenario)).collect();
    let mut bottleneck = Path::new(scenarios[0].0.paths[0].clone(), scenarios[0].0.seed);
    let mut before = vec![0; worlds.len()];
    let mut now = Instant::ZERO;
    while now < to {
        // The last byte of a packet in the bottleneck is the number of its connection.
        let mut arrived: Vec<Vec<Vec<u8>>> = vec![Vec::new(); worlds.len()];
        for mut packet in drain(&mut bottleneck, now) {
            let owner = packet.pop().map_or(0, usize::from);
            arrived[owner].push(packet);
        }
        let mut next = bottleneck.next_at();
        for (index, (world, arrived)) in worlds.iter_mut().zip(arrived).enumerate() {
            let start = scenarios[index].1;
            if now < start {
                next = next.into_iter().chain([start]).min();
                continue;
            }
            let acks = world.step(1, now, arrived);
            acks.into_iter().for_each(|segment| world.paths[1].send(now, segment));
            let acks = drain(&mut world.paths[1], now);
            for mut packet in world.step(0, now, acks) {
                packet.push(index as u8);
                bottleneck.send(now, packet);
            }
            let hosts = world.hosts.iter_mut().filter_map(Endpoint::next_at).min();
            next = next.into_iter().chain(hosts).chain(world.paths[1].next_at()).min();
        }
        next = next.into_iter().chain(bottleneck.next_at()).min();
        now = next.map_or(to, |next| next.max(now + Duration::from_micros(1)));
        if now < from {
            before = worlds.iter().map(|world| world.hosts[1].received).collect();
        }
    }
    worlds.iter().zip(before).map(|(world, before)| world.hosts[1].received - before).collect()
}
