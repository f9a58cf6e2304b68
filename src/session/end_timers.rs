//! When a conversation ends by the clock: some time after its input's end, or after a silence.
use std::time::Duration;

/// The two timers of a conversation, TCP's and UDP's alike.
#[derive(Clone, Debug)]
pub struct EndTimers {
    quit_after: Option<Duration>,
    idle_timeout: Option<Duration>,
    /// When a byte last moved, in either direction.
    moved_at: Duration,
    /// When the input ended or, later, the peer last acknowledged something new.
    quit_from: Option<Duration>,
}

impl EndTimers {
    /// Timers of a conversation that begins at `now`; a timer that is `None` never runs out.
    pub fn new(now: Duration, quit_after: Option<Duration>, idle_timeout: Option<Duration>) -> EndTimers {
        EndTimers { quit_after, idle_timeout, moved_at: now, quit_from: None }
    }

    /// Notes that bytes moved, in either direction.
    pub fn moved(&mut self, now: Duration) {
        self.moved_at = now;
    }

    /// Starts the timer that `quit_after` sets.
    pub fn input_ended(&mut self, now: Duration) {
        self.quit_from = Some(now);
    }

    /// Notes that the peer acknowledged something new: that is a movement, and what is left to deliver gets all of
    /// `quit_after` again.
    pub fn acknowledged(&mut self, now: Duration) {
        self.moved_at = now;
        self.quit_from = self.quit_from.map(|_| now);
    }

    /// When `quit_after` has passed; `None` while the input goes on.
    pub fn quit_at(&self) -> Option<Duration> {
        Some(self.quit_from?.saturating_add(self.quit_after?))
    }

    /// When the silence has lasted for the idle timeout.
    pub fn idle_at(&self) -> Option<Duration> {
        Some(self.moved_at.saturating_add(self.idle_timeout?))
    }
}
