//! A round of UDP probes at one address.
//!
//! Linux sends one peer six ICMP errors at once and then one a second (net.ipv4.icmp_ratelimit, net/ipv4/inetpeer.c,
//! XRLIM_BURST_FACTOR). If a host seems to do so, further rounds probe its silent ports for as long as any of them
//! answers.
use super::queue::Departure;
use std::time::Duration;

/// ICMP errors that Linux sends at once before it limits them.
const BURST: usize = 6;
/// Minimum wait of a port in a further round: longer than the interval of Linux's limit.
const FURTHER_WAIT: Duration = Duration::from_millis(1500);

/// A round of one address: each of its ports once, with its repetitions.
#[derive(Default)]
pub(super) struct Round {
    /// Targets without an answer, and the number of datagrams sent to each.
    pub silent: Vec<(Departure, u64)>,
    /// Number of ports that the host reported as unreachable.
    pub unreachable: usize,
    /// An ICMP error answered a repeated probe, not the first.
    pub repeated: bool,
    /// The round repeats another one.
    pub further: bool,
    /// Number of probes under way.
    pub under_way: usize,
}

impl Round {
    /// Returns the wait for each port of the round, where that of a first round is `wait`.
    pub(super) fn wait(&self, wait: Duration) -> Duration {
        if self.further { wait.max(FURTHER_WAIT) } else { wait }
    }

    /// Returns whether a further round follows: ports are silent, and the host seems to limit its ICMP errors.
    pub(super) fn goes_on(&self) -> bool {
        let limited = self.repeated || self.unreachable >= if self.further { 1 } else { BURST };
        limited && !self.silent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_silent_port_no_round_follows() {
        assert!(!Round { unreachable: 100, repeated: true, ..Round::default() }.goes_on());
    }

    #[test]
    fn a_further_round_waits_for_a_limited_error() {
        let wait = Duration::from_millis(300);
        assert_eq!(Round::default().wait(wait), wait);
        assert_eq!(Round { further: true, ..Round::default() }.wait(wait), FURTHER_WAIT);
    }
}
