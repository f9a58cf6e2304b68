//! Confirms the route back to a source before the stack answers it.
//!
//! A packet proves only which interface and which neighbour it came from; its source address is a
//! claim. A kernel answers to where its routing and neighbour tables lead, so a host that forges
//! another's address does not receive the answer. The stack does no I/O and has no such tables.
//! Where it needs the route back, it returns an [`UnverifiedSource`]. The event loop asks the
//! kernel, passes the answer to [`super::Stack::learn_return_route`], and then hands the stack the
//! same packet again.
//!
//! A flood of forged sources stays cheap. An answer, positive or negative, holds for one to two
//! seconds. The number of answers is bounded, and so is the rate of queries. Beyond that rate a
//! SYN is answered with a SYN cookie, at no cost in memory. The ACK that returns the cookie raises
//! a query before the flow is made; a reserve of queries is kept for such ACKs.
use super::martian::LOOPBACK_INTERFACE;
use crate::{
    host::metrics::Metrics,
    link::{LinkHeader, NextHop},
    neighbour::Neighbour,
    net::{FiveTuple, MacAddr},
};
use std::{collections::HashMap, mem, net::IpAddr, time::Duration};

/// Minimum lifetime of an answer; the maximum is twice as long.
const LIFETIME: Duration = Duration::from_secs(1);
/// Maximum answers in each of the two generations; an answer takes about 100 bytes.
const MAX_ANSWERS: usize = 4096;
/// Minimum interval between queries in the long run: 4,000 a second.
const INTERVAL: Duration = Duration::from_micros(250);
/// Maximum lead of queries over the long-run rate: 1,000 at once.
const BURST: Duration = Duration::from_millis(250);
/// Maximum lead of queries that complete a handshake: 1,000 more at once.
const RESERVE: Duration = Duration::from_millis(500);

/// A source whose route back is unknown, and the packet that it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnverifiedSource {
    /// Index of the interface that the packet came in by.
    pub interface: u32,
    /// The frame's source; `None` on a link without addresses.
    pub sender: Option<MacAddr>,
    /// The packet's destination.
    pub local: IpAddr,
    /// The packet's source.
    pub remote: IpAddr,
}

/// The route back to a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnRoute {
    /// Where answers go; `None` for the neighbour that delivered the packet.
    pub next_hop: Option<NextHop>,
    /// The neighbour whose link address answers carry.
    pub neighbour: Neighbour,
    /// The source address of answers to a packet that was addressed to a group or to all hosts.
    pub source: Option<IpAddr>,
    /// The route's metrics.
    pub metrics: Metrics,
}

/// The decision about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validation {
    /// The packet may be answered.
    Valid {
        next_hop: NextHop,
        neighbour: Neighbour,
        /// The answer's source, if the packet was not addressed to this host alone.
        source: Option<IpAddr>,
        /// The metrics of the answer's route.
        metrics: Metrics,
    },
    /// The packet is dropped.
    Invalid,
    /// The packet has to be handed over again once the route back is known.
    Unverified(UnverifiedSource),
    /// The rate of queries is exhausted.
    RateLimited,
}

/// The known routes back. By default every source is trusted, and nothing is asked.
#[derive(Debug, Default)]
pub(super) struct SourceValidator {
    enabled: bool,
    answers: HashMap<UnverifiedSource, Option<ReturnRoute>>,
    /// The previous generation.
    older: HashMap<UnverifiedSource, Option<ReturnRoute>>,
    /// When the current generation began.
    since: Duration,
    /// When the queries asked so far would end at the long-run rate.
    busy_until: Duration,
}

impl SourceValidator {
    /// Turns on the validation.
    pub(crate) fn enable(&mut self) {
        self.enabled = true;
    }

    /// Validates a packet of `tuple`, which came from where `reply` goes. `completes` says that the
    /// packet ends a handshake, which proves that its sender received our SYN-ACK.
    pub(crate) fn validate(
        &mut self,
        now: Duration,
        tuple: &FiveTuple,
        reply: &NextHop,
        completes: bool,
    ) -> Validation {
        if !self.enabled || reply.interface == LOOPBACK_INTERFACE {
            return Validation::Valid {
                next_hop: *reply,
                neighbour: Neighbour::Sender(None),
                source: None,
                metrics: Metrics::default(),
            };
        }
        let sender = reply.destination();
        // The frame's source is a group address, or missing.
        if sender.is_none() && reply.header != LinkHeader::None {
            return Validation::Invalid;
        }
        let (local, remote) = (tuple.local.ip(), tuple.remote.ip());
        let unverified = UnverifiedSource { interface: reply.interface, sender, local, remote };
        self.age(now);
        match self.answers.get(&unverified).or_else(|| self.older.get(&unverified)).copied() {
            Some(Some(ReturnRoute { next_hop, neighbour, source, metrics })) => {
                Validation::Valid { next_hop: next_hop.unwrap_or(*reply), neighbour, source, metrics }
            }
            Some(None) => Validation::Invalid,
            None if self.may_ask(now, if completes { RESERVE } else { BURST }) => {
                Validation::Unverified(unverified)
            }
            None => Validation::RateLimited,
        }
    }

    /// Stores the route back to a source; `None` if there is no route back.
    pub(crate) fn learn(&mut self, unverified: UnverifiedSource, route: Option<ReturnRoute>) {
        if self.answers.len() >= MAX_ANSWERS {
            self.older = mem::take(&mut self.answers);
        }
        self.answers.insert(unverified, route);
    }

