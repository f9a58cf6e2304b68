//! Timers: retransmission (RFC 6298), tail loss probe (RFC 8985), reordering, persist (RFC 9293,
//! section 3.8.6.1) and user timeout.
use std::time::Duration;

use super::{
    Instant, Recovery, pacing,
    scoreboard::State,
    sender::{RecoveryPhase, Sender},
    tail_probe::{self, MAX_PROBES, TailProbe},
    time,
};

/// Minimum wait for a correction after the peer SACKed the head: the peer has discarded reported
/// data (tcp_check_sack_reneging()).
const RENEGING_DELAY: Duration = Duration::from_millis(10);
/// Maximum persist timeout, as that of retransmission.
const MAX_PERSIST: Duration = Duration::from_secs(120);

/// The persist timer: data waits, the window is shut, and nothing in flight elicits an ACK.
#[derive(Debug, Default)]
pub(super) struct Persist {
    at: Option<Instant>,
    probes: u32,
}

impl Persist {
    /// Stops the timer and its backoff.
    pub(crate) fn stop(&mut self) {
        *self = Persist::default();
    }

    /// Returns whether the timer runs.
    pub(crate) fn is_running(&self) -> bool {
        self.at.is_some()
    }

    /// Starts the timer unless it runs. Returns whether it has expired, and restarts it then, with
    /// backoff.
    pub(crate) fn poll(&mut self, now: Instant, rto: Duration) -> bool {
        let expired = self.at.is_some_and(|at| at <= now);
        if expired {
            self.probes += 1;
            self.at = None;
        }
        let wait = rto.saturating_mul(1 << self.probes.min(10)).min(MAX_PERSIST);
        self.at.get_or_insert(now + wait);
        expired
    }
}

/// The times from which the peer owes an ACK.
#[derive(Debug, Default)]
pub(super) struct UserTimeout {
    last_received: Instant,
    progress: Instant,
    waiting_since: Instant,
    /// The times of the first unanswered keep-alive and of the last one.
    keep_alive: Option<(Instant, Instant)>,
}

impl UserTimeout {
    /// Records that a valid segment arrived.
    pub(crate) fn on_segment_received(&mut self, now: Instant) {
        self.last_received = now;
        self.keep_alive = None;
    }

    /// Records a delivery.
    pub(crate) fn on_progress(&mut self, now: Instant) {
        self.progress = now;
    }

    /// Records that the first byte of a flight was sent, or that the persist timer started.
    pub(crate) fn on_wait(&mut self, now: Instant) {
        self.waiting_since = now;
    }

    /// Records that a keep-alive was sent.
    pub(crate) fn on_keep_alive_sent(&mut self, now: Instant) {
        let first = self.keep_alive.map_or(now, |(first, _)| first);
        self.keep_alive = Some((first, now));
    }
}

/// The state of all timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Start of the retransmission timer.
    pub rto_from: Instant,
    /// The head may be sent once into a shut window.
    pub head_probe: bool,
    /// The head was sent into a shut window.
    pub head_probed: bool,
    /// Start of the tail probe timer.
    pub probe_from: Instant,
    pub tail_probe: Option<TailProbe>,
    /// End of the reordering window of suspected losses.
    pub reordering_ends: Option<Instant>,
    pub persist: Persist,
    /// A window probe is due.
    pub window_probe: bool,
    pub user_timeout: UserTimeout,
    pub idle_since: Option<Instant>,
}

impl Timers {
    /// Starts the timers: the connection is established.
    pub(crate) fn start(&mut self, now: Instant) {
        self.rto_from = now;
        self.probe_from = now;
        self.user_timeout.on_segment_received(now);
    }
}

