//! Transfers over simulated paths: byte-exact, in bounded time, and at the speed that the path allows.
//!
//! The endpoints check every byte, and that no acknowledged data is retransmitted.
mod common;

use std::time::Duration;

use common::{
    path::PathConfig,
    world::{Scenario, World, share},
};
use netkat::recovery::{Algorithm, Instant, MemoryPool, Stats};
use proptest::prelude::*;

const MIB: f64 = (1 << 20) as f64;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The sender: one end, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    OneWay,
    BothWays,
    Echo,
}

const TRAFFIC: [Traffic; 3] = [Traffic::OneWay, Traffic::BothWays, Traffic::Echo];

/// Returns a transfer with small buffers, so that windows fill and shut.
fn exchange(algorithm: Algorithm, path: PathConfig, traffic: Traffic, bytes: u64, seed: u64) -> Scenario {
    let mut scenario = Scenario::transfer(algorithm, path, bytes, seed);
    for host in &mut scenario.hosts {
        host.config.receive_buffer = 1 << 16;
        host.config.send_buffer = 1 << 16;
        host.timestamps = !seed.is_multiple_of(4);
        host.config.max_frame = if seed.is_multiple_of(5) { 1448 } else { 64_000 };
    }
    scenario.simultaneous = seed.is_multiple_of(7);
    if seed.is_multiple_of(2) {
        scenario.hosts[1].read_chunk = 10_000;
        scenario.hosts[1].read_every = ms(1);
    }
    match traffic {
        Traffic::OneWay => {}
        Traffic::BothWays => scenario.hosts[1].to_send = bytes,
        Traffic::Echo => scenario.hosts[1].echo = true,
    }
    scenario
}

/// Runs to the end. On failure, the message tells how to repeat the run.
fn complete(scenario: &Scenario, limit: Duration) -> World {
    let mut world = World::new(scenario);
    assert!(
        world.run(limit),
        "stalled after {:?}: {scenario:?}\n{:#?}\n{:#?}",
        world.now,
        world.hosts[0].layer,
        world.hosts[1].layer
    );
    let expected = scenario.hosts[0].to_send;
    assert_eq!(world.hosts[1].received, expected);
    if scenario.hosts[1].echo {
        assert_eq!(world.hosts[0].received, expected);
    }
    world
}

#[test]
fn every_byte_arrives_whatever_the_path_does() {
    for seed in 0..40 {
        let path = PathConfig {
            delay: ms(5),
            loss: [0.01, 0.2, 0.05][seed as usize % 3],
            reordering: 0.1,
            duplication: 0.01,
            held_back: ms(3),
            rate: 100 << 20,
            ..PathConfig::default()
        };
        for algorithm in Algorithm::ALL {
            for traffic in TRAFFIC {
                complete(&exchange(algorithm, path.clone(), traffic, 300_000, seed), ms(400_000));
            }
        }
    }
}

/// Both receive queues are full, both windows are zero, and an ACK arrives on data that smoltcp
/// must refuse. Unless the ACK is processed all the same (see `stack_view`), both sides wait for
/// ever.
#[test]
fn an_echo_over_a_reordering_path_never_stalls() {
    for seed in 400..600 {
        let path = PathConfig {
            delay: ms(5),
            loss: 0.01,
            reordering: 0.1,
            held_back: ms(3),
            ..PathConfig::default()
        };
        let algorithm = Algorithm::ALL[seed as usize % 3];
        let mut scenario = exchange(algorithm, path, Traffic::Echo, 500_000, seed);
        for host in &mut scenario.hosts {
            host.config.receive_buffer = 1 << 14;
        }
        complete(&scenario, ms(60_000));
    }
}

#[test]
fn an_echo_survives_the_loss_of_every_fifth_packet() {
    for seed in 0..10 {
        let path = PathConfig { delay: ms(1), loss: 0.2, ..PathConfig::default() };
        complete(&exchange(Algorithm::Bbr, path, Traffic::Echo, 300_000, seed), ms(400_000));
    }
}

/// Slow readers: windows are zero most of the time.
#[test]
fn slow_readers_on_both_sides_lose_nothing() {
    for seed in 0..20 {
        let path = PathConfig { delay: ms(5), loss: 0.02, reordering: 0.05, ..PathConfig::default() };
        let mut scenario = exchange(Algorithm::Cubic, path, Traffic::BothWays, 500_000, seed);
        for host in &mut scenario.hosts {
            host.config.receive_buffer = 8_192;
            host.read_chunk = 3_000;
            host.read_every = ms(7);
        }
        complete(&scenario, ms(60_000));
    }
}

