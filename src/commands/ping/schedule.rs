//! The times of pings: the targets in turn, spread evenly over the interval.
use std::time::Duration;

/// The order of pings. Each is a slot, of which every interval has one for each target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Duration,
    interval: Duration,
    targets: u64,
    /// Slots in all; `None` without an end.
    slots: Option<u64>,
    next: u64,
}

impl Schedule {
    /// Returns a schedule of `count` pings for each of the targets, at least one.
    pub(super) fn new(start: Duration, interval: Duration, targets: usize, count: Option<u64>) -> Schedule {
        let targets = (targets as u64).max(1);
        let slots = count.map(|count| count.saturating_mul(targets));
        Schedule { start, interval, targets, slots, next: 0 }
    }

    /// Returns when the next ping is due; `None` once all are sent.
    pub(super) fn due(&self) -> Option<Duration> {
        if self.slots.is_some_and(|slots| self.next >= slots) {
            return None;
        }
        let (round, place) = (self.next / self.targets, self.next % self.targets);
        let rounds = self.interval.as_nanos().saturating_mul(round.into());
        let place = self.interval.as_nanos() * u128::from(place) / u128::from(self.targets);
        let nanos = u64::try_from(rounds.saturating_add(place)).unwrap_or(u64::MAX);
        Some(self.start.saturating_add(Duration::from_nanos(nanos)))
    }

    /// Takes the ping that is due: the target's place and the ping's number, from 1 on.
    pub(super) fn take(&mut self, now: Duration) -> Option<(usize, u64)> {
        let due = self.due().filter(|due| *due <= now)?;
        // After a stop of this process, pings that were missed do not leave as a burst.
        if now > due + self.interval {
            self.start += now - due;
        }
        let slot = self.next;
        self.next += 1;
        Some(((slot % self.targets) as usize, slot / self.targets + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_take_turns_within_the_interval() {
        let ms = Duration::from_millis;
        let mut schedule = Schedule::new(ms(1000), ms(100), 4, Some(2));
        let mut taken = Vec::new();
        while let Some(due) = schedule.due() {
            assert_eq!(schedule.take(due - ms(1)), None);
            let (target, number) = schedule.take(due).expect("a slot");
            taken.push((due.as_millis(), target, number));
        }
        let slots =
            |from: u128, number: u64| [0_u128, 25, 50, 75].map(|ms| (from + ms, (ms / 25) as usize, number));
        assert_eq!(taken, [slots(1000, 1), slots(1100, 2)].concat());
    }

    #[test]
    fn a_stop_moves_the_rest() {
        let ms = Duration::from_millis;
        let mut schedule = Schedule::new(ms(1000), ms(10), 1, None);
        assert_eq!(schedule.take(ms(1000)), Some((0, 1)));
        assert_eq!(schedule.take(ms(5000)), Some((0, 2)));
        assert_eq!((schedule.take(ms(5009)), schedule.due()), (None, Some(ms(5010))));
    }
}
