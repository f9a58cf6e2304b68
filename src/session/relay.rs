//! The relay between two byte streams: decides when to send a FIN, when to wait, and when the session is
//! over.
//!
//! It does no I/O, and callers pass the time in. Callers report events ([`Relay::moved`],
//! [`Relay::input_ended`], [`Relay::output_closed`]) and then ask [`Relay::step`] what to do;
//! [`Relay::deadline`] says when to ask again.
//!
//! | input | peer | next step |
//! |---|---|---|
//! | open | open | both ways flow |
//! | ended | open | a FIN follows the last byte (unless `no_shutdown`); reading goes on until the peer ends, or `quit_after` has passed since the peer last acknowledged new data |
//! | open | ended | sending goes on until the input ends |
//! | ended | ended | done, once every byte sent is acknowledged |
//! | open | ended, `quit_on_peer_close` | as if the input had ended |
//! | `send_only` | | done once every byte sent is acknowledged; received data is dropped |
//! | `receive_only` | ended | done; the FIN was sent when the session began |
//!
//! A reset or a failing output ends both directions at once, as an error.
use super::end_timers::EndTimers;
use std::time::Duration;

/// The rules for ends and silence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Send no FIN when the input ends, until the peer ends (nc without -N).
    pub no_shutdown: bool,
    /// Exit this long after the input's end, even if the peer has not ended (nc -q).
    pub quit_after: Option<Duration>,
    /// Take no more input once the peer has ended.
    pub quit_on_peer_close: bool,
    /// Fail after this long without a byte in either direction.
    pub idle_timeout: Option<Duration>,
    /// Drop what the peer sends.
    pub send_only: bool,
    /// Send nothing.
    pub receive_only: bool,
}

/// The state of the connection, as far as the relay needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStatus {
    /// Room in the send buffer, in bytes.
    pub send_room: usize,
    /// Bytes in the send buffer: sent or not, but not acknowledged.
    pub unacknowledged: usize,
    /// Bytes in the receive buffer that wait to be written out.
    pub received: usize,
    /// The peer has ended its side, and everything it sent is written out.
    pub peer_finished: bool,
    /// Both directions are closed.
    pub closed: bool,
}

/// The relay's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Carry on.
    Relay,
    /// Send a FIN, then carry on.
    Shutdown,
    /// The session is over.
    Done(Outcome),
}

/// The way a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both directions ended and everything was delivered, or as much as `quit_after` and `send_only` wait
    /// for.
    Complete,
    /// `quit_after` passed with this many bytes unacknowledged.
    Undelivered(usize),
    /// Nothing moved for the idle timeout.
    Idle,
}

/// The state of one relay.
#[derive(Clone, Debug)]
pub struct Relay {
    policy: Policy,
    input_ended: bool,
    shut_down: bool,
    timers: EndTimers,
    unacknowledged: usize,
}

impl Relay {
    /// Returns the relay of a connection that was established at `now`.
    pub fn new(policy: Policy, now: Duration) -> Relay {
        let mut timers = EndTimers::new(now, policy.quit_after, policy.idle_timeout);
        if policy.receive_only {
            timers.input_ended(now);
        }
        Relay { policy, input_ended: policy.receive_only, shut_down: false, timers, unacknowledged: 0 }
    }

    /// Returns whether to read input.
    pub fn wants_input(&self, status: &FlowStatus) -> bool {
        !self.input_ended && !status.closed && status.send_room > 0
    }

    /// Returns whether to write output.
    pub fn wants_output(&self, status: &FlowStatus) -> bool {
        status.received > 0
    }

    /// Returns whether received data is dropped.
    pub(crate) fn drops_output(&self) -> bool {
        self.policy.send_only
    }

    /// Notes that bytes moved, in either direction.
    pub fn moved(&mut self, now: Duration) {
        self.timers.moved(now);
    }

    /// Notes that the input has ended.
    pub(crate) fn input_ended(&mut self, now: Duration) {
        if !self.input_ended {
            self.input_ended = true;
            self.timers.input_ended(now);
        }
    }

    /// Returns whether the input has ended.
    pub(crate) fn has_input_ended(&self) -> bool {
        self.input_ended
    }

    /// Notes that the output has no reader any more: from now on the relay only sends.
    pub(crate) fn output_closed(&mut self) {
        self.policy.send_only = true;
    }

    /// Decides on the next step. Call it again whenever something has changed or [`Relay::deadline`] comes.
    pub fn step(&mut self, now: Duration, status: &FlowStatus) -> Step {
        if status.unacknowledged < self.unacknowledged {
            self.timers.acknowledged(now);
        }
        self.unacknowledged = status.unacknowledged;
        if status.received == 0 && (status.closed || self.policy.receive_only && status.peer_finished) {
            return Step::Done(Outcome::Complete);
        }
        if self.input_ended && !self.shut_down && (!self.policy.no_shutdown || status.peer_finished) {
            self.shut_down = true;
            return Step::Shutdown;
        }
        if self.policy.send_only && self.input_ended && status.unacknowledged == 0 {
            return Step::Done(Outcome::Complete);
        }
        if self.timers.quit_at().is_some_and(|at| at <= now) && status.received == 0 {
            return Step::Done(match status.unacknowledged {
                0 => Outcome::Complete,
                bytes => Outcome::Undelivered(bytes),
            });
        }
        if self.timers.idle_at().is_some_and(|at| at <= now) {
            return Step::Done(Outcome::Idle);
        }
        Step::Relay
    }