/// RFC 4821: full segments vanish without an ICMP message.
#[test]
fn a_black_hole_is_survived() {
    for seed in 1..4 {
        // A segment with timestamps is 1300 bytes and its header.
        let path = PathConfig { max_payload: 1300, ..PathConfig::default() };
        let world = complete(&exchange(Algorithm::Cubic, path, Traffic::BothWays, 500_000, seed), ms(20_000));
        for host in &world.hosts {
            let size = host.layer.stats().segment_size;
            assert!((1270..=1300).contains(&size), "the search ended at {size}");
        }
    }
}

/// A close completes within a second of the last ACK even when FINs are lost.
#[test]
fn closing_takes_no_longer_than_a_timeout() {
    let mut slow = 0;
    for seed in 0..60 {
        let path = PathConfig { delay: ms(5), loss: 0.1, ..PathConfig::default() };
        let mut world = World::new(&Scenario::transfer(Algorithm::Cubic, path, 100, seed));
        world.run_until(world.now + ms(60_000), |world| world.hosts[1].received == 100);
        let (arrived, end) = (world.now, world.now + ms(60_000));
        assert!(world.run_until(end, |world| world.hosts.iter().all(|host| host.finished_reading.is_some())));
        slow += u32::from(world.now.since(arrived) > ms(1_000));
    }
    assert!(slow <= 2, "{slow} of 60 took longer than a second");
}

mod goodput {
    use super::*;

    /// Returns goodput in MiB/s, the sender's statistics and the segments dropped by the queue: the
    /// median of three transfers, since a SYN or the very last segment may be lost.
    fn measure(algorithm: Algorithm, path: PathConfig, mebibytes: u64) -> (f64, Stats, u64) {
        let mut runs = [1, 2, 3].map(|seed| {
            let mut scenario = Scenario::transfer(algorithm, path.clone(), mebibytes << 20, seed);
            scenario.paths[1].rate = 0;
            scenario.paths[1].reordering = 0.0;
            let world = complete(&scenario, ms(120_000));
            (world.goodput() / MIB, world.hosts[0].layer.stats(), world.paths[0].overflowed)
        });
        runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        runs[1]
    }

    fn fast(delay: Duration, loss: f64) -> PathConfig {
        PathConfig { delay, loss, rate: 1 << 30, queue: 4 << 20, ..PathConfig::default() }
    }

    /// The link carries 976 MiB/s of payload.
    #[test]
    fn bbr_fills_a_short_path_that_loses() {
        for (loss, expected) in [(0.001, 930.0), (0.01, 900.0), (0.05, 850.0)] {
            let (goodput, ..) = measure(Algorithm::Bbr, fast(Duration::from_micros(50), loss), 60);
            assert!(goodput > expected, "{goodput:.0} MiB/s at {loss}");
        }
    }

    /// At 20 ms the send buffer of 4 MiB allows 200 MiB/s, and one round trip for a repair.
    #[test]
    fn bbr_keeps_a_long_path_busy() {
        for (loss, expected) in [(0.0, 140.0), (0.001, 80.0), (0.01, 55.0)] {
            let (goodput, stats, _) = measure(Algorithm::Bbr, fast(ms(10), loss), 100);
            assert!(goodput > expected, "{goodput:.0} MiB/s at {loss}");
            assert_eq!(stats.timeouts, 0, "at {loss}");
        }
    }

    /// At 95 MiB/s a super-frame takes 0.6 ms, and the receiver sends 34 ACKs a millisecond.
    #[test]
    fn a_paced_sender_wakes_up_for_frames_and_not_for_acks() {
        let path = PathConfig { delay: ms(10), rate: 100_000_000, queue: 1 << 20, ..PathConfig::default() };
        let mut scenario = Scenario::transfer(Algorithm::Bbr, path, 1 << 40, 1);
        scenario.paths[1].rate = 0;
        let mut world = World::new(&scenario);
        world.run_until(Instant::from_millis(1_000), |_| false);
        let before = (world.hosts[0].wake_ups, world.hosts[1].received);
        world.run_until(Instant::from_millis(2_000), |_| false);
        let wake_ups = world.hosts[0].wake_ups - before.0;
        let received = world.hosts[1].received - before.1;
        assert!(received > 90_000_000, "{received} bytes in a second");
        assert!(wake_ups < 2_500, "{wake_ups} wake-ups in a second");
    }

    /// RFC 9438, section 5.1: cubic's window at 20 ms and a loss rate of 0.1 % is Reno's, about 40
    /// segments.
    #[test]
    fn cubic_does_what_its_response_function_says() {
        let (goodput, ..) = measure(Algorithm::Cubic, fast(ms(10), 0.001), 60);
        assert!((1.8..40.0).contains(&goodput), "{goodput:.1} MiB/s");
        let (goodput, ..) = measure(Algorithm::Cubic, fast(ms(50), 0.0), 100);
        assert!(goodput > 25.0, "{goodput:.1} MiB/s without loss at 100 ms");
    }

