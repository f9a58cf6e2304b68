//! The most recent closed connections, whose stragglers still get an answer.
//!
//! A listener on a host that translates addresses must not answer segments of unknown connections.
//! A peer that missed our reset would get no answer unless its connection is remembered for a
//! while.
use crate::net::FiveTuple;
use std::collections::{HashSet, VecDeque};

/// Maximum connections remembered; a further one replaces the oldest.
pub(crate) const LIMIT: usize = 1024;

/// A bounded set of closed connections.
#[derive(Debug, Default)]
pub(crate) struct RecentlyClosed {
    known: HashSet<FiveTuple>,
    /// The connections of `known`, the oldest first.
    order: VecDeque<FiveTuple>,
}

impl RecentlyClosed {
    /// Adds a connection. Returns the oldest one if it was dropped to make room.
    pub(crate) fn insert(&mut self, tuple: FiveTuple) -> Option<FiveTuple> {
        if !self.known.insert(tuple) {
            return None;
        }
        self.order.push_back(tuple);
        let oldest = if self.order.len() > LIMIT { self.order.pop_front() } else { None }?;
        self.known.remove(&oldest);
        Some(oldest)
    }

    /// Returns whether the connection is remembered.
    pub(crate) fn contains(&self, tuple: &FiveTuple) -> bool {
        self.known.contains(tuple)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Protocol;
    use std::net::Ipv4Addr;

    fn tuple(port: usize) -> FiveTuple {
        let at = |last, port| (Ipv4Addr::new(10, 0, 0, last), port).into();
        FiveTuple { protocol: Protocol::Tcp, local: at(1, 80), remote: at(2, port as u16) }
    }

    #[test]
    fn the_last_are_remembered_and_no_more() {
        let mut recently_closed = RecentlyClosed::default();
        for port in 0..LIMIT {
            assert_eq!(recently_closed.insert(tuple(port)), None);
            assert_eq!(recently_closed.insert(tuple(0)), None);
        }
        assert_eq!(recently_closed.insert(tuple(LIMIT)), Some(tuple(0)));
        assert!(
            !recently_closed.contains(&tuple(0))
                && recently_closed.contains(&tuple(1))
                && recently_closed.contains(&tuple(LIMIT))
        );
        assert_eq!((recently_closed.known.len(), recently_closed.order.len()), (LIMIT, LIMIT));
    }
}
