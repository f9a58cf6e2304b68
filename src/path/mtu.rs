//! The search of a path's MTU (RFC 4821; RFC 8899): the next size to try, and the meaning of the answers.
//!
//! The first size is the link's. A router that says how much its next link carries is believed and tried
//! (RFC 1191, RFC 8201); where no router does, the search goes by bisection between sizes that arrive and sizes
//! that are lost.
use std::net::IpAddr;

/// Packets of one size before that size counts as lost (RFC 8899, section 5.1.2, MAX_PROBES).
pub(crate) const TRIES: u32 = 3;

/// Messages that are believed: more than there are narrower links on a path.
const MAX_TOLD: usize = 8;

/// A "packet too big" or "fragmentation needed" message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooBig {
    pub from: IpAddr,
    /// The next link's MTU, in bytes; 0 where the router does not give it.
    pub mtu: u32,
    /// Size of the packet that it was about, in bytes.
    pub size: u32,
}

/// The next step of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send a packet of this size, in bytes.
    Try(u32),
    Done,
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MtuFinding {
    /// The largest size that arrived, in bytes; `None` if nothing did.
    pub mtu: Option<u32>,
    /// The messages of routers, in the order of their arrival.
    pub told: Vec<TooBig>,
    /// The smallest size that was lost without a message, in bytes.
    pub lost: Option<u32>,
}

impl MtuFinding {
    /// Returns whether packets that the flow may use, of up to `used` bytes, are lost without a word, while smaller ones
    /// arrive.
    pub(crate) fn is_black_hole(&self, used: u32) -> bool {
        self.mtu.is_some_and(|mtu| mtu < used) && self.lost.is_some_and(|lost| lost <= used)
    }
}

/// A search under way.
#[derive(Debug)]
pub(crate) struct MtuSearch {
    least: u32,
    /// The largest size known to arrive, and the smallest known not to.
    arrives: Option<u32>,
    fails: u32,
    /// The size to try, and the packets of it without an answer.
    candidate: u32,
    tries: u32,
    told: Vec<TooBig>,
    lost: Option<u32>,
}

impl MtuSearch {
    /// Returns a search from the link's MTU down to the least size that a path has to carry, both in bytes.
    pub(crate) fn new(link: u32, least: u32) -> MtuSearch {
        let least = least.min(link);
        MtuSearch {
            least,
            arrives: None,
            fails: link.saturating_add(1),
            candidate: link,
            tries: 0,
            told: Vec::new(),
            lost: None,
        }
    }

    /// Returns the next step.
    pub(crate) fn step(&self) -> Step {
        let over = self.arrives.is_some_and(|arrives| arrives + 1 >= self.fails) || self.fails <= self.least;
        if over { Step::Done } else { Step::Try(self.candidate) }
    }

    /// Notes that a packet of this size arrived.
    pub(crate) fn arrived(&mut self, size: u32) {
        if size < self.fails && self.arrives.is_none_or(|arrives| arrives < size) {
            self.arrives = Some(size);
            self.choose();
        }
    }

    /// Notes that a packet of this size was answered by nothing.
    pub(crate) fn unanswered(&mut self, size: u32) {
        if size != self.candidate {
            return;
        }
        self.tries += 1;
        if self.tries >= TRIES {
            self.lost = Some(self.lost.map_or(size, |lost| lost.min(size)));
            self.fail(size);
        }
    }

    /// Notes a router's message. One that claims what cannot be is noted, and the search goes on by itself.
    pub(crate) fn too_big(&mut self, message: TooBig) {
        if message.size >= self.fails || self.arrives.is_some_and(|arrives| arrives >= message.size) {
            return;
        }
        self.told.push(message);
        self.fail(message.size);
        let plausible = (self.least..self.fails).contains(&message.mtu) && self.told.len() <= MAX_TOLD;
        if plausible && self.arrives.is_none_or(|arrives| message.mtu > arrives) {
            self.candidate = message.mtu;
        }
    }

    /// Returns what was found.
    pub(crate) fn finding(self) -> MtuFinding {
        MtuFinding { mtu: self.arrives, told: self.told, lost: self.lost }
    }

    /// Returns whether any size has arrived.
    pub(crate) fn arrives(&self) -> bool {
        self.arrives.is_some()
    }

    /// Returns the smallest size that was lost without a message.
    pub(crate) fn lost(&self) -> Option<u32> {
        self.lost
    }

    fn fail(&mut self, size: u32) {
        self.fails = self.fails.min(size);
        self.choose();
    }

    /// Chooses the size between what arrives and what fails. The least size comes first: whether anything arrives.
    fn choose(&mut self) {
        self.tries = 0;
        self.candidate = match self.arrives {
            None => self.least,
            // As a rule a router's word, or the bisection's last step, is the limit.
            Some(arrives) if self.told.last().is_some_and(|told| told.mtu == arrives) => arrives + 1,
            Some(arrives) => arrives + (self.fails - arrives) / 2,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    /// Searches a path that carries `carries`, whose router tells `tells` or nothing. Returns the finding and the packets
    /// sent.
    fn search(link: u32, carries: u32, tells: Option<u32>) -> (MtuFinding, u32) {
        let (mut search, mut sent) = (MtuSearch::new(link, 552), 0);
        while let Step::Try(size) = search.step() {
            sent += 1;
            assert!(sent < 100, "{search:?}");
            match (size <= carries, tells) {
                (true, _) => search.arrived(size),
                (false, Some(mtu)) => search.too_big(TooBig { from: ROUTER, mtu, size }),
                (false, None) => search.unanswered(size),
            }
        }
        (search.finding(), sent)
    }

    #[test]
    fn a_path_that_carries_the_links_mtu_takes_one_packet() {
        let (found, sent) = search(1500, 1500, None);
        assert_eq!((found.mtu, found.told.len(), found.lost, sent), (Some(1500), 0, None, 1));
    }

    #[test]
    fn a_router_is_believed_and_tried() {
        let (found, sent) = search(1500, 1400, Some(1400));
        assert_eq!((found.mtu, found.lost), (Some(1400), None));
        assert_eq!(found.told.first(), Some(&TooBig { from: ROUTER, mtu: 1400, size: 1500 }));
        assert!(sent <= 3, "{sent}");
        assert!(!found.is_black_hole(1500));
    }

    #[test]
    fn a_black_hole_is_measured_by_bisection() {
        let (found, sent) = search(1500, 1400, None);
        assert_eq!((found.mtu, found.told.len()), (Some(1400), 0));
        assert!(found.lost == Some(1401) && sent < 40, "{found:?} {sent}");
        assert!(found.is_black_hole(1500) && found.is_black_hole(1401) && !found.is_black_hole(1400));
    }

    #[test]
    fn a_path_that_carries_nothing_has_no_mtu() {
        let (found, _) = search(1500, 0, None);
        assert_eq!(found.mtu, None);
        assert!(!found.is_black_hole(1500));
    }

    #[test]
    fn one_loss_is_no_limit() {
        let mut search = MtuSearch::new(1500, 552);
        search.unanswered(1500);
        search.unanswered(1500);
        search.arrived(1500);
        assert_eq!(search.step(), Step::Done);
        assert_eq!(search.finding().mtu, Some(1500));
    }

    proptest! {
        /// Whatever a router claims, the search ends at the size that passes.
        #[test]
        fn every_search_ends_at_the_paths_mtu(link in 600..9000u32, carries in 552..9500u32, tells in proptest::option::of(0..9500u32)) {
            let (found, _) = search(link, carries, tells);
            prop_assert_eq!(found.mtu, Some(carries.min(link)));
        }
    }
}
