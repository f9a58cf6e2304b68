//! One direction of an impaired path: frames go in, and come out when their time has come.
//!
//! Theory of operation: a frame that its verdict does not lose joins the bottleneck's queue (a
//! virtual clock tells until when the bottleneck is busy; a frame that would wait longer than the
//! queue's limit is dropped), then travels for the delay and jitter. Departures never run
//! backwards, so a plain queue holds the frames in flight. A frame to be reordered waits at the far
//! end until enough later ones have left, or until `PATIENCE` has passed, since a flow may fall
//! silent. No I/O and no clock: callers pass the time as the duration since any fixed moment.
use crate::impairment::{Impairment, Queue};
use std::{collections::VecDeque, time::Duration};

/// Maximum wait of a reordered frame for the later ones.
const PATIENCE: Duration = Duration::from_millis(20);

/// Counters of a path, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub offered: u64,
    pub lost: u64,
    pub too_large: u64,
    pub queue_full: u64,
    pub duplicated: u64,
    pub overtaken: u64,
    pub delivered: u64,
}

/// A frame in flight. `F` stands for a frame: bytes, or a number in a test.
struct Flight<F> {
    departure: Duration,
    frame: F,
    overtaken_by: u32,
}

/// A frame at the far end that waits to be reordered.
struct Held<F> {
    deadline: Duration,
    frame: F,
    left: u32,
}

/// One direction of a path.
pub struct Path<F> {
    impairment: Impairment,
    seed: u64,
    busy_until: Duration,
    last_departure: Duration,
    flights: VecDeque<Flight<F>>,
    held: Vec<Held<F>>,
    overtaken: VecDeque<F>,
    count: Count,
}

