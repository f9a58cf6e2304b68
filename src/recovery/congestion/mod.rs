//! Congestion control: one trait, three algorithms.
//!
//! Loss detection and RTT estimation feed an algorithm, which computes a window and, optionally, a
//! pacing rate. Windows are in bytes, rates in bytes a second.
mod bbr;
mod cubic;
mod hystart;
mod reno;
mod window_filter;

use std::{fmt, str::FromStr, time::Duration};

use super::{rate::RateSample, time::Instant};

/// Initial window, in segments (RFC 6928).
pub const INITIAL_WINDOW: u32 = 10;

/// Returns the window after an idle time (RFC 5681, section 4.1): it halves with each timeout, down
/// to the initial window (Linux's tcp_cwnd_restart()).
fn restart_window(window: u64, mss: u64, timeouts: u32) -> u64 {
    let floor = window.min(u64::from(INITIAL_WINDOW) * mss);
    window.checked_shr(timeouts).unwrap_or(0).max(floor)
}

/// Minimum ssthresh, in segments (RFC 5681, equation 4).
const MIN_SSTHRESH: u64 = 2;

/// The measurements of one batch of ACKs.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckSample {
    pub now: Instant,
    /// Bytes newly delivered, by cumulative acknowledgment or SACK.
    pub delivered: u64,
    /// Bytes newly marked lost.
    pub lost: u64,
    /// Bytes in flight after this batch.
    pub in_flight: u64,
    /// Bytes in flight before this batch.
    pub prior_in_flight: u64,
    /// The shortest round trip of this batch.
    pub rtt: Option<Duration>,
    /// ACKs of this batch that measured a round trip.
    pub rtt_samples: u32,
    pub smoothed_rtt: Option<Duration>,
    pub rate: Option<RateSample>,
    /// Bytes delivered since the start.
    pub total_delivered: u64,
    pub in_recovery: bool,
    /// SND.UNA advanced (RFC 3042: a duplicate ACK must not grow the window), and the window limits
    /// the sender, not the application or the peer.
    pub may_grow: bool,
}

/// A congestion control algorithm of one connection.
pub(super) trait CongestionControl: fmt::Debug + Send {
    /// Processes a batch of ACKs. Losses, if any, are reported before.
    fn on_ack(&mut self, sample: &AckSample);

    /// Reacts to the start of a fast recovery: once per round trip with losses.
    fn on_congestion(&mut self, now: Instant, in_flight: u64);

    /// Reacts to the retransmission timeout. `first` is false while losses of the last timeout are
    /// unrepaired.
    fn on_timeout(&mut self, now: Instant, in_flight: u64, first: bool);

    /// Reacts to the end of a recovery.
    fn on_recovery_end(&mut self, now: Instant);

    /// Undoes the reduction of the last congestion or timeout, which was spurious (RFC 4015).
    fn on_spurious(&mut self, now: Instant);

    /// Reacts to sending after `idle` with nothing in flight, which is `timeouts` retransmission
    /// timeouts long.
    fn on_restart(&mut self, now: Instant, idle: Duration, timeouts: u32);

    /// Sets the payload of a full segment to `mss` bytes after a change of the path's MTU.
    fn set_mss(&mut self, mss: u64);

    /// Returns the congestion window, in bytes.
    fn window(&self) -> u64;

    /// Returns the slow-start threshold, in bytes; `u64::MAX` before the first loss.
    fn ssthresh(&self) -> u64;

    /// Returns the pacing rate, in bytes a second; `None` leaves the timing to the ACKs.
    fn pacing_rate(&self) -> Option<u64>;

    /// Returns whether proportional rate reduction governs this algorithm's fast recoveries.
    fn reduces_proportionally(&self) -> bool {
        true
    }

    /// Returns whether the window is deliberately smaller than the path's capacity. Rate samples
    /// then underestimate the bandwidth.
    fn holds_back(&self) -> bool {
        false
    }

    /// Returns the estimated bandwidth, in bytes a second, if the algorithm has an estimate.
    fn bandwidth(&self) -> Option<u64> {
        None
    }
}

/// The algorithms, under their Linux names (net.ipv4.tcp_congestion_control).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// CUBIC (RFC 9438) with HyStart++ (RFC 9406).
    #[default]
    Cubic,
    /// BBR version 1, as in Linux.
    Bbr,
    /// Reno (RFC 5681), with NewReno's response to a loss.
    Reno,
}

impl Algorithm {
    /// All algorithms, the default first.
    pub const ALL: [Algorithm; 3] = [Algorithm::Cubic, Algorithm::Bbr, Algorithm::Reno];

    /// Returns a controller for a connection whose full segments carry `mss` bytes, and which begins with a
    /// window of `initial` segments.
    pub(super) fn start(self, mss: u64, initial: u32) -> Box<dyn CongestionControl> {
        match self {
            Algorithm::Cubic => Box::new(cubic::Cubic::new(mss, initial)),
            Algorithm::Bbr => Box::new(bbr::Bbr::new(mss, initial)),
            Algorithm::Reno => Box::new(reno::Reno::new(mss, initial)),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Algorithm::Cubic => "cubic",
            Algorithm::Bbr => "bbr",
            Algorithm::Reno => "reno",
        })
    }
}

/// The error for a name that [`Algorithm::from_str`] does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no congestion control \"{0}\"; choose cubic, bbr or reno")]
pub struct UnknownAlgorithm(String);

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.to_string() == name)
            .ok_or_else(|| UnknownAlgorithm(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_window_halves_down_to_the_initial_one() {
        let windows = [0, 1, 2, 3, 200].map(|timeouts| restart_window(64_000, 1000, timeouts));
        assert_eq!(windows, [64_000, 32_000, 16_000, 10_000, 10_000]);
        assert_eq!(restart_window(3_000, 1000, 5), 3_000);
    }

    #[test]
    fn a_route_may_set_another_initial_window() {
        for algorithm in Algorithm::ALL {
            for segments in [1, INITIAL_WINDOW, 40] {
                assert_eq!(
                    algorithm.start(1000, segments).window(),
                    u64::from(segments) * 1000,
                    "{algorithm}"
                );
            }
        }
    }

    #[test]
    fn names_round_trip() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        }
        assert!("vegas".parse::<Algorithm>().is_err());
    }
}
