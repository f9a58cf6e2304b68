//! Whether the two ends of a connection take turns faster than a process can be woken up.
//!
//! Sleep, and an interrupt that ends it, take tens of microseconds (in a virtual machine above all), which is more than
//! many an answer takes. Where answers have come that quickly several times, the next one is awaited by asking for it
//! again and again, for a little while; the kernel does the same for its sockets (net.core.busy_poll, socket(7)) and
//! its hypervisor for idle processors (Documentation/virt/guest-halt-polling.rst).
use super::transcript::Direction;
use std::time::Duration;

/// How long to stay awake for an answer. Twice a wake-up here is worth it, and beyond it the processor is better given
/// to others.
const AWAKE: Duration = Duration::from_micros(50);
/// A turn is quick that comes within this: what staying awake can catch, and a wake-up, which it saves.
const QUICK: Duration = Duration::from_micros(100);
/// So many quick turns in a row make a dialogue.
const TURNS: u32 = 4;
/// One that speaks so many times in a row does not wait for an answer.
const PIECES: u32 = 8;

/// The turns of one connection; or of a server, to which a client that comes is one, and whose end of it is the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dialogue {
    /// Which way bytes moved last, and when; how often so before it was the other end's turn.
    last: Option<(Direction, Duration)>,
    pieces: u32,
    /// Quick turns in a row.
    turns: u32,
}

impl Dialogue {
    /// Bytes moved.
    pub fn moved(&mut self, now: Duration, direction: Direction) {
        match self.last {
            Some((last, at)) if last != direction => {
                self.pieces = 1;
                self.turns = if now.saturating_sub(at) <= QUICK { self.turns + 1 } else { 0 };
            }
            _ => {
                self.pieces += 1;
                if self.pieces > PIECES {
                    self.turns = 0;
                }
            }
        }
        self.last = Some((direction, now));
    }

    /// Until when not to sleep, in a dialogue.
    pub fn awake_until(&self) -> Option<Duration> {
        let (_, at) = self.last.filter(|_| self.turns >= TURNS)?;
        Some(at + AWAKE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Received, Sent};

    const fn at(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// A dialogue whose turns come `gap` microseconds after one another, and when the last one came.
    fn of_turns(turns: u32, gap: u64) -> (Dialogue, u64) {
        let mut dialogue = Dialogue::default();
        let mut time = 1_000;
        for turn in 0..=turns {
            time += gap;
            dialogue.moved(at(time), if turn % 2 == 0 { Sent } else { Received });
        }
        (dialogue, time)
    }

    #[test]
    fn only_some_quick_turns_in_a_row_keep_us_awake_and_only_for_little() {
        assert_eq!(Dialogue::default().awake_until(), None);
        assert_eq!(of_turns(TURNS - 1, 100).0.awake_until(), None);
        let (dialogue, last) = of_turns(TURNS, 100);
        assert_eq!(dialogue.awake_until(), Some(at(last + 50)));
        assert_eq!(of_turns(100, 101).0.awake_until(), None, "a sleep costs little of that");
    }

    #[test]
    fn one_slow_turn_ends_it() {
        let (mut dialogue, last) = of_turns(20, 30);
        assert!(dialogue.awake_until().is_some());
        dialogue.moved(at(last + 101), Received);
        assert_eq!(dialogue.awake_until(), None);
    }

    #[test]
    fn whoever_speaks_on_and_on_waits_for_no_answer() {
        let (mut dialogue, last) = of_turns(20, 30);
        for piece in 1..PIECES.into() {
            dialogue.moved(at(last + piece), Sent);
        }
        assert!(dialogue.awake_until().is_some(), "an answer of several pieces");
        dialogue.moved(at(last + 20), Sent);
        assert_eq!(dialogue.awake_until(), None);
    }
}