impl Recovery {
    /// Returns the time at which to call [`Recovery::poll_transmit`] again, if nothing happens
    /// before. Returns `now` if a segment waits already.
    pub fn poll_at(&self, now: Instant) -> Option<Instant> {
        if !self.control.is_empty() {
            return Some(now);
        }
        if !self.established {
            return self.negotiation.repeat_at();
        }
        // After our reset, nothing that arrives has any effect.
        if self.aborted {
            return None;
        }
        let acknowledgment = self.receiver.ack_at(self.sender.mss).map(|at| at.max(now));
        let keep_alive = self.sender.keep_alive_at(self.receiver.is_finished());
        self.sender.poll_at(now).into_iter().chain(acknowledgment).chain(keep_alive).min()
    }

    /// Returns the time of the next frame if pacing delays it by a quantum at most: a millisecond, and
    /// a small part of the round trip. Segments that arrive until then may wait for it: they change what
    /// leaves then, but not when. So one wake-up serves a frame and the ACKs of others.
    pub fn quantum_at(&self, now: Instant) -> Option<Instant> {
        let quiet = self.established && !self.aborted && self.control.is_empty();
        self.sender.quantum_at(now).filter(|_| quiet)
    }

    /// Returns whether data stayed unacknowledged, or keep-alives unanswered, for the user timeout.
    /// A peer that responds while its window is shut is alive (RFC 9293, section 3.8.6.1). The
    /// caller then resets the connection and informs the user.
    pub fn timed_out(&self, now: Instant) -> bool {
        self.sender.user_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Returns whether two consecutive timeouts or window probes brought no response: the next hop
    /// may have changed.
    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        self.sender.is_stalled(now)
    }

    /// Retransmits unacknowledged data at once, after the next hop changed.
    pub(crate) fn retry(&mut self, now: Instant) {
        self.sender.retry(now);
    }
}

impl Sender {
    /// Returns the time of the next timer.
    fn poll_at(&self, now: Instant) -> Option<Instant> {
        if self.batch.is_some() {
            return Some(now);
        }
        // May lie in the past: pacing held back a frame whose time may have come since.
        let pacing = self.pacing_blocked.then(|| self.pacer.next());
        let timers = [
            self.retransmit_at(),
            self.tail_probe_at(),
            self.timers.reordering_ends,
            self.timers.persist.at,
            self.user_deadline(),
            pacing,
        ];
        timers.into_iter().flatten().min()
    }

    fn quantum_at(&self, now: Instant) -> Option<Instant> {
        let next = self.pacer.next();
        let wait = next.since(now);
        let paced = self.pacing_blocked && self.batch.is_none();
        (paced && !wait.is_zero() && wait <= pacing::quantum(self.rtt.minimum())).then_some(next)
    }

    fn is_stalled(&self, now: Instant) -> bool {
        let silent = || now.since(self.timers.user_timeout.last_received) >= self.rtt.rto();
        self.rtt.timeouts() >= 2 || self.timers.persist.probes >= 2 && silent()
    }

    fn retry(&mut self, now: Instant) {
        self.rtt.reset_backoff();
        if !self.board.is_empty() {
            self.timers.rto_from =
                Instant::from_nanos(now.nanos().saturating_sub(time::nanos(self.rtt.rto())));
        }
        if self.timers.persist.is_running() {
            self.timers.persist = Persist { at: Some(now), probes: 0 };
        }
    }

    fn user_deadline(&self) -> Option<Instant> {
        let limit = self.config.user_timeout?;
        let timeout = &self.timers.user_timeout;
        let waiting = !self.board.is_empty() || self.timers.persist.at.is_some();
        let news = if self.space.edge <= self.space.una { timeout.last_received } else { timeout.progress };
        let data = waiting.then(|| news.max(timeout.waiting_since));
        let asked = timeout.keep_alive.map(|(first, _)| first);
        data.into_iter().chain(asked).min().map(|since| since + limit)
    }

    /// Returns the time of the next keep-alive, if no data waits for acknowledgment.
    pub(super) fn keep_alive_at(&self, peer_finished: bool) -> Option<Instant> {
        let interval = self.config.keep_alive?;
        let over = self.space.is_fin_acknowledged() && peer_finished;
        let last = self
            .timers
            .user_timeout
            .keep_alive
            .map_or(self.timers.user_timeout.last_received, |(_, last)| last);
        (self.space.outstanding() == 0 && !over).then(|| last + interval)
    }

