//! Path MTU black holes: paths that drop large segments silently (RFC 4821; RFC 8899).
//!
//! Where ICMP is filtered, a connection whose segments exceed the path's MTU hangs: the handshake
//! passes, full segments never do. So when a full segment times out repeatedly and nothing else
//! arrives either, the next attempt uses smaller ones.
//!
//! The cause may have been a mere outage, or the step too large. So once data is delivered again,
//! single segments of new data probe for more, the original size first, then by bisection. The loss
//! of a probe is no congestion. Sizes are MSS values as in the SYN: the MTU less the IP header and
//! 20.
use std::time::Duration;

use super::time::Instant;

/// Consecutive timeouts that indicate a black hole (Linux's tcp_retries1).
const SUSPICIOUS_TIMEOUTS: u32 = 3;
/// Fallback sizes, in bytes: for IPv6's minimum MTU of 1280, and RFC 9293's default.
const STEPS: [u64; 2] = [1220, 536];
/// Probes of one size before it counts as too large (three in RFC 8899, section 5.1.2; TCP repairs
/// a lost one).
const MAX_PROBES: u32 = 2;
/// Difference at which a search ends, in bytes.
const PRECISION: u64 = 16;
/// Time until a search repeats, because the path may have changed: RFC 8899's PMTU_RAISE_TIMER.
const RAISE_AFTER: Duration = Duration::from_secs(600);

/// The detection of a black hole, and the search for a size that passes.
#[derive(Debug)]
pub(super) struct PathMtu {
    /// The limit of the link, or that of an ICMP message.
    ceiling: u64,
    /// Timeouts of full segments since the last progress.
    timeouts: u32,
    search: Option<Search>,
}

/// A search for a larger size after a black hole.
#[derive(Debug)]
struct Search {
    /// The smallest size known to fail, or the ceiling and one.
    fails: u64,
    candidate: u64,
    probes: u32,
    not_before: Option<Instant>,
    /// The stream offsets of the probe in flight.
    probe_in_flight: Option<(u64, u64)>,
}

impl PathMtu {
    pub(crate) fn new(ceiling: u64) -> Self {
        PathMtu { ceiling, timeouts: 0, search: None }
    }

    /// Sets the size that an ICMP message reported; ends a search.
    pub(crate) fn learn(&mut self, size: u64) {
        *self = PathMtu::new(size);
    }

    /// Notes a delivery at `now`.
    pub(crate) fn on_progress(&mut self, now: Instant) {
        self.timeouts = 0;
        if let Some(search) = &mut self.search {
            search.not_before.get_or_insert(now);
        }
    }

    /// Handles a retransmission timeout. `full` says that the segment was as large as `size`
    /// allows. Returns a smaller size to try, if this is a black hole.
    pub(crate) fn on_timeout(&mut self, size: u64, full: bool) -> Option<u64> {
        self.on_probe_lost(size);
        if !full {
            return None;
        }
        self.timeouts += 1;
        if self.timeouts < SUSPICIOUS_TIMEOUTS {
            return None;
        }
        let smaller = STEPS.into_iter().find(|step| *step < size)?;
        self.timeouts = 0;
        self.search = Some(Search {
            fails: self.ceiling + 1,
            candidate: self.ceiling,
            probes: 0,
            not_before: None,
            probe_in_flight: None,
        });
        Some(smaller)
    }

    /// Returns whether the path has lost full segments silently, and no larger size has been found since.
    pub(crate) fn is_searching(&self) -> bool {
        self.search.is_some()
    }

    /// Returns the size to probe for now, if any.
    pub(crate) fn candidate(&self, now: Instant) -> Option<u64> {
        let search = self.search.as_ref()?;
        let due = search.not_before.is_some_and(|at| at <= now);
        (due && search.probe_in_flight.is_none()).then_some(search.candidate)
    }

    /// Records that a probe leaves, with the stream's bytes from `start` to `end`.
    pub(crate) fn on_probe_sent(&mut self, start: u64, end: u64) {
        if let Some(search) = &mut self.search {
            search.probe_in_flight = Some((start, end));
        }
    }

    /// Returns the probe in flight.
    pub(crate) fn probe_in_flight(&self) -> Option<(u64, u64)> {
        self.search.as_ref()?.probe_in_flight
    }

