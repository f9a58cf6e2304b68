//! The timers that end a session: some time after the input's end (-q), or after silence (--idle-timeout).
use std::time::Duration;

/// Both timers of a session, over TCP or UDP.
#[derive(Clone, Debug)]
pub(crate) struct EndTimers {
    quit_after: Option<Duration>,
    idle_timeout: Option<Duration>,
    /// Time of the last byte, in either direction.
    moved_at: Duration,
    /// Time at which the input ended or, later, the peer last acknowledged new data.
    quit_from: Option<Duration>,
}

impl EndTimers {
    /// Returns the timers of a session that begins at `now`; a timer that is `None` never expires.
    pub(crate) fn new(
        now: Duration,
        quit_after: Option<Duration>,
        idle_timeout: Option<Duration>,
    ) -> EndTimers {
        EndTimers { quit_after, idle_timeout, moved_at: now, quit_from: None }
    }

    /// Notes that bytes moved, in either direction.
    pub(crate) fn moved(&mut self, now: Duration) {
        self.moved_at = now;
    }

    /// Starts the timer that `quit_after` sets.
    pub(crate) fn input_ended(&mut self, now: Duration) {
        self.quit_from = Some(now);
    }

    /// Notes that the peer acknowledged new data, which counts as traffic and restarts `quit_after`.
    pub(crate) fn acknowledged(&mut self, now: Duration) {
        self.moved_at = now;
        self.quit_from = self.quit_from.map(|_| now);
    }

    /// Returns when `quit_after` expires; `None` while the input goes on.
    pub(crate) fn quit_at(&self) -> Option<Duration> {
        Some(self.quit_from?.saturating_add(self.quit_after?))
    }

    /// Returns when the idle timeout expires.
    pub(crate) fn idle_at(&self) -> Option<Duration> {
        Some(self.moved_at.saturating_add(self.idle_timeout?))
    }
}