    /// Drops all answers, because the tables that they came from have changed.
    pub(crate) fn forget(&mut self) {
        self.answers.clear();
        self.older.clear();
    }

    /// Starts a new generation of answers when the current one is old enough.
    fn age(&mut self, now: Duration) {
        if now >= self.since + LIFETIME {
            self.older = match now < self.since + 2 * LIFETIME {
                true => mem::take(&mut self.answers),
                false => HashMap::new(),
            };
            self.answers.clear();
            self.since = now;
        }
    }

    /// Returns whether the rate allows one more unverified, and counts it (a leaky bucket: GCRA,
    /// ITU-T I.371).
    fn may_ask(&mut self, now: Duration, ahead: Duration) -> bool {
        let busy_until = self.busy_until.max(now);
        let may = busy_until + INTERVAL <= now + ahead;
        if may {
            self.busy_until = busy_until + INTERVAL;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Protocol;
    use std::net::{Ipv4Addr, SocketAddr};

    const INTERFACE: u32 = 2;

    fn tuple(peer: u32) -> FiveTuple {
        let local = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 80);
        let remote = SocketAddr::new(Ipv4Addr::from_bits(0x0b00_0000 + peer).into(), 1);
        FiveTuple { protocol: Protocol::Tcp, local, remote }
    }

    fn from(last: u8) -> NextHop {
        let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
        let header = LinkHeader::Ethernet { destination: mac(last), source: mac(1) };
        NextHop { interface: INTERFACE, header }
    }

    fn validator() -> SourceValidator {
        let mut validator = SourceValidator::default();
        validator.enable();
        validator
    }

    fn unverified(validation: Validation) -> UnverifiedSource {
        match validation {
            Validation::Unverified(unverified) => unverified,
            other => panic!("{other:?}"),
        }
    }

    const METRICS: Metrics = Metrics {
        mtu: None,
        advertised_mss: Some(700),
        hop_limit: None,
        initial_window: None,
        rto_min: None,
        congestion_control: None,
    };
    const AT_SENDER: ReturnRoute =
        ReturnRoute { next_hop: None, neighbour: Neighbour::Sender(None), source: None, metrics: METRICS };

    fn valid(next_hop: NextHop, metrics: Metrics) -> Validation {
        Validation::Valid { next_hop, neighbour: Neighbour::Sender(None), source: None, metrics }
    }

    #[test]
    fn an_answer_holds_for_a_second_or_two_and_for_its_sender_alone() {
        let at = Duration::from_millis;
        for (route, expected) in [
            (Some(AT_SENDER), valid(from(2), METRICS)),
            (Some(ReturnRoute { next_hop: Some(from(9)), ..AT_SENDER }), valid(from(9), METRICS)),
            (None, Validation::Invalid),
        ] {
            let mut validator = validator();
            let asked = unverified(validator.validate(at(5000), &tuple(1), &from(2), false));
            validator.learn(asked, route);
            for millis in [5000, 5999, 6000, 6999] {
                assert_eq!(
                    validator.validate(at(millis), &tuple(1), &from(2), false),
                    expected,
                    "{millis} ms"
                );
            }
            unverified(validator.validate(at(5000), &tuple(1), &from(3), false));
            unverified(validator.validate(at(5000), &tuple(2), &from(2), false));
            unverified(validator.validate(at(7000), &tuple(1), &from(2), false));
            validator.learn(asked, route);
            validator.forget();
            unverified(validator.validate(at(7000), &tuple(1), &from(2), false));
        }
    }

    #[test]
    fn lo_and_a_stack_without_an_engine_need_no_question() {
        let lo = NextHop { interface: LOOPBACK_INTERFACE, header: LinkHeader::LOOPBACK };
        let open = |reply| valid(reply, Metrics::default());
        assert_eq!(validator().validate(Duration::ZERO, &tuple(1), &lo, false), open(lo));
        assert_eq!(
            SourceValidator::default().validate(Duration::ZERO, &tuple(1), &from(2), false),
            open(from(2))
        );
    }

    #[test]
    fn a_frame_from_a_group_is_dropped() {
        let header =
            LinkHeader::Ethernet { destination: MacAddr::BROADCAST, source: MacAddr([2, 0, 0, 0, 0, 1]) };
        let reply = NextHop { interface: INTERFACE, header };
        assert_eq!(validator().validate(Duration::ZERO, &tuple(1), &reply, false), Validation::Invalid);
    }

    #[test]
    fn a_flood_asks_little_and_fills_little() {
        let mut validator = validator();
        let mut asked = 0;
        // 100,000 sources a second for three seconds.
        for number in 0..300_000u32 {
            let now = Duration::from_micros(10 * u64::from(number));
            if let Validation::Unverified(unverified) =
                validator.validate(now, &tuple(number), &from(2), false)
            {
                validator.learn(unverified, None);
                asked += 1;
            }
            assert!(validator.answers.len() <= MAX_ANSWERS && validator.older.len() <= MAX_ANSWERS);
        }
        assert!((12_500..=13_100).contains(&asked), "{asked} queries");
        // A completed handshake has the reserve.
        let now = Duration::from_secs(3);
        while validator.validate(now, &tuple(1 << 20), &from(2), false) != Validation::RateLimited {}
        unverified(validator.validate(now, &tuple(1 << 20), &from(2), true));
    }
}