    /// A path of 100 Mbit/s with 50 ms of queue is full, with few losses.
    #[test]
    fn a_bottleneck_is_filled_and_not_flooded() {
        for (algorithm, losses) in [(Algorithm::Bbr, 50), (Algorithm::Cubic, 60), (Algorithm::Reno, 700)] {
            let path =
                PathConfig { delay: ms(10), rate: 12_500_000, queue: 625_000, ..PathConfig::default() };
            let (goodput, _, overflowed) = measure(algorithm, path, 100);
            assert!(goodput > 10.2, "{algorithm}: {goodput:.1} of 11.4 MiB/s");
            assert!(overflowed <= losses, "{algorithm}: {overflowed} segments overflowed the queue");
        }
    }

    /// Every ten seconds bbr drains the path for 200 ms, here longer than its memory of the
    /// bandwidth.
    #[test]
    fn bbr_still_knows_the_bandwidth_after_a_look_at_the_round_trip() {
        let path = PathConfig { delay: ms(8), rate: 2_500_000, queue: 125_000, ..PathConfig::default() };
        let mut scenario = Scenario::transfer(Algorithm::Bbr, path, 1 << 40, 1);
        scenario.paths[1].rate = 0;
        let mut world = World::new(&scenario);
        world.run_until(Instant::from_millis(10_400), |_| false);
        let before = world.hosts[1].received;
        world.run_until(Instant::from_millis(11_400), |_| false);
        let second = world.hosts[1].received - before;
        assert!(second > 2_200_000, "{second} bytes in a second");
    }

    /// Returns Jain's index of two connections with one algorithm that share a bottleneck.
    #[test]
    fn a_bottleneck_is_shared() {
        for algorithm in [Algorithm::Cubic, Algorithm::Bbr] {
            let path =
                PathConfig { delay: ms(10), rate: 12_500_000, queue: 625_000, ..PathConfig::default() };
            let scenario = |seed| {
                let mut scenario = Scenario::transfer(algorithm, path.clone(), 1 << 40, seed);
                scenario.paths[1].rate = 0;
                scenario
            };
            let second = Instant::from_millis(1_000);
            let delivered =
                share(&[(scenario(1), Instant::ZERO), (scenario(2), second)], second, second + ms(20_000));
            let sum: u64 = delivered.iter().sum();
            let squares: f64 = delivered.iter().map(|bytes| (*bytes as f64).powi(2)).sum();
            let index = (sum as f64).powi(2) / (2.0 * squares);
            assert!(index > 0.9, "{algorithm}: {delivered:?}, Jain's index {index:.2}");
            assert!(sum > 200 << 20, "{algorithm}: {sum} bytes in 20 s");
        }
    }

    /// The path loses nothing and reorders 5 % of the packets by up to thirty places.
    #[test]
    fn reordering_is_not_taken_for_loss() {
        for algorithm in [Algorithm::Bbr, Algorithm::Cubic] {
            let path = PathConfig {
                reordering: 0.05,
                held_back: Duration::from_micros(400),
                rate: 100 << 20,
                queue: 4 << 20,
                ..PathConfig::default()
            };
            let (goodput, stats, _) = measure(algorithm, path, 60);
            assert!(goodput > 55.0, "{algorithm}: {goodput:.1} MiB/s");
            let needless = stats.segments_retransmitted as f64 / stats.segments_sent as f64;
            assert!(needless < 0.002, "{algorithm}: {needless:.4} of the segments went twice");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any path that delivers something delivers everything.
    #[test]
    fn any_path_that_delivers_something_delivers_everything(
        seed in any::<u64>(),
        delay in 0u64..60_000,
        jitter in 0u64..20_000,
        loss in 0.0..0.3,
        reordering in 0.0..0.5,
        duplication in 0.0..0.2,
        held_back in 0u64..50_000,
        rate in prop_oneof![Just(0u64), 100_000u64..100_000_000],
        queue in 20_000u64..1_000_000,
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        traffic in prop::sample::select(TRAFFIC.to_vec()),
        buffer in 3_000usize..100_000,
        memory in prop_oneof![Just(u64::MAX), 10_000u64..1_000_000],
        bytes in 0u64..150_000,
    ) {
        let micros = Duration::from_micros;
        let path = PathConfig {
            delay: micros(delay), jitter: micros(jitter), loss, reordering, duplication,
            held_back: micros(held_back), rate, queue, max_payload: usize::MAX,
        };
        let mut scenario = exchange(algorithm, path, traffic, bytes, seed);
        let pool = MemoryPool::new(memory);
        for host in &mut scenario.hosts {
            host.config.receive_buffer = buffer;
            host.config.send_buffer = buffer;
            host.pool = pool.clone();
        }
        complete(&scenario, Duration::from_secs(7_200));
    }
}
