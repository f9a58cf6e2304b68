//! Paths that swallow large segments and say nothing (RFC 4821, section 7.7; RFC 8899).
//!
//! Where ICMP is filtered, a connection whose segments exceed the path's MTU hangs: the handshake passes, full
//! segments never do. So when a full segment times out repeatedly and nothing else arrives either, the next
//! attempt goes in smaller ones.

/// Timeouts in a row that make a black hole (Linux's tcp_retries1).
const SUSPICIOUS_TIMEOUTS: u32 = 3;
/// What to fall back to, as MSS: IPv6's minimum MTU of 1280, and RFC 9293's default.
const STEPS: [u64; 2] = [1220, 536];

#[derive(Debug, Default)]
pub(super) struct PathMtu {
    /// Timeouts of full segments since the last progress.
    timeouts: u32,
}

impl PathMtu {
    /// An ICMP message told: there is no black hole.
    pub fn learn(&mut self) {
        self.timeouts = 0;
    }

    /// Something was acknowledged.
    pub fn on_progress(&mut self) {
        self.timeouts = 0;
    }

    /// The timer ran out on a segment that was as large as `link_mss` allows. Returns a smaller one to try.
    pub fn on_timeout(&mut self, link_mss: u64) -> Option<u64> {
        self.timeouts += 1;
        if self.timeouts < SUSPICIOUS_TIMEOUTS {
            return None;
        }
        let smaller = STEPS.into_iter().find(|step| *step < link_mss)?;
        self.timeouts = 0;
        Some(smaller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_timeouts_step_down() {
        let mut path = PathMtu::default();
        let mut descend = |from| [path.on_timeout(from), path.on_timeout(from), path.on_timeout(from)];
        assert_eq!(descend(1460), [None, None, Some(1220)]);
        assert_eq!(descend(1220), [None, None, Some(536)]);
        assert_eq!(descend(536), [None, None, None], "nothing smaller is worth trying");
    }

    #[test]
    fn progress_clears_the_suspicion() {
        let mut path = PathMtu::default();
        for _ in 0..5 {
            assert_eq!(path.on_timeout(1460), None);
            path.on_progress();
        }
    }
}
