//! Connections that were here: the last of them, whose stragglers still get an answer.
//!
//! A listener on a host that translates addresses must not answer what it knows nothing of. So a peer that missed
//! our reset would send into a void, were its connection not remembered for a while.
use crate::net::FiveTuple;
use std::collections::{HashSet, VecDeque};

/// How many are remembered; one more and the oldest goes.
pub const LIMIT: usize = 1024;

#[derive(Debug, Default)]
pub struct Departed {
    known: HashSet<FiveTuple>,
    /// The same, the oldest first.
    order: VecDeque<FiveTuple>,
}

impl Departed {
    /// Remembers a connection; returns the one that is forgotten for it.
    pub fn insert(&mut self, tuple: FiveTuple) -> Option<FiveTuple> {
        if !self.known.insert(tuple) {
            return None;
        }
        self.order.push_back(tuple);
        let oldest = if self.order.len() > LIMIT { self.order.pop_front() } else { None }?;
        self.known.remove(&oldest);
        Some(oldest)
    }

    pub fn contains(&self, tuple: &FiveTuple) -> bool {
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
        let mut departed = Departed::default();
        for port in 0..LIMIT {
            assert_eq!(departed.insert(tuple(port)), None);
            assert_eq!(departed.insert(tuple(0)), None);
        }
        assert_eq!(departed.insert(tuple(LIMIT)), Some(tuple(0)));
        assert!(
            !departed.contains(&tuple(0)) && departed.contains(&tuple(1)) && departed.contains(&tuple(LIMIT))
        );
        assert_eq!((departed.known.len(), departed.order.len()), (LIMIT, LIMIT));
    }
}
