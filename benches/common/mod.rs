//! The loop around a measured operation, which `scripts/bench-instructions` makes longer.
use std::hint::black_box;

use criterion::Bencher;

/// Measures `operation`. One iteration runs it as often as the environment variable
/// NETKAT_BENCH_REPEAT says, once by default: the instructions of two runs with different numbers
/// differ by those of the operation alone.
pub fn measure<O>(bencher: &mut Bencher<'_>, mut operation: impl FnMut() -> O) {
    let repeat = std::env::var("NETKAT_BENCH_REPEAT").ok().and_then(|times| times.parse().ok());
    let times: u32 = repeat.unwrap_or(1);
    bencher.iter(|| {
        for _ in 0..times {
            black_box(operation());
        }
    });
}