    /// Processes the acknowledgment of everything below `una`, while segments of `size` are sent.
    /// Returns a larger size if a probe arrived.
    pub(crate) fn on_acknowledged(&mut self, now: Instant, una: u64, size: u64) -> Option<u64> {
        let search = self.search.as_mut()?;
        if search.probe_in_flight.is_none_or(|(_, end)| una < end) {
            return None;
        }
        let found = search.candidate.max(size);
        search.probe_in_flight = None;
        if found == self.ceiling {
            self.search = None;
        } else {
            search.narrow(now, found, self.ceiling);
        }
        Some(found)
    }

    /// Processes the loss of the probe in flight, if there is one, while segments of `size` are
    /// sent.
    pub(crate) fn on_probe_lost(&mut self, size: u64) {
        let ceiling = self.ceiling;
        let Some(search) = &mut self.search else { return };
        if search.probe_in_flight.take().is_none() {
            return;
        }
        search.probes += 1;
        if search.probes >= MAX_PROBES {
            search.fails = search.candidate;
            search.narrow(search.not_before.unwrap_or_default(), size, ceiling);
        }
    }
}

impl Search {
    /// Continues the search between `works` and the size that fails. When the difference is small,
    /// restarts from the top much later.
    fn narrow(&mut self, now: Instant, works: u64, ceiling: u64) {
        self.probes = 0;
        if self.fails.saturating_sub(works) > PRECISION {
            self.candidate = works + (self.fails - works) / 2;
        } else {
            self.fails = ceiling + 1;
            self.candidate = ceiling;
            self.not_before = Some(now + RAISE_AFTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds the black hole below 1460, then probes on a path that carries `most`. Returns the
    /// sizes probed.
    fn search(most: u64) -> (Vec<u64>, u64) {
        let mut path = PathMtu::new(1460);
        let timeouts = [1460; 3].map(|size| path.on_timeout(size, true));
        assert_eq!(timeouts, [None, None, Some(1220)]);
        assert_eq!(path.candidate(Instant::ZERO), None, "nothing has arrived yet");
        path.on_progress(Instant::ZERO);
        let (mut size, mut probed) = (1220, Vec::new());
        while let Some(candidate) = path.candidate(Instant::ZERO) {
            assert!(probed.len() < 30, "{probed:?}");
            probed.push(candidate);
            path.on_probe_sent(5, 10);
            if candidate <= most {
                assert_eq!(path.on_acknowledged(Instant::ZERO, 9, size), None);
                size = path.on_acknowledged(Instant::ZERO, 10, size).expect("the probe arrived");
            } else {
                path.on_probe_lost(size);
            }
        }
        (probed, size)
    }

    #[test]
    fn an_outage_is_no_black_hole() {
        assert_eq!(search(1460), (vec![1460], 1460));
    }

    #[test]
    fn the_search_comes_close() {
        let (probed, size) = search(1380);
        assert_eq!(probed[..3], [1460, 1460, 1340]);
        assert!((1364..=1380).contains(&size), "{size}: {probed:?}");
        assert!(probed.len() < 12, "{probed:?}");
    }

    #[test]
    fn it_looks_again_after_ten_minutes() {
        let mut path = PathMtu::new(1460);
        assert_eq!([1460; 3].map(|size| path.on_timeout(size, true)).last(), Some(&Some(1220)));
        path.on_progress(Instant::ZERO);
        while path.candidate(Instant::ZERO).is_some() {
            path.on_probe_sent(5, 10);
            path.on_probe_lost(1220);
        }
        assert_eq!(path.candidate(Instant::from_millis(599_000)), None);
        assert_eq!(path.candidate(Instant::from_millis(601_000)), Some(1460));
    }

    #[test]
    fn progress_clears_the_suspicion() {
        let mut path = PathMtu::new(1460);
        for _ in 0..5 {
            assert_eq!(path.on_timeout(1460, true), None);
            assert_eq!(path.on_timeout(1460, true), None);
            path.on_progress(Instant::ZERO);
        }
    }

    #[test]
    fn steps_end_at_the_least_size() {
        let mut path = PathMtu::new(1460);
        assert_eq!([1220; 3].map(|size| path.on_timeout(size, true)), [None, None, Some(536)]);
        assert_eq!([536; 4].map(|size| path.on_timeout(size, true)), [None; 4]);
        assert_eq!(
            [1460; 9].map(|size| path.on_timeout(size, false)),
            [None; 9],
            "small segments prove nothing"
        );
    }
}
