//! Time in this module: nanoseconds since a start that the caller chose.
//!
//! This module reads no clock. Every entry point takes the current time as an argument, so a
//! simulation replays to the nanosecond.
use std::{
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

/// A point in time, in nanoseconds since the caller's start. Arithmetic saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// The caller's start.
    pub const ZERO: Instant = Instant(0);

    /// Returns the time `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    /// Returns the time `millis` milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Instant(millis.saturating_mul(1_000_000))
    }

    /// Returns the nanoseconds since the start.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Returns the time passed since `earlier`; zero if `earlier` lies ahead.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Returns a duration in whole nanoseconds, as 64 bits (584 years are enough).
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the rate of a transfer of `bytes` in `time`, in bytes a second; zero for no time.
pub(super) fn bytes_per_second(bytes: u64, time: Duration) -> u64 {
    let time = u128::from(nanos(time));
    let rate = (u128::from(bytes) * 1_000_000_000).checked_div(time).unwrap_or(0);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Returns the bytes that `rate` bytes a second carry in `time`.
pub(super) fn bytes_in(rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(rate) * u128::from(nanos(time)) / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanos(duration)))
    }
}