    /// Returns when [`Relay::step`] is due without any event.
    pub fn deadline(&self) -> Option<Duration> {
        self.timers.quit_at().into_iter().chain(self.timers.idle_at()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const OPEN: FlowStatus =
        FlowStatus { send_room: 10, unacknowledged: 0, received: 0, peer_finished: false, closed: false };

    /// The module's table, row by row: policy, input ended?, status, expected steps.
    #[test]
    fn the_table_of_ends() {
        let plain = Policy::default();
        let held = Policy { no_shutdown: true, ..plain };
        let send = Policy { send_only: true, ..plain };
        let receive = Policy { receive_only: true, ..plain };
        let ended = FlowStatus { peer_finished: true, ..OPEN };
        let unread = FlowStatus { received: 1, ..OPEN };
        let unacked = FlowStatus { unacknowledged: 5, ..OPEN };
        let closed = FlowStatus { closed: true, peer_finished: true, ..OPEN };
        let done = Step::Done(Outcome::Complete);
        let rows: &[(Policy, bool, FlowStatus, &[Step])] = &[
            (plain, false, OPEN, &[Step::Relay]),
            (plain, true, OPEN, &[Step::Shutdown, Step::Relay]),
            (plain, true, unacked, &[Step::Shutdown, Step::Relay]),
            (plain, false, ended, &[Step::Relay]),
            (plain, true, ended, &[Step::Shutdown, Step::Relay]),
            (plain, true, closed, &[done]),
            (plain, true, FlowStatus { received: 1, ..closed }, &[Step::Shutdown, Step::Relay]),
            (held, true, OPEN, &[Step::Relay]),
            (held, true, ended, &[Step::Shutdown, Step::Relay]),
            (send, true, unacked, &[Step::Shutdown, Step::Relay]),
            (send, true, OPEN, &[Step::Shutdown, done]),
            (receive, false, OPEN, &[Step::Shutdown, Step::Relay]),
            (receive, false, unread, &[Step::Shutdown, Step::Relay]),
            (receive, false, ended, &[done]),
        ];
        for (policy, input_ended, status, steps) in rows {
            let mut relay = Relay::new(*policy, at(0));
            if *input_ended {
                relay.input_ended(at(0));
            }
            for step in *steps {
                assert_eq!(relay.step(at(1), status), *step, "{policy:?} {input_ended} {status:?}");
            }
        }
    }

    #[test]
    fn quitting_waits_for_acknowledgements_that_still_come() {
        let policy = Policy { quit_after: Some(at(100)), ..Policy::default() };
        let mut relay = Relay::new(policy, at(0));
        let unacked = |bytes| FlowStatus { unacknowledged: bytes, ..OPEN };
        assert_eq!(relay.step(at(0), &unacked(9)), Step::Relay);
        assert_eq!(relay.deadline(), None);
        relay.input_ended(at(10));
        assert_eq!(relay.step(at(10), &unacked(9)), Step::Shutdown);
        assert_eq!(relay.deadline(), Some(at(110)));
        assert_eq!(relay.step(at(109), &unacked(4)), Step::Relay);
        assert_eq!(relay.step(at(208), &unacked(4)), Step::Relay);
        assert_eq!(relay.step(at(209), &unacked(4)), Step::Done(Outcome::Undelivered(4)));
        assert_eq!(relay.step(at(309), &unacked(0)), Step::Relay);
        assert_eq!(relay.step(at(409), &unacked(0)), Step::Done(Outcome::Complete));
    }

    #[test]
    fn silence_ends_an_idle_relay_and_bytes_do_not() {
        let policy = Policy { idle_timeout: Some(at(100)), ..Policy::default() };
        let mut relay = Relay::new(policy, at(0));
        assert_eq!(relay.step(at(99), &OPEN), Step::Relay);
        relay.moved(at(99));
        assert_eq!(relay.step(at(198), &OPEN), Step::Relay);
        assert_eq!(relay.step(at(199), &OPEN), Step::Done(Outcome::Idle));
    }

    proptest! {
        /// In any order of events, a FIN is sent at most once, never before the input's end, and
        /// nothing received is left behind when it is over.
        #[test]
        fn ends_come_in_order(
            policy in (any::<bool>(), any::<bool>()).prop_map(|(no_shutdown, send_only)| Policy { no_shutdown, send_only, ..Policy::default() }),
            events in proptest::collection::vec((0..5u8, 0..3usize), 1..40),
        ) {
            let mut relay = Relay::new(policy, at(0));
            let mut status = OPEN;
            let (mut ended, mut shut) = (false, false);
            for (i, (event, amount)) in events.into_iter().enumerate() {
                let now = at(i as u64);
                match event {
                    0 => status.unacknowledged = amount,
                    1 if !status.peer_finished => status.received = amount,
                    2 if status.received == 0 => status.peer_finished = true,
                    3 => { relay.input_ended(now); ended = true; }
                    4 => status.closed = shut && status.peer_finished && status.unacknowledged == 0,
                    _ => {}
                }
                match relay.step(now, &status) {
                    Step::Shutdown => { prop_assert!(ended && !shut); shut = true; }
                    Step::Done(outcome) => {
                        prop_assert_eq!(outcome, Outcome::Complete);
                        prop_assert!(ended && (shut || policy.send_only && policy.no_shutdown) && status.unacknowledged == 0);
                        prop_assert!(status.received == 0 || policy.send_only);
                        break;
                    }
                    Step::Relay => {}
                }
            }
        }
    }
}
