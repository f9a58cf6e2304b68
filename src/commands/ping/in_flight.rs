//! The pings whose answers may still come, by the key that their answers repeat.
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// Distance of the keys of consecutive pings, odd so that a key comes again after 2³² pings only. It is larger than a
/// window: a peer that missed the reset of the ping before takes a SYN within its window for an error (RFC 9293, section
/// 3.10.7.4), but challenges one beyond it.
const STRIDE: u32 = 0x9e37_79b1;
/// Time for which an answer after the wait is still known as late.
const LATE: Duration = Duration::from_secs(10);

/// A ping that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Place of its target.
    pub target: usize,
    pub number: u64,
    /// The time of sending, since 1970: the kernel's, or just before.
    pub at: Duration,
    /// The time just after.
    pub until: Duration,
    /// IPv4 identification, and the transport's checksum.
    pub id: u16,
    pub checksum: Option<u16>,
    /// It was sent a second time, since the peer was half open then.
    pub again: bool,
    pub state: State,
}

/// The state of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Answered,
    /// The wait is over.
    Lost,
}

/// The pings sent of late.
#[derive(Debug)]
pub(super) struct InFlight {
    next: u32,
    sent: HashMap<u32, Sent>,
    /// Ends of the waits, and the times from which pings are forgotten, in their order.
    ends: VecDeque<(Duration, u32)>,
    forgotten: VecDeque<(Duration, u32)>,
    waiting: usize,
}

impl InFlight {
    /// Returns a table without pings; keys begin at `seed`.
    pub(super) fn new(seed: u32) -> InFlight {
        let (ends, forgotten) = (VecDeque::new(), VecDeque::new());
        InFlight { next: seed, sent: HashMap::new(), ends, forgotten, waiting: 0 }
    }

    /// Returns the next ping's key.
    pub(super) fn key(&mut self) -> u32 {
        self.next = self.next.wrapping_add(STRIDE);
        self.next
    }

    /// Adds a ping, whose answer is waited for until `end`. Call it in the order of the ends.
    pub(super) fn insert(&mut self, key: u32, sent: Sent, end: Duration) {
        self.sent.insert(key, sent);
        self.ends.push_back((end, key));
        self.waiting += 1;
    }

    /// Returns a ping by its key.
    pub(super) fn get(&self, key: u32) -> Option<&Sent> {
        self.sent.get(&key)
    }

    /// Returns a ping by its key, to change.
    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut Sent> {
        self.sent.get_mut(&key)
    }

    /// Returns the key of the ping that `is` accepts, the last one first.
    pub(super) fn find(&self, is: impl Fn(&Sent) -> bool) -> Option<u32> {
        let keys = self.ends.iter().rev().chain(self.forgotten.iter().rev()).map(|(_, key)| *key);
        keys.into_iter().find(|key| self.sent.get(key).is_some_and(&is))
    }

    /// Marks a ping as answered. Returns the state before.
    pub(super) fn answer(&mut self, key: u32) -> Option<State> {
        let sent = self.sent.get_mut(&key)?;
        let before = std::mem::replace(&mut sent.state, State::Answered);
        self.waiting -= usize::from(before == State::Waiting);
        Some(before)
    }

    /// Returns the next ping whose wait ends without an answer.
    pub(super) fn expire(&mut self, now: Duration) -> Option<(u32, Sent)> {
        while self.forgotten.front().is_some_and(|(at, _)| *at <= now) {
            self.forgotten.pop_front().and_then(|(_, key)| self.sent.remove(&key));
        }
        while let Some((end, key)) = self.ends.front().copied() {
            let is_waiting = self.sent.get(&key).is_some_and(|sent| sent.state == State::Waiting);
            if is_waiting && end > now {
                break;
            }
            self.ends.pop_front();
            self.forgotten.push_back((now + LATE, key));
            if let Some(sent) = self.sent.get_mut(&key).filter(|_| is_waiting) {
                sent.state = State::Lost;
                self.waiting -= 1;
                return Some((key, *sent));
            }
        }
        None
    }

    /// Returns the end of the first wait. Call it after [`InFlight::expire`].
    pub(super) fn next_end(&self) -> Option<Duration> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// Returns whether no ping waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(number: u64) -> Sent {
        let at = Duration::ZERO;
        Sent {
            target: 0,
            number,
            at,
            until: at,
            id: number as u16,
            checksum: None,
            again: false,
            state: State::Waiting,
        }
    }

    #[test]
    fn a_ping_is_answered_lost_and_forgotten() {
        let s = Duration::from_secs;
        let mut pings = InFlight::new(7);
        let keys: Vec<u32> = (1..=3).map(|_| pings.key()).collect();
        for (at, key) in (1..).zip(&keys) {
            pings.insert(*key, sent(at), s(at));
        }
        assert_eq!(pings.answer(keys[0]), Some(State::Waiting));
        assert_eq!(pings.answer(keys[0]), Some(State::Answered));
        assert_eq!(pings.expire(s(2)).map(|(key, _)| key), Some(keys[1]));
        assert_eq!((pings.expire(s(2)).is_none(), pings.is_idle()), (true, false));
        assert_eq!(pings.answer(keys[1]), Some(State::Lost));
        assert_eq!(pings.find(|sent| sent.id == 3), Some(keys[2]));
        assert_eq!((pings.answer(keys[2]), pings.is_idle()), (Some(State::Waiting), true));
        assert!(pings.expire(s(3)).is_none() && pings.next_end().is_none());
        assert!(pings.expire(s(60)).is_none() && pings.get(keys[0]).is_none());
        assert_eq!(pings.find(|_| true), None);
    }
}
