//! Congestion control: one trait, three answers.
//!
//! The layer finds losses and round trips; an algorithm turns them into a window and, if it wants, a pacing rate.
//! Windows are in bytes, rates in bytes a second.
mod bbr;
mod cubic;
mod hystart;
mod reno;
mod window_filter;

use std::{fmt, str::FromStr, time::Duration};

use super::{rate::RateSample, time::Instant};

/// RFC 6928: ten segments.
const INITIAL_WINDOW: u64 = 10;
/// What of a window survives an idle time (RFC 5681, section 4.1): as in Linux's tcp_cwnd_restart() it halves with
/// each timeout, down to the initial window.
fn restart_window(window: u64, mss: u64, timeouts: u32) -> u64 {
    let floor = window.min(INITIAL_WINDOW * mss);
    window.checked_shr(timeouts).unwrap_or(0).max(floor)
}

/// RFC 5681, equation 4: ssthresh never falls below two segments.
const MIN_SSTHRESH: u64 = 2;

/// What one batch of ACKs tells an algorithm.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckSample {
    pub now: Instant,
    /// Bytes newly delivered, by acknowledgment or SACK.
    pub delivered: u64,
    /// Bytes newly found lost.
    pub lost: u64,
    /// Bytes in flight, now and before this batch.
    pub in_flight: u64,
    pub prior_in_flight: u64,
    /// The shortest round trip of this batch, and how many ACKs told one.
    pub rtt: Option<Duration>,
    pub rtt_samples: u32,
    pub smoothed_rtt: Option<Duration>,
    pub rate: Option<RateSample>,
    /// Bytes delivered since the start.
    pub total_delivered: u64,
    pub in_recovery: bool,
    /// SND.UNA advanced (RFC 3042: a duplicate ACK must not grow the window), and the window, not the application
    /// or the peer, limits the sender.
    pub may_grow: bool,
}

/// An algorithm for one connection.
pub(super) trait CongestionControl: fmt::Debug + Send {
    /// A batch of ACKs was digested; losses, if any, were told before.
    fn on_ack(&mut self, sample: &AckSample);

    /// A fast recovery begins: once a round trip with losses.
    fn on_congestion(&mut self, now: Instant, in_flight: u64);

    /// The retransmission timer ran out; `first` unless the last timeout's losses are not repaired yet.
    fn on_timeout(&mut self, now: Instant, in_flight: u64, first: bool);

    /// The recovery is over.
    fn on_recovery_end(&mut self, now: Instant);

    /// The last congestion or timeout was none (RFC 4015).
    fn on_spurious(&mut self, now: Instant);

    /// Sending starts again after `idle` with nothing in flight; `timeouts` is how often the retransmission
    /// timeout fits into that.
    fn on_restart(&mut self, now: Instant, idle: Duration, timeouts: u32);

    /// The path's MTU has changed: a full segment is `mss` bytes now.
    fn set_mss(&mut self, mss: u64);

    /// Bytes that may be in flight.
    fn window(&self) -> u64;

    /// Where slow start ends; `u64::MAX` before the first loss.
    fn ssthresh(&self) -> u64;

    /// Bytes a second; `None` to send as ACKs allow.
    fn pacing_rate(&self) -> Option<u64>;

    /// Whether the layer applies proportional rate reduction during a fast recovery.
    fn reduces_proportionally(&self) -> bool {
        true
    }

    /// Whether it keeps the window below what the path takes for now: what is delivered then tells nothing of the
    /// path's bandwidth.
    fn holds_back(&self) -> bool {
        false
    }

    /// The estimated bandwidth in bytes a second, where there is one.
    fn bandwidth(&self) -> Option<u64> {
        None
    }
}

/// The algorithms, by the names that Linux gives them (net.ipv4.tcp_congestion_control).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RFC 9438, with HyStart++ (RFC 9406).
    #[default]
    Cubic,
    /// BBR version 1, as in Linux.
    Bbr,
    /// RFC 5681, with NewReno's response.
    Reno,
}

impl Algorithm {
    /// All of them, the default first.
    pub const ALL: [Algorithm; 3] = [Algorithm::Cubic, Algorithm::Bbr, Algorithm::Reno];

    pub(super) fn start(self, mss: u64) -> Box<dyn CongestionControl> {
        match self {
            Algorithm::Cubic => Box::new(cubic::Cubic::new(mss)),
            Algorithm::Bbr => Box::new(bbr::Bbr::new(mss)),
            Algorithm::Reno => Box::new(reno::Reno::new(mss)),
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

/// What [`Algorithm::from_str`] does not know.
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
    fn names_round_trip() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        }
        assert!("vegas".parse::<Algorithm>().is_err());
    }
}
