//! `-z`: what its lines say beside the states.
use crate::support::{
    netkat::netkat,
    peers::Netcat,
    requirements::lab,
    rules::nft,
    scan::round_trip,
    topology::{Family, Pair},
};

/// Every answer has its round trip, a bare FIN or silence none. The path takes 20 ms each way.
#[test]
fn a_line_has_the_round_trip() {
    lab!("nft", "ncat");
    let pair = Pair::over("--both delay=20ms");
    nft(
        &pair.peer,
        "table inet lab { chain c { type filter hook input priority 0; tcp dport 6001 drop; udp dport 6001 drop;
            meta l4proto { tcp, udp } th dport 6002 reject with icmpx admin-prohibited; }; }",
    );
    for family in Family::ALL {
        let at = pair.peer_address(family);
        let _server = Netcat::Ncat.listen(&pair.peer, at, 5000, |c| c);
        for flags in ["-z -w 2", "-z -u -w 2"] {
            let scan = netkat(&pair.host, &format!("{flags} {at} 5000,4999,6002,6001")).run();
            let text = scan.text();
            let times: Vec<_> = text.lines().map(round_trip).collect();
            assert_eq!(times.len(), 4, "{scan}");
            for time in times.iter().take(3) {
                assert!(time.is_some_and(|time| (40.0..1000.0).contains(&time)), "{scan}");
            }
            assert_eq!(times[3], None, "{scan}");
        }
    }
}
