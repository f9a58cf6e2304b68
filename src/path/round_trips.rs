//! Round trips of a target: extremes, mean, percentiles, jitter, and a histogram.
use std::time::Duration;

/// Unit of a kept round trip, in nanoseconds: 32 bits of it hold seven minutes.
const UNIT: u64 = 100;
/// Share of the greatest to the least round trip from which a histogram's buckets grow instead of having one width.
const WIDE: u32 = 20;
/// Minimum buckets between the least and the greatest round trip.
const BUCKETS: u32 = 5;
/// Smallest width of a bucket, in units: a microsecond.
const LEAST_WIDTH: u32 = 10;

/// Round trips. Extremes, mean and jitter are those of all; percentiles and histogram those of the most recent.
#[derive(Clone, Debug)]
pub(crate) struct RoundTrips {
    /// The most recent, in units; a ring once it has `limit` of them.
    recent: Vec<u32>,
    limit: usize,
    count: u64,
    sum: Duration,
    /// Sum of the differences of consecutive round trips.
    variation: Duration,
    last: Option<Duration>,
    least: Duration,
    greatest: Duration,
}

/// The distribution of round trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Distribution {
    pub min: Duration,
    pub avg: Duration,
    pub p50: Duration,
    pub p95: Duration,
    pub p99: Duration,
    pub max: Duration,
    /// Mean difference of consecutive round trips (RFC 3393, section 4.2, without its sign).
    pub jitter: Duration,
}

/// A row of the histogram: the number of round trips from `from` on and less than `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub from: Duration,
    pub to: Duration,
    pub count: u64,
}

impl RoundTrips {
    /// Returns an empty collection, which keeps at most `limit` round trips, at least one.
    pub(crate) fn new(limit: usize) -> RoundTrips {
        RoundTrips {
            recent: Vec::new(),
            limit: limit.max(1),
            count: 0,
            sum: Duration::ZERO,
            variation: Duration::ZERO,
            last: None,
            least: Duration::MAX,
            greatest: Duration::ZERO,
        }
    }

    /// Adds a round trip.
    pub(crate) fn add(&mut self, time: Duration) {
        let units = u32::try_from(time.as_nanos() / u128::from(UNIT)).unwrap_or(u32::MAX);
        let at = (self.count % self.limit as u64) as usize;
        match self.recent.get_mut(at) {
            Some(oldest) => *oldest = units,
            None => self.recent.push(units),
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(time);
        let before = self.last.replace(time).unwrap_or(time);
        self.variation = self.variation.saturating_add(time.abs_diff(before));
        self.least = self.least.min(time);
        self.greatest = self.greatest.max(time);
    }

    /// Returns the last round trip, and the mean of all; `None` without a round trip.
    pub(crate) fn last(&self) -> Option<(Duration, Duration)> {
        Some((self.last?, mean(self.sum, self.count)))
    }

    /// Returns the distribution; `None` without a round trip.
    pub(crate) fn distribution(&self) -> Option<Distribution> {
        let sorted = self.sorted();
        // The nearest rank: the smallest value that this share of all does not exceed.
        let percentile = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().map(duration)
        };
        Some(Distribution {
            p50: percentile(50)?,
            p95: percentile(95)?,
            p99: percentile(99)?,
            min: self.least,
            max: self.greatest,
            avg: mean(self.sum, self.count),
            jitter: mean(self.variation, self.count.saturating_sub(1)),
        })
    }

    /// Returns the histogram. Its buckets have one width, or grow in steps of 1, 2, 5 where round trips differ a lot.
    pub(crate) fn histogram(&self) -> Vec<Bucket> {
        let sorted = self.sorted();
        let (Some(least), Some(greatest)) = (sorted.first(), sorted.last()) else { return Vec::new() };
        let edges = edges(*least, *greatest);
        let below = |edge: u32| sorted.partition_point(|units| *units < edge) as u64;
        let rows = edges.iter().zip(edges.iter().skip(1));
        rows.map(|(from, to)| Bucket {
            from: duration(*from),
            to: duration(*to),
            count: below(*to) - below(*from),
        })
        .collect()
    }

    fn sorted(&self) -> Vec<u32> {
        let mut sorted = self.recent.clone();
        sorted.sort_unstable();
        sorted
    }
}

fn duration(units: u32) -> Duration {
    Duration::from_nanos(u64::from(units) * UNIT)
}

fn mean(sum: Duration, count: u64) -> Duration {
    match count {
        0 => Duration::ZERO,
        count => Duration::from_nanos((sum.as_nanos() / u128::from(count)) as u64),
    }
}