impl<F: Clone> Path<F> {
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            seed,
            busy_until: Duration::ZERO,
            last_departure: Duration::ZERO,
            flights: VecDeque::new(),
            held: Vec::new(),
            overtaken: VecDeque::new(),
            count: Count::default(),
        }
    }

    /// Returns whether the next frame, when offered, would come out at once and whole: then the caller may skip
    /// [`Path::offer`] and call [`Path::passed`] after it has forwarded the frame itself.
    pub fn is_clear(&self) -> bool {
        self.impairment == Impairment::default() && self.flights.is_empty()
    }

    /// Counts a frame that bypassed the path because the path [is clear](Path::is_clear).
    pub fn passed(&mut self) {
        self.count.offered += 1;
        self.count.delivered += 1;
    }

    /// Puts the next frame, `bytes` long on the wire, onto the path. `frame` is called only if the
    /// frame travels.
    pub fn offer(&mut self, now: Duration, bytes: usize, frame: impl FnOnce() -> F) {
        let verdict = self.impairment.verdict(self.seed, self.count.offered);
        self.count.offered += 1;
        if self.impairment.largest.is_some_and(|largest| bytes > largest) {
            self.count.too_large += 1;
            return;
        }
        if verdict.lost {
            self.count.lost += 1;
            return;
        }
        let Some(sent) = self.through_bottleneck(now, bytes) else {
            self.count.queue_full += 1;
            return;
        };
        let departure = (sent + self.impairment.delay + verdict.jitter).max(self.last_departure);
        self.last_departure = departure;
        let frame = frame();
        if verdict.duplicated {
            self.count.duplicated += 1;
            self.flights.push_back(Flight { departure, frame: frame.clone(), overtaken_by: 0 });
        }
        self.flights.push_back(Flight { departure, frame, overtaken_by: verdict.overtaken_by });
    }

    /// Returns the time at which the frame has left the bottleneck; `None` if the queue is full.
    fn through_bottleneck(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        let Some(rate) = self.impairment.rate else { return Some(now) };
        let time_on_wire = |bytes: u64| Duration::from_secs_f64(bytes as f64 * 8.0 / rate as f64);
        let backlog = self.busy_until.saturating_sub(now);
        let limit = match self.impairment.queue {
            Queue::Bytes(bytes) => time_on_wire(bytes),
            Queue::Time(time) => time,
        };
        if backlog > limit {
            return None;
        }
        self.busy_until = now + backlog + time_on_wire(bytes as u64);
        Some(self.busy_until)
    }

    /// Returns the next frame that has arrived by `now`.
    pub fn take(&mut self, now: Duration) -> Option<F> {
        let frame = self.next_arrival(now)?;
        self.count.delivered += 1;
        Some(frame)
    }

    fn next_arrival(&mut self, now: Duration) -> Option<F> {
        if let Some(frame) = self.overtaken.pop_front() {
            return Some(frame);
        }
        while self.flights.front().is_some_and(|f| f.departure <= now) {
            let flight = self.flights.pop_front()?;
            if flight.overtaken_by == 0 {
                self.overtake();
                return Some(flight.frame);
            }
            self.count.overtaken += 1;
            let deadline = flight.departure + PATIENCE;
            self.held.push(Held { deadline, frame: flight.frame, left: flight.overtaken_by });
        }
        let late = self.held.iter().position(|h| h.deadline <= now)?;
        Some(self.held.remove(late).frame)
    }

    /// Counts one more frame for those held back, and frees the ones whose last it was.
    fn overtake(&mut self) {
        for held in &mut self.held {
            held.left -= 1;
        }
        while let Some(done) = self.held.iter().position(|h| h.left == 0) {
            self.overtaken.push_back(self.held.remove(done).frame);
        }
    }

    /// Returns the time at which [`Path::take`] has a frame, zero for at once; `None` while the
    /// path is empty.
    pub fn next_time(&self) -> Option<Duration> {
        if !self.overtaken.is_empty() {
            return Some(Duration::ZERO);
        }
        let held = self.held.iter().map(|h| h.deadline).min();
        self.flights.front().map(|f| f.departure).into_iter().chain(held).min()
    }

    pub fn count(&self) -> Count {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn path(description: &str) -> Path<u32> {
        Path::new(description.parse().unwrap(), 1)
    }

    fn arrivals(path: &mut Path<u32>, now: Duration) -> Vec<u32> {
        std::iter::from_fn(|| path.take(now)).collect()
    }

    #[test]
    fn delay_holds_frames_for_its_time() {
        let mut path = path("delay=10ms");
        path.offer(MS, 1500, || 1);
        assert_eq!(path.next_time(), Some(MS * 11));
        assert_eq!(arrivals(&mut path, MS * 10), []);
        assert_eq!(arrivals(&mut path, MS * 11), [1]);
        assert_eq!(path.next_time(), None);
    }

    #[test]
    fn jitter_never_reorders() {
        let mut path = path("delay=1ms,jitter=50ms");
        (0..1000).for_each(|n| path.offer(MS * n, 100, || n));
        assert_eq!(arrivals(&mut path, MS * 2000), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_bottleneck_spaces_frames_and_drops_the_tail() {
        // 1 Mbit/s: 125 bytes a millisecond; 10 ms of queue.
        let mut path = path("rate=1mbit,queue=10ms");
        (0..50).for_each(|n| path.offer(Duration::ZERO, 125, || n));
        assert_eq!(arrivals(&mut path, MS * 3), [0, 1, 2]);
        assert_eq!(arrivals(&mut path, MS * 1000), (3..11).collect::<Vec<_>>());
        assert_eq!(path.count().queue_full, 39);
    }

    #[test]
    fn a_queue_in_bytes_is_as_long_as_they_take() {
        let mut path = path("rate=1mbit,queue=1kb");
        (0..50).for_each(|n| path.offer(Duration::ZERO, 125, || n));
        assert_eq!(arrivals(&mut path, MS * 1000).len(), 9);
    }

    #[test]
    fn long_frames_vanish() {
        let mut path = path("largest=1300b");
        assert!(!path.is_clear());
        for (n, bytes) in [60, 1300, 1301, 1514, 60].into_iter().enumerate() {
            path.offer(MS, bytes, || n as u32);
        }
        assert_eq!(arrivals(&mut path, MS), [0, 1, 4]);
        assert_eq!((path.count().too_large, path.count().lost), (2, 0));
    }

    #[test]
    fn overtaken_frames_arrive_after_as_many_as_their_verdict_says() {
        let mut path = path("reorder=10%,displacement=3");
        (0..10_000).for_each(|n| path.offer(Duration::ZERO, 100, || n));
        let mut seen = arrivals(&mut path, Duration::ZERO);
        assert!(seen.len() > 9_990 && seen.windows(2).any(|w| w[0] > w[1]), "{}", seen.len());
        assert!(seen.iter().enumerate().all(|(at, &n)| at.abs_diff(n as usize) < 30));
        seen.extend(arrivals(&mut path, PATIENCE));
        seen.sort_unstable();
        assert_eq!(seen, (0..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_held_frame_of_a_silent_flow_arrives_all_the_same() {
        let mut path = path("reorder=100%");
        path.offer(MS, 100, || 9);
        assert_eq!(arrivals(&mut path, MS), []);
        assert_eq!(path.next_time(), Some(MS + PATIENCE));
        assert_eq!(arrivals(&mut path, MS + PATIENCE), [9]);
    }

    #[test]
    fn every_frame_is_accounted_for() {
        let mut path = path("loss=10%,duplicate=10%,reorder=10%,rate=1gbit,queue=1ms");
        (0..10_000).for_each(|n| path.offer(MS * n / 100, 1500, || n));
        let arrived = arrivals(&mut path, MS * 10_000).len() as u64;
        let count = path.count();
        assert_eq!(count.delivered, arrived);
        assert_eq!(count.offered, 10_000);
        assert_eq!(count.offered + count.duplicated, count.delivered + count.lost + count.queue_full);
        assert!(count.lost > 0 && count.duplicated > 0 && count.overtaken > 0 && count.queue_full > 0);
    }
}