    fn head_is_sacked(&self) -> bool {
        self.board.front().is_some_and(|head| head.state == State::Sacked)
    }

    /// Returns the time at which the retransmission timer expires. The timer runs while anything is
    /// unacknowledged, even if nothing is in flight because the peer SACKed everything and reneged.
    fn retransmit_at(&self) -> Option<Instant> {
        if self.board.is_empty() {
            return None;
        }
        let reneging = || self.rtt.smoothed().map_or(RENEGING_DELAY, |rtt| (rtt / 2).max(RENEGING_DELAY));
        Some(self.timers.rto_from + if self.head_is_sacked() { reneging() } else { self.rtt.rto() })
    }

    /// Returns the time of the next tail loss probe (RFC 8985, section 7.2). A recovery is probed
    /// as well, which that RFC leaves to the timeout: a retransmission may be the last of a flight,
    /// too, and its ACK may be lost (QUIC probes in every state: RFC 9002, section 6.2).
    fn tail_probe_at(&self) -> Option<Instant> {
        let nothing_else_tells = match self.phase {
            RecoveryPhase::Open => self.board.sacked() == 0,
            RecoveryPhase::Recovery { .. } => self.timers.reordering_ends.is_none() && !self.head_is_sacked(),
            RecoveryPhase::Loss { .. } => false,
        };
        let probes = self.probes_of_this_flight();
        let quiet = self.sack && probes < MAX_PROBES && self.board.in_flight() > 0 && nothing_else_tells;
        // The fill of a hole is acknowledged at once (RFC 5681, section 4.2).
        let lone = self.board.in_flight() <= self.mss && self.board.sacked() == 0;
        quiet.then(|| {
            self.timers.probe_from + tail_probe::timeout(self.rtt.smoothed(), lone, self.rtt.rto(), probes)
        })
    }

    /// Returns the probes of the current flight. An earlier flight's probe may be judged late or
    /// never, and does not count.
    pub(super) fn probes_of_this_flight(&self) -> u32 {
        self.timers.tail_probe.filter(|probe| self.space.una < probe.end).map_or(0, |probe| probe.number)
    }

    /// Handles every expired timer. Returns whether a tail loss probe is due.
    pub(super) fn run_timers(&mut self, now: Instant) -> bool {
        if self.timers.reordering_ends.is_some_and(|at| at <= now) {
            self.detect_losses(now, 0);
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        // A probe precedes the timeout if both are due (RFC 8985, section 7.2).
        if due(self.tail_probe_at()) {
            return true;
        }
        if due(self.retransmit_at()) {
            self.on_timeout(now);
        }
        false
    }

    /// Handles a retransmission timeout (RFC 6298, sections 5.4 to 5.6).
    fn on_timeout(&mut self, now: Instant) {
        self.stats.timeouts += 1;
        if self.head_is_sacked() {
            // RFC 2018, section 8.
            self.stats.reneged += 1;
            self.board.forget_sacks();
        }
        let full_head = self.board.front().is_some_and(|head| head.len() >= self.mss);
        let first = !matches!(self.phase, RecoveryPhase::Loss { .. });
        if self.phase == RecoveryPhase::Open {
            self.undo.begin(self.space.una);
        }
        self.stats.bytes_lost += self.board.mark_in_flight_lost();
        self.rtt.back_off();
        self.timers.rto_from = now;
        self.timers.tail_probe = None;
        self.timers.reordering_ends = None;
        self.duplicate_acks = 0;
        self.prr = None;
        self.timers.head_probe = true;
        self.phase = RecoveryPhase::Loss { until: self.space.nxt };
        self.congestion.on_timeout(now, self.in_flight(), first);
        self.pacer.reset(now);
        if let Some(link_mss) = self.path_mtu.on_timeout(self.link_mss, full_head) {
            self.resize_segments(now, link_mss);
        }
    }
}
