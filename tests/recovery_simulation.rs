//! Transfers over simulated paths: byte-exact, in bounded time, and at the speed that the path allows.
mod common;

use std::time::Duration;

use common::{
    path::PathConfig,
    world::{Scenario, World},
};
use netkat::recovery::Algorithm;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn sweep() {
    for seed in 0..std::env::var("SEEDS").map_or(40, |s| s.parse().unwrap()) {
        for algorithm in Algorithm::ALL {
            for kind in 0..3 {
                let path = PathConfig {
                    delay: Duration::from_micros(5000),
                    loss: [0.01, 0.2, 0.05][seed as usize % 3],
                    reordering: 0.1,
                    duplication: 0.01,
                    held_back: ms(3),
                    rate: 100 << 20,
                    queue: 1 << 20,
                    ..PathConfig::default()
                };
                let mut scenario = Scenario::transfer(algorithm, path, 300_000, seed);
                for host in &mut scenario.hosts {
                    host.receive_buffer = 65536;
                    host.config.send_buffer = 65536;
                    host.timestamps = seed % 4 != 0;
                    host.config.max_frame = if seed % 5 == 0 { 1448 } else { 64000 };
                }
                scenario.simultaneous = seed % 7 == 0;
                scenario.hosts[1].read_chunk = if seed % 2 == 0 { 10_000 } else { usize::MAX };
                scenario.hosts[1].read_every = ms(1);
                match kind {
                    0 => {}
                    1 => scenario.hosts[1].to_send = 300_000,
                    _ => scenario.hosts[1].echo = true,
                }
                let mut world = World::new(&scenario);
                let done = world.run(ms(600_000));
                if !done {
                    println!(
                        "{algorithm} seed {seed} kind {kind} STALL at {:?} sent {} {} received {} {} states {:?} {:?}\n{:#?}\n{:#?}",
                        world.now,
                        world.hosts[0].sent,
                        world.hosts[1].sent,
                        world.hosts[0].received,
                        world.hosts[1].received,
                        world.hosts[0].state(),
                        world.hosts[1].state(),
                        world.hosts[0].layer,
                        world.hosts[1].layer
                    );
                    panic!();
                }
                if world.now.nanos() > 20_000_000_000 {
                    println!("{algorithm} seed {seed} kind {kind} took {}ms", world.now.nanos() / 1_000_000);
                }
            }
        }
    }
}