/// Returns the numbers of the series 1, 2, 5, 10, ….
fn series() -> impl Iterator<Item = u32> {
    let decades = (0..10).map(|exponent| 10_u32.pow(exponent));
    decades.flat_map(|decade| [1, 2, 5].into_iter().filter_map(move |step| decade.checked_mul(step)))
}

/// Returns the edges of buckets that hold all from `least` to `greatest`, in units.
fn edges(least: u32, greatest: u32) -> Vec<u32> {
    if greatest / WIDE >= least.max(1) {
        let from = series().take_while(|edge| *edge <= least).last().unwrap_or(0);
        let between = series().filter(|edge| *edge > from && *edge <= greatest);
        let end = series().find(|edge| *edge > greatest).unwrap_or(u32::MAX);
        return std::iter::once(from).chain(between).chain([end]).collect();
    }
    let range = greatest - least;
    let fits = |width: &u32| range / *width >= BUCKETS;
    let width = series().filter(|width| *width >= LEAST_WIDTH).take_while(fits).last().unwrap_or(LEAST_WIDTH);
    let (first, last) = (least / width, greatest / width);
    (first..=last + 1).map(|edge| edge.saturating_mul(width)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(milliseconds: &[u64]) -> RoundTrips {
        let mut all = RoundTrips::new(1000);
        milliseconds.iter().for_each(|ms| all.add(Duration::from_millis(*ms)));
        all
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let ms = Duration::from_millis;
        let found = of(&(1..=200).rev().collect::<Vec<_>>()).distribution().expect("round trips");
        assert_eq!((found.min, found.max), (ms(1), ms(200)));
        assert_eq!((found.p50, found.p95, found.p99), (ms(100), ms(190), ms(198)));
        assert_eq!((found.avg, found.jitter), (Duration::from_micros(100_500), ms(1)));
        let one = of(&[7]).distribution().expect("a round trip");
        assert_eq!((one.p50, one.p99, one.jitter), (ms(7), ms(7), Duration::ZERO));
        assert_eq!(of(&[]).distribution(), None);
    }

    #[test]
    fn jitter_is_the_mean_step() {
        let found = of(&[10, 14, 11, 11]).distribution().expect("round trips");
        assert_eq!(found.jitter, Duration::from_nanos(7_000_000 / 3));
    }

    #[test]
    fn a_long_run_keeps_the_most_recent() {
        let mut all = RoundTrips::new(10);
        (1..=25).for_each(|ms| all.add(Duration::from_millis(ms)));
        let found = all.distribution().expect("round trips");
        assert_eq!((found.min, found.max), (Duration::from_millis(1), Duration::from_millis(25)));
        assert_eq!(found.p50, Duration::from_millis(20));
        assert_eq!(all.histogram().iter().map(|bucket| bucket.count).sum::<u64>(), 10);
    }

    #[test]
    fn buckets_have_one_width_or_grow() {
        let rows = |all: &RoundTrips| -> Vec<(u128, u128, u64)> {
            let row = |bucket: &Bucket| (bucket.from.as_millis(), bucket.to.as_millis(), bucket.count);
            all.histogram().iter().map(row).collect()
        };
        let narrow = of(&[100, 101, 119, 120, 121, 155]);
        let tens = [(100, 110, 2), (110, 120, 1), (120, 130, 2), (130, 140, 0), (140, 150, 0), (150, 160, 1)];
        assert_eq!(rows(&narrow), tens);
        let wide = of(&[1, 2, 3, 40, 999]);
        assert_eq!(rows(&wide).first(), Some(&(1, 2, 1)));
        assert_eq!(rows(&wide).last(), Some(&(500, 1000, 1)));
        assert_eq!(rows(&of(&[5, 5])), [(5, 5, 2)]);
    }

    proptest! {
        #[test]
        fn every_round_trip_has_a_bucket(times in proptest::collection::vec(any::<u64>(), 1..50)) {
            let mut all = RoundTrips::new(100);
            times.iter().for_each(|nanos| all.add(Duration::from_nanos(*nanos)));
            let rows = all.histogram();
            // Beyond seven minutes the last bucket is full.
            let far = times.iter().filter(|nanos| **nanos / UNIT >= u32::MAX.into()).count() as u64;
            let counted = rows.iter().map(|bucket| bucket.count).sum::<u64>();
            prop_assert!(counted + far >= times.len() as u64 && counted <= times.len() as u64);
            prop_assert!(rows.len() <= 60, "{}", rows.len());
        }
    }
}
