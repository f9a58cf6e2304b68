//! The flows' timers: when each flow has to be processed next.
use crate::net::FiveTuple;
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

/// A queue of the flows' timers, soonest first.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    of: HashMap<FiveTuple, Duration>,
    order: BTreeSet<(Duration, FiveTuple)>,
}

impl Deadlines {
    /// Sets or clears the deadline of a flow.
    pub(crate) fn set(&mut self, tuple: FiveTuple, deadline: Option<Duration>) {
        let old = match deadline {
            Some(at) => self.of.insert(tuple, at),
            None => self.of.remove(&tuple),
        };
        if old == deadline {
            return;
        }
        if let Some(at) = old {
            self.order.remove(&(at, tuple));
        }
        if let Some(at) = deadline {
            self.order.insert((at, tuple));
        }
    }

    /// Returns the soonest deadline.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Removes and returns one flow whose deadline has passed.
    pub(crate) fn due(&mut self, now: Duration) -> Option<FiveTuple> {
        let (at, tuple) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first();
        self.of.remove(&tuple);
        Some(tuple)
    }
}
