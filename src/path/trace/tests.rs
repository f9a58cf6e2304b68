//! The hops of a flow, decided from tables of answers.
use super::*;

const TARGET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 9, 2));

fn router(number: u8) -> IpAddr {
    [10, 0, number, 1].into()
}

fn reply(from: IpAddr, kind: ReplyKind, hop_limit: u8) -> Reply {
    let (changes, labels) = (Vec::new(), Vec::new());
    Reply { from, kind, round_trip: Some(Duration::from_millis(1)), hop_limit, changes, labels }
}

/// A trace of three probes for each of ten hops, where this many are answered by router or far end.
fn trace(answers: &[(usize, ReplyKind)]) -> Trace {
    let mut trace = Trace::new(TARGET, 10);
    for number in 1..=10 {
        for place in 0..3 {
            assert_eq!(trace.sent(number, false), place);
            let Some((count, kind)) = answers.get(usize::from(number) - 1) else { continue };
            if place < *count {
                let from = if *kind == ReplyKind::Exceeded { router(number) } else { TARGET };
                trace.answered(number, place, reply(from, *kind, 65 - number));
            }
        }
    }
    trace
}

const TE: ReplyKind = ReplyKind::Exceeded;
const SYN_ACK: ReplyKind = ReplyKind::Reached(Reached::SynAck);
const RST: ReplyKind = ReplyKind::Reached(Reached::Reset);

#[test]
fn the_end_of_a_flow_is_told() {
    let prohibited = Reason::AdministrativelyProhibited;
    for (answers, expected) in [
        (vec![(3, TE), (3, TE), (3, SYN_ACK)], End::Reached { by: Reached::SynAck, hop: 3 }),
        (vec![(3, TE), (0, TE), (1, RST)], End::Reached { by: Reached::Reset, hop: 3 }),
        (vec![(3, TE), (0, TE), (1, TE)], End::DiesAfter { hop: 3, from: router(3) }),
        (vec![(3, TE); 10], End::TooFar { hops: 10 }),
        (vec![], End::NoAnswer),
        (
            vec![(1, TE), (2, ReplyKind::Rejected(prohibited))],
            End::Rejected { hop: 2, from: TARGET, reason: prohibited },
        ),
    ] {
        assert_eq!(trace(&answers).end(), expected, "{answers:?}");
    }
}

/// The router that rejects what it forwards counts as the hop whose limit it exceeded.
#[test]
fn who_rejects_is_the_router_that_forwards() {
    let reason = Reason::HostProhibited;
    let mut trace = trace(&[(3, TE), (3, TE)]);
    trace.answered(3, 0, reply(router(2), ReplyKind::Rejected(reason), 63));
    assert_eq!(trace.end(), End::Rejected { hop: 2, from: router(2), reason });
}

/// A firewall's reset arrives with the TTL of the firewall's errors, the peer's own with one less.
#[test]
fn a_reset_in_the_peers_name_is_told() {
    for (hop_limit, by_router) in [(63, true), (62, false), (255 - 1, true), (128 - 2, false)] {
        let mut trace = trace(&[(3, TE), (3, TE)]);
        trace.answered(3, 0, reply(TARGET, RST, hop_limit));
        let expected = match by_router {
            true => End::ResetBy { hop: 2, from: router(2) },
            false => End::Reached { by: Reached::Reset, hop: 3 },
        };
        assert_eq!(trace.end(), expected, "{hop_limit}");
    }
}

#[test]
fn an_answer_that_tells_no_probe_comes_from_behind_the_last_router() {
    let mut trace = trace(&[(3, TE), (0, TE), (2, TE)]);
    trace.reached(reply(TARGET, SYN_ACK, 60));
    assert_eq!(trace.end(), End::Reached { by: Reached::SynAck, hop: 4 });
    trace.conclude();
    assert_eq!((trace.hops.len(), trace.hops[3].answered()), (4, 1));
    assert_eq!(trace.end(), End::Reached { by: Reached::SynAck, hop: 4 });
}

#[test]
fn a_rate_limit_is_told_from_loss_by_what_lies_beyond() {
    let cases: [(&[(usize, ReplyKind)], Fate); 6] = [
        (&[(3, TE), (3, TE), (3, SYN_ACK)], Fate::Answers),
        (&[(3, TE), (1, TE), (3, SYN_ACK)], Fate::LimitsIcmp),
        (&[(3, TE), (1, TE), (2, TE), (0, TE)], Fate::LimitsIcmp),
        (&[(3, TE), (2, TE), (2, SYN_ACK)], Fate::Loses),
        (&[(3, TE), (2, TE), (1, SYN_ACK)], Fate::Loses),
        (&[(3, TE), (0, TE), (3, SYN_ACK)], Fate::Silent),
    ];
    let unreachable = ReplyKind::Reached(Reached::PortUnreachable);
    assert_eq!(
        trace(&[(3, TE), (1, unreachable)]).fate(2),
        Fate::LimitsIcmp,
        "a host's errors are limited, too"
    );
    assert_eq!(trace(&[(1, TE), (1, unreachable)]).fate(2), Fate::Loses);
    for (answers, expected) in cases {
        assert_eq!(trace(answers).fate(2), expected, "{answers:?}");
    }
}

/// A firewall that drops SYNs with few hops left, say, lets the established connection's segments die further on.
#[test]
fn hops_that_only_an_established_connection_reaches_lose_nothing() {
    let mut trace = Trace::new(TARGET, 10);
    for number in 1..=3 {
        for (place, syn) in [(0, true), (1, false), (2, false)] {
            assert_eq!(trace.sent(number, syn), place);
            let kind = if number == 3 { ReplyKind::Reached(Reached::Acknowledged) } else { TE };
            if number == 1 || !syn {
                trace.answered(number, place, reply(router(number), kind, 60));
            }
        }
    }
    trace.reached(reply(TARGET, SYN_ACK, 60));
    assert_eq!(
        [1, 2, 3].map(|number| trace.fate(number)),
        [Fate::Answers, Fate::OnlyEstablished, Fate::OnlyEstablished]
    );
    assert_eq!(trace.end(), End::Reached { by: Reached::SynAck, hop: 3 });
}

#[test]
fn paths_part_where_addresses_differ() {
    let (a, mut b) = (trace(&[(1, TE), (1, TE), (1, TE)]), trace(&[(1, TE), (0, TE), (0, TE)]));
    assert_eq!(part_at(&[&a, &b]), None, "what is silent differs from nothing");
    b.answered(3, 0, reply(router(99), TE, 60));
    assert_eq!(part_at(&[&a, &b]), Some(3));
    assert_eq!(part_at(&[&a]), None);
}
